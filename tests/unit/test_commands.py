"""Commands: signatures that every release's CLI can read, strict parsing, rendering, authorisation, dispatch."""

import errno
import importlib.util
import json
import logging
import sys
from functools import cache

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fake.cluster import FakeCluster
from fake.drive import GIB, a_volume, do, restored, snapshot_request, uuid_of
from fake.engines import FSID, PATIENCE, Gate, Mgr
from fake.inventory import inventory
from harness.releases import SUITES, ReleaseUnavailable, get_release
from vdisk.commands.access import Access
from vdisk.commands.arguments import DRY_RUN, WAIT, Argument, Command, parse_format
from vdisk.commands.dispatch import declarations, dispatch
from vdisk.commands.handlers import Handlers
from vdisk.commands.render import render, render_error
from vdisk.commands.table import COMMANDS
from vdisk.lifecycle.volume_create import CreateVolume
from vdisk.model import errors
from vdisk.model.errors import Denied, InUse, InvalidArgument, NotFound, NotReady
from vdisk.model.handles import Handle
from vdisk.model.layout import Layout
from vdisk.model.names import Kind
from vdisk.model.observed import Watcher
from vdisk.model.specs import NameRef, PoolSpec

LOG = logging.getLogger("vdisk.test")


# -- signatures ------------------------------------------------------------------------------------------------------


