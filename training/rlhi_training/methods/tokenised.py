"""Logged answers as token ids, once after the request and once after the request with its follow-up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rlhi_adapters.templates import encode, require_system_role
from rlhi_plugin.records import ChatMessage
from rlhi_training.methods.hindsight import HindsightTurn
from rlhi_training.records import Dropped
from rlhi_training.tokenised_pairs import common_prefix


@dataclass(frozen=True, slots=True)
class TokenisedHindsight:
    """One logged answer under what the student sees and under what the teacher sees."""

    pair_id: str
    """Key of its turn."""
    source: str
    prompt_ids: list[int]
    teacher_prompt_ids: list[int]
    answer_ids: list[int]
    """The same after both prompts; ends as the template ends an answer, so that stopping is learnt too."""
    group: tuple[str, str]
    """See `rlhi_training.tokenised_pairs.TokenisedPair.group`: a student's rows of one conversation are one path."""


def tokenise_hindsight(
    turns: Sequence[HindsightTurn], tokenizer: Any, base_name: str, *, max_length: int
) -> tuple[list[TokenisedHindsight], list[Dropped]]:
    """Render with the base's chat template; nothing is cut.

    Args:
        turns: Any order, keys unique.
        tokenizer: The base's.
        base_name: For messages.
        max_length: Largest number of tokens of a prompt with the answer, for student and teacher alike.

    Returns:
        What can be trained on, in order, and the rest: ``too_long``, ``follow_up_too_long`` (only the teacher's prompt
        does not fit), ``equal_prompts`` (the template shows no difference), ``answer_renders_differently`` (the
        template writes the answer otherwise once the follow-up is there), ``empty_answer``.

    Raises:
        ConfigError: a prompt has a system message and the base's template takes none.
    """
    if any(message.role == "system" for turn in turns for message in turn.prompt):
        require_system_role(tokenizer, base_name)
    kept: list[TokenisedHindsight] = []
    dropped: list[Dropped] = []
    for turn in turns:
        prompt, answer = _split(turn.prompt, turn.answer, tokenizer)
        shown, again = _split(turn.teacher_prompt, turn.answer, tokenizer)
        reason, detail = None, ""
        if prompt == shown:
            reason = "equal_prompts"
        elif not answer:
            reason = "empty_answer"
        elif answer != again:
            reason = "answer_renders_differently"
        elif len(prompt) + len(answer) > max_length:
            reason, detail = "too_long", _size(prompt, answer, max_length)
        elif len(shown) + len(answer) > max_length:
            reason, detail = "follow_up_too_long", _size(shown, answer, max_length)
        if reason is not None:
            dropped.append(Dropped(stage="train", key=turn.key, reason=reason, detail=detail))
            continue
        group = (turn.provenance.conversation_id, str(turn.provenance.turn))
        kept.append(TokenisedHindsight(turn.key, turn.source, prompt, shown, answer, group))
    return kept, dropped


def _split(prompt: tuple[ChatMessage, ...], answer: str, tokenizer: Any) -> tuple[list[int], list[int]]:
    """Prompt and answer, parted where a generated answer would begin, or earlier where the template says so."""
    before = encode(tokenizer, prompt, add_generation_prompt=True)
    whole = encode(tokenizer, (*prompt, ChatMessage(role="assistant", content=answer)), add_generation_prompt=False)
    place = common_prefix(before, whole)
    return whole[:place], whole[place:]


def _size(prompt: list[int], answer: list[int], most: int) -> str:
    return f"{len(prompt) + len(answer)} tokens with a prompt of {len(prompt)}; train.max_length is {most}"
