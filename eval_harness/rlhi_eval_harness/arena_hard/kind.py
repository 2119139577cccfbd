"""The kind ``arena_hard``: Arena-Hard v0.1 and v2.0 of any subject, judged in both orders."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from rlhi_eval_harness.arena_hard.files import BASELINES, WHERE, read_answers, read_questions
from rlhi_eval_harness.arena_hard.files import Judgment as Judged
from rlhi_eval_harness.arena_hard.files import Question as Asked
from rlhi_eval_harness.arena_hard.prompts import JudgePrompts, load_prompts
from rlhi_eval_harness.arena_hard.verdicts import LABELS, Version, games_of, read_verdict
from rlhi_eval_harness.judging import NOT_JUDGED, Judgment, Question
from rlhi_eval_harness.numbers import Numbers
from rlhi_eval_harness.pairwise import ORDERS
from rlhi_eval_harness.records import EvalSample, Metric, PlannedSample
from rlhi_eval_harness.run_folder import write_text
from rlhi_eval_harness.scoring import no_answer
from rlhi_eval_harness.suites.against_baseline import WIN_RATE, AgainstBaseline, AgainstBaselineOptions, BaselineItem
from rlhi_eval_harness.suites.kind import Stored
from rlhi_eval_harness.suites.published_files import Wanted, locate
from rlhi_plugin.chat import ChatReply, ChatRequest
from rlhi_plugin.errors import ConfigError
from rlhi_plugin.prompt_files import Prompt
from rlhi_plugin.records import ChatMessage

REPOSITORY = "lmarena-ai/arena-hard-auto"
PUBLISHED: Mapping[str, int] = {"v0.1": 500, "v2.0": 750}
"""Questions by version."""


class ArenaHardOptions(AgainstBaselineOptions):
    """Arena-Hard."""

    kind: Literal["arena_hard"] = "arena_hard"
    """This kind of suite."""
    version: Literal["v0.1", "v2.0"] = "v2.0"
    """Whose questions, baselines and rules."""
    prompts: str | None = None
    """Checkout of arena-hard-auto, or a folder with user.md and one file a category; None: prompts of our own."""
    baselines: dict[str, str] = Field(default_factory=dict)
    """Another baseline than the benchmark's, by category; its answers lie in model_answer/NAME.jsonl."""
    categories: tuple[str, ...] = ()
    """Only these categories; all, where there are none. The report says so."""
    judge_temperature: float = Field(default=0.0, ge=0.0, le=2.0)
    """v0.1 judges at 0; v2.0 at 0 with GPT-4.1 and at 1 with Gemini 2.5."""
    judge_max_tokens: int = Field(default=16_000, ge=1)
    """Of a verdict: v0.1 gives 4,096, v2.0 16,000 and 32,000."""


