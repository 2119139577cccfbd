"""The screens of a recipe, in order, over a stream of conversations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from rlhi_plugin.records import Conversation
from rlhi_training.recipe import IngestSection, ScreensSection
from rlhi_training.screens.batch import Batch
from rlhi_training.screens.jailbreak import Jailbreak
from rlhi_training.screens.language import Language
from rlhi_training.screens.length import Length
from rlhi_training.screens.near_duplicates import NearDuplicates
from rlhi_training.screens.refusal import Refusal
from rlhi_training.screens.screen import Finding, Screen, Seen, SeenPart, Several
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


@dataclass
class Screened:
    """What the screens say of one conversation as far as it alone tells.

    Attributes:
        drop: Of the first screen that drops it.
        marks: What is noticed in it all the same; of one that is dropped, nothing.
        seen: By name, what the screens that compare have read; of one that is dropped, nothing.
    """

    drop: Finding | None = None
    marks: list[Finding] = field(default_factory=list)
    seen: dict[str, SeenPart] = field(default_factory=dict)


def screen_apart(conversations: Sequence[Conversation], screens: Sequence[Screen]) -> list[Screened]:
    """Ask all screens but the user cap about many conversations; those that compare with others only read.

    Each screen is asked about what the ones before it have left, as `Screening` does.
    """
    found = [Screened() for _ in conversations]
    left = list(range(len(conversations)))
    firsts = not any(isinstance(screen, NearDuplicates) for screen in screens)
    batch = Batch(conversations, firsts)
    for screen in screens:
        if isinstance(screen, UserCap):
            continue
        if isinstance(screen, Seen):
            for place, part in zip(left, screen.read(batch), strict=True):
                found[place].seen[screen.name] = part
            continue
        several = screen.screen(batch) if isinstance(screen, Several) else map(screen, batch.conversations)
        for place, finding in zip(left, several, strict=True):
            if finding is not None and screen.drops:
                found[place] = Screened(finding)
            elif finding is not None:
                found[place].marks.append(finding)
        if any(found[place].drop for place in left):
            left = [place for place in left if found[place].drop is None]
            batch = Batch([conversations[place] for place in left], firsts)
    return found
