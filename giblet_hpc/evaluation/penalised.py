"""Banded ridge regression: a penalty and weights of bands, chosen by purged cross-validation.

A band is what one modality gives. Scaling bands by the roots of weights that add up to 1 is a
penalty for each of them (Nunez-Elizalde et al. 2019, NeuroImage 197:482; Dupré la Tour et al. 2022,
NeuroImage 264:119728). The solvers are himalaya's.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from giblet_hpc.config.evaluate import Ridge
from giblet_hpc.errors import DataError
from giblet_hpc.evaluation.blocks import VOXELS

FEWEST_TRS = 2
"""To fit on."""
CONCENTRATION = (0.1, 1.0)
"""Of the Dirichlet distributions that weights of bands are drawn from, in turn."""
KERNEL_TRS = 2
"""TRs a column up to which a kernel of TRs is decomposed sooner than the columns are."""
LEAST_WEIGHT = 1e-6
"""Of a band: himalaya's solver divides by the root of it."""
SEED = 0
Bands = Sequence[NDArray[np.float32]]
"""Of each band the lagged features, (trs, columns)."""

Shared = tuple[NDArray[np.float32], float]
"""Weights of bands, and the penalty, of all voxels; the penalty is 0 where each has its own."""


@dataclass(frozen=True)
class Prior:
    """How a linear model's weights are held together.

    Parameters
    ----------
    smooth_seconds : float
        Length scale over lags; 0: lags are free.
    penalties : {"voxel", "one"}
        A penalty for each voxel, or one for all.
    bands : {"equal", "one", "voxel"}
        Weights of the bands: equal; the same for all voxels; or for each.
    """

    smooth_seconds: float = 0.0
    penalties: Literal["voxel", "one"] = "voxel"
    bands: Literal["equal", "one", "voxel"] = "equal"

    def facts(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self)


class Fitted:
    """A fitted linear model, whose predictions are numpy arrays.

    Parameters
    ----------
    model : object
        With himalaya's ``predict``.
    backend : module
        himalaya's.
    arrange : callable
        Makes the model's input of bands.
    """

    def __init__(self, model: Any, backend: Any, arrange: Any) -> None:
        self.model, self._backend, self._arrange = model, backend, arrange

    def predict(self, bands: Bands) -> NDArray[np.float32]:
        """Return predictions, (trs, voxels)."""
        made = self.model.predict(self._backend.asarray(self._arrange(bands)))
        return np.asarray(self._backend.to_numpy(made), dtype=np.float32)

    def part(self, bands: Bands, number: int) -> NDArray[np.float32]:
        """Return what one of the bands adds to the predictions, (trs, voxels)."""
        nothing = [np.zeros_like(band) for band in bands]
        constant = self.predict([band[:1] for band in nothing])
        alone = self.predict([*nothing[:number], bands[number], *nothing[number + 1 :]])
        return alone - constant


def fit_ridge(
    bands: Bands,
    scans: NDArray[np.float32],
    options: Ridge,
    *,
    purge: int,
    prior: Prior | None = None,
    sample: NDArray[np.float32] | None = None,
    shared: Shared | None = None,
) -> Fitted:
    """Fit ridge; what it has to choose is chosen by cross-validation.

    Parameters
    ----------
    bands : sequence of ndarray, shape (trs, columns)
        Lags mixed by their prior already.
    scans : ndarray, shape (trs, voxels)
    options : Ridge
    purge : int
        TRs dropped on both sides of a cross-validation block.
    prior : Prior, optional
        By default equal bands and a penalty for each voxel.
    sample : ndarray, shape (trs, some voxels), optional
        By which is chosen what all voxels share; by default ``scans``.
    shared : tuple, optional
        What all voxels share, from `shared_settings`, where it is not to be chosen here.

    Raises
    ------
    DataError
        When the TRs are too few for any block.
    """
    solver = _solver(bands, options, purge)
    prior = prior or Prior()
    if prior.bands == "voxel" and len(bands) > 1:
        return solver.by_voxel(scans)
    found = shared or solver.shared(scans if sample is None else sample, prior)
    weights, penalty = found
    alphas = options.alphas if prior.penalties == "voxel" else (penalty,)
    return solver.fit(scans, weights, alphas)


def shared_settings(
    bands: Bands,
    sample: NDArray[np.float32],
    options: Ridge,
    *,
    purge: int,
    prior: Prior,
) -> Shared | None:
    """Return weights of bands and the penalty that are best for all voxels; None: they share none.

    Parameters
    ----------
    bands : sequence of ndarray, shape (trs, columns)
    sample : ndarray, shape (trs, some voxels)
    options : Ridge
    purge : int
    prior : Prior
    """
    if prior.bands == "voxel" and len(bands) > 1:
        return None
    return _solver(bands, options, purge).shared(sample, prior)


def _solver(bands: Bands, options: Ridge, purge: int) -> _Solver:
    trs = len(bands[0])
    if not usable_blocks(trs, options.folds, purge):
        raise DataError(
            f"{trs} training TRs are too few for ridge, whose lags reach {purge} TRs",
            hint="fewer evaluate.ridge.delays, or more training TRs",
        )
    return _Solver(bands, options, purge)


