"""The page /vdisk in a real browser, within a real dashboard: every view, every action to its effect in the cluster."""

import os
import shutil
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import rbd
from selenium.webdriver.common.keys import Keys

from bench.clients import Target
from bench.scale import populate
from cluster.browser import Browser
from cluster.dashboard import ADMIN, PASSWORD, READER, STRANGER, Board
from cluster.support import GIB, MIB, Vdisk, image_names, image_spec, opened, set_omap, silent_owner
from harness.cluster import Cluster
from harness.config import FAST
from harness.releases import REPO, ensure_root
from harness.wait import wait_for

POOL, MANY = "rbd", "many"
#: Names that do harm where they become markup or code.
EVIL = "<img src=x onerror=\"document.title='hacked'\">"
COUNT = int(os.environ.get("VDISK_PAGE_VOLUMES", "5000"))
VIEWS = ["overview", *(f"{view}/{POOL}" for view in ("volumes", "snapshots", "groups", "lineage", "trash", "findings")),
         "operations", "schedules"]  # fmt: skip


@pytest.fixture(scope="module")
def board(release_name: str) -> Iterator[Board]:
    """A cluster with vdisk and the dashboard."""
    if release_name != "tentacle":
        pytest.skip("the page is the same on every release; test_dashboard.py shows it in a browser on each")
    ensure_root(release_name)
    with Cluster(release_name, conf=FAST) as cluster:
        for name, value in (("check_interval", "0"), ("check_grace", "0")):
            cluster.ceph("config", "set", "mgr", f"mgr/vdisk/{name}", value)
        cluster.create_pool(POOL, namespaces=["ns1"])
        made = Board(cluster)
        made.start()
        yield made


