"""The options of training, the ``[train]`` part of a recipe; each default names its source."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from rlhi_training.section import Section
from rlhi_training.trackers import Tracker


class TrainSection(Section):
    """How a LoRA adapter is trained, on TRL: persona-conditioned DPO, or another `method`."""

    method: Literal["dpo", "sft", "self_distillation"] = "dpo"
    """``dpo``: pairs, with `loss` (the paper's method). ``sft``: the chosen answers alone, as TRL's ``SFTTrainer`` has
    it (the paper's baseline). ``self_distillation``: logged answers whose follow-up carries feedback, without pairs
    (arXiv 2603.12273; `rlhi_training.methods.hindsight`). Options of `loss`, `beta` and reference are DPO's."""
    teacher: Literal["base", "start", "current"] = "base"
    """Self-distillation: who reads the follow-up. ``base``: the base model, asked once (ours: the target stands
    still). ``start``: the adapter as training began, asked once. ``current``: the model as it is at each step, as the
    paper's authors do; one more pass a step."""
    advantage_clip: float = Field(default=2.0, gt=0.0)
    """Self-distillation: largest size of one token's advantage, in nats. 2 is the default of the trainer that the
    paper's authors published; a run script of theirs sets 100."""
    rounds: int = Field(default=1, ge=1, le=99)
    """1: offline, on the run's pairs. More (semi-online, arXiv 2506.21495): every later round samples, scores and pairs
    with the adapter so far; needs `reward` or `contrast`. `epochs` is not read then."""
    sync_every: int = Field(default=8, ge=1)
    """Optimiser steps of one round, after which the adapter that samples is the one that was trained. arXiv 2506.21495
    compares 5, 10 and 100 with 1. Default: ours."""
    reference: Literal["start", "base", "round"] = "start"
    """What DPO holds the adapter close to. ``start``: what training began with, which is the base for a new adapter
    and, as in TRL, a continued one as it was: the policy whose answers the pairs are about. ``base``: the bare base, so
    that many short trainings drift no further than one long one. ``round``: the adapter with which each round began.
    Ours: ``start``, so that all rounds together stay near it."""
    follow_ups: Literal["own", "shuffled"] = "own"
    """Self-distillation: ``shuffled`` shows the teacher another turn's follow-up: a control of ours, in which it
    explains nothing."""
    loss: tuple[str, ...] = ("sigmoid", "sft")
    """TRL loss types (`rlhi_training.losses` lists them). The paper: DPO (``sigmoid``); the SFT term
    is ours and keeps answers from collapsing."""
    loss_weights: tuple[float, ...] = (1.0, 0.2)
    """One weight for each of `loss`, in its order. Ours."""
    label_smoothing: float = Field(default=0.0, ge=0.0, lt=0.5)
    """Share of pairs whose sides are taken to be swapped, for the losses ``robust`` (arXiv 2403.00409 uses 0.1),
    ``exo_pair`` (arXiv 2402.00856 uses 0.001), ``aot`` and ``aot_unpaired``. TRL's default."""
    beta: float = Field(default=0.1, gt=0.0)
    """arXiv 2506.21495 uses 0.01 with full fine-tuning; 0.1 is TRL's default and ours for LoRA."""
    learning_rate: float = Field(default=3e-4, gt=0.0)
    """Ours, for a 135M model with LoRA; arXiv 2506.21495 uses 1e-6 on all weights of an 8B model."""
    epochs: float = Field(default=2.0, gt=0.0)
    """Times that each pair is trained on. Ours."""
    batch_size: int = Field(default=8, ge=1)
    """Pairs per optimiser step. arXiv 2506.21495 uses 32."""
    micro_batch_size: int = Field(default=8, ge=1)
    """Pairs per forward pass; must divide `batch_size`. Without effect where `tokens_per_batch` counts. Ours."""
    tokens_per_batch: int | None = Field(default=None, ge=64)
    """Most tokens of a forward pass, which is what its memory follows: the trees of `batch_size` pairs are packed into
    as few passes as hold them, and loss and gradients stay those of the whole batch. A conversation that is larger is
    cut into runs of turns; a pair that is larger is dropped with a reason. None: `micro_batch_size` pairs a pass. Of
    method ``dpo``; the others take `micro_batch_size`. Ours."""
    warmup_steps: int = Field(default=5, ge=0)
    """Optimiser steps over which the learning rate rises, a quarter of all steps at most; then it falls linearly to 0.
    Ours."""
    max_grad_norm: float = Field(default=1.0, gt=0.0)
    """arXiv 2506.21495 clips at 0.1."""
    lora_rank: int = Field(default=16, ge=1)
    """Rank of the two factors of a weight's change (LoRA, arXiv 2106.09685). Ours."""
    lora_alpha: int = Field(default=32, ge=1)
    """The change is scaled by this over the rank (see `rslora`). Ours: twice the rank."""
    lora_dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of a layer's inputs that the change does not see at a step. Ours."""
    target_modules: str | tuple[str, ...] = "all-linear"
    """Layers that are adapted: ``all-linear`` (all but the output layer), or names as PEFT takes them. Ours."""
    dora: bool = False
    """Weights split into magnitude and direction (DoRA, arXiv 2402.09353): slower, sometimes better at low ranks."""
    rslora: bool = False
    """Scale by alpha / sqrt(rank) instead of alpha / rank (rsLoRA, arXiv 2312.03732): for high ranks."""
    quantize: Literal["none", "nf4"] = "none"
    """``nf4``: the base's linear layers in 4 bits (QLoRA, arXiv 2305.14314), a quarter of bfloat16's memory for about a
    third more time. Needs the extra ``qlora``. The adapter is then one for the base as 4 bits approximate it."""
    gradient_checkpointing: bool = False
    """Keep one state a layer and compute the rest again in the backward pass: the same gradients, a fraction of the
    memory for activations, a third more time (arXiv 1604.06174). On a processor more than that, since freed memory goes
    back to the system at once (`rlhi_training.allocator`)."""
    continue_from: str | None = None
    """Start from this adapter, by its name in the registry or its folder, instead of a new one. Rank, alpha, dropout,
    modules, `dora` and `rslora` are then the adapter's own; `reference` says what it is held close to."""
    max_length: int = Field(default=2048, ge=64)
    """Tokens of prompt plus answer; a longer pair is dropped with a reason, never cut."""
    share_prefixes: bool = True
    """Compute what the sequences of a batch have in common once (exact; see rlhi_training.tree)."""
    share_within: Literal["batch", "pair"] = "batch"
    """Which sequences: all of a forward pass, or only the two of a pair (arXiv 2410.20305). Ours."""
    check_parity: bool = True
    """Compare eight pairs of the first reference batch and of the first training batch with TRL's own pass, and train
    without sharing where they differ. It costs less than one step. Ours."""
    reuse_reference: bool = True
    """Keep what the base thinks of an answer in the cache folder, for later runs on the same pairs."""
    report_to: tuple[Tracker, ...] = ()
    """Experiment trackers: ``trackio``, ``tensorboard`` (files in the run's folder), ``wandb``. Need the extra
    ``track``. Ours: none."""
    seed: int = 0
    """Of the adapter's first weights, the order of the pairs, and dropout; apart from the recipe's. Ours."""

    @property
    def token_budget(self) -> int | None:
        """`tokens_per_batch` where the method divides its batches so."""
        return self.tokens_per_batch if self.method == "dpo" else None
