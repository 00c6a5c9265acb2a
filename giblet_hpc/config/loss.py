"""What is minimised."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from giblet_hpc.config.section import Positive, Section, Weight


class Loss(Section):
    """What is minimised: weighted errors of the scans and of each reconstruction."""

    normalise: Literal["variance", "std", "none"] = "variance"
    """Each error over its target's training-set variance (predicting the mean costs 1), over its
    standard deviation (the original's), or raw."""
    fmri: Literal["mse", "mae", "correlation"] = "mse"
    """Error of the predicted scans."""
    fmri_weight: Weight = 1.0
    """Weight of the scans' error."""
    correlation_weight: Weight = 0.0
    """Weight of (1 - r) added to the scans' error; r is over a rank's TRs of a batch."""
    map_penalty: Weight = 0.0
    """Ridge penalty on the linear map from each vector feature (text, log-mel; unit variance) at
    each lag to each voxel, as the temporal model's shared part composes it. For films too short to
    learn from."""
    reconstruction_weight: Weight = 0.1
    """Weight of all reconstruction errors together."""
    modality_weights: Mapping[str, Weight] = Field(default_factory=dict)
    """Weight of a modality's reconstruction among them, by name. 1 where none is given."""
    balance: Literal["fixed", "gradient", "uncertainty"] = "fixed"
    """`fixed`: components count as their weights say. `gradient`: their gradients at the bottleneck
    get the shares that their weights have. `uncertainty`: each component is divided by twice its
    running average, which favours what is predicted well already: seldom the scans."""
    component_clip: Positive | None = None
    """Norm of a component's gradient at the bottleneck above which that component is scaled down.
    Null: only the gradient of all together is clipped (train.clip)."""
