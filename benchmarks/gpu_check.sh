#!/usr/bin/env bash
# The checks that need a GPU, in one go: the self-check, the doctor with its all-reduce over all GPUs,
# the demo over NCCL in bf16, ten steps of the dense model, and the other benchmarks. Usage: benchmarks/gpu_check.sh FOLDER-FOR-RESULTS
set -uo pipefail
out=${1:?a folder for the results}
work=$(mktemp -d)
cli="python3 -m giblet_hpc.cli"
gpus=$(nvidia-smi --list-gpus | wc -l)
set -x
python3 -m giblet_hpc.stages.selfcheck | tee "$out/selfcheck.txt"
$cli doctor --cluster local --gpus "$gpus" --job --runs "$work/runs" | tee "$out/doctor.txt"
time python3 benchmarks/dense_steps.py >"$out/dense.json" || echo "dense failed"
cat "$out/dense.json"
if [ "$gpus" -gt 1 ]; then
    time python3 benchmarks/dense_steps.py --ranks "$gpus" --width 0.5 --modes original ddp fsdp tensor \
        >"$out/modes.json" || echo "modes failed"
    cat "$out/modes.json"
fi
for name in loader waiting checkpoints full_width; do
    time python3 "benchmarks/$name.py" >"$out/$name.json" || echo "$name failed"
done
time $cli synthesize "$work/data"
common=(--config configs/demo.yaml --runs "$work/runs" --set study.root="$work/data"
    --set study.store="$work/store.zarr")
time $cli run preprocess "${common[@]}"
time python3 -m giblet_hpc.stages.torchrun --nnodes=1 --nproc-per-node=1 \
    --rdzv-backend=c10d --rdzv-endpoint=localhost:0 -m giblet_hpc.stages train "$work/runs/demo" \
    >"$out/train.log" 2>&1
grep validation "$out/train.log" | tail -2
tail -5 "$out/train.log"
time $cli run evaluate demo --runs "$work/runs" --ranks 1
$cli scores demo --runs "$work/runs" | tee "$out/scores.txt"
head -2 "$work/runs/demo/metrics.jsonl"
