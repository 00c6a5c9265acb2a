#!/usr/bin/env bash
# Downloads a model at a revision into this folder, for the image. Needs internet and `hf`, the
# command of huggingface_hub. Usage: container/weights/fetch.sh MODEL REVISION
set -euo pipefail
model=${1:?which model, such as facebook/encodec_24khz} revision=${2:?which revision: a commit, whole}
cd "$(dirname "$0")"
HF_HUB_CACHE=$PWD hf download "$model" --revision "$revision"
folder=models--${model//\//--}
if [ ! -d "$folder/snapshots/$revision" ]; then
    echo "$revision is no whole commit; there is: $(ls "$folder/snapshots")" >&2
    exit 1
fi
# What a name without a revision stands for, offline.
mkdir -p "$folder/refs"
printf %s "$revision" >"$folder/refs/main"
find . -type f ! -name SHA256SUMS ! -path ./README.md ! -path ./check.sh ! -path ./fetch.sh -exec sha256sum {} + \
    >SHA256SUMS
