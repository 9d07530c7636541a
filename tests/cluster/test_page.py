"""The page /vdisk in a real browser, within a real dashboard: every view, every action to its effect in the cluster."""

import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import rados

from cluster.browser import Browser
from cluster.dashboard import ADMIN, PASSWORD, READER, STRANGER, Board
from cluster.support import MIB, Vdisk, image_names, image_spec, opened, set_omap
from harness.cluster import Cluster
from harness.config import FAST
from harness.releases import REPO, ensure_root
from harness.wait import wait_for

POOL, MANY = "rbd", "many"
#: Names that do harm where they become markup or code.
EVIL = "<img src=x onerror=\"document.title='hacked'\">"
COUNT = 5000


@pytest.fixture(scope="module")
def board(release_name: str) -> Iterator[Board]:
    """A cluster with vdisk and the dashboard."""
    if release_name != "tentacle":
        pytest.skip("Debian's dashboard of this release has no web interface; what the page asks of it is tested")
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
        sign_in(made, ADMIN)
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


def sign_in(browser: Browser, user: str) -> None:
    """Sign in with the dashboard's form."""
    browser.type("input[name=username]", user)
    browser.type("input[name=password]", PASSWORD)
    browser.click("input[type=submit], button[type=submit]")
    browser.until(lambda: "#/login" not in browser.driver.current_url, "the dashboard lets one in")


def go(browser: Browser, board: Board, view: str, title: str) -> None:
    """Open a view."""
    browser.open(f"{board.url}/vdisk#/{view}")
    browser.one("h1", title)


def submit(browser: Browser, button: str, **fields: str) -> None:
    """Fill in the form of the dialog and send it; returns when it is closed."""
    for name, value in fields.items():
        browser.type(f"dialog [name={name}]", value)
    browser.click("dialog button[type=submit]", button)
    browser.until(lambda: not browser.all("dialog"), f"the dialog closes after {button}")


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
    browser.shot(pictures / "dashboard-error.png")
    browser.type("dialog [name=size]", "1G")
    browser.click("dialog button", "Show plan")
    browser.says("create-image", "dialog .plan")
    assert image_names(board.cluster, POOL) == [], "a plan changes nothing"
    submit(browser, "Create")
    browser.row("pvc-1")
    made = vdisk("volume info", volume=f"{POOL}/pvc-1")
    assert made["size"] == 1024 * MIB
    # The name is taken.
    browser.click("button", "Create volume")
    browser.type("dialog [name=name]", "pvc-1")
    browser.type("dialog [name=size]", "2G")
    browser.click("dialog button[type=submit]", "Create")
    browser.says("pvc-1", "dialog [role=alert]")
    browser.click("dialog button", "Cancel")

    browser.press("pvc-1", "Snapshot")
    submit(browser, "Take snapshot", snap_name="monday")
    shot = vdisk.sealed(f"{POOL}/monday")
    browser.press("pvc-1", "Snapshots of pvc-1")
    browser.row("monday")
    browser.press("pvc-1", "Clone")
    submit(browser, "Clone", name="pvc-clone", size="2G")
    assert vdisk("volume info", volume=f"{POOL}/pvc-clone")["size"] == 2048 * MIB
    browser.press("pvc-1", "Grow")
    submit(browser, "Grow", size="3G")
    assert vdisk("volume info", volume=f"{POOL}/pvc-1")["size"] == 3072 * MIB
    browser.press("pvc-1", "Snapshots of pvc-1")
    browser.press("monday", "Restore")
    submit(browser, "Restore", name="pvc-restored")
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
    submit(browser, "Flatten")
    wait_for(lambda: vdisk("volume info", volume=f"{POOL}/pvc-restored")["depth"] == 0, 60, "it is flattened")
    browser.open(f"{board.url}/vdisk#/volume/{shot['handle']}")
    browser.one("h1", "Snapshot monday")
    if any(command == "volume revert" for command in board.get("/api/vdisk/session", ADMIN).json["commands"]):
        browser.click("button", "Revert volume")
        submit(browser, "Revert")

    go(browser, board, f"volumes/{POOL}", "Volumes")
    browser.press("pvc-clone", "Delete")
    submit(browser, "Delete")
    browser.until(lambda: not browser.all("th a", "pvc-clone"), "the row goes")
    assert vdisk.refused("volume info", volume=f"{POOL}/pvc-clone").code == "not_found"
    go(browser, board, f"trash/{POOL}", "Trash")
    browser.row("pvc-clone")
    browser.shot(pictures / "dashboard-trash.png")
    browser.press("pvc-clone", "Undelete")
    submit(browser, "Bring back", new_name="pvc-back")
    assert vdisk("volume info", volume=f"{POOL}/pvc-back")["state"] == "ready"
    browser.until(lambda: not browser.all("th", "pvc-clone"), "it is not in the trash any more")
    go(browser, board, f"volumes/{POOL}", "Volumes")
    browser.press("pvc-back", "Delete")
    submit(browser, "Delete")
    go(browser, board, f"trash/{POOL}", "Trash")
    browser.row("pvc-back")
    browser.click("button", "Empty trash")
    submit(browser, "Delete for good", older_than="0s")
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
    submit(browser, "Retry")
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


