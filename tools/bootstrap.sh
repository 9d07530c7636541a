#!/bin/bash
# Prepares a machine for development and tests: Debian packages that are missing, and a virtual environment with the
# pinned tools. Does nothing when all is there. Needs root rights only when a package is missing.
#
# `bootstrap.sh demo` installs only what the demonstration needs, and makes no environment. Other arguments are more
# packages, for what only some targets need.
set -euo pipefail
cd "$(dirname "$0")/.."

cache=${VDISK_CACHE:-.cache}
packages=(
    ceph-mon ceph-mgr ceph-osd ceph-common ceph-mgr-modules-core python3-rados python3-rbd python3-ceph-argparse
    ceph-mgr-dashboard prometheus chromium chromium-driver
    rbd-fuse debootstrap buildah e2fsprogs xfsprogs python3-venv ca-certificates procps
    "$@"
)

if [ "${1:-}" = demo ]; then
    packages=(
        ceph-mon ceph-mgr ceph-osd ceph-common ceph-mgr-modules-core python3-rados python3-rbd python3-ceph-argparse
        rbd-fuse e2fsprogs procps
    )
fi

missing=()
for package in "${packages[@]}"; do
    if [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)" != installed ]; then
        missing+=("$package")
    fi
done
if [ ${#missing[@]} -gt 0 ]; then
    # apt refuses at once while another apt runs: one of these scripts at a time, to its end, where it removes its policy.
    exec 9>>/var/lock/vdisk-bootstrap
    flock 9
    echo "installing ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    # Installing a daemon's package must not start one.
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
        trap 'rm -f "$policy"' EXIT
    fi
    apt-get update -q </dev/null
    apt-get install -y -q --no-install-recommends "${missing[@]}" </dev/null
fi

[ "${1:-}" = demo ] && exit

mkdir -p "$cache"
wanted=$(cat tools/requirements-*.txt)
if [ "$wanted" != "$(cat "$cache/venv/.installed" 2>/dev/null || true)" ]; then
    rm -rf "$cache/venv"
    /usr/bin/python3 -m venv --system-site-packages "$cache/venv"
    requirements=()
    for file in tools/requirements-*.txt; do
        requirements+=(-r "$file")
    done
    "$cache/venv/bin/python" -m pip install -q --disable-pip-version-check "${requirements[@]}" </dev/null
    printf '%s' "$wanted" >"$cache/venv/.installed"
fi
