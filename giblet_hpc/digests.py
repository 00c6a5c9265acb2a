"""Digests of what the store's arrays are made from: input files, trained weights, code."""

from __future__ import annotations

import ast
import inspect
import textwrap
from pathlib import Path
from typing import Any

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
        self._known: dict[str, Any] = read_json(self._path) if self._path.is_file() else {}

    def weights(self, name: str) -> str:
        """Return a digest of a model's folder; empty when it is a name, which stands for itself."""
        folder = Path(name)
        if not name or not folder.is_dir():
            # Path("") would be the working folder.
            return ""
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        return sha256_json({str(path.relative_to(folder)): self.of(path) for path in files})

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
