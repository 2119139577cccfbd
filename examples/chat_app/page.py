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
from rlhi_plugin.persona.memory import is_own_wording
from rlhi_plugin.records import FeedbackKind, PersonaStatement

USERS = ["Ada", "Ben", "Chloé"]
WRITING = "writing ..."
COMMANDS = ["/what-do-you-know", "/why", "/forget that", "/do-not-learn"]
# An answer may hold a picture, and loading it would tell its server that it was read.
HEAD = (
    '<meta http-equiv="Content-Security-Policy" '
    "content=\"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:\">"
)
CSS = """
footer {display: none !important}
.quiet {font-size: 0.85em; opacity: 0.8; line-height: 1.5}
#new {align-self: center; flex-grow: 0}
.card {background: var(--block-background-fill); border-radius: 10px; padding: 14px; gap: 10px;
       box-shadow: 0 1px 3px rgb(0 0 0 / 15%)}
.card .block {padding: 0; border-width: 0 !important; box-shadow: none}
.card label > span {background: none; color: inherit; padding: 0; font-weight: 400; font-size: 0.85em; opacity: 0.8}
.card textarea {border: 1px solid var(--border-color-primary) !important}
.card blockquote {margin: 0 0 0 2px !important; padding-left: 10px; border-left: 3px solid var(--color-accent)}
"""
THEME = gr.themes.Soft(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])


_FORGETTING = (
    '<div class="quiet">This deletes what you said, what was answered, your clicks, and what was learned of you. It '
    "cannot be undone. What is left is a note that you were forgotten, so that no old copy brings you back.</div>"
)


def page(assistant: Assistant, model_name: str, store: str) -> gr.Blocks:
    """Everything on it, and what it does."""
    with gr.Blocks(title="RLHI chat", analytics_enabled=False, fill_width=True) as blocks:
        thread, shown = gr.State(_new_thread), gr.State("")
        with gr.Row():
            with gr.Column(scale=3):
                with gr.Row(equal_height=True):
                    user = gr.Radio(USERS, value=USERS[0], label="Who is speaking", scale=3, elem_id="user")
                    new = gr.Button("New conversation", size="md", min_width=170, elem_id="new")
                chat = gr.Chatbot(
                    height=440, show_label=False, buttons=["copy"], elem_id="chat",
                    placeholder=f"Ask {model_name} something, then say how you would rather have the answer.",
                )  # fmt: skip
                text = gr.Textbox(placeholder="Say something", show_label=False, submit_btn=True, elem_id="say")
                with gr.Row():
                    commands = [gr.Button(command, size="sm", min_width=110) for command in COMMANDS]
            with gr.Column(scale=2):
                _panel(assistant, user, shown)
                with gr.Accordion("What is logged", open=False) as logged:
                    gr.HTML(_what_is_logged(store))
                    stored = gr.HTML()
                with gr.Accordion("Forget everything about me", open=False):
                    gr.HTML(_FORGETTING)
                    everything = gr.Button("Delete all of it", variant="stop", size="md")

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

        def forget(name: str) -> tuple[str, list[Any], str]:
            gr.Info(f"Deleted: {assistant.forget(name)}")
            return _new_thread(), [], _version(assistant, name)

        said = gr.State("")
        # One answer at a time: until it is there, nothing else can be said.
        quietly: dict[str, Any] = {"show_progress": "hidden"}
        given = [text.submit(_take, text, [text, said], **quietly)]
        given += [button.click(_take, button, [text, said], **quietly) for button in commands]
        answers = [event.then(send, [said, user, thread], chat) for event in given]
        answers.append(chat.retry(_lock, None, text, **quietly).then(again, [user, thread], chat))
        for answered in answers:
            answered.then(lambda: gr.update(interactive=True), None, text, **quietly)
        chat.like(rate, [user, thread])
        for event in (new.click, user.change, chat.clear):
            event(lambda: (_new_thread(), []), None, [thread, chat])
        everything.click(forget, user, [thread, chat, shown])
        gr.on([logged.expand, user.change], lambda name: _stored(assistant, name), user, stored)
        # Personas are built in the background: look whether there is another one.
        gr.Timer(1.0).tick(lambda name: _version(assistant, name), user, shown, **quietly)
    return blocks


def _take(words: str) -> tuple[Any, str]:
    """Take a message from the box into a place of its own."""
    return gr.update(value="", interactive=False), words


def _lock() -> Any:
    return gr.update(interactive=False)


def _answering(
    assistant: Assistant, thread: str, before: list[dict[str, str]], answer: Callable[[], Iterator[str]]
) -> Iterator[list[dict[str, str]]]:
    """The chat while an answer comes, and after it."""
    yield [*before, _said("assistant", WRITING)]
    for so_far in answer():
        yield [*before, _said("assistant", so_far)]
    yield _history(assistant, thread)


def _panel(assistant: Assistant, user: gr.Radio, shown: gr.State) -> None:
    """What was learned: shown, explained, edited, locked, forgotten."""

    def changing(action: EditAction, text: str) -> Callable[[str, str], str]:
        def change(name: str, wording: str) -> str:
            try:
                assistant.change(name, action, text, wording if action == "edit" else None)
            except ConfigError as error:
                raise gr.Error(str(error), duration=6) from error
            return _version(assistant, name)

        return change

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
            with gr.Column(elem_classes="card"):
                wording = gr.Textbox(statement.text, label=_facts(statement, held_back=held_back), interactive=True)
                gr.HTML(_quotations(statement))
                with gr.Row():
                    for label, action in actions:
                        button = gr.Button(label, size="sm", min_width=60)
                        button.click(changing(action, statement.text), [user, wording], shown)


def _facts(statement: PersonaStatement, *, held_back: bool) -> str:
    """Type, confidence and times of a statement."""
    seen = [time.strftime("%d %B %Y") for time in (statement.first_seen, statement.last_seen) if time is not None]
    facts = [statement.type.value, f"confidence {statement.confidence:.0%}", *([_span(seen)] if seen else [])]
    return " · ".join([*facts, *["locked"] * statement.locked, *["held back, not in use"] * held_back])


def _quotations(statement: PersonaStatement) -> str:
    """The person's own words that a statement rests on."""
    why = "Because you wrote, here" if is_own_wording(statement) else "Because you said"
    quotes = "".join(f"<blockquote>“{escape(cited.quote)}”</blockquote>" for cited in statement.evidence)
    return f'<div class="quiet">{why}</div>{quotes}'


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
        f"to <code>{escape(store)}</code>, under a keyed pseudonym in place of your name. Addresses, telephone and "
        "card numbers, keys and passwords are replaced before anything is stored. Commands are not logged. A "
        "conversation in which you say <code>/do-not-learn</code> is kept, but nothing is learned from it, neither "
        "about you nor for training.</div>"
    )


def _stored(assistant: Assistant, name: str) -> str:
    return f'<div class="quiet">At this moment, of {escape(name)}: {assistant.stored(name)}.</div>'


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
