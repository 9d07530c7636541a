#!/bin/bash
# Runs the cluster tests of several releases side by side: test-cluster.sh RELEASE... [-- PYTEST ARGUMENTS]
# Each release is a pytest of its own; what it says is shown when it is done, and the summaries again at the end.
set -uo pipefail
cd "$(dirname "$0")/.."

cache=${VDISK_CACHE:-.cache}
releases=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do
    releases+=("$1")
    shift
done
[ $# -gt 0 ] && shift

# A whole run leaves its results for `make matrix`; VDISK_RESULTS=again has a later run of some tests leave them, too.
results=$cache/results
mkdir -p "$results"

out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
pids=()
for release in "${releases[@]}"; do
    junit=()
    if [ $# -eq 0 ]; then
        rm -f "$results/$release".again*.xml
        junit=("--junitxml=$results/$release.xml")
    elif [ -n "${VDISK_RESULTS:-}" ]; then
        junit=("--junitxml=$results/$release.$VDISK_RESULTS.xml")
    fi
    # -o cache_dir: runs beside each other must not share what pytest remembers.
    VDISK_RELEASES=$release "$cache/venv/bin/tox" -q run --skip-pkg-install -e cluster -- \
        -o "cache_dir=$PWD/$cache/pytest-$release" "${junit[@]}" "$@" </dev/null >"$out/$release" 2>&1 &
    pids+=($!)
done
trap 'kill "${pids[@]}" 2>/dev/null; rm -rf "$out"; exit 130' INT TERM

failed=0
for i in "${!releases[@]}"; do
    wait "${pids[$i]}" || failed=1
    echo "==== ${releases[$i]}"
    cat "$out/${releases[$i]}"
done
for release in "${releases[@]}"; do
    echo "$release: $(grep -E '^(=+ )?([0-9]+ (passed|failed|errors?|skipped|deselected)|no tests ran).* in [0-9.]+s' "$out/$release" | tail -1)"
done
exit $failed
