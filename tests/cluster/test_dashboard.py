"""vdisk in the dashboard of every release: REST with its login and roles, its documentation; it harms nothing."""

import json
import re
import ssl
import subprocess
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import rbd

from cluster.browser import Browser
from cluster.dashboard import ADMIN, PASSWORD, READER, STRANGER, Board
from cluster.support import MIB, SNAPSHOT_FIELDS, VOLUME_FIELDS, Vdisk, image_names, opened
from harness.cluster import Cluster
from harness.config import FAST
from harness.releases import ensure_root
from harness.wait import wait_for
from vdisk.commands.table import COMMANDS
from vdisk.web.rest import RESOURCES

POOL = "rbd"


@pytest.fixture(scope="module")
def board(release_name: str) -> Iterator[Board]:
    """A cluster of its own with vdisk and the dashboard."""
    ensure_root(release_name)
    with Cluster(release_name, conf=FAST) as cluster:
        cluster.ceph("config", "set", "mgr", "mgr/vdisk/check_interval", "0")
        cluster.create_pool(POOL, namespaces=["ns1"])
        # A proxy may have the dashboard below another path.
        made = Board(cluster, "/ceph" if release_name == "pacific" else "")
        made.start()
        yield made


@pytest.fixture
def vdisk(board: Board) -> Vdisk:
    """vdisk's commands as client.admin."""
    return Vdisk(board.cluster)


def ok(board: Board, method: str, path: str, user: str = ADMIN, **options: Any) -> Any:
    """Send a request that has to work; returns its JSON."""
    reply = board.send(method, f"/api/vdisk{path}", user, **options)
    assert reply.status in (200, 201), (method, path, reply.status, reply.text)
    return reply.json


def refused(board: Board, method: str, path: str, status: int, user: str = ADMIN, **options: Any) -> dict[str, Any]:
    """Send a request that has to fail; returns the error's JSON."""
    reply = board.send(method, f"/api/vdisk{path}", user, **options)
    assert reply.status == status, (method, path, reply.status, reply.text)
    assert "Traceback" not in reply.text
    found: dict[str, Any] = reply.json
    return found


def test_the_whole_life_of_a_volume(board: Board, vdisk: Vdisk) -> None:
    name = "pvc-ü <b>&\"'"
    made = ok(board, "POST", "/volume", body={"pool_spec": POOL, "name": name, "size": "8M"})
    assert list(made) == VOLUME_FIELDS
    assert made.items() <= vdisk("volume info", volume=made["handle"]).items()
    handle = made["handle"]
    assert ok(board, "GET", f"/volume/{handle}")["watchers"] == []
    # A name with its pool, quoted twice as the dashboard's own routes want it.
    ok(board, "POST", "/volume", body={"pool_spec": f"{POOL}/ns1", "name": "other", "size": 4 * MIB})
    assert ok(board, "GET", f"/volume/{POOL}%252Fns1%252Fother")["name"] == "other"
    assert [item["name"] for item in ok(board, "GET", "/volume", query={"pool_spec": POOL})] == [name]
    assert ok(board, "GET", "/volume", query={"pool_spec": POOL, "limit": 1, "marker": name}) == []
    assert ok(board, "PUT", f"/volume/{handle}/size", body={"size": "16M"})["size"] == 16 * MIB
    spec = {"image_spec": f"{POOL}/{made['image']}", "snap_name": "shot"}
    shot = ok(board, "POST", "/snapshot", body=spec)
    assert list(shot) == SNAPSHOT_FIELDS
    assert [item["name"] for item in ok(board, "GET", "/snapshot", query={"pool_spec": POOL})] == ["shot"]
    vdisk.sealed(shot["handle"])
    assert ok(board, "GET", f"/snapshot/{shot['handle']}")["sealed"]
    restored = ok(board, "POST", f"/snapshot/{shot['handle']}/restore", body={"name": "restored", "size": "32M"})
    assert restored["source"]["handle"] == shot["handle"]
    assert ok(board, "POST", f"/volume/{handle}/clone", body={"name": "clone"})["source"] is not None
    (tree,) = [node for node in ok(board, "GET", "/tree", query={"pool_spec": POOL}) if node["children"]]
    assert tree["name"] == name
    operations = ok(board, "GET", "/operation")
    assert {"volume create", "snap create", "volume restore"} <= {op["kind"] for op in operations}
    assert ok(board, "GET", f"/operation/{operations[0]['id']}")["steps"]
    assert ok(board, "POST", f"/volume/{restored['handle']}/flatten", body={"dry_run": True})["steps"]
    # Nothing is changed by a plan.
    plan = ok(board, "DELETE", f"/volume/{handle}", query={"dry_run": "true"})
    assert plan["steps"][0]["step"] == "trash-image"
    gone = ok(board, "DELETE", f"/volume/{handle}", query={"keep_for": "7d"})
    assert gone["removed"] == handle
    assert [item["name"] for item in ok(board, "GET", "/trash", query={"pool_spec": POOL})] == [name]
    assert ok(board, "POST", f"/trash/{handle}/restore", body={"new_name": "back"})["handle"] == handle
    assert ok(board, "DELETE", "/trash", query={"pool_spec": POOL, "older_than": "1s"}) == {"purged": []}
    assert ok(board, "POST", f"/volume/{handle}/release")["image"] == made["image"]
    adopted = ok(board, "POST", "/adopt", body={"image_spec": f"{POOL}/{made['image']}", "name": "adopted"})
    assert adopted["name"] == "adopted"
    check = ok(board, "GET", "/check", query={"pool_spec": POOL, "wait": 30})
    assert (check["state"], check["findings"]) == ("done", [])
    assert ok(board, "POST", "/check", body={"pool_spec": POOL, "repair": True, "wait": 30})["left"] == 0
    assert ok(board, "GET", "/status")["stuck"] == 0
    (place,) = ok(board, "GET", "/pool")
    assert (place["pool"], place["namespaces"]) == (POOL, ["ns1"])
    assert place["available"] > 0
    for found in ("snapshot", "volume"):
        for item in ok(board, "GET", f"/{found}", query={"pool_spec": POOL}):
            ok(board, "DELETE", f"/{found}/{item['handle']}")
    ok(board, "DELETE", f"/volume/{POOL}%252Fns1%252Fother")
    vdisk.drained(POOL)
    assert image_names(board.cluster, POOL) == []


