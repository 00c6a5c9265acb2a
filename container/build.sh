#!/usr/bin/env bash
# Builds the image, and from it the SIF file for Apptainer.
#
#   container/build.sh                                    with docker, podman or buildah
#   container/build.sh --sif giblet-hpc.sif               and the SIF file
#   container/build.sh --base IMAGE --torch container/cpu.lock   on another base, without CUDA
#   container/build.sh --weights FOLDER                   with weights (container/weights/README.md)
#   container/build.sh ... -- ARGUMENT...                 further arguments for the engine's build
#
# Beside a SIF file or an archive lies the list of all that is in it (CycloneDX), FILE.cdx.json.
# An engine other than the first one found: --engine NAME. The image's name: --tag NAME.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
tag=giblet-hpc engine="" sif="" archive="" lock=container/cuda.lock
arguments=()
while [ $# -gt 0 ]; do
    case $1 in
        --base) arguments+=(--build-arg "BASE_IMAGE=${2:?}") ;;
        --torch) lock=${2:?} ;;
        --weights) arguments+=(--build-arg "WEIGHTS=${2:?}") ;;
        --tag) tag=${2:?} ;;
        --engine) engine=${2:?} ;;
        --sif) sif=${2:?} ;;
        --archive) archive=${2:?} ;;
        --) shift && arguments+=("$@") && break ;;
        *) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2 && exit 2 ;;
    esac
    shift 2
done
if [ -z "$engine" ]; then
    for candidate in docker podman buildah; do
        command -v "$candidate" >/dev/null && engine=$candidate && break
    done
fi
[ -n "$engine" ] || { echo "none of docker, podman, buildah is installed" >&2 && exit 1; }
version=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' "$root/giblet_hpc/__init__.py")
revision=$(git -C "$root" describe --always --dirty --abbrev=40 2>/dev/null || echo unknown)
pinned() { # pinned PATTERN: the version of the package in the lock
    sed -nE "s/^($1)==([0-9.]*).*/\\2/p" "$root/$lock" | head -n 1
}
cuda=$(pinned 'nvidia-cuda-runtime[-cu0-9]*' | cut -d. -f1,2)
nccl=$(pinned 'nvidia-nccl-cu[0-9]*')
# The oldest driver for each major version, from CUDA's release notes.
case $cuda in
    13.*) driver=580.65.06 ;;
    12.*) driver=525.60.13 ;;
    *) driver=none ;;
esac
arguments+=(
    --build-arg "VERSION=$version" --build-arg "REVISION=$revision" --tag "$tag"
    --build-arg "TORCH_LOCK=$lock" --build-arg "TORCH=$(pinned torch)"
    --build-arg "CUDA=${cuda:-none}" --build-arg "NCCL=${nccl:-none}"
    --build-arg "MINIMUM_DRIVER=$driver"
)
# The same sources give the same layers, whenever they are built.
stamp=$(git -C "$root" log -1 --format=%ct 2>/dev/null || echo 0)
case $engine in
    docker) SOURCE_DATE_EPOCH=$stamp docker build "${arguments[@]}" "$root" ;;
    podman) podman build --layers "${arguments[@]}" "$root" ;;
    buildah) buildah bud --layers "${arguments[@]}" "$root" ;;
esac
if [ -z "$sif" ] && [ -z "$archive" ]; then exit 0; fi

list=/opt/giblet-sbom.cdx.json
case $engine in
    docker | podman) contents=$("$engine" run --rm --network none --entrypoint cat "$tag" "$list") ;;
    buildah)
        container=$(buildah from --pull-never "$tag")
        contents=$(buildah run "$container" -- cat "$list")
        buildah rm "$container" >/dev/null
        ;;
esac
for made in "$sif" "$archive"; do
    [ -z "$made" ] || printf '%s\n' "$contents" >"$made.cdx.json"
done

work=$(mktemp -d "${TMPDIR:-/tmp}/giblet-image.XXXXXX")
trap 'rm -rf "$work"' EXIT
file=${archive:-$work/image.tar}
if [ "$engine" = docker ]; then
    docker save "$tag" --output "$file"
    kind=docker-archive
else
    "$engine" push --quiet "$tag" "oci-archive:$file"
    kind=oci-archive
fi
[ -n "$sif" ] || exit 0
apptainer build --force --build-arg "bootstrap=$kind" --build-arg "from=$file" "$sif.new" "$root/Apptainer.def"
mv "$sif.new" "$sif"
