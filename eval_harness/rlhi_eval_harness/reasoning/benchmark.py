"""A benchmark ready to be asked: tasks over local rows or the hub's, the items that are chosen, and their prompts."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rlhi_eval_harness.reasoning import lm_eval_tasks
from rlhi_eval_harness.reasoning.lm_eval_tasks import Rows, TaskFile
from rlhi_eval_harness.reasoning.options import ReasoningOptions
from rlhi_eval_harness.reasoning.rows import digest_of, read_rows, refuse_doubled
from rlhi_eval_harness.suites.wholeness import Holding
from rlhi_plugin.errors import ConfigError
from rlhi_plugin.records import ChatMessage


@dataclass(frozen=True)
class Asked:
    """One item of one task.

    Attributes:
        task: Its name.
        number: Its place among the task's items.
        item: The row, as the task prepared it.
        messages: The prompt without a persona.
        options: What is weighed by likelihood; empty where an answer is generated.
        request: The item's own question, without examples.
    """

    task: str
    number: int
    item: Mapping[str, Any]
    messages: tuple[ChatMessage, ...]
    options: tuple[str, ...]
    request: str


class Benchmark:
    """Opened at first use; see the module.

    Args:
        options: Of the suite.
    """

    def __init__(self, options: ReasoningOptions) -> None:
        self._options = options

    @cached_property
    def files(self) -> list[TaskFile]:
        """The task files; nothing is loaded yet. Raises as `lm_eval_tasks.task_files` does."""
        return lm_eval_tasks.task_files(self._options.task, self._options.folder)

    @property
    def metric(self) -> str:
        """What is correct: ``metric,filter``."""
        return self._options.metric

    @property
    def weighs_options(self) -> bool:
        """Whether subjects must give log-likelihoods."""
        return any(each.weighs_options for each in self.files)

    @property
    def source(self) -> str:
        """Where the items come from."""
        options = self._options
        return f"{options.items_file} of {options.data}" if options.data else f"hub: {self.files[0].hub}"

    def few_shot(self, file: TaskFile) -> int:
        """Examples in each of a task's prompts."""
        return file.few_shot if self._options.few_shot is None else self._options.few_shot

    @cached_property
    def tasks(self) -> dict[str, Any]:
        """lm_eval's task objects over the rows. Raises as `lm_eval_tasks.open_tasks` does."""
        options = self._options
        rows = self._local_rows() if options.data else None
        over = None if rows is None else dict.fromkeys((each.name for each in self.files), rows)
        return lm_eval_tasks.open_tasks(self.files, options.folder, over, few_shot=options.few_shot, seed=options.seed)

    def _local_rows(self) -> Rows:
        options = self._options
        folder = Path(str(options.data))
        if not folder.is_dir():
            raise ConfigError(f"there is no folder {folder}. {options.how_to_get}")
        if options.items_file is None:
            raise ConfigError(
                f"{options.name} has no local files: name one with --set items_file=FILE, or leave --data."
            )
        items = read_rows(folder / options.items_file, options.columns, how_to_get=options.how_to_get)
        refuse_doubled(items, folder / options.items_file)
        examples = None
        if options.examples_file is not None and (folder / options.examples_file).exists():
            examples = read_rows(folder / options.examples_file, options.columns, how_to_get=options.how_to_get)
        return Rows(items, examples)

    @cached_property
    def items(self) -> dict[str, list[dict[str, Any]]]:
        """All items by task, as the tasks prepare them."""
        return {name: lm_eval_tasks.prepared_items(task, seed=self._options.seed) for name, task in self.tasks.items()}

    @property
    def total(self) -> int:
        """How many items the benchmark has."""
        return sum(map(len, self.items.values()))

    @property
    def empty(self) -> tuple[str, ...]:
        """Parts that have no row: lm_eval cannot hold them."""
        return tuple(file.name for file in self.files if not self.items.get(file.name))

    def refuse_part(self) -> None:
        """Stop where local files hold a part of the benchmark only, unless that was said to be known.

        Raises:
            ConfigError: items or whole parts are missing. What the hub has is taken as the benchmark, save whole parts.
        """
        options = self._options
        published = options.published_items if options.data else None
        held = Holding(options.name, self.total, published, self.empty)
        held.refuse(partial=options.partial, how_to_get=options.how_to_get)

    @property
    def digest(self) -> str:
        """Of all items, limited or not."""
        return digest_of([item for items in self.items.values() for item in items])

    def chosen(self) -> dict[str, list[int]]:
        """Places of the items that are asked, by task; all without a limit.

        Raises:
            ConfigError: the limit is above what there is.
        """
        everything = [(name, place) for name, items in self.items.items() for place in range(len(items))]
        limit = self._options.limit
        if limit is not None:
            if limit > len(everything):
                raise ConfigError(f"{self._options.name} has {len(everything)} items; limit={limit}. Lower it.")
            draw = random.Random(f"{self._options.seed}/items")
            everything = [everything[place] for place in sorted(draw.sample(range(len(everything)), limit))]
        found: dict[str, list[int]] = {}
        for name, place in everything:
            found.setdefault(name, []).append(place)
        return found

    def asked(self) -> Iterator[Asked]:
        """Every chosen item with its prompt: the same with a limit as without one."""
        chosen = self.chosen()
        for file in self.files:
            if places := chosen.get(file.name):
                yield from self._of_task(file, places)

    def _of_task(self, file: TaskFile, places: Sequence[int]) -> Iterator[Asked]:
        task, items, few_shot = self.tasks[file.name], self.items[file.name], self.few_shot(file)
        wanted = set(places)
        # Where examples are drawn, each prompt's depend on the prompts before it.
        in_order = few_shot > 0 and lm_eval_tasks.draws_examples(task)
        for place in range(places[-1] + 1) if in_order else places:
            messages = lm_eval_tasks.prompt_messages(
                task,
                items[place],
                few_shot=few_shot,
                as_turns=self._options.few_shot_as_turns,
                system=self._options.system_prompt,
            )
            if place in wanted:
                options = lm_eval_tasks.choices(task, items[place]) if file.weighs_options else ()
                request = str(task.doc_to_text(items[place]))
                yield Asked(file.name, place, items[place], messages, options, request)
