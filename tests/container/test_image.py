"""The built image: complete, closed to what is the host's, open to what the user sets."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

from giblet_hpc import __version__
from tests.conftest import Cli
from tests.container import building
from tests.container.building import ROOT, SITE, TAG, Built, as_builder

pytestmark = pytest.mark.container
PYTHON = "/opt/giblet/bin/python"
SELFCHECK = (PYTHON, "-m", "giblet_hpc.stages.selfcheck")


@pytest.fixture
def home(built: Built, tmp_path: Path) -> Path:
    """A folder that the ordinary user owns."""
    folder = built.folder / "sif" / tmp_path.name
    folder.mkdir()
    shutil.chown(folder, building.BUILDER, building.BUILDER)
    return folder


def test_the_checks_pass_as_an_ordinary_user(built: Built, home: Path) -> None:
    said = as_builder("apptainer", "test", str(built.sif), folder=home).stdout
    assert "FAIL" not in said
    assert f"from {Path(SITE).parents[2]}" in said
    assert "ok   verbs: libibverbs with providers" in said
    assert "ok   gpu: skipped" in said, "what could not be looked at is named"


def test_what_is_in_the_image_is_listed_beside_it(built: Built, home: Path) -> None:
    beside = json.loads((built.folder / "image.tar.cdx.json").read_text())
    command = ["apptainer", "exec", str(built.sif), "cat", "/opt/giblet-sbom.cdx.json"]
    assert json.loads(as_builder(*command, folder=home).stdout) == beside
    names = {component["name"] for component in beside["components"]}
    assert {"torch", "giblet-hpc", "libibverbs1"} <= names
    assert not names & {"pytest", "ruff"}


def test_a_broken_image_is_not_built(built: Built, home: Path) -> None:
    """The SIF file's own check is what stands between a broken image and a cluster."""
    text = (ROOT / "Apptainer.def").read_text()
    (home / "broken.py").write_text("raise ImportError('broken on purpose')\n")
    text = text.replace("{{ bootstrap }}", "localimage").replace("{{ from }}", str(built.sif))
    text = text.replace("%labels", f"%files\n    broken.py {SITE}/torch/__init__.py\n\n%labels")
    (home / "broken.def").write_text(text)
    done = as_builder("apptainer", "build", "broken.sif", "broken.def", folder=home, check=False)
    assert done.returncode != 0
    assert "broken on purpose" in done.stdout + done.stderr
    assert not (home / "broken.sif").exists()


def test_poison_on_the_host_stays_there(built: Built, home: Path) -> None:
    """PYTHONPATH and ~/.local are the usual ways in."""
    poison = "raise SystemExit('poisoned')\n"
    local = home / ".local" / "lib" / "python3.11" / "site-packages"
    for folder in (home / "path", local):
        folder.mkdir(parents=True)
        for name in ("torch", "click", "sitecustomize", "usercustomize"):
            (folder / f"{name}.py").write_text(poison)
    said = as_builder(
        "apptainer", "exec", "--home", str(home), str(built.sif), *SELFCHECK,
        folder=home, PYTHONPATH=str(home / "path"),
    ).stdout  # fmt: skip
    assert "ok   isolation: sys.path holds the image's folders only" in said
    assert "FAIL" not in said


def test_the_users_settings_win(built: Built, home: Path) -> None:
    show = "import locale, os; print(os.environ['NCCL_DEBUG'], os.environ['LANG'], locale.getpreferredencoding())"
    said = as_builder(
        "apptainer", "exec", str(built.sif), PYTHON, "-c", show,
        folder=home, NCCL_DEBUG="WARN", LANG="xx_YY",
    ).stdout  # fmt: skip
    assert said.split() == ["WARN", "C.UTF-8", "UTF-8"]
    names = as_builder("apptainer", "exec", str(built.sif), "env", folder=home).stdout
    assert "NCCL_" not in names
    assert "LD_LIBRARY_PATH=/opt" not in names


