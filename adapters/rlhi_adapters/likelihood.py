"""How likely a model finds given answers: the log-likelihood of each of several options after one prompt.

A prompt is read once, and its options are scored together over copies of the cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def option_log_likelihoods(model: Any, prompt: Sequence[int], options: Sequence[Sequence[int]]) -> tuple[float, ...]:
    """Sum of the natural log-probabilities of each option's tokens, given the prompt and the option's earlier tokens.

    Args:
        model: A transformers causal language model, or a PEFT model around one.
        prompt: Token ids, not empty.
        options: Token ids of each option, none of them empty.

    Returns:
        One number of at most 0 an option.
    """
    import torch
    from transformers.cache_utils import DynamicCache

    width = max(map(len, options))
    ids = torch.zeros((len(options), width), dtype=torch.long)
    for row, option in enumerate(options):
        ids[row, : len(option)] = torch.tensor(list(option))
    ids = ids.to(model.device)
    with torch.inference_mode():
        cache = DynamicCache(config=model.config)
        head = torch.tensor([list(prompt)], device=model.device)
        first = model(input_ids=head, past_key_values=cache, use_cache=True, logits_to_keep=1).logits[:, -1:]
        cache.batch_repeat_interleave(len(options))
        # Padding stands after an option's own tokens, which therefore never see it.
        later = model(input_ids=ids, past_key_values=cache, use_cache=True).logits[:, :-1]
        logits = torch.cat([first.expand(len(options), -1, -1), later], dim=1).float()
        chosen = torch.log_softmax(logits, dim=-1).gather(-1, ids[..., None])[..., 0].cpu()
    return tuple(float(chosen[row, : len(option)].sum()) for row, option in enumerate(options))
