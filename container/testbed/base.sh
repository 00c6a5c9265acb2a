#!/usr/bin/env bash
# Makes a base image without any registry: Debian with Python and the verbs providers, no CUDA.
# Usage: container/testbed/base.sh [NAME [RELEASE]]   (default localhost/giblet-base bookworm)
set -euo pipefail
name=${1:-localhost/giblet-base} release=${2:-bookworm}
buildah inspect --type image "$name" >/dev/null 2>&1 && exit 0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mmdebstrap --quiet --variant=minbase --mode=root \
    --include=python3,python3-venv,libibverbs1,ibverbs-providers,ca-certificates \
    "$release" "$work/base.tar"
container=$(buildah from scratch)
buildah add --quiet "$container" "$work/base.tar" / >/dev/null
buildah commit --quiet --rm "$container" "$name" >/dev/null
