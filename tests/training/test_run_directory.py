"""Run directories: atomic files, conservation, reuse only of intact stages."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhi_plugin.errors import ArtefactError, StoreTimeoutError, UserError
from rlhi_training.records import Dropped
from rlhi_training.run_directory import (
    RunDirectory,
    StageEntry,
    StageResult,
    check_conservation,
    digest_path,
    write_lines,
    writing_to,
)


def _dropped(*keys: str, stage: str = "label") -> list[Dropped]:
    return [Dropped(stage=stage, key=key, reason="too_long") for key in keys]


@given(inputs=st.integers(0, 20), passed=st.integers(0, 20), dropped=st.integers(0, 20))
def test_conservation_holds_exactly_when_the_numbers_add_up(inputs, passed, dropped):
    result = StageResult(inputs, passed, _dropped(*map(str, range(dropped))), {})
    if inputs == passed + dropped:
        check_conservation("label", result)
    else:
        with pytest.raises(ArtefactError, match="lost track"):
            check_conservation("label", result)


def test_an_item_cannot_be_dropped_twice_or_under_another_stage():
    with pytest.raises(ArtefactError, match="twice"):
        check_conservation("label", StageResult(2, 0, _dropped("a", "a"), {}))
    with pytest.raises(ArtefactError, match="another stage"):
        check_conservation("label", StageResult(1, 0, _dropped("a", stage="ingest"), {}))


def test_a_failed_write_leaves_the_old_file_and_no_draft(tmp_path: Path):
    target = tmp_path / "a.jsonl"
    write_lines(target, ["old\n"])

    def lines():
        yield "new\n"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_lines(target, lines())
    assert target.read_text() == "old\n"
    assert [p.name for p in tmp_path.iterdir()] == ["a.jsonl"]


def test_a_changed_or_missing_file_is_not_intact(tmp_path: Path):
    run = RunDirectory(tmp_path / "run")
    drops = _dropped("a")
    written = run.finish("label", StageResult(1, 0, drops, {"turns.jsonl": drops}))
    entry = StageEntry(
        inputs_digest="x", files=written, inputs=1, passed=0, dropped=1, outputs=1, seconds=0, finished_at="now"
    )
    assert run.intact(entry)
    assert run.read("dropped/label.jsonl", Dropped) == drops
    (run.path / "turns.jsonl").write_text("")
    assert not run.intact(entry)
    (run.path / "turns.jsonl").unlink()
    assert not run.intact(entry)


def test_a_folder_digest_sees_names_and_bytes(tmp_path: Path):
    (tmp_path / "a").write_text("1")
    first = digest_path(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    second = digest_path(tmp_path)
    (tmp_path / "b").write_text("2")
    assert len({first, second, digest_path(tmp_path)}) == 3


def test_damaged_files_say_so(tmp_path: Path):
    run = RunDirectory(tmp_path)
    (tmp_path / "manifest.json").write_text('{"recipe"')
    (tmp_path / "turns.jsonl").write_text("{}\n")
    (tmp_path / "latin.jsonl").write_bytes(b'{"a": "\xe9"}\n')
    with pytest.raises(ArtefactError, match="damaged"):
        run.manifest()
    with pytest.raises(ArtefactError, match="damaged"):
        run.read("latin.jsonl", Dropped)
    with pytest.raises(ArtefactError, match="damaged"):
        run.read("turns.jsonl", Dropped)
    with pytest.raises(ArtefactError, match="missing"):
        run.read("pairs.jsonl", Dropped)


def test_a_file_is_no_run_directory(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="--out"):
        RunDirectory(tmp_path / "file")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(28, "No space left on device"), r"No space left on device\. Make room or rights"),
        (PermissionError(13, "Permission denied", "run/.lock"), r"Permission denied \(run/\.lock\)\. Make room"),
    ],
)
def test_a_full_disk_and_a_folder_without_rights_are_said(tmp_path: Path, error: OSError, said: str):
    with pytest.raises(UserError, match=said), writing_to(tmp_path):
        raise error


@pytest.mark.parametrize("error", [FileNotFoundError(2, "No such file"), OSError("odd"), StoreTimeoutError("late")])
def test_other_errors_stay_what_they_are(tmp_path: Path, error: OSError):
    with pytest.raises(type(error)) as caught, writing_to(tmp_path):
        raise error
    assert caught.value is error


def _hold(path: Path, ready, done) -> None:
    with RunDirectory(path).locked():
        ready.set()
        done.wait(10)


def test_two_processes_cannot_work_in_one_directory(tmp_path: Path):
    context = multiprocessing.get_context("fork")
    ready, done = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(tmp_path, ready, done))
    other.start()
    try:
        assert ready.wait(10)
        with pytest.raises(UserError, match="another process"), RunDirectory(tmp_path).locked():
            pass
    finally:
        done.set()
        other.join()
    with RunDirectory(tmp_path).locked():
        pass
