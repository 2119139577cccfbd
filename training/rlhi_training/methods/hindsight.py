"""Logged answers with what their users said next, as self-distillation from follow-ups takes them (arXiv 2603.12273).

The paper: for a request x, a logged answer y and the user's follow-up o, the same model that answers x also reads x and
o, and each token of y is worth log p(y_t | x, o, y_<t) - log p(y_t | x, y_<t). No rewrite, no pair, no reward model.
What is ours: only follow-ups that carry feedback are used (`FollowUpLabel.WITH_FEEDBACK`), the persona is in both
prompts, refusals are not trained against, one user's share is capped, and the words that show the follow-up
(``prompts/hindsight.md``; the paper's authors also append it to the request).
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from rlhi_plugin.errors import ConfigError
from rlhi_plugin.prompt_files import load_prompt
from rlhi_plugin.records import ChatMessage, FollowUpLabel, Persona, Record, UserId
from rlhi_training.filters.caps import cap_users, draw_evenly
from rlhi_training.filters.contamination import EvaluationPrompts
from rlhi_training.prompting import fill, with_persona_message
from rlhi_training.recipe import Recipe
from rlhi_training.records import Dropped, LabelledTurn
from rlhi_training.screens.refusal import declines

HINDSIGHT = "hindsight.jsonl"
PROMPT = load_prompt("rlhi_training.methods", "hindsight")
_REPEATED = 0.8
"""Share of the request's words from which a follow-up without any other word is the request again (ours)."""
_WORD = re.compile(r"\w+")


class LoggedPlace(Record):
    """Where a logged answer stands in its log."""

    conversation_id: str
    turn: int
    request_id: str
    response_id: str
    follow_up_id: str | None = None


class HindsightTurn(Record):
    """A request, its logged answer, and the request once more with the follow-up shown."""

    source: Literal["self_distillation"] = "self_distillation"
    user_id: UserId | None = None
    """Who wrote the request and the follow-up."""
    persona: Persona | None = None
    prompt: tuple[ChatMessage, ...] = Field(min_length=1)
    """What the student sees: persona and context, ending with the request."""
    teacher_prompt: tuple[ChatMessage, ...] = Field(min_length=1)
    """The same with the follow-up in its last message."""
    answer: str = Field(min_length=1)
    """As it was logged."""
    provenance: LoggedPlace

    @property
    def key(self) -> str:
        """``conversation#turn``."""
        return f"{self.provenance.conversation_id}#{self.provenance.turn}"


@dataclass(frozen=True)
class Hindsight:
    """What self-distillation learns from.

    Attributes:
        turns: In the order of the log.
        dropped: Turns with feedback that are not among them, and why.
    """

    turns: tuple[HindsightTurn, ...]
    dropped: tuple[Dropped, ...]


def hindsight(
    turns: Iterable[LabelledTurn],
    personas: Mapping[str, Persona | None],
    recipe: Recipe,
    evaluation: EvaluationPrompts | None = None,
) -> Hindsight:
    """Every turn whose follow-up carries feedback, with the prompts of student and teacher.

    Args:
        turns: Labelled turns; those without feedback are no input.
        personas: By conversation, as of its beginning.
        recipe: `recipe.screens` and `recipe.filter` are read, and `recipe.seed` draws what is over a cap.
        evaluation: Prompts that may not be trained on.

    Drops: ``follow_up_empty`` (no word in it), ``follow_up_repeats`` (the request again), ``against_refusal`` (users
    punish right refusals), ``contaminated``, ``no_other_follow_up`` (shuffled, and nobody said anything else),
    ``user_cap``, ``over_limit``.

    Raises:
        ConfigError: follow-ups are to be shuffled, and ``contrast.cross_user`` forbids that users' words mix.
    """
    sound: list[LabelledTurn] = []
    dropped: list[Dropped] = []
    for turn in turns:
        if turn.label is not FollowUpLabel.WITH_FEEDBACK or turn.follow_up is None:
            continue
        reason, detail = _fault(turn, recipe, evaluation)
        if reason is None:
            sound.append(turn)
        else:
            dropped.append(Dropped(stage="train", key=turn.key, reason=reason, detail=detail))
    said = {turn.key: turn for turn in sound}
    if recipe.train.follow_ups == "shuffled":
        said, alone = _shuffled(sound, recipe)
        dropped += alone
    kept = [_shown(turn, said[turn.key], personas.get(turn.conversation_id)) for turn in sound if turn.key in said]
    drawn, over = _limit(kept, recipe)
    return Hindsight(tuple(drawn), (*dropped, *over))


