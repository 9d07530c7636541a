"""The benchmark runs, and what it writes by hand is what vdisk and librbd leave. No time counts."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.bars import BARS
from bench.scale import snapshot_objects, volume_objects
from cluster.support import GIB, Vdisk, image_spec, omap, opened
from harness.cluster import Cluster
from harness.releases import REPO, ensure_root

_TIMES = {"access_timestamp", "create_timestamp", "modify_timestamp"}


@pytest.mark.timeout(900)
def test_quick_run_measures_everything(release_name: str, tmp_path: Path) -> None:
    if release_name == "reef":
        pytest.skip("rbd_support cannot run tasks on this release's mgr")
    ensure_root(release_name)
    done = subprocess.run(
        [sys.executable, "-m", "bench", "--quick", "--prometheus", "--release", release_name, "--out", str(tmp_path)],
        cwd=REPO,
        env={**os.environ, "PYTHONPATH": f"{REPO}:{REPO / 'tests'}"},
        capture_output=True,
        text=True,
        timeout=800,
    )
    assert done.returncode == 0, done.stderr
    out = tmp_path / release_name
    found = json.loads((out / "results.json").read_text())
    assert {verdict["bar"] for verdict in found["bars"]} == {bar.text for bar in BARS}
    assert {row["subject"] for row in found["rows"]} == {"vdisk", "bare", "cli", "rbd_support"}
    # A Prometheus scraped all along, and in the end saw what status shows: otherwise the run would have failed.
    seen = {row["measure"]: row["value"] for row in found["rows"] if "value" in row}
    assert seen["figures that Prometheus and status agree on"] > 20
    assert seen["scrapes that failed"] < seen["scrapes"]
    assert seen["scrapes"] > 5
    assert seen["operations running, most that was scraped"] > 0
    assert "| bar | limit | measured |" in done.stdout
    assert done.stdout.strip() in (out / "results.md").read_text()
    for name in ("throughput.svg", "journal.svg"):
        assert (out / name).read_text().startswith("<svg ")


def test_what_is_written_by_hand_is_what_a_volume_leaves(cluster: Cluster, pool: str) -> None:
    vdisk = Vdisk(cluster)
    volume = vdisk("volume create", pool_spec=pool, name="pvc", size=GIB)
    shot = vdisk("snap create", image_spec=image_spec(volume), snap_name="shot")
    by_hand = volume_objects("pvc", volume["uuid"], volume["image_id"], GIB, 0.0)
    with opened(cluster, pool) as ioctx:
        fresh = vdisk("volume create", pool_spec=pool, name="fresh", size=GIB)
        header = omap(ioctx, f"rbd_header.{fresh['image_id']}")
        written = volume_objects("fresh", fresh["uuid"], fresh["image_id"], GIB, 0.0)
        synthesised = written.omap[f"rbd_header.{fresh['image_id']}"]
        # Releases from Reef on write the flags when there are any.
        assert synthesised.keys() - {"flags"} == header.keys() - {"flags"}
        for key in header.keys() - _TIMES:
            assert header[key] == synthesised[key], key
        assert all(len(header[key]) == len(synthesised[key]) for key in _TIMES)
        for oid, data in written.data.items():
            assert ioctx.read(oid) == data
        snapshot = snapshot_objects("shot", shot["uuid"], shot["image_id"])
        entry = snapshot.omap[f"csi.snap.{shot['uuid']}"]
        assert omap(ioctx, f"csi.snap.{shot['uuid']}").keys() == entry.keys()
        assert omap(ioctx, f"csi.volume.{volume['uuid']}") == by_hand.omap[f"csi.volume.{volume['uuid']}"]
        for made in (by_hand, written, snapshot):
            for oid, values in made.directories.items():
                assert omap(ioctx, oid).items() >= values.items()
