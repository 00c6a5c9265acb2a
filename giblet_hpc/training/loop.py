"""The training loop of one fold.

Order = f(seed, epoch), learning rate = f(step), dropout = f(seed, step, rank), and the position
in the data follows from the step: a checkpoint needs no more than weights, optimizer and step.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from giblet_hpc.beacon import Beacon
from giblet_hpc.config import RunConfig
from giblet_hpc.errors import ConfigError, JobError
from giblet_hpc.models.shapes import Batch, Output, Shapes
from giblet_hpc.runs import Heartbeat, RunPaths
from giblet_hpc.splits import Fold
from giblet_hpc.training import checkpoint
from giblet_hpc.training.build import build_model, context_trs, uses_bf16
from giblet_hpc.training.data import (
    StudyArrays,
    Window,
    WindowReader,
    covering_windows,
    epoch_windows,
)
from giblet_hpc.training.fitted import Fitted, shapes_of
from giblet_hpc.training.losses import Losses, gradient_norms
from giblet_hpc.training.parallel import World
from giblet_hpc.training.record import Pace, Recorder
from giblet_hpc.training.schedule import learning_rate, mixed_seed
from giblet_hpc.training.sums import VoxelSums

logger = logging.getLogger(__name__)
MAX_BAD_STEPS = 10
LOW_FMRI_SHARE = 0.2


class Trainer:
    """Trains one fold, from the start or from its newest checkpoint.

    Parameters
    ----------
    config : RunConfig
    paths : RunPaths
    fold : Fold
    study : StudyArrays
    fitted : Fitted
        Estimates from the fold's training TRs.
    world : World
    should_stop : callable
        Asked after each step; any rank's yes stops all at that step.
    """

    def __init__(
        self,
        config: RunConfig,
        paths: RunPaths,
        fold: Fold,
        *,
        study: StudyArrays,
        fitted: Fitted,
        world: World,
        should_stop: Callable[[], bool],
    ) -> None:
        self.config, self.paths, self.fold, self.world = config, paths, fold, world
        self._should_stop = should_stop
        self._study = study
        self.shapes: Shapes = shapes_of(config, study, fitted)
        self.losses = Losses(config.loss, self.shapes, fitted)
        self._fitted = fitted
        self.reader = WindowReader(
            study,
            trs=config.train.window_trs,
            context=context_trs(config),
            text=fitted.text_features(study),
            device=world.device,
        )
        self.model = build_model(config, self.shapes, fitted).to(world.device)
        if config.model.kind == "dense" and world.size > 1 and world.device.type == "cuda":
            self.model = nn.SyncBatchNorm.convert_sync_batchnorm(  # type: ignore[no-untyped-call]
                self.model
            )
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=config.train.lr,
            weight_decay=config.train.weight_decay,
            fused=world.device.type == "cuda",
        )
        self._wrapped = self._over_ranks(self.model)
        self._autocast = uses_bf16(config, world.device)
        self.step = 0
        self.finished = False
        self._best = float("inf")
        self._best_step: int | None = None
        self._stale_validations = 0
        self._bad_steps = 0
        self._folder = paths.checkpoints(fold.name)
        self._heartbeat = Heartbeat(paths, "train")
        self._beacon = Beacon(world.rank)
        self.data = paths.data_digest()
        self._pace = Pace()
        self.steps_per_epoch = self._count_steps()

    def _over_ranks(self, model: nn.Module) -> nn.Module:
        """Return the model with gradients summed over all ranks."""
        if self.world.size == 1:
            return model
        # DDP otherwise regroups its buckets after the first step, so that a resumed run would sum
        # gradients in another order than an undisturbed one.
        return DistributedDataParallel(
            model, gradient_as_bucket_view=True, find_unused_parameters=True
        )

    def _count_steps(self) -> int:
        options = self.config.train
        if options.batch_windows % (self.world.size * options.accumulation):
            raise ConfigError(
                f"train.batch_windows ({options.batch_windows}) must be a multiple of ranks x "
                f"accumulation ({self.world.size} x {options.accumulation})"
            )
        windows = len(epoch_windows(self.fold.train, options.window_trs, seed=0, epoch=0))
        if windows < options.batch_windows:
            raise ConfigError(
                f"the training TRs hold {windows} windows of {options.window_trs} TRs; a batch "
                f"needs {options.batch_windows}",
                hint="lower train.batch_windows or train.window_trs",
            )
        return windows // options.batch_windows

    def run(self) -> bool:
        """Train until the last epoch, until validation stops improving, or until told to stop.

        Returns
        -------
        bool
            Whether the fold is finished.
        """
        self._resume()
        if self.world.is_main:
            self.paths.update_state("train", resumed_from=self.step, step=self.step, phase="ready")
        recorder = None
        if self.world.is_main and not self.finished:
            events = self.paths.tensorboard / self.fold.name
            recorder = Recorder(self.paths.metrics(self.fold.name), events, from_step=self.step)
        try:
            self._loop(recorder)
        finally:
            if recorder:
                recorder.close()
        if self.world.is_main:
            self.paths.update_state("train", step=self.step)
        return self.finished

    def _loop(self, recorder: Recorder | None) -> None:
        options = self.config.train
        total = options.epochs * self.steps_per_epoch
        while not self.finished:
            figures = self._train_step()
            self.step += 1
            self.finished = self.step >= total
            improved = self._validate_if_due(recorder)
            if recorder and self.step % options.log_every == 0:
                recorder.add("train", self.step, self._epoch, figures)
            self._heartbeat_if_main(total)
            self._beacon.show(self.step, "agree")
            stop = self.world.any(self._should_stop())
            due = self.step % options.checkpoint_every == 0
            if due or improved or stop or self.finished:
                self._save(best=improved)
            if stop:
                return

    @property
    def _epoch(self) -> float:
        return self.step / self.steps_per_epoch

    def _heartbeat_if_main(self, total: int) -> None:
        if self.world.is_main:
            self._heartbeat.beat(
                phase=f"training {self.fold.name}".strip(),
                step=self.step,
                total_steps=total,
                epoch=round(self._epoch, 2),
                **self._pace.figures(),
            )

    def _windows_of_step(self) -> list[Window]:
        options = self.config.train
        epoch, index = divmod(self.step, self.steps_per_epoch)
        windows = epoch_windows(self.fold.train, options.window_trs, seed=options.seed, epoch=epoch)
        batch = windows[index * options.batch_windows : (index + 1) * options.batch_windows]
        return batch[self.world.rank :: self.world.size]

    def _train_step(self) -> dict[str, float]:
        options = self.config.train
        started = time.perf_counter()
        self._beacon.show(self.step, "begin")
        rate = learning_rate(self.step, options=options, steps_per_epoch=self.steps_per_epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        torch.manual_seed(mixed_seed(options.seed, self.step, self.world.rank))
        self._wrapped.train()
        logged = (self.step + 1) % options.log_every == 0
        mine = self._windows_of_step()
        size = len(mine) // options.accumulation
        figures: dict[str, float] = {}
        for part in range(options.accumulation):
            last = part == options.accumulation - 1
            batch = self.reader(mine[part * size : (part + 1) * size])
            figures = self._backward(batch, sync=last, logged=logged and last)
        norm = float(nn.utils.clip_grad_norm_(self.model.parameters(), options.clip))
        self._apply(norm)
        seconds = time.perf_counter() - started
        self._pace.step(seconds)
        trs = options.batch_windows * options.window_trs
        return {**figures, "lr": rate, "gradient_norm": norm, "trs_per_second": trs / seconds}

    def _backward(self, batch: Batch, *, sync: bool, logged: bool) -> dict[str, float]:
        options = self.config.train
        hold: contextlib.AbstractContextManager[object] = contextlib.nullcontext()
        if not sync and isinstance(self._wrapped, DistributedDataParallel):
            hold = self._wrapped.no_sync()
        with hold:
            frames = self.audio_frames(self.step)
            output = self._forward(batch, frames)
            parts = self.losses.components(output, batch, frames)
            loss = torch.stack(list(parts.values())).sum() / options.accumulation
            shares = self._gradient_shares(parts) if logged else {}
            self._beacon.show(self.step, "backward")
            loss.backward()  # type: ignore[no-untyped-call]
        if not logged:
            return {}
        values = {f"loss/{name}": float(part.detach()) for name, part in parts.items()}
        return {"loss": sum(values.values()), **values, **shares}

    def _forward(self, batch: Batch, frames: torch.Tensor) -> Output:
        with torch.autocast(self.world.device.type, torch.bfloat16, enabled=self._autocast):
            output: Output = self._wrapped(batch, frames)
        return output

    def _apply(self, norm: float) -> None:
        """Step the optimizer; a step with a gradient that is not finite is skipped by all ranks.

        The norm is that of the averaged gradient, so every rank sees the same.
        """
        if norm == norm and norm != float("inf"):
            self.optimizer.step()
            self._bad_steps = 0
        else:
            self._bad_steps += 1
            logger.warning("step %d: the gradient is not finite; skipped", self.step)
            if self._bad_steps >= MAX_BAD_STEPS:
                raise JobError(
                    f"{MAX_BAD_STEPS} steps in a row had gradients that are not finite",
                    hint="lower train.lr, or set train.precision to fp32",
                )
        self.optimizer.zero_grad(set_to_none=True)

    def _gradient_shares(self, parts: dict[str, torch.Tensor]) -> dict[str, float]:
        """Return each component's share of the gradient norm at the bottleneck."""
        # DDP hands out copies of a model's outputs, which nothing else is computed from.
        bottleneck = self.model.seen_bottleneck
        assert isinstance(bottleneck, torch.Tensor)
        norms, shares = gradient_norms(parts, bottleneck)
        if shares["fmri"] < LOW_FMRI_SHARE and self.step < self.steps_per_epoch:
            logger.warning(
                "the scans make up %.0f %% of the gradient at the bottleneck; consider a lower "
                "loss.reconstruction_weight",
                100 * shares["fmri"],
            )
        named = {f"gradient/{name}": value for name, value in norms.items()}
        return named | {f"gradient_share/{name}": value for name, value in shares.items()}

    def predict(self, batch: Batch) -> Output:
        """Run the model as validation does."""
        with torch.autocast(self.world.device.type, torch.bfloat16, enabled=self._autocast):
            output: Output = self.model(batch, self.audio_frames(None))
        return output

    def usual_codes(self) -> torch.Tensor:
        """Return each codebook's most frequent code in training, (Q,): the unigram guess."""
        return torch.from_numpy(self._fitted.values["audio_log_probability"].argmax(axis=1))

    def audio_frames(self, step: int | None) -> torch.Tensor:
        """Frames at which codes are reconstructed: drawn by step, or evenly spaced (None)."""
        if not self.shapes.audio or not self.shapes.codes:
            return torch.zeros(0, dtype=torch.int64)
        total = self.shapes.audio[1]
        count = min(self.config.loss.audio_frames, total)
        if step is None:
            return torch.linspace(0, total - 1, count).long().to(self.world.device)
        generator = torch.Generator().manual_seed(mixed_seed(self.config.train.seed, step, 2**20))
        return torch.randperm(total, generator=generator)[:count].to(self.world.device)

    def _validate_if_due(self, recorder: Recorder | None) -> bool:
        """Validate at the ends of epochs; return whether the scans' error is the lowest so far."""
        options = self.config.train
        epoch, rest = divmod(self.step, self.steps_per_epoch)
        if rest or (epoch % options.validate_every and not self.finished):
            return False
        if not self.fold.validation:
            # With nothing to choose by, the last weights are the ones to keep.
            self._best_step = self.step if self.finished else None
            return self.finished
        figures = self.validate()
        if recorder:
            recorder.add("validation", self.step, self._epoch, figures)
        improved = figures["fmri_error"] < self._best
        if improved:
            self._best, self._best_step = figures["fmri_error"], self.step
        self._stale_validations = 0 if improved else self._stale_validations + 1
        if options.patience and self._stale_validations >= options.patience:
            self.finished = True
        return improved

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Score the validation TRs exactly; every rank gets the same figures."""
        self.model.eval()
        options = self.config.train
        windows = covering_windows(self.fold.validation, options.window_trs)
        mine = windows[self.world.rank :: self.world.size]
        sums = VoxelSums(
            list(self._study.runs),
            subjects=self.shapes.subjects,
            voxels=self.shapes.voxels,
            device=self.world.device,
        )
        names = ["fmri", *self.shapes.modalities]
        totals = torch.zeros(len(names) + 1, dtype=torch.float64, device=self.world.device)
        frames = self.audio_frames(None)
        size = max(1, options.batch_windows // self.world.size)
        for start in range(0, len(mine), size):
            chosen = mine[start : start + size]
            batch = self.reader(chosen)
            output = self.predict(batch)
            trs = batch.inside[:, -options.window_trs :].sum()
            parts = self.losses.components(output, batch, frames)
            totals += torch.stack([*(parts[name] * trs for name in names), trs]).double()
            for number, window in enumerate(chosen):
                sums.add(window.block.run, output.bold, batch, number)
        sums.reduce(self.world)
        means = (self.world.sum(totals)[:-1] / totals[-1]).tolist()
        r = sums.correlation()
        return {
            "fmri_error": sums.mean_squared_error() / self._fitted.scalar("bold_variance"),
            "r": float(r.mean()),
            **{f"loss/{name}": mean for name, mean in zip(names, means, strict=True)},
        }

    def _resume(self) -> None:
        found = checkpoint.newest(self._folder) if self.world.is_main else None
        found = self.world.from_main(found)
        if found is None:
            return
        state, manifest = checkpoint.load(found, mmap=self.world.device.type == "cuda")
        checkpoint.require_data(manifest, self.data)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = manifest["step"]
        self.finished = manifest["finished"]
        self._best = manifest["best"]
        self._best_step = manifest["best_step"]
        checkpoint.compare_makers(manifest["maker"], checkpoint.maker(self.world.size))
        self._stale_validations = manifest["stale_validations"]
        if self.world.is_main and self._best_step is not None:
            # A kill may have come between the checkpoint's commit and the pointer to the best.
            checkpoint.set_best(self._folder, self._best_step)
        logger.info("%s: going on from step %d (%s)", self.paths.name, self.step, found.name)

    def _save(self, *, best: bool) -> None:
        """Write a checkpoint on rank 0 while the others wait."""
        if self.world.is_main:
            model, optimizer = self.model.state_dict(), self.optimizer.state_dict()
            state: dict[str, Any] = {"model": model, "optimizer": optimizer}
            manifest = {
                "step": self.step,
                "epoch": self._epoch,
                "finished": self.finished,
                "best": self._best,
                "best_step": self._best_step,
                "stale_validations": self._stale_validations,
                "maker": checkpoint.maker(self.world.size),
                "data": self.data,
            }
            keep = self.config.train.keep_last
            with self._pace.saving():
                checkpoint.save(self._folder, state, manifest, best=best, keep_last=keep)
        self.world.wait()
