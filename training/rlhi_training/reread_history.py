"""Conversations whose answers a chat template renders otherwise once they are history.

Where a pair's answer is the past of a later pair, prefix trees compute it once, provided that the template renders it
alike in both places. Some do not: templates of models that think leave thoughts out of the past. Trees are made of
token ids, so such rows share only what is still equal, which includes what the two rows of a pair have in common; loss
and gradients are right either way. Less is saved, which is counted here.
"""

from __future__ import annotations

from collections.abc import Sequence

from rlhi_plugin.records import ChatMessage
from rlhi_training.records import PreferencePair
from rlhi_training.tokenised_pairs import TokenisedPair, common_prefix

_CLOSING = 2
"""Tokens after an answer's text that may differ without a loss: marks of the end of a turn, and a line feed (ours)."""


_NAMED = 3


def warning(base_name: str, conversations: Sequence[str]) -> str:
    """What a run says of them; `conversations` are those of `rendered_otherwise`, at least one."""
    named = ", ".join([*conversations[:_NAMED], *(["..."] if len(conversations) > _NAMED else [])])
    return (
        f"the chat template of {base_name} renders past answers otherwise than new ones; the turns of "
        f"{len(conversations)} conversations ({named}) share less, at the same loss"
    )


def rendered_otherwise(pairs: Sequence[PreferencePair], tokenised: Sequence[TokenisedPair]) -> list[str]:
    """Ids of the conversations in which an answer's tokens change once another request follows, sorted.

    Args:
        pairs: Any order.
        tokenised: Those of them that are trained on, by the same template.
    """
    tokens = {pair.pair_id: pair for pair in tokenised}
    by_past: dict[tuple[ChatMessage, ...], list[int]] = {}
    known = [pair for pair in pairs if pair.pair_id in tokens]
    for pair in known:
        own = tokens[pair.pair_id]
        for text, ids in ((pair.chosen, own.chosen_ids), (pair.rejected, own.rejected_ids)):
            past = (*pair.prompt, ChatMessage(role="assistant", content=text))
            by_past[past] = own.prompt_ids + ids
    found = set()
    for pair in known:
        read = tokens[pair.pair_id].prompt_ids
        for stop, message in enumerate(pair.prompt, start=1):
            answered = by_past.get(pair.prompt[:stop]) if message.role == "assistant" else None
            if answered is not None and common_prefix(answered, read) < len(answered) - _CLOSING:
                found.add(pair.provenance.conversation_id)
    return sorted(found)