def test_errors_have_the_dashboards_form_and_vdisks_codes(board: Board) -> None:
    create = {"pool_spec": POOL, "name": "x"}
    for method, path, status, code, options in (
        ("GET", f"/volume/{POOL}%252Fnone", 404, "not_found", {}),
        ("GET", "/volume/nonsense", 400, "invalid_argument", {}),
        ("POST", "/volume", 400, "invalid_argument", {"body": {**create, "size": "10 parsecs"}}),
        ("POST", "/volume", 400, "invalid_argument", {"body": {**create, "name": "a/b", "size": "1G"}}),
        ("POST", "/volume", 400, "invalid_argument", {"body": {**create, "size": "1G", "colour": "red"}}),
        ("GET", "/operation/none", 404, "not_found", {}),
        ("GET", "/volume", 404, "not_found", {"query": {"pool_spec": "none"}}),
        ("GET", "/volume", 400, "invalid_argument", {"query": {"pool_spec": POOL, "limit": "many"}}),
    ):
        error = refused(board, method, path, status, **options)
        assert (error["code"], error["component"]) == (code, "vdisk"), error
        told = error["error"]
        assert list(told) == ["code", "message", "retryable", "details"]
        assert (told["code"], told["message"], told["retryable"]) == (code, error["detail"], False)
    # What the command needs and the request lacks is told by vdisk or by the dashboard itself.
    assert board.send("POST", "/api/vdisk/volume", ADMIN, body={"name": "x"}).status in (400, 404)
    assert board.send("GET", "/api/vdisk/check", ADMIN, query={"pool_spec": POOL, "repair": "true"}).status == 400


