"""A language model as a labeller: a causal model with a classification head and LoRA in its upper layers.

Request, reply and follow-up stand in this order, as the model has read conversations before; what the last position
holds goes into the head. The follow-up is kept whole where it fits, and the ends of the other two share what room is
left. The layers below the lowest adapted one are run without gradients. It is a candidate of `rlhi-train
compare-labellers`, not a tier: see the README for what it gained and cost.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rlhi_adapters.base_models import EMBEDDED, resolve_base
from rlhi_adapters.loading import load_tokenizer, pick_device, pick_dtype, quiet
from rlhi_plugin.errors import ArtefactError, ConfigError, MissingExtraError
from rlhi_plugin.labelling import Exchange
from rlhi_training.labelling.decision import CLASSES, N_OUTPUTS
from rlhi_training.labelling.fit_fast import FitRow

logger = logging.getLogger("rlhi.training")

_WARM_UP = 0.1
_SAID_EVERY = 10
"""Steps between two log lines."""
_CHARS = 8
"""Characters per token that suffice to fill it: the rest of a text is not even split."""
_HEAD = "score"
"""What transformers calls the linear layer on top."""
_LEAST_ROOM = 8
"""Tokens that request and reply have at least, each."""


@dataclass(frozen=True)
class LanguageModelOptions:
    """How a language model is fitted (ours; one run is all that was measured)."""

    base: str = EMBEDDED
    """See `rlhi_adapters.base_models.resolve_base`."""
    layers: int = 10
    """Uppermost layers with LoRA, at least 1."""
    rank: int = 8
    alpha: int = 16
    epochs: int = 1
    learning_rate: float = 5e-4
    batch: int = 16
    most_tokens: int = 160
    """Of a row, at least 32."""
    smoothing: float = 0.05
    most_seconds: float | None = None
    """Stop after so long, with the learning rate decayed by then; what was learned from is in `Fitted`."""
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.layers, self.rank, self.epochs, self.batch) < 1 or self.most_tokens < 4 * _LEAST_ROOM:
            raise ConfigError(
                f"a language model needs layers, rank, epochs and a batch of 1 or more, and {4 * _LEAST_ROOM} tokens"
                " a row or more. Give larger numbers."
            )


class TokenRows:
    """Makes rows of token ids.

    Args:
        tokenizer: The model's.
        most: Tokens of a row, at most.
    """

    def __init__(self, tokenizer: Any, most: int) -> None:
        self._tokenizer, self._most = tokenizer, most
        self._marks = [self._ids(mark) for mark in ("User: ", "\nAssistant: ", "\nUser: ", "\nLabel:")]

    def row(self, exchange: Exchange) -> list[int]:
        """``User: request / Assistant: reply / User: follow-up / Label:``, clipped in the middle of each text."""
        room = self._most - sum(map(len, self._marks))
        follow_up = _clip(self._ids(self._ends(exchange.follow_up)), room - 2 * _LEAST_ROOM)
        room -= len(follow_up)
        reply = self._ids(self._ends(exchange.reply))
        request = _clip(self._ids(self._ends(exchange.request)), max(room // 2, room - len(reply)))
        texts: tuple[list[int], ...] = (request, _clip(reply, room - len(request)), follow_up, [])
        return [token for mark, text in zip(self._marks, texts, strict=True) for token in (*mark, *text)]

    def _ids(self, text: str) -> list[int]:
        found: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return found

    def _ends(self, text: str) -> str:
        half = _CHARS * self._most
        return text if len(text) <= 2 * half else f"{text[:half]} {text[-half:]}"


def _clip(ids: list[int], room: int) -> list[int]:
    if len(ids) <= room:
        return ids
    head = room - room // 3
    return [*ids[:head], *ids[len(ids) - room + head :]]


class LanguageModelClassifier:
    """A fitted model; `fit_language_model` makes one, `load` reads one.

    Attributes:
        model: The model with its adapter.
        rows: What makes its rows.
    """

    def __init__(self, model: Any, tokenizer: Any, most_tokens: int) -> None:
        self.model, self.rows = model, TokenRows(tokenizer, most_tokens)
        self._pad = int(tokenizer.pad_token_id)

    @classmethod
    def load(cls, folder: Path, options: LanguageModelOptions) -> LanguageModelClassifier:
        """Read what `save` wrote.

        Raises:
            ArtefactError: the folder is absent or damaged, or the adapter is for another model.
        """
        from safetensors import SafetensorError

        peft, bare, tokenizer = _library(), *_bare(options)
        try:
            with quiet():
                model = peft.PeftModel.from_pretrained(bare, str(folder), local_files_only=True)
        except (OSError, RuntimeError, ValueError, KeyError, SafetensorError) as error:
            raise ArtefactError(f"cannot read the classifier in {folder}: {error}. Fit it again.") from error
        return cls(model.eval(), tokenizer, options.most_tokens)

    def save(self, folder: Path) -> None:
        """Write adapter and head, in safetensors."""
        with quiet():
            self.model.save_pretrained(folder)

    def scores(self, exchanges: Sequence[Exchange], batch: int = 32) -> Any:
        """Scores of the classes; sub-types, of which it knows nothing, get 0. Shape (exchanges, 4 + 16), float32."""
        import numpy as np

        found = np.zeros((len(exchanges), N_OUTPUTS), dtype=np.float32)
        rows = [self.rows.row(exchange) for exchange in exchanges]
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        with torch.inference_mode():
            for start in range(0, len(order), batch):
                places = order[start : start + batch]
                found[places, : len(CLASSES)] = self.logits([rows[i] for i in places]).float().cpu().numpy()
        return found

    def logits(self, rows: Sequence[list[int]]) -> torch.Tensor:
        """Scores of the classes of some rows, shape (rows, 4)."""
        longest = max(map(len, rows))
        ids = torch.tensor([[*row, *[self._pad] * (longest - len(row))] for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
        device = self.model.device
        with torch.autocast(device.type, torch.bfloat16, enabled=self.model.dtype == torch.bfloat16):
            # The head's answer at the last position of each row: computed here, since a pad token that is also the
            # end of a turn hides from transformers where a row ends.
            hidden = self.model.base_model.model.model(
                input_ids=ids.to(device), attention_mask=mask.to(device), use_cache=False
            ).last_hidden_state
            last = hidden[torch.arange(len(rows)), (mask.sum(1) - 1).to(device)]
        scores: torch.Tensor = self.model.base_model.model.score(last.float())
        return scores


@dataclass(frozen=True)
class Fitted:
    """What training gave.

    Attributes:
        classifier: The fitted model.
        rows: Rows that it learned from, each counted as often as it was seen.
        tokens: Of these.
        steps: Updates of the weights.
        planned: Steps that there would have been without a limit.
    """

    classifier: LanguageModelClassifier
    rows: int
    tokens: int
    steps: int
    planned: int


def fit_language_model(rows: Sequence[FitRow], options: LanguageModelOptions) -> Fitted:
    """Fit LoRA and head; AdamW, linear decay, batches of rows of about the same length.

    Raises:
        MissingExtraError: transformers or peft is not installed.
        ConfigError: there is no such base.
        ArtefactError: its weights cannot be read.
    """
    torch.manual_seed(options.seed)
    draw = random.Random(options.seed)
    classifier = _untrained(options)
    made = [classifier.rows.row(row.exchange) for row in rows]
    weights = [parameter for parameter in classifier.model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(weights, lr=options.learning_rate, weight_decay=0.01)
    order = [places for _ in range(options.epochs) for places in _shuffled(made, options.batch, draw)]
    started, losses, seen = time.monotonic(), 0.0, [0, 0]
    for step, places in enumerate(order):
        gone = (time.monotonic() - started) / options.most_seconds if options.most_seconds else 0.0
        if gone >= 1.0:
            break
        for group in optimiser.param_groups:
            group["lr"] = options.learning_rate * _rate(step, len(order), gone)
        loss = _loss(classifier, rows, made, places, options.smoothing)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        losses += float(loss.detach())
        seen = [seen[0] + len(places), seen[1] + sum(len(made[i]) for i in places)]
        if step % _SAID_EVERY == 0:
            mean, seconds = losses / (step + 1), time.monotonic() - started
            logger.info("step %d of %d: mean loss %.3f, %.0f s", step + 1, len(order), mean, seconds)
    else:
        step = len(order)
    classifier.model.eval()
    return Fitted(classifier, seen[0], seen[1], step, len(order))


def _rate(step: int, steps: int, gone: float) -> float:
    """Share of the learning rate: a warm-up over the first tenth, then down to nothing at the end of steps or time."""
    return min(1.0, (step + 1) / max(1.0, _WARM_UP * steps), 1.0 - max(step / steps, gone))


def _loss(
    classifier: LanguageModelClassifier,
    rows: Sequence[FitRow],
    made: Sequence[list[int]],
    places: Sequence[int],
    smoothing: float,
) -> torch.Tensor:
    said = classifier.logits([made[i] for i in places])
    truth = torch.tensor([CLASSES.index(rows[i].label) for i in places], device=said.device)
    weight = torch.tensor([rows[i].weight for i in places], device=said.device)
    losses = nn.functional.cross_entropy(said.float(), truth, reduction="none", label_smoothing=smoothing)
    return (losses * weight).mean()


def _shuffled(rows: Sequence[list[int]], size: int, draw: random.Random) -> list[list[int]]:
    order = list(range(len(rows)))
    draw.shuffle(order)
    made = []
    for start in range(0, len(order), size * 16):
        near = sorted(order[start : start + size * 16], key=lambda i: len(rows[i]))
        made += [near[k : k + size] for k in range(0, len(near), size)]
    draw.shuffle(made)
    return made


def _untrained(options: LanguageModelOptions) -> LanguageModelClassifier:
    peft, bare, tokenizer = _library(), *_bare(options)
    count = int(bare.config.num_hidden_layers)
    linear = {name.rpartition(".")[2] for name, part in bare.named_modules() if isinstance(part, nn.Linear)}
    config = peft.LoraConfig(
        task_type="SEQ_CLS",
        r=options.rank,
        lora_alpha=options.alpha,
        target_modules=sorted(linear - {_HEAD}),
        layers_to_transform=list(range(max(0, count - options.layers), count)),
        modules_to_save=[_HEAD],
    )
    with quiet():
        return LanguageModelClassifier(peft.get_peft_model(bare, config).train(), tokenizer, options.most_tokens)


def _bare(options: LanguageModelOptions) -> tuple[Any, Any]:
    base = resolve_base(options.base)
    device = pick_device()
    dtype = getattr(torch, pick_dtype("auto", device))
    with quiet():
        from transformers import AutoModelForSequenceClassification

        try:
            model = AutoModelForSequenceClassification.from_pretrained(
                base.path, num_labels=len(CLASSES), dtype=dtype, local_files_only=True, use_safetensors=True
            )
        except (OSError, ValueError) as error:
            raise ArtefactError(f"cannot load a classifier from {base.path}: {error}. Choose another base.") from error
    model.score.float()
    return model.to(device), load_tokenizer(base.path)


def _library() -> Any:
    try:
        import peft
    except ImportError as error:
        raise MissingExtraError("peft", "train") from error
    return peft
