"""Preference pairs as token ids; what cannot be trained on is dropped with a reason, never cut."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rlhi_adapters.templates import encode, require_system_role
from rlhi_plugin.records import ChatMessage
from rlhi_training.records import Dropped, PairSource, PreferencePair

_log = logging.getLogger("rlhi.training")


@dataclass(frozen=True, slots=True)
class TokenisedPair:
    """One pair as TRL's collator takes it: ``prompt_ids + chosen_ids`` and ``prompt_ids + rejected_ids``."""

    pair_id: str
    source: PairSource
    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]
    group: tuple[str, str]
    """Conversation, and request in it. Pairs of one conversation belong together: under one persona, the rejected
    original of one turn is the past of the next, and is computed once. Even more so pairs of one request: under several
    personas, the text chosen in one is rejected in another, so that in one step whatever is not about the persona
    cancels."""


def tokenise_pairs(
    pairs: Sequence[PreferencePair], tokenizer: Any, base_name: str, *, max_length: int
) -> tuple[list[TokenisedPair], list[Dropped]]:
    """Render pairs with the base's chat template and split prompt from answers as TRL does.

    Args:
        pairs: Any order.
        tokenizer: The base's.
        base_name: For messages.
        max_length: Largest number of tokens of a prompt with its longer answer.

    Returns:
        The pairs that can be trained on, in order, and the others: ``answer_too_long`` and ``persona_too_long`` (alone
        longer than `max_length`), ``too_long`` (together), ``equal_tokens``, ``empty_answer`` (the template renders
        nothing of it), ``mixed_personas`` (pairs from one conversation hold different personas, of which at most one
        is what was known before it; persona contrast's are different by design) or ``duplicate``.

    Raises:
        ConfigError: a pair has a system message and the base's template takes none.
    """
    if any(message.role == "system" for pair in pairs for message in pair.prompt):
        require_system_role(tokenizer, base_name)
    kept: list[TokenisedPair] = []
    dropped: list[Dropped] = []
    seen: set[str] = set()
    personas = _personas(pairs)
    rewritten = 0
    for pair in pairs:
        tokens, whole = _tokenise(pair, tokenizer)
        rewritten += not whole
        reason, detail = _fault(tokens, seen)
        if reason is None and _one_persona(pair) and len(mixed := personas[pair.provenance.conversation_id]) > 1:
            digests = ", ".join(digest[:12] for digest in sorted(mixed))
            reason, detail = "mixed_personas", f"{pair.provenance.conversation_id} has personas {digests}"
        if reason is None:
            reason, detail = _too_long(tokens, pair, tokenizer, max_length)
        seen.add(pair.pair_id)
        if reason:
            dropped.append(Dropped(stage="train", key=pair.pair_id, reason=reason, detail=detail))
        else:
            kept.append(tokens)
    if rewritten:
        _log.warning(
            "the chat template of %s renders %d of %d prompts differently once an answer follows; "
            "their answers start where the two part",
            base_name,
            rewritten,
            len(pairs),
        )
    return kept, dropped


def _tokenise(pair: PreferencePair, tokenizer: Any) -> tuple[TokenisedPair, bool]:
    """The pair's tokens, and whether the whole prompt is the beginning of both sequences."""
    prompt = encode(tokenizer, pair.prompt, add_generation_prompt=True)
    chosen, rejected = (
        encode(tokenizer, (*pair.prompt, ChatMessage(role="assistant", content=text)), add_generation_prompt=False)
        for text in (pair.chosen, pair.rejected)
    )
    split = min(common_prefix(prompt, chosen), common_prefix(prompt, rejected))
    group = (pair.provenance.conversation_id, str(pair.provenance.turn))
    tokens = TokenisedPair(pair.pair_id, pair.source, prompt[:split], chosen[split:], rejected[split:], group)
    return tokens, split == len(prompt)


def common_prefix(a: list[int], b: list[int]) -> int:
    """How many tokens two rows begin with alike."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _one_persona(pair: PreferencePair) -> bool:
    """Whether the pair's persona must be that of its conversation: contrast ranks one request under several."""
    return pair.source in {"rewrite", "reward"} and pair.persona_digest is not None


def _personas(pairs: Sequence[PreferencePair]) -> dict[str, set[str]]:
    """Digests of the personas in each conversation's pairs."""
    found: dict[str, set[str]] = {}
    for pair in pairs:
        if _one_persona(pair) and pair.persona_digest is not None:
            found.setdefault(pair.provenance.conversation_id, set()).add(pair.persona_digest)
    return found


def _fault(tokens: TokenisedPair, seen: set[str]) -> tuple[str | None, str]:
    """Why a pair is no preference, and what a reader needs to act on it."""
    if tokens.pair_id in seen:
        return "duplicate", "the same prompt, chosen and rejected were there before"
    if tokens.chosen_ids == tokens.rejected_ids:
        return "equal_tokens", "chosen and rejected are the same tokens under this tokenizer"
    for side, ids in (("chosen", tokens.chosen_ids), ("rejected", tokens.rejected_ids)):
        if not ids:
            return "empty_answer", f"the chat template leaves nothing of the {side} answer"
    return None, ""


def _too_long(tokens: TokenisedPair, pair: PreferencePair, tokenizer: Any, max_length: int) -> tuple[str | None, str]:
    """Whether a pair exceeds the window, and which part of it does so alone."""
    prompt, answer = len(tokens.prompt_ids), max(len(tokens.chosen_ids), len(tokens.rejected_ids))
    if prompt + answer <= max_length:
        return None, ""
    said = [message.content for message in pair.prompt if message.role == "system"]
    persona = sum(len(tokenizer.encode(text, add_special_tokens=False)) for text in said)
    reason = "answer_too_long" if answer >= max_length else "persona_too_long" if persona >= max_length else "too_long"
    return reason, (
        f"{prompt + answer} tokens: a prompt of {prompt}, {persona} of them persona, and an answer of {answer}; "
        f"train.max_length is {max_length}"
    )
