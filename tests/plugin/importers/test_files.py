"""Kinds of files, and files that are damaged, strange or large."""

import csv
import gzip
import io
import json
import os
import tracemalloc
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhi_plugin.errors import ConfigError, MissingExtraError
from rlhi_plugin.importers import files, json_values, read_log
from rlhi_plugin.importers.json_values import UnfinishedError
from rlhi_plugin.importers.json_values import json_values as values_of
from rlhi_plugin.privacy.exclusions import read_exclusions
from rlhi_plugin.privacy.tombstones import read_tombstones

pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install 'rlhi[parquet]'")
pq = pytest.importorskip("pyarrow.parquet")


def own(name, text="hi"):
    return {"conversation_id": name, "messages": [{"id": "1", "role": "user", "content": text}]}


def names(found):
    return [c.conversation_id for c in found.conversations]


json_things = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@settings(max_examples=200, deadline=None)
@given(
    things=st.lists(json_things, max_size=6),
    indent=st.none() | st.just(2),
    chunk=st.integers(1, 50),
    ascii_=st.booleans(),
)
def test_json_arrays_are_split_where_a_parser_would(things, indent, chunk, ascii_):
    text = json.dumps(things, indent=indent, ensure_ascii=ascii_).encode("utf-8", "surrogatepass")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_values, "_CHUNK", chunk)
        assert [json.loads(value) for value in values_of(io.BytesIO(text))] == things


@settings(max_examples=100, deadline=None)
@given(
    things=st.lists(st.dictionaries(st.text(max_size=5), json_things, max_size=3), max_size=6), chunk=st.integers(1, 50)
)
def test_objects_may_follow_each_other(things, chunk):
    text = "\n".join(json.dumps(thing, indent=1) for thing in things).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_values, "_CHUNK", chunk)
        assert [json.loads(value) for value in values_of(io.BytesIO(text))] == things


@settings(max_examples=100, deadline=None)
@given(things=st.lists(json_things, min_size=1, max_size=4), cut=st.integers(1, 200))
def test_a_cut_array_gives_its_whole_values_and_an_error(things, cut):
    text = json.dumps(things).encode()[: -min(cut, len(json.dumps(things)) - 1)]
    found = []
    with pytest.raises(UnfinishedError):
        found.extend(values_of(io.BytesIO(text)))
    assert [json.loads(value) for value in found] == things[: len(found)]


@pytest.mark.parametrize("name", ["a.json", "a.json.gz", "a.jsonl", "a.jsonl.gz", "a.ndjson", "a.log"])
def test_json_in_all_its_files(tmp_path, read_file, name):
    rows = [own("one"), own("two")]
    text = json.dumps(rows) if ".json" in name and "jsonl" not in name else "\n".join(map(json.dumps, rows))
    data = b"\xef\xbb\xbf" + text.encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    found = read_file(tmp_path / name)
    assert (names(found), found.errors) == (["one", "two"], [])


@pytest.mark.parametrize("text", ["", " \n", "[]"])
def test_an_empty_file_holds_nothing(tmp_path, read_file, text):
    (tmp_path / "a.json").write_text(text)
    assert read_file(tmp_path / "a.json").all == []


def test_a_bad_value_of_an_array_is_one_bad_record(tmp_path, read_file):
    good = json.dumps(own("c"))
    bad = ['{"half": "\\ud800"}', '{"a": tru}', "3", "{'single': 1}"]
    (tmp_path / "a.json").write_text(f"[{good}, {', '.join(bad)}, {good}]")
    found = read_file(tmp_path / "a.json")
    assert len(found.conversations) == 2
    assert [error.line for error in found.errors] == [2, 3, 4, 5]
    assert found.why[0].startswith(f"{tmp_path / 'a.json'}: record 2: half a character")


def test_a_row_over_the_limit_is_passed_over(tmp_path, read_file, monkeypatch):
    for module in (files, json_values):
        monkeypatch.setattr(module, "LIMIT", 2000)
    monkeypatch.setattr(json_values, "_CHUNK", 500)
    rows = [own("one"), own("big", "x" * 10_000), own("two")]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "a.json").write_text(json.dumps(rows))
    for name in ("a.jsonl", "a.json"):
        found = read_file(tmp_path / name)
        assert names(found) == ["one", "two"]
        assert [error.line for error in found.errors] == [2]


def test_a_turn_of_a_megabyte_and_a_nul_are_text(tmp_path, read_file, read):
    text = "x" * (1 << 20) + "\x00"
    assert read(own("c", text)).one.messages[0].content == text
    row = {"request": repr([{"role": "user", "content": text}]), "response": "a\x00", "copy_events": "[]"}
    with (tmp_path / "a.csv").open("w", newline="", encoding="utf-8") as stream:
        table = csv.DictWriter(stream, [*row, "programmer_id", "timestamp"])
        table.writeheader()
        table.writerow(row | {"programmer_id": "1", "timestamp": "0.0"})
    assert [m.content for m in read_file(tmp_path / "a.csv").one.messages] == [text, "a\x00"]


