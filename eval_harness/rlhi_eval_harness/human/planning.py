"""From a folder of stored answers to a study: which pairs, on what dimensions, and what of each people are shown."""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from rlhi_eval_harness.human.guidance import load_guidance
from rlhi_eval_harness.human.records import Study, StudyItem
from rlhi_eval_harness.records import PlannedSample
from rlhi_eval_harness.run_folder import RunFolder, write_text
from rlhi_eval_harness.scoring import no_answer
from rlhi_eval_harness.suites.kind import ADAPTED, Stored, SuiteKind
from rlhi_plugin.errors import ArtefactError, ConfigError

STUDY, VERDICTS = "study.json", "verdicts.jsonl"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,60}")


@dataclass(frozen=True)
class Pair:
    """What people are shown of one item.

    Attributes:
        user: Its cluster.
        request: What was asked.
        conversation: Role and text of what was said before it.
        known: What is known of the user.
        answers: Text by subject.
    """

    user: str
    request: str
    conversation: tuple[tuple[str, str], ...]
    known: tuple[str, ...]
    answers: Mapping[str, str]

    def shown(self, subject: str, versus: str) -> str:
        """Digest of what a verdict is about."""
        about = [self.request, self.answers[subject], self.answers[versus]]
        return hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Wishes:
    """What the command line asks for; None: as the study has it, or the default of a new one."""

    subjects: tuple[str, ...] = ()
    dimensions: tuple[str, ...] = ()
    items: int | None = None
    overlap: int | None = None
    check_every: int | None = None
    seed: int | None = None


def open_study(folder: RunFolder, name: str, kind: SuiteKind, stored: Stored, wishes: Wishes) -> Study:
    """Go on with a study, or begin it.

    Raises:
        ConfigError: the name is none, there are no two subjects, or the study differs from what is asked for.
        ArtefactError: it is damaged, or its answers have changed since it began.
    """
    place = study_folder(folder, name)
    if not (place / STUDY).exists():
        study = _plan(name, kind, stored, wishes)
        place.mkdir(parents=True, exist_ok=True)
        write_text(place / STUDY, study.model_dump_json(indent=1) + "\n")
        return study
    study = read_study(place)
    _same(study, wishes, place)
    pairs, _ = pairs_of(stored, study.subject, study.versus)
    changed = [
        item.item_id
        for item in study.items
        if item.item_id not in pairs or pairs[item.item_id].shown(study.subject, study.versus) != item.shown
    ]
    if changed:
        raise ArtefactError(
            f"{len(changed)} of {len(study.items)} pairs of the study {name!r} have other answers now, such as "
            f"{changed[0]}. Put the answers back, or begin another one with --study NAME."
        )
    return study


