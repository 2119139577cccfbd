"""Other libraries that keep what was said, writing the same turn without a model: each as its documentation has it.

Where one is not installed (dependency group `bench`), it is left out. What each does for a turn:

SqliteSaver            one checkpoint of the graph's state, here of the turn's two messages alone; one commit (WAL)
SQLChatMessageHistory  a row for each message; one commit
LangMem                its tool `manage_memory` puts the turn as one memory into LangGraph's SQLite store; one commit
mem0                   `add(infer=False)`: for each message a vector and its text into Qdrant's local store, and a row
                       of its history; four commits on two SQLite files

All of them leave SQLite's `synchronous` as it is, FULL in the usual build: their turns are on disk when the call
returns, as ours are. A turn was seen to take 1, 4, 4 and 16 fsyncs, in this order; ours takes one. None of them
redacts, asks for consent, or writes once what it is given twice.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from contextlib import ExitStack
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from langchain_core.messages import AIMessage, HumanMessage

from turns import ANSWER, REQUEST

Write = Callable[[int], object]

MODULES = {
    "langgraph-checkpoint-sqlite": "langgraph.checkpoint.sqlite",
    "langchain-community": "langchain_community",
    "langmem": "langmem",
    "mem0ai": "mem0",
}
"""Distributions of the peers, and what they are imported as."""

_USER = "user-1"
_DIMENSIONS = 384
"""As many as a small sentence encoder gives."""


def peer_versions() -> dict[str, str]:
    """Which of them are there."""
    return {name: version(name) if find_spec(module) else "not installed" for name, module in MODULES.items()}


def peers(folder: Path, stack: ExitStack) -> dict[str, Write]:
    """What writes a turn of a number, for each peer that is installed; each on files of its own."""
    writers: dict[str, Write] = {}
    has_sqlite = find_spec("langgraph.checkpoint.sqlite") is not None
    if has_sqlite:
        writers["SqliteSaver"] = _saver(folder, stack)
    if find_spec("langchain_community") and find_spec("greenlet"):
        writers["SQLChatMessageHistory"] = _history(folder, stack)
    if has_sqlite and find_spec("langmem"):
        writers["LangMem"] = _langmem(folder, stack)
    if find_spec("mem0"):
        writers["mem0"] = _mem0(folder, stack)
    return writers


def _saver(folder: Path, stack: ExitStack) -> Write:
    from langgraph.checkpoint.base import empty_checkpoint
    from langgraph.checkpoint.sqlite import SqliteSaver

    saver = stack.enter_context(SqliteSaver.from_conn_string(str(folder / "checkpoints.db")))

    def write(number: int) -> None:
        said = [HumanMessage(f"{number} {REQUEST}"), AIMessage(ANSWER)]
        checkpoint = {**empty_checkpoint(), "channel_values": {"messages": said}}
        config = {"configurable": {"thread_id": str(number), "checkpoint_ns": ""}}
        saver.put(config, checkpoint, {}, {})  # type: ignore[arg-type] # a checkpoint and a config are typed dicts

    return write


def _history(folder: Path, stack: ExitStack) -> Write:
    from langchain_community.chat_message_histories import SQLChatMessageHistory
    from sqlalchemy import create_engine

    engine = create_engine(f"sqlite:///{folder}/history.db")
    stack.callback(engine.dispose)
    history = SQLChatMessageHistory(session_id="s", connection=engine)
    return lambda number: history.add_messages([HumanMessage(f"{number} {REQUEST}"), AIMessage(ANSWER)])


def _langmem(folder: Path, stack: ExitStack) -> Write:
    from langgraph.store.sqlite import SqliteStore
    from langmem import create_manage_memory_tool

    store = stack.enter_context(SqliteStore.from_conn_string(str(folder / "langmem.db")))
    store.setup()
    tool = create_manage_memory_tool(("memories", _USER), store=store)
    return lambda number: tool.invoke({"content": f"User: {number} {REQUEST}\nAssistant: {ANSWER}"})


def _mem0(folder: Path, stack: ExitStack) -> Write:
    # Before the import, which reads them and makes the folder.
    os.environ |= {"MEM0_TELEMETRY": "False", "MEM0_DIR": str(folder / "mem0")}
    from mem0 import Memory
    from mem0.embeddings.base import EmbeddingBase
    from mem0.memory import main

    # Told to send nothing, it still makes a client with a thread for every message, and ends none of them.
    main.capture_event = lambda *_, **__: None

    class Hashes(EmbeddingBase):
        """Embeds at once and the same each time; what a text means does not matter here."""

        def embed(self, text: str, memory_action: str | None = None) -> list[float]:
            """The vector of a text."""
            del memory_action
            return [byte / 255 for byte in hashlib.shake_256(text.encode()).digest(_DIMENSIONS)]

    # Neither client ever calls its server: the embedder is replaced, and nothing is inferred.
    unused = {"api_key": "unused"}
    where = {"path": str(folder / "qdrant"), "on_disk": True, "embedding_model_dims": _DIMENSIONS}
    memory = Memory.from_config(
        {
            "vector_store": {"provider": "qdrant", "config": {"collection_name": "turns", **where}},
            "llm": {"provider": "openai", "config": unused},
            "embedder": {"provider": "openai", "config": {**unused, "embedding_dims": _DIMENSIONS}},
            "history_db_path": str(folder / "mem0-history.db"),
            "version": "v1.1",
        }
    )
    memory.embedding_model = Hashes()
    for vectors in (memory.vector_store, memory._telemetry_vector_store):  # noqa: SLF001 - nothing else closes it
        stack.callback(vectors.client.close)

    def write(number: int) -> None:
        said = [{"role": "user", "content": f"{number} {REQUEST}"}, {"role": "assistant", "content": ANSWER}]
        memory.add(said, user_id=_USER, infer=False)

    return write
