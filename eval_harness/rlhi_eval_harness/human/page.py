"""The page of a study: Gradio carries what happens in the browser to the desk and back."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from importlib.resources import files
from typing import Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when Gradio is imported
import gradio as gr

from rlhi_eval_harness.human.desk import Desk, View
from rlhi_eval_harness.human.guidance import Guidance, load_guidance
from rlhi_eval_harness.human.markup import judging_page, start_page

HOST = "127.0.0.1"
"""People's names and users' texts stay on this machine."""
# An answer may hold a picture, and loading it would tell its server that it was read.
HEAD = (
    '<meta http-equiv="Content-Security-Policy" '
    "content=\"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:\">"
)
THEME = gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
_FILES = files("rlhi_eval_harness.human") / "page_files"


class StudyPage:
    """What the page shows and does.

    Args:
        desk: The study.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._guidance: Guidance = load_guidance()
        self._numbers = itertools.count(1)

    def blocks(self) -> gr.Blocks:
        """Everything on it."""
        with gr.Blocks(title="Which answer is better?", analytics_enabled=False, fill_width=True) as blocks:
            # The browser remembers who sits before it, so that a reload goes on at once. It is no secret.
            name = gr.BrowserState("", storage_key="rlhi-rater", secret="rlhi-rater")  # noqa: S106 - see above
            script = (_FILES / "judge.js").read_text("utf-8")
            stage = gr.HTML(elem_id="stage", js_on_load=script, padding=False, apply_default_css=False)
            quietly: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
            blocks.load(self._open, name, stage, **quietly)
            stage.act(self._act, name, [name, stage], **quietly)
        return blocks

    def _open(self, name: str) -> str:
        rater = self._desk.rater(str(name or ""))
        return self._shown(self._desk.view(rater)) if rater else start_page(self._guidance)

    def _act(self, name: str, event: gr.EventData) -> tuple[str, str]:
        """One thing that somebody did: the name that the browser is to remember, and the page after it."""
        did = dict(event._data)  # noqa: SLF001 - Gradio has no other way to the data of one's own event
        rater = self._desk.rater(str(name or ""))
        what = str(did.get("what", ""))
        if what == "start":
            rater = self._desk.rater(str(did.get("rater", "")))
        elif what == "leave":
            rater = ""
        if not rater:
            return "", start_page(self._guidance, message="Please give a name." if what == "start" else "")
        token, note = str(did.get("token", "")), str(did.get("note", ""))
        acts: dict[str, Callable[[], View]] = {
            "judge": lambda: self._desk.judge(rater, token, _answers(did.get("answers")), note),
            "skip": lambda: self._desk.skip(rater, token, str(did.get("reason", "")), note),
            "undo": lambda: self._desk.undo(rater),
            "more": lambda: self._desk.go_on(rater),
        }
        try:
            view = acts[what]() if what in acts else self._desk.view(rater)
        except OSError as error:
            view = self._desk.view(rater, f"This was not stored: {error.strerror or error}. Please tell who runs this.")
        return rater, self._shown(view)

    def _shown(self, view: View) -> str:
        return judging_page(view, self._desk.study, self._guidance, next(self._numbers))


def _answers(said: object) -> dict[str, Any]:
    """Choices as the browser sent them; what is none of the three is left out, and the verdict then incomplete."""
    given = said if isinstance(said, dict) else {}
    return {str(name): side for name, side in given.items() if side in {"left", "right", "tie"}}


def serve(desk: Desk, port: int, started: Callable[[str], None]) -> None:
    """Serve the page until Ctrl-C.

    Args:
        desk: The study.
        port: On the loopback interface.
        started: Called with the address once it can be opened.

    Raises:
        OSError: the port cannot be had.
    """
    blocks = StudyPage(desk).blocks()
    blocks.launch(
        server_name=HOST, server_port=port, share=False, run_history=False, ssr_mode=False, quiet=True,
        prevent_thread_lock=True, footer_links=[], css=(_FILES / "judge.css").read_text("utf-8"), head=HEAD,
        theme=THEME, show_error=False, inbrowser=False,
    )  # fmt: skip
    try:
        started(f"http://{HOST}:{port}")
        blocks.block_thread()
    finally:
        blocks.close(verbose=False)
