"""From a log into a store, with counts."""

import json

import pytest

from rlhi_plugin import open_store
from rlhi_plugin.errors import ConfigError, StoreError
from rlhi_plugin.importers.import_job import NAMED, ImportOptions, import_log


def row(name, **more):
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    return {"conversation_id": name, "conversation": turns, **more}


@pytest.fixture
def store(tmp_path):
    with open_store(f"sqlite:///{tmp_path}/a.db") as opened:
        yield opened


def write(tmp_path, *rows):
    file = tmp_path / "log.jsonl"
    file.write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in rows))
    return file


def test_counts_by_format_and_a_second_time_nothing_is_new(tmp_path, store, capsys):
    sharegpt = {"conversations": [{"from": "human", "value": "hi"}]}
    file = write(tmp_path, row("a"), row("b"), sharegpt, "{")
    counts = import_log(file, store)
    assert list(counts.lines()) == [
        "3 conversation(s) read, 5 new message(s) stored, 1 line(s) passed over",
        "  lmsys: 2 conversation(s)",
        "  sharegpt: 1 conversation(s)",
    ]
    assert counts.named[0].startswith(f"{file}:4: not JSON")
    size = file.stat().st_size
    assert f"{size} of {size} done" in capsys.readouterr().err
    again = import_log(file, store)
    assert (again.messages, again.known, store.counts().messages) == (0, 5, 5)


def test_all_refused_rows_go_to_the_file_that_was_asked_for(tmp_path, store):
    thief = {"conversation_id": "a", "messages": [], "user_id": "u_1"}
    file = write(tmp_path, row("a"), *["{"] * 30, thief)
    counts = import_log(file, store, ImportOptions(refused=tmp_path / "refused.jsonl", show_progress=False))
    assert (counts.refused, len(counts.named)) == (31, NAMED)
    refused = [json.loads(line) for line in (tmp_path / "refused.jsonl").read_text().splitlines()]
    assert [found.get("line") for found in refused] == [*range(2, 32), None]
    assert "belongs to nobody" in refused[-1]["reason"]
    assert {found["path"] for found in refused} == {str(file)}


def test_feedback_goes_where_it_is_kept_or_is_counted_as_left(tmp_path, store):
    turns = row("x")["conversation"]
    file = write(tmp_path, {"question_id": "q", "conversation_a": turns, "conversation_b": turns, "winner": "model_b"})
    kept = []
    counts = import_log(file, store, ImportOptions(keep_feedback=kept.append))
    assert (counts.feedback, counts.feedback_left, len(kept)) == (2, 0, 2)
    counts = import_log(file, store)
    assert list(counts.lines())[-1] == "0 feedback event(s) stored, 2 read but not stored"


def test_mistakes_of_the_caller(tmp_path, store):
    file = write(tmp_path, "{", "[")
    with pytest.raises(ConfigError, match=r"Give an RLHI export .* --format: rlhi, wildchat"):
        import_log(file, store)
    with pytest.raises(ConfigError, match="Name another file"):
        import_log(file, store, ImportOptions(refused=tmp_path / "absent" / "r.jsonl"))
    with pytest.raises(ConfigError, match="Known formats"):
        import_log(file, store, ImportOptions(log_format="x"))


def test_a_store_that_fails_is_not_a_bad_row(tmp_path):
    class Full:
        def add(self, conversation):
            raise StoreError("disk full")

    with pytest.raises(StoreError, match="disk full"):
        import_log(write(tmp_path, row("a")), Full())
