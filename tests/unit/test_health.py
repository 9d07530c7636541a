"""The board of health checks."""

import logging
from typing import Any

from fake.cluster import FakeCluster
from fake.drive import uuid_of
from vdisk.engine.census import Census
from vdisk.engine.health import HealthBoard, Severity
from vdisk.model.names import Kind


def board() -> tuple[HealthBoard, list[dict[str, dict[str, Any]]]]:
    """Return a board and what it publishes."""
    published: list[dict[str, dict[str, Any]]] = []
    return HealthBoard(published.append), published


def test_the_union_of_all_checks_is_published() -> None:
    checks, published = board()
    checks.set("VDISK_B", Severity.WARNING, "two of them", ["one", "two"])
    checks.set("VDISK_A", Severity.ERROR, "broken")
    assert published[-1] == {
        "VDISK_A": {"severity": "error", "summary": "broken", "count": 1, "detail": []},
        "VDISK_B": {"severity": "warning", "summary": "two of them", "count": 2, "detail": ["one", "two"]},
    }
    checks.clear("VDISK_B")
    assert list(published[-1]) == ["VDISK_A"]
    checks.clear("VDISK_A")
    assert published[-1] == {}
    assert checks.checks() == {}


def test_only_changes_are_published() -> None:
    checks, published = board()
    checks.clear("VDISK_A")
    assert published == []
    for _ in range(3):
        checks.set("VDISK_A", Severity.WARNING, "once", ["detail"])
    assert len(published) == 1
    checks.set("VDISK_A", Severity.WARNING, "once", ["another detail"])
    assert len(published) == 2


def test_detail_is_bounded() -> None:
    checks, published = board()
    checks.set("VDISK_A", Severity.WARNING, "many", [str(number) for number in range(1000)])
    assert published[-1]["VDISK_A"]["count"] == 1000
    assert published[-1]["VDISK_A"]["detail"][-1] == "... and 950 more"
    assert len(published[-1]["VDISK_A"]["detail"]) == 51


def census(names: int, threshold: int) -> list[dict[str, dict[str, Any]]]:
    """Count a pool of so many volumes; return what was published."""
    fake = FakeCluster({"rbd": {"namespaces": ["ns1"]}})
    for number in range(names):
        fake.reserve(fake.where("rbd/ns1"), Kind.VOLUME, f"pvc-{number}", uuid_of(number))
    checks, published = board()
    limit = [threshold]
    taken = Census(fake, checks, lambda: limit[0], lambda: "default", logging.getLogger("vdisk.test"))
    taken.take()
    limit[0] = 0
    taken.take()
    return published


def test_a_directory_of_many_names_is_warned_of() -> None:
    warned, cleared = census(names=5, threshold=5)
    check = warned["VDISK_LARGE_JOURNAL"]
    assert check["severity"] == "warning"
    assert check["detail"] == ["csi.volumes.default in rbd/ns1 holds 5 names or more"]
    assert cleared == {}


def test_a_directory_of_few_names_is_not() -> None:
    assert census(names=4, threshold=5) == []
