"""When a training is said not to be able to succeed."""

from __future__ import annotations

from giblet_hpc.config.section import Count, Fraction, Positive, Section


class Health(Section):
    """When a training is said not to be able to succeed: `giblet-hpc health`."""

    largest_share: Fraction = 0.98
    """Of one component in the loss."""
    smallest_scan_share: Fraction = 0.01
    """Of the scans in the gradient at the bottleneck."""
    smallest_fall: Fraction = 0.005
    """Of the loss, from the first quarter of the steps so far to the last."""
    fall_epochs: Positive = 3.0
    """Epochs after the warm-up from which on a fall is asked for."""
    warmup_share: Fraction = 0.25
    """Of the warm-up in all epochs."""
    warmup_hours: Positive = 24.0
    """Of the warm-up, at the pace of the last steps."""
    fewest_steps: Count = 200
    """Of the whole training."""
    clipped_times: Positive = 100.0
    """Times train.clip that gradients may be."""
    largest_rise: Fraction = 0.1
    """Of the validation error since its lowest."""
    smallest_r: Fraction = 0.01
    """Of the best validation."""
    r_validations: Count = 5
    """After the warm-up, from which on `smallest_r` is asked for."""
    largest_wait: Fraction = 0.1
    """Of a step, for data."""
    least_busy: Positive = 20.0
    """Percent of the time that GPUs compute."""
    hottest: Positive = 87.0
    """Degrees Celsius of a GPU."""
