"""Ways to label without a language model that writes, each fitted on some conversations and tried on others.

What a candidate says of rows is kept in a folder, under a digest of what it learned from and how: a stopped comparison
goes on where it was, and one that adds a candidate pays for that one alone.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhi_plugin.errors import ConfigError
from rlhi_training.labelling.decision import N_OUTPUTS
from rlhi_training.labelling.fit_fast import FitRow, fit_linear, look
from rlhi_training.labelling.self_training import SelfTraining, joined, teach
from rlhi_training.labelling.weights import read_weights, write_weights

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rlhi_training.labelling.fit_encoder import EncoderOptions
    from rlhi_training.labelling.language_model import LanguageModelOptions


@dataclass(frozen=True)
class Fold:
    """What is learned from and what is tried on; no conversation is in both.

    Attributes:
        train: Labelled and invented rows.
        held: Labelled rows.
    """

    train: list[FitRow]
    held: list[FitRow]


@dataclass(frozen=True)
class CandidateOptions:
    """How candidates are fitted; None stands for the defaults.

    Attributes:
        self_training: What self-trained candidates learn from beside the labelled rows.
        encoder: Of the encoder.
        language_model: Of the language model.
    """

    self_training: SelfTraining | None = None
    encoder: EncoderOptions | None = None
    language_model: LanguageModelOptions | None = None


@dataclass(frozen=True)
class Tried:
    """What a candidate said of the held rows, and what that took.

    Attributes:
        scores: Shape (held rows, 4 + 16); not calibrated.
        facts: ``rows`` it learned from (each as often as it was seen by a language model), ``unlabelled`` of them,
            ``fit_cpu_s`` and ``label_cpu_s``: seconds of processor time, of all threads; and what else there is to say.
    """

    scores: NDArray[np.float32]
    facts: dict[str, float] = field(default_factory=dict)


Fit = Callable[[Fold, CandidateOptions, Path | None], tuple[Callable[[Sequence[FitRow]], Any], dict[str, float]]]
"""Fits, and gives what scores rows, and facts. The path is a folder that it may keep weights in."""


def _fast(fold: Fold, options: CandidateOptions, _: Path | None) -> Any:
    del options
    model = fit_linear(look(fold.train))
    return lambda rows: model.scores([row.exchange for row in rows]), {"rows": len(fold.train)}


def _fast_self_trained(fold: Fold, options: CandidateOptions, _: Path | None) -> Any:
    looked = look(fold.train)
    pseudo = teach(looked, _training(options))
    model = fit_linear(joined(looked, look(pseudo)) if pseudo else looked)
    facts = {"rows": len(fold.train) + len(pseudo), "unlabelled": len(pseudo)}
    return lambda rows: model.scores([row.exchange for row in rows]), facts


def _encoder(fold: Fold, options: CandidateOptions, _: Path | None) -> Any:
    return _fit_encoder(fold.train, options)


def _encoder_self_trained(fold: Fold, options: CandidateOptions, _: Path | None) -> Any:
    """Its teacher is the fast tier: what the two see is not the same, so one can learn from the other."""
    pseudo = teach(look(fold.train), _training(options))
    scores, facts = _fit_encoder([*fold.train, *pseudo], options)
    return scores, {**facts, "unlabelled": len(pseudo)}


def _fit_encoder(train: list[FitRow], options: CandidateOptions) -> Any:
    from rlhi_training.labelling.fit_encoder import EncoderOptions, Prepared, fit_network, network_scores

    network = fit_network(Prepared(train), range(len(train)), options.encoder or EncoderOptions())
    return lambda rows: network_scores(network, Prepared(rows), range(len(rows))), {"rows": len(train)}


def _language_model(fold: Fold, options: CandidateOptions, folder: Path | None) -> Any:
    """Its adapter is kept as soon as it is fitted: a comparison that was stopped while it scores fits nothing again."""
    from rlhi_training.labelling.language_model import (
        LanguageModelClassifier,
        LanguageModelOptions,
        fit_language_model,
    )

    own = options.language_model or LanguageModelOptions()
    told = folder / "fitted.json" if folder else None
    if folder is not None and told is not None and told.is_file():
        classifier, facts = LanguageModelClassifier.load(folder, own), json.loads(told.read_text("utf-8"))
    else:
        fitted = fit_language_model(fold.train, own)
        classifier = fitted.classifier
        facts = {"rows": fitted.rows, "tokens": fitted.tokens, "steps": fitted.steps, "steps_planned": fitted.planned}
        if folder is not None and told is not None:
            classifier.save(folder)
            told.write_text(json.dumps(facts), "utf-8")
    return lambda rows: classifier.scores([row.exchange for row in rows]), facts


def _training(options: CandidateOptions) -> SelfTraining:
    if options.self_training is None or not options.self_training.pool:
        raise ConfigError(
            "a self-trained candidate needs follow-ups that nobody labelled."
            " Name a log that holds some: --unlabelled FILE"
        )
    return options.self_training


CANDIDATES: dict[str, Fit] = {
    "fast": _fast,
    "fast-self-trained": _fast_self_trained,
    "encoder": _encoder,
    "encoder-self-trained": _encoder_self_trained,
    "language-model": _language_model,
}
"""By name. The encoder's is the network alone, without the fast tier's opinion."""


def refuse_unknown(names: Iterable[str]) -> None:
    """Raise where one of these is no candidate.

    Raises:
        ConfigError: see above.
    """
    for name in names:
        if name not in CANDIDATES:
            raise ConfigError(f"there is no candidate {name!r}. Choose from: {', '.join(CANDIDATES)}.")


def try_out(name: str, fold: Fold, options: CandidateOptions, work: Path | None = None) -> Tried:
    """Fit a candidate and let it score the held rows; from the work folder where that was done already.

    Raises:
        ConfigError: there is no such candidate, or it lacks what it learns from.
        ArtefactError: what the work folder holds is damaged.
    """
    refuse_unknown([name])
    kept = work / f"{name}-{_key(name, fold, options)}" if work else None
    if kept is not None and (file := kept.with_suffix(".safetensors")).is_file():
        tensors, facts = read_weights(file)
        return Tried(tensors["scores"], json.loads(facts["facts"]))
    folder = work / f"{name}-{_key(name, Fold(fold.train, []), options)}" if work else None
    started = time.process_time()
    score, facts_found = CANDIDATES[name](fold, options, folder)
    fitted = time.process_time()
    scores = score(fold.held)
    assert scores.shape == (len(fold.held), N_OUTPUTS)  # noqa: S101 - a candidate's duty
    took = {"fit_cpu_s": fitted - started, "label_cpu_s": time.process_time() - fitted}
    facts_found = {"unlabelled": 0.0, **facts_found, **took}
    if kept is not None:
        write_weights(kept.with_suffix(".safetensors"), {"scores": scores}, {"facts": json.dumps(facts_found)})
    return Tried(scores, facts_found)


def _key(name: str, fold: Fold, options: CandidateOptions) -> str:
    """Stands for what a candidate learns from, how, and what it is tried on."""
    told: dict[str, Any] = {"train": [_told(row) for row in fold.train], "held": [_told(row) for row in fold.held]}
    if name.endswith("self-trained") and options.self_training is not None:
        training = options.self_training
        told["self_training"] = [training.share, training.confidence, training.weight]
        told["pool"] = [(one.request, one.reply, one.follow_up) for one in training.pool]
    if name.startswith("encoder"):
        told["options"] = options.encoder and asdict(options.encoder)
    if name == "language-model":
        told["options"] = options.language_model and asdict(options.language_model)
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]


def _told(row: FitRow) -> tuple[str, str, str, str, float]:
    return row.exchange.request, row.exchange.reply, row.exchange.follow_up, row.label.value, row.weight
