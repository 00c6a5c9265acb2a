"""The package's shape: layers without circles, one place for each thing, and modules of one page."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "giblet_hpc"
FILES = sorted(PACKAGE.rglob("*.py"))
MODALITIES = re.compile(r"""(==|!=|\bin\b|\bcase\b)\s*[(\[{]?\s*"(video|audio|text)\"""")


def names(folder: Path) -> Iterator[tuple[Path, str]]:
    for file in sorted(folder.rglob("*.py")):
        yield file.relative_to(ROOT), file.read_text()


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("giblet_hpc", cache_dir=None)


def test_no_module_leads_back_to_itself(graph: grimp.ImportGraph) -> None:
    """By removing, again and again, what imports nothing that is left."""
    left = {
        module: set(graph.find_modules_directly_imported_by(module)) for module in graph.modules
    }
    while free := [module for module, needs in left.items() if not needs & left.keys()]:
        for module in free:
            del left[module]
    assert not left, f"in a circle, or above one: {sorted(left)}"


def test_a_scheduler_is_named_in_its_own_folder_only() -> None:
    own = Path("giblet_hpc/jobs/schedulers")
    found = [str(file) for file, text in names(PACKAGE) if "SLURM_" in text]
    assert found
    assert not [file for file in found if not Path(file).is_relative_to(own)]


def test_nothing_decides_by_the_name_of_a_modality() -> None:
    own = (Path("giblet_hpc/modalities"), Path("giblet_hpc/config"))
    # The synthetic study plants an answer for each of the three that it makes.
    found = [
        f"{file}: {line.strip()}"
        for file, text in names(PACKAGE)
        for line in text.splitlines()
        if MODALITIES.search(line) and file.name != "synthetic.py"
        if not any(file.is_relative_to(folder) for folder in own)
    ]
    assert not found
    assert MODALITIES.search('if name == "video":') and MODALITIES.search('x in ("text", "audio")')


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_modules_and_functions_are_short(file: Path) -> None:
    text = file.read_text()
    assert text.count("\n") <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            lines = body[-1].end_lineno - body[0].lineno + 1 if body else 0  # type: ignore[operator]
            assert lines <= 40, f"{node.name} has {lines} lines"


def imported(file: Path) -> Iterator[str]:
    """Yield the modules, or what may be modules, that a file imports."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_every_module_has_a_test_that_imports_it() -> None:
    """`__main__` modules are started as processes."""
    found = {name for file in (ROOT / "tests").rglob("*.py") for name in imported(file)}
    modules = {
        ".".join(file.relative_to(ROOT).with_suffix("").parts)
        for file in FILES
        if file.name not in ("__init__.py", "__main__.py")
    }
    without = sorted(modules - found)
    assert without == []
