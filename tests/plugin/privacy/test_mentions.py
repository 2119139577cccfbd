"""A mark is found wherever in a file it stands."""

import pytest

from rlhi_plugin.privacy import mentions as module
from rlhi_plugin.privacy.mentions import mentions


@pytest.mark.parametrize("place", range(12))
def test_a_mark_is_found_across_the_border_of_what_is_read_at_once(tmp_path, monkeypatch, place):
    monkeypatch.setattr(module, "_CHUNK", 4)
    file = tmp_path / "log.jsonl"
    file.write_bytes(b"." * place + b"mark" + b"." * (12 - place))
    assert mentions(file, b"mark")
    file.write_bytes(b"." * place + b"mar" + b"." * 5 + b"k")
    assert not mentions(file, b"mark")


def test_an_empty_file_holds_nothing(tmp_path):
    (tmp_path / "log.jsonl").touch()
    assert not mentions(tmp_path / "log.jsonl", b"mark")
