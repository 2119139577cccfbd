"""Files of the benchmarks' form, small and invented, and assistants whose answers are known."""

import gzip
import json

import pytest

from rlhi_eval_harness.reasoning.options import ReasoningOptions
from rlhi_eval_harness.suites import load_suite
from rlhi_plugin.chat import ScriptedClient


def write_jsonl(path, rows):
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.fixture
def data(tmp_path):
    """One folder with every benchmark in it, as the real one is laid out."""
    folder = tmp_path / "data"
    folder.mkdir()
    sums = [{"id": i, "question": f"What is {i} + {i}?", "problem": f"What is {i} + {i}?"} for i in range(6)]
    write_jsonl(folder / "amc23.jsonl", [{**row, "answer": float(2 * row["id"])} for row in sums])
    write_jsonl(
        folder / "aime24.jsonl",
        [{"id": row["id"], "problem": row["problem"], "answer": str(2 * row["id"])} for row in sums],
    )
    write_jsonl(
        folder / "gsm8k_test.jsonl",
        [{"question": row["question"], "answer": f"Twice {row['id']}.\n#### {2 * row['id']}"} for row in sums],
    )
    write_jsonl(
        folder / "minerva_math_272.jsonl",
        [
            {"problem": f"How far? {i}", "solution": f"It is \\boxed{{{i}.5e3}} m.", "type": "Astronomy", "idx": i}
            for i in range(3)
        ],
    )
    write_jsonl(
        folder / "olympiadbench_oe_to_en_maths_675.jsonl",
        [
            {"id": 1, "subfield": "Algebra", "context": None, "question": "Roots?", "solution": ["s"],
             "final_answer": ["$-1$,$2$"], "is_multiple_answer": True, "unit": None, "answer_type": "Numerical",
             "error": None},
            {"id": 2, "subfield": "Algebra", "context": "Let f be such.", "question": "f?", "solution": ["s"],
             "final_answer": ["$f(x)=x+22$"], "is_multiple_answer": False, "unit": None, "answer_type": "Expression",
             "error": None},
            {"id": 3, "subfield": "Geometry", "context": None, "question": "How long?", "solution": ["s"],
             "final_answer": ["4.2"], "is_multiple_answer": False, "unit": "km", "answer_type": "Numerical",
             "error": "1e-1"},
        ],
    )  # fmt: skip
    write_jsonl(
        folder / "mmlu_pro_test_12032.jsonl.gz",
        [
            {"question_id": i, "question": f"Which {i}?", "options": ["one", "two", "three"], "answer": "B",
             "answer_index": 1, "category": "law" if i % 2 else "math", "src": "s", "cot_content": ""}
            for i in range(4)
        ],
    )  # fmt: skip
    head = "Question,Correct Answer,Incorrect Answer 1,Incorrect Answer 2,Incorrect Answer 3,High-level domain\n"
    rows = "".join(f"Why {i}?,right,wrong a,wrong b,wrong c,Physics\n" for i in range(4))
    (folder / "gpqa_diamond.csv").write_text(head + rows)
    return folder


@pytest.fixture
def suite(data):
    """A shipped suite over these files, which hold a part of each benchmark."""

    def make(name, **changes) -> ReasoningOptions:
        loaded, small = load_suite(name, environ={}), {"resamples": 100, "max_new_tokens": 32}
        return ReasoningOptions.model_validate(
            {**loaded.model_dump(), "data": str(data), "partial": True, **small, **changes}
        )

    return make


class Scripted:
    """Every source answers by one function of the request; options are weighed by another."""

    def __init__(self, answer, weigh=None):
        self.identity = {"base": "scripted", "base_digest": "0"}
        self.calls = ScriptedClient(answer, model="scripted")
        self._weigh = weigh

    def client(self, source):
        return self.calls

    def weigh(self, source, prompts):
        return None if self._weigh is None else [self._weigh(options) for _, options in prompts]


@pytest.fixture
def scripted():
    return Scripted
