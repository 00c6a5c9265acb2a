"""Documentation that is not true any more fails here."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from giblet_hpc.config import io as config_io
from tests.conftest import Cli

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("[bs]*/*.md")])


def commands(text: str, pattern: str) -> list[str]:
    return [line.strip().split("  ")[0] for line in re.findall(pattern, text, re.MULTILINE)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if not link.startswith("http"):
            assert (page.parent / link).exists(), link


def test_reference_is_up_to_date() -> None:
    spec = importlib.util.spec_from_file_location("make_reference", ROOT / "docs/make_reference.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (ROOT / "docs/reference/config.md").read_text() == module.config_page()
    assert (ROOT / "docs/reference/cli.md").read_text() == module.cli_page()
    assert (ROOT / "docs/reference/cluster.md").read_text() == module.cluster_page()
    assert (ROOT / "docs/reference/causes.md").read_text() == module.causes_page()


def test_example_config_of_the_how_to_is_valid() -> None:
    page = (ROOT / "docs/how-to/own-study.md").read_text()
    (example,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    config = config_io.validate(yaml.safe_load(example), source="own-study.md")
    assert config.features.modalities == ("video", "audio", "text")


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        *(
            f"docs/how-to/{name}.md"
            for name in ("sherlock", "slurm", "container", "large-networks", "failures")
        ),
    ],
)
def test_commands_of_other_pages_parse(page: str, cli: Cli) -> None:
    """Each command is dry-run, or asked for its help where it has no dry run."""
    found = commands((ROOT / page).read_text(), r"^ {4}(giblet-hpc .*)$")
    assert len(found) >= 4
    for line in found:
        words = shlex.split(line)[1:]
        if words[0] == "submit" and "--config" in words:
            place = words.index("--config") + 1
            words[place] = str(ROOT / words[place])
            words = [word for word in words if word != "--wait"] + ["--dry-run"]
            assert "giblet_hpc.stages" in cli(*words).stdout
        else:
            assert "Usage" in cli(words[0], "--help").stdout


@pytest.mark.slow
def test_the_tutorial_runs_as_written(tmp_path: Path) -> None:
    page = (ROOT / "docs/tutorial.md").read_text()
    blocks = re.findall(r"```bash\n(.*?)```", page, re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if "giblet-hpc" in line]
    assert len(lines) == 15
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    script = tmp_path / "tutorial.sh"
    script.write_text("set -e\n" + "\n".join(lines) + "\n")
    binaries = Path(sys.executable).parent
    done = subprocess.run(
        ["bash", str(script)],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{binaries}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "model r" in done.stdout
    runs = tmp_path / "tutorial" / "runs"
    assert (runs / "tutorial" / "report.html").is_file()
    assert (runs / "tutorial" / "lesions" / "video" / "index.html").is_file()
    attempts = [json.loads(f.read_text()) for f in sorted(runs.glob("longer/attempts/*/job.json"))]
    assert [attempt["outcome"] for attempt in attempts] == ["stopped", "complete", "complete"]
    assert attempts[1]["step_from"] == attempts[0]["step_to"] >= 10, "it went on from there"
