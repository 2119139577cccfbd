"""Fitting both embedded tiers from the label set and the texts that the reader has (`rlhi-train fit-labeller`).

The held-out third is never looked at. Everything that is chosen (temperature, offsets, decision weights, how the two
opinions are weighed) is chosen on rows of train and development that the scores at hand were not learned from; then
both models learn from all of these rows. Invented exchanges (``examples.jsonl``) are added with half the weight.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhi_plugin.errors import UserError
from rlhi_plugin.labelling import Exchange
from rlhi_plugin.records import FollowUpLabel, FollowUpSubtype
from rlhi_training.labelling.calibration import choose_decision
from rlhi_training.labelling.decision import CLASSES, N_OUTPUTS
from rlhi_training.labelling.fast import FastLabeller
from rlhi_training.labelling.fit_fast import FitRow, look
from rlhi_training.labelling.label_set import Example, part_of
from rlhi_training.labelling.self_training import SelfTraining, fit_self_trained, teach
from rlhi_training.labelling.weights import read_weights, write_weights

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rlhi_training.labelling.encoder import Stack
    from rlhi_training.labelling.fit_encoder import EncoderOptions

logger = logging.getLogger("rlhi.training")

INVENTED_WEIGHT = 0.5
"""What an invented exchange counts beside a real one. By cross-validation, see the README."""
STACK_INVERSE_REGULARISATION = 0.1
_FAST_FOLDS = 5
_LEAST_ROWS = 50


@dataclass(frozen=True)
class FitOptions:
    """What is fitted and how.

    Attributes:
        encoder: Options of the network; None fits the fast tier alone.
        folds: In how many parts the conversations are cut to get scores that were not learned from.
        folds_used: For how many of the parts such scores are computed by the network; each costs a training.
        seed: Cuts the conversations.
        work: Folder in which trained networks are kept, so that a stopped fit goes on; None keeps none.
        more: What is learned from without labels, by both tiers, the fast one being the teacher; None is nothing.
    """

    encoder: EncoderOptions | None
    folds: int = 3
    folds_used: int = 1
    seed: int = 1
    work: Path | None = None
    more: SelfTraining | None = None


def rows_to_fit(examples: Sequence[Example]) -> list[FitRow]:
    """The rows of train and development, in order, then the invented ones.

    Raises:
        UserError: there are too few.
    """
    rows = [
        FitRow(example.exchange, example.label.label, example.label.subtype, example.label.conversation_id)
        for example in examples
        if part_of(example.label.conversation_id) != "held_out"
    ]
    if len(rows) < _LEAST_ROWS:
        raise UserError(
            f"only {len(rows)} labelled follow-ups were found in the logs, {_LEAST_ROWS} are needed."
            " Give the logs that the label set was made from (see its README)."
        )
    return [*rows, *invented_rows()]


def invented_rows() -> list[FitRow]:
    """The exchanges of ``examples.jsonl``; nobody said these, so they are in no conversation and in no measurement."""
    text = (files("rlhi_training") / "labelling" / "examples.jsonl").read_text("utf-8")
    return [
        FitRow(as_exchange(value), FollowUpLabel(value["label"]), _subtype(value), "", INVENTED_WEIGHT)
        for value in map(json.loads, text.splitlines())
    ]


def as_exchange(example: dict[str, str]) -> Exchange:
    """An example of the data file as the exchange that it describes."""
    texts = {name: example[name] for name in ("request", "reply", "follow_up")}
    return Exchange(conversation_id="example", turn=1, message_id="example", **texts)


def _subtype(example: dict[str, str]) -> FollowUpSubtype | None:
    return FollowUpSubtype(example["subtype"]) if "subtype" in example else None


def fit_labellers(rows: list[FitRow], out: Path, options: FitOptions) -> dict[str, Any]:
    """Fit the tiers and write ``fast.safetensors`` and ``encoder.safetensors``.

    Args:
        rows: Of `rows_to_fit`.
        out: Folder for the weights.
        options: How.

    Returns:
        What was chosen: sizes, decisions, names of the weights.
    """
    import numpy as np

    looked = look(rows)
    truth = np.array([CLASSES.index(row.label) for row in rows])
    real = [i for i, row in enumerate(rows) if row.group]
    fast_scores = np.zeros((len(rows), N_OUTPUTS), dtype=np.float32)
    for train, held in folds(rows, _FAST_FOLDS, options.seed):
        model = fit_self_trained(looked.part(train), options.more)
        fast_scores[held] = model.scores([rows[i].exchange for i in held])
    decision = choose_decision(fast_scores[real], truth[real])
    made: dict[str, Any] = {"rows": len(real), "invented": len(rows) - len(real), "fast": asdict(decision)}
    model = fit_self_trained(looked, options.more)
    model.save(out / "fast.safetensors", {"decision": decision.to_json(), "digest": _digest_of_model(model)})
    if options.encoder is not None:
        fast = FastLabeller(out / "fast.safetensors")
        made |= _fit_encoder(rows, out, options, (fast_scores, truth, fast.name))
    return made


def folds(rows: Sequence[FitRow], count: int, seed: int) -> list[tuple[list[int], list[int]]]:
    """Places to learn from and places to look at, by conversation; invented rows are always learned from."""
    from sklearn.model_selection import GroupKFold

    real = [i for i, row in enumerate(rows) if row.group]
    invented = [i for i, row in enumerate(rows) if not row.group]
    groups = [rows[i].group for i in real]
    cut = GroupKFold(count, shuffle=True, random_state=seed).split(real, groups=groups)
    return [([*(real[i] for i in train), *invented], [real[i] for i in held]) for train, held in cut]


def _fit_encoder(
    rows: list[FitRow], out: Path, options: FitOptions, fast: tuple[NDArray[np.float32], NDArray[np.int64], str]
) -> dict[str, Any]:
    import numpy as np

    from rlhi_training.labelling.encoder import stack_tensors
    from rlhi_training.labelling.fit_encoder import Prepared

    assert options.encoder is not None  # noqa: S101 - the caller has checked
    fast_scores, truth, fast_name = fast
    real = Prepared(rows)
    seen: list[int] = []
    found = np.zeros((len(rows), N_OUTPUTS), dtype=np.float32)
    for number, (train, held) in enumerate(folds(rows, options.folds, options.seed)[: options.folds_used]):
        logger.info("fold %d of %d", number + 1, options.folds_used)
        prepared, places = _with_pseudo(real, train, options.more)
        found[held] = _kept_scores(prepared, (places, held), options)
        seen += held
    stack = fit_stack(found[seen], fast_scores[seen], truth[seen])
    decision = choose_decision(stack.scores(found[seen], fast_scores[seen]), truth[seen])
    prepared, places = _with_pseudo(real, list(range(len(rows))), options.more)
    tensors = {**_trained(prepared, places, options).trained(), **stack_tensors(stack)}
    facts = {
        "decision": decision.to_json(),
        "digest": _digest(tensors),
        "made_with": json.dumps({"fast": fast_name, **asdict(options.encoder)}),
    }
    write_weights(out / "encoder.safetensors", tensors, facts)
    return {"stacked_on": len(seen), "encoder": asdict(decision), "stack": stack.weights.round(3).tolist()}


def _with_pseudo(prepared: Any, train: list[int], more: SelfTraining | None) -> tuple[Any, list[int]]:
    """The rows, and behind them what the fast tier, fitted on these of them, says of the pool; and where to learn."""
    if more is None:
        return prepared, train
    pseudo = teach(look([prepared.rows[i] for i in train]), more)
    end = len(prepared.rows)
    return prepared.and_rows(pseudo), [*train, *range(end, end + len(pseudo))]


def fit_stack(network: NDArray[np.float32], fast: NDArray[np.float32], truth: NDArray[np.int64]) -> Stack:
    """The regression that weighs the two opinions.

    Args:
        network: Scores of the network for rows that it did not learn from, shape (rows, 4 + 16).
        fast: Scores of the fast tier, likewise.
        truth: Index of each row's class.
    """
    import numpy as np
    from sklearn.linear_model import LogisticRegression

    from rlhi_training.labelling.encoder import Stack, log_softmax

    count = len(CLASSES)
    both = np.concatenate([log_softmax(network[:, :count]), log_softmax(fast[:, :count])], axis=1)
    model = LogisticRegression(C=STACK_INVERSE_REGULARISATION, max_iter=1000).fit(both, truth)
    weights = np.zeros((2 * count, count), dtype=np.float32)
    bias = np.full(count, -30.0, dtype=np.float32)
    weights[:, model.classes_], bias[model.classes_] = model.coef_.T, model.intercept_
    return Stack(weights, bias)


def _trained(prepared: Any, places: list[int], options: FitOptions) -> Any:
    """A network that learned from these rows; taken from the work folder where it is there already."""
    from rlhi_training.labelling.fit_encoder import fit_network
    from rlhi_training.labelling.network import UpperLayers

    assert options.encoder is not None  # noqa: S101 - the caller has checked
    key = _key(prepared, places, options)
    kept = options.work / f"network-{key}.safetensors" if options.work else None
    if kept is not None and kept.is_file():
        network = UpperLayers().eval()
        network.restore(read_weights(kept)[0])
        return network
    network = fit_network(prepared, places, options.encoder)
    if kept is not None:
        write_weights(kept, network.trained(), {})
    return network


def _kept_scores(prepared: Any, places: tuple[list[int], list[int]], options: FitOptions) -> NDArray[np.float32]:
    """Scores of held-back rows by a network that learned from the others; from the work folder where they are there."""
    from rlhi_training.labelling.fit_encoder import network_scores

    train, held = places
    kept = options.work / f"scores-{_key(prepared, train, options)}.safetensors" if options.work else None
    if kept is not None and kept.is_file():
        return read_weights(kept)[0]["scores"]
    scores: NDArray[np.float32] = network_scores(_trained(prepared, train, options), prepared, held)
    if kept is not None:
        write_weights(kept, {"scores": scores}, {})
    return scores


def _key(prepared: Any, places: list[int], options: FitOptions) -> str:
    """Stands for what a network learned from, and how."""
    assert options.encoder is not None  # noqa: S101 - the caller has checked
    told = [(prepared.pieces[i].ids, prepared.rows[i].label, prepared.rows[i].weight) for i in places]
    return hashlib.sha256(json.dumps([asdict(options.encoder), told]).encode()).hexdigest()[:16]


def _digest_of_model(model: Any) -> str:
    arrays = {k: v for k, v in vars(model).items() if k != "vocabulary"}
    return _digest(arrays)


def _digest(tensors: dict[str, Any]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode() + tensors[name].tobytes())
    return digest.hexdigest()


def unmatched_summary(whys: Sequence[str]) -> str:
    """What of the label set the logs lack, in words; empty where nothing."""
    names = {
        "conversation_absent": "in conversations that the logs do not hold",
        "turn_absent": "at turns that the conversation does not have",
        "other_text": "whose text there is another",
    }
    parts = [f"{whys.count(why)} {text}" for why, text in names.items() if why in whys]
    return f"{len(whys)} labels without a text: {', '.join(parts)}" if whys else ""
