"""Ctrl-C, SIGTERM and killed workers: what is said, what ends, what is left, and that the next start goes on."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from multiprocessing import resource_tracker
from pathlib import Path

import pytest
from invented_logs import invented
from provider_script import Provider
from test_scale import Inline, in_memory, in_shards, same

from rlhi_plugin.fake_provider import ByContent, FakeProvider
from rlhi_plugin.logs import write_conversations
from rlhi_training.drafts import clear_drafts, open_draft, publish
from rlhi_training.run_directory import RunDirectory
from rlhi_training.scale.engine import LocalEngine
from rlhi_training.workers import holding_ctrl_c

PROGRAM = "from rlhi_training.cli import main; main()"


def below(pid: int) -> set[int]:
    """Processes that a process and those below it started."""
    found: set[int] = set()
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = [int(child) for child in task.read_text().split()]
        except OSError:
            continue
        found.update(children, *map(below, children))
    return found


def alive(pids: set[int]) -> set[int]:
    """Those of them that have not ended."""
    return {pid for pid in pids if _command(pid)}


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


class Command:
    """`rlhi-train` in a session of its own, as a terminal starts it; what it says goes to a file."""

    def __init__(self, folder: Path, *words: object) -> None:
        self._said = folder / "said.txt"
        env = {**os.environ, "OPENAI_API_KEY": "none", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        argv = [sys.executable, "-c", PROGRAM, *map(str, words)]
        with self._said.open("wb") as said:
            self.process = subprocess.Popen(argv, stdout=said, stderr=said, start_new_session=True, env=env)

    @property
    def said(self) -> str:
        return self._said.read_text()

    def await_words(self, words: str) -> None:
        deadline = time.monotonic() + 60
        while words not in self.said:
            assert self.process.poll() is None, self.said
            assert time.monotonic() < deadline, self.said
            time.sleep(0.01)

    def end(self, number: int) -> tuple[int, set[int]]:
        """Send a signal, Ctrl-C to all as a terminal does; the exit code, and which processes are left."""
        others = below(self.process.pid)
        if number == signal.SIGINT:
            os.killpg(self.process.pid, number)
        else:
            self.process.send_signal(number)
        code = self.process.wait(60)
        # Python's keeper of shared memory ends a moment later.
        deadline = time.monotonic() + 5
        while alive(others) and time.monotonic() < deadline:
            time.sleep(0.05)
        return code, alive(others)


def settings(provider: FakeProvider) -> list[str]:
    model = f"openai:fake-1@{provider.base_url}"
    options = ["label.labeller=fast", "reward.samples=2", "contrast.max_requests=4", "filter.not_worse=judge"]
    options += [f"{role}={model}" for role in ("rewrite.llm", "reward.llm", "model.served")]
    return [word for option in options for word in ("--set", option)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "place", "code"),
    [
        (signal.SIGINT, "read and screen", 130),
        (signal.SIGINT, "label, personas", 130),
        (signal.SIGTERM, "label, personas", 143),
        (signal.SIGINT, "make pairs", 130),
        (signal.SIGTERM, "make pairs", 143),
    ],
)
def test_a_signal_ends_a_run_in_shards_with_one_line(tmp_path, number, place, code):
    logs, script = tmp_path / "logs.jsonl", ByContent(Provider(delay_s=0.2))
    write_conversations(logs, invented(300 if "pairs" not in place else 5, 4, seed=3))
    with FakeProvider(script) as provider:
        words = ["run", logs, "--out", tmp_path / "run", "--engine", "local", "--shards", 3, "--processes", 2]
        command = Command(tmp_path, *words, *settings(provider))
        command.await_words(place)
        if place == "make pairs":
            while not provider.requests:
                time.sleep(0.01)
        ended, left = command.end(number)
        assert ended == code, command.said
        assert command.said.rstrip().endswith("interrupted; run the same command again to continue")
        assert "Traceback" not in command.said
        assert not left, "workers end with the run"
        assert not drafts_in(tmp_path / "run")
        if place == "make pairs":
            assert sum(script.answered.values()) == len(provider.requests), "those in flight were waited for"
            again = Command(tmp_path, "pairs", tmp_path / "run")
            assert again.process.wait(120) == 0, again.said
            assert set(script.answered.values()) == {1}
            assert (tmp_path / "run" / "pairs.jsonl").read_bytes()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_sigterm_is_ctrl_c_with_a_code_of_its_own_also_where_ctrl_c_is_ignored(number):
    program = (
        "import os, signal, sys, time\n"
        "from rlhi_training.terminating import terminating_in_order\n"
        "signal.signal(signal.SIGINT, {})\n"
        "try:\n"
        "    with terminating_in_order():\n"
        "        try:\n"
        "            os.kill(os.getpid(), {}); time.sleep(5)\n"
        "        except KeyboardInterrupt:\n"
        "            sys.exit(130)\n"
        "finally:\n"
        "    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL\n"
    )
    codes = []
    for handler in ("signal.default_int_handler", "signal.SIG_IGN"):
        if (number, handler) != (signal.SIGINT, "signal.SIG_IGN"):
            done = subprocess.run([sys.executable, "-c", program.format(handler, int(number))], check=False, timeout=60)
            codes.append(done.returncode)
    assert codes == ([143, 143] if number == signal.SIGTERM else [130])


def test_workers_do_not_hear_ctrl_c_while_they_start():
    resource_tracker.ensure_running()
    with holding_ctrl_c():
        assert signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def _masks(_: int) -> tuple[bool, bool]:
    """In a worker: whether Ctrl-C is ignored, and whether it would wait."""
    waits = signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    return signal.getsignal(signal.SIGINT) == signal.SIG_IGN, waits


@pytest.mark.slow
def test_a_worker_ignores_ctrl_c_from_its_first_moment(monkeypatch):
    blocked: list[bool] = []
    spawn = multiprocessing.get_context("spawn").Process.start

    def start(process):
        blocked.append(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ()))
        spawn(process)

    monkeypatch.setattr(multiprocessing.get_context("spawn").Process, "start", start)
    local = LocalEngine(1)
    try:
        assert [found for _, found in local.map(_masks, range(2))] == [(True, False)] * 2
    finally:
        local.close()
    assert blocked == [True]


def drafts_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob(".*") if path.is_file() and path.name != ".lock"]


def test_drafts_of_the_dead_are_deleted_and_those_of_the_living_are_not(tmp_path):
    living, draft = open_draft(tmp_path / "living.jsonl")
    dead, left = open_draft(tmp_path / "dead.jsonl")
    dead.close()
    other = tmp_path / ".hidden"
    other.touch()
    clear_drafts(sorted(tmp_path.iterdir()))
    assert sorted(path.name for path in tmp_path.iterdir()) == [".hidden", draft.name]
    assert not left.exists()
    living.write(b"whole\n")
    publish(living, draft, tmp_path / "living.jsonl")
    living.close()
    clear_drafts(sorted(tmp_path.iterdir()))
    assert (tmp_path / "living.jsonl").read_bytes() == b"whole\n"


def test_a_draft_that_was_taken_for_a_dead_one_before_it_was_locked_is_made_again(tmp_path, monkeypatch):
    lock, first = fcntl.flock, []

    def late(stream, how):
        if not first:
            first.append(stream)
            clear_drafts(sorted(tmp_path.iterdir()))
        lock(stream, how)

    monkeypatch.setattr(fcntl, "flock", lambda stream, how: lock(stream, how) if first else late(stream, how))
    stream, draft = open_draft(tmp_path / "file")
    with stream:
        publish(stream, draft, tmp_path / "file")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@contextmanager
def left_by_a_killed_process(folder: Path):
    """Drafts in all folders of a run, of which one is still being written."""
    dead = []
    for place in ("pairs.jsonl", "dropped/filter.jsonl", "shards/00001/learned.jsonl", "shards/blocks/000001.rows"):
        stream, draft = open_draft(folder / place)
        stream.close()
        dead.append(draft)
    stream, living = open_draft(folder / "shards" / "00000" / "learned.jsonl")
    with stream:
        yield dead, living


def test_a_start_deletes_what_killed_workers_left(tmp_path):
    logs = tmp_path / "logs.jsonl"
    write_conversations(logs, invented(6, 4, seed=3))
    in_memory(logs, tmp_path / "memory")
    in_shards(logs, tmp_path / "run")
    with left_by_a_killed_process(tmp_path / "run") as (dead, living):
        in_shards(logs, tmp_path / "run")
        assert not [draft for draft in dead if draft.exists()]
        assert living.exists(), "somebody writes it"
        with RunDirectory(tmp_path / "run").locked():
            assert living.exists()
    same(tmp_path / "memory", tmp_path / "run")
    with RunDirectory(tmp_path / "run").locked():
        assert not living.exists()


class Killing(Inline):
    """A worker is killed in the middle of its work, and the work is done again."""

    def __init__(self) -> None:
        self.left: list[Path] = []

    def map(self, work, items):
        yield from super().map(work, items)
        if hasattr(work, "layout") and not self.left:
            stream, draft = open_draft(work.layout.folder / "00000" / "learned.jsonl")
            stream.close()
            self.left.append(draft)


def test_the_end_deletes_what_a_worker_left_that_was_killed_on_the_way(tmp_path):
    logs = tmp_path / "logs.jsonl"
    write_conversations(logs, invented(6, 4, seed=3))
    killing = Killing()
    in_shards(logs, tmp_path / "run", engine=killing)
    assert len(killing.left) == 1
    assert not drafts_in(tmp_path / "run")
