"""Writing turns without an agent around: a bare append, SQLite's own driver, ours, and peers; alone and in a crowd."""

from __future__ import annotations

import sqlite3
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

from rlhi_plugin import open_store
from rlhi_plugin.durability import WriterOptions
from rlhi_plugin.privacy.messages import MessageRedactor, open_redactor
from rlhi_plugin.recorder import Recorder, Turn
from rlhi_plugin.stores import SQLStore
from turns import ANSWER, REQUEST, Size, append_page, spread, timed, turn_of
from turns.peers import peers


def _writers(folder: Path, stack: ExitStack) -> dict[str, Callable[[int], None]]:
    """What writes one turn to disk, by name."""
    file = stack.enter_context((folder / "bare").open("ab", buffering=0))
    store = stack.enter_context(open_store(f"sqlite:///{folder}/direct.db"))
    recorder = _recorder(store, WriterOptions(journal=folder / "journal"))
    stack.callback(recorder.close)
    writers: dict[str, Callable[[int], None]] = {
        "bare 4 KiB append": lambda _: append_page(file),
        "sqlite3 itself": _sqlite_itself(folder, stack),
        "rlhi record": lambda number: recorder.record(lambda: turn_of(number, f"t{number}")),
    }
    return writers | peers(folder, stack)


def _recorder(store: SQLStore, options: WriterOptions) -> Recorder:
    """As the middleware makes it: what is private is looked for."""
    return Recorder(store, options, redaction=MessageRedactor(open_redactor("default")))


def _sqlite_itself(folder: Path, stack: ExitStack) -> Callable[[int], None]:
    """The same rows in the same tables by the driver alone: what no store on SQLite can be faster than."""
    file = folder / "itself.db"
    open_store(f"sqlite:///{file}").close()
    driver = stack.enter_context(closing(sqlite3.connect(file, isolation_level=None)))
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "secure_delete=ON"):
        driver.execute(f"PRAGMA {pragma}")
    head = "INSERT INTO rlhi_conversations (conversation_id, user_id, source) VALUES (?, ?, 'rlhi')"
    said = "INSERT INTO rlhi_messages (conversation, sequence, message_id, role, content) VALUES (?, ?, ?, ?, ?)"

    def write(number: int) -> None:
        driver.execute("BEGIN IMMEDIATE")
        conversation = driver.execute(head, (f"t{number}", "u_1")).lastrowid
        driver.execute(said, (conversation, 0, f"u{number}", "user", f"{number} {REQUEST}"))
        driver.execute(said, (conversation, 1, f"a{number}", "assistant", ANSWER))
        driver.execute("COMMIT")

    return write


def write_times(size: Size) -> dict[str, float]:
    """Milliseconds to write one turn, one thread and 64, without an agent around it."""
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        writers = _writers(Path(name), stack)
        blocks: dict[str, list[float]] = {label: [] for label in writers}
        crowd: dict[str, list[float]] = {label: [] for label in ("bare 4 KiB append", "rlhi record")}
        for block in range(size.blocks + 1):
            for label, write in writers.items():
                numbers = range(block * size.appends, (block + 1) * size.appends)
                seconds = [timed(write, number) for number in numbers]
                if block:
                    blocks[label].append(1000 * statistics.median(seconds))
        store = stack.enter_context(open_store(f"sqlite:///{name}/crowd.db"))
        recorder = _recorder(store, WriterOptions(journal=Path(name, "crowd-journal"), store_timeout_s=30))
        stack.callback(recorder.close)
        for block in range(size.blocks):
            crowd["rlhi record"].append(1000 * _crowd(recorder, block, size.appends * 4))
    for label, values in blocks.items():
        figures |= spread(f"{label.replace(' ', '_').lower()}_ms", values)
    figures |= spread("record_64_threads_ms", crowd["rlhi record"])
    figures["record_over_bare_append_64"] = figures["record_64_threads_ms"] / figures["bare_4_kib_append_ms"]
    return figures


def _same(turn: Turn) -> Turn:
    return turn


def _crowd(recorder: Recorder, block: int, turns: int) -> float:
    """Seconds per turn while 64 threads write at the same time; turns are made before, as a bare append's page is."""
    start = threading.Barrier(65)

    def user(number: int) -> None:
        made = [turn_of(turn, f"{block}-{number}") for turn in range(turns // 64)]
        start.wait()
        for turn in made:
            recorder.record(partial(_same, turn))

    with ThreadPoolExecutor(64) as pool:
        done = [pool.submit(user, number) for number in range(64)]
        start.wait()
        started = time.perf_counter()
        for future in done:
            future.result()
        return (time.perf_counter() - started) / (64 * (turns // 64))
