"""Reading, overriding, explaining and fingerprinting configs."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from giblet_hpc.config.run import RunConfig
from giblet_hpc.config.section import Section
from giblet_hpc.errors import ConfigError
from giblet_hpc.files import sha256_json, write_text
from giblet_hpc.limits import require_text
from giblet_hpc.trust import own_folder, read_text

Model = TypeVar("Model", bound=BaseModel)


def load(path: Path, overrides: Iterable[str] = ()) -> RunConfig:
    """Read a config and apply ``field=value`` overrides.

    Parameters
    ----------
    path : Path
        YAML file.
    overrides : iterable of str
        Such as ``train.lr=3e-4``; the value is YAML.

    Returns
    -------
    RunConfig
        With study.root and study.store absolute.

    Raises
    ------
    ConfigError
        When the file cannot be read or a field is wrong; all wrong fields are listed.
    """
    tree, settings = read_tree(path), list(overrides)
    for override in settings:
        apply_override(tree, override)
    return validate(tree, source=" and ".join([str(path), *(f"--set {s}" for s in settings)]))


def apply_override(tree: dict[str, Any], override: str) -> None:
    """Set one field of ``tree`` in place, from text such as ``train.lr=3e-4``.

    Raises
    ------
    ConfigError
        When the text is not ``field=value`` or reaches into a value that has no fields.
    """
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {override!r} is not field=value", hint="--set train.lr=3e-4")
    *parents, last = key.strip().split(".")
    node: Any = tree
    try:
        for parent in parents:
            if isinstance(node, list):
                node = node[int(parent)]
            else:
                node = node.setdefault(parent, {})
                if node is None:
                    raise TypeError
        parsed = yaml.safe_load(value)
        if isinstance(node, list):
            node[int(last)] = parsed
        else:
            node[last] = parsed
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {key}: the value is not YAML: {error}") from None
    except (TypeError, AttributeError, ValueError, IndexError):
        raise ConfigError(f"--set {key}: there is no such field to set") from None


def written_out(text: str) -> float:
    """Return how many values a YAML text has with each alias (*name) replaced by what it names.

    An alias can stand for a part that itself consists of aliases, and so on: a few lines for more
    values than any memory holds. Nothing of that is made here. One that stands for a part that it
    is in has infinitely many.
    """
    named: dict[str, float] = {}
    open_parts: list[tuple[str | None, float]] = []
    total = 0.0
    for event in yaml.parse(text):
        if isinstance(event, yaml.CollectionStartEvent):
            open_parts.append((event.anchor, total))
            if event.anchor:
                named[event.anchor] = math.inf
            total += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_parts.pop()
            if anchor:
                named[anchor] = total - before
        elif isinstance(event, yaml.ScalarEvent):
            total += 1
            if event.anchor:
                named[event.anchor] = 1
        elif isinstance(event, yaml.AliasEvent):
            total += named.get(event.anchor or "", 0)
    return total


def require_distinct_keys(node: yaml.Node | None) -> None:
    """Check that no mapping has a key twice, of which YAML would keep the last without a word.

    Raises
    ------
    yaml.YAMLError
        Where one has.
    """
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen and key.tag != "tag:yaml.org,2002:merge":
                    raise yaml.MarkedYAMLError(
                        problem=f"`{key.value}` is there twice", problem_mark=key.start_mark
                    )
                seen.add(key.value)
            require_distinct_keys(value)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            require_distinct_keys(item)


def read_tree(path: Path) -> dict[str, Any]:
    """Read the fields of a YAML file.

    Raises
    ------
    ConfigError
        When it cannot be read.
    """
    try:
        text = read_text(path)
        require_text(path, text, written_out(text) if "*" in text else 0)
        require_distinct_keys(yaml.compose(text, Loader=yaml.SafeLoader))
        tree = yaml.safe_load(text)
    except FileNotFoundError:
        raise ConfigError(f"config not found: {path}", hint="see configs/ for examples") from None
    except (yaml.YAMLError, UnicodeDecodeError, IsADirectoryError) as error:
        raise ConfigError(
            f"{path} is not a YAML file: {error}", hint="see configs/ for examples"
        ) from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} holds no fields", hint="see configs/ for examples")
    return tree


def validate(tree: Mapping[str, Any], *, source: str) -> RunConfig:
    """Check a tree of plain values against the schema.

    Raises
    ------
    ConfigError
        Listing every wrong field: where, what was given, what is allowed.
    """
    config = validate_section(
        tree, RunConfig, source=source, hint="`giblet-hpc config schema` lists all fields"
    )
    store = config.study.store or Path("stores") / f"{config.study.name}.zarr"
    study = config.study.model_copy(
        update={"root": config.study.root.resolve(), "store": own_folder(store)}
    )
    start = config.train.start_from
    train = config.train.model_copy(update={"start_from": start.resolve() if start else None})
    return config.model_copy(update={"study": study, "train": train})


def validate_section(
    tree: Mapping[str, Any], model: type[Model], *, source: str, hint: str
) -> Model:
    """Check a tree of plain values against a part of a schema.

    Raises
    ------
    ConfigError
        Listing every wrong field: where, what was given, what is allowed.
    """
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        lines = [_explain(problem, model) for problem in error.errors(include_url=False)]
        noun = "problem" if len(lines) == 1 else "problems"
        raise ConfigError(
            "\n  ".join([f"{len(lines)} {noun} in {source}:", *lines]), hint=hint
        ) from None


def _explain(problem: Any, model: type[BaseModel]) -> str:
    where = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        known = _fields_at(problem["loc"][:-1], model)
        near = difflib.get_close_matches(str(problem["loc"][-1]), known, n=1, cutoff=0.5)
        guess = f"did you mean `{near[0]}`?" if near else f"known: {', '.join(sorted(known))}"
        return f"{where}: unknown field; {guess}"
    if problem["type"] == "missing":
        return f"{where}: required, but not given"
    message = problem["msg"].removeprefix("Value error, ")
    return f"{where}: {message}; got {problem['input']!r}" if where else message


def _fields_at(location: Iterable[Any], section: type[BaseModel]) -> list[str]:
    """Names of the fields of the section at ``location``."""
    for part in location:
        if isinstance(part, str) and part in section.model_fields:
            found = _section_type(section.model_fields[part].annotation)
            section = found or section
    return list(section.model_fields)


def _section_type(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_section_type(argument) for argument in get_args(annotation))
    return next((section for section in found if section), None)


def plain(config: BaseModel) -> dict[str, Any]:
    """Return a config as plain values that YAML and JSON can hold."""
    values: dict[str, Any] = config.model_dump(mode="json")
    return values


def dump(config: RunConfig) -> str:
    """Return a config as YAML, every field written out."""
    return yaml.safe_dump(plain(config), sort_keys=False, allow_unicode=True, width=96)


def save(config: RunConfig, path: Path) -> None:
    """Write a config as YAML, atomically."""
    write_text(path, dump(config))


def fingerprint(config: BaseModel) -> str:
    """Return the sha256 of all values of a config."""
    return sha256_json(plain(config))


def preprocess_view(config: RunConfig) -> dict[str, Any]:
    """Return those values of a config that preprocess reads, as plain ones."""
    view: dict[str, Any] = {}
    for name in ("study", "features", "bold", "split"):
        view[name] = without_later_fields(getattr(config, name))
    return view


def without_later_fields(section: Section) -> dict[str, Any]:
    """Return a section's values as plain ones, without the fields that preprocess does not read."""
    values = plain(section)
    for name in section.after_preprocess:
        del values[name]
    for name in (*type(section).model_fields, *(section.model_extra or {})):
        child = getattr(section, name)
        if isinstance(child, Section):
            values[name] = without_later_fields(child)
    return values


def own_fields(section: Section) -> dict[str, Any]:
    """Return what a modality's own rows depend on: not the modalities that it brings along."""
    values = without_later_fields(section)
    brought = getattr(section, "brings", ())
    return {name: value for name, value in values.items() if name not in brought}


def differences(old: Any, new: Any, prefix: str = "") -> list[str]:
    """List the fields in which two plain trees differ, as ``field: old -> new``."""
    if isinstance(old, dict) and isinstance(new, dict):
        lines = []
        for key in [*old, *(key for key in new if key not in old)]:
            lines += differences(old.get(key), new.get(key), f"{prefix}.{key}" if prefix else key)
        return lines
    return [] if old == new else [f"{prefix}: {old!r} -> {new!r}"]