@pytest.fixture(scope="module")
def browser(board: Board, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser in which the administrator has signed in through the dashboard's own form."""
    made = Browser(tmp_path_factory.mktemp("chromium"))
    try:
        made.open(board.url)
        made.sign_in(ADMIN, PASSWORD)
        yield made
    finally:
        made.close()


@pytest.fixture
def vdisk(board: Board) -> Vdisk:
    """vdisk's commands as client.admin."""
    return Vdisk(board.cluster)


@pytest.fixture
def pictures(tmp_path: Path) -> Iterator[Path]:
    """Where pictures go; those that the documentation shows go there as well if VDISK_SCREENSHOTS is set."""
    yield tmp_path
    if os.environ.get("VDISK_SCREENSHOTS"):
        shown = (REPO / "doc/dashboard.md").read_text()
        for path in tmp_path.glob("*.png"):
            if f"images/{path.name}" in shown:
                shutil.copy(path, REPO / "doc/images")


@pytest.fixture(autouse=True)
def _nothing_went_wrong_in_scripts(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "browser" in request.fixturenames and "board" in request.fixturenames:
        browser: Browser = request.getfixturevalue("browser")
        if "/vdisk" in browser.driver.current_url:
            assert browser.complaints() == []
            assert not browser.overflows()
            assert "hacked" not in browser.driver.title


def go(browser: Browser, board: Board, view: str, title: str) -> None:
    """Open a view."""
    browser.open(f"{board.url}/vdisk#/{view}")
    browser.one("h1", title)


def look(browser: Browser, board: Board, view: str) -> None:
    """Open a view and wait until it is drawn."""
    browser.open(f"{board.url}/vdisk#/{view}")
    name = {"volume": "volumes"}.get(view.partition("/")[0], view.partition("/")[0])
    browser.until(lambda: browser.all(f"nav a[href='#/{name}'][aria-current]"), f"{view} is being drawn")
    browser.until(lambda: browser.all("h1") and not browser.all("[aria-busy]"), f"{view} is drawn")


def test_the_dashboard_leads_to_the_page(board: Board, browser: Browser, pictures: Path) -> None:
    link = 'Volumes and snapshots: <a href="/vdisk">vdisk</a>'
    board.cluster.ceph("dashboard", "motd", "set", "info", "0", link)
    browser.driver.refresh()
    browser.click("cd-motd a", "vdisk")
    browser.one("h1", "Overview")
    browser.says("all is well")
    loaded = "return [...document.images].every((image) => image.complete && image.naturalWidth > 0)"
    browser.until(lambda: browser.driver.execute_script(loaded), "every picture is loaded")
    browser.says(POOL)
    board.cluster.ceph("dashboard", "motd", "clear")


def test_a_volume_from_its_creation_to_its_end(board: Board, browser: Browser, vdisk: Vdisk, pictures: Path) -> None:
    go(browser, board, f"volumes/{POOL}", "Volumes")
    browser.says(f"No volumes in {POOL} yet.")
    browser.shot(pictures / "dashboard-empty.png")
    browser.click("button", "Create volume")
    browser.type("dialog [name=name]", "pvc-1")
    browser.type("dialog [name=size]", "10 parsecs")
    browser.click("dialog button[type=submit]", "Create")
    browser.says("size '10 parsecs'", "dialog [role=alert]")
    assert browser.driver.switch_to.active_element.get_attribute("name") == "size", "where the error is"
    browser.shot(pictures / "dashboard-error.png")
    browser.type("dialog [name=size]", "1G")
    browser.click("dialog summary", "Layout")
    browser.type("dialog [name=object_size]", "8M")
    browser.click("dialog button", "Show plan")
    browser.says("create-image", "dialog .plan")
    assert image_names(board.cluster, POOL) == [], "a plan changes nothing"
    browser.submit("Create")
    browser.row("pvc-1")
    made = vdisk("volume info", volume=f"{POOL}/pvc-1")
    assert made["size"] == 1024 * MIB
    with opened(board.cluster, POOL) as ioctx, rbd.Image(ioctx, made["image"]) as image:
        assert image.stat()["obj_size"] == 8 * MIB
        # Who has it open is told where it matters.
        browser.press("pvc-1", "Delete")
        browser.click("dialog button[type=submit]", "Delete")
        browser.says("client.", "dialog [role=alert] li")
        browser.shot(pictures / "dashboard-in-use.png")
        browser.click("dialog button", "Cancel")
    # The name is taken.
    browser.click("button", "Create volume")
    browser.type("dialog [name=name]", "pvc-1")
    browser.type("dialog [name=size]", "2G")
    browser.click("dialog button[type=submit]", "Create")
    browser.says("size 1073741824, not 2147483648", "dialog [role=alert] li")
    browser.click("dialog button", "Cancel")

    browser.press("pvc-1", "Snapshot")
    browser.submit("Take snapshot", snap_name="monday")
    shot = vdisk.sealed(f"{POOL}/monday")
    browser.press("pvc-1", "Snapshots of pvc-1")
    browser.row("monday")
    browser.press("pvc-1", "Clone")
    browser.submit("Clone", name="pvc-clone", size="2G")
    assert vdisk("volume info", volume=f"{POOL}/pvc-clone")["size"] == 2048 * MIB
    browser.press("pvc-1", "Grow")
    browser.submit("Grow", size="3G")
    assert vdisk("volume info", volume=f"{POOL}/pvc-1")["size"] == 3072 * MIB
    browser.press("pvc-1", "Snapshots of pvc-1")
    browser.press("monday", "Restore")
    browser.submit("Restore", name="pvc-restored")
    restored = vdisk("volume info", volume=f"{POOL}/pvc-restored")
    assert restored["source"]["handle"] == shot["handle"]
    browser.row("pvc-restored")
    browser.press("pvc-1", "Snapshots of pvc-1")
    browser.row("monday")
    browser.shot(pictures / "dashboard-volumes.png")
    browser.shot(pictures / "dashboard-volumes-dark.png", dark=True)

    # By handle, as somebody has it from Kubernetes, into the search.
    browser.type("input[type=search]", restored["handle"])
    browser.click("button", "Search")
    browser.one("h1", "Volume pvc-restored")
    browser.says("nobody")
    browser.shot(pictures / "dashboard-volume.png")
    browser.click("button", "Flatten")
    browser.submit("Flatten")
    wait_for(lambda: vdisk("volume info", volume=f"{POOL}/pvc-restored")["depth"] == 0, 60, "it is flattened")
    browser.open(f"{board.url}/vdisk#/volume/{shot['handle']}")
    browser.one("h1", "Snapshot monday")
    browser.click("button", "Revert volume")
    browser.submit("Revert", keep_for="2h")
    kept = [row for row in vdisk("trash ls", pool_spec=POOL) if row["kind"] == "volume"]
    assert len(kept) == 1, "what the volume held before"
    vdisk("trash purge", pool_spec=POOL, older_than="0s")

    go(browser, board, f"volumes/{POOL}", "Volumes")
    browser.press("pvc-clone", "Delete")
    browser.submit("Delete")
    browser.until(lambda: not browser.all("th a", "pvc-clone"), "the row goes")
    assert vdisk.refused("volume info", volume=f"{POOL}/pvc-clone").code == "not_found"
    go(browser, board, f"trash/{POOL}", "Trash")
    browser.row("pvc-clone")
    browser.shot(pictures / "dashboard-trash.png")
    browser.press("pvc-clone", "Undelete")
    browser.submit("Bring back", new_name="pvc-back")
    assert vdisk("volume info", volume=f"{POOL}/pvc-back")["state"] == "ready"
    browser.until(lambda: not browser.all("th", "pvc-clone"), "it is not in the trash any more")
    go(browser, board, f"volumes/{POOL}", "Volumes")
    browser.press("pvc-back", "Delete")
    browser.submit("Delete")
    go(browser, board, f"trash/{POOL}", "Trash")
    browser.row("pvc-back")
    browser.click("button", "Empty trash")
    browser.type("dialog [name=older_than]", "0s")
    browser.click("dialog button", "Show plan")
    browser.says("pvc-back", "dialog .plan")
    browser.submit("Delete for good")
    browser.until(lambda: not browser.all("th", "pvc-back"), "the trash is emptied")


def test_lineage_is_drawn_through_the_trash(board: Board, browser: Browser, vdisk: Vdisk, pictures: Path) -> None:
    base = vdisk("volume create", pool_spec=POOL, name="base", size=64 * MIB)
    vdisk("snap create", image_spec=image_spec(base), snap_name="golden")
    vdisk.sealed(f"{POOL}/golden")
    for name in ("web-1", "web-2"):
        vdisk("volume restore", snapshot=f"{POOL}/golden", name=name)
    vdisk("volume rm", volume=f"{POOL}/base", keep_for="1h")
    go(browser, board, f"lineage/{POOL}", "Lineage")
    browser.says("web-2")
    browser.one(".node.trashed")
    assert {"web-1", "web-2"} <= {item.text for item in browser.all(".tree ul ul a")}
    browser.shot(pictures / "dashboard-lineage.png")
    browser.click(".tree a", "web-1")
    browser.one("h1", "Volume web-1")


def test_operations_live_and_what_they_wait_for(board: Board, browser: Browser, vdisk: Vdisk, pictures: Path) -> None:
    source = vdisk("volume create", pool_spec=POOL, name="waits", size=4 * MIB)
    vdisk("snap create", image_spec=image_spec(source), snap_name="holds")
    go(browser, board, "operations", "Operations")
    removal = vdisk("volume rm", volume=f"{POOL}/waits")["operation"]
    # It appears by itself.
    browser.one(f"a[data-key='{removal}']")
    browser.says("await-children")
    browser.says("csi-snap-")
    browser.shot(pictures / "dashboard-operations.png")
    browser.click(f"a[data-key='{removal}']")
    browser.one("h1", "Operation: volume rm")
    browser.says("trash-image")
    browser.click("button", "Retry")
    browser.submit("Retry")
    vdisk("snap rm", snapshot=f"{POOL}/holds")
    browser.says("done")


def test_findings_with_evidence_and_a_repair_that_shows_its_plan_first(
    board: Board, browser: Browser, vdisk: Vdisk, pictures: Path
) -> None:
    lost = str(uuid.uuid4())
    with opened(board.cluster, POOL) as ioctx:
        values = {"csi.imagename": f"csi-vol-{lost}".encode(), "csi.volname": b"lost"}
        set_omap(ioctx, f"csi.volume.{lost}", dict(values.items()))
    go(browser, board, f"findings/{POOL}", "Findings")
    browser.click("button", "Check now")
    browser.says(lost)
    browser.shot(pictures / "dashboard-findings.png")
    browser.click("article button", "Repair …")
    browser.one("dialog .plan li")
    browser.says(lost, "dialog .plan")
    browser.shot(pictures / "dashboard-repair.png")
    with opened(board.cluster, POOL) as ioctx:
        ioctx.stat(f"csi.volume.{lost}")
    browser.click("dialog button", "Repair")
    browser.says("all agrees")
    assert vdisk("check", pool_spec=POOL, wait=30)["found"] == 0
    with opened(board.cluster, POOL) as ioctx:
        for ident in (str(uuid.uuid4()), str(uuid.uuid4())):
            values = {"csi.imagename": f"csi-vol-{ident}".encode(), "csi.volname": b"lost"}
            set_omap(ioctx, f"csi.volume.{ident}", dict(values.items()))
    browser.click("button", "Check now")
    browser.click("button", "Repair all that lose no data …")
    browser.until(lambda: len(browser.all("dialog .plan li")) == 2, "the plan of both")
    browser.click("dialog button", "Repair")
    browser.says("all agrees")
    assert vdisk("check", pool_spec=POOL, wait=30)["found"] == 0


def test_schedules(board: Board, browser: Browser, vdisk: Vdisk, pictures: Path) -> None:
    go(browser, board, "schedules", "Schedules")
    browser.says("No snapshots are scheduled.")
    browser.click("button", "Add schedule")
    browser.submit("Add", pool_spec=f"{POOL}/ns1", interval="1d", start_time="03:00", keep="7d")
    browser.row(f"{POOL}/ns1")
    browser.says("from 03:00")
    browser.shot(pictures / "dashboard-schedules.png")
    (made,) = vdisk("schedule ls", pool_spec=f"{POOL}/ns1")
    assert (made["interval"], made["keep"]) == ("1d", "7d")
    browser.press(f"{POOL}/ns1", "Remove")
    browser.submit("Remove")
    browser.says("No snapshots are scheduled.")


def test_snapshots_of_a_volume_that_is_gone(board: Board, browser: Browser, vdisk: Vdisk, pictures: Path) -> None:
    volume = vdisk("volume create", pool_spec=POOL, name="gone", size=4 * MIB)
    shot = vdisk("snap create", image_spec=image_spec(volume), snap_name="outlives-it")
    vdisk.sealed(shot["handle"])
    vdisk("volume rm", volume=volume["handle"])
    go(browser, board, f"snapshots/{POOL}", "Snapshots")
    browser.row("outlives-it")
    browser.shot(pictures / "dashboard-snapshots.png")
    # A volume id and a snapshot id look alike: either can be pasted.
    browser.type("input[type=search]", shot["handle"])
    browser.click("button", "Search")
    browser.one("h1", "Snapshot outlives-it")
    browser.says("(deleted)")
    browser.click("button", "Delete")
    browser.submit("Delete", keep_for="")
    browser.says("Not found")


def test_group_snapshots(board: Board, browser: Browser, vdisk: Vdisk, pictures: Path) -> None:
    volumes = [vdisk("volume create", pool_spec=POOL, name=f"db-{part}", size=4 * MIB) for part in ("data", "log")]
    go(browser, board, f"groups/{POOL}", "Group snapshots")
    browser.says(f"No group snapshots in {POOL} yet.")
    browser.click("button", "Take group snapshot")
    browser.submit("Take group snapshot", name="nightly", volumes="db-data, db-log")
    browser.click("th a", "nightly")
    browser.one("h1", "Group snapshot nightly")
    made = vdisk("group snap info", group=f"{POOL}/nightly")
    assert {shot["source"]["handle"] for shot in made["snapshots"]} == {volume["handle"] for volume in volumes}
    browser.until(lambda: len(browser.all("main tbody tr")) == 2, "a snapshot of each")
    browser.shot(pictures / "dashboard-group.png")
    assert "Delete" not in [item.text for item in browser.all("main tbody button")], "they go together"
    browser.click("main button", "Delete")
    browser.submit("Delete", keep_for="")
    browser.says("Not found")
    go(browser, board, f"groups/{POOL}", "Group snapshots")
    browser.says(f"No group snapshots in {POOL} yet.")
    for volume in volumes:
        vdisk("volume rm", volume=volume["handle"])


def test_an_image_is_adopted_and_released(board: Board, browser: Browser, vdisk: Vdisk) -> None:
    board.cluster.rbd("create", "--size", "16M", f"{POOL}/by-hand")
    go(browser, board, f"lineage/{POOL}", "Lineage")
    browser.click(".node.image button", "Adopt")
    browser.submit("Adopt", name="taken-in")
    browser.until(lambda: browser.all(".tree a", "taken-in"), "it is a volume")
    adopted = vdisk("volume info", volume=f"{POOL}/taken-in")
    assert adopted["image"] == "by-hand"
    browser.click(".tree a", "taken-in")
    browser.one("h1", "Volume taken-in")
    browser.click("button", "Release")
    browser.submit("Release")
    browser.says("Not found")
    assert vdisk.refused("volume info", volume=adopted["handle"]).code == "not_found"
    assert "by-hand" in image_names(board.cluster, POOL)
    board.cluster.rbd("rm", f"{POOL}/by-hand")


def test_an_operation_is_cancelled(board: Board, browser: Browser, vdisk: Vdisk) -> None:
    volume = vdisk("volume create", pool_spec=POOL, name="slow", size=4 * MIB)
    # Who holds the image's lock does not give it away until it is let go on: the snapshot is being made until then.
    with silent_owner(board.cluster, POOL, volume["image"]) as owner:
        pending = vdisk("snap create", image_spec=image_spec(volume), snap_name="never", wait=0)
        go(browser, board, "operations", "Operations")
        browser.press("snap create", "Cancel")
        browser.submit("Cancel")
        owner.send_signal(signal.SIGCONT)
        owner.communicate("", timeout=60)
    ended = wait_for(lambda: ended_operation(vdisk, pending["operation"]), 40, "it ends")
    assert ended["state"] == "failed"
    assert vdisk.refused("snap info", snapshot=f"{POOL}/never").code == "not_found"
    browser.open(f"{board.url}/vdisk#/operation/{pending['operation']}")
    browser.says("cancel")
    vdisk("volume rm", volume=volume["handle"])


def ended_operation(vdisk: Vdisk, ident: str) -> dict[str, Any] | None:
    """Return an operation if it has ended."""
    found: dict[str, Any] = vdisk("op info", id=ident)
    return found if found["state"] in ("done", "failed") else None


def test_names_with_markup_are_text_everywhere(board: Board, browser: Browser, vdisk: Vdisk) -> None:
    name = EVIL.replace("/", "")
    volume = vdisk("volume create", pool_spec=f"{POOL}/ns1", name=name, size=4 * MIB)
    vdisk("snap create", image_spec=image_spec(volume), snap_name=name)
    place = f"{POOL}%2Fns1"
    go(browser, board, f"volumes/{place}", "Volumes")
    browser.press(name, f"Snapshots of {name}")
    browser.until(lambda: len(browser.all("tbody th a", name)) == 2, "volume and snapshot")
    browser.press(name, "Clone")
    browser.says(name, "dialog")
    browser.click("dialog button", "Cancel")
    for view, title in (("volume/" + volume["handle"], f"Volume {name}"), (f"lineage/{place}", "Lineage")):
        go(browser, board, view, title)
        browser.says(name)
    vdisk("volume rm", volume=volume["handle"], keep_for="1h")
    go(browser, board, f"trash/{place}", "Trash")
    browser.row(name)
    go(browser, board, "operations", "Operations")
    browser.click("select option[value=all]")
    browser.says(name)
    assert browser.all("main img, dialog img") == []
    # Not even an element that is made on purpose can run code.
    inject = "const s = document.createElement('script'); s.textContent = 'document.title = \"hacked\"';"
    browser.driver.execute_script(inject + "document.body.append(s)")
    assert "hacked" not in browser.driver.title
    assert any("Content Security Policy" in text for text in browser.complaints())


def test_pages_and_search_among_thousands(board: Board, browser: Browser, vdisk: Vdisk, pictures: Path) -> None:
    """Journal and images of all are there, written as vdisk and librbd do (test_bench.py); some were made by vdisk."""
    cluster = board.cluster
    cluster.create_pool(MANY)
    populate(Target(cluster.conf_path, cluster.layout.keyring("client.admin")), MANY, COUNT - 10)
    for number in range(10):
        vdisk("volume create", pool_spec=MANY, name=f"filler-{COUNT - 5:07}-{number}", size=GIB)
    go(browser, board, "overview", "Overview")
    shown = shown_after(browser, f"#/volumes/{MANY}", "filler-0000049")
    assert len(browser.all("tbody td", "1 GiB")) == 50, "each with its size"
    moved = shown_after(browser, "Next", "filler-0000050")
    print(f"{COUNT} volumes: the first page is shown after {shown:.0f} ms, the next after {moved:.0f} ms")
    browser.says("Page 2")
    browser.shot(pictures / "dashboard-many.png")
    browser.click("button", "Previous")
    browser.row("filler-0000000")
    browser.type("input[type=search]", "filler-000421")
    browser.click("button", "Search")
    browser.row("filler-0004219")
    browser.until(lambda: len(browser.all("tbody th a")) == 10, "only those whose names begin so")
    browser.type("input[type=search]", "filler-0004567")
    browser.click("button", "Search")
    browser.until(lambda: len(browser.all("tbody th a")) == 1, "one by its whole name")
    browser.type("input[type=search]", "nobody")
    browser.click("button", "Search")
    browser.says("No name begins with nobody.")
    browser.type("input[type=search]", f"filler-{COUNT - 5:07}-")
    browser.click("button", "Search")
    browser.press(f"filler-{COUNT - 5:07}-7", "Grow")
    browser.submit("Grow", size="3G")
    browser.until(lambda: browser.all("tbody td", "3 GiB"), "the new size")
    cluster.delete_pool(MANY)


# Go to an address or press a button, and wait until a row's head shows a name; returns milliseconds.
_SHOWN_AFTER = """
const [where, name, done] = arguments;
const started = performance.now();
const look = () => ([...document.querySelectorAll("tbody th a")].some((link) => link.textContent === name)
  ? done(performance.now() - started) : requestAnimationFrame(look));
if (where.startsWith("#")) location.hash = where;
else [...document.querySelectorAll("button")].find((button) => button.textContent === where).click();
look();
"""


def shown_after(browser: Browser, where: str, name: str) -> float:
    """Return how many milliseconds it takes to show a name in a list."""
    browser.driver.set_script_timeout(60)
    return float(browser.driver.execute_async_script(_SHOWN_AFTER, where, name))


def test_words_for_those_who_do_not_see(board: Board, browser: Browser, pictures: Path) -> None:
    go(browser, board, "overview", "Overview")
    browser.says("running")
    browser.shot(pictures / "dashboard-overview.png")
    browser.shot(pictures / "dashboard-overview-dark.png", dark=True)
    for view in VIEWS:
        look(browser, board, view)
        unnamed = browser.driver.execute_script(
            "return [...document.querySelectorAll('button, a, input, select, th, progress')].filter((e) => "
            "!(e.textContent.trim() || e.ariaLabel || e.closest('label') || e.querySelector('img[alt]')))"
            ".map((e) => e.outerHTML)"
        )
        assert unnamed == [], view
        assert len(browser.all("h1")) == 1, view


def test_all_is_readable_and_fits_a_telephone_with_long_names(
    board: Board, browser: Browser, vdisk: Vdisk, pictures: Path
) -> None:
    long = "pvc-" + "a-very-long-name-that-somebody-thought-of-" * 2
    volume = vdisk("volume create", pool_spec=POOL, name=long, size=4 * MIB)
    vdisk("snap create", image_spec=image_spec(volume), snap_name=long)
    kept = vdisk("volume create", pool_spec=POOL, name=f"kept-{long}", size=4 * MIB)
    vdisk("volume rm", volume=kept["handle"], keep_for="1h")
    views = [*VIEWS, f"volume/{volume['handle']}"]
    for width in (1280, 480):
        browser.driver.set_window_size(width, 900)
        try:
            for view in views:
                look(browser, board, view)
                assert browser.dim() == [], view
                assert not browser.overflows(), view
                name = view.partition("/")[0]
                browser.shot(pictures / f"dashboard-{width}-{name}.png")
                browser.shot(pictures / f"dashboard-{width}-{name}-dark.png", dark=True)
            go(browser, board, f"volumes/{POOL}", "Volumes")
            browser.press(long, f"Snapshots of {long}")
            browser.until(lambda: browser.all("tr.below a", long), "its snapshot")
            assert not browser.overflows()
            browser.shot(pictures / f"dashboard-{width}-below.png")
            look(browser, board, f"volume/{volume['handle']}")
            browser.click(".bar button", "Delete")
            browser.one("dialog h2")
            assert browser.dim() == []
            assert not browser.overflows()
            browser.shot(pictures / f"dashboard-{width}-dialog.png")
            browser.click("dialog button", "Cancel")
        finally:
            browser.driver.set_window_size(1280, 800)
    vdisk("volume rm", volume=volume["handle"])
    vdisk("snap rm", snapshot=f"{POOL}/{long}")
    vdisk("trash purge", pool_spec=POOL, older_than="0s")


def test_the_keyboard_does_all(board: Board, browser: Browser, vdisk: Vdisk) -> None:
    vdisk("volume create", pool_spec=POOL, name="by-keys", size=4 * MIB)
    go(browser, board, f"volumes/{POOL}", "Volumes")
    # Anew, so that it begins at the top.
    browser.driver.refresh()
    browser.row("by-keys")
    met, unseen, wanted = browser.walk()
    assert met == wanted, "everything that one can press is met, in the order of the page"
    assert unseen == [], "what has the focus is seen"
    assert "Skip to content" in met[0]
    browser.driver.execute_script(
        "[...document.querySelectorAll('button')].find((b) => b.textContent === 'Create volume').focus()"
    )
    browser.key(Keys.ENTER)
    browser.until(lambda: focused(browser) == "pool_spec", "the first field has the focus")
    browser.key(Keys.TAB)
    assert focused(browser) == "name"
    browser.key("made-by-keys" + Keys.TAB)
    browser.key("8M" + Keys.ENTER)
    browser.row("made-by-keys")
    assert vdisk("volume info", volume=f"{POOL}/made-by-keys")["size"] == 8 * MIB
    browser.until(lambda: browser.driver.switch_to.active_element.text == "Create volume", "back where one was")
    browser.key(Keys.ENTER)
    browser.one("dialog h2")
    browser.key(Keys.ESCAPE)
    browser.until(lambda: not browser.all("dialog"), "Escape closes it")
    assert browser.driver.switch_to.active_element.text == "Create volume"
    # A row that goes takes the focus with it: the content has it then, not the top of the page.
    for name in ("by-keys", "made-by-keys"):
        browser.press(name, "Delete")
        browser.one("dialog h2")
        browser.key(Keys.ENTER)
        browser.until(lambda name=name: not browser.all("th a", name), "the row goes")
    assert browser.driver.switch_to.active_element.tag_name != "body"


def focused(browser: Browser) -> str | None:
    """Return the name of the field that has the focus."""
    return browser.driver.switch_to.active_element.get_attribute("name")


def test_a_manager_that_changes_is_told_and_the_view_goes_on(board: Board, browser: Browser) -> None:
    go(browser, board, "overview", "Overview")
    gid = board.cluster.mgr_map()["active_gid"]
    board.cluster.mgrs["x"].kill()
    browser.says("The dashboard does not answer", "#trouble")
    board.cluster.mgrs["x"].start()
    board.cluster.wait_active_mgr(not_gid=gid)
    board.wait()
    browser.until(lambda: not browser.all("#trouble .error"), "it goes on by itself")
    browser.says("all is well")


def as_user(board: Board, tmp_path: Path, user: str | None) -> Browser:
    """Return another browser, in which a user has signed in, or nobody."""
    made = Browser(tmp_path / "profile")
    made.open(board.url)
    if user is not None:
        made.sign_in(user, PASSWORD)
    return made


def test_one_who_may_only_look_looks(board: Board, vdisk: Vdisk, tmp_path: Path, pictures: Path) -> None:
    vdisk("volume create", pool_spec=POOL, name="for-the-eyes", size=4 * MIB)
    browser = as_user(board, tmp_path, READER)
    try:
        for view in VIEWS:
            look(browser, board, view)
            # Only what looks: pages, searches, checks, and what is below a volume.
            buttons = {item.text for item in browser.all("main button")}
            assert buttons <= {"Search", "Check now", "Previous", "Next", "▸"}, (view, buttons)
        browser.says("You may look, but not act.", "header")
        go(browser, board, f"volumes/{POOL}", "Volumes")
        browser.row("for-the-eyes")
        go(browser, board, f"findings/{POOL}", "Findings")
        browser.click("button", "Check now")
        browser.says("Looked at")
        sent = "return (await fetch('api/vdisk/volume/x', {method: 'DELETE', headers: {Accept: '*/*'}})).status"
        assert browser.driver.execute_script(sent) in (403, 415)
    finally:
        browser.close()


def test_one_without_the_scope_and_one_who_is_signed_out(board: Board, tmp_path: Path) -> None:
    browser = as_user(board, tmp_path, None)
    try:
        browser.open(f"{board.url}/vdisk#/volumes")
        browser.one("h1", "You are signed out")
        browser.click("main a", "Sign in")
        browser.sign_in(STRANGER, PASSWORD)
        browser.open(f"{board.url}/vdisk#/volumes")
        browser.one("h1", "No permission")
        assert browser.all("nav a") == []
    finally:
        browser.close()


def test_a_module_that_fails_is_said_and_comes_back(
    board: Board, browser: Browser, vdisk: Vdisk, pictures: Path
) -> None:
    go(browser, board, f"volumes/{POOL}", "Volumes")
    board.cluster.disable_module()
    try:
        board.wait()
        browser.open(board.url)
        browser.open(f"{board.url}/vdisk#/overview")
        browser.one("h1", "vdisk does not answer")
        browser.says("ceph mgr module enable vdisk")
        browser.shot(pictures / "dashboard-disabled.png")
    finally:
        board.cluster.enable_module()
    board.wait()
    wait_for(lambda: board.get("/api/vdisk/status", ADMIN).status == 200, 40, "vdisk answers", ignore=(OSError,))
    browser.click("button", "Try again")
    browser.one("h1", "Overview")