def test_schedules_where_this_version_has_them(board: Board, browser: Browser, vdisk: Vdisk, pictures: Path) -> None:
    if "schedule ls" not in board.get("/api/vdisk/session", ADMIN).json["commands"]:
        go(browser, board, "overview", "Overview")
        assert browser.all("nav a", "Schedules") == []
        assert board.get("/api/vdisk/schedule", ADMIN).status == 404
        return
    go(browser, board, "schedules", "Schedules")
    browser.says("No snapshots are scheduled.")
    browser.click("button", "Add schedule")
    submit(browser, "Add", pool_spec=f"{POOL}/ns1", interval="1d", keep="7d")
    browser.row(f"{POOL}/ns1")
    browser.shot(pictures / "dashboard-schedules.png")
    assert [item["interval"] for item in vdisk("schedule ls", pool_spec=f"{POOL}/ns1")] == ["1d"]
    browser.press(f"{POOL}/ns1", "Remove")
    submit(browser, "Remove")
    browser.says("No snapshots are scheduled.")


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
    board.cluster.create_pool(MANY)
    with opened(board.cluster, MANY) as ioctx:
        uuids = {f"pvc-{number:05}": str(uuid.uuid4()) for number in range(COUNT)}
        under_way = []
        for name, ident in uuids.items():
            with rados.WriteOpCtx() as op:
                ioctx.set_omap(op, ("csi.volname", "csi.imagename"), (name.encode(), f"csi-vol-{ident}".encode()))
                under_way.append(ioctx.operate_aio_write_op(op, f"csi.volume.{ident}"))
        for completion in under_way:
            completion.wait_for_complete()
        names = list(uuids)
        for at in range(0, COUNT, 1000):
            page = {f"csi.volume.{name}": uuids[name].encode() for name in names[at : at + 1000]}
            set_omap(ioctx, "csi.volumes.default", dict(page.items()))
    go(browser, board, f"volumes/{MANY}", "Volumes")
    browser.row("pvc-00049")
    browser.click("button", "Next")
    browser.row("pvc-00050")
    browser.says("Page 2")
    browser.shot(pictures / "dashboard-many.png")
    browser.click("button", "Previous")
    browser.row("pvc-00000")
    browser.type("input[type=search]", "pvc-0421")
    browser.click("button", "Search")
    browser.row("pvc-04219")
    browser.until(lambda: len(browser.all("tbody th a")) == 10, "only those whose names begin so")
    browser.type("input[type=search]", "pvc-04999")
    browser.click("button", "Search")
    browser.until(lambda: len(browser.all("tbody th a")) == 1, "one by its whole name")
    browser.type("input[type=search]", "nobody")
    browser.click("button", "Search")
    browser.says("No name begins with nobody.")
    board.cluster.delete_pool(MANY)


def test_keyboard_narrow_window_and_words_for_those_who_do_not_see(
    board: Board, browser: Browser, pictures: Path
) -> None:
    go(browser, board, "overview", "Overview")
    unnamed = browser.driver.execute_script(
        "return [...document.querySelectorAll('button, a, input, select')].filter((e) => !(e.textContent.trim() || "
        "e.ariaLabel || e.closest('label') || e.querySelector('img[alt]'))).map((e) => e.outerHTML)"
    )
    assert unnamed == []
    assert browser.one("nav a[aria-current=page]").text == "Overview"
    browser.driver.refresh()
    browser.says("running")
    browser.shot(pictures / "dashboard-overview.png")
    browser.driver.switch_to.active_element.send_keys("\ue004")  # Tab
    assert browser.driver.switch_to.active_element.text == "Skip to content"
    browser.driver.set_window_size(480, 900)
    try:
        for view, title in (("overview", "Overview"), (f"volumes/{POOL}", "Volumes"), (f"lineage/{POOL}", "Lineage")):
            go(browser, board, view, title)
            browser.until(lambda: not browser.all("[aria-busy]"), "it is drawn")
            assert not browser.overflows(), view
        browser.shot(pictures / "dashboard-narrow.png")
    finally:
        browser.driver.set_window_size(1280, 800)


def as_user(board: Board, tmp_path: Path, user: str | None) -> Browser:
    """Return another browser, in which a user has signed in, or nobody."""
    made = Browser(tmp_path / "profile")
    made.open(board.url)
    if user is not None:
        sign_in(made, user)
    return made


def test_one_who_may_only_look_looks(board: Board, vdisk: Vdisk, tmp_path: Path, pictures: Path) -> None:
    vdisk("volume create", pool_spec=POOL, name="for-the-eyes", size=4 * MIB)
    browser = as_user(board, tmp_path, READER)
    try:
        for view, title in ((f"volumes/{POOL}", "Volumes"), (f"trash/{POOL}", "Trash"), ("operations", "Operations"),
                            (f"findings/{POOL}", "Findings"), (f"lineage/{POOL}", "Lineage")):  # fmt: skip
            go(browser, board, view, title)
            browser.until(lambda: not browser.all("[aria-busy]"), "it is drawn")
            words = {"Create volume", "Snapshot", "Clone", "Grow", "Delete", "Restore", "Undelete", "Empty trash",
                     "Cancel", "Retry", "Repair …"}  # fmt: skip
            assert words.isdisjoint(item.text for item in browser.all("main button")), view
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
        sign_in(browser, STRANGER)
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