@cache
def ceph_argparse(release):
    """Import the ``ceph_argparse`` of a release, from where its packages put it."""
    path = get_release(release).path("/usr/lib/python3/dist-packages/ceph_argparse.py")
    spec = importlib.util.spec_from_file_location(f"ceph_argparse_{release}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(params=SUITES)
def parser(request):
    try:
        return ceph_argparse(request.param)
    except (ReleaseUnavailable, FileNotFoundError) as error:
        pytest.skip(str(error))


def signature(declaration):
    """Convert a declaration as the monitor does (``dump_cmd_to_json`` in common/cmdparse.cc)."""
    parts = []
    for word in declaration["cmd"].split():
        if "=" not in word:
            parts.append(word)
            continue
        described = dict(pair.split("=", 1) for pair in word.split(","))
        if "req" in described:
            described["req"] = described["req"] == "true"
        parts.append(described)
    return parts


@cache
def signatures(parser):
    return {
        f"cmd{number:03}": {"sig": parser.parse_funcsig(signature(found)), "help": found["desc"], "flags": 8}
        for number, found in enumerate(declarations())
    }


LINES = {
    "schedule add rbd/pvc-1 1h --start-time 03:00 --keep 24h7d4w3m --wait 5": {
        "pool_spec": "rbd/pvc-1",
        "interval": "1h",
        "start_time": "03:00",
        "keep": "24h7d4w3m",
        "wait": 5.0,
    },
    "schedule add rbd/ns 30m --dry-run": {"pool_spec": "rbd/ns", "interval": "30m", "dry_run": True},
    "schedule ls": {"pool_spec": None},
    "schedule ls rbd/pvc-1": {"pool_spec": "rbd/pvc-1"},
    "schedule rm rbd/pvc-1": {"interval": None},
    "schedule rm rbd 1d 03:00 --dry-run": {"interval": "1d", "start_time": "03:00", "dry_run": True},
    "schedule status rbd": {"pool_spec": "rbd"},
    "volume flatten rbd/pvc-1 --wait 60": {"volume": "rbd/pvc-1", "wait": 60.0},
    "volume revert rbd/pvc-1 rbd/snap-1 --keep-for 1d": {"snapshot": "rbd/snap-1", "keep_for": "1d"},
    "tree rbd/ns": {"pool_spec": "rbd/ns"},
    "adopt rbd/golden@v1 base-1 --dry-run": {"image_spec": "rbd/golden@v1", "name": "base-1"},
    "release rbd/golden --wait 5": {"volume": "rbd/golden", "wait": 5.0},
    "volume rm rbd/pvc-1 --keep-for 7d --dry-run": {"keep_for": "7d", "dry_run": True},
    "trash ls rbd/ns": {"pool_spec": "rbd/ns"},
    "trash restore rbd/10aa3aa335f8 pvc-9 --wait 0": {"id": "rbd/10aa3aa335f8", "new_name": "pvc-9", "wait": 0.0},
    "trash purge rbd --older-than 3d --keep-last 2 --threshold 0.8": {
        "older_than": "3d",
        "keep_last": 2,
        "threshold": 0.8,
    },
    "check rbd/ns --repair --finding 0123456789ab,abcdef012345 --wait 60": {
        "pool_spec": "rbd/ns",
        "repair": True,
        "finding": "0123456789ab,abcdef012345",
    },
    "check rbd --dry-run": {"pool_spec": "rbd", "dry_run": True},
    "volume create rbd pvc-1 --size 10G --dry-run --wait 0": {"size": "10G", "dry_run": True, "wait": 0.0},
    "volume create rbd/ns pvc-1 10G": {"pool_spec": "rbd/ns", "name": "pvc-1", "size": "10G"},
    "volume create rbd pvc-1 --size=1 --image-features layering,exclusive-lock": {
        "image_features": "layering,exclusive-lock"
    },
    "volume create rbd p --size 1G --object-size 8M --stripe-unit 64K --stripe-count 16 --data-pool ec": {
        "stripe_count": 16,
        "data_pool": "ec",
    },
    "volume restore rbd/snapshot-1 pvc-2 --pool-spec other/ns --size 20G": {"pool_spec": "other/ns", "size": "20G"},
    "volume clone rbd/pvc-1 pvc-2 --dry-run": {"volume": "rbd/pvc-1", "dry_run": True},
    "volume ls rbd --limit 10 --marker pvc-1": {"limit": 10, "marker": "pvc-1"},
    "volume info rbd/pvc-1": {"volume": "rbd/pvc-1"},
    "volume resize rbd/pvc-1 20G --wait 1.5": {"size": "20G", "wait": 1.5},
    "volume rm rbd/pvc-1 --wait=0": {"wait": 0.0},
    "snap create rbd/image snapshot-1 --wait 0 --dry-run": {"image_spec": "rbd/image", "dry_run": True},
    "snap ls rbd": {"pool_spec": "rbd"},
    "snap ls --image-spec rbd/image --limit 1": {"image_spec": "rbd/image", "limit": 1},
    "snap info rbd/image@snapshot-1": {"snapshot": "rbd/image@snapshot-1"},
    "snap rm rbd/snapshot-1": {"snapshot": "rbd/snapshot-1"},
    "group snap create shot rbd/pvc-1,rbd/pvc-2 --wait 0": {"name": "shot", "volumes": "rbd/pvc-1,rbd/pvc-2"},
    "group snap ls rbd/ns --limit 1": {"pool_spec": "rbd/ns", "limit": 1},
    "group snap info rbd/shot": {"group": "rbd/shot"},
    "group snap rm rbd/shot --keep-for 7d": {"group": "rbd/shot", "keep_for": "7d"},
    "op ls": {},
    "op ls --ids a,b": {"ids": "a,b"},
    "op info some-id": {},
    "op cancel some-id --dry-run": {"dry_run": True},
    "op retry some-id --wait 0": {"wait": 0.0},
    "status": {},
    "metrics": {},
}


@pytest.mark.parametrize("line", LINES)
def test_the_cli_of_each_release_understands_command_lines(parser, line):
    found = parser.validate_command(signatures(parser), ["vdisk", *line.split()])
    assert found, line
    command = next(command for command in COMMANDS if command.prefix == found["prefix"])
    parsed = command.parse({key: value for key, value in found.items() if key != "flags"})
    for name, value in LINES[line].items():
        assert parsed[name] == value, name


def test_every_command_has_a_line_in_this_test():
    for command in COMMANDS:
        assert any(line == command.words or line.startswith(command.words + " ") for line in LINES), command.words


@pytest.mark.parametrize(
    "line",
    ["volume create rbd", "volume create", "volume ls", "volume resize rbd/pvc-1", "snap create rbd/i", "op info"],
)
def test_the_cli_of_each_release_refuses_incomplete_lines(parser, line, capsys):
    assert not parser.validate_command(signatures(parser), ["vdisk", *line.split()])


def test_the_cli_of_each_release_can_write_help(parser):
    for found in signatures(parser).values():
        assert parser.concise_sig(found["sig"])


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.words)
def test_signatures_keep_the_rules_that_spare_the_cli(command):
    names = [argument.name for argument in command.all_arguments]
    assert len(set(names)) == len(names)
    bools = [index for index, argument in enumerate(command.all_arguments) if argument.type == "bool"]
    if bools:
        assert not any(argument.required for argument in command.all_arguments[bools[0] :])
    assert not any(argument.required for argument in command.all_arguments if argument.type == "bool")
    for argument in command.all_arguments:
        assert argument.required or argument.name not in ("name", "id", "watch", "block", "period", "format")
        assert argument.name.isidentifier()
        assert argument.help.strip() or argument.name == "pool_spec"
        assert "," not in argument.signature().replace(",type=", "").replace(",req=", "")
    required = [argument.required for argument in command.all_arguments]
    assert required == sorted(required, reverse=True), "required arguments first"
    assert command.help.strip()
    assert command.declaration()["perm"] == ("rw" if command.changes else "r")
    assert set(command.declaration()) == {"cmd", "desc", "perm", "poll"}
    assert callable(getattr(Handlers, command.handler))


