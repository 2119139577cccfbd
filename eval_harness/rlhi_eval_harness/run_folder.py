"""The folder of one evaluation: which files it holds, and how they are written so that a killed run can go on.

In the order in which they appear::

    run.json          what is evaluated: suite, models with digests, versions
    users.jsonl       the simulated users and their hidden preferences; read by the scoring only
    history.db        what the held-out users said to the base assistant, logged by RLHIMiddleware
    utterances.jsonl  the same from the users' side: what they meant by it
    follow_ups.jsonl  what the labeller made of it
    personas.jsonl    what the persona builder made of that (these five: simulated users only)
    plan.jsonl        every prompt that every subject is to answer; plan.sha256 tells whether it still holds all of them
    outputs.jsonl     the answers, appended as they arrive
    judgments.jsonl   what judges said, appended as it arrives
    human/NAME/       studies with people: study.json, and verdicts.jsonl, appended as they are given
    report.json, report.md, report.html

A file other than outputs and judgments is complete if it exists: it is written under another name and then renamed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from rlhi_eval_harness.records import PlannedSample
from rlhi_plugin.errors import ArtefactError, ConfigError
from rlhi_plugin.records import Record

R = TypeVar("R", bound=Record)


class RunFolder:
    """Paths, reads and writes of one evaluation's folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "run.json"
        self.users = path / "users.jsonl"
        self.history = path / "history.db"
        self.utterances = path / "utterances.jsonl"
        self.follow_ups = path / "follow_ups.jsonl"
        self.personas = path / "personas.jsonl"
        self.plan = path / "plan.jsonl"
        self.plan_digest = path / "plan.sha256"
        self.outputs = path / "outputs.jsonl"
        self.judgments = path / "judgments.jsonl"
        self.human = path / "human"
        self.report_json = path / "report.json"
        self.report_markdown = path / "report.md"
        self.report_html = path / "report.html"

    def begin(self, config: dict[str, Any]) -> bool:
        """Claim the folder for the run that `config` describes.

        Returns:
            Whether the folder already held this very run, so that its files are used again.

        Raises:
            ConfigError: it holds another run.
        """
        if self.config.exists():
            earlier = self.read_config()
            different = sorted(key for key in earlier.keys() | config.keys() if earlier.get(key) != config.get(key))
            if not different:
                return True
            raise ConfigError(
                f"{self.path} holds another evaluation (it differs in {', '.join(different)}). "
                "Choose another --out, or remove the folder."
            )
        if self.path.is_dir() and any(self.path.iterdir()):
            raise ConfigError(f"{self.path} is not empty and holds no evaluation. Choose another --out.")
        self.path.mkdir(parents=True, exist_ok=True)
        write_text(self.config, json.dumps(config, indent=2, sort_keys=True) + "\n")
        return False

    def read_config(self) -> dict[str, Any]:
        """What is evaluated here.

        Raises:
            ConfigError: the folder holds no evaluation.
            ArtefactError: it holds a damaged one.
        """
        try:
            config: dict[str, Any] = json.loads(self.config.read_text("utf-8"))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise no_evaluation(self.path) from error
        except ValueError as error:
            raise ArtefactError(f"{self.config} is damaged: {error}. Remove the folder and run again.") from error
        return config

    def write_plan(self, planned: Iterable[PlannedSample]) -> None:
        """Write the plan's digest, and the plan after it: what is killed between the two writes both again."""
        text = "".join(record.to_json() + "\n" for record in planned)
        write_text(self.plan_digest, hashlib.sha256(text.encode()).hexdigest() + "\n")
        write_text(self.plan, text)

    def read_plan(self) -> list[PlannedSample]:
        """The plan as it was written.

        Raises:
            ConfigError: it is absent.
            ArtefactError: it is damaged, or something was taken from it or added: a suite never shrinks.
        """
        plan = read_records(self.plan, PlannedSample)
        if self.plan_digest.exists():
            digest = hashlib.sha256(self.plan.read_bytes()).hexdigest()
            if digest != self.plan_digest.read_text("utf-8").strip():
                raise ArtefactError(
                    f"{self.plan} was changed since it was written: it may lack samples. Restore it, or remove the "
                    "folder and run again."
                )
        return plan


def no_evaluation(folder: Path) -> ConfigError:
    """What to say of a path behind which there is none: the wrong one was given."""
    return ConfigError(f"{folder} holds no evaluation. Make one with: rlhi-eval run")


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold an evaluation's folder for one process; the kernel lets it go when the process ends, however it ends.

    Raises:
        ConfigError: another process holds it, and two would write every answer twice; or there is no such folder.
    """
    import fcntl

    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise no_evaluation(folder) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(
                f"another rlhi-eval is at work in {folder}. Wait until it is done, or end it; then give the command "
                "again."
            ) from error
        yield
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write a whole file or none of it."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def write_records(path: Path, records: Iterable[Record]) -> None:
    """Write one JSON object per line, the whole file or none of it."""
    write_text(path, "".join(record.to_json() + "\n" for record in records))


def read_records(path: Path, kind: type[R]) -> list[R]:
    """Read a JSONL file.

    Raises:
        ConfigError: it is absent: the evaluation is not finished yet.
        ArtefactError: a line is damaged; names file and line.
    """
    if not path.exists():
        raise ConfigError(f"{path} is missing: the evaluation stopped before. Run the same rlhi-eval run again.")
    records = []
    # Not splitlines(): answers may hold characters that it takes for line ends.
    for number, line in enumerate(path.read_text("utf-8").split("\n"), start=1):
        if not line:
            continue
        try:
            records.append(kind.model_validate_json(line))
        except ValidationError as error:
            raise ArtefactError(
                f"{path}:{number}: damaged line ({error.errors()[0]['msg']}). Remove the line and run again."
            ) from error
    return records


def drop_torn_line(path: Path) -> None:
    """Cut off a last line that a kill left without its end, so that appending goes on at a line's start."""
    if not path.exists():
        return
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole != len(content):
        with path.open("r+b") as file:
            file.truncate(whole)
