"""The one place that imports lm_eval: its task files and ours, opened over rows that we hand in or that it downloads.

Importing lm_eval takes seconds, and so does reading all of its 13,000 task files: it is imported at first use, and only
the folder that a suite names is read.
"""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

from rlhi_plugin.errors import ArtefactError, ConfigError, MissingExtraError
from rlhi_plugin.records import ChatMessage

FEW_SHOT_SEED = 1234
"""As lm_eval's own command draws examples."""
Row = Mapping[str, Any]


@dataclass(frozen=True)
class TaskFile:
    """One task of lm_eval as its YAML file has it.

    Attributes:
        name: In lm_eval's index.
        config: The file's keys, its functions not yet resolved.
    """

    name: str
    config: Mapping[str, Any]

    @property
    def items_split(self) -> str:
        """What is asked."""
        return str(self.config.get("test_split") or self.config.get("validation_split"))

    @property
    def examples_split(self) -> str | None:
        """Where few-shot examples come from; None where they stand in the file itself."""
        few_shot = self.config.get("fewshot_config") or {}
        if few_shot.get("samples") is not None:
            return None
        named = few_shot.get("split") or self.config.get("fewshot_split") or self.config.get("training_split")
        return str(named or self.config.get("validation_split") or self.items_split)

    @property
    def few_shot(self) -> int:
        """How many examples the benchmark is run with."""
        return int(self.config.get("num_fewshot") or 0)

    @property
    def weighs_options(self) -> bool:
        """Whether it needs log-likelihoods, which only models in this process give."""
        return self.config.get("output_type") == "multiple_choice"

    @property
    def hub(self) -> str:
        """The data set that lm_eval downloads."""
        return "/".join(str(self.config[key]) for key in ("dataset_path", "dataset_name") if self.config.get(key))


@dataclass(frozen=True)
class Rows:
    """Rows that take the place of the hub's.

    Attributes:
        items: What is asked.
        examples: What few-shot examples are taken from; None where there is none.
        ready: Whether the items went through the task's own preparation before.
    """

    items: Sequence[Row]
    examples: Sequence[Row] | None = None
    ready: bool = False


def task_files(name: str, folder: str | None) -> list[TaskFile]:
    """A task, the tasks of a group in lm_eval's order, or several of these with commas between.

    Args:
        name: As lm_eval calls it.
        folder: Where its file lies: one of lm_eval's task folders, or a path; None is ours.

    Raises:
        ConfigError: there is no such folder, task or group, or a task is of a kind that cannot be asked here.
        MissingExtraError: lm_eval is not installed.
    """
    index = _index(folder)
    names = [part.strip() for part in name.split(",")]
    if unknown := [each for each in names if each not in index]:
        known = ", ".join(sorted(index)) or "none"
        where = "our own folder of tasks" if folder is None else f"lm_eval's folder {folder}"
        raise ConfigError(f"{where} has no task {unknown[0]!r}. It has: {known}.")
    members = dict.fromkeys(member for each in names for member in _members(each, index))
    found = [TaskFile(each, index[each].cfg or {}) for each in members]
    for each in found:
        if each.config.get("output_type", "generate_until") not in {"generate_until", "multiple_choice"}:
            raise ConfigError(f"{each.name} measures {each.config['output_type']}, not answers. Choose another task.")
    return found


def _members(name: str, index: Mapping[str, Any]) -> Iterator[str]:
    """The single tasks behind a name: groups and tags hold others."""
    entry = index[name]
    if entry.tags and entry.cfg is None:
        inner = sorted(entry.tags)
    else:
        listed = entry.cfg.get("task")
        inner = [each if isinstance(each, str) else each["task"] for each in listed] if "group" in entry.cfg else []
    if not inner:
        yield name
    for each in inner:
        yield from _members(each, index)


def _index(folder: str | None) -> Mapping[str, Any]:
    return _manager(folder).task_index  # type: ignore[no-any-return]


def _manager(folder: str | None) -> Any:
    try:
        import lm_eval
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise MissingExtraError(error.name or "lm_eval", "eval") from error
    if folder is None:
        path = Path(str(files("rlhi_eval_harness.reasoning") / "task_files"))
    else:
        path = Path(str(lm_eval.__file__)).parent / "tasks" / folder
        path = path if path.is_dir() else Path(folder)
    if not path.is_dir():
        raise ConfigError(f"neither lm_eval nor this machine has a folder of tasks {folder}. Mend the suite's folder.")
    return TaskManager(include_path=str(path), include_defaults=False)


