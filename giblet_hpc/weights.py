"""The trained weights that a config needs: whether they are here, their size and licence."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from giblet_hpc.config.run import RunConfig
from giblet_hpc.digests import cached_model
from giblet_hpc.errors import DataError


@dataclass(frozen=True)
class Weights:
    """A model that preprocess loads."""

    section: str
    """Of the config's features."""
    name: str
    here: bool
    source: str
    """How to get it."""
    folder: str = ""
    bytes: int = 0
    licence: str = ""
    """As its README says; empty where it does not."""


def needed_weights(config: RunConfig) -> list[Weights]:
    """Return the weights that a config's features need, in the order of the config."""
    found = []
    for section, options in config.features.sections.items():
        if name := options.weights:
            found.append(_look(section, name))
    return found


def _look(section: str, name: str) -> Weights:
    is_path = Path(name).is_absolute() or name.startswith(".")
    source = f"copy the folder {name} here" if is_path else f"hf download {name}"
    try:
        folder = Path(name) if is_path or Path(name).is_dir() else cached_model(name)
    except DataError:
        return Weights(section, name, False, source)
    if not (folder / "config.json").is_file() and not any(folder.glob("*.th")):
        return Weights(section, name, False, source)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return Weights(section, name, True, source, str(folder), size, _licence(folder))


def _licence(folder: Path) -> str:
    """Return the licence that the head of a model's README names."""
    try:
        text = (folder / "README.md").read_text(encoding="utf-8", errors="replace")[:20_000]
    except OSError:
        return ""
    match = re.search(r"^license:\s*(\S+)", text, re.MULTILINE)
    return match[1] if match else ""
