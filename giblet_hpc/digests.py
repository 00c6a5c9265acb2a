"""Digests of what the store's arrays are made from: input files, trained weights, code."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

from giblet_hpc.errors import DataError
from giblet_hpc.files import REFUSED, read_json, sha256_file, sha256_json, write_json
from giblet_hpc.store import RECORDS, FeatureStore


def code_digest(*sources: Any) -> str:
    """Return a digest of code that comments, docstrings and layout do not change.

    Parameters
    ----------
    sources : modules, classes or functions
        What an array's rows depend on, and nothing else.
    """
    trees = []
    for source in sources:
        tree = ast.parse(textwrap.dedent(inspect.getsource(source)))
        for node in ast.walk(tree):
            body = getattr(node, "body", None)
            if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
                value = body[0].value
                if isinstance(value, ast.Constant) and isinstance(value.value, str):
                    del body[0]
        trees.append(ast.dump(tree))
    return sha256_json(trees)[:16]


def cached_model(name: str) -> Path:
    """Return the folder of the Hugging Face cache that a model's name stands for, offline.

    Raises
    ------
    DataError
        When it is not on this machine.
    """
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, local_files_only=True))
    except (OSError, ValueError):
        raise DataError(
            f"weights not found on this machine: {name}",
            hint=f"on a machine with internet: hf download {name}; or name a folder; "
            "the jobs themselves never go online",
        ) from None


def _is_loaded(path: Path, folder: Path) -> bool:
    """Return whether a file of a model's folder can be one that is loaded: no text about it."""
    hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
    return path.is_file() and not hidden and path.suffix != ".md"


class Digests:
    """sha256 of input files, remembered in the store by size and modification time.

    Parameters
    ----------
    store : FeatureStore
        Where they are remembered.
    """

    def __init__(self, store: FeatureStore) -> None:
        self._store = store
        self._path = store.path / RECORDS / "digests.json"
        self._expected: set[tuple[str, str]] = set()
        self._known: dict[str, Any] = read_json(self._path) if self._path.is_file() else {}

    def weights(self, name: str, *, expected: str | None = None) -> str:
        """Return a digest of a model's files; empty for no name.

        Parameters
        ----------
        name : str
            A folder, or a name in the Hugging Face cache.
        expected : str, optional
            What it has to be. The files are read anew then, once, whatever their size and time.

        Raises
        ------
        DataError
            When the model is not on this machine, or is not the expected one.
        """
        if not name:
            # Path("") would be the working folder.
            return ""
        if expected and (name, expected) in self._expected:
            return expected
        folder = Path(name) if Path(name).is_dir() else cached_model(name)
        files = sorted(path for path in folder.rglob("*") if _is_loaded(path, folder))
        of = sha256_file if expected else self.of
        digest = sha256_json({str(path.relative_to(folder)): of(path) for path in files})
        if expected and digest != expected:
            raise DataError(
                f"the weights of {name} in {folder} are others than weights_sha256 names: "
                f"{digest}, not {expected}",
                hint="see who has changed them; if these are meant, name their digest",
            )
        if expected:
            self._expected.add((name, expected))
        return digest

    def remembered(self, name: str, make: Callable[[], Any]) -> Any:
        """Return what was found out once, or find it out.

        Parameters
        ----------
        name : str
            Which says all that it depends on.
        make : callable
            Returns something that JSON can hold.
        """
        if name not in self._known:
            self._known[name] = make()
            self._remember()
        return self._known[name]

    def of(self, path: Path) -> str:
        """Return a file's sha256."""
        status = path.stat()
        key = [status.st_size, status.st_mtime_ns]
        known = self._known.get(str(path))
        if known is None or known["key"] != key:
            known = {"key": key, "sha256": sha256_file(path)}
            self._known[str(path)] = known
            self._remember()
        digest: str = known["sha256"]
        return digest

    def _remember(self) -> None:
        """Keep the digests, which only saves time: a store of others' is left as it is."""
        try:
            with self._store.shared():
                write_json(self._path, self._known)
        except OSError as error:
            if error.errno not in REFUSED:
                raise