def test_csv_rows_that_do_not_fit(tmp_path, read_file):
    head = b"session_id,worker_id,user_input,model_completion\n"
    good = b's,w,"two\nlines",yes\n'
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbf" + head + good + b"s,w,short\n" + b"s,w,\xff,x\n" + good)
    found = read_file(tmp_path / "a.csv")
    assert [m.content for m in found.conversations[0].messages] == ["two\nlines", "yes"] * 2
    assert [(error.line, error.unit) for error in found.errors] == [(4, "line"), (5, "line")]
    assert "3 cells, but 4 columns" in found.why[0]
    assert "not UTF-8 in the column 'user_input'" in found.why[1]


def wildchat_table(n):
    turns = [
        {"role": "user", "content": "hi", "header": {"accept-language": "fr"}, "hashed_ip": "ab"},
        {"role": "assistant", "content": "hello", "header": None, "hashed_ip": None},
    ]
    time = pa.array([1_700_000_000_000_000] * n, pa.timestamp("us", "UTC"))
    columns = {"conversation_hash": [f"h{i}" for i in range(n)], "conversation": [turns] * n, "timestamp": time}
    return pa.table(columns | {"openai_moderation": [[{"flagged": True}]] * n, "toxic": [False] * n})


def test_parquet(tmp_path, read_file):
    pq.write_table(wildchat_table(300), tmp_path / "a.parquet", row_group_size=100)
    found = read_file(tmp_path / "a.parquet")
    assert (len(found.conversations), found.errors) == (300, [])
    first = found.conversations[0]
    assert first.started_at.isoformat() == "2023-11-14T22:13:20+00:00"
    assert first.user_id.startswith("u_")
    # The same rows in JSONL are the same records.
    rows = wildchat_table(300).to_pylist()
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps(row, default=str) for row in rows))
    assert read_file(tmp_path / "a.jsonl").all == found.all


