from __future__ import annotations

import os
import resource
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
import torch

from giblet_hpc.errors import DataError
from giblet_hpc.runs import checkpoints
from giblet_hpc.training import checkpoint
from giblet_hpc.training.pieces import Piece, whole
from giblet_hpc.training.world import World

ALONE = World(0, 0, 1, torch.device("cpu"))


def save(folder: Path, step: int, *, best: bool = False, count: int = 3) -> Path:
    writer = checkpoint.Writer(folder, ALONE, keep_last=2)
    pieces = whole({"model/w": torch.full((count,), float(step))})
    writer.save(pieces, {"step": step}, best=best)
    writer.wait()
    return folder / checkpoints.name_of(step)


def test_last_and_best_checkpoints_are_kept(tmp_path: Path) -> None:
    for step in range(1, 7):
        save(tmp_path, step, best=step == 2)
    kept = sorted(path.name for path in tmp_path.glob("step-*"))
    assert kept == ["step-00000002", "step-00000005", "step-00000006"]
    source, manifest = checkpoint.load(checkpoints.valid_best(tmp_path))
    assert manifest["step"] == 2
    assert source.read("model/w").tolist() == [2, 2, 2]
    assert not list(tmp_path.glob(".tmp-*"))


@pytest.mark.parametrize("damage", ["flip", "truncate", "no manifest", "half manifest"])
def test_damaged_checkpoints_are_passed_over(tmp_path: Path, damage: str) -> None:
    good, bad = save(tmp_path, 1), save(tmp_path, 2)
    state = bad / "rank-00000.safetensors"
    content = bytearray(state.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
        state.write_bytes(content)
    elif damage == "truncate":
        state.write_bytes(content[:-9])
    elif damage == "no manifest":
        (bad / checkpoints.MANIFEST).unlink()
    else:
        (bad / checkpoints.MANIFEST).write_text('{"step": 2, "fi')
    assert checkpoints.newest(tmp_path) == good
    save(tmp_path, 2)
    assert checkpoints.newest(tmp_path) == bad


def test_a_full_disk_leaves_earlier_checkpoints(tmp_path: Path) -> None:
    """With a real limit on the size of files, as a quota sets it."""
    good = save(tmp_path, 1, best=True)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            save(tmp_path, 2, best=True, count=10**6)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert checkpoints.newest(tmp_path) == checkpoints.valid_best(tmp_path) == good
    assert not list(tmp_path.glob(".tmp-*"))


def test_checkpoints_of_other_data_are_refused() -> None:
    checkpoint.require_data({"data": "a", "step": 3}, "a")
    with pytest.raises(DataError, match="step 3 was trained on other data"):
        checkpoint.require_data({"data": "a", "step": 3}, "b")


def test_no_best_checkpoint_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no best checkpoint"):
        checkpoints.valid_best(tmp_path)


def test_a_resume_in_another_image_or_with_other_ranks_warns(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIBLET_IMAGE", "sha256:one")
    before = checkpoint.maker(8, "ddp")
    checkpoint.compare_makers(before, checkpoint.maker(8, "ddp"))
    assert not caplog.records
    monkeypatch.setenv("GIBLET_IMAGE", "sha256:two")
    checkpoint.compare_makers(before, checkpoint.maker(4, "ddp"))
    said = [record.getMessage() for record in caplog.records]
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert "made with ranks 8, this is 4" in said[0]
    assert "made with image sha256:one, this is sha256:two" in said[1]


def test_training_goes_on_while_a_checkpoint_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is changed meanwhile is not in it; the next one waits for it."""
    go = threading.Event()
    write = checkpoint.write_pieces

    def slowly(path: Path, pieces: Sequence[Piece]) -> tuple[int, str]:
        assert go.wait(30)
        return write(path, pieces)

    monkeypatch.setattr(checkpoint, "write_pieces", slowly)
    writer = checkpoint.Writer(tmp_path, ALONE, keep_last=2)
    values = torch.ones(3)
    writer.save(whole({"model/w": values}), {"step": 1}, best=False)
    values += 1
    assert checkpoints.newest(tmp_path) is None
    go.set()
    writer.save(whole({"model/w": values}), {"step": 2}, best=False)
    writer.wait()
    found = [checkpoint.tensors_of(path)["model/w"][0] for path in checkpoints.committed(tmp_path)]
    assert found == [1, 2]


def test_an_error_is_raised_where_training_waits_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "write_pieces", full)
    writer = checkpoint.Writer(tmp_path, ALONE, keep_last=2)
    writer.save(whole({"model/w": torch.ones(3)}), {"step": 1}, best=False)
    with pytest.raises(OSError, match="No space left"):
        writer.save(whole({"model/w": torch.ones(3)}), {"step": 2}, best=False)
    assert list(tmp_path.iterdir()) == []
    writer.wait()


KILLS, STEPS = 30, 10_000


def test_killed_at_any_point_of_a_save_the_last_good_one_is_used(tmp_path: Path) -> None:
    """A process that does nothing but save is killed at random moments, and goes on each time."""
    random = np.random.default_rng(0)
    reached, saves = 0, 0
    for _ in range(KILLS):
        child = os.fork()
        if child == 0:
            save_without_end(tmp_path)
        time.sleep(float(random.uniform(0.05, 0.25)))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        newest = checkpoints.newest(tmp_path)
        if newest is None:
            continue
        step = checkpoints.step_of(newest)
        assert step >= reached
        saves, reached = saves + (step > reached), step
        assert all((v == step).all() for v in checkpoint.tensors_of(newest).values())
        assert all(checkpoints.is_valid(path) for path in checkpoints.committed(tmp_path))
    assert saves > KILLS / 2
    save(tmp_path, reached + 1)
    assert not list(tmp_path.glob(".tmp-*"))


def save_without_end(folder: Path) -> NoReturn:
    """Save from the newest step on, in a process that is killed."""
    try:
        newest = checkpoints.newest(folder)
        first = 1 if newest is None else checkpoints.step_of(newest) + 1
        writer = checkpoint.Writer(folder, ALONE, keep_last=2)
        for step in range(first, STEPS):
            values = {f"model/{n}": torch.full((50_000,), step) for n in range(20)}
            writer.save(whole(values), {"step": step}, best=step % 3 == 0)
    finally:
        os._exit(1)


def test_a_rank_whose_file_is_gone(tmp_path: Path) -> None:
    good, bad = save(tmp_path, 1), save(tmp_path, 2)
    (bad / "rank-00000.safetensors").unlink()
    assert checkpoints.newest(tmp_path) == good