def test_prefixes_are_unique():
    assert len({command.prefix for command in COMMANDS}) == len(COMMANDS)


def test_changing_commands_take_wait_and_dry_run():
    for command in COMMANDS:
        if command.changes:
            assert command.all_arguments[-1] == DRY_RUN
            assert WAIT in command.all_arguments


# -- parsing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "value", "parsed"),
    [
        ("string", "x", "x"),
        ("string", "None", "None"),
        ("size", 7, 7),
        ("size", "7G", "7G"),
        ("int", 7, 7),
        ("int", "7", 7),
        ("float", 7, 7.0),
        ("float", "0.5", 0.5),
        ("bool", True, True),
        ("bool", "false", False),
        ("bool", "True", True),
    ],
)
def test_values_are_taken_in_their_type(kind, value, parsed):
    got = Argument("a", kind).parse(value)
    assert got == parsed
    assert type(got) is type(parsed)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        *[("string", value) for value in ("", 1, True, [], {}, 1.5)],
        *[("size", value) for value in (True, 1.5, [], {})],
        *[("int", value) for value in (True, 1.0, "x", "1.5", [], {}, float("inf"), "9" * 5000)],
        *[("float", value) for value in (True, "x", [], {}, float("inf"), float("nan"), "nan", "1e999")],
        *[("bool", value) for value in (1, 0, "yes", "", [], {}, "1")],
    ],
)
def test_values_of_another_type_are_invalid(kind, value):
    with pytest.raises(InvalidArgument, match=r"^a "):
        Argument("a", kind).parse(value)


def test_a_number_beyond_floats_is_invalid():
    with pytest.raises(InvalidArgument, match=r"^a "):
        Argument("a", "float").parse(10**400)


COMMAND = Command("test", "op_ls", "help", (Argument("need", required=True), Argument("may", "int")), changes=True)


def test_arguments_are_checked_strictly():
    base = {"prefix": "vdisk test", "target": ["mon-mgr", ""], "format": "json", "need": "x"}
    assert COMMAND.parse(base) == {"need": "x", "may": None, "wait": None, "dry_run": None}
    for wrong, word in (
        ({**base, "need": None}, "need is missing"),
        ({**base, "nead": "x"}, "unknown argument 'nead'"),
        ({**base, "wait": -1}, "wait"),
        ({**base, "wait": 3601}, "wait"),
        ({**base, "dry_run": "perhaps"}, "dry_run"),
    ):
        with pytest.raises(InvalidArgument, match=word):
            COMMAND.parse(wrong)


