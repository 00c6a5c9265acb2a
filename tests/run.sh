#!/bin/bash
# All tiers that run on this machine: those on Slurm, which mostly wait, beside those that compute.
# Further arguments go to pytest.
set -u
python="${BIN:-.venv/bin}/python"
log=$(mktemp)
trap 'rm -f "$log"; kill "$waiting" 2>/dev/null' EXIT
failed=0

"$python" -m pytest -m "slurm and not container and not users" "$@" >"$log" 2>&1 &
waiting=$!

# What computes gives way, so that what waits for Slurm is not late.
nice -n 5 "$python" -m pytest -n 2 -m "not slurm and not container and not users and not gpu" "$@" || failed=1
# Images are built once; ordinary users are made by one test at a time.
nice -n 5 "$python" -m pytest -m "container or users" "$@" || failed=1

wait "$waiting" || failed=1
echo "the tests on Slurm, which ran beside the others:"
cat "$log"
exit "$failed"
