#!/bin/sh
# Checks a folder of weights: SHA256SUMS names every file, and each is what it was. An empty folder
# is fine. Usage: check.sh FOLDER
set -eu
cd "$1"
there=$(mktemp)
named=$(mktemp)
trap 'rm -f "$there" "$named"' EXIT
find . -type f ! -name SHA256SUMS ! -path ./README.md ! -path ./check.sh ! -path ./fetch.sh | sort >"$there"
if [ ! -s "$there" ]; then
    exit 0
fi
if [ ! -f SHA256SUMS ]; then
    echo "no SHA256SUMS beside the weights: container/weights/README.md says how it is made" >&2
    exit 1
fi
sha256sum --check --quiet SHA256SUMS
sed 's/^[0-9a-f]* [ *]//' SHA256SUMS | sort >"$named"
unnamed=$(comm -23 "$there" "$named")
if [ -n "$unnamed" ]; then
    echo "not in SHA256SUMS: $unnamed" >&2
    exit 1
fi
