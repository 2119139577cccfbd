"""Preference pairs in, one LoRA adapter out: persona-conditioned DPO (arXiv 2509.25137) on TRL and PEFT.

Losses, metrics, logging and checkpoints are TRL's. Ours are: answers are never truncated (what does not fit is dropped
with a reason), equal prefixes are computed once (`rlhi_training.tree`), a killed run continues, and what is saved is
two plain files and a model card.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlhi_adapters.base_models import BaseModel, cache_root, resolve_base
from rlhi_adapters.digests import ADAPTER_CONFIG
from rlhi_adapters.loading import load_causal_lm, load_tokenizer, quiet
from rlhi_plugin import terminal
from rlhi_plugin.errors import ArtefactError, ConfigError, MissingExtraError
from rlhi_training import model_card, reread_history, trackers
from rlhi_training.allocator import return_freed_memory
from rlhi_training.lora import StartingPoint, starting_point, with_adapter
from rlhi_training.losses import check_losses
from rlhi_training.methods import choice
from rlhi_training.methods.segment import Segment
from rlhi_training.plan.machine import require_memory
from rlhi_training.processes import is_main, main_first
from rlhi_training.recipe import Recipe
from rlhi_training.records import Dropped
from rlhi_training.reference_vault import ReferenceVault
from rlhi_training.train_checks import check_train
from rlhi_training.train_limits import largest_pass, window_of, within_limits
from rlhi_training.train_options import TrainSection

_log = logging.getLogger("rlhi.training")

Progress = Callable[[str, int], AbstractContextManager[terminal.Advance]]
"""Opens a progress bar: description and total in, a function that advances it out."""

_CHECKPOINTS = "checkpoints"
_INPUTS = "inputs.sha256"
_LOOKS = {"report_to", "check_parity"}
"""Options of training that do not change what comes out."""


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What training made, and how it went."""

    adapter_dir: Path
    """``adapter_config.json``, ``adapter_model.safetensors`` and ``README.md``."""
    base: BaseModel
    trained_pairs: int
    dropped: tuple[Dropped, ...]
    steps: int
    seconds: float
    """Wall time of this call, loading included."""
    metrics: dict[str, float]
    """TRL's metrics at the last logged step, ``train_loss``, ``tokens_shared``: the share of tokens not computed again
    because an equal prefix was there, ``largest_pass``: the most tokens of a forward pass, ``trees_cut``: how often a
    tree was cut because of the token budget, ``parity_difference`` and ``parity_seconds``: the mean difference of a
    token's log-probability from TRL's own pass, in nats, and what it took to know it, ``reference_reused``: the share
    of pairs whose reference was known, and ``histories_reread``: see `rlhi_training.reread_history`."""
    log_history: tuple[dict[str, float], ...]
    """TRL's log, one entry a logged step."""
    resumed_from: int | None = None
    """The step that a killed run was continued from."""
    warnings: tuple[str, ...] = ()
    """Signs that nothing was learnt, and why prefixes were not shared where they should have been."""
    parent: str | None = None
    """The registered adapter that was continued."""


@dataclass(slots=True)
class _Run:
    """What the steps of one training run share."""

    base: BaseModel
    tokenizer: Any
    recipe: Recipe
    out_dir: Path
    progress: Progress | None
    start: StartingPoint | None
    segment: Segment | None = None
    warnings: list[str] = field(default_factory=list)

    def bar(self, description: str, total: int) -> AbstractContextManager[terminal.Advance]:
        return self.progress(description, total) if self.progress else nullcontext(lambda _: None)

    def measured_bar(self, description: str, total: int) -> AbstractContextManager[terminal.Report]:
        return terminal.measured(description, total) if self.progress else nullcontext(lambda _n, _note: None)


