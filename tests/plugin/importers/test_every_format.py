"""What holds for all formats: there and back, told by their fields, and no row that stops an import."""

import copy
import importlib.util
import json
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhi_plugin.errors import ConfigError, RecordError
from rlhi_plugin.importers import FORMATS, read_log
from rlhi_plugin.records import Conversation

_spec = importlib.util.spec_from_file_location("writers", Path(__file__).with_name("writers.py"))
writers = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(writers)

EXAMPLES = int(os.environ.get("RLHI_EXAMPLES", "25"))
"""Spoiled rows for each format; more of them find more."""

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30).filter(str.strip)
dialogues = st.lists(st.tuples(texts, texts), min_size=1, max_size=4).map(
    lambda pairs: [turn for asked, answered in pairs for turn in (("user", asked), ("assistant", answered))]
)


def read_rows(rows, name="log.jsonl", **how):
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / name
        spelled = [json.dumps(row) for row in rows]
        file.write_text(f"[{','.join(spelled)}]" if name.endswith(".json") else "\n".join(spelled), "utf-8")
        return list(read_log(file, **how))


@pytest.mark.parametrize("name", ["log.jsonl", "log.json"])
@pytest.mark.parametrize("writer", writers.WRITERS)
@settings(max_examples=10, deadline=None)
@given(said=dialogues, system=st.none() | texts)
def test_there_and_back(writer, name, said, system):
    if system is not None and writer in writers.WITH_SYSTEM:
        said = [("system", system), *said]
    found = read_rows(writers.WRITERS[writer](said), name)
    assert [r for r in found if isinstance(r, RecordError)] == []
    (conversation,) = (r for r in found if isinstance(r, Conversation))
    assert [(m.role, m.content) for m in conversation.messages] == said
    assert [m.parent_id for m in conversation.messages] == [None] * len(said)
    assert conversation.source == writer.partition("_")[0]


HELLO = [("user", "hi"), ("assistant", "hello"), ("user", "bye"), ("assistant", "so long")]


@pytest.mark.parametrize("writer", writers.WRITERS)
def test_a_format_can_be_named(writer):
    name = writer.partition("_")[0]
    rows = writers.WRITERS[writer](HELLO)
    assert read_rows(rows, log_format=name) == read_rows(rows)


@pytest.mark.parametrize("writer", writers.WRITERS)
def test_only_one_format_recognises_a_row(writer):
    for row in writers.WRITERS[writer](HELLO):
        first = next(known for known in FORMATS if known.recognises(row))
        assert first.name == writer.partition("_")[0]


def test_an_unknown_format_is_the_callers_mistake(tmp_path):
    with pytest.raises(ConfigError, match="Known formats: rlhi, wildchat, chatgpt"):
        read_log(tmp_path, "whatsapp")


def test_an_unknown_row_lists_what_is_known():
    (error,) = read_rows([{"question": "?"}])
    assert "Its fields: question" in str(error)
    assert all(known.name in str(error) for known in FORMATS)


def test_formats_may_be_mixed_in_one_file():
    rows = [row for writer in writers.WRITERS.values() for row in writer(HELLO)]
    found = [r for r in read_rows(rows) if isinstance(r, Conversation)]
    assert {c.source for c in found} == {known.name for known in FORMATS}
    assert all([m.content for m in c.messages][-1] == "so long" for c in found)


def test_users_are_pseudonyms_of_their_source():
    named = [writer for name, writer in writers.WRITERS.items() if name != "langfuse_generations"]
    found = {c.source: c.user_id for writer in named for c in read_rows(writer(HELLO)) if hasattr(c, "source")}
    anonymous = {"rlhi", "sharegpt", "chatgpt", "lmsys"}
    assert {source for source, user in found.items() if user is None} == anonymous
    # One name, u1, in four logs is four users.
    assert len({found[s] for s in ("openai", "openassistant", "langsmith", "langfuse")}) == 4


JUNK = [
    None,
    "",
    "x",
    "{",
    "[]",
    "\x00",
    -1,
    2.5,
    10**30,
    float("nan"),
    True,
    [],
    [None],
    [[]],
    {},
    {"a": 1},
    ["a", "b"],
]


def places(value, path=()):
    """Every place in a row, the row itself excepted."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from places(inner, (*path, key))


ROWS = {name: writer(HELLO) for name, writer in writers.WRITERS.items()}
ROWS |= {f"{name}, rich": rows for name, rows in writers.rich().items()}


@pytest.mark.parametrize("rows", ROWS.values(), ids=list(ROWS))
@settings(max_examples=EXAMPLES, deadline=None)
@given(data=st.data())
def test_no_row_stops_an_import(rows, data):
    rows = copy.deepcopy(rows)
    for _ in range(data.draw(st.integers(1, 3))):
        row = rows[data.draw(st.integers(0, len(rows) - 1))]
        where = list(places(row))
        if not where:
            continue
        *path, last = data.draw(st.sampled_from(where))
        holder = row
        for key in path:
            holder = holder[key]
        junk = copy.deepcopy(data.draw(st.sampled_from([*JUNK, "drop"])))
        if junk == "drop" and isinstance(holder, dict):
            del holder[last]
        else:
            holder[last] = junk
    good = writers.wildchat([("user", "still"), ("assistant", "here")])
    found = read_rows([*rows, *good], log_format=None)
    assert any(isinstance(r, Conversation) and r.messages and r.messages[0].content == "still" for r in found)
    # Nothing goes without a word: what gives no record gives an error.
    assert len(found) > 1