def test_an_error_tells_all_that_the_command_tells(board: Board, vdisk: Vdisk) -> None:
    made = ok(board, "POST", "/volume", body={"pool_spec": POOL, "name": "told", "size": "4M"})
    spec = f"{POOL}/{made['image']}"
    differs = refused(board, "POST", "/volume", 409, body={"pool_spec": POOL, "name": "told", "size": "8M"})["error"]
    assert differs["details"]["differs"] == ["size 4194304, not 8388608"]
    with opened(board.cluster, POOL) as ioctx, rbd.Image(ioctx, made["image"]):
        error = refused(board, "DELETE", f"/volume/{made['handle']}", 409)["error"]
    assert error["code"] == "in_use"
    (watcher,) = error["details"]["watchers"]
    assert watcher.keys() == {"address", "client", "cookie"}
    board.cluster.rbd("snap", "create", f"{spec}@by-hand")
    error = refused(board, "DELETE", f"/volume/{made['handle']}", 409)["error"]
    assert (error["code"], error["details"]["dependents"]) == ("has_dependents", ["by-hand"])
    _, out, _ = vdisk.raw("volume rm", volume=made["handle"], format="json")
    assert json.loads(out)["error"] == error
    board.cluster.rbd("snap", "rm", f"{spec}@by-hand")
    ok(board, "DELETE", f"/volume/{made['handle']}")
    vdisk.drained(POOL)


def test_paths_and_queries_are_decoded_twice(board: Board, vdisk: Vdisk) -> None:
    names = ["50%25", "50%41"]
    for name in names:
        ok(board, "POST", "/volume", body={"pool_spec": POOL, "name": name, "size": "4M"})
    quoted = urllib.parse.quote(names[0], safe="")
    (after,) = ok(board, "GET", "/volume", query={"pool_spec": POOL, "marker": quoted})
    assert after["name"] == names[1]
    for name in names:
        twice = urllib.parse.quote(urllib.parse.quote(f"{POOL}/{name}", safe=""), safe="")
        assert ok(board, "GET", f"/volume/{twice}")["name"] == name
        ok(board, "DELETE", f"/volume/{twice}")
    vdisk.drained(POOL)


def filled(path: str) -> str:
    """Return the path of a request with something for each of its parameters."""
    return re.sub(r"{[a-z]+}", "x", path)


#: Every request: (method, path below /api/vdisk, permission).
REQUESTS = [
    (resource.method, f"/{name}{resource.path}", resource.permission)
    for name, _, resources in RESOURCES
    for resource in resources
]
LOOKS = ("/session", "/status", "/pool", "/operation", f"/volume?pool_spec={POOL}", f"/snapshot?pool_spec={POOL}",
         f"/trash?pool_spec={POOL}", f"/tree?pool_spec={POOL}", f"/check?pool_spec={POOL}")  # fmt: skip


def test_roles_decide_who_may_look_and_who_may_act(board: Board) -> None:
    for path in LOOKS:
        assert board.get(f"/api/vdisk{path}").status == 401, path
        assert board.get(f"/api/vdisk{path}", STRANGER).status == 403, path
        assert board.get(f"/api/vdisk{path}", READER).status == 200, path
    for method, path, permission in REQUESTS:
        body = {} if method in ("POST", "PUT") else None
        for user, status in ((None, 401), (STRANGER, 403)) + ((READER, 403),) * (permission != "read"):
            reply = board.send(method, f"/api/vdisk{filled(path)}", user, body=body)
            assert reply.status == status, (method, path, user)
    assert ok(board, "GET", "/session", READER)["permissions"] == ["read"]
    assert ok(board, "GET", "/session")["permissions"] == ["read", "create", "update", "delete"]


def test_every_request_is_documented(board: Board) -> None:
    paths = board.get("/docs/openapi.json", accept="*/*").json["paths"]
    ours = {path: methods for path, methods in paths.items() if path.startswith("/api/vdisk")}
    for method, path, _ in REQUESTS:
        told = ours[f"/api/vdisk{path}"][method.lower()]
        assert (told["security"], told["tags"]) == ([{"jwt": []}], ["Vdisk"])
        assert told["summary"]
    create = ours["/api/vdisk/volume"]["post"]
    command = next(command for command in COMMANDS if command.words == "volume create")
    assert create["summary"] == command.help
    told = create["requestBody"]["content"]["application/json"]["schema"]
    assert set(told["properties"]) == {argument.name for argument in command.all_arguments}
    assert set(told["required"]) == {argument.name for argument in command.arguments if argument.required}
    listing = {item["name"]: item["in"] for item in ours["/api/vdisk/volume"]["get"]["parameters"]}
    assert listing == {"pool_spec": "query", "limit": "query", "marker": "query"}
    assert len(ours) == len({path for _, path, _ in REQUESTS}) + 1, "and /session"


