"""The screens of a recipe, in order, over a stream of conversations."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from rlhi_plugin.records import Conversation
from rlhi_training.recipe import IngestSection, ScreensSection
from rlhi_training.screens.jailbreak import Jailbreak
from rlhi_training.screens.language import Language
from rlhi_training.screens.length import Length
from rlhi_training.screens.near_duplicates import NearDuplicates
from rlhi_training.screens.refusal import Refusal
from rlhi_training.screens.screen import Finding, Screen
from rlhi_training.screens.templates import Templates
from rlhi_training.screens.toxicity import ClassifiedToxic, FlaggedToxic
from rlhi_training.screens.turns import EmptyTurns, RolesOutOfOrder, Unanswered
from rlhi_training.screens.user_cap import UserCap

_EXAMPLES = 5


def screens_of(recipe: ScreensSection, ingest: IngestSection) -> list[Screen]:
    """The screens that a recipe asks for; fresh ones, that have seen nothing.

    Cheap ones first, and those that remember last, so that what is dropped anyway is not remembered.
    """
    chosen: list[Screen | None] = [
        Unanswered(),
        RolesOutOfOrder(drops=recipe.strict_roles),
        EmptyTurns(),
        Length(recipe),
        FlaggedToxic() if ingest.drop_toxic else None,
        Jailbreak(drops=recipe.jailbreaks == "drop") if recipe.jailbreaks != "off" else None,
        Refusal(drops=recipe.refusals == "drop") if recipe.refusals != "off" else None,
        ClassifiedToxic(recipe.toxicity_threshold) if recipe.toxicity_threshold is not None else None,
        Language(recipe.languages) if recipe.languages else None,
        Templates(recipe) if recipe.template_users else None,
        NearDuplicates(recipe.near_duplicates, recipe.expected_conversations) if recipe.near_duplicates else None,
        UserCap(recipe.max_conversations_per_user) if recipe.max_conversations_per_user else None,
    ]
    return [screen for screen in chosen if screen is not None]


@dataclass
class Screening:
    """Asks the screens about one conversation after the other.

    Attributes:
        screens: In order; the first one that drops decides.
        marked: Conversations that stay, by reason of what was found all the same.
        examples: A few of them.
    """

    screens: list[Screen]
    marked: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[dict[str, str]]] = field(default_factory=dict)

    def __call__(self, conversation: Conversation) -> Finding | None:
        """Why the conversation is dropped, or None."""
        marks: list[Finding] = []
        for screen in self.screens:
            finding = screen(conversation)
            if finding is None:
                continue
            if screen.drops:
                return finding
            marks.append(finding)
        for mark in marks:
            self.marked[mark.reason] += 1
            shown = self.examples.setdefault(mark.reason, [])
            if len(shown) < _EXAMPLES:
                shown.append({"key": conversation.conversation_id, "detail": mark.detail})
        return None