@cache
def lm_eval_version() -> str:
    """Of the installed package."""
    return version("lm_eval")


def open_tasks(
    wanted: Sequence[TaskFile], folder: str | None, rows: Mapping[str, Rows] | None, *, few_shot: int | None, seed: int
) -> dict[str, Any]:
    """Build lm_eval's task objects.

    Args:
        wanted: From `task_files`.
        folder: As there.
        rows: By task; None lets lm_eval download them.
        few_shot: Examples in each prompt; None is the task's own number.
        seed: Of what a task shuffles while it prepares its rows.

    Returns:
        By name, in the order of `wanted`; of several, those that have rows: lm_eval cannot hold the others, and
        `Benchmark.refuse_part` names them.

    Raises:
        ConfigError: the data set cannot be downloaded, the rows are not what the task expects, or there are none to
            take examples from.
        ArtefactError: a column holds values of several kinds.
    """
    datasets = _Datasets()
    children = [
        {"task": each.name, "num_fewshot": each.few_shot if few_shot is None else few_shot}
        | (_over_rows(each, rows[each.name], few_shot, datasets) if rows is not None else {})
        for each in wanted
    ]
    manager = _manager(folder)
    built: dict[str, Any] = {}
    with _quiet(), _seeded(seed):
        try:
            for child in children:
                # lm_eval cannot hold a task without rows. Of a benchmark in parts, rows may be of some parts only.
                with suppress(IndexError) if len(children) > 1 else nullcontext():
                    built |= manager.load({"group": "rlhi", "task": [child]})["tasks"]
        except (OSError, ConnectionError) as error:
            raise ConfigError(
                f"{wanted[0].hub} cannot be loaded from the hub: {error}. Log in where it asks for it, or give local "
                "files with --data FOLDER."
            ) from error
        except (KeyError, ValueError, TypeError, AttributeError, IndexError, RuntimeError, AssertionError) as error:
            raise ConfigError(
                f"lm_eval cannot make {wanted[0].name} of these rows: {error!r}. Give the benchmark's own columns, or "
                "name yours with --set columns.YOURS=THEIRS."
            ) from error
    if not built:
        raise ConfigError(f"no row is of any part of {wanted[0].name} and its like. Give the benchmark's own rows.")
    for task in built.values():
        task.set_fewshot_seed(FEW_SHOT_SEED)
    return {each.name: built[each.name] for each in wanted if each.name in built}


class _Datasets:
    """Rows in the form that lm_eval wants them in; those that several tasks share are converted once."""

    def __init__(self) -> None:
        self._made: dict[int, Any] = {}

    def of(self, rows: Sequence[Row]) -> Any:
        """The same object for the same list.

        Raises:
            ArtefactError: a column holds values of several kinds.
        """
        from datasets import Dataset
        from pyarrow import ArrowException

        if id(rows) not in self._made:
            try:
                self._made[id(rows)] = Dataset.from_list([dict(row) for row in rows])
            except (ArrowException, ValueError, TypeError) as error:
                raise ArtefactError(f"the rows do not fit one another: {error}. Get the file again.") from error
        return self._made[id(rows)]


def _over_rows(task: TaskFile, rows: Rows, few_shot: int | None, datasets: _Datasets) -> dict[str, Any]:
    """What has to be said differently in a task's file so that it reads our rows."""
    splits = {task.items_split: datasets.of(rows.items)}
    changes: dict[str, Any] = {"training_split": None}
    examples = task.examples_split
    if rows.examples is not None and examples is not None:
        splits[examples] = datasets.of(rows.examples)
        changes["fewshot_split"] = examples
    elif examples is not None:
        if few_shot != 0 and (few_shot or task.few_shot):
            raise ConfigError(
                f"{task.name} shows {few_shot or task.few_shot} examples of its {examples} split, and these rows are "
                "not among the files. Give them with --set examples_file=FILE, or ask without: --set few_shot=0 (the "
                "score is then no comparison with published ones)."
            )
        changes["fewshot_split"] = None
    if rows.ready:
        changes["process_docs"] = None
    return {**changes, "custom_dataset": lambda **_: splits}