def test_the_page_is_for_everybody_and_strict(board: Board) -> None:
    reply = board.get("/vdisk", accept="text/html")
    assert reply.status == 200
    assert reply.headers["Content-Type"].startswith("text/html")
    policy = reply.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert board.get("/vdisk/app.js", accept="*/*").headers["Content-Type"].startswith("text/javascript")
    icon = board.get("/vdisk/icon.svg", accept="*/*")
    assert icon.status == 200
    assert icon.headers["Content-Type"].startswith("image/svg+xml")
    for path in ("/vdisk/none.js", "/vdisk/..%2Frest.py", "/vdisk/%2e%2e%2frest.py"):
        assert board.get(path, accept="*/*").status == 404, path


def test_a_browser_is_led_to_the_page_and_works_there(board: Board, vdisk: Vdisk, tmp_path: Path) -> None:
    """The web interface that the release's package brings, its message of the day, and the page in its session."""
    made = vdisk("volume create", pool_spec=POOL, name="from-the-shell", size=4 * MIB)
    motd = f'Volumes and snapshots: <a href="{board.prefix}/vdisk">vdisk</a>'
    board.cluster.ceph("dashboard", "motd", "set", "info", "0", motd)
    browser = Browser(tmp_path / "profile")
    try:
        browser.open(f"{board.url}/")
        browser.sign_in(ADMIN, PASSWORD)
        browser.click("cd-motd a", "vdisk")
        browser.one("h1", "Overview")
        browser.says("all is well")
        browser.open(f"{board.url}/vdisk#/volumes/{POOL}")
        browser.press("from-the-shell", "Snapshot")
        browser.submit("Take snapshot", snap_name="by-mouse")
        shot = vdisk.sealed(f"{POOL}/by-mouse")
        assert shot["source"]["handle"] == made["handle"]
        browser.press("from-the-shell", "Delete")
        with opened(board.cluster, POOL) as ioctx, rbd.Image(ioctx, made["image"]):
            browser.click("dialog button[type=submit]", "Delete")
            browser.says("client.", "dialog [role=alert] li")
        browser.submit("Delete", keep_for="1h")
        browser.says(f"No volumes in {POOL} yet.")
        browser.open(f"{board.url}/vdisk#/groups/{POOL}")
        browser.says(
            "Several volumes at one moment." if ok(board, "GET", "/status")["group_snapshots"] else "can make none"
        )
        for view, title in (
            ("lineage", "Lineage"),
            ("trash", "Trash"),
            ("operations", "Operations"),
            ("snapshots", "Snapshots"),
        ):
            browser.open(f"{board.url}/vdisk#/{view}")
            browser.one("h1", title)
            browser.until(lambda: not browser.all("[aria-busy]"), "it is drawn")
        assert browser.complaints() == []
        assert not browser.overflows()
    finally:
        browser.close()
        board.cluster.ceph("dashboard", "motd", "clear")
    ok(board, "DELETE", f"/snapshot/{shot['handle']}")
    ok(board, "DELETE", "/trash", query={"pool_spec": POOL, "older_than": "0s"})
    vdisk.drained(POOL)


def test_without_vdisk_the_dashboard_is_unharmed_and_says_so(board: Board) -> None:
    cluster = board.cluster
    controller = cluster.layout.modules / "dashboard/controllers/vdisk.py"
    link = cluster.layout.modules / "vdisk"
    cluster.disable_module()
    try:
        board.wait()
        error = refused(board, "GET", "/status", 503)
        assert (error["code"], error["component"]) == ("unavailable", "vdisk")
        assert error["error"]["retryable"]
        assert "ceph mgr module enable vdisk" in error["detail"]
        assert board.get("/api/summary", ADMIN).status == 200
        assert board.get("/vdisk", accept="*/*").status == 200
        # The module's files are gone, as after half of an upgrade.
        target = link.readlink()
        link.unlink()
        try:
            restart(board)
            reply = board.get("/vdisk", accept="*/*")
            assert reply.status == 503
            assert "its mgr module is missing" in reply.text
            assert board.get("/api/summary", ADMIN).status == 200
        finally:
            link.symlink_to(target)
        # A controller that is broken in every way that one can think of.
        kept = controller.read_text()
        controller.write_text(kept.replace("from vdisk.web.dashboard import register", "raise MemoryError('x')"))
        restart(board)
        assert board.get("/vdisk", accept="*/*").status == 503
        assert board.get("/api/summary", ADMIN).status == 200
        controller.write_text(kept)
    finally:
        cluster.enable_module()
    board.wait()
    wait_for(lambda: board.get("/api/vdisk/status", ADMIN).status == 200, 40, "vdisk answers", ignore=(OSError,))


