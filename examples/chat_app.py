"""A chat in the browser, with its person in control of what is learned from them.

    pip install --group examples
    python examples/chat_app.py --scripted      # answers from a script: there in seconds
    python examples/chat_app.py                 # SmolLM2-135M, in this process

`chat_app/assistant.py` is the assistant: all of RLHI's API that a chat needs. `chat_app/page.py` is the page.
Everything stays on this machine: the page loads nothing from the net, and Gradio's analytics and history are off.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Annotated

import typer
from chat_app.assistant import Assistant
from langchain_core.language_models import BaseChatModel
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel

SCRIPT = (
    (
        "Plants grow by taking in water through their roots and carbon dioxide through their leaves. With the energy "
        "of sunlight they turn both into sugar, and build their cells from it."
    ),
    "Plants grow from water, air and light.",
    "They drink, they breathe, and the sun does the rest.",
)


def main(
    *,
    store: Annotated[str, typer.Option(help="URL of the conversation store.")] = "sqlite:///chat.db",
    model: Annotated[str, typer.Option(help="Embedded model, hub id or folder.")] = "smollm2-135m-instruct",
    adapter: Annotated[Path | None, typer.Option(help="Folder of an adapter that was trained on it.")] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on. Whoever reaches it may pose as anybody.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 7860,
    scripted: Annotated[bool, typer.Option("--scripted", help="Answer from a script: no model is loaded.")] = False,
) -> None:
    """Chat in the browser, and see what is learned from it."""
    from chat_app.page import CSS, HEAD, THEME, page

    chat_model: BaseChatModel
    if scripted:
        chat_model, name = GenericFakeChatModel(messages=itertools.cycle(SCRIPT)), "the script"
    else:
        from rlhi_adapters.langchain_model import LocalChatModel

        chat_model, name = LocalChatModel.load(model, adapter=adapter), model
    assistant = Assistant(chat_model, store)
    blocks = page(assistant, name, store)
    blocks.launch(
        server_name=host, server_port=port, share=False, run_history=False, ssr_mode=False, quiet=True,
        prevent_thread_lock=True, footer_links=[], css=CSS, head=HEAD, theme=THEME,
    )  # fmt: skip
    print(f"open http://{host}:{port} (Ctrl-C ends it)", flush=True)
    try:
        blocks.block_thread()
    finally:
        assistant.close()


if __name__ == "__main__":
    typer.run(main)