def train_adapter(
    pairs: Sequence[choice.Item],
    recipe: Recipe,
    out_dir: Path,
    *,
    progress: Progress | None = terminal.progress,
    persona_frame_digest: str | None = None,
    registry: Path | None = None,
    segment: Segment | None = None,
) -> TrainResult:
    """Train a LoRA adapter on preference pairs, or by self-distillation on logged answers with their follow-ups.

    A run that was killed continues from its last checkpoint when it is started again with the same pairs and recipe,
    and gives the same weights as an undisturbed one (CPU, float32).

    Args:
        pairs: What to learn from; `recipe.train.method` says which kind.
        recipe: `recipe.model` and `recipe.train` are read.
        out_dir: Gets ``adapter/``, ``training_log.jsonl`` and, while training, ``checkpoints/``.
        progress: Opens progress bars; None is silent.
        persona_frame_digest: Digest of the frame that personas were rendered into, for the model card.
        registry: Where ``train.continue_from`` looks for an adapter; None is the default registry.
        segment: Only this part of a training over several rounds; its state is kept in ``state/`` for the next one.

    Raises:
        ConfigError: settings that do not fit each other, a base without system role, no pair left to train on, or a
            pass that is larger than this machine's memory.
        UserError: the base model cannot be found.
        ArtefactError: the base model cannot be read, or training ended in numbers that are not finite.
    """
    started = time.monotonic()
    check_train(recipe.train)
    check_losses(recipe.train)
    trackers.require(recipe.train.report_to)
    base = resolve_base(recipe.model.base)
    start = starting_point(recipe.train.continue_from, base, registry)
    if segment is not None:
        recipe = recipe.model_copy(update={"train": recipe.train.model_copy(update={"epochs": float(segment.of)})})
    run = _Run(base, load_tokenizer(base.path), recipe, out_dir, progress, start, segment)
    kept, dropped = choice.tokenise(pairs, run.tokenizer, base.name, recipe.train)
    kept, too_large = within_limits(kept, recipe.train, window_of(base.path))
    dropped += too_large
    if not kept:
        reasons = ", ".join(sorted({drop.reason for drop in dropped})) or "none were given"
        raise ConfigError(f"no pairs left to train on ({reasons}). Give more pairs, or raise train.max_length.")
    if segment is not None:
        kept, unused = segment.rows(kept, recipe.train.batch_size, recipe.train.seed)
        dropped += unused
    with main_first():
        resume = _resume_point(out_dir / _CHECKPOINTS, _fingerprint(kept, run))
    reread = choice.histories_reread(pairs, kept) if recipe.train.share_prefixes else []
    if reread:
        run.warnings.append(reread_history.warning(base.name, reread))
    trainer = _build(run, kept)
    steps = _train(run, trainer, resume or (segment.before if segment else None))
    history = tuple(trainer.state.log_history)
    result = TrainResult(
        adapter_dir=out_dir / "adapter",
        base=base,
        trained_pairs=len({pair.pair_id for pair in kept}),
        dropped=tuple(dropped),
        steps=steps,
        seconds=time.monotonic() - started,
        metrics={**_metrics(history, trainer), "histories_reread": float(len(reread))},
        log_history=history,
        resumed_from=_step_of(resume) if resume else None,
        warnings=tuple(run.warnings),
        parent=start.name if start and start.registered else None,
    )
    if not is_main():
        return result
    card = _card(result, recipe, [pair.source for pair in kept], persona_frame_digest)
    _save_adapter(trainer.model, result, card)
    (out_dir / "training_log.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in history), "utf-8")
    if segment is not None:
        segment.keep(out_dir / _CHECKPOINTS, out_dir / "state")
    shutil.rmtree(out_dir / _CHECKPOINTS, ignore_errors=True)
    return result


def _fingerprint(kept: Sequence[choice.TokenisedItem], run: _Run) -> str:
    """What a checkpoint must have been made from to be continued: tokens in order, settings, weights."""
    digest = hashlib.sha256(run.recipe.train.model_dump_json(exclude=_LOOKS).encode())
    digest.update(f"{run.recipe.model.dtype}\0{run.base.digest}\0{run.start and run.start.digest}\0".encode())
    for pair in kept:
        digest.update(choice.tokens(pair))
    if run.segment is not None:
        digest.update(f"{run.segment.number}\0{run.segment.came_from}".encode())
    return digest.hexdigest()


def _resume_point(folder: Path, fingerprint: str) -> Path | None:
    """The last complete checkpoint of the same inputs; checkpoints of others are removed."""
    note = folder / _INPUTS
    if folder.is_dir() and (not note.is_file() or note.read_text("utf-8") != fingerprint):
        _log.info("the checkpoints in %s belong to other pairs or settings; starting over", folder)
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if not note.is_file():
        note.write_text(fingerprint, "utf-8")
    # The marker is written last, so a checkpoint that a kill cut short has none.
    complete = [path.parent for path in folder.glob("checkpoint-*/complete")]
    if not complete:
        return None
    last = max(complete, key=_step_of)
    _log.info("continuing from step %d", _step_of(last))
    return last


def _step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def _build(run: _Run, kept: Sequence[choice.TokenisedItem]) -> Any:
    """TRL's trainer with model, data and adapter in place; computes the reference log-probabilities."""
    try:
        from datasets import Dataset
        from transformers.trainer_callback import PrinterCallback

        make_trainer = choice.trainer_of(run.recipe.train, run.segment)
    except ImportError as error:
        raise MissingExtraError(error.name or "trl", "train") from error
    train = run.recipe.train
    require_memory(run.recipe, run.base, load=largest_pass(kept, train))
    bare = load_causal_lm(run.base.path, dtype=run.recipe.model.dtype, four_bit=train.quantize == "nf4")
    model, new_adapter = with_adapter(bare, train, run.start)
    rows = choice.rows(kept, train)
    with _vault(run, model) as vault, run.bar("Reference pass", len(rows)) as advance, quiet():
        trainer = make_trainer(
            share_prefixes=train.share_prefixes,
            groups=[pair.group for pair in kept],
            on_reference=advance,
            check_parity=train.check_parity,
            vault=vault,
            scope=train.share_within,
            tokens_per_batch=train.token_budget,
            reference=train.reference,
            model=model,
            args=_dpo_config(run, model, pairs=len(rows)),
            train_dataset=Dataset.from_list(rows),
            processing_class=run.tokenizer,
            peft_config=new_adapter,
            callbacks=trackers.callbacks(train.report_to, run.out_dir),
        )
    # It would print each log entry as a Python dict.
    trainer.remove_callback(PrinterCallback)
    return trainer


def _vault(run: _Run, model: Any) -> AbstractContextManager[ReferenceVault | None]:
    if not run.recipe.train.reuse_reference or not choice.reference_stands_still(run.recipe.train):
        return nullcontext(None)
    file = cache_root() / "reference.sqlite"
    numbers = f"{model.dtype} {model.device.type}"
    if run.recipe.train.quantize != "none":
        numbers += f" {run.recipe.train.quantize}"
    if run.start is not None and run.recipe.train.reference == "start":
        numbers += f" adapter {run.start.digest}"
    return ReferenceVault(file, base_digest=run.base.digest, numbers=numbers)


def _planned_steps(train: TrainSection, pairs: int) -> int:
    return max(1, math.ceil(math.ceil(pairs / train.batch_size) * train.epochs))


def _dpo_config(run: _Run, model: Any, *, pairs: int) -> Any:
    """TRL's settings from the recipe's."""
    import torch
    from trl import DPOConfig

    train = run.recipe.train
    steps = _planned_steps(train, pairs)
    on_cpu = model.device.type == "cpu"
    if on_cpu and train.gradient_checkpointing:
        return_freed_memory()
    # Under a token budget a batch is divided by tokens (`rlhi_training.tree.packed_step`).
    at_once = train.micro_batch_size if train.token_budget is None else train.batch_size
    return DPOConfig(
        output_dir=str(run.out_dir / _CHECKPOINTS),
        per_device_train_batch_size=at_once,
        gradient_accumulation_steps=train.batch_size // at_once,
        num_train_epochs=train.epochs,
        learning_rate=train.learning_rate,
        lr_scheduler_type="linear",
        # A run of a few steps would otherwise end before its learning rate is reached.
        warmup_steps=min(train.warmup_steps, steps // 4),
        max_grad_norm=train.max_grad_norm,
        beta=train.beta,
        loss_type=list(train.loss),
        loss_weights=list(train.loss_weights),
        label_smoothing=train.label_smoothing,
        max_length=None,
        precompute_ref_log_probs=True,
        # Without gradients a pair needs a fraction of the memory, and wide batches use a processor better.
        precompute_ref_batch_size=4 * at_once,
        disable_dropout=train.lora_dropout == 0.0,
        gradient_checkpointing=train.gradient_checkpointing,
        bf16=model.dtype == torch.bfloat16,
        use_cpu=on_cpu,
        dataloader_pin_memory=not on_cpu,
        seed=train.seed,
        data_seed=train.seed,
        logging_steps=max(1, min(5, steps // 10)),
        logging_first_step=True,
        save_strategy="steps",
        save_steps=max(1, min(25, steps // 4)),
        save_total_limit=2,
        # The trackers are given to the trainer as callbacks.
        report_to=[],
        project=trackers.PROJECT,
        run_name=f"{run.recipe.name}-{run.out_dir.resolve().name}",
        disable_tqdm=True,
    )


def _train(run: _Run, trainer: Any, resume: Path | None) -> int:
    """Run TRL's training loop; the number of optimiser steps."""
    train = run.recipe.train
    steps = _planned_steps(train, len(trainer.train_dataset))
    with run.measured_bar("Training", steps) as advance:
        trainer.add_callback(choice.make_watch(train, advance, run.warnings))
        if run.segment is not None:
            trainer.add_callback(run.segment.stop())
        with trackers.named(train.report_to), quiet():
            outcome = trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    if train.share_prefixes and trainer.shared.reason is not None:
        run.warnings.append(f"prefixes were not shared: {trainer.shared.reason}")
    if not math.isfinite(outcome.training_loss):
        raise ArtefactError(
            f"training ended with a loss of {outcome.training_loss}. Lower train.learning_rate or use float32."
        )
    return int(outcome.global_step)


def _metrics(history: Sequence[dict[str, Any]], trainer: Any) -> dict[str, float]:
    metrics: dict[str, float] = {}
    for entry in history:
        metrics.update({key: float(value) for key, value in entry.items() if isinstance(value, int | float)})
    shared = trainer.shared
    metrics["tokens_shared"] = 1.0 - shared.tokens_computed / shared.tokens_in if shared.tokens_in else 0.0
    metrics["largest_pass"] = float(shared.largest)
    metrics["trees_cut"] = float(shared.trees_cut)
    if shared.difference is not None:
        metrics["parity_difference"] = shared.difference
    metrics["parity_seconds"] = shared.seconds
    metrics["reference_reused"] = trainer.reference_reused / max(1, len(trainer.train_dataset))
    return metrics


def _card(result: TrainResult, recipe: Recipe, sources: Sequence[str], persona_frame_digest: str | None) -> str:
    return model_card.render(
        model_card.CardFacts(
            base_reference=result.base.reference,
            base_digest=result.base.digest,
            recipe=recipe,
            sources=sources,
            dropped=Counter(drop.reason for drop in result.dropped),
            steps=result.steps,
            metrics=result.metrics,
            persona_frame_digest=persona_frame_digest,
            warnings=result.warnings,
        )
    )


def _save_adapter(model: Any, result: TrainResult, card: str) -> None:
    """Write the adapter's files, and nothing else, in one move."""
    target = result.adapter_dir
    scratch = target.with_name(".adapter-being-written")
    shutil.rmtree(scratch, ignore_errors=True)
    with quiet():
        model.save_pretrained(scratch, save_embedding_layers=False)
    config = json.loads((scratch / ADAPTER_CONFIG).read_text("utf-8"))
    # PEFT writes this machine's path of the base, and the modules in the order of a set.
    config["base_model_name_or_path"] = result.base.reference
    if isinstance(config.get("target_modules"), list):
        config["target_modules"].sort()
    (scratch / ADAPTER_CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", "utf-8")
    (scratch / "README.md").write_text(card, "utf-8")
    # safetensors makes files that only their owner can read; an adapter is served by others.
    for weights in scratch.glob("*.safetensors"):
        weights.chmod(0o644)
    shutil.rmtree(target, ignore_errors=True)
    scratch.rename(target)
