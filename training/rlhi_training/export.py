"""The files in which pairs leave a run: JSONL and Parquet, their data card, what other trainers need."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from rlhi_plugin.records import Conversation
from rlhi_training.data_card import DATA_CARD, DataFacts, PairTotals, render_data_card
from rlhi_training.pair_rows import row_of, write_pairs_parquet
from rlhi_training.recipe import Recipe
from rlhi_training.records import LabelledTurn, PreferencePair, ProposedPair
from rlhi_training.run_directory import Manifest, RunDirectory, StageResult, digest_path, write_atomically
from rlhi_training.stages.filter import KEPT
from rlhi_training.stages.ingest import CONVERSATIONS
from rlhi_training.stages.label import TURNS
from rlhi_training.stages.pair_personas import put_personas
from rlhi_training.stages.pairs import PAIRS, PairOrigin, render_pairs
from rlhi_training.trainer_configs import AXOLOTL, LLAMA_FACTORY, axolotl_config, llama_factory_config

PARQUET = "pairs.parquet"


def export_pairs(directory: RunDirectory, recipe: Recipe, manifest: Manifest) -> StageResult:
    """Render the filtered proposals and write everything but the JSONL, which the stage's caller writes.

    Raises:
        ArtefactError: a file of an earlier stage is missing or damaged.
        MissingExtraError: pyarrow is not installed.
    """
    origin = PairOrigin(
        conversations={c.conversation_id: c for c in directory.read(CONVERSATIONS, Conversation)},
        labeller=manifest.stages["label"].notes.get("labeller") if "label" in manifest.stages else None,
        against_refusals=recipe.screens.train_against_refusals,
    )
    turns = {turn.key: turn for turn in directory.read(TURNS, LabelledTurn)}
    proposed = directory.read(KEPT, ProposedPair)
    placed, unplaced = put_personas(proposed, recipe)
    result = render_pairs(placed, turns, origin)
    pairs = [pair for pair in result.files[PAIRS] if isinstance(pair, PreferencePair)]
    path = directory.path
    write_pairs_parquet(path / PARQUET, pairs)
    digests = {PAIRS: _digest(pairs), PARQUET: digest_path(path / PARQUET)}
    totals = PairTotals()
    for pair in pairs:
        totals.add(row_of(pair))
    written = write_beside(path, DataFacts(manifest, recipe, totals, digests))
    return StageResult(len(proposed), result.passed, [*unplaced, *result.dropped], result.files, result.notes, written)


def write_beside(path: Path, facts: DataFacts) -> list[str]:
    """Write the data card and what other trainers need; returns the names of all files beside the JSONL."""
    write_atomically(path / DATA_CARD, render_data_card(facts))
    write_atomically(path / AXOLOTL, axolotl_config())
    write_atomically(path / LLAMA_FACTORY, llama_factory_config())
    return [PARQUET, DATA_CARD, AXOLOTL, LLAMA_FACTORY]


def _digest(pairs: Sequence[PreferencePair]) -> str:
    """SHA-256 of the JSONL that will be written."""
    digest = hashlib.sha256()
    for pair in pairs:
        digest.update(f"{pair.to_json()}\n".encode())
    return digest.hexdigest()