def restart(board: Board) -> None:
    """Restart the mgr, which loads everything anew, and wait for the dashboard."""
    restart_mgr(board.cluster)
    board.wait()


def restart_mgr(cluster: Cluster) -> None:
    """Restart the mgr."""
    gid = cluster.mgr_map()["active_gid"]
    cluster.mgrs["x"].restart()
    cluster.wait_active_mgr(not_gid=gid)


def self_signed(directory: Path) -> tuple[Path, Path]:
    """Return a new certificate for 127.0.0.1, and its key."""
    certificate, key = directory / "crt.pem", directory / "key.pem"
    made = ["-days", "2", "-nodes", "-subj", "/O=vdisk/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    argv = ["openssl", "req", "-x509", "-newkey", "rsa:2048", *made, "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(argv, check=True, capture_output=True)
    return certificate, key


def test_over_https(board: Board, vdisk: Vdisk) -> None:
    """All is there as over HTTP; but Debian 13's Reef cannot read a certificate (doc/dashboard.md)."""
    cluster = board.cluster
    before = cluster.crash_dumps()
    certificate, key = self_signed(cluster.dir)
    secure = Board(cluster, board.prefix, ssl.create_default_context(cafile=str(certificate)))
    cluster.ceph("dashboard", "set-ssl-certificate", "-i", str(certificate))
    cluster.ceph("dashboard", "set-ssl-certificate-key", "-i", str(key))
    for name, value in (("ssl_server_port", str(secure.port)), ("ssl", "true")):
        cluster.ceph("config", "set", "mgr", f"mgr/dashboard/{name}", value)
    try:
        restart_mgr(cluster)
        if cluster.release.name == "reef":
            failed = wait_for(
                lambda: cluster.mon("health", detail="detail")["checks"].get("MGR_MODULE_ERROR"), 60, "why"
            )
            assert "Module 'dashboard' has failed: PyO3 modules" in failed["detail"][0]["message"]
            cluster.wait_module()
            assert vdisk("status")["stuck"] == 0, "vdisk itself works"
            crashed = {cluster.crash(ident)["mgr_module"] for ident in cluster.crash_dumps() if ident not in before}
            assert crashed <= {"dashboard"}
            return
        secure.wait()
        made = ok(secure, "POST", "/volume", body={"pool_spec": POOL, "name": "secret", "size": "4M"})
        assert ok(secure, "GET", f"/volume/{made['handle']}")["name"] == "secret"
        refused(secure, "GET", f"/volume/{made['handle']}", 403, STRANGER)
        page = secure.get("/vdisk", READER, accept="*/*")
        assert (page.status, "vdisk" in page.text) == (200, True)
        ok(secure, "DELETE", f"/volume/{made['handle']}")
    finally:
        cluster.ceph("config", "set", "mgr", "mgr/dashboard/ssl", "false")
        restart(board)
    vdisk.drained(POOL)


def test_a_call_that_fails_inside_of_vdisk_is_an_answer(board: Board) -> None:
    """An unexpected error is told without its insides, and the next request works."""
    crashes = board.cluster.crash_dumps()
    reply = board.send("POST", "/api/vdisk/operation/x/retry", ADMIN, body={"wait": {"a": 1}})
    assert reply.status == 400
    assert json.loads(reply.text)["code"] == "invalid_argument"
    assert board.get("/api/vdisk/status", ADMIN).status == 200
    assert board.cluster.crash_dumps() == crashes


def test_debians_reef_loads_no_module_as_it_comes(release_name: str) -> None:
    """Why its manager has a stand-in for bcrypt in these tests: without it there is neither dashboard nor vdisk."""
    if release_name != "reef":
        pytest.skip("the managers of the other releases are used as their packages come")
    ensure_root(release_name)
    with Cluster(release_name, conf=FAST, module=False, env={"PYTHONPATH": ""}) as cluster:
        listed = cluster.mon("mgr module ls")["disabled_modules"]
        why = {module["name"]: module["error_string"] for module in listed if not module["can_run"]}
        for name in ("dashboard", "vdisk"):
            assert "PyO3 modules do not yet support subinterpreters" in why[name]