def _fault(turn: LabelledTurn, recipe: Recipe, evaluation: EvaluationPrompts | None) -> tuple[str | None, str]:
    follow_up, request = (_words(text) for text in (turn.follow_up or "", turn.context[-1].content))
    if not follow_up:
        return "follow_up_empty", repr((turn.follow_up or "")[:80])
    if not Counter(follow_up) - Counter(request) and len(follow_up) >= _REPEATED * len(request):
        return "follow_up_repeats", "it says what the request says"
    if not recipe.screens.train_against_refusals and (passage := declines(turn.response)):
        return "against_refusal", passage
    if evaluation is not None:
        texts = (*(m.content for m in turn.context if m.role != "system"), turn.response, turn.follow_up or "")
        found = next((hit for text in texts if (hit := evaluation.found_in(text))), None)
        if found:
            return "contaminated", found
    return None, ""


def _shuffled(turns: Sequence[LabelledTurn], recipe: Recipe) -> tuple[dict[str, LabelledTurn], list[Dropped]]:
    """By turn, the turn whose follow-up it is shown: the next one in a circle whose words differ."""
    if not recipe.contrast.cross_user:
        raise ConfigError(
            "train.follow_ups = \"shuffled\" shows one user's words over another user's request, which"
            " contrast.cross_user = false forbids. Allow it for this control, or leave the follow-ups alone."
        )
    circle = sorted(turns, key=lambda turn: turn.key)
    random.Random(recipe.seed).shuffle(circle)
    said: dict[str, LabelledTurn] = {}
    for place, turn in enumerate(circle):
        own = _words(turn.follow_up or "")
        others = (circle[(place + step) % len(circle)] for step in range(1, len(circle)))
        other = next((one for one in others if _words(one.follow_up or "") != own), None)
        if other is not None:
            said[turn.key] = other
    return said, [
        Dropped(stage="train", key=turn.key, reason="no_other_follow_up") for turn in turns if turn.key not in said
    ]


def _shown(turn: LabelledTurn, said: LabelledTurn, persona: Persona | None) -> HindsightTurn:
    """A turn under the follow-up of the turn `said`, which is its own unless they are shuffled."""
    request = turn.context[-1]
    text = fill(PROMPT.text, request=request.content, follow_up=(said.follow_up or "").strip())
    shown = (*turn.context[:-1], ChatMessage(role=request.role, content=text))
    return HindsightTurn(
        user_id=turn.user_id,
        persona=persona,
        prompt=with_persona_message(turn.context, persona),
        teacher_prompt=with_persona_message(shown, persona),
        answer=turn.response,
        provenance=LoggedPlace(
            conversation_id=turn.conversation_id,
            turn=turn.turn,
            request_id=turn.request_id,
            response_id=turn.response_id,
            follow_up_id=said.follow_up_id,
        ),
    )


def _limit(kept: Sequence[HindsightTurn], recipe: Recipe) -> tuple[list[HindsightTurn], list[Dropped]]:
    """What the caps on one user and on all leave, and what they take: those of the filter for pairs."""
    section = recipe.filter
    owners = {turn.key: turn.user_id or f"#{turn.provenance.conversation_id}" for turn in kept}
    capped = cap_users(kept, owners, section.max_pairs_per_user_share, recipe.seed, most=section.max_pairs_per_user)
    drawn = draw_evenly(capped, owners, section.max_pairs, recipe.seed)
    remaining, final = ({turn.key for turn in some} for some in (capped, drawn))
    return drawn, [
        Dropped(stage="train", key=turn.key, reason="over_limit" if turn.key in remaining else "user_cap")
        for turn in kept
        if turn.key not in final
    ]


def _words(text: str) -> list[str]:
    return [word.casefold() for word in _WORD.findall(text)]
