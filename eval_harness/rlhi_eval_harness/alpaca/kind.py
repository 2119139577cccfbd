"""The kind ``alpaca_eval``: AlpacaEval 2.0 of any subject, judged through ``alpaca_eval``'s annotators."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from rlhi_eval_harness.alpaca.annotate import OFFICIAL
from rlhi_eval_harness.alpaca.annotator import Annotator
from rlhi_eval_harness.alpaca.files import BASELINE, WHERE, Annotation, read_difficulties, read_instructions
from rlhi_eval_harness.judging import NOT_JUDGED, Judgment, Question
from rlhi_eval_harness.models import Assistants
from rlhi_eval_harness.records import EvalSample, Metric, PlannedSample
from rlhi_eval_harness.run_folder import RunFolder, write_text
from rlhi_eval_harness.scoring import no_answer
from rlhi_eval_harness.suites.against_baseline import WIN_RATE, AgainstBaseline, AgainstBaselineOptions, BaselineItem
from rlhi_eval_harness.suites.kind import Stored
from rlhi_eval_harness.suites.published_files import Wanted, locate, locate_if_there
from rlhi_plugin.chat import ChatReply
from rlhi_plugin.errors import ConfigError

WHOLE = 805
"""Instructions of the published set."""
REPOSITORY = "tatsu-lab/alpaca_eval"
GAMED = "df_gamed.csv"
_SET = Wanted(("eval_set_805.jsonl", "alpaca_eval_gpt4_baseline.json"), "alpaca_eval_gpt4_baseline.json")
_DIFFICULTIES = ("instruction_difficulty.csv", "instruction_difficulty_recovered.csv")


class AlpacaEvalOptions(AgainstBaselineOptions):
    """AlpacaEval 2.0."""

    kind: Literal["alpaca_eval"] = "alpaca_eval"
    """This kind of suite."""
    annotator: str = OFFICIAL
    """One of alpaca_eval's annotators, or the folder of another."""


