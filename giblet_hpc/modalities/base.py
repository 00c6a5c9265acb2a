"""What every stimulus modality is asked: one class a modality, in a file of its own.

Before training a modality knows its settings alone. `fitted` binds it to the shape of its rows and
to what was estimated from the training TRs; networks, loss and scores need that.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from giblet_hpc.arrays import ArraySpec
from giblet_hpc.config.features import Modality as Section
from giblet_hpc.config.model import TemporalModel
from giblet_hpc.config.study import ScanRun
from giblet_hpc.digests import Digests
from giblet_hpc.files import write_with
from giblet_hpc.modalities.moments import SMALLEST_VARIANCE, mean_and_variance, moments
from giblet_hpc.store import FeatureStore
from giblet_hpc.survey import Survey

SPAN = "span"
"""The estimate of those directions, where a config asks for it."""
MEAN, PREVIOUS = "mean", "previous"
"""Reconstructions that know nothing of a TR: of the training TRs' mean, of the TR before."""
Normalise = Literal["variance", "std", "none"]
Estimates = Mapping[str, NDArray[Any]]
Note = Callable[[], None]


class Modality(ABC):
    """A stimulus modality.

    Parameters
    ----------
    name : str
        Of its section in the config, of its arrays in the store, and in every table.
    options : Section
        Its section of the config.
    """

    panels: ClassVar[int] = 1
    """Axes of a sample picture."""
    labels: Mapping[str, str]
    """What each figure of `scores` says, in words."""

    shape: tuple[int, ...]
    """Of one TR, as the model sees it. Known after `fitted`."""
    estimates: Estimates
    """From `fit`. Known after `fitted`."""

    def __init__(self, name: str, options: Section) -> None:
        self.name = name
        self.labels = {"error": "error (1 = training mean)"}
        self.options: Any = options

    def fitted(self, shape: Sequence[int], estimates: Estimates) -> Self:
        """Return this modality bound to the shape of a TR and to a fold's estimates."""
        bound = copy.copy(self)
        bound.shape, bound.estimates = tuple(shape), estimates
        return bound

    def estimate(self, key: str) -> torch.Tensor:
        """Return one of the estimates as a float32 tensor."""
        return torch.as_tensor(self.estimates[key], dtype=torch.float32)

    @property
    def feeds(self) -> bool:
        """Whether the network and the linear baseline see it."""
        return bool(self.options.feeds)

    @property
    def reconstructed(self) -> bool:
        """Whether the network reconstructs it."""
        return bool(self.options.reconstruct)

    # Rows of TRs in the store.

    def array_name(self, run: str) -> str:
        """Return the name of a run's array in the store."""
        return f"stimulus/{run}/{self.name}"

    @abstractmethod
    def expected_shape(self, *, tr: float, fps: float) -> tuple[int, ...]:
        """Return the shape of a TR's row as far as settings tell it, for plans without a store.

        Parameters
        ----------
        tr : float
            Seconds.
        fps : float
            Frames a second of the films.
        """

    @abstractmethod
    def array(self, survey: Survey, run: ScanRun, digests: Digests) -> ArraySpec:
        """Return a run's array: its shape, and the digest of all that its rows depend on."""

    @abstractmethod
    def write(
        self, survey: Survey, run: ScanRun, *, spec: ArraySpec, store: FeatureStore, note: Note
    ) -> None:
        """Write the missing shards of a run's array.

        Parameters
        ----------
        survey : Survey
        run : ScanRun
        spec : ArraySpec
            From `array`.
        store : FeatureStore
        note : callable
            Called after each bit of work.
        """

    def shared_array(self, digests: Digests) -> ArraySpec | None:
        """Return the array that rows of all runs refer to; None where there is none."""
        del digests
        return None

    def shared_values(self) -> NDArray[Any]:
        """Return the content of the shared array."""
        raise AssertionError("only for modalities with a shared array")

    # What is estimated from the training TRs of a fold.

    spanned: ClassVar[bool] = False
    """Whether the dense model can see it in the directions that training TRs span: `SPAN`."""

    @property
    def additive(self) -> bool:
        """Whether estimates follow from sums over rows, which ranks can share."""
        return True

    def sums(self, rows: NDArray[Any], shared: NDArray[Any] | None) -> dict[str, NDArray[Any]]:
        """Return what the estimates need to know of some training TRs.

        Those of other TRs can be added to it.

        Parameters
        ----------
        rows : ndarray, shape (trs, ...)
        shared : ndarray, optional
            The shared array, where there is one.
        """
        del shared
        return moments(rows)

    def settled(
        self, sums: Mapping[str, NDArray[Any]], shared: NDArray[Any] | None
    ) -> dict[str, NDArray[Any]]:
        """Return the estimates from the sums over all training TRs.

        Returns
        -------
        dict of str to ndarray
            With ``variance``: what predicting the training mean costs.
        """
        del shared
        mean, variance = mean_and_variance(sums)
        smallest = np.maximum(variance.mean(), SMALLEST_VARIANCE)
        return {"mean": mean.astype(np.float32), "variance": smallest}

    def fit(
        self, parts: Iterable[NDArray[Any]], shared: NDArray[Any] | None
    ) -> dict[str, NDArray[Any]]:
        """Return the estimates from all training TRs, (trs, ...), in parts."""
        total: dict[str, NDArray[Any]] = {}
        for rows in parts:
            found = self.sums(rows, shared)
            total = {name: total.get(name, 0) + value for name, value in found.items()}
        return self.settled(total, shared)

    def placeholder_estimates(self, shape: Sequence[int]) -> dict[str, NDArray[Any]]:
        """Return estimates of the right shapes, for plans: what they hold means nothing.

        Parameters
        ----------
        shape : sequence of int
            Of a TR's row in the store.
        """
        noise = np.random.default_rng(0).integers(0, 3, (4, *shape))
        return self.fit([noise.astype(np.float32)], None)

    @property
    def projects(self) -> bool:
        """Whether models see something else than the stored rows."""
        return False

    def inputs(self, rows: NDArray[Any], estimates: Estimates) -> NDArray[Any]:
        """Turn stored rows into those that the model sees and reconstructs."""
        del estimates
        return rows

    # The temporal model.

    @abstractmethod
    def encoder(self, options: TemporalModel) -> nn.Module:
        """Return the network from (B, W, ...) to (B, W, width)."""

    @abstractmethod
    def decoder(self, options: TemporalModel, bottleneck: int) -> nn.Module:
        """Return the network from (B, L, Z), and positions if there are any, to (B, L, ...)."""

    def positions(self, generator: torch.Generator | None) -> torch.Tensor | None:
        """Return where in a TR to reconstruct, (n,) int64; None: everywhere.

        Parameters
        ----------
        generator : torch.Generator, optional
            Draws those of a training step; without one they are evenly spaced.
        """
        del generator
        return None

    def target(self, rows: torch.Tensor, predicted: torch.Tensor) -> torch.Tensor:
        """Turn rows (B, L, ...) into what a reconstruction is compared with."""
        del predicted
        return rows.float()

    def loss(
        self,
        predicted: torch.Tensor,
        rows: torch.Tensor,
        mask: torch.Tensor,
        *,
        positions: torch.Tensor | None,
        normalise: Normalise,
    ) -> torch.Tensor:
        """Return the error of a reconstruction, a scalar.

        Parameters
        ----------
        predicted : Tensor, (B, L, ...)
        rows : Tensor, (B, L, ...)
            Of the stimulus.
        mask : Tensor, (B, L) bool
            TRs that count.
        positions : Tensor, optional
            From `positions`.
        normalise : str
            Whether to divide by the training variance, its root, or nothing.
        """
        del positions
        error = (predicted.float() - self.target(rows, predicted)).square().flatten(2).mean(2)
        mean = (error * mask).sum() / mask.sum().clamp(min=1)
        return mean / scale(float(self.estimates["variance"]), normalise)

    # The dense model: only modalities that the original had are part of it.

    def dense_encoder(self, width: float) -> nn.Module | None:
        """Return the network from (N, inputs) to its part of the joint layer; None: no place."""
        return None

    def dense_decoder(self, width: float) -> nn.Module:
        """Return the network from (N, joint) to (N, outputs)."""
        raise AssertionError("only for modalities of the dense model")

    def dense_input(self, rows: torch.Tensor) -> torch.Tensor:
        """Turn stored rows (N, 1, ...) into (N, inputs)."""
        return rows.flatten(1).to(torch.get_default_dtype())

    def dense_output(self, flat: torch.Tensor) -> torch.Tensor:
        """Turn (N, outputs) into (N, 1, ...)."""
        return flat.reshape(len(flat), 1, *self.shape)

    # Evaluation.

    @abstractmethod
    def baseline_features(
        self, inputs: NDArray[Any], shared: NDArray[Any] | None
    ) -> NDArray[np.float32]:
        """Return the linear baseline's features of each TR, (trs, columns)."""

    def cost_of_mean(self, variance: float, normalise: Normalise, *, dense: bool) -> float:
        """Return the loss where the mean is predicted.

        Parameters
        ----------
        variance : float
            Of stored rows, over time.
        normalise : str
        dense : bool
            Whether the dense model reconstructs, which predicts rows as they are stored.
        """
        del dense
        return variance / scale(variance or 1.0, normalise)

    def scores(
        self,
        predicted: torch.Tensor,
        rows: torch.Tensor,
        mask: torch.Tensor,
        *,
        positions: torch.Tensor | None,
    ) -> dict[str, torch.Tensor]:
        """Return figures of a reconstruction, averaged over the TRs that count; see `labels`."""
        error = self.loss(predicted, rows, mask, positions=positions, normalise="variance")
        return {"error": error}

    def control_scores(
        self,
        rows: torch.Tensor,
        before: torch.Tensor,
        mask: torch.Tensor,
        *,
        positions: torch.Tensor | None,
        made: torch.Tensor,
    ) -> dict[str, dict[str, torch.Tensor]]:
        """Return figures of what knows nothing of a TR, by `MEAN` and `PREVIOUS`; as `scores`.

        Parameters
        ----------
        rows, before : Tensor, (B, L, ...)
            The stimulus, and that of the TRs before.
        mask : Tensor, (B, L) bool
        positions : Tensor, optional
        made : Tensor, (B, L, ...)
            Any reconstruction of the network: controls have its form.
        """
        form = (*rows.shape[:2], *made.shape[2:])
        guesses = {
            MEAN: self.estimate("mean").to(rows.device).expand(form),
            PREVIOUS: self.target(before, made),
        }
        return {
            name: self.scores(guess, rows, mask, positions=positions)
            for name, guess in guesses.items()
        }

    @abstractmethod
    def draw(
        self,
        axes: Sequence[Any],
        shown: torch.Tensor,
        predicted: torch.Tensor,
        *,
        positions: torch.Tensor | None,
    ) -> None:
        """Draw one TR and its reconstruction on as many axes as `panels` says."""

    def whole_positions(self) -> torch.Tensor | None:
        """Return all places in a TR, for a modality whose `positions` are some; else None."""
        return None

    def save(
        self, stem: Path, shown: torch.Tensor, made: Mapping[str, torch.Tensor], *, tr: float
    ) -> list[Path]:
        """Write some TRs in a row and reconstructions of them as files; return them.

        By default as an array each, (trs, ...).

        Parameters
        ----------
        stem : Path
            Begin of the files' names.
        shown : Tensor, shape (L, ...)
            Stored rows.
        made : mapping of str to Tensor, shape (L, ...)
            As the decoder makes them, at `whole_positions`, by the end of the files' names.
        tr : float
            Seconds.
        """
        del tr
        every = {"shown": shown, **{what: values.float() for what, values in made.items()}}
        return [save_array(stem, what, values.numpy()) for what, values in every.items()]

    def captions(self, spec: ArraySpec) -> list[str]:
        """Return what is said of each TR of a stored array, in words; empty where nothing is."""
        del spec
        return []

    def remarks(self) -> list[str]:
        """Return sentences on method that a reader of the report needs."""
        return []


def save_array(stem: Path, what: str, values: NDArray[Any]) -> Path:
    """Write an array beside a sample's other files; return its path."""
    path = stem.with_name(f"{stem.name}-{what}.npy")
    write_with(path, lambda handle: np.save(handle, values))
    return path


def scale(variance: float, normalise: Normalise) -> float:
    """Return what an error is divided by."""
    if normalise == "variance":
        return variance
    return variance**0.5 if normalise == "std" else 1.0
