#!/usr/bin/env bash
# Writes the lock files from pyproject.toml: light (login node), run (both halves), dev, and for the
# image cuda (torch with CUDA and the encodec package); audit, the tool that looks for known
# vulnerabilities. torch is left out of the first three, because its build depends on the platform:
# cpu has the builds without CUDA, torch those of PyPI for all platforms, with what they need.
# Needs uv and curl. Usage: container/lock.sh
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
printf '%s\n' "torch ; python_version < '3'" "opencv-python ; python_version < '3'" >"$work/left-out"
printf '%s\n' filelock typing-extensions sympy networkx jinja2 fsspec setuptools pip >"$work/torch-needs"
compile() { # compile NAME EXTRA-ARGUMENTS...
    local name=$1
    shift
    uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --quiet \
        --override "$work/left-out" --no-emit-package sentence-transformers --no-annotate --no-header "$@" -o "container/$name.lock"
}
compile dev "$work/torch-needs" --extra run --extra dev
sed -E 's/ *\\$//; /^ +--hash/d' container/dev.lock >"$work/versions"
compile run "$work/torch-needs" --extra run -c "$work/versions"
compile light -c "$work/versions"

torch=$(sed -n 's/.*"\(torch==[0-9.]*\)".*/\1/p' pyproject.toml)
echo "$torch" >"$work/torch.in"
sed -E 's/ *\\$//; /^ +--hash/d' container/dev.lock >"$work/versions-of-all"
uv pip compile "$work/torch.in" -c "$work/versions-of-all" --universal --python-version 3.11 \
    --generate-hashes --quiet --no-annotate --no-header -o container/torch.lock
# pip prefers what a list has with its hash, so that the builds with CUDA must not be named here.
version=${torch#torch==}
hashes() { # hashes LIST PATTERN: of the builds in an index whose names match
    curl --fail --silent --show-error "$1" | grep -oE "torch-$version$2[^\"#]*#sha256=[0-9a-f]{64}" | sed 's/.*=//'
}
{
    hashes https://download.pytorch.org/whl/cpu/torch/ '%2Bcpu-cp31[1-4]-cp31[1-4]-'
    hashes https://pypi.org/simple/torch/ '-cp31[1-4]-cp31[1-4]-macosx'
} | sort >"$work/hashes"
{
    sed -n '/^#/p' container/cpu.lock
    echo "$torch \\"
    sed 's/.*/    --hash=sha256:& \\/; $ s/ \\$//' "$work/hashes"
} >"$work/cpu.lock" && mv "$work/cpu.lock" container/cpu.lock
echo 'pip-audit>=2.9' >"$work/audit.in"
uv pip compile "$work/audit.in" --universal --python-version 3.11 --generate-hashes \
    --quiet --no-annotate --no-header -o container/audit.lock
printf '%s\n' "$torch" torchaudio 'encodec>=0.1.1' >"$work/cuda.in"
sed -E 's/ *\\$//; /^ +--hash/d' container/run.lock >"$work/versions"
uv pip compile "$work/cuda.in" -c "$work/versions" --python-version 3.12 \
    --python-platform x86_64-manylinux_2_28 --generate-hashes --quiet --no-annotate --no-header \
    -o container/cuda.lock