class _Solver:
    """himalaya's solvers for some bands: with kernels unless there are many more TRs than columns.

    Parameters
    ----------
    bands : sequence of ndarray, shape (trs, columns)
    options : Ridge
    purge : int
    """

    def __init__(self, bands: Bands, options: Ridge, purge: int) -> None:
        from himalaya.backend import set_backend

        self._backend = set_backend("torch_cuda" if torch.cuda.is_available() else "torch")
        self._bands, self._options = bands, options
        trs = len(bands[0])
        self._kernels = KERNEL_TRS * sum(band.shape[1] for band in bands) >= trs
        self._blocks = usable_blocks(trs, options.folds, purge)

    def shared(self, sample: NDArray[np.float32], prior: Prior) -> Shared:
        """Return the weights of bands, and the penalty, that are best for all of some voxels."""
        draws = weights_of_bands(len(self._bands), self._options.draws)
        if prior.bands == "equal":
            draws = draws[:1]
        if len(draws) == 1 and prior.penalties == "voxel":
            return draws[0], 0.0
        one = prior.penalties == "one"
        models = [
            self.fit(sample, weights, self._options.alphas, one=one).model for weights in draws
        ]
        scores = [float(self._backend.to_numpy(model.cv_scores_).mean()) for model in models]
        best = int(np.argmax(scores))
        penalties = self._backend.to_numpy(models[best].best_alphas_)
        return draws[best], float(np.ravel(penalties)[0])

    def fit(
        self,
        scans: NDArray[np.float32],
        weights: NDArray[np.float32],
        alphas: Sequence[float],
        *,
        one: bool = False,
    ) -> Fitted:
        """Fit with given weights of bands, and penalties to choose from."""
        from himalaya.kernel_ridge import KernelRidgeCV
        from himalaya.ridge import RidgeCV

        roots = np.sqrt(weights)

        def joined(bands: Bands) -> NDArray[np.float32]:
            return np.concatenate(
                [band * root for band, root in zip(bands, roots, strict=True)], axis=1
            )

        # himalaya would warn that columns are fewer than TRs, which `KERNEL_TRS` decides.
        kind = partial(KernelRidgeCV, warn=False) if self._kernels else RidgeCV
        model = kind(
            alphas=np.array(alphas), cv=self._blocks, fit_intercept=True,
            solver_params={**self._batches(), "local_alpha": not one},
        )  # fmt: skip
        model.fit(self._backend.asarray(joined(self._bands)), self._backend.asarray(scans))
        return Fitted(model, self._backend, joined)

    def by_voxel(self, scans: NDArray[np.float32]) -> Fitted:
        """Fit weights of bands, and a penalty, of each voxel's own."""
        from himalaya.kernel_ridge import MultipleKernelRidgeCV
        from himalaya.ridge import GroupRidgeCV

        train = self._bands

        def kernels(bands: Bands) -> NDArray[np.float32]:
            return np.stack([new @ old.T for new, old in zip(bands, train, strict=True)])

        def joined(bands: Bands) -> NDArray[np.float32]:
            return np.concatenate(list(bands), axis=1)

        solver_params = {
            **self._batches(), "n_iter": weights_of_bands(len(train), self._options.draws),
            "alphas": np.array(self._options.alphas), "progress_bar": False,
        }  # fmt: skip
        arrange = kernels if self._kernels else joined
        if self._kernels:
            model = MultipleKernelRidgeCV(
                kernels="precomputed", cv=self._blocks, fit_intercept=True,
                solver_params=solver_params,
            )  # fmt: skip
        else:
            groups = np.repeat(range(len(train)), [band.shape[1] for band in train])
            model = GroupRidgeCV(
                groups=groups, cv=self._blocks, fit_intercept=True, solver_params=solver_params
            )
        model.fit(self._backend.asarray(arrange(train)), self._backend.asarray(scans))
        return Fitted(model, self._backend, arrange)

    def _batches(self) -> dict[str, int]:
        return {"n_targets_batch": VOXELS, "n_targets_batch_refit": VOXELS}


def weights_of_bands(bands: int, draws: int) -> NDArray[np.float32]:
    """Return weights to choose from, (draws, bands): equal, each band alone, and drawn ones.

    Examples
    --------
    >>> weights_of_bands(1, 20)
    array([[1.]], dtype=float32)
    """
    if bands == 1:
        return np.ones((1, 1), np.float32)
    random = np.random.default_rng(SEED)
    every = [np.full(bands, 1 / bands), *np.eye(bands)]
    for concentration, _ in zip(itertools.cycle(CONCENTRATION), range(draws), strict=False):
        every.append(random.dirichlet(np.full(bands, concentration)))
    weights = np.maximum(every[: max(draws, 1 + bands)], LEAST_WEIGHT)
    return np.asarray(weights / weights.sum(1, keepdims=True), dtype=np.float32)


def usable_blocks(
    trs: int, folds: int, purge: int
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Return those blocks of `purged_blocks` beside which something is left to fit on."""
    return [pair for pair in purged_blocks(trs, folds, purge) if len(pair[0]) >= FEWEST_TRS]


def purged_blocks(
    trs: int, folds: int, purge: int
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Return (fitting rows, scoring rows) of a contiguous cross-validation with gaps."""
    edges = np.linspace(0, trs, folds + 1).astype(int)
    rows = np.arange(trs)
    return [
        (rows[(rows < start - purge) | (rows >= stop + purge)], rows[start:stop])
        for start, stop in itertools.pairwise(edges)
    ]