def test_formats_are_plain_json_and_json_pretty():
    assert [parse_format({"format": text}) for text in ("plain", "json", "json-pretty", "", None)] == [
        *["plain", "json", "json-pretty", "plain", "plain"]
    ]
    for bad in ("yaml", 1, ["json"], {"json": 1}):
        with pytest.raises(InvalidArgument):
            parse_format({"format": bad})


# -- rendering -------------------------------------------------------------------------------------------------------


def test_lists_are_tables_with_the_columns_of_the_command():
    rows = [{"name": "名", "size": 1 << 30, "sealed": True, "source": {"image": "i"}, "more": 1}, {"name": "b"}]
    assert render(rows, "plain", ("name", "size", "sealed", "source.image")).splitlines() == [
        "NAME  SIZE   SEALED  SOURCE",
        "名     1 GiB  yes     i",
        "b     -      -       -",
    ]
    assert render([], "plain", ("name",)) == ""
    assert json.loads(render(rows, "json")) == rows
    assert json.loads(render(rows, "json-pretty")) == rows


def test_objects_are_blocks():
    shown = render(
        {"name": "a", "size": 1536, "source": {"kind": "image", "handle": None}, "none": {}, "list": ["x", "y"],
         "parents": [{"image": "p", "size": 1}], "empty": []},
        "plain",
    )  # fmt: skip
    assert shown.splitlines() == [
        "name:    a",
        "size:    1.5 KiB",
        "source:",
        "  kind:   image",
        "  handle: -",
        "none:    -",
        "list:    x, y",
        "parents:",
        "  - image: p",
        "    size:  1 B",
        "empty:   -",
    ]


def test_errors_are_one_line_and_json_for_programs():
    error = InUse("in use by a\nb", watchers=[{"address": "a"}])
    assert render_error(error, "plain") == (-errno.EBUSY, "", "in_use: in use by a b")
    for form in ("json", "json-pretty"):
        number, out, status = render_error(error, form)
        assert (number, status) == (-errno.EBUSY, "in_use: in use by a b")
        assert json.loads(out) == error.to_dict()


# -- authorisation ---------------------------------------------------------------------------------------------------


def caps(*grants):
    """Return ``is_authorized`` as the mgr decides it: each grant names a pool, perhaps a namespace."""

    def authorized(arguments):
        return any(all(arguments.get(key) == value for key, value in grant.items()) for grant in grants)

    return authorized


ADMIN = caps({})
TENANT = caps({"pool": "rbd", "namespace": "ns1"})


def handle(fake, number=1, cluster=FSID, pool="rbd"):
    return Handle(cluster, fake.where(pool).pool_id, uuid_of(number))


def outcome(function, *args):
    try:
        return function(*args)
    except errors.VdiskError as error:
        return type(error), error.message, error.details


def test_handles_lead_to_what_the_caller_may_see(fake, mgr):
    a_volume(fake, 1, "pvc-1", "rbd/ns1")
    found = Access(mgr.service, TENANT).find(Kind.VOLUME, handle(fake))
    assert (str(found.where), found.name) == ("rbd/ns1", "pvc-1")


def test_what_a_caller_may_is_asked_once_a_command(mgr):
    asked = []
    access = Access(mgr.service, lambda arguments: bool(asked.append(dict(arguments))) or arguments["pool"] == "rbd")
    assert [access.may(pool, "") for pool in ("rbd", "other", "rbd", "other")] == [True, False, True, False]
    assert asked == [{"pool": "rbd", "namespace": ""}, {"pool": "other", "namespace": ""}]


