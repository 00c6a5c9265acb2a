#!/usr/bin/env bash
# Installs what the container tests need, on Debian or Ubuntu as root; elsewhere says what is missing.
#
# Debian 12 has no Apptainer. The package of Debian's development release is unpacked into its
# place, and the newer C library that it wants into a folder of its own, which only Apptainer's two
# programs are told of. The machine's package lists stay as they are.
set -euo pipefail
wanted=(buildah mmdebstrap apptainer mksquashfs newuidmap podman runc dockerd docker)
missing=()
for name in "${wanted[@]}"; do
    command -v "$name" >/dev/null || missing+=("$name")
done
[ ${#missing[@]} -eq 0 ] && exit 0
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "container tests are skipped: missing ${missing[*]} (root and apt-get install them)" >&2
    exit 0
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends buildah mmdebstrap patchelf squashfs-tools \
    squashfuse fuse2fs fuse-overlayfs fuse3 uidmap crun ca-certificates podman runc >/dev/null
# Docker's engine from its own packages may be there already.
if ! command -v dockerd >/dev/null; then
    apt-get install -y -qq --no-install-recommends docker.io >/dev/null
fi
command -v apptainer >/dev/null && exit 0
if apt-cache show apptainer >/dev/null 2>&1; then
    apt-get install -y -qq --no-install-recommends apptainer >/dev/null
    exit 0
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial" "$work/archives/partial"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] \
http://deb.debian.org/debian sid main" >"$work/sources.list"
sid=(-qq -o "Dir::State::lists=$work/lists" -o "Dir::Cache=$work"
    -o "Dir::Etc::sourcelist=$work/sources.list" -o Dir::Etc::sourceparts=/dev/null
    -o APT::Sandbox::User=root)
apt-get "${sid[@]}" update
(cd "$work" && apt-get "${sid[@]}" download \
    apptainer/sid libc6/sid libseccomp2/sid libsqlite3-0/sid)
libraries=/opt/apptainer-libraries
for package in libc6 libseccomp2 libsqlite3-0; do
    dpkg-deb --extract "$work/${package}"_*.deb "$libraries"
done
dpkg-deb --extract "$work"/apptainer_*.deb "$work/apptainer"
cp -a "$work/apptainer/." /
folder=$libraries/usr/lib/x86_64-linux-gnu
for program in /usr/bin/apptainer /usr/lib/x86_64-linux-gnu/apptainer/bin/starter; do
    patchelf --set-interpreter "$folder/ld-linux-x86-64.so.2" --force-rpath --set-rpath "$folder" \
        "$program"
done
mkdir -p /var/lib/apptainer/mnt/session
# Virtual machines of this kind lack a capability that root's containers ask for otherwise.
sed -i 's/^root default capabilities = .*/root default capabilities = no/' /etc/apptainer/apptainer.conf
apptainer --version >/dev/null
