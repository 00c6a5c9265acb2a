#!/usr/bin/env bash
# The demo: a synthetic study as real files, then preprocess, train and evaluate. `make demo`.
set -euo pipefail
mkdir -p demo
if [ ! -f demo/data/answer.json ]; then
    rm -rf demo/data
    giblet-hpc synthesize demo/data
fi
giblet-hpc submit pipeline --config configs/demo.yaml --runs demo/runs --cluster local --ranks 2 --wait
giblet-hpc scores demo --runs demo/runs
