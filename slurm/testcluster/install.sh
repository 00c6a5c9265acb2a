#!/usr/bin/env bash
# Installs what the test cluster needs, on Debian or Ubuntu as root; elsewhere says what is missing.
set -euo pipefail
wanted=(slurmctld slurmd munged sbatch slurmdbd mariadbd sshd setfacl)
missing=()
for name in "${wanted[@]}"; do
    command -v "$name" >/dev/null || [ -x "/usr/sbin/$name" ] || missing+=("$name")
done
[ ${#missing[@]} -eq 0 ] && exit 0
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "tests on a real Slurm are skipped: missing ${missing[*]} (root and apt-get install them)" >&2
    exit 0
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# No daemon may start by itself: the tests start their own.
printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
chmod +x /usr/sbin/policy-rc.d
trap 'rm -f /usr/sbin/policy-rc.d' EXIT
apt-get install -y -qq --no-install-recommends \
    slurm-wlm slurmdbd munge mariadb-server openssh-server openssh-client acl >/dev/null