def study_folder(folder: RunFolder, name: str) -> Path:
    """Where a study lies.

    Raises:
        ConfigError: it cannot be called so.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(f"--study {name!r}: give letters, digits, '.', '_' and '-' only.")
    return folder.human / name


def read_study(place: Path) -> Study:
    """Read ``study.json``.

    Raises:
        ArtefactError: it is missing or damaged.
    """
    try:
        return Study.model_validate_json((place / STUDY).read_text("utf-8"))
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        raise ArtefactError(f"{place / STUDY} cannot be read: {error}. Mend it, or remove {place}.") from error


def pairs_of(stored: Stored, subject: str, versus: str) -> tuple[dict[str, Pair], dict[str, int]]:
    """Pairs that can be shown, by item; and how many cannot, by reason."""
    samples = {(each.item_id, each.subject): each for each in stored.plan}
    pairs: dict[str, Pair] = {}
    reasons: Counter[str] = Counter()
    for item_id in dict.fromkeys(each.item_id for each in stored.plan):
        mine, other = samples.get((item_id, subject)), samples.get((item_id, versus))
        found = _pair(mine, other, stored)
        if isinstance(found, Pair):
            pairs[item_id] = found
        else:
            reasons[found] += 1
    return pairs, dict(reasons)


def _pair(mine: PlannedSample | None, other: PlannedSample | None, stored: Stored) -> Pair | str:
    """A pair, or why it cannot be shown."""
    if mine is None or other is None:
        return "not_asked_of_both"
    texts = {}
    for sample in (mine, other):
        output = stored.outputs.get(sample.sample_id)
        if output is None or (reason := no_answer(output)) is not None:
            return "no_output" if output is None else reason or "no_output"
        texts[sample.subject] = output.output
    said = _conversation(mine)
    if said != _conversation(other) or mine.request != other.request:
        return "different_conversations"
    if len({text.strip() for text in texts.values()}) == 1:
        return "equal_answers"
    known = mine.facts.get("persona")
    return Pair(mine.user, mine.request, said, tuple(known) if isinstance(known, list) else (), texts)


def _conversation(sample: PlannedSample) -> tuple[tuple[str, str], ...]:
    """What was said before the request. The system prompt differs between subjects and would tell them apart."""
    return tuple((message.role, message.content) for message in sample.prompt[:-1] if message.role != "system")


def _plan(name: str, kind: SuiteKind, stored: Stored, wishes: Wishes) -> Study:
    subject, versus = _two(tuple(dict.fromkeys(each.subject for each in stored.plan)), wishes.subjects)
    dimensions = _dimensions(kind, wishes.dimensions)
    pairs, left_out = pairs_of(stored, subject, versus)
    if not pairs:
        why = ", ".join(f"{reason} {count}" for reason, count in left_out.items())
        raise ConfigError(f"{subject} and {versus} have no pair of answers to compare ({why}). Name other subjects.")
    seed = wishes.seed or 0
    names = sorted(pairs)
    if wishes.items is not None and wishes.items < len(names):
        names = sorted(random.Random(f"{seed}/items").sample(names, wishes.items))
    return Study(
        name=name,
        subject=subject,
        versus=versus,
        dimensions=dimensions,
        items=tuple(
            StudyItem(item_id=each, user=pairs[each].user, shown=pairs[each].shown(subject, versus)) for each in names
        ),
        eligible=len(pairs),
        left_out=left_out,
        seed=seed,
        overlap=2 if wishes.overlap is None else wishes.overlap,
        check_every=10 if wishes.check_every is None else wishes.check_every,
        guidance=load_guidance().version,
    )


def _two(names: Sequence[str], asked: Sequence[str]) -> tuple[str, str]:
    """Whose win rate, and against whom: the first subject is the one that judges compare with."""
    listed = ", ".join(names)
    if unknown := [each for each in asked if each not in names]:
        raise ConfigError(f"there is no subject {unknown[0]!r} in this evaluation. It has: {listed}.")
    if len(names) < 2:  # noqa: PLR2004 - a pair
        raise ConfigError(
            f"people compare the answers of two subjects, and this evaluation has only {listed or 'none'}. Run one "
            "with two: rlhi-eval run --subject base --subject base+persona"
        )
    first = names[0]
    chosen = tuple(dict.fromkeys(asked))
    if not chosen and ADAPTED in names[1:]:
        chosen = (ADAPTED, first)
    elif not chosen and len(names) == 2:  # noqa: PLR2004 - a pair
        chosen = (names[1], first)
    if len(chosen) != 2:  # noqa: PLR2004 - a pair
        raise ConfigError(f"name two subjects of: {listed}. For example: --subject {names[1]} --subject {first}")
    return (chosen[1], chosen[0]) if chosen[0] == first else (chosen[0], chosen[1])


def _dimensions(kind: SuiteKind, asked: Sequence[str]) -> dict[str, str]:
    known = kind.dimensions
    if unknown := [each for each in asked if each not in known]:
        raise ConfigError(f"the suite has no dimension {unknown[0]!r}. It has: {', '.join(known)}.")
    chosen = [name for name in known if name in asked or not asked]
    # The sum of it all is asked last.
    return {name: known[name] for name in sorted(chosen, key=lambda each: each == "overall")}


def _same(study: Study, wishes: Wishes, place: Path) -> None:
    """Refuse options that are not those of the study that is there."""
    asked = {
        "--subject": (set(wishes.subjects) or None, {study.subject, study.versus}),
        "--dimension": (set(wishes.dimensions) or None, set(study.dimensions)),
        "--items": (wishes.items and min(wishes.items, study.eligible), len(study.items)),
        "--overlap": (wishes.overlap, study.overlap),
        "--check-every": (wishes.check_every, study.check_every),
        "--seed": (wishes.seed, study.seed),
    }
    if different := [name for name, (wish, there) in asked.items() if wish is not None and wish != there]:
        raise ConfigError(
            f"{place} holds a study with another {', '.join(different)}. Leave the option out to go on with it, or "
            "begin another one with --study NAME."
        )