class AlpacaEval(AgainstBaseline):
    """The kind ``alpaca_eval``."""

    options = AlpacaEvalOptions
    benchmark = "AlpacaEval 2.0"
    clusters = "instructions"
    where = WHERE
    published = WHOLE

    @property
    def identity(self) -> Mapping[str, str]:
        """Digest of the instructions and the baseline's outputs."""
        self.refuse_part()
        text = json.dumps([[item.request, item.baseline] for item in self.items])
        return {"alpaca_eval_digest": hashlib.sha256(text.encode()).hexdigest()[:16]}

    @cached_property
    def items(self) -> Sequence[BaselineItem]:
        """The 805 instructions with the baseline's outputs."""
        data = self.options_given.data
        path = locate(data, _SET, REPOSITORY, where=WHERE)
        hardness = locate_if_there(data, _DIFFICULTIES)
        difficulties = {} if hardness is None else read_difficulties(hardness)
        instructions = read_instructions(path)
        if lacking := sum(not each.baseline_output for each in instructions):
            raise ConfigError(f"{path}: {lacking} instructions have no output of {BASELINE}. {WHERE}")
        return [
            BaselineItem(
                uid=f"instruction-{each.index:03d}",
                group=each.dataset or "all",
                request=each.text,
                baseline=each.baseline_output,
                facts={"index": each.index, "difficulty": difficulties.get(each.index)},
            )
            for each in instructions
        ]

    @cached_property
    def _annotator(self) -> Annotator:
        options = self.options_given
        return Annotator(options.annotator if isinstance(options, AlpacaEvalOptions) else OFFICIAL)

    def plan(self, assistants: Assistants, folder: RunFolder) -> Sequence[PlannedSample]:
        """Every instruction for every subject; the gamed baselines' annotations come along where there are any."""
        planned = super().plan(assistants, folder)
        gamed = locate_if_there(self.options_given.data, (GAMED,))
        if gamed is not None:
            shutil.copyfile(gamed, folder.path / GAMED)
        return planned

    @property
    def win_rate(self) -> Metric:
        """AlpacaEval's raw win rate."""
        return Metric(
            name=WIN_RATE,
            label="Win rate",
            meaning=f"AlpacaEval's raw win rate against {BASELINE}: mean preference for the answer, from the judge's "
            "probabilities where the annotator reads them.",
            role="headline",
            neutral=0.5,
        )

    def questions(self, stored: Stored) -> Sequence[Question]:
        """One comparison an answer, as the annotator asks it; answers equal to the baseline's tie unasked."""
        pairs = []
        for sample in stored.plan:
            output = stored.outputs.get(sample.sample_id)
            if output is not None and no_answer(output) is None and output.output != sample.facts["baseline"]:
                pairs.append((sample.sample_id, (sample.request, sample.facts["baseline"], output.output)))
        if not pairs:
            return []
        annotator = self._annotator
        asked = annotator.asked([pair for _, pair in pairs])
        return [
            Question(
                question_id=name,
                prompt=annotator.prompt,
                shown=dict(zip(("instruction", "output_1", "output_2"), pair, strict=True)),
                answers={},
                request=each.request,
                read=_reader(annotator, swapped=each.swapped),
            )
            for (name, pair), each in zip(pairs, asked, strict=True)
            if each is not None
        ]

    def win(self, sample: PlannedSample, output: EvalSample, judgments: Mapping[str, Judgment]) -> float | str:
        """The preference, brought to 0 to 1."""
        if output.output == sample.facts["baseline"]:
            return 0.5
        judgment = judgments.get(sample.sample_id)
        if judgment is None:
            return NOT_JUDGED
        if judgment.unscored is not None:
            return judgment.unscored.partition(":")[0]
        return float(judgment.answers["preference"]) - 1

    def facts(self, stored: Stored, judgments: Mapping[str, Judgment]) -> dict[str, Any]:
        """The leaderboard's numbers, and whether they may be compared with it."""
        from rlhi_eval_harness.alpaca.leaderboard import table

        subjects = dict.fromkeys(sample.subject for sample in stored.plan)
        found = {name: self.annotations(name, stored, judgments) for name in subjects}
        judges = {each.judge for each in judgments.values()}
        comparable = bool(judges) and all(self._annotator.comparable(judge) for judge in judges)
        difficulties = {
            sample.facts["index"]: sample.facts["difficulty"]
            for sample in stored.plan
            if sample.facts["difficulty"] is not None
        }
        gamed = stored.folder.path / GAMED
        whole = len({sample.facts["index"] for sample in stored.plan}) == WHOLE
        return {
            "tables": [
                table(found, difficulties, gamed if gamed.is_file() else None, comparable=comparable and whole)
            ]
            if judges
            else []
        }  # fmt: skip

    def annotations(self, subject: str, stored: Stored, judgments: Mapping[str, Judgment]) -> tuple[Annotation, ...]:
        """A subject's preferences as AlpacaEval counts them, unscored ones included."""
        found = []
        for sample in (each for each in stored.plan if each.subject == subject):
            output = stored.outputs.get(sample.sample_id)
            reason = no_answer(output)
            value = reason or "no_output" if output is None or reason else self.win(sample, output, judgments)
            lengths = len(sample.facts["baseline"]), len(output.output) if output is not None else 0
            index = sample.facts["index"]
            if isinstance(value, str):
                found.append(Annotation(index, None, *lengths, value))
            else:
                found.append(Annotation(index, value + 1, *lengths))
        return tuple(found)

    def write_more(self, stored: Stored, judgments: Mapping[str, Judgment]) -> None:
        """``alpaca_eval/SUBJECT/{model_outputs,annotations}.json``, as ``alpaca_eval`` writes them."""
        for subject in dict.fromkeys(sample.subject for sample in stored.plan):
            folder = stored.folder.path / "alpaca_eval" / subject.replace(":", "-")
            folder.mkdir(parents=True, exist_ok=True)
            mine = [each for each in stored.plan if each.subject == subject]
            rows = zip(mine, self.annotations(subject, stored, judgments), strict=True)
            annotated = [self._row(sample, stored, each) for sample, each in rows]
            keys = ("instruction", "dataset", "output_2", "generator_2")
            names = ("instruction", "dataset", "output", "generator")
            answered = [
                dict(zip(names, (row[key] for key in keys), strict=True))
                for row in annotated
                if row["output_2"] is not None
            ]
            _write(folder / "model_outputs.json", answered)
            if judgments:
                _write(folder / "annotations.json", [row for row in annotated if row["output_2"] is not None])

    def _row(self, sample: PlannedSample, stored: Stored, annotation: Annotation) -> dict[str, Any]:
        output = stored.outputs.get(sample.sample_id)
        return {
            "instruction": sample.request,
            "dataset": sample.group,
            "output_1": sample.facts["baseline"],
            "generator_1": BASELINE,
            "output_2": output.output if output is not None and no_answer(output) is None else None,
            "generator_2": sample.subject,
            "annotator": self._annotator.name,
            "preference": annotation.preference,
        }


def _reader(annotator: Annotator, *, swapped: bool) -> Any:
    def read(reply: ChatReply) -> dict[str, str] | str:
        return annotator.read(reply, swapped=swapped)

    return read


def _write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    write_text(path, json.dumps(rows, ensure_ascii=False, indent=1) + "\n")
