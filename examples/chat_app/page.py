"""The page: a chat on the left, what it learned on the right."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from html import escape
from typing import Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when Gradio is imported
import gradio as gr

from chat_app.assistant import Assistant
from rlhi_plugin.errors import ConfigError
from rlhi_plugin.persona.edits import EditAction
from rlhi_plugin.records import FeedbackKind, PersonaStatement

USERS = ["Ada", "Ben", "Chloé"]
COMMANDS = ["/what-do-you-know", "/why", "/forget that", "/do-not-learn"]
# An answer may hold a picture, and loading it would tell its server that it was read.
HEAD = (
    '<meta http-equiv="Content-Security-Policy" '
    "content=\"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:\">"
)
CSS = """
footer {display: none !important}
.quiet, .statement .facts {font-size: 0.85em; opacity: 0.75; line-height: 1.5}
.statement {padding: 10px 12px 4px}
.statement blockquote {margin: 2px 0 2px 4px; padding-left: 10px; border-left: 3px solid var(--color-accent)}
"""
THEME = gr.themes.Soft(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])


def page(assistant: Assistant, model_name: str, store: str) -> gr.Blocks:
    """Everything on it, and what it does."""
    with gr.Blocks(title="RLHI chat", analytics_enabled=False, fill_width=True) as blocks:
        thread, shown = gr.State(_new_thread), gr.State("")
        with gr.Row():
            with gr.Column(scale=3):
                with gr.Row(equal_height=True):
                    user = gr.Radio(USERS, value=USERS[0], label="Who is speaking", scale=3)
                    new = gr.Button("New conversation", size="md", min_width=120)
                chat = gr.Chatbot(
                    height=440, show_label=False, buttons=["copy"], elem_id="chat",
                    placeholder=f"Ask {model_name} something, then say how you would rather have the answer.",
                )  # fmt: skip
                text = gr.Textbox(placeholder="Say something", show_label=False, submit_btn=True, elem_id="say")
                with gr.Row():
                    commands = [gr.Button(command, size="sm", min_width=110) for command in COMMANDS]
            with gr.Column(scale=2):
                _panel(assistant, user, (thread, chat, shown))
                with gr.Accordion("What is logged", open=False):
                    gr.HTML(_what_is_logged(store))

        def send(said: str, name: str, thread: str) -> Iterator[list[dict[str, str]]]:
            if said.strip():
                before = [*_history(assistant, thread), _said("user", said)]
                yield from _answering(assistant, thread, before, lambda: assistant.say(name, thread, said))

        def again(name: str, thread: str) -> Iterator[list[dict[str, str]]]:
            before = _history(assistant, thread)[:-1]
            yield from _answering(assistant, thread, before, lambda: assistant.say_again(name, thread))

        def rate(data: gr.LikeData, name: str, thread: str) -> None:
            kind = FeedbackKind.THUMBS_UP if data.liked else FeedbackKind.THUMBS_DOWN
            if assistant.rate(name, thread, int(data.index), kind):  # type: ignore[arg-type]  # this chat has one column
                gr.Info("Noted.", duration=2)

        # The text goes to a place of its own, so that the next message can be written while this one is answered.
        said = gr.State("")
        text.submit(lambda words: ("", words), text, [text, said], show_progress="hidden").then(
            send, [said, user, thread], chat
        )
        for button in commands:
            button.click(send, [button, user, thread], chat)
        chat.retry(again, [user, thread], chat)
        chat.like(rate, [user, thread])
        for event in (new.click, user.change, chat.clear):
            event(lambda: (_new_thread(), []), None, [thread, chat])
        # Personas are built in the background: look whether there is another one.
        gr.Timer(1.0).tick(lambda name: _version(assistant, name), user, shown, show_progress="hidden")
    return blocks


def _answering(
    assistant: Assistant, thread: str, before: list[dict[str, str]], answer: Callable[[], Iterator[str]]
) -> Iterator[list[dict[str, str]]]:
    """The chat while an answer comes, and after it."""
    yield [*before, _said("assistant", "...")]
    for so_far in answer():
        yield [*before, _said("assistant", so_far)]
    yield _history(assistant, thread)


def _panel(assistant: Assistant, user: gr.Radio, places: tuple[gr.State, gr.Chatbot, gr.State]) -> None:
    """What was learned: shown, explained, edited, locked, forgotten."""
    shown = places[-1]

    def changing(action: EditAction, number: int) -> Callable[[str, str], str]:
        def change(name: str, wording: str) -> str:
            try:
                assistant.change(name, action, number, wording if action == "edit" else None)
            except ConfigError as error:
                raise gr.Error(str(error), duration=6) from error
            return _version(assistant, name)

        return change

    def forget(name: str) -> tuple[str, list[Any], str]:
        gr.Info(f"Deleted: {assistant.forget(name)}")
        return _new_thread(), [], _version(assistant, name)

    @gr.render(inputs=[user, shown], show_progress="hidden")
    def panel(name: str, _: str) -> None:
        persona = assistant.known(name)
        known = () if persona is None else (*persona.statements, *persona.reserve)
        gr.Markdown(f"### What I learned about {name}")
        gr.HTML(f'<div class="quiet">{_explanation(len(known))}</div>')
        for number, statement in enumerate(known, start=1):
            held_back = persona is not None and number > len(persona.statements)
            lock: tuple[str, EditAction] = ("Unlock", "unlock") if statement.locked else ("Lock", "lock")
            actions: list[tuple[str, EditAction]] = [("Save wording", "edit"), lock, ("Forget", "remove")]
            with gr.Group():
                gr.HTML(_described(statement, held_back=held_back))
                wording = gr.Textbox(statement.text, show_label=False, container=False, elem_classes="wording")
                with gr.Row():
                    for label, action in actions:
                        button = gr.Button(label, size="sm", min_width=60)
                        button.click(changing(action, number), [user, wording], shown)
        with gr.Accordion("Forget everything about me", open=False):
            gr.HTML(
                f'<div class="quiet">Stored of {escape(name)}: {assistant.stored(name)}. Deleting it cannot be undone. '
                "What is left is a note that you were forgotten, so that no old copy brings you back.</div>"
            )
            gr.Button("Delete all of it", variant="stop", size="md").click(forget, user, list(places))


def _described(statement: PersonaStatement, *, held_back: bool) -> str:
    """Type, confidence, times, and the words that a statement rests on."""
    seen = [time.strftime("%d %B %Y") for time in (statement.first_seen, statement.last_seen) if time is not None]
    facts = [statement.type.value, f"confidence {statement.confidence:.0%}", *([_span(seen)] if seen else [])]
    facts += ["locked"] * statement.locked + ["held back, not in use"] * held_back
    quotes = "".join(f"<blockquote>“{escape(cited.quote)}”</blockquote>" for cited in statement.evidence)
    return f'<div class="statement"><div class="facts">{" · ".join(facts)}</div>Because you said {quotes}</div>'


def _span(seen: list[str]) -> str:
    return f"said on {seen[0]}" if len(set(seen)) == 1 else f"first said {seen[0]}, last {seen[-1]}"


def _explanation(count: int) -> str:
    if not count:
        return "Nothing yet. Ask something, then say what you would rather have, such as “Shorter, please.”"
    return (
        "These wishes, in your own words, go into the prompt of your next conversation. One that is under way keeps "
        "those that it began with, unless you change something here. Say /why to see which those are."
    )


def _what_is_logged(store: str) -> str:
    return (
        '<div class="quiet">Your words, the answers, the model and the time of each turn, thumbs and regenerations go '
        f"to <code>{escape(store)}</code>, under a keyed pseudonym in place of your name. Addresses, telephone and card "
        "numbers, keys and passwords are replaced before anything is stored. Commands are not logged. A conversation "
        "in which you say <code>/do-not-learn</code> is kept, but nothing is learned from it, neither about you nor "
        "for training.</div>"
    )


def _history(assistant: Assistant, thread: str) -> list[dict[str, str]]:
    return [_said("user" if m.type == "human" else "assistant", m.text) for m in assistant.messages(thread)]


def _said(role: str, text: str) -> dict[str, str]:
    return {"role": role, "content": text}


def _version(assistant: Assistant, name: str) -> str:
    """Changes whenever the panel has something else to show."""
    persona = assistant.known(name)
    return name if persona is None else f"{name} {persona.to_json()}"


def _new_thread() -> str:
    return uuid.uuid4().hex
