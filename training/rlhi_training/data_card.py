"""The README.md of a run directory: what its pairs are, where they come from, and what nobody should conclude."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rlhi_training.funnel import identity_notes, main_reasons
from rlhi_training.model_card import markdown_table
from rlhi_training.recipe import Recipe
from rlhi_training.run_directory import Manifest

DATA_CARD = "README.md"
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_ABOUT = """\
One row, one preference: for `prompt` this user would rather have `chosen` than `rejected`. Made by RLHI from the users'
own follow-ups (method: arXiv 2509.25137). Every row names the logged messages that it rests on."""
_LIMITS = """\
- The labels come from a program (see above), and programs take some complaints for new requests and the reverse.
- A rewrite is a model's guess at what the user wanted; the user never saw it.
- Pairs hold what people wrote. Screens and redaction miss things: names, places, and what only a human would find rude.
- The screens find known kinds of jailbreaks, refusals and templates; what they missed is in here.
- Anonymous conversations may be by people whose other conversations are held out.
- What a user likes is not what is right: users also reward flattery, and punish refusals that were right."""


@dataclass
class PairTotals:
    """What a data card counts of the pairs, row by row (`rlhi_training.pair_rows`)."""

    pairs: int = 0
    sources: Counter[str] = field(default_factory=Counter)
    languages: Counter[str] = field(default_factory=Counter)
    logs: Counter[str] = field(default_factory=Counter)
    models: Counter[str] = field(default_factory=Counter)
    labels: Counter[tuple[str, str]] = field(default_factory=Counter)
    users: set[str] = field(default_factory=set)
    personas: set[str] = field(default_factory=set)
    conversations: set[str] = field(default_factory=set)
    without_persona: int = 0

    def add(self, row: Mapping[str, Any]) -> None:
        """One more."""
        self.pairs += 1
        self.sources[row["source"]] += 1
        self.languages[row["language"] or "not known"] += 1
        self.logs[row["log"] or "not known"] += 1
        self.models.update(row[name] for name in ("chosen_model", "rejected_model") if row[name])
        self.labels[row["label"] or "none: the conversation ended", row["labeller"] or "-"] += 1
        self.conversations.add(row["provenance"]["conversation_id"])
        self.without_persona += row["persona_digest"] is None
        self.users.update(row[name] for name in ("user_id",) if row[name])
        self.personas.update(row[name] for name in ("persona_digest",) if row[name])


_COUNTED = (
    "source",
    "language",
    "log",
    "chosen_model",
    "rejected_model",
    "label",
    "labeller",
    "persona_digest",
    "user_id",
)


def counted_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """What `PairTotals.add` looks at in a row: a small part of it."""
    provenance = {"conversation_id": row["provenance"]["conversation_id"]}
    return {**{name: row[name] for name in _COUNTED}, "provenance": provenance}


@dataclass(frozen=True, slots=True)
class DataFacts:
    """What a data card says.

    Attributes:
        manifest: Of the run, with every stage before the pairs.
        recipe: The run's.
        pairs: Their totals.
        digests: SHA-256 of each data file, by name.
    """

    manifest: Manifest
    recipe: Recipe
    pairs: PairTotals
    digests: Mapping[str, str]


def render_data_card(facts: DataFacts) -> str:
    """The card in Markdown, with the metadata block that `datasets` and hubs read."""
    sections = [
        _front_matter(facts),
        f"# {facts.recipe.dataset.title}",
        _ABOUT,
        _counts(facts),
        _sources(facts),
        _labels(facts),
        _screens(facts),
        _use(),
        f"## Known limits\n\n{_LIMITS}",
        "## Files\n\n" + markdown_table(("file", "SHA-256"), sorted(facts.digests.items())),
    ]
    return "\n\n".join(sections) + "\n"


def _front_matter(facts: DataFacts) -> str:
    count = facts.pairs.pairs
    size = next((name for limit, name in _SIZES if count < limit), "n>1M")
    return "\n".join(
        [
            "---",
            f"pretty_name: {json.dumps(facts.recipe.dataset.title, ensure_ascii=False)}",
            f"license: {json.dumps(facts.recipe.dataset.licence)}",
            "task_categories: [text-generation]",
            "tags: [preference, dpo, trl, rlhi]",
            f"size_categories: [{json.dumps(size)}]",
            "configs:",
            "- config_name: default",
            "  data_files:",
            "  - split: train",
            "    path: pairs.parquet",
            "---",
        ]
    )


def _counts(facts: DataFacts) -> str:
    pairs = facts.pairs
    rows: list[tuple[str, object]] = [
        ("pairs", pairs.pairs),
        *((f"from {source}", n) for source, n in sorted(pairs.sources.items())),
        ("users whose personas are in prompts", len(pairs.users)),
        ("different personas", len(pairs.personas)),
        ("pairs without a persona", pairs.without_persona),
        ("conversations", len(pairs.conversations)),
        *((f"language {name}", n) for name, n in pairs.languages.most_common(8)),
    ]
    return "## Counts\n\n" + markdown_table(("what", "number"), rows)


def _sources(facts: DataFacts) -> str:
    known = facts.recipe.dataset.source_licences
    rows = [
        (log, f"{n} pairs; licence of the log: {known.get(log, 'not stated')}")
        for log, n in facts.pairs.logs.most_common()
    ]
    told = "\n".join(f"- {line}" for line in identity_notes(facts.manifest))
    wrote = [(name, f"{n} answers") for name, n in facts.pairs.models.most_common()]
    digest = facts.manifest.logs_digest
    return (
        "## Sources and licences\n\n"
        + markdown_table(("log", "what"), rows)
        + f"\n\n{told}\n\nDigest of the log: `{digest}`. Answers were written by:\n\n"
        + markdown_table(("model", "answers"), wrote)
        + "\n\nAnswers of a model are also under its own terms."
    )


def _labels(facts: DataFacts) -> str:
    rows = [(f"{label}, by {labeller}", n) for (label, labeller), n in facts.pairs.labels.most_common()]
    builder = (
        facts.manifest.stages["personas"].notes.get("builder", "none") if "personas" in facts.manifest.stages else "-"
    )
    return (
        "## Labels and personas\n\nWhat the user said next, and what said so:\n\n"
        + markdown_table(("label", "pairs"), rows)
        + f"\n\nPersonas were built by {builder} from what each user had said before the conversation began, and never"
        " later; each statement cites its messages (`provenance.persona_message_ids`)."
    )


def _screens(facts: DataFacts) -> str:
    rows = [
        (name, f"{entry.inputs} in, {entry.passed} passed, {entry.dropped} dropped: {main_reasons([entry]) or '-'}")
        for name, entry in facts.manifest.stages.items()
        if name not in ("pairs", "train")
    ]
    settings = {
        name: value for name, value in facts.recipe.screens.model_dump(mode="json").items() if value is not None
    }
    return (
        "## Screens\n\n"
        + markdown_table(("stage", "what it did"), rows)
        + "\n\nSettings of the screens: `"
        + json.dumps(settings, ensure_ascii=False)
        + "`. Each dropped item is in `dropped/` with its reason."
    )


def _use() -> str:
    return (
        "## Use\n\n```python\n"
        "from datasets import load_dataset\n\n"
        'pairs = load_dataset("parquet", data_files="pairs.parquet", split="train")  # as it is, for trl.DPOTrainer\n'
        "```\n\nAxolotl: `axolotl.yml` is the part of its configuration that names the data. LLaMA-Factory:"
        " `dataset_dir` is this folder, `dataset` is `rlhi_pairs` (`dataset_info.json`)."
    )