def test_truncated_parquet_is_an_error(tmp_path, read_file):
    pq.write_table(wildchat_table(300), tmp_path / "a.parquet", row_group_size=100)
    data = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(data[: len(data) // 2])
    found = read_file(tmp_path / "a.parquet")
    assert found.conversations == []
    assert "record 1: the file is damaged from here on" in found.why[0]


def test_a_damaged_page_ends_a_parquet_file_after_what_is_whole(tmp_path, read_file):
    pq.write_table(wildchat_table(300), tmp_path / "a.parquet", row_group_size=100, compression="NONE")
    column = pq.ParquetFile(tmp_path / "a.parquet").metadata.row_group(1).column(0)
    data = bytearray((tmp_path / "a.parquet").read_bytes())
    start = column.dictionary_page_offset or column.data_page_offset
    data[start : start + 40] = b"\xff" * 40
    (tmp_path / "a.parquet").write_bytes(data)
    found = read_file(tmp_path / "a.parquet")
    assert 64 <= len(found.conversations) <= 100
    assert "the file is damaged from here on" in found.why[-1]


def test_a_text_that_is_not_utf8_spoils_one_row_of_a_parquet_file(tmp_path, read_file):
    texts = pa.array([b"hi", b"\xff", b"bye"], pa.binary()).view(pa.string())
    struct = pa.StructArray.from_arrays([pa.array(["user"] * 3), texts], ["role", "content"])
    turns = pa.ListArray.from_arrays([0, 1, 2, 3], struct)
    table = pa.table({"conversation_id": ["a", "b", "c"], "conversation": turns})
    pq.write_table(table, tmp_path / "a.parquet")
    found = read_file(tmp_path / "a.parquet")
    assert names(found) == ["a", "c"]
    assert [error.line for error in found.errors] == [2]
    assert "utf-8" in found.why[0]


def test_without_pyarrow_the_extra_is_named(tmp_path, monkeypatch):
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    with pytest.raises(MissingExtraError, match=r"rlhi\[parquet\]"):
        list(read_log(tmp_path / "a.parquet"))


def test_archives_and_folders(tmp_path, read_file):
    folder = tmp_path / "logs"
    (folder / "inner").mkdir(parents=True)
    (folder / "a.jsonl").write_text(json.dumps(own("one")))
    (folder / "inner" / "b.json").write_text(json.dumps([own("two")]))
    (folder / "c.jsonl.gz").write_bytes(gzip.compress(json.dumps(own("three")).encode()))
    (folder / "LICENSE").write_text("not a log")
    pq.write_table(wildchat_table(1), folder / "d.parquet")
    with zipfile.ZipFile(tmp_path / "logs.zip", "w") as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, file.relative_to(folder))
    expected = ["one", "three", "h0", "two"]
    assert names(read_file(folder)) == names(read_file(tmp_path / "logs.zip")) == expected
    (tmp_path / "logs.zip").rename(folder / "e.zip")
    assert names(read_file(folder)) == [*expected[:-1], *expected, "two"]


def test_a_bad_member_of_an_archive_is_named(tmp_path, read_file):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.jsonl", json.dumps(own("one")) + "\n{")
        archive.writestr("b.jsonl", json.dumps(own("two")))
    data = (tmp_path / "a.zip").read_bytes()
    (tmp_path / "a.zip").write_bytes(data.replace(b'"two"', b'"2wo"'))
    found = read_file(tmp_path / "a.zip")
    assert found.why[0].startswith(f"{tmp_path / 'a.zip' / 'a.jsonl'}:2: not JSON")
    assert "Bad CRC-32" in found.why[1]
    assert "one" in names(found)


@pytest.mark.parametrize("name", ["absent.jsonl", "absent.zip", "not.zip", "empty"])
def test_what_cannot_be_opened_is_the_callers_mistake(tmp_path, name):
    (tmp_path / "empty").mkdir()
    (tmp_path / "not.zip").write_text("text")
    with pytest.raises(ConfigError, match=r"Give the path|Fetch the archive|Put .jsonl"):
        read_log(tmp_path / name)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_the_callers_mistake(tmp_path):
    (tmp_path / "a.jsonl").touch(mode=0)
    with pytest.raises(ConfigError, match="Permission denied"):
        read_log(tmp_path / "a.jsonl")


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv"])
@settings(max_examples=40, deadline=None)
@given(data=st.binary(max_size=300))
def test_any_bytes_are_read_without_an_exception(tmp_path_factory, name, data):
    file = tmp_path_factory.mktemp("bytes") / name
    file.write_bytes(data)
    list(read_log(file))


def peak(file):
    tracemalloc.start()
    count = sum(1 for _ in read_log(file))
    memory = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return count, memory


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.parquet", "a.zip", "b.jsonl"])
def test_memory_does_not_grow_with_the_file(tmp_path, name):
    peaks = []
    for n in (2_000, 6_000):
        rows = [own(f"c{i}", "x" * 1500) for i in range(n)]
        if name.startswith("b"):
            # Rows that are gathered: every conversation is spread over the whole file.
            asked = [{"role": "user", "content": "x" * 1500}]
            rows = [{"messages": asked, "metadata": {"thread_id": f"t{i % (n // 2)}"}} for i in range(n)]
        file = tmp_path / name
        if name == "a.csv":
            lines = [json.dumps(row).replace('"', '""') for row in rows]
            file.write_text("conversation_id,messages\n" + "\n".join(f'c{i},"{line}"' for i, line in enumerate(lines)))
        elif name == "a.parquet":
            pq.write_table(wildchat_table(n), file, row_group_size=1000)
        elif name == "a.zip":
            with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr("a.json", json.dumps(rows))
        else:
            file.write_text(json.dumps(rows) if name == "a.json" else "\n".join(map(json.dumps, rows)))
        count, memory = peak(file)
        assert count == (n // 2 if name.startswith("b") else n)
        peaks.append(memory)
    assert peaks[1] < 1.5 * peaks[0]


PIECES = st.sampled_from(
    [
        *(b"{", b"}", b"[", b"]", b",", b":", b'"', b'"a"', b'"\\ud83c\\udf31"', b'"\\ud83c"', b"1e400", b"-0", b"NaN"),
        *(b"-Infinity", b"\xff", "ü".encode(), b"1", b"01", b"0.1", b"\n", b"\x00", b"null", b"true", b"9" * 30),
        *(b"[" * 300, b"]" * 300),
    ]
)


def read_by_the_standard_library(text):
    try:
        value = json.loads(text.decode())
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return "refused"
    return repr(value)


@settings(max_examples=500, deadline=None)
@given(st.lists(PIECES, max_size=8).map(b"".join) | json_things.map(lambda value: json.dumps(value).encode()))
def test_a_line_means_what_the_standard_library_says(text):
    found = files.parsed(text)
    assert ("refused" if isinstance(found, ValueError) else repr(found)) == read_by_the_standard_library(text)


def test_a_bad_value_over_several_lines_names_its_own_line(tmp_path, read_file):
    (tmp_path / "log.json").write_text('[{"a": 1,\n "b": tru\n}]')
    assert "record 1: not JSON: Expecting value at column 7 of its line 2" in read_file(tmp_path / "log.json").why[0]


@pytest.mark.parametrize("name", ["log", "log.jsonl"])
def test_a_folder_may_be_called_as_a_file_is(tmp_path, read_file, name):
    folder = tmp_path / name
    folder.mkdir()
    (folder / "a.jsonl").write_text(json.dumps(own("one")) + "\n")
    assert names(read_file(folder)) == ["one"]
    assert read_tombstones(folder) == []
    assert not read_exclusions(folder)
