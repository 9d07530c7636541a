"""The REST table: every request is a command's, every command has a request or a reason, and what is said is known."""

import json
import logging
import re

import pytest

from fake.drive import a_volume
from fake.engines import PATIENCE
from harness.releases import REPO
from vdisk.commands import remote
from vdisk.commands.access import Access
from vdisk.commands.handlers import Handlers
from vdisk.commands.remote import serve
from vdisk.commands.table import COMMANDS
from vdisk.model.errors import ERROR_CLASSES, NotReady
from vdisk.web import rest
from vdisk.web.dashboard import PAGE
from vdisk.web.rest import RESOURCES, STATUS

LOG = logging.getLogger("vdisk.test")
ALL = [resource for _, _, resources in RESOURCES for resource in resources]
BY_WORDS = {command.words: command for command in COMMANDS}
#: Commands that have no request: Prometheus has an endpoint of its own.
ELSEWHERE = {"metrics"}


def test_every_command_has_a_request():
    assert set(BY_WORDS) - {resource.words for resource in ALL} == ELSEWHERE
    assert rest.POOLS == remote.POOLS


@pytest.mark.parametrize("resource", ALL, ids=lambda resource: resource.action)
def test_paths_name_arguments_and_reading_changes_nothing(resource):
    command = BY_WORDS.get(resource.words)
    names = set() if command is None else {argument.name for argument in command.all_arguments}
    if command is not None:
        assert set(re.findall(r"\{(\w+)\}", resource.path)) <= names
        assert set(resource.without) <= names
        # A check is a reader that may repair, which its GET can not ask for.
        changes = command.changes and resource.words != "check"
        assert (resource.permission == "read") == (not changes) or resource.words == "check"
    assert (resource.method == "GET") == (resource.permission == "read")
    assert (resource.method == "DELETE") == (resource.permission == "delete")


def test_every_error_has_a_status():
    codes = {error.code for error in ERROR_CLASSES}
    assert codes - set(STATUS) <= {"internal", "disconnected", "lost_race"}
    text = (REPO / "doc/dashboard.md").read_text()
    for code, status in STATUS.items():
        if code in codes:
            assert f"`{code}`" in text, code
            assert str(status) in text, status


def test_every_request_is_described():
    text = (REPO / "doc/dashboard.md").read_text()
    for name, _, resources in RESOURCES:
        for resource in resources:
            tail = resource.path.rpartition("/")[2] if resource.path else name
            assert f"/{tail}" in text, resource
            assert resource.words == rest.POOLS or f"`{resource.words}`" in text, resource


@pytest.fixture
def handlers(fake, mgr):
    return Handlers(mgr.services, Access(mgr.service, lambda arguments: True), lambda: PATIENCE)


def test_commands_are_served_as_json(fake, mgr, handlers):
    a_volume(fake)
    (listed,) = json.loads(serve(handlers, "volume ls", '{"pool_spec": "rbd", "limit": "5", "marker": ""}', LOG))[
        "answer"
    ]
    assert listed["name"] == "pvc-1"
    error = json.loads(serve(handlers, "volume info", '{"volume": "rbd/none"}', LOG))["error"]
    assert error["code"] == "not_found"
    # Who calls can't choose the form, nor another command.
    sneaky = {"pool_spec": "rbd", "format": "plain", "prefix": "vdisk status"}
    assert json.loads(serve(handlers, "volume ls", json.dumps(sneaky), LOG))["answer"] == [listed]
    assert json.loads(serve(handlers, "explode", "{}", LOG))["error"]["code"] == "invalid_argument"
    stopping = json.loads(serve(NotReady("vdisk is stopping"), "volume ls", '{"pool_spec": "rbd"}', LOG))
    assert stopping["error"]["code"] == "not_ready"
    assert json.loads(serve(NotReady("vdisk is stopping"), "pools", "{}", LOG))["error"]


def test_pools_are_those_that_one_may_see(fake, mgr, handlers):
    (place,) = [found for found in json.loads(serve(handlers, "pools", "{}", LOG))["answer"] if found["pool"] == "rbd"]
    assert place["namespaces"] == ["ns1"]
    assert {"used", "available"} <= set(place)
    narrow = Handlers(
        mgr.services, Access(mgr.service, lambda asked: asked.get("namespace") == "ns1"), lambda: PATIENCE
    )
    assert [found["namespaces"] for found in narrow.places()] == [["ns1"]]
    assert Handlers(mgr.services, Access(mgr.service, lambda asked: False), lambda: PATIENCE).places() == []


def test_the_page_fetches_nothing_from_elsewhere_and_makes_no_markup():
    for path in PAGE.iterdir():
        text = path.read_text()
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text), path
        for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"):
            assert word not in text, (path, word)
        assert not re.search(r"<[^>]+\s(on\w+|style)=", text), path
