"""The board of health checks."""

from typing import Any

from vdisk.engine.health import HealthBoard, Severity


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
