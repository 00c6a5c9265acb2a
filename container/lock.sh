#!/usr/bin/env bash
# Writes the lock files from pyproject.toml: light (login node), run (both halves), dev, and for the
# image cuda (torch with CUDA and the encodec package); audit, the tool that looks for known
# vulnerabilities; and torch. torch is left out of the first three, because its build depends on
# the platform: torch.lock has the hashes of all its builds. Needs uv. Usage: container/lock.sh
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
echo "torch ; python_version < '3'" >"$work/no-torch"
printf '%s\n' filelock typing-extensions sympy networkx jinja2 fsspec setuptools pip >"$work/torch-needs"
compile() { # compile NAME EXTRA-ARGUMENTS...
    local name=$1
    shift
    uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --quiet \
        --override "$work/no-torch" --no-emit-package sentence-transformers --no-annotate --no-header "$@" -o "container/$name.lock"
}
compile dev "$work/torch-needs" --extra run --extra dev
sed -E 's/ *\\$//; /^ +--hash/d' container/dev.lock >"$work/versions"
compile run "$work/torch-needs" --extra run -c "$work/versions"
compile light -c "$work/versions"

torch=$(sed -n 's/.*"\(torch==[0-9.]*\)".*/\1/p' pyproject.toml)
echo "$torch" >"$work/torch.in"
uv pip compile "$work/torch.in" --universal --python-version 3.11 --no-deps --generate-hashes \
    --quiet --no-annotate --no-header -o "$work/torch.lock"
# Builds without CUDA are published elsewhere, with their hashes in the list.
list=https://download.pytorch.org/whl/cpu/torch/
version=${torch#torch==}
{
    sed -n 's/^ *--hash=sha256:\([0-9a-f]*\).*/\1/p' "$work/torch.lock"
    curl --fail --silent --show-error "$list" |
        sed -nE "s/.*torch-$version%2Bcpu-[^#]*#sha256=([0-9a-f]{64}).*/\1/p"
} | sort -u >"$work/hashes"
{
    sed -n '/^#/p' container/torch.lock
    echo "$torch \\"
    sed 's/.*/    --hash=sha256:& \\/; $ s/ \\$//' "$work/hashes"
} >"$work/torch.lock" && mv "$work/torch.lock" container/torch.lock
echo 'pip-audit>=2.9' >"$work/audit.in"
uv pip compile "$work/audit.in" --universal --python-version 3.11 --generate-hashes \
    --quiet --no-annotate --no-header -o container/audit.lock
printf '%s\n' "$torch" torchaudio 'encodec>=0.1.1' >"$work/cuda.in"
sed -E 's/ *\\$//; /^ +--hash/d' container/run.lock >"$work/versions"
uv pip compile "$work/cuda.in" -c "$work/versions" --python-version 3.12 \
    --python-platform x86_64-manylinux_2_28 --generate-hashes --quiet --no-annotate --no-header \
    -o container/cuda.lock