def test_what_lies_in_the_default_namespace_is_found_without_listing_the_others(fake, mgr, monkeypatch):
    a_volume(fake, 1, "pvc-1", "rbd")
    a_volume(fake, 2, "pvc-2", "rbd/ns1")
    access = Access(mgr.service, ADMIN)
    listed, list_them = [], fake.namespaces
    monkeypatch.setattr(fake, "namespaces", lambda *args: listed.append(args) or list_them(*args))
    assert str(access.find(Kind.VOLUME, handle(fake, 1)).where) == "rbd"
    assert not listed
    assert [str(access.find(Kind.VOLUME, handle(fake, 2)).where) for _ in range(2)] == ["rbd/ns1"] * 2
    assert len(listed) == 2


def test_a_handle_of_another_tenant_is_denied_without_telling_whether_it_exists(fake, mgr):
    a_volume(fake, 1, "pvc-1", "rbd")
    access = Access(mgr.service, TENANT)
    existing, missing = (outcome(access.find, Kind.VOLUME, handle(fake, number)) for number in (1, 9))
    assert existing == missing
    assert existing[0] is Denied
    fake.add_pool("other")
    a_volume(fake, 2, "pvc-2", "other")
    existing, missing = (outcome(access.find, Kind.VOLUME, handle(fake, number, pool="other")) for number in (2, 9))
    assert existing == missing
    assert existing[0] is Denied


def test_whoever_may_see_the_whole_pool_hears_that_nothing_is_there(fake, mgr):
    assert outcome(Access(mgr.service, caps({"pool": "rbd"})).find, Kind.VOLUME, handle(fake))[0] is NotFound


def test_handles_of_other_clusters_and_pools_are_not_found(fake, mgr):
    access = Access(mgr.service, ADMIN)
    assert outcome(access.find, Kind.VOLUME, handle(fake, cluster="other"))[0] is NotFound
    assert outcome(access.find, Kind.VOLUME, Handle(FSID, 99, uuid_of(1)))[0] is NotFound


def test_names_are_authorised_before_anything_is_looked_at(fake, mgr):
    access = Access(mgr.service, TENANT)
    for spec in (PoolSpec("rbd"), PoolSpec("nothing"), PoolSpec("rbd", "nothing")):
        assert outcome(access.find, Kind.VOLUME, NameRef(spec, "pvc-1"))[0] is Denied
        assert outcome(access.locate, spec)[0] is Denied
    assert outcome(access.find, Kind.VOLUME, NameRef(PoolSpec("rbd", "ns1"), "pvc-1"))[0] is NotFound


# -- dispatch --------------------------------------------------------------------------------------------------------


class Shell:
    """Sends raw commands as a client with the given caps."""

    def __init__(self, mgr, authorized=ADMIN):
        self.handlers = Handlers(mgr.services, Access(mgr.service, authorized), lambda: PATIENCE)

    def raw(self, raw):
        return dispatch(self.handlers, raw, LOG)

    def __call__(self, words, **arguments):
        number, out, _ = self.raw({"prefix": f"vdisk {words}", "format": "json", **arguments})
        assert number <= 0
        answer = json.loads(out)
        if number:
            assert answer["error"]["code"] in errors.ERRORS_BY_CODE
            assert number == -errors.ERRORS_BY_CODE[answer["error"]["code"]].errno
        return answer


@pytest.fixture
def shell(mgr):
    return Shell(mgr)


