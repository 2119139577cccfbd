"""What a rater sees, as HTML. Every text is escaped: an answer may hold anything, and is shown as it was written."""

from __future__ import annotations

from html import escape

from rlhi_eval_harness.human.desk import Progress, View
from rlhi_eval_harness.human.guidance import Guidance
from rlhi_eval_harness.human.planning import Pair
from rlhi_eval_harness.human.records import SKIP_REASONS, Study

_CHOICES = (("left", "A", "1"), ("tie", "No difference", "2"), ("right", "B", "3"))


def start_page(guidance: Guidance, *, name: str = "", message: str = "") -> str:
    """Before anybody is known: what this is, and a name."""
    return f"""<main class="start" data-nonce="start">
<h1 tabindex="-1">Which answer is better?</h1>
{_message(message)}
<p>{escape(guidance.introduction)}</p>
<form data-start>
<label for="rater">Your name or pseudonym</label>
<div class="line"><input id="rater" name="rater" maxlength="60" autocomplete="off" value="{escape(name)}" required>
<button type="submit" class="main">Begin</button></div>
<p class="quiet">{escape(guidance.name)}</p>
</form>
{_keys()}
</main>"""


def judging_page(view: View, study: Study, guidance: Guidance, nonce: int) -> str:
    """A pair, or that nothing is left. `nonce` makes every page another one."""
    if view.pair is None:
        return _done(view, nonce)
    rows = "".join(
        _row(number, name, guidance.question(name, label))
        for number, (name, label) in enumerate(study.dimensions.items())
    )
    return f"""<main data-token="{view.token}" data-nonce="{nonce}">
{_progress(view.rater, view.progress)}
{_message(view.message)}
{_before(view.pair, guidance)}
<section class="answers" aria-label="The two answers">
<article aria-labelledby="name-a"><h2 id="name-a">A</h2><div class="text">{_text(view.left)}</div></article>
<article aria-labelledby="name-b"><h2 id="name-b">B</h2><div class="text">{_text(view.right)}</div></article>
</section>
<section class="verdict" aria-label="Your verdict">
{rows}
{_tools()}
</section>
</main>"""


def _before(pair: Pair, guidance: Guidance) -> str:
    """What is known of the user, the conversation, the request."""
    known = "".join(f"<li>{escape(text)}</li>" for text in pair.known)
    about = f'<section class="known"><h2>{escape(guidance.known)}</h2><ul>{known}</ul></section>' if known else ""
    said = "".join(
        f'<div class="said {escape(role)}"><b>{escape(role)}</b><div class="text">{_text(text)}</div></div>'
        for role, text in pair.conversation
    )
    count = len(pair.conversation)
    before = f"<details class='history'><summary>{count} messages before</summary>{said}</details>" if said else ""
    asked = f'<div class="text">{_text(pair.request)}</div>'
    return f'{about}<section class="request"><h2 tabindex="-1">Request</h2>{before}{asked}</section>'


def _row(number: int, name: str, question: str) -> str:
    buttons = "".join(
        f'<button type="button" role="radio" aria-checked="false" data-side="{side}">{text}<kbd>{key}</kbd></button>'
        for side, text, key in _CHOICES
    )
    return f"""<div class="row" role="radiogroup" aria-labelledby="q{number}" data-dimension="{escape(name)}">
<span id="q{number}">{escape(question)}</span><div class="choices">{buttons}</div></div>"""


def _tools() -> str:
    reasons = "".join(
        f'<button type="button" data-reason="{reason}"><kbd>{number}</kbd>{escape(text)}</button>'
        for number, (reason, text) in enumerate(SKIP_REASONS.items(), start=1)
    )
    return f"""<div class="tools">
<button type="button" data-undo>Undo<kbd>U</kbd></button>
<details class="skip"><summary>Skip<kbd>S</kbd></summary>
<div class="reasons" role="group" aria-label="Why?">{reasons}</div></details>
<details class="note"><summary>Note<kbd>N</kbd></summary><textarea rows="2" maxlength="2000"
 aria-label="A note on this pair" placeholder="A note on this pair, before the last choice. Esc leaves it."></textarea>
</details>
<span class="grow"></span>{_keys()}
</div>"""


def _keys() -> str:
    return """<details class="keys"><summary>Keys</summary><dl>
<dt><kbd>1</kbd> or <kbd>←</kbd></dt><dd>A is better</dd><dt><kbd>2</kbd> or <kbd>T</kbd></dt><dd>no difference</dd>
<dt><kbd>3</kbd> or <kbd>→</kbd></dt><dd>B is better</dd>
<dt><kbd>U</kbd> or <kbd>⌫</kbd></dt><dd>take the last one back</dd>
<dt><kbd>S</kbd></dt><dd>skip, then the number of the reason</dd><dt><kbd>N</kbd></dt><dd>write a note</dd></dl>
<p class="quiet">After the last question the next pair comes by itself. You may close this page at any time.</p>
</details>"""


def _progress(rater: str, progress: Progress) -> str:
    """How far it is, in words and as a bar."""
    pairs = "1 pair" if progress.mine == 1 else f"{progress.mine} pairs"
    return f"""<header><div class="line" role="status"><span><b>{escape(rater)}</b>: {pairs} judged</span>
<span class="quiet">all raters: {progress.given} of {progress.needed} verdicts</span>
<button type="button" class="plain" data-leave>Not you?</button></div>
<progress max="{progress.needed}" value="{progress.given}" aria-label="Verdicts of all raters"></progress></header>"""


def _done(view: View, nonce: int) -> str:
    more = '<button type="button" class="main" data-more>Judge more all the same</button>' if view.more else ""
    said = "Every pair has as many verdicts as were planned." if view.more else "You have seen every pair."
    return f"""<main class="start" data-token="" data-nonce="{nonce}">
{_progress(view.rater, view.progress)}
{_message(view.message)}
<h1 tabindex="-1">Thank you. Nothing is left to judge.</h1><p>{said} You may close this page.</p>
<div class="line"><button type="button" data-undo>Take the last one back<kbd>U</kbd></button>{more}</div></main>"""


def _message(text: str) -> str:
    return f'<p class="message" role="alert">{escape(text)}</p>' if text else ""


def _text(text: str) -> str:
    return escape(text) if text.strip() else "<i>(empty)</i>"
