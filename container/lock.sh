#!/usr/bin/env bash
# Writes the three lock files from pyproject.toml: light (login node), run (both halves), dev.
# torch is pinned by version in pyproject.toml and left out here, because its build depends on
# the platform; its own dependencies are locked. Needs uv. Usage: container/lock.sh
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
