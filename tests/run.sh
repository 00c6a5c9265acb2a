#!/bin/bash
# All tiers that run on this machine: what computes on two workers, then the tests on Slurm, which
# wait much, beside those of the image. Further arguments go to pytest.
set -u
python="${BIN:-.venv/bin}/python"
log=$(mktemp)
waiting=
trap 'rm -f "$log"; [ -z "$waiting" ] || kill "$waiting" 2>/dev/null' EXIT
failed=0

"$python" -m pytest -n 2 -m "not slurm and not container and not users and not gpu" "$@" || failed=1

"$python" -m pytest -m "slurm and not container and not users" "$@" >"$log" 2>&1 &
waiting=$!
# Images are built once; ordinary users are made by one test at a time.
"$python" -m pytest -m "container or users" "$@" || failed=1

wait "$waiting" || failed=1
waiting=
echo "the tests on Slurm, which ran beside the others:"
cat "$log"
exit "$failed"
