"""Digests pin bytes; the cached one of a model folder notices every change it can see."""

import hashlib
import os
from pathlib import Path

import pytest

from rlhi_adapters.digests import adapter_digests, sha256_file, weights_digest
from rlhi_plugin.errors import ArtefactError


def test_a_files_digest_is_sha256_of_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    assert sha256_file(tmp_path / "x") == hashlib.sha256(b"abc").hexdigest()
    with pytest.raises(ArtefactError, match="cannot read"):
        sha256_file(tmp_path / "y")


def test_the_digest_of_a_model_covers_names_and_bytes_of_every_shard(tmp_path: Path) -> None:
    (tmp_path / "model-1.safetensors").write_bytes(b"one")
    (tmp_path / "model-2.safetensors").write_bytes(b"two")
    first = weights_digest(tmp_path)
    assert weights_digest(tmp_path) == first
    (tmp_path / "config.json").write_text("{}", "utf-8")
    assert weights_digest(tmp_path) == first
    (tmp_path / "model-2.safetensors").write_bytes(b"three")
    second = weights_digest(tmp_path)
    (tmp_path / "model-2.safetensors").rename(tmp_path / "model-3.safetensors")
    assert len({first, second, weights_digest(tmp_path)}) == 3


def test_a_damaged_digest_cache_is_computed_again(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"one")
    first = weights_digest(tmp_path)
    (tmp_path / ".rlhi-digest.json").write_text("[", "utf-8")
    assert weights_digest(tmp_path) == first


def test_the_cache_is_used_while_size_and_time_stay(tmp_path: Path) -> None:
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"one")
    first = weights_digest(tmp_path)
    time_ns = weights.stat().st_mtime_ns
    weights.write_bytes(b"two")
    os.utime(weights, ns=(time_ns, time_ns))
    assert weights_digest(tmp_path) == first
    os.utime(weights, ns=(time_ns, time_ns + 1_000_000))
    assert weights_digest(tmp_path) != first


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ArtefactError, match="safetensors"):
        weights_digest(tmp_path)
    with pytest.raises(ArtefactError, match="adapter_model"):
        adapter_digests(tmp_path)