def test_a_volume_lives_its_life_through_commands(fake, mgr, shell):
    created = shell("volume create", pool_spec="rbd", name="pvc-1", size="1G")
    assert (created["state"], created["size"], created["source"]) == ("ready", GIB, None)
    assert shell("volume create", pool_spec="rbd", name="pvc-1", size=GIB) == created
    snap = shell("snap create", image_spec=f"rbd/{created['image']}", snap_name="s")
    assert snap["ready_to_use"] is True
    assert snap["source"] == {"image": created["image"], "handle": created["handle"]}
    restored_volume = shell("volume restore", snapshot=snap["handle"], name="pvc-2", size="2G")
    assert restored_volume["source"] == {"kind": "snapshot", "handle": snap["handle"], "name": "s"}
    assert restored_volume["size"] == 2 * GIB
    copy = shell("volume clone", volume="rbd/pvc-2", name="pvc-3", pool_spec="rbd/ns1")
    assert copy["namespace"] == "ns1"
    assert shell("volume resize", volume=copy["handle"], size="3G")["size"] == 3 * GIB
    assert [volume["name"] for volume in shell("volume ls", pool_spec="rbd")] == ["pvc-1", "pvc-2"]
    assert [found["name"] for found in shell("snap ls", pool_spec=f"rbd/{created['image']}")] == ["s"]
    info = shell("volume info", volume=copy["handle"])
    assert info["depth"] == len(info["parents"]) == 3
    assert info["watchers"] == []
    for words, argument, target in (
        ("volume rm", "volume", copy["handle"]),
        ("volume rm", "volume", "rbd/pvc-2"),
        ("snap rm", "snapshot", f"rbd/{created['image']}@s"),
        ("volume rm", "volume", "rbd/pvc-1"),
    ):
        removed = shell(words, **{argument: target})
        assert set(removed) == {"removed", "operation"}
        assert shell(words, **{argument: target}) == removed

    def over():
        fake.run_tasks()
        return not mgr.engine._book.live and not fake.tasks

    mgr.until(over, "the end of everything")
    assert inventory(fake) == {"tasks": []}


def test_dry_run_shows_the_steps_and_changes_nothing(fake, shell):
    shown = shell("volume create", pool_spec="rbd", name="pvc-1", size="1G", dry_run=True)
    assert [step["step"] for step in shown["steps"]][:2] == ["reserve-name", "write-entry"]
    assert fake.calls == []


def test_removing_by_image_name_twice_answers_the_same(fake, shell):
    volume = a_volume(fake)
    removed = shell("volume rm", volume=f"rbd/{volume.image}")
    assert "removed" in removed
    assert shell("volume rm", volume=f"rbd/{volume.image}") == removed


def test_a_tenant_of_a_namespace_may_repeat_a_removal_by_handle(fake, mgr):
    a_volume(fake, 1, "pvc-1", "rbd/ns1")
    tenant = Shell(mgr, TENANT)
    removed = tenant("volume rm", volume=handle(fake).encode())
    assert "removed" in removed
    assert tenant("volume rm", volume=handle(fake).encode()) == removed


def test_what_lies_in_pools_of_others_is_hidden(fake, mgr):
    fake.add_pool("secret")
    source = CreateVolume(fake.where("secret"), "their-volume", uuid_of(1), GIB, Layout())
    do(fake, source)
    admin, tenant = Shell(mgr), Shell(mgr, TENANT)
    admin("volume clone", volume="secret/their-volume", name="copy", pool_spec="rbd/ns1")
    for shown in (tenant("volume info", volume="rbd/ns1/copy"), *tenant("volume ls", pool_spec="rbd/ns1")):
        assert shown["name"] == "copy"
        text = json.dumps(shown)
        assert "their-volume" not in text
        assert source.uuid not in text
        assert "secret" not in text


def test_cross_pool_operations_need_both_pools(fake, mgr):
    do(fake, restored(fake))
    tenant = Shell(mgr, TENANT)
    assert tenant("volume clone", volume="rbd/pvc-1", name="x", pool_spec="rbd/ns1")["error"]["code"] == "denied"
    a_volume(fake, 5, "mine", "rbd/ns1")
    assert tenant("volume clone", volume="rbd/ns1/mine", name="x", pool_spec="rbd")["error"]["code"] == "denied"
    refused = tenant("volume create", pool_spec="rbd/ns1", name="x", size="1G", data_pool="rbd")
    assert refused["error"]["code"] == "denied"