class ArenaHard(AgainstBaseline):
    """The kind ``arena_hard``."""

    options = ArenaHardOptions
    benchmark = "Arena-Hard"
    clusters = "questions"
    where = WHERE

    @property
    def _options(self) -> ArenaHardOptions:
        options = self.options_given
        if not isinstance(options, ArenaHardOptions):
            raise ConfigError(f"{self.suite.name} is no suite of Arena-Hard. Take its own kind.")
        return options

    @property
    def version(self) -> Version:
        """Whose rules."""
        return self._options.version

    @property
    def identity(self) -> Mapping[str, str]:
        """Digest of questions and baseline answers, and of the judge's prompts."""
        self.refuse_part()
        text = json.dumps([[item.uid, item.request, item.baseline] for item in self.items])
        told = json.dumps([self._prompts.user, dict(self._prompts.system)])
        return {
            "arena_hard_digest": hashlib.sha256(text.encode()).hexdigest()[:16],
            "judge_prompts_digest": hashlib.sha256(told.encode()).hexdigest()[:16],
        }

    @cached_property
    def _prompts(self) -> JudgePrompts:
        if self._options.prompts is None:
            return load_prompts(Path(str(files("rlhi_eval_harness.arena_hard") / "prompts")), self.version)
        return load_prompts(Path(self._options.prompts), self.version)

    @cached_property
    def _questions(self) -> Sequence[Asked]:
        return read_questions(self._file("question.jsonl"))

    @property
    def published(self) -> int:
        """Questions of the version."""
        return PUBLISHED[self.version]

    @property
    def total(self) -> int:
        """Questions of all categories."""
        return len(self._questions)

    @cached_property
    def items(self) -> Sequence[BaselineItem]:
        """The questions of the categories that are asked, with the answers of each category's baseline."""
        asked = self._questions
        wanted = self._options.categories or tuple(dict.fromkeys(question.category for question in asked))
        if unknown := [name for name in wanted if name not in {question.category for question in asked}]:
            raise ConfigError(f"there is no category {unknown[0]} in the questions. Mend --set categories.")
        answers = {name: self._baseline(name, asked) for name in wanted}
        found = []
        for question in asked:
            if question.category in answers:
                model, answer = answers[question.category]
                style = answer[question.uid].style
                facts = {
                    "category": question.category,
                    "baseline_model": model,
                    "baseline_style": None if style is None else vars(style),
                }
                text = answer[question.uid].text
                found.append(BaselineItem(question.uid, question.category, question.prompt, text, facts))
        return found

    def _baseline(self, category: str, asked: Sequence[Asked]) -> tuple[str, Mapping[str, Any]]:
        """Name and answers of a category's baseline."""
        name = self._options.baselines.get(category, BASELINES.get(category, ""))
        try:
            path = self._file(f"model_answer/{name}.jsonl")
        except ConfigError as error:
            others = ", ".join(sorted({each.category for each in asked} - {category})) or "none are left"
            raise ConfigError(
                f"{error} They are the baseline's answers for {category}. To do without this category: --set "
                f"'categories=[...]' with others ({others})."
            ) from error
        answered = _known(path)
        # The file may hold other categories' answers as well.
        mine = [question for question in asked if question.category == category or question.uid in answered]
        return name, read_answers(path, mine)

    def _file(self, name: str) -> Path:
        folder = f"arena-hard-{self.version}"
        wanted = Wanted((name, f"{folder}/{name}", f"data/{folder}/{name}"), f"data/{folder}/{name}")
        return locate(self._options.data, wanted, REPOSITORY, where=WHERE)

    @property
    def win_rate(self) -> Metric:
        """Both orders, ties a half."""
        return Metric(
            name=WIN_RATE,
            label="Win rate",
            meaning="Win rate against the baseline, both orders, ties a half, every verdict counted once. Arena-Hard's "
            "own score, in which a clear verdict counts thrice, stands in its table.",
            role="headline",
            neutral=0.5,
        )

    def questions(self, stored: Stored) -> Sequence[Question]:
        """Two games an answer."""
        found: list[Question] = []
        for sample in stored.plan:
            output = stored.outputs.get(sample.sample_id)
            if output is not None and no_answer(output) is None:
                found += [self._question(sample, output.output, order) for order in ORDERS]
        return found

    def _question(self, sample: PlannedSample, answer: str, order: str) -> Question:
        baseline, category = sample.facts["baseline"], sample.facts["category"]
        one, other = (answer, baseline) if order == "first" else (baseline, answer)
        prompts = self._prompts
        messages = (
            ChatMessage(role="system", content=prompts.system_for(category)),
            ChatMessage(role="user", content=prompts.render(sample.request, one, other)),
        )
        return Question(
            question_id=f"{sample.sample_id}/{order}",
            prompt=Prompt(category, f"{prompts.system_for(category)}\0{prompts.user}"),
            shown={"question": sample.request, "answer_A": one, "answer_B": other},
            answers={},
            request=ChatRequest(
                messages=messages,
                temperature=self._options.judge_temperature,
                max_tokens=self._options.judge_max_tokens,
            ),
            read=self._read,
        )

    def _read(self, reply: ChatReply) -> dict[str, str] | str:
        if reply.finish_reason == "refused":
            return "judge_refused"
        label, reason = read_verdict(reply.text, self.version)
        if label is None:
            if reply.finish_reason == "length":
                return "judge_cut"
            return "judge_empty" if not reply.text.strip() else f"judge_prose: {reason}"
        return {"verdict": label, "winner": {1.0: "A", 0.5: "tie", 0.0: "B"}[LABELS[label][0]]}

    def win(self, sample: PlannedSample, output: EvalSample, judgments: Mapping[str, Judgment]) -> float | str:
        """Mean of both games."""
        del output
        games = self.judged_games(sample, judgments).games
        reasons = [game.unscored for game in games if game.win is None]
        if reasons:
            return (reasons[0] or NOT_JUDGED).partition(":")[0]
        return sum(game.win for game in games if game.win is not None) / len(games)

    def judged_games(self, sample: PlannedSample, judgments: Mapping[str, Judgment]) -> Judged:
        """Both games of a sample: in Arena-Hard's first one the model's answer is B."""
        labels: list[tuple[str | None, str | None]] = []
        for order in reversed(ORDERS):
            judgment = judgments.get(f"{sample.sample_id}/{order}")
            if judgment is None:
                labels.append((None, NOT_JUDGED))
            else:
                labels.append((judgment.answers.get("verdict"), judgment.unscored))
        uid = sample.facts["uid"]
        return Judged(uid, games_of(uid, labels), sample.facts["category"])

    def findings(self, numbers: Numbers, metrics: Sequence[Metric]) -> tuple[str, ...]:
        """As for every benchmark, and that categories were left out."""
        found = super().findings(numbers, metrics)
        if not self._options.categories:
            return found
        return (f"Only these categories of Arena-Hard were asked: {', '.join(self._options.categories)}.", *found)

    def facts(self, stored: Stored, judgments: Mapping[str, Judgment]) -> dict[str, Any]:
        """Arena-Hard's own scores, and whether they may be compared with the leaderboard's."""
        from rlhi_eval_harness.arena_hard.suite_tables import tables

        if not judgments:
            return {"tables": []}
        published = all(self._prompts.published(each) for each in {s.facts["category"] for s in stored.plan})
        return {"tables": tables(self, stored, judgments, published=published)}

    def write_more(self, stored: Stored, judgments: Mapping[str, Judgment]) -> None:
        """``arena_hard/{model_answer,model_judgment}/SUBJECT.jsonl``, as Arena-Hard writes them."""
        for subject in dict.fromkeys(sample.subject for sample in stored.plan):
            mine = [each for each in stored.plan if each.subject == subject]
            name = f"{subject.replace(':', '-')}.jsonl"
            answers = [_answer_row(each, output) for each in mine if (output := stored.outputs.get(each.sample_id))]
            _write(stored.folder.path / "arena_hard" / "model_answer" / name, answers)
            if judgments:
                rows = [self._judgment_row(each, judgments) for each in mine]
                _write(stored.folder.path / "arena_hard" / "model_judgment" / name, rows)

    def _judgment_row(self, sample: PlannedSample, judgments: Mapping[str, Judgment]) -> dict[str, Any]:
        games = []
        for order in reversed(ORDERS):
            judgment = judgments.get(f"{sample.sample_id}/{order}")
            games.append(
                {
                    "score": None if judgment is None else judgment.answers.get("verdict"),
                    "unscored": NOT_JUDGED if judgment is None else judgment.unscored,
                    "judgment": {"answer": "" if judgment is None else judgment.reply},
                    "answered_by": None if judgment is None else judgment.answered_by,
                }
            )
        judge = next((each.judge for each in judgments.values()), "")
        return {
            "uid": sample.facts["uid"],
            "category": sample.facts["category"],
            "judge": judge,
            "model": sample.subject,
            "baseline": sample.facts["baseline_model"],
            "prompt_digest": self._prompts.digest(sample.facts["category"]),
            "published_prompt": self._prompts.published(sample.facts["category"]),
            "games": games,
        }


def _known(path: Path) -> set[str]:
    """The questions that a file answers; what is wrong with its rows, `read_answers` says."""
    found = set()
    for line in path.read_text("utf-8").split("\n"):
        try:
            row = json.loads(line) if line.strip() else {}
        except ValueError:
            continue
        found.add(str(row.get("uid", row.get("question_id", ""))))
    return found


def _answer_row(sample: PlannedSample, output: EvalSample) -> dict[str, Any]:
    said = [{"role": "user", "content": sample.request}, {"role": "assistant", "content": {"answer": output.output}}]
    return {"uid": sample.facts["uid"], "model": sample.subject, "messages": said}


def _write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
