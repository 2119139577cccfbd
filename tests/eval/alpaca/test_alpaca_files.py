"""Files in AlpacaEval's formats: read whole, or refused with what is wrong."""

import csv
import gzip
import json

import pytest

from rlhi_eval_harness.alpaca.files import (
    read_annotation_tables,
    read_annotations,
    read_difficulties,
    read_instructions,
    read_outputs,
)
from rlhi_plugin.errors import ConfigError, RecordError


def _outputs(small_set, **changes):
    rows = [{"instruction": each.text, "output": f"answer {each.index}", "generator": "m"} for each in small_set]
    return rows if not changes else [{**row, **changes} for row in rows]


def _write(path, rows):
    path.write_text(json.dumps(rows), "utf-8")
    return path


def test_a_set_is_read_from_json_and_from_json_lines(tmp_path):
    rows = [{"instruction": f"Do {i}.", "output_gpt4_1106_preview": f"Done {i}", "dataset": "d"} for i in range(3)]
    lines = tmp_path / "set.jsonl"
    lines.write_text("\n".join(json.dumps(row) for row in rows), "utf-8")
    found = read_instructions(lines)
    assert found == read_instructions(_write(tmp_path / "set.json", rows))
    assert [(each.index, each.baseline_output) for each in found] == [(0, "Done 0"), (1, "Done 1"), (2, "Done 2")]


def test_outputs_are_matched_by_instruction_in_any_order(tmp_path, small_set):
    found = read_outputs(_write(tmp_path / "o.json", _outputs(small_set)[::-1]), small_set)
    assert found == {i: f"answer {i}" for i in range(8)}


def test_missing_and_unknown_outputs_are_counted_and_shown(tmp_path, small_set):
    rows = [*_outputs(small_set)[:-2], {"instruction": "What else?", "output": "x"}]
    with pytest.raises(ConfigError, match=r"2 of 8 instructions have no output .*thing 6.*1 outputs belong to no"):
        read_outputs(_write(tmp_path / "o.json", rows), small_set)


def test_doubled_outputs_are_refused(tmp_path, small_set):
    rows = [*_outputs(small_set), _outputs(small_set)[0]]
    with pytest.raises(ConfigError, match="1 instructions occur twice"):
        read_outputs(_write(tmp_path / "o.json", rows), small_set)


def test_an_output_that_is_no_text_is_named_by_its_record(tmp_path, small_set):
    with pytest.raises(RecordError, match=r"o\.json: record 1: .*no text"):
        read_outputs(_write(tmp_path / "o.json", _outputs(small_set, output=None)), small_set)


def test_annotations_without_a_preference_are_unscored_with_a_reason(tmp_path, small_set):
    preferences = [1.0, 2.0, 0, None, float("nan"), "m", 7]
    rows = [
        {"instruction": each.text, "output_1": "ab", "output_2": "abc", "generator_2": "m", "preference": preference}
        for each, preference in zip(small_set, preferences, strict=False)
    ]
    found = read_annotations(_write(tmp_path / "a.json", rows), small_set)
    assert [each.preference for each in found] == [1.0, 2.0, 1.5, None, None, None, None, None]
    reasons = [each.unscored for each in found[3:]]
    assert reasons[0] == reasons[1] == "no verdict could be read from the judge's answer"
    assert "no number" in reasons[2]
    assert "outside 1 to 2" in reasons[3]
    assert reasons[4] == "no annotation of this instruction"
    assert (found[0].baseline_length, found[0].model_length, found[7].present) == (2, 3, False)


def test_a_table_of_several_models_wants_one_named(tmp_path, small_set):
    path = tmp_path / "a.csv.gz"
    with gzip.open(path, "wt") as file:
        rows = csv.writer(file)
        rows.writerow(["model", "index", "len_output_1", "len_output_2", "preference"])
        rows.writerows([["x", 0, 10, 20, 1.25], ["y", 0, 10, 30, ""]])
    assert set(read_annotation_tables(path, small_set)) == {"x", "y"}
    assert read_annotations(path, small_set, model="x")[0].preference == 1.25
    with pytest.raises(ConfigError, match="x, y"):
        read_annotations(path, small_set)


def test_doubled_and_unknown_annotations_are_refused(tmp_path, small_set):
    row = {"instruction": small_set[0].text, "preference": 1.0, "output_1": "a", "output_2": "b"}
    with pytest.raises(RecordError, match="annotated twice"):
        read_annotations(_write(tmp_path / "a.json", [row, row]), small_set)
    with pytest.raises(RecordError, match="no instruction of the set"):
        read_annotations(_write(tmp_path / "b.json", [{**row, "instruction": "What?"}]), small_set)


def test_what_is_absent_is_named_with_where_it_is_published(tmp_path, small_set):
    for read in (read_instructions, read_difficulties, lambda path: read_annotations(path, small_set)):
        with pytest.raises(ConfigError, match=r"nowhere.*tatsu-lab/alpaca_eval"):
            read(tmp_path / "nowhere.csv")
    other = tmp_path / "other.csv"
    other.write_text("a,b\nx,y\n")
    with pytest.raises(ConfigError, match="no table of index and difficulty"):
        read_difficulties(other)