def test_operations_of_other_tenants_are_not_shown(fake, mgr):
    operation = mgr.engine.submit(CreateVolume(fake.where(), "pvc-1", uuid_of(1), GIB, Layout()))
    mgr.ended(operation)
    tenant = Shell(mgr, TENANT)
    assert tenant("op ls") == []
    assert tenant("op info", id=operation.id)["error"]["code"] == "denied"
    assert [shown["id"] for shown in Shell(mgr)("op ls")] == [operation.id]
    assert Shell(mgr)("op info", id=operation.id)["state"] == "done"


def test_cancelling_shows_what_it_would_undo_then_undoes_it_and_may_be_repeated(fake, mgr, shell):
    fake.hook = gate = Gate("create_image", moment="after")
    operation = mgr.engine.submit(CreateVolume(fake.where(), "pvc-1", uuid_of(1), GIB, Layout()))
    gate.reach()
    shown = shell("op cancel", id=operation.id, dry_run=True)
    assert [step["step"] for step in shown["steps"]] == ["remove-unfinished", "remove-entry", "release-name"]
    assert operation.abort is None
    assert shell("op cancel", id=operation.id, wait=0)["state"] == "running"
    info = shell("op info", id=operation.id)
    assert (info["step"], info["undoing"]) == ("create-image", True)
    assert info["step_started_at"] is not None
    gate.open()
    ended = shell("op cancel", id=operation.id)
    assert ended["state"] == "failed"
    assert "cancelled" in ended["error"]["message"]
    assert inventory(fake) == {"tasks": []}
    assert shell("op cancel", id=operation.id) == ended
    assert shell("op cancel", id=operation.id, dry_run=True)["steps"] == []


def test_retrying_shows_what_would_run_then_runs_it(fake, mgr, shell):
    a_volume(fake)
    fake.fail_on("remove_trashed", errors.Internal("odd"))
    removed = shell("volume rm", volume="rbd/pvc-1")
    operation = mgr.engine.operation(removed["operation"])
    mgr.ended(operation)
    assert shell("status")["stuck"] == 1
    shown = shell("op retry", id=operation.id, dry_run=True)
    assert [step["step"] for step in shown["steps"]][-1] == "queue-removal"
    assert operation.stuck
    assert shell("op retry", id=operation.id)["state"] == "done"
    assert shell("op retry", id=operation.id, dry_run=True)["error"]["code"] == "invalid_argument"


def test_wait_zero_answers_pending(fake, mgr, shell):
    fake.hook = gate = Gate("create_image")
    answer = shell("volume create", pool_spec="rbd", name="pvc-1", size="1G", wait=0)
    assert answer["state"] == "pending"
    assert shell("volume info", volume="rbd/pvc-1")["state"] == "pending"
    (row,) = shell("op ls", ids=answer["operation"])
    assert (row["id"], row["state"], row["answered"]) == (answer["operation"], "running", False)
    gate.open()
    created = shell("volume create", pool_spec="rbd", name="pvc-1", size="1G")
    assert "operation" not in created
    assert shell("volume create", pool_spec="rbd", name="pvc-1", size="1G")["handle"] == answer["handle"]


def test_operations_are_polled_by_id(fake, mgr, shell):
    operation = mgr.engine.submit(CreateVolume(fake.where(), "pvc-1", uuid_of(1), GIB, Layout()))
    mgr.ended(operation)
    rows = shell("op ls", ids=f"nothing,{operation.id}, nothing")
    assert [(row["id"], row["state"], row["answered"]) for row in rows] == [
        ("nothing", "unknown", False),
        (operation.id, "done", True),
    ]
    assert Shell(mgr, TENANT)("op ls", ids=operation.id)[0]["state"] == "unknown"
    assert shell("op ls", ids=",")["error"]["code"] == "invalid_argument"
    assert shell("op ls", ids=",".join(map(str, range(1001))))["error"]["code"] == "invalid_argument"


