"""Arena-Hard's files, made up: a dozen questions of two categories, with the answers of one baseline each."""

from __future__ import annotations

import json
from pathlib import Path

UIDS = tuple(f"q{number:02d}" for number in range(12))


def write_arena_hard(folder: Path) -> None:
    """Write questions and answers as the benchmark's repository has them."""
    rows = [
        {"uid": uid, "category": "hard_prompt" if place < 8 else "creative_writing", "prompt": f"Question {place}?"}
        for place, uid in enumerate(UIDS)
    ]
    write_rows(folder / "question.jsonl", rows)
    counts = {"header_count": {"h1": 0}, "list_count": {"ordered": 0}, "bold_count": {"**": 0}}
    for name in ("o3-mini-2025-01-31", "gemini-2.0-flash-001"):
        answers = [
            {
                "uid": uid, "model": name, "metadata": {"token_len": 3, **counts},
                "messages": [{"role": "user", "content": "?"}, {"content": {"answer": f"base text {uid}"}}],
            }
            for uid in UIDS
        ]  # fmt: skip
        write_rows(folder / f"model_answer/{name}.jsonl", answers)


def write_rows(path: Path, rows: list[dict]) -> None:
    """One JSON object a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
