"""Generates answers for a batch of prompts with a transformers model, as fast as its unfinished rows allow.

Equal prompts are read once. A finished row leaves the batch and the cache at once, so that a batch costs what its
live rows cost. Each row has its own seed, temperature and length cap.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from rlhi_adapters.sampling import draw, gumbel_noise

if TYPE_CHECKING:
    import torch

    from rlhi_adapters.json_constraint import JSONConstraint

MIN_SHARED_PREFIX = 48
"""A common beginning of fewer tokens is not worth a forward pass of its own (ours)."""


@dataclass(frozen=True, slots=True)
class DecodeRow:
    """One answer to generate."""

    prompt: tuple[int, ...]
    """Token ids, not empty."""
    max_new_tokens: int
    temperature: float
    """0 is greedy."""
    top_k: int
    seed: int
    constraint: JSONConstraint | None = None
    """What the answer is held to; of this row alone."""
    logprobs: int | None = None
    """Record the log-probability of each token, and of so many of the likeliest in its place."""


@dataclass(slots=True)
class DecodedRow:
    """What was generated."""

    tokens: list[int] = field(default_factory=list)
    """Without the stop token."""
    stopped: bool = False
    """Whether a stop token ended it; else the cap did."""
    logprobs: list[tuple[float, tuple[tuple[int, float], ...]]] = field(default_factory=list)
    """For each token its log-probability at temperature 1, and the likeliest ids with theirs; where asked for."""


@dataclass(slots=True)
class _Live:
    """The rows that are still being generated, and the model's state for them."""

    rows: list[int]
    cache: Any
    attention: torch.Tensor
    position: torch.Tensor

    def keep(self, kept: list[int]) -> None:
        """Forget all rows but those at the given places."""
        import torch

        index = torch.tensor(kept, device=self.attention.device)
        self.cache.batch_select_indices(index)
        self.rows = [self.rows[i] for i in kept]
        self.attention, self.position = self.attention[index], self.position[index]

    def advance(self) -> None:
        """Make room for one more token a row."""
        import torch

        self.attention = torch.cat([self.attention, self.attention.new_ones(len(self.rows), 1)], dim=1)
        self.position = self.position + 1


def decode(
    model: Any,
    rows: Sequence[DecodeRow],
    *,
    stop_tokens: Collection[int],
    pad_token: int,
    on_finished: Callable[[int], None] | None = None,
) -> list[DecodedRow]:
    """Generate for all rows as one batch.

    Args:
        model: A transformers causal language model, or a PEFT model around one.
        rows: Prompts of similar length waste the least.
        stop_tokens: Token ids that end an answer.
        pad_token: Any token id; padding is masked.
        on_finished: Called with the number of rows that have just finished.

    Returns:
        One result a row, in the order of `rows`.
    """
    import torch

    results = [DecodedRow() for _ in rows]
    if not rows:
        return results
    settings = _Settings.of(rows)
    with torch.inference_mode():
        logits, live = _read_prompts(model, rows, pad_token)
        for step in range(settings.longest):
            logits = _constrained(logits, live.rows, rows)
            tokens = settings.choose(logits, live.rows, step)
            kept = _record(tokens, live.rows, results, rows, stop_tokens)
            for row, entry in _logprobs(logits, tokens, live.rows, rows).items():
                if not results[row].stopped:
                    results[row].logprobs.append(entry)
            if on_finished and len(kept) < len(live.rows):
                on_finished(len(live.rows) - len(kept))
            if not kept:
                break
            if len(kept) < len(live.rows):
                live.keep(kept)
                tokens = [tokens[i] for i in kept]
            live.advance()
            logits = model(
                input_ids=torch.tensor(tokens, device=live.attention.device)[:, None],
                attention_mask=live.attention,
                position_ids=live.position,
                past_key_values=live.cache,
                use_cache=True,
            ).logits[:, -1]
    return results


@dataclass(frozen=True, slots=True)
class _Settings:
    """The rows' sampling settings as arrays."""

    seeds: Any
    temperatures: Any
    top_k: Any
    longest: int

    @classmethod
    def of(cls, rows: Sequence[DecodeRow]) -> _Settings:
        return cls(
            np.array([row.seed % 2**64 for row in rows], dtype=np.uint64),
            np.array([row.temperature for row in rows], dtype=np.float64),
            np.array([row.top_k for row in rows], dtype=np.int64),
            max(row.max_new_tokens for row in rows),
        )

    def choose(self, logits: torch.Tensor, live: list[int], step: int) -> list[int]:
        """The next token of each live row; `logits` is [live, vocabulary]."""
        index = np.array(live)
        temperatures = self.temperatures[index]
        if not temperatures.any():
            return [int(token) for token in logits.argmax(dim=-1).tolist()]
        top_k = np.minimum(self.top_k[index], logits.shape[-1])
        best, tokens = logits.topk(int(top_k.max()), dim=-1)
        values, ids = best.float().cpu().numpy(), tokens.cpu().numpy()
        allowed = np.arange(values.shape[1])[None, :] < top_k[:, None]
        noise = gumbel_noise(self.seeds[index], np.full(len(live), step, dtype=np.uint64), ids)
        drawn = draw(np.where(allowed, values, -np.inf).astype(np.float32), ids, temperatures, noise)
        return [int(token) for token in drawn]


