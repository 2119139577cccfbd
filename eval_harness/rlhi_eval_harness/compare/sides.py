"""One of the two reports: its values by subject, metric and item."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from rlhi_eval_harness.records import REPORT_SCHEMA_VERSION, EvalReport, Metric
from rlhi_eval_harness.statistics import Value
from rlhi_plugin.errors import ArtefactError, ConfigError
from rlhi_plugin.records import ChatMessage


@dataclass(frozen=True)
class Item:
    """What was asked, the same for every subject.

    Attributes:
        user: The cluster.
        group: As the suite splits its items.
        asked: The prompt without its system message, which holds the persona.
    """

    user: str
    group: str
    asked: tuple[ChatMessage, ...]


class Side:
    """A report, looked up by subject, metric and item.

    Args:
        path: As the user named it.
        report: What it holds.
    """

    def __init__(self, path: Path, report: EvalReport) -> None:
        self.path = path
        self.report = report
        self.subjects = tuple(dict.fromkeys(each.subject for each in report.estimates))
        self.metrics = {metric.name: metric for metric in report.metrics}
        self.items: dict[str, Item] = {}
        self.personas: dict[tuple[str, str], tuple[ChatMessage, ...]] = {}
        known: dict[str, tuple[str, str]] = {}
        for sample in report.samples:
            item = sample.sample_id.removesuffix(f"/{sample.subject}")
            known[sample.sample_id] = item, sample.subject
            asked = tuple(message for message in sample.prompt if message.role != "system")
            self.items[item] = Item(sample.user, sample.group, asked)
            self.personas[sample.subject, item] = tuple(each for each in sample.prompt if each.role == "system")
        self._scores: dict[tuple[str, str], list[tuple[str, float | None]]] = defaultdict(list)
        for score in report.scores:
            item, subject = known.get(score.sample_id) or self.apart(score.sample_id)
            self._scores[subject, score.metric].append((item, score.value))

    def apart(self, sample_id: str) -> tuple[str, str]:
        """Item and subject of a sample that has no answer at all."""
        mine = max((name for name in self.subjects if sample_id.endswith(f"/{name}")), key=len, default="")
        if not mine:
            raise ArtefactError(
                f"{self.path}: the score of {sample_id} belongs to no subject of the report. Write the report again: "
                "rlhi-eval score FOLDER"
            )
        return sample_id.removesuffix(f"/{mine}"), mine

    def item_ids(self, subject: str) -> frozenset[str]:
        """Every item that the subject was to answer, answered or not."""
        return frozenset(item for (name, _), pairs in self._scores.items() if name == subject for item, _ in pairs)

    def measured(self, subject: str) -> tuple[Metric, ...]:
        """The metrics that the subject was scored on, in the report's order."""
        return tuple(metric for name, metric in self.metrics.items() if (subject, name) in self._scores)

    def values(self, subject: str, metric: str, *, group: str | None = None) -> list[Value]:
        """One value an item; of one group only, where it is named."""
        return [
            Value(self.user_of(item), item, value)
            for item, value in self._scores[subject, metric]
            if group is None or (item in self.items and self.items[item].group == group)
        ]

    def user_of(self, item: str) -> str:
        """Whose item it is. One that nobody answered is told by its name, ``user/...``."""
        return self.items[item].user if item in self.items else item.partition("/")[0]

    @property
    def groups(self) -> Sequence[str]:
        """All groups, where there are several."""
        found = sorted({item.group for item in self.items.values()})
        return found if len(found) > 1 else ()


def read_report(path: Path) -> EvalReport:
    """Read the report of a folder, or a ``report.json`` by itself.

    Raises:
        ConfigError: there is no report, but something else, or one that another version wrote.
        ArtefactError: it is damaged.
    """
    file = path / "report.json" if path.is_dir() else path
    try:
        text = file.read_text("utf-8")
    except OSError as error:
        raise ConfigError(
            f"cannot read {file}: {error.strerror}. Give the folder of an evaluation, or its report.json; rlhi-eval "
            "score FOLDER writes one."
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file} is no text, and so no report. Give a report.json.") from error
    try:
        report = EvalReport.model_validate_json(text)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"])) or "the file"
        kind = ArtefactError if problem["type"] == "json_invalid" and text.lstrip().startswith("{") else ConfigError
        raise kind(
            f"{file} is no report of this version ({where}: {problem['msg']}). Write it again: rlhi-eval score FOLDER"
        ) from error
    if report.schema_version != REPORT_SCHEMA_VERSION:
        raise ConfigError(
            f"{file} has schema {report.schema_version}, this version reads {REPORT_SCHEMA_VERSION}. Write it again: "
            "rlhi-eval score FOLDER"
        )
    return report


def open_side(path: Path) -> Side:
    """A report, ready to be compared; raises as `read_report` does."""
    return Side(path, read_report(path))