def test_any_user_without_network_on_a_root_that_cannot_be_written(built: Built) -> None:
    """As `docker run --user --read-only --network none` would start it."""
    run = ["buildah", "run", "--isolation", "chroot", "--user", "54321:54321"]
    made = subprocess.run(
        ["buildah", "from", "--pull-never", TAG], capture_output=True, text=True, check=True
    ).stdout.strip()
    try:
        root = subprocess.run(
            ["buildah", "mount", made], capture_output=True, text=True, check=True
        ).stdout.strip()
        before = {path for path in Path(root).iterdir()}
        done = subprocess.run(
            ["unshare", "--net", *run, made, "--", *SELFCHECK], capture_output=True, text=True,
            env={**os.environ, "BUILDAH_ISOLATION": "chroot"},
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        assert "FAIL" not in done.stdout
        assert {path for path in Path(root).iterdir()} == before
    finally:
        subprocess.run(["buildah", "rm", made], check=True, capture_output=True)


def test_two_processes_meet_inside(built: Built, home: Path) -> None:
    script = home / "meet.py"
    script.write_text(
        "import torch, torch.distributed as dist\n"
        "dist.init_process_group('gloo')\n"
        "total = torch.tensor([float(dist.get_rank() + 1)])\n"
        "dist.all_reduce(total)\n"
        "print(f'sum {total.item()}')\n"
        "dist.destroy_process_group()\n"
    )
    said = as_builder(
        "apptainer", "exec", "--bind", str(home), str(built.sif), PYTHON, "-m",
        "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script), folder=home,
    ).stdout  # fmt: skip
    assert said.count("sum 3.0") == 2


def test_the_entrypoint_and_the_labels(built: Built) -> None:
    said = subprocess.run(
        ["buildah", "inspect", "--type", "image", TAG], capture_output=True, text=True, check=True
    ).stdout
    config = json.loads(said)["OCIv1"]["config"]
    assert config["Entrypoint"] == ["/opt/giblet/bin/giblet-hpc"]
    assert "User" not in config
    labels = {n.rpartition(".")[2]: v for n, v in config["Labels"].items() if "giblet" in n}
    assert labels == {
        "torch": metadata.version("torch").partition("+")[0], "cuda": "none", "nccl": "none",
        "minimum-driver": "none",
    }  # fmt: skip
    assert config["Labels"]["org.opencontainers.image.version"] == __version__
    assert not any(value.startswith(("NCCL", "LD_LIBRARY_PATH")) for value in config["Env"])


def test_a_change_of_the_code_ships_little(built: Built, tmp_path: Path) -> None:
    """The layers of a rebuilt image that the first one had not, in bytes."""
    source = tmp_path / "source"
    source.mkdir()
    for name in ("Dockerfile", ".dockerignore", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("container", "giblet_hpc"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    before = layers()
    changed = source / "giblet_hpc" / "errors.py"
    changed.write_text(changed.read_text() + "\nCHANGED = True\n")
    building.build_image(source, built.folder / "wheels", "--tag", f"{TAG}-changed")
    new = {layer: size for layer, size in layers(f"{TAG}-changed").items() if layer not in before}
    assert new, "the change is in the image"
    assert sum(new.values()) < 5_000_000, new
    assert sum(before.values()) > 500_000_000


@pytest.fixture
def profile(built: Built, tmp_path: Path) -> Iterator[str]:
    """The path of a cluster profile with the SIF file."""
    file = tmp_path / "site.yaml"
    file.write_text(f"scheduler: local\nimage: {built.sif}\n")
    yield str(file)


def test_the_commands_check_and_enter_it(built: Built, profile: str, cli: Cli) -> None:
    facts = json.loads(cli("image", "check", "--cluster", profile, "--json").stdout)
    assert facts["ok"]
    assert facts["digest"] == f"sha256:{hashlib.sha256(built.sif.read_bytes()).hexdigest()}"
    assert {check["check"] for check in facts["checks"]} >= {"packages", "verbs", "gpu"}
    show = "import os, sys; print(sys.prefix, os.environ['HOME'], os.getcwd()); sys.exit(5)"
    done = cli("image", "exec", "--cluster", profile, "--", "python", "-c", show, check=False)
    assert done.stdout.split() == ["/opt/giblet", "/opt/giblet-home", str(cli.folder)]
    assert done.returncode == 5


def weights_folder(source: Path) -> Path:
    """Make weights as a hub's cache holds them, and their checksums; return their folder."""
    folder = source / "container" / "mine"
    blob = folder / "models--lab--tiny" / "blobs" / "0123"
    blob.parent.mkdir(parents=True)
    blob.write_bytes(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()
    (folder / "SHA256SUMS").write_text(f"{digest}  ./models--lab--tiny/blobs/0123\n")
    return folder


def test_weights_that_are_not_what_they_were_stop_the_build(built: Built, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".git", ".venv", "*cache*"))
    folder = weights_folder(source)

    def check() -> None:
        options = ("--weights", "container/mine", "--tag", "localhost/giblet-weights")
        building.build_image(source, built.folder / "wheels", *options,
                             engine=("--target", "weights"))  # fmt: skip

    check()
    (folder / "more").write_text("not in the list")
    with pytest.raises(AssertionError, match=r"not in SHA256SUMS: \./more"):
        check()
    (folder / "more").unlink()
    (folder / "models--lab--tiny" / "blobs" / "0123").write_bytes(b"other")
    with pytest.raises(AssertionError, match="blobs/0123: FAILED"):
        check()
    (folder / "SHA256SUMS").unlink()
    with pytest.raises(AssertionError, match="no SHA256SUMS beside the weights"):
        check()


def layers(tag: str = TAG) -> dict[str, int]:
    """Return an image's layers and their unpacked sizes."""
    said = subprocess.run(
        ["buildah", "inspect", "--type", "image", tag], capture_output=True, text=True, check=True
    ).stdout
    wanted = json.loads(said)["OCIv1"]["rootfs"]["diff_ids"]
    storage = Path(os.environ["CONTAINERS_STORAGE_CONF"]).parent / "storage"
    record = storage / "overlay-layers" / "layers.json"
    sizes = {layer["diff-digest"]: layer["diff-size"] for layer in json.loads(record.read_text())
             if "diff-digest" in layer}  # fmt: skip
    return {layer: sizes[layer] for layer in wanted}
