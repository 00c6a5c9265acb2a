"""The training loop of one fold.

Order = f(seed, epoch), learning rate = f(step), dropout = f(seed, step, rank), and the position
in the data follows from the step: a checkpoint needs no more than weights, optimizer and step.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable

import torch

from giblet_hpc.config.run import RunConfig
from giblet_hpc.errors import ConfigError
from giblet_hpc.models.shapes import Batch
from giblet_hpc.runs import checkpoints
from giblet_hpc.runs.beacon import Beacon
from giblet_hpc.runs.paths import RunPaths
from giblet_hpc.runs.progress import Progress
from giblet_hpc.splits import Fold
from giblet_hpc.training import checkpoint
from giblet_hpc.training.balance import Balance, gradient_norms
from giblet_hpc.training.batches import Ahead, Place
from giblet_hpc.training.data_order import DataOrder, NotFiniteError
from giblet_hpc.training.export import exported
from giblet_hpc.training.feed import StudyArrays
from giblet_hpc.training.health_check import HealthCheck
from giblet_hpc.training.instruments import Instruments
from giblet_hpc.training.losses import Losses
from giblet_hpc.training.optimizer import make_optimizer, set_rate
from giblet_hpc.training.parts import apply_options
from giblet_hpc.training.predictor import make_predictor
from giblet_hpc.training.record import Recorder, StepTimer
from giblet_hpc.training.schedule import learning_rate, steps_per_epoch
from giblet_hpc.training.statistics import TrainingStatistics
from giblet_hpc.training.strategy import Strategy
from giblet_hpc.training.validation import validate
from giblet_hpc.training.windows import Window, covering_windows, epoch_windows

logger = logging.getLogger(__name__)
MAX_BAD_STEPS = 10
"""Steps in a row without a finite gradient, after which training goes back."""
LOW_FMRI_SHARE = 0.2


class Trainer:
    """Trains one fold, from the start or from its newest checkpoint.

    Parameters
    ----------
    config : RunConfig
    paths : RunPaths
    fold : Fold
    study : StudyArrays
    statistics : TrainingStatistics
        Estimates from the fold's training TRs.
    strategy : Strategy
        The parallel mode.
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
        statistics: TrainingStatistics,
        strategy: Strategy,
        should_stop: Callable[[], bool],
    ) -> None:
        self.config, self.paths, self.fold = config, paths, fold
        self._strategy, self.world, self._sums = strategy, strategy.world, strategy.sums
        self._should_stop = should_stop
        self._runs = list(study.runs)
        self.predictor = make_predictor(config, study, statistics, strategy)
        self.model = self.predictor.model
        self.losses = Losses(config.loss, self.predictor.modalities, statistics.bold_variance)
        self._balance = None
        if config.loss.balance != "fixed" or config.loss.component_clip is not None:
            # A part of the model, so that checkpoints have its state.
            self._balance = Balance(config.loss, self.losses.weights).to(self.world.device)
            self.model.balance = self._balance
        apply_options(config, self.model)
        self.optimizer = make_optimizer(config.train, self.model.parameters())
        self._wrapped = strategy.wrap(self.model)
        self.step = 0
        self.finished = False
        self._best = float("inf")
        self._best_step: int | None = None
        self._stale_validations = 0
        self._bad_steps = 0
        self._folder = paths.checkpoints(fold.name)
        self._order = DataOrder(self._folder, self.world)
        self._batches = Ahead(self.predictor.reader, self._windows_of, config.train.accumulation)
        self._instruments = Instruments(config, paths, fold.name, self.world)
        self._progress = Progress(paths, "train")
        self._health = HealthCheck(config, self._progress, self.world)
        self._beacon = Beacon(self.world.rank)
        self._data = paths.data_digest()
        self._maker = checkpoint.maker(self.world.size, strategy.name)
        self._writer = checkpoint.Writer(self._folder, self.world, keep_last=config.train.keep_last)
        self._timer = StepTimer()
        self.steps_per_epoch = steps_per_epoch(config, fold.train, ranks=self._sums.size)

    def run(self) -> bool:
        """Train until the last epoch, until validation stops improving, or until told to stop.

        Returns
        -------
        bool
            Whether the fold is finished.
        """
        self._resume()
        if self.world.is_main:
            self._progress.write(resumed_from=self.step, step=self.step, phase="ready")
        try:
            while not self._loop_recorded():
                self._go_back()
        finally:
            self._batches.close()
            self._instruments.close()
        if self.world.is_main:
            self._progress.write(step=self.step, epoch=round(self._epoch, 2))
        return self.finished

    def _loop_recorded(self) -> bool:
        """Train; return False when gradients are not finite any more."""
        recorder = None
        if self.world.is_main and not self.finished:
            events = self.paths.tensorboard / self.fold.name
            recorder = Recorder(self.paths.metrics(self.fold.name), events, from_step=self.step)
        try:
            self._loop(recorder)
        except NotFiniteError:
            return False
        finally:
            if recorder:
                recorder.close()
        return True

    def _go_back(self) -> None:
        """Go on from the last checkpoint before the bad steps, with the data after theirs."""
        # The checkpoint that is being written may be the one to go back to, or one to set aside.
        self._writer.wait()
        self.world.wait()
        self._order.go_back(
            self.step, self.step + 1 - self._bad_steps, aside=self.paths.set_aside_folder
        )
        self.optimizer.zero_grad(set_to_none=True)
        self._bad_steps = 0
        self._resume()

    def _loop(self, recorder: Recorder | None) -> None:
        options = self.config.train
        total = options.epochs * self.steps_per_epoch
        while not self.finished:
            self._instruments.before(self.step)
            figures = self._train_step()
            self._instruments.after(self.step)
            self.step += 1
            self.finished = self.step >= total
            improved = self._validate_if_due(recorder)
            if recorder and self.step % options.log_every == 0:
                recorder.add("train", self.step, self._epoch, figures)
            self._note_progress(total)
            self._beacon.show(self.step, "agree")
            stop = self.world.any(self._should_stop() or self._writer.failed)
            due = self.step % options.checkpoint_every == 0
            if due or improved or stop or self.finished:
                self._save(best=improved)
            if stop:
                break
        self._writer.wait()

    @property
    def pace(self) -> dict[str, float]:
        """How long a step takes, and the share of it that is spent waiting for data."""
        return self._timer.figures()

    @property
    def _epoch(self) -> float:
        return self.step / self.steps_per_epoch

    def _note_progress(self, total: int) -> None:
        if self.world.is_main:
            self._progress.note(
                phase=f"training {self.fold.name}".strip(),
                step=self.step,
                total_steps=total,
                epoch=round(self._epoch, 2),
                **self.pace,
                save_seconds=round(self._writer.seconds, 3),
                save_blocked_seconds=round(self._writer.blocked, 3),
            )

    def _windows_of(self, place: Place) -> list[Window]:
        """Return this rank's windows of a part of a step."""
        options = self.config.train
        epoch, index = divmod(place[0], self.steps_per_epoch)
        windows = epoch_windows(self.fold.train, options.window_trs, seed=options.seed, epoch=epoch)
        batch = windows[index * options.batch_windows : (index + 1) * options.batch_windows]
        mine = batch[self._sums.rank :: self._sums.size]
        size = len(mine) // options.accumulation
        return mine[place[1] * size : (place[1] + 1) * size]

    def _train_step(self) -> dict[str, float]:
        options = self.config.train
        started = time.perf_counter()
        self._beacon.show(self.step, "begin")
        rate = learning_rate(self.step, options=options, steps_per_epoch=self.steps_per_epoch)
        set_rate(self.optimizer, rate)
        self._strategy.seed_dropout(options.seed, self.step)
        self._wrapped.train()
        logged = (self.step + 1) % options.log_every == 0
        figures: dict[str, float] = {}
        waited = self._batches.waited
        for number in range(options.accumulation):
            last = number == options.accumulation - 1
            batch = self._batches.take((self.step + self._order.shift, number))
            figures = self._backward(batch, sync=last, logged=logged and last)
        norm = self._strategy.clip(self.model, options.clip)
        self._apply(norm)
        seconds = time.perf_counter() - started
        self._timer.step(seconds, self._batches.waited - waited)
        if not logged:
            return {}
        trs = options.batch_windows * options.window_trs
        return {
            **figures,
            "lr": rate,
            "gradient_norm": norm,
            "trs_per_second": trs / seconds,
            "data_wait_seconds": self._timer.waited,
            **self._instruments.figures(seconds),
        }

    def _backward(self, batch: Batch, *, sync: bool, logged: bool) -> dict[str, float]:
        options = self.config.train
        hold = contextlib.nullcontext() if sync else self._strategy.no_sync(self._wrapped)
        with hold:
            positions = self.predictor.positions(self.step)
            output = self.predictor.forward(self._wrapped, batch, positions)
            components = self.losses.components(output, batch, positions, self._sums)
            balanced, noted = self._balanced(components, logged=logged)
            loss = torch.stack(balanced).sum() / options.accumulation
            self._beacon.show(self.step, "backward")
            loss.backward()  # type: ignore[no-untyped-call]
        if not logged:
            return {}
        own = torch.stack([value.detach() for value in components.values()])
        means = (self._sums.reduce(own) / self._sums.size).tolist()
        values = {f"loss/{name}": mean for name, mean in zip(components, means, strict=True)}
        return {"loss": sum(values.values()), **values, **noted}

    def _balanced(
        self, components: dict[str, torch.Tensor], *, logged: bool
    ) -> tuple[list[torch.Tensor], dict[str, float]]:
        """Return what is added up to the loss, and what is to be noted of its parts."""
        balance, norms = self._balance, {}
        if logged or (balance is not None and balance.needs_norms):
            # DDP hands out copies of a model's outputs, which nothing else is computed from.
            bottleneck = self.model.seen_bottleneck
            assert isinstance(bottleneck, torch.Tensor)
            norms = gradient_norms(components, bottleneck)
        noted = self._gradient_shares(norms) if logged else {}
        if balance is None:
            return list(components.values()), noted
        factors = balance(components, norms, self._sums)
        if logged:
            noted |= {f"factor/{name}": float(factor) for name, factor in factors.items()}
        return [value * factors.get(name, 1.0) for name, value in components.items()], noted

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
                raise NotFiniteError
        self.optimizer.zero_grad(set_to_none=True)

    def _gradient_shares(self, found: dict[str, torch.Tensor]) -> dict[str, float]:
        """Return each component's gradient norm at the bottleneck, and its share in all."""
        norms = {name: float(norm) for name, norm in found.items()}
        total = sum(norms.values()) or 1.0
        shares = {name: norm / total for name, norm in norms.items()}
        if shares["fmri"] < LOW_FMRI_SHARE and self.step < self.steps_per_epoch:
            logger.warning(
                "the scans make up %.0f %% of the gradient at the bottleneck; consider a lower "
                "loss.reconstruction_weight, or loss.balance gradient",
                100 * shares["fmri"],
            )
        named = {f"gradient/{name}": norm for name, norm in norms.items()}
        return named | {f"gradient_share/{name}": share for name, share in shares.items()}

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
        figures = validate(
            self.predictor,
            self.losses,
            covering_windows(self.fold.validation, options.window_trs),
            runs=self._runs,
            strategy=self._strategy,
        )
        if recorder:
            recorder.add("validation", self.step, self._epoch, figures)
        self._health(
            recorder.rows if recorder else [],
            total_steps=options.epochs * self.steps_per_epoch, pace=self.pace,
        )  # fmt: skip
        improved = figures["fmri_error"] < self._best
        if improved:
            self._best, self._best_step = figures["fmri_error"], self.step
        self._stale_validations = 0 if improved else self._stale_validations + 1
        if options.patience and self._stale_validations >= options.patience:
            self.finished = True
        return improved

    def _resume(self) -> None:
        self._order.read()
        newest = checkpoints.newest(self._folder) if self.world.is_main else None
        name = self.world.broadcast(newest.name if newest is not None else None)
        if name is None:
            self._start()
            return
        found = self._folder / name
        source, manifest = checkpoint.load(found)
        checkpoint.require_data(manifest, self._data)
        self._strategy.load(source, self.model, self.optimizer)
        self.step = manifest["step"]
        self.finished = manifest["finished"]
        self._best = manifest["best"]
        self._best_step = manifest["best_step"]
        checkpoint.compare_makers(manifest["maker"], self._maker)
        self._stale_validations = manifest["stale_validations"]
        best = self._best_step
        if self.world.is_main and best is not None and self._has_checkpoint(best):
            # A kill may have come between the checkpoint's commit and the pointer to the best.
            checkpoints.set_best(self._folder, best)
        logger.info("%s: going on from step %d (%s)", self.paths.name, self.step, found.name)

    def _start(self) -> None:
        """Put the weights in place that the config starts from."""
        file = self.config.train.start_from
        if file is None:
            return
        taken = self._strategy.start_from(exported(file), self.model)
        others = [name for name in self.model.state_dict() if name not in taken]
        if not taken:
            raise ConfigError(
                f"train.start_from: {file} has no tensor of this network",
                hint="it has to come from a network of the same kind and sizes",
            )
        logger.info("starting from %s: %d tensors; as drawn: %s", file, len(taken),
                    ", ".join(others) or "none")  # fmt: skip

    def _has_checkpoint(self, step: int) -> bool:
        return (self._folder / checkpoints.name_of(step) / checkpoints.MANIFEST).is_file()

    def _save(self, *, best: bool) -> None:
        """Begin to write a checkpoint, of which each rank writes a part."""
        manifest = {
            "step": self.step,
            "epoch": self._epoch,
            "finished": self.finished,
            "best": self._best,
            "best_step": self._best_step,
            "stale_validations": self._stale_validations,
            "maker": self._maker,
            "data": self._data,
        }
        pieces = self._strategy.pieces(self.model, self.optimizer)
        self._writer.save(pieces, manifest, best=best)
