"""A process that appends turns to a store and says on stdout, after each `append` returned, that it is kept.

    python turn_writer.py URL NAME THREADS TURNS

Each line it prints is ``THREAD TURN NEW``: the thread's number, the turn's, and how many messages `append` counted as
new. With ``TURNS`` 0 it goes on until it is killed.
"""

from __future__ import annotations

import os
import sys
import threading
from datetime import UTC, datetime
from itertools import count

from rlhi_plugin.records import Message
from rlhi_plugin.stores import SQLStore, open_store


def own_conversation(name: str, thread: int) -> str:
    """Where one thread of one process writes alone."""
    return f"{name}-{thread}"


def turn(name: str, thread: int, number: int) -> list[Message]:
    """A question and its answer."""
    now = datetime.now(UTC)
    return [
        Message(id=f"{name}-{thread}-{number}-q", role="user", content=f"Question {number}? " * 10, created_at=now),
        Message(id=f"{name}-{thread}-{number}-a", role="assistant", content=f"Answer {number}. " * 40, created_at=now),
    ]


def common(number: int) -> Message:
    """A message that every process offers: only one of them may find it new."""
    return Message(id=f"common-{number}", role="user", content="Everybody says this.", created_at=datetime.now(UTC))


def write(store: SQLStore, name: str, thread: int, turns: int) -> None:
    """Append turns to a conversation of one's own, and to one that all processes share."""
    before: list[Message] = []
    for number in range(turns) if turns else count():
        said = turn(name, thread, number)
        # The turn before is sent again, as an app does that sends the whole history.
        new = store.append(own_conversation(name, thread), user_id=f"u_{name}", messages=[*before, *said])
        if turns:
            new += store.append("shared", user_id=None, messages=[common(number), *said])
        # One short write to a pipe is never torn.
        os.write(sys.stdout.fileno(), f"{thread} {number} {new}\n".encode())
        before = said


def main() -> None:
    """Start the threads."""
    url, name, threads, turns = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    store = open_store(url)
    writers = [threading.Thread(target=write, args=(store, name, number, turns)) for number in range(threads)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    store.close()


if __name__ == "__main__":
    main()