def test_an_operation_that_ends_while_it_is_looked_at_is_not_done_and_unanswered(fake, mgr, shell, monkeypatch):
    fake.hook = gate = Gate("create_image")
    operation = mgr.engine.submit(CreateVolume(fake.where(), "pvc-1", uuid_of(1), GIB, Layout()))
    gate.reach()
    handle = mgr.service.handle

    def end_first(*args):
        gate.open()
        mgr.ended(operation)
        return handle(*args)

    monkeypatch.setattr(mgr.service, "handle", end_first)
    (row,) = shell("op ls", ids=operation.id)
    assert row["answered"] or row["state"] == "running"
    (row,) = shell("op ls", ids=operation.id)
    assert (row["answered"], row["state"]) == (True, "done")


def test_while_the_module_stops_commands_answer_so(mgr):
    number, _, status = dispatch(NotReady("stopping"), {"prefix": "vdisk op ls"}, LOG)
    assert (number, status) == (-errno.EAGAIN, "not_ready: stopping")


def test_bugs_reach_the_client_as_one_line(shell, monkeypatch):
    monkeypatch.setattr(Handlers, "op_ls", lambda self, args: 1 // 0)
    number, _, status = shell.raw({"prefix": "vdisk op ls"})
    assert number == -errno.EIO
    assert status.startswith("internal: ")
    assert "division" not in status


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(
        ["rbd", "rbd/ns1", "rbd/pvc-1", "pvc-1", "10G", "true", "None", "0101-24-", "rbd/i@s", "10\u212a"]
    )
    | st.sampled_from([10**400, -1, 0, 1 << 63]),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children, max_size=3),
    max_leaves=4,
)
KNOWN = sorted({argument.name for command in COMMANDS for argument in command.all_arguments})
RAW = st.builds(
    lambda named, some: {**some, **named},
    st.fixed_dictionaries(
        {"prefix": st.sampled_from([command.prefix for command in COMMANDS]) | JSON},
        optional={"format": st.sampled_from(["json", "plain", "x"]) | JSON, "odd": JSON},
    ),
    # Some of all the arguments that there are: to make a value for each of them took most of the test's time.
    st.dictionaries(st.sampled_from(KNOWN), JSON, max_size=8),
)
LIKELY = st.sampled_from(COMMANDS).flatmap(
    lambda command: st.fixed_dictionaries(
        {
            "prefix": st.just(command.prefix),
            **{argument.name: JSON for argument in command.all_arguments if argument.required},
        },
        optional={argument.name: JSON for argument in command.all_arguments if not argument.required},
    )
)


def test_whatever_arrives_gets_a_proper_answer(short_pauses, monkeypatch):
    # No scheduler is at work here, whose first look would be worth waiting for.
    monkeypatch.setattr("vdisk.service.schedules._PLACES_SECONDS", 0.0)
    cluster = FakeCluster()
    a_volume(cluster)
    do(cluster, snapshot_request(cluster, "csi-vol-" + uuid_of(1)))
    mgr = Mgr(cluster)
    handlers = Handlers(mgr.services, Access(mgr.service, ADMIN), lambda: 0.0)

    @settings(max_examples=300, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(RAW | LIKELY)
    def check(raw):
        if isinstance(raw.get("wait"), (int, float)) and 0 < raw["wait"] <= 3600:
            raw = {**raw, "wait": 0}
        number, out, status = dispatch(handlers, raw, LOG)
        assert isinstance(number, int)
        assert number <= 0
        assert isinstance(out, str)
        assert isinstance(status, str)
        assert "\n" not in status
        out.encode()
        status.encode()
        if number:
            code = status.partition(":")[0]
            assert code in errors.ERRORS_BY_CODE
            assert code != "internal", status
            assert number == -errors.ERRORS_BY_CODE[code].errno

    try:
        check()
    finally:
        mgr.stop()


def test_removal_of_something_in_use_names_the_watchers(fake, shell):
    volume = a_volume(fake)
    fake.watch(volume.where, volume.image, Watcher("10.0.0.9:0/1", 4, 1))
    refused = shell("volume rm", volume="rbd/pvc-1")["error"]
    assert refused["code"] == "in_use"
    assert refused["details"]["watchers"][0]["address"] == "10.0.0.9:0/1"
