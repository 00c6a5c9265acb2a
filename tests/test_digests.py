from __future__ import annotations

import os
from pathlib import Path

import pytest

from giblet_hpc import digests as digests_module
from giblet_hpc.digests import Digests, cached_model
from giblet_hpc.errors import DataError
from giblet_hpc.store import FeatureStore


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return FeatureStore(tmp_path / "store.zarr")


@pytest.fixture
def digests(store: FeatureStore) -> Digests:
    return Digests(store)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "codec"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def exchange(file: Path, content: bytes) -> None:
    """Put other bytes of the same size into a file, and set its time back."""
    status = file.stat()
    assert len(content) == status.st_size
    file.write_bytes(content)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_exchanged_weights_are_refused(store: FeatureStore, model: Path) -> None:
    """Also those of the same size and time, and those that a link leads to."""
    digest = Digests(store).weights(str(model))
    assert Digests(store).weights(str(model), expected=digest) == digest
    exchange(model / "model.safetensors", b"WEIGHTS")
    with pytest.raises(DataError, match=f"others than weights_sha256 names: .*, not {digest}"):
        Digests(store).weights(str(model), expected=digest)
    other = model.with_name("other.safetensors")
    (model / "model.safetensors").rename(other)
    (model / "model.safetensors").symlink_to(other)
    with pytest.raises(DataError, match="others than weights_sha256 names"):
        Digests(store).weights(str(model), expected=digest)
    other.write_bytes(b"weights")
    assert Digests(store).weights(str(model), expected=digest) == digest


def test_pinned_weights_are_read_once(
    digests: Digests, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each run's array asks for them, and they may be gigabytes."""
    digest = digests.weights(str(model))
    read: list[Path] = []
    original = digests_module.sha256_file
    monkeypatch.setattr(
        digests_module, "sha256_file", lambda path: read.append(path) or original(path)
    )
    for _ in range(3):
        assert digests.weights(str(model), expected=digest) == digest
    assert len(read) == 2


def test_what_is_no_part_of_the_model_does_not_count(digests: Digests, model: Path) -> None:
    digest = digests.weights(str(model))
    (model / "README.md").write_text("# About")
    (model / ".cache").mkdir()
    (model / ".cache" / "model.lock").write_text("")
    assert digests.weights(str(model)) == digest
    (model / "tokenizer.json").write_text("{}")
    assert digests.weights(str(model)) != digest


def test_a_name_stands_for_what_the_cache_holds(
    digests: Digests, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    cache = tmp_path / "hub" / "models--lab--codec"
    (cache / "snapshots").mkdir(parents=True)
    model.rename(cache / "snapshots" / commit)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub._snapshot_download.constants.HF_HUB_CACHE",
                        str(tmp_path / "hub"))  # fmt: skip
    assert cached_model("lab/codec") == cache / "snapshots" / commit
    first = digests.weights("lab/codec")
    (cache / "snapshots" / commit / "model.safetensors").write_bytes(b"others")
    assert digests.weights("lab/codec") != first
    with pytest.raises(DataError, match="weights not found on this machine: lab/none"):
        digests.weights("lab/none")
