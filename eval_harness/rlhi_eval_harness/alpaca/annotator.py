"""One of ``alpaca_eval``'s annotators, taken apart: its prompts, its order, its reading of replies; the calls are ours.

So a judge is any `ChatClient`, its calls are retried and on record one by one, and what is asked and how a reply is
read stays the package's own code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rlhi_eval_harness.alpaca.annotate import OFFICIAL
from rlhi_eval_harness.alpaca.package import alpaca_eval_module, as_a_guest
from rlhi_plugin.chat import ChatReply, ChatRequest
from rlhi_plugin.errors import ConfigError
from rlhi_plugin.prompt_files import Prompt
from rlhi_plugin.records import ChatMessage

_UNDERSTOOD = frozenset(
    {"model_name", "max_tokens", "temperature", "logprobs", "top_logprobs", "requires_chatml", "is_chat"}
)


@dataclass(frozen=True)
class Asked:
    """One comparison as the judge gets it.

    Attributes:
        request: What is sent.
        swapped: Whether the second output stands first: drawn by ``alpaca_eval``, the same for equal instructions.
    """

    request: ChatRequest
    swapped: bool


class Annotator:
    """Prompts, order and parser of an annotator.

    Args:
        name: One that ships with ``alpaca_eval``, or the folder of another (``configs.yaml`` and its prompt).

    Raises:
        ConfigError: there is no such annotator, or it asks for what a chat client does not offer.
        MissingExtraError: alpaca_eval is not installed.
    """

    def __init__(self, name: str = OFFICIAL) -> None:
        shipped = Path(alpaca_eval_module("constants").EVALUATORS_CONFIG_DIR)
        folder = next((path for path in (Path(name), shipped / name) if (path / "configs.yaml").is_file()), None)
        if folder is None:
            raise ConfigError(f"{name} is no annotator. Give a folder with configs.yaml, or a name such as {OFFICIAL}.")
        self.name = folder.name
        with as_a_guest():
            both = alpaca_eval_module("annotators").PairwiseAnnotator(
                annotators_config=str(folder.resolve()), caching_path=None
            )
        if len(both.annotators) != 1:
            raise ConfigError(f"{folder / 'configs.yaml'} holds no single annotator. Give one with a single entry.")
        self._single = next(iter(both.annotators.values()))
        self._settings: dict[str, Any] = dict(self._single.completions_kwargs)
        strange = sorted(self._settings.keys() - _UNDERSTOOD)
        by_chat = self._single.fn_completions.__name__ == "openai_completions" and self._single.batch_size == 1
        if strange or not by_chat:
            raise ConfigError(
                f"the annotator {name} wants {', '.join(strange) or 'another way to be asked'}, which a chat client "
                "does not offer. Use rlhi-eval alpaca-eval annotate, or another annotator."
            )

    @property
    def model(self) -> str:
        """The model that the annotator is meant for."""
        return str(self._settings["model_name"])

    @cached_property
    def prompt(self) -> Prompt:
        """Its template, whose digest stands in every judgment."""
        return Prompt(self.name, str(self._single.prompt_template))

    def comparable(self, judge: str) -> bool:
        """Whether a judge's verdicts may stand beside the leaderboard's."""
        return self.name == OFFICIAL and judge.rpartition("/")[2] == self.model

    def asked(self, pairs: Sequence[tuple[str, str, str]]) -> list[Asked | None]:
        """What to send for each pair.

        Args:
            pairs: Instruction, the baseline's output, the model's.

        Returns:
            One for each; None where the texts hold markers that the package takes for its own.
        """
        import pandas as pd

        if not pairs:
            return []
        frame = pd.DataFrame(pairs, columns=["instruction", "output_1", "output_2"])
        with as_a_guest():
            drawn = self._single._preprocess(frame)  # noqa: SLF001 - the package has no public way to do this part alone
            texts, drawn = self._single._make_prompts(drawn)  # noqa: SLF001 - likewise
        # Its random order of rows, where an annotator has one, is undone: rows are told by their index.
        switched = drawn.get("is_switched_outputs", pd.Series(False, index=drawn.index))  # noqa: FBT003 - a column
        found = dict(zip(drawn.index, zip(texts, switched, strict=True), strict=True))
        return [self._asked(*found[place]) for place in range(len(pairs))]

    def _asked(self, text: str, swapped: bool) -> Asked | None:
        try:
            messages = alpaca_eval_module("utils").prompt_to_chatml(text.strip())
            told = tuple(ChatMessage(role=each["role"], content=each["content"]) for each in messages)
        except (AssertionError, IndexError, KeyError, ValueError):
            return None
        settings = self._settings
        request = ChatRequest(
            messages=told,
            temperature=float(settings.get("temperature", 0.7)),
            max_tokens=int(settings.get("max_tokens", 512)),
            logprobs=int(settings.get("top_logprobs", 0)) if settings.get("logprobs") else None,
        )
        return Asked(request, bool(swapped))

    def read(self, reply: ChatReply, *, swapped: bool) -> dict[str, str] | str:
        """The preference for the model's output, 1 to 2, and who won as they stood; or why there is none."""
        if reply.finish_reason == "refused":
            return "judge_refused"
        with as_a_guest():
            whole = self._single.completion_key == "completions_all"
            found, _ = self._single._parse_completions([_completion(reply) if whole else reply.text])  # noqa: SLF001 - see above
        value = found[0]
        if value == 0:  # an early way to write a draw
            value = 1.5
        if value is None or value != value or not 1 <= value <= 2:  # noqa: PLR0124, PLR2004 - NaN; the package's scale
            return "judge_prose" if reply.text.strip() else "judge_empty"
        winner = "tie" if value == 1.5 else "A" if value < 1.5 else "B"  # noqa: PLR2004 - half way between 1 and 2
        return {"preference": repr(float(3 - value if swapped else value)), "winner": winner}


def _completion(reply: ChatReply) -> Any:
    """A reply as the package's parsers of log-probabilities know it."""
    tokens = [
        {
            "token": each.token,
            "logprob": each.logprob,
            "top_logprobs": [{"token": t, "logprob": p} for t, p in each.top],
        }
        for each in reply.logprobs or ()
    ]
    return {"text": reply.text, "logprobs": {"content": tokens}}
