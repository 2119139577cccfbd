"""A disk that is full in the middle of a run: which file is said, nothing is left lying, and with room the run goes on.

Here files may only be so large, which fails as a full disk does: in the middle of a file, or when it is closed.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
from invented_logs import invented
from test_scale import in_memory, in_shards, same

from rlhi_plugin.errors import FullDiskError, UserError
from rlhi_plugin.logs import write_conversations
from rlhi_training.pair_rows import write_lines_parquet
from rlhi_training.resources import Resources
from rlhi_training.run_directory import write_lines
from rlhi_training.scale.lines import Lines, OrderedLines


@contextmanager
def files_of_at_most(size: int):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def drafts_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob(".*") if path.is_file() and path.name != ".lock"]


@pytest.fixture(scope="module")
def log(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("log") / "logs.jsonl"
    write_conversations(path, invented(9, 4, seed=3))
    return path


@pytest.fixture(scope="module")
def reference(log, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("memory")
    in_memory(log, folder)
    return folder


def stopped(make, size: int) -> FullDiskError | None:
    """What ends a run that has no room; None where it had."""
    try:
        with files_of_at_most(size):
            make()
    except FullDiskError as error:
        return error
    return None


@pytest.mark.parametrize("make", [in_memory, in_shards])
def test_a_run_goes_on_where_there_was_no_room_before(log, reference, tmp_path, monkeypatch, make):
    # The journal grows the fastest, and has its own tests.
    monkeypatch.setattr(Resources, "calling", lambda *_: nullcontext())
    run = tmp_path / "run"
    named = set()
    for size in (200, 2_000, 8_000, 30_000, 60_000, 200_000):
        error = stopped(lambda: make(log, run), size)
        if error is not None:
            said = str(error)
            assert error.exit_code == 1
            assert "cannot write to " in said
            assert "Make room" in said
            name = Path(said.partition("(")[2].partition(")")[0])
            assert run in name.parents, said
            named.add(name.name)
        assert not drafts_in(run)
    assert len(named) > 2, "it stopped in several places"
    make(log, run)
    if make is in_shards:
        same(reference, run)
    assert (run / "pairs.jsonl").read_bytes() == (reference / "pairs.jsonl").read_bytes()


@pytest.mark.parametrize("kind", [Lines, OrderedLines])
def test_lines_that_do_not_fit_leave_the_old_file_and_no_draft(tmp_path, kind):
    path = tmp_path / "some.lines"
    path.write_text("old\n")
    with pytest.raises(OSError, match=r"some\.lines"), files_of_at_most(100), kind(path) as lines:
        lines.add((0,), b"x" * 999) if kind is OrderedLines else lines.write(b"x" * 999)
    assert path.read_text() == "old\n"
    assert list(tmp_path.iterdir()) == [path]
    for write in (lambda: write_lines(path, ["x" * 200]), lambda: write_lines_parquet(path, [])):
        with pytest.raises(OSError, match=r"some\.lines"), files_of_at_most(100):
            write()
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.slow
def test_workers_without_room_say_so_and_the_next_start_goes_on(log, reference, tmp_path):
    here = Path(__file__).parent
    script = tmp_path / "run.py"
    script.write_text(
        f"import sys; sys.path[:0] = [{str(here)!r}]\n"
        "from pathlib import Path\n"
        "import test_scale\n"
        "from contextlib import nullcontext\n"
        "from rlhi_training.resources import Resources\n"
        "Resources.calling = lambda *_: nullcontext()\n"
        "from rlhi_plugin.errors import RLHIError\n"
        "from rlhi_training.scale.engine import LocalEngine\n"
        "if __name__ == '__main__':\n"
        "    try:\n"
        f"        test_scale.in_shards(Path({str(log)!r}), Path({str(tmp_path / 'run')!r}), shards=2,"
        " engine=LocalEngine(2), pairs_in_workers=True)\n"
        "    except RLHIError as error:\n"
        "        print(error)\n"
        "        sys.exit(error.exit_code)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(here), *sys.path])}

    def start(size: int) -> subprocess.CompletedProcess[str]:
        limit = (size, resource.RLIM_INFINITY)
        return subprocess.run(
            [sys.executable, str(script)],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit),
        )

    done = start(9_000)
    assert done.returncode == 1, done.stderr
    assert "Make room" in done.stdout
    assert f"({tmp_path / 'run' / 'shards'}/" in done.stdout, "by a worker"
    assert "Traceback" not in done.stderr
    assert not drafts_in(tmp_path / "run")
    done = start(resource.RLIM_INFINITY)
    assert done.returncode == 0, done.stdout + done.stderr
    same(reference, tmp_path / "run")


def test_no_rights_stay_the_users_to_mend(log, tmp_path):
    if os.geteuid() == 0:
        (tmp_path / "run" / "pairs.jsonl").mkdir(parents=True)
    else:
        (tmp_path / "run").mkdir(mode=0o500)
    with pytest.raises(UserError, match="Make room or rights") as caught:
        in_memory(log, tmp_path / "run")
    assert caught.value.exit_code == 2
