#!/bin/bash
# Builds the Debian package ceph-mgr-vdisk from a clean copy of this directory: deb.sh [DIRECTORY] (default: .cache/deb).
# The same files give the same package, byte for byte. SOURCE_DATE_EPOCH is the time of the last commit unless it is set.
set -euo pipefail
cd "$(dirname "$0")/.."

out=${1:-${VDISK_CACHE:-.cache}/deb}
tools/bootstrap.sh debhelper dh-python
version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' src/vdisk_install/__init__.py)
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || stat -c %Y CHANGELOG.md)}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
copy=$work/vdisk-$version
mkdir "$copy"
# What the package is made of, and nothing that lies about beside it.
tar -c --exclude=__pycache__ CHANGELOG.md LICENSE README.md debian deploy/monitoring doc src/vdisk src/vdisk_install \
    | tar -x -C "$copy"
# The version is written down in one place, and what changed in CHANGELOG.md.
cat >"$copy/debian/changelog" <<END
vdisk ($version-1) unstable; urgency=medium

  * See changelog.gz beside this file.

 -- $(sed -n 's/^Maintainer: //p' debian/control)  $(date -R -u -d "@$SOURCE_DATE_EPOCH")
END
(cd "$copy" && umask 022 && dpkg-buildpackage --build=binary --no-sign >"$work/log" 2>&1) || {
    tail -40 "$work/log" >&2
    exit 1
}
mkdir -p "$out"
rm -f "$out"/*.deb
mv "$work"/*.deb "$out"
ls "$out"/*.deb