def _record(
    tokens: list[int],
    live: list[int],
    results: list[DecodedRow],
    rows: Sequence[DecodeRow],
    stop_tokens: Collection[int],
) -> list[int]:
    """Write one step's tokens into the results; the places in `live` of the rows that go on."""
    kept = []
    for place, (token, row) in enumerate(zip(tokens, live, strict=True)):
        if token in stop_tokens:
            results[row].stopped = True
            continue
        results[row].tokens.append(token)
        constraint = rows[row].constraint
        if constraint is not None:
            constraint.accept(token)
        if len(results[row].tokens) < rows[row].max_new_tokens:
            kept.append(place)
    return kept


def _logprobs(
    logits: torch.Tensor, tokens: list[int], live: list[int], rows: Sequence[DecodeRow]
) -> dict[int, tuple[float, tuple[tuple[int, float], ...]]]:
    """One step's log-probabilities of the rows that want them, by row."""
    import torch

    found = {}
    for place, (token, row) in enumerate(zip(tokens, live, strict=True)):
        count = rows[row].logprobs
        if count is not None:
            table = torch.log_softmax(logits[place].float(), dim=-1)
            values, ids = table.topk(count)
            likeliest = tuple((int(i), float(v)) for i, v in zip(ids, values, strict=True))
            found[row] = (float(table[token]), likeliest)
    return found


def _constrained(logits: torch.Tensor, live: list[int], rows: Sequence[DecodeRow]) -> torch.Tensor:
    """The logits, without the tokens that a row's constraint does not allow."""
    import torch

    held = [(place, constraint) for place, row in enumerate(live) if (constraint := rows[row].constraint) is not None]
    if not held:
        return logits
    logits = logits.clone()
    for place, constraint in held:
        allowed = torch.from_numpy(constraint.allowed(logits.shape[-1])).to(logits.device)
        logits[place] = logits[place].masked_fill(~allowed, float("-inf"))
    return logits


def _read_prompts(model: Any, rows: Sequence[DecodeRow], pad_token: int) -> tuple[torch.Tensor, _Live]:
    """Run the prompts, each different one once; logits of the first new token [rows, vocabulary], and the state."""
    import torch
    from transformers.cache_utils import DynamicCache

    unique = list(dict.fromkeys(row.prompt for row in rows))
    place = {prompt: index for index, prompt in enumerate(unique)}
    cache = DynamicCache(config=model.config)
    shared = _shared_prefix(unique)
    if shared:
        # Few-shot prompts differ in their last lines only: what they have in common is read once for all of them.
        common = torch.tensor([unique[0][:shared]], device=model.device)
        model(input_ids=common, past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache.batch_repeat_interleave(len(unique))
    width = max(map(len, unique)) - shared
    ids = torch.full((len(unique), width), pad_token, dtype=torch.long)
    attention = torch.zeros((len(unique), shared + width), dtype=torch.long)
    attention[:, :shared] = 1
    for index, prompt in enumerate(unique):
        rest = prompt[shared:]
        ids[index, width - len(rest) :] = torch.tensor(rest)
        attention[index, shared + width - len(rest) :] = 1
    ids, attention = ids.to(model.device), attention.to(model.device)
    position = (attention.cumsum(dim=1) - 1).clamp(min=0)[:, shared:]
    logits = model(
        input_ids=ids,
        attention_mask=attention,
        position_ids=position,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    ).logits[:, -1]
    expand = torch.tensor([place[row.prompt] for row in rows], device=model.device)
    live = _Live(list(range(len(unique))), cache, attention, position[:, -1:])
    if len(unique) < len(rows) or expand.tolist() != list(range(len(rows))):
        live.keep(expand.tolist())
    live.rows = list(range(len(rows)))
    return logits[expand], live


def _shared_prefix(prompts: Sequence[tuple[int, ...]]) -> int:
    """Tokens that all prompts begin with, where reading them apart pays; every prompt keeps at least one of its own."""
    if len(prompts) == 1:
        return 0
    # The first and the last in order differ earliest.
    first, last = min(prompts), max(prompts)
    same = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    same = min(same, min(map(len, prompts)) - 1)
    return same if same >= MIN_SHARED_PREFIX else 0
