"""The modalities that there are, by name. Nothing else branches on a modality's name."""

from __future__ import annotations

from importlib import import_module

from giblet_hpc.config.features import (
    AudioFeatures,
    Features,
    LanguageModel,
    MotionFeatures,
    OwnFeatures,
    PictureEncoder,
    SoundEncoder,
    TextFeatures,
    VideoFeatures,
)
from giblet_hpc.config.features import Modality as Section
from giblet_hpc.modalities.base import Modality

BUILT_IN: dict[type[Section], str] = {
    VideoFeatures: "video:Video",
    AudioFeatures: "audio:Audio",
    TextFeatures: "text:Text",
    PictureEncoder: "hidden:PictureHidden",
    SoundEncoder: "hidden:SoundHidden",
    LanguageModel: "hidden:WordHidden",
    MotionFeatures: "motion:Motion",
    OwnFeatures: "own:Own",
}
"""The class of each kind of section, imported when it is in use."""
_registered: dict[str, type[Modality]] = {}


def register(name: str, kind: type[Modality]) -> None:
    """Add a modality that lives outside this package.

    Its section is added by `giblet_hpc.config.run.add_section`.
    """
    _registered[name] = kind


def modalities_of(features: Features) -> dict[str, Modality]:
    """Return the modalities in use, in the config's order."""
    return {name: _kind(name, own)(name, own) for name, own in features.sections.items()}


def _kind(name: str, section: Section) -> type[Modality]:
    if name in _registered:
        return _registered[name]
    module, _, attribute = BUILT_IN[type(section)].partition(":")
    kind: type[Modality] = getattr(import_module(f"giblet_hpc.modalities.{module}"), attribute)
    return kind
