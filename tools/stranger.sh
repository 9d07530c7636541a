#!/bin/bash
# A stranger's path: the README's commands under "Try it", typed in a bare Debian that knows nothing of this
# repository, with the seconds since the first of them before each line. Then `make demo-down`.
#
#     tools/stranger.sh [SUITE]          bookworm (default), trixie or sid; needs root rights and debootstrap
#
# The Debian is a new debootstrap in a temporary directory, which is removed afterwards. It gets what this machine knows
# of its mirrors (apt's and pip's configuration, certificates) and the committed state of this repository to clone.
# Everything in it runs in a process namespace of its own and ends with it.
set -euo pipefail
cd "$(dirname "$0")/.."

suite=${1:-bookworm}
work=$(mktemp -d)
trap 'rm -rf --one-file-system "$work"' EXIT
root=$work/root

echo "a bare Debian: debootstrap --variant=minbase $suite"
debootstrap --variant=minbase --include=ca-certificates "$suite" "$root" ${VDISK_MIRROR:+"$VDISK_MIRROR"} >"$work/log" 2>&1 || {
    tail -20 "$work/log" >&2
    exit 1
}
for known in /etc/apt/apt.conf.d /etc/ssl/certs /usr/local/share/ca-certificates /etc/pip.conf /etc/resolv.conf; do
    if [ -e "$known" ]; then
        mkdir -p "$root$(dirname "$known")"
        cp -aL --no-preserve=ownership -T "$known" "$root$known" 2>/dev/null || true
    fi
done
git clone -q --bare . "$root/repository"

# The first block of commands after the heading, with this repository where its address stands.
sed -n '/^## Try it/,$p' README.md | sed -n '/^```sh/,/^```/p' | sed -e '1d' -e '/^```/,$d' \
    -e 's#URL-OF-THIS-REPOSITORY#/repository#' >"$root/root/typed"
[ -s "$root/root/typed" ] || { echo "README.md has no commands under 'Try it'" >&2; exit 1; }

unshare --mount --pid --fork --kill-child --propagation private /bin/bash -c '
    set -e
    mount -t proc proc "$1/proc"
    for dir in /dev /sys; do mount --rbind "$dir" "$1$dir"; done
    cd /
    exec chroot "$1" /usr/bin/env -u VDISK_CACHE -u VDISK_RELEASES -u PYTHONPATH -u CEPH_CONF HOME=/root \
        PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive \
        /bin/bash -c "cd; set -ev; . ./typed; : that was it; make demo-down" </dev/null
' stranger "$root" 2>&1 | {
    began=$SECONDS
    restored=
    while IFS= read -r line; do
        printf '%4d s  %s\n' $((SECONDS - began)) "$line"
        case $line in
        *"checksums are those from before the snapshot"*) restored=$((SECONDS - began)) ;;
        esac
    done
    [ -n "$restored" ] || { echo "no snapshot was restored" >&2; exit 1; }
    echo "first snapshot restored and compared after $restored s, all over after $((SECONDS - began)) s"
}