def prepared_items(task: Any, *, seed: int) -> list[dict[str, Any]]:
    """The rows that are asked, as the task prepares them: always alike for a seed."""
    with _quiet(), _seeded(seed):
        return [dict(row) for row in task.eval_docs]


def prompt_messages(
    task: Any, item: Row, *, few_shot: int, as_turns: bool, system: str | None
) -> tuple[ChatMessage, ...]:
    """A prompt as lm_eval composes it for a chat model.

    Args:
        task: From `open_tasks`.
        item: From `prepared_items`.
        few_shot: How many examples.
        as_turns: Examples as earlier turns, instead of all in the one user message.
        system: Stands before the task's own description.

    Raises:
        ConfigError: the task begins the model's answer, which chat models cannot be asked to go on with.
    """
    text = task.fewshot_context(
        item,
        few_shot,
        system_instruction=system,
        apply_chat_template=True,
        fewshot_as_multiturn=as_turns,
        chat_template=lambda messages, **_: json.dumps(messages),
        gen_prefix=task.doc_to_prefix(item),
    )
    messages = tuple(ChatMessage.model_validate(message) for message in json.loads(text))
    if messages[-1].role != "user":
        raise ConfigError(f"{task.task_name} begins the answer itself, and a chat model cannot go on. Choose another.")
    return messages


def draws_examples(task: Any) -> bool:
    """Whether the examples of a prompt depend on how many prompts were made before it."""
    return str(getattr(task.fewshot_cfg, "sampler", "default")) == "default"


def choices(task: Any, item: Row) -> tuple[str, ...]:
    """What is weighed, for tasks that need log-likelihoods."""
    return tuple(map(str, task.doc_to_choice(item)))


def stop_texts(task: Any) -> tuple[str, ...]:
    """Where lm_eval ends an answer."""
    until = (task.config.generation_kwargs or {}).get("until") or ()
    return tuple(text for text in ([until] if isinstance(until, str) else until) if text)


def metric_names(task: Any) -> list[str]:
    """``metric,filter``, as lm_eval's results have them."""
    ensembles = [each.name for each in task._filters]  # noqa: SLF001 - lm_eval tells them nowhere else
    return [f"{metric},{each}" for each in ensembles for metric in task.aggregation()]


def filtered(task: Any, items: Sequence[Row], answers: Sequence[Any]) -> list[dict[str, Any]]:
    """What each filter of a task reads in each answer, by the filter's name.

    Args:
        task: From `open_tasks`.
        items: One an answer.
        answers: Texts; for tasks that weigh options, one tuple of log-likelihoods each.
    """
    from lm_eval.api.instance import Instance

    weighs = task.OUTPUT_TYPE == "multiple_choice"
    asked = []
    for number, (item, answer) in enumerate(zip(items, answers, strict=True)):
        # lm_eval makes one request an option, and asks whether it is also what the model would have said: not needed.
        replies = [(value, False) for value in answer] if weighs else [answer]
        asked.append(
            [
                Instance(task.OUTPUT_TYPE, dict(item), ("",), place, (task.task_name, number, 1), [reply])
                for place, reply in enumerate(replies)
            ]
        )
    task._instances = [each for instances in asked for each in instances]  # noqa: SLF001 - no other way in
    task.apply_filters()
    names = [each.name for each in task._filters]  # noqa: SLF001 - as above
    return [
        {name: [each.filtered_resps[name] for each in instances] if weighs else instances[0].filtered_resps[name]
         for name in names}
        for instances in asked
    ]  # fmt: skip


def judged(task: Any, item: Row, read: Any) -> dict[str, float]:
    """lm_eval's verdict on what a filter has read: value by metric."""
    found = task.process_results(dict(item), read if isinstance(read, list) else [read])
    return {name: float(value) for name, value in found.items() if name in task.aggregation()}


@contextmanager
def _quiet() -> Iterator[None]:
    """Without lm_eval's remarks on how its own files are written, and without bars over each split."""
    import datasets

    log = logging.getLogger("lm_eval")
    level, caching = log.level, datasets.is_caching_enabled()
    log.setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    # A cached preparation would be another run's shuffle.
    datasets.disable_caching()
    try:
        yield
    finally:
        log.setLevel(level)
        datasets.enable_progress_bars()
        if caching:
            datasets.enable_caching()


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """GPQA's tasks shuffle their options with the process's own random numbers."""
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)
