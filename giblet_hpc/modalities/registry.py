"""The modalities that there are, by name. Nothing else branches on a modality's name."""

from __future__ import annotations

from importlib import import_module

from giblet_hpc.config.features import Features
from giblet_hpc.modalities.base import Modality

BUILT_IN = {
    "video": "giblet_hpc.modalities.video:Video",
    "audio": "giblet_hpc.modalities.audio:Audio",
    "text": "giblet_hpc.modalities.text:Text",
}
"""Each modality's class, imported when it is in use."""
_registered: dict[str, type[Modality]] = {}


def register(name: str, kind: type[Modality]) -> None:
    """Add a modality that lives outside this package.

    Its section is added by `giblet_hpc.config.run.add_section`.
    """
    _registered[name] = kind


def modalities_of(features: Features) -> dict[str, Modality]:
    """Return the modalities in use, in the config's order."""
    return {name: _kind(name)(name, section) for name, section in features.sections.items()}


def _kind(name: str) -> type[Modality]:
    if name in _registered:
        return _registered[name]
    module, _, attribute = BUILT_IN[name].partition(":")
    kind: type[Modality] = getattr(import_module(module), attribute)
    return kind
