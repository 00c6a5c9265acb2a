"""The command that enters an image, and what identifies the image."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from giblet_hpc.config.cluster import Cluster
from giblet_hpc.errors import ConfigError, JobError
from giblet_hpc.files import read_json
from giblet_hpc.jobs.node import image
from giblet_hpc.jobs.profiles import load


@pytest.fixture
def runtimes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Programs that stand in for the three runtimes: only their names are looked up here."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("apptainer", "docker", "podman"):
        program = folder / name
        program.write_text("#!/bin/sh\necho sha256:0123\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    return folder


def entered(profile: Cluster, tmp_path: Path) -> tuple[list[str], dict[str, str]]:
    local = tmp_path / "local"
    local.mkdir(exist_ok=True)
    return image.command(
        profile,
        [image.PYTHON, "-m", "module", "an argument"],
        folders=image.Folders(
            [tmp_path / "runs", tmp_path / "study" / "store.zarr"],
            [tmp_path / "study", tmp_path / "study" / "inner", tmp_path / "runs" / "weights"],
        ),
        local=local,
        workdir=tmp_path / "runs",
        settings={"OMP_NUM_THREADS": "4"},
    )


def test_apptainer(tmp_path: Path, runtimes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NCCL_DEBUG", "WARN")
    monkeypatch.setenv("HF_TOKEN", "secret")
    profile = Cluster(
        name="c",
        image="/images/a b.sif",
        gpus_per_node=4,
        binds=("/etc/nccl.conf:/etc/nccl.conf:ro",),
    )
    command, variables = entered(profile, tmp_path)
    assert command[:4] == [str(runtimes / "apptainer"), "--silent", "exec", "--nv"]
    assert command[4:7] == ["--cleanenv", "--no-mount", "cwd"], "nothing but what is named here"
    assert command[-5:] == ["/images/a b.sif", image.PYTHON, "-m", "module", "an argument"]
    bound = [command[n + 1] for n, part in enumerate(command) if part == "--bind"]
    assert bound == [
        str(tmp_path / "local"), str(tmp_path / "runs"),
        f"{tmp_path / 'study'}:{tmp_path / 'study'}:ro", str(tmp_path / "study" / "store.zarr"),
        "/etc/nccl.conf:/etc/nccl.conf:ro",
    ]  # fmt: skip
    assert command[command.index("--home") + 1] == f"{tmp_path / 'local' / 'home'}:{image.HOME}"
    assert variables["APPTAINERENV_OMP_NUM_THREADS"] == "4"
    assert variables["APPTAINERENV_TMPDIR"] == str(tmp_path / "local" / "tmp")
    assert variables["APPTAINERENV_NCCL_DEBUG"] == "WARN", "the user's value gets in"
    assert not any(name.startswith("NCCL") for name in variables)
    assert "secret" not in variables.values()


@pytest.mark.parametrize("runtime", ["docker", "podman"])
def test_docker_and_podman(
    tmp_path: Path, runtimes: Path, monkeypatch: pytest.MonkeyPatch, runtime: str
) -> None:
    monkeypatch.setenv("NCCL_DEBUG", "WARN")
    profile = Cluster(name="c", image="giblet-hpc", runtime=runtime, gpus_per_node=2)
    command, variables = entered(profile, tmp_path)
    assert command[:2] == [str(runtimes / runtime), "run"]
    assert {"--rm", "--network=host", "--ipc=host", "--pid=host"} <= set(command)
    assert f"--user={os.getuid()}:{os.getgid()}" in command
    study = tmp_path / "study"
    assert f"--volume={study}:{study}:ro" in command, "films and scans are only read"
    assert f"--volume={study / 'store.zarr'}:{study / 'store.zarr'}" in command
    assert command[-5:] == [
        f"--entrypoint={image.PYTHON}", "giblet-hpc", "-m", "module", "an argument",
    ]  # fmt: skip
    temporary = tmp_path / "local" / "tmp"
    assert {"--env=NCCL_DEBUG", "--env=OMP_NUM_THREADS"} <= set(command)
    assert {f"--env=HOME={image.HOME}", f"--env=TMPDIR={temporary}"} <= set(command)
    assert not {"HOME", "TMPDIR"} & set(variables), "the engine's own command has its own"
    assert temporary.is_dir()
    assert f"--volume={tmp_path / 'local'}:{tmp_path / 'local'}" in command
    gpus = {"docker": "--gpus=all", "podman": "--device=nvidia.com/gpu=all"}
    assert [flag for flag in gpus.values() if flag in command] == [gpus[runtime]]
    assert not any("memlock" in part for part in command), "for RDMA alone"


@pytest.mark.parametrize("runtime", ["docker", "podman"])
def test_engines_on_a_node_with_infiniband(
    tmp_path: Path, runtimes: Path, monkeypatch: pytest.MonkeyPatch, runtime: str
) -> None:
    monkeypatch.setattr(image, "INFINIBAND", tmp_path)
    monkeypatch.setattr(image.os, "getuid", lambda: 1234)
    monkeypatch.setattr(image.os, "getgroups", lambda: [os.getgid(), 5000])
    limits = [65536, image.resource.RLIM_INFINITY]
    monkeypatch.setattr(image.resource, "getrlimit", lambda _: limits)
    command, _ = entered(Cluster(name="c", image="giblet-hpc", runtime=runtime), tmp_path)
    assert {f"--device={tmp_path}", "--ulimit=memlock=-1"} <= set(command)
    limits[1] = 65536
    limited, _ = entered(Cluster(name="c", image="giblet-hpc", runtime=runtime), tmp_path)
    assert ("--ulimit=memlock=-1" in limited) == (runtime == "docker"), "its engine is root"
    groups = [part for part in command if part.startswith("--group-add")]
    assert (
        groups == {"docker": ["--group-add=5000"], "podman": ["--group-add=keep-groups"]}[runtime]
    )
    assert ("--userns=keep-id" in command) == (runtime == "podman")
    assert not any("gpu" in part for part in command)


def test_folders_that_cannot_be_bound_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds a colon or comma"):
        image.mounts_of(image.Folders([tmp_path / "a:b"]))


def test_a_missing_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(JobError, match="apptainer is not installed on") as caught:
        entered(Cluster(name="c", image="x.sif"), tmp_path)
    assert "module load" in caught.value.hint


def test_the_digest_is_of_the_content_and_remembered(tmp_path: Path) -> None:
    sif = tmp_path / "a.sif"
    sif.write_bytes(b"one")
    profile, remembered = Cluster(name="c", image=str(sif)), tmp_path / "image.json"
    first = image.digest(profile, remembered)
    assert first == f"sha256:{hashlib.sha256(b'one').hexdigest()}"
    assert read_json(remembered)["digest"] == first
    assert image.digest(profile, remembered) == first
    sif.write_bytes(b"another")
    assert image.digest(profile, remembered) == (f"sha256:{hashlib.sha256(b'another').hexdigest()}")
    assert image.digest(Cluster(name="c"), remembered) == ""


def test_an_engine_is_asked_for_its_id(tmp_path: Path, runtimes: Path) -> None:
    profile = Cluster(name="c", image="giblet-hpc", runtime="docker")
    assert image.digest(profile, tmp_path / "image.json") == "sha256:0123"


def test_a_missing_image(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no image /nowhere/a.sif"):
        image.check(Cluster(name="c", image="/nowhere/a.sif"))


def test_an_image_is_relative_to_its_profile(tmp_path: Path) -> None:
    file = tmp_path / "site.yaml"
    file.write_text("image: images/a.sif\n")
    assert load(file).image == str(tmp_path / "images" / "a.sif")
    file.write_text("image: giblet-hpc\nruntime: docker\n")
    assert load(file).image == "giblet-hpc"


def test_an_image_that_was_exchanged_is_refused(tmp_path: Path) -> None:
    """Also one of the same size and time, which the remembered digest would not tell apart."""
    sif, remembered = tmp_path / "a.sif", tmp_path / "image.json"
    sif.write_bytes(b"one")
    status = sif.stat()
    expected = hashlib.sha256(b"one").hexdigest()
    profile = Cluster(name="c", image=str(sif), image_sha256=expected)
    assert image.digest(profile, remembered) == f"sha256:{expected}"
    sif.write_bytes(b"two")
    os.utime(sif, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(ConfigError, match="is another one than the profile names") as caught:
        image.digest(profile, remembered)
    assert "image check" in caught.value.hint


@pytest.mark.container
def test_an_image_that_the_key_has_not_signed_is_refused(tmp_path: Path) -> None:
    (tmp_path / "root" / "bin").mkdir(parents=True)
    shutil.copy("/bin/true", tmp_path / "root" / "bin")
    for name in ("lab", "other"):
        private, public = tmp_path / f"{name}.key", tmp_path / f"{name}.pem"
        make = ["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out"]
        subprocess.run([*make, str(private)], check=True)
        subprocess.run(
            ["openssl", "ec", "-in", str(private), "-pubout", "-out", str(public)],
            check=True, capture_output=True,
        )  # fmt: skip
    sif = tmp_path / "a.sif"
    build = ["apptainer", "build", str(sif), str(tmp_path / "root")]
    subprocess.run(build, check=True, capture_output=True)
    file = tmp_path / "site.yaml"
    file.write_text("image: a.sif\nimage_key: lab.pem\n")
    remembered = tmp_path / "image.json"
    with pytest.raises(ConfigError, match=r"a\.sif is not signed by .*lab\.pem: .*not found"):
        image.digest(load(file), remembered)
    sign = ["apptainer", "sign", "--key", str(tmp_path / "lab.key"), str(sif)]
    subprocess.run(sign, check=True, capture_output=True)
    assert image.digest(load(file), remembered).startswith("sha256:")
    file.write_text("image: a.sif\nimage_key: other.pem\n")
    with pytest.raises(ConfigError, match=r"is not signed by .*other\.pem"):
        image.digest(load(file), remembered)


def test_a_key_is_for_sif_files(tmp_path: Path) -> None:
    profile = Cluster(name="c", image="giblet-hpc", runtime="docker", image_key="/a.pem")
    with pytest.raises(ConfigError, match="image_key is for SIF files"):
        image.digest(profile, tmp_path / "image.json")
