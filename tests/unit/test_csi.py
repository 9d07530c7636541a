"""The CSI driver's pure parts: names, ids, sizes, tokens, parameters, the interface itself, and what is sent where."""

import ast
import asyncio
import contextlib
import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from grpc import StatusCode
from hypothesis import example, given
from hypothesis import strategies as st

from vdisk.commands.handlers import MAX_IDS
from vdisk.model.errors import ERROR_CLASSES, InvalidArgument
from vdisk.model.handles import HandleFormat, decode_handle
from vdisk.model.names import check_request_name
from vdisk_csi import logs, mgr, operations
from vdisk_csi.capabilities import check_capability
from vdisk_csi.cli import parse
from vdisk_csi.cluster import Identity
from vdisk_csi.deadline import Deadline, deadline_of
from vdisk_csi.errors import VDISK_CODES, Again, CsiError
from vdisk_csi.ids import Id, parse_id, same
from vdisk_csi.main import missing
from vdisk_csi.metrics import Metrics
from vdisk_csi.mgr import Client, Lanes
from vdisk_csi.names import MAX_BYTES, request_name
from vdisk_csi.paging import decode_token, encode_token, page
from vdisk_csi.params import parse_volume_parameters
from vdisk_csi.proto import csi_pb2 as csi
from vdisk_csi.server import BadEndpoint, address_of
from vdisk_csi.sizes import GIB, MIB, parse_range
from vdisk_csi.threads import Threads

REPO = Path(__file__).resolve().parents[2]
FSID = "4a9e463a-4853-4237-a5c5-9ae9d25bacda"
HANDLE = f"0101-24-{FSID}-00000001-768a1126-f064-11ec-9a2d-36614e068d81"


# -- the interface ----------------------------------------------------------------------------------------------------

SCALARS = {"string": FieldDescriptor.TYPE_STRING, "bool": FieldDescriptor.TYPE_BOOL}
SCALARS |= {"int32": FieldDescriptor.TYPE_INT32, "int64": FieldDescriptor.TYPE_INT64}


def type_of(field: FieldDescriptor) -> str:
    """The type of a field as the facts write it."""
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return "map<string,string>"
    kind = field.message_type or field.enum_type
    name = kind.full_name.removeprefix("csi.v1.") if kind else {v: k for k, v in SCALARS.items()}[field.type]
    return f"repeated {name}" if field.is_repeated else name


def shape(message: Descriptor) -> dict[str, Any]:
    """A message as the facts write it."""
    found: dict[str, Any] = {"fields": {}}
    for field in message.fields:
        entry = {"number": field.number, "type": type_of(field)}
        if field.containing_oneof is not None:
            entry["oneof"] = field.containing_oneof.name
        found["fields"][field.name] = entry
    nested = {each.name: shape(each) for each in message.nested_types if not each.GetOptions().map_entry}
    return {**found, **({"messages": nested} if nested else {}), **enums(message)}


def enums(message: Descriptor) -> dict[str, Any]:
    """The enumerations of a message."""

    def values(kind: EnumDescriptor) -> dict[str, int]:
        return {value.name: value.number for value in kind.values}

    found = {kind.name: values(kind) for kind in message.enum_types}
    return {"enums": found} if found else {}


def test_the_interface_is_that_of_csi_1_12() -> None:
    facts = json.loads((Path(__file__).parent / "csi-1.12-interface.json").read_text())
    assert facts["package"] == csi.DESCRIPTOR.package
    assert {name: shape(each) for name, each in csi.DESCRIPTOR.message_types_by_name.items()} == facts["messages"]
    services = {}
    for service in csi.DESCRIPTOR.services_by_name.values():
        services[service.name] = {
            method.name: {
                "request": method.input_type.name,
                "response": method.output_type.name,
                **({"server_streaming": True} if method.server_streaming else {}),
            }
            for method in service.methods
        }
    assert services == facts["services"]


def test_the_mgr_module_and_the_driver_know_nothing_of_each_other() -> None:
    for here, there in (("vdisk", "vdisk_csi"), ("vdisk_csi", "vdisk")):
        for path in (REPO / "src" / here).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom) and not node.level:
                    names = [node.module or ""]
                assert not any(name.split(".")[0] == there for name in names), path


def test_everything_public_has_a_docstring() -> None:
    for path in (REPO / "src/vdisk_csi").rglob("*.py"):
        if path.name.startswith("csi_pb2"):
            continue
        tree = ast.parse(path.read_text())
        assert ast.get_docstring(tree), path
        for node in [*tree.body, *(part for each in tree.body if isinstance(each, ast.ClassDef) for part in each.body)]:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith(
                "_"
            ):
                assert ast.get_docstring(node), f"{path}: {node.name}"


# -- names and ids ----------------------------------------------------------------------------------------------------

ALLOWED = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(
    lambda name: len(name.encode()) <= 128 and not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]", name)
)


@given(ALLOWED)
@example("%2F")
@example("/" * 128)
@example(" ")
@example("é" * 64)
@example("\u2028x\u3000")
def test_every_name_that_csi_allows_becomes_one_that_vdisk_allows(name: str) -> None:
    encoded = request_name(name)
    assert check_request_name(encoded) == encoded
    assert len(encoded.encode()) <= MAX_BYTES
    if re.fullmatch(r"[A-Za-z0-9._-]+", name):
        assert encoded == name


@given(ALLOWED, ALLOWED)
@example("/", "%2F")
@example("/" * 127 + "a", "/" * 127 + "b")
@example("a ", "a%20")
def test_no_two_names_become_one(one: str, other: str) -> None:
    assert (request_name(one) == request_name(other)) == (one == other)


@pytest.mark.parametrize("name", ["", "x" * 129, "é" * 65, "a\0", "a\x1f", "\x7f", "\x80", "\x9f", "\x0b"])
def test_names_that_csi_bans_are_refused(name: str) -> None:
    with pytest.raises(CsiError) as raised:
        request_name(name)
    assert raised.value.code is StatusCode.INVALID_ARGUMENT


def test_ids_are_read_as_vdisk_reads_them() -> None:
    handle = decode_handle(HANDLE)
    for family in HandleFormat:
        text = handle.encode(family)
        assert parse_id(text) == Id(handle.cluster_id, handle.pool_id, handle.uuid)
        assert same(text, HANDLE)
    assert not same(HANDLE, HANDLE.replace("768a", "768b"))


@given(
    st.one_of(st.text(), st.text().map(lambda text: HANDLE[:-3] + text), st.integers(0, 95).map(lambda n: HANDLE[:n]))
)
def test_text_that_is_no_id_for_vdisk_is_none_here(text: str) -> None:
    try:
        handle = decode_handle(text)
    except (InvalidArgument, UnicodeEncodeError):
        assert text.encode("utf-8", "ignore").decode() != text or parse_id(text) is None
    else:
        assert parse_id(text) == Id(handle.cluster_id, handle.pool_id, handle.uuid)


# -- sizes, tokens, parameters ----------------------------------------------------------------------------------------


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1))
def test_a_size_lies_in_its_range_or_there_is_none(required: int, limit: int) -> None:
    size = None
    with contextlib.suppress(CsiError):
        size = parse_range(csi.CapacityRange(required_bytes=required, limit_bytes=limit)).size_or_default()
    if size is None:
        assert (limit and (limit < required or limit // MIB * MIB < max(required, MIB))) or required > 2**63 - MIB
    else:
        assert size % MIB == 0
        assert required <= size
        assert not limit or size <= limit
        assert required or size <= GIB


@pytest.mark.parametrize(
    "token", ["", "x", "e30=", "W10=", "WyJhIl0=", "WyJhIiwgMV0=", "bnVsbA==", "🎈", encode_token("z", "")]
)
def test_bad_tokens_are_aborted(token: str) -> None:
    assert decode_token(encode_token("a", "🎈"), ["a"]) == ("a", "🎈")
    with pytest.raises(CsiError) as raised:
        decode_token(token, ["a"])
    assert raised.value.code is StatusCode.ABORTED


@given(st.lists(st.integers(0, 7), max_size=5), st.integers(0, 9), st.integers(2, 3))
def test_pages_are_whole_and_in_order(lengths: list[int], most: int, every: int) -> None:
    content = {f"pool{n}": [f"{i:02}" for i in range(length)] for n, length in enumerate(lengths)}
    wanted = [(spec, name) for spec, names in content.items() for name in names if int(name) % every]

    async def lister(spec: str, limit: int, marker: str) -> list[dict[str, Any]]:
        return [{"name": name} for name in content[spec] if name > marker][:limit]

    found, token = [], ""
    while True:
        rows, token = asyncio.run(page(sorted(content), most, token, lister, lambda row: int(row["name"]) % every != 0))
        assert not most or len(rows) <= most
        found += [(row["_spec"], row["name"]) for row in rows]
        if not token:
            break
        assert len(rows) == most
    assert found == wanted


def test_parameters() -> None:
    given = {
        "clusterID": FSID, "pool": "rbd", "radosNamespace": "ns", "dataPool": "ec", "imageFeatures": "layering",
        "objectSize": "8M", "stripeUnit": "64K", "stripeCount": "16", "mounter": "krbd", "mkfsOptions": "-b 4096",
        "csi.storage.k8s.io/fstype": "xfs", "csi.storage.k8s.io/pvc/name": "claim",
    }  # fmt: skip
    found = parse_volume_parameters(given)
    assert (found.pool_spec, found.pools, found.cluster_id) == ("rbd/ns", ("ec",), FSID)
    assert found.layout == {
        "data_pool": "ec", "image_features": "layering", "object_size": "8M", "stripe_unit": "64K",
        "stripe_count": "16",
    }  # fmt: skip
    assert found.for_nodes == {
        "mounter": "krbd", "mkfsOptions": "-b 4096", "csi.storage.k8s.io/fstype": "xfs",
    }  # fmt: skip
    assert parse_volume_parameters({}).pool_spec is None
    text = (REPO / "doc/csi.md").read_text()
    assert all(f"`{key}`" in text for key in given if not key.endswith("/name"))
    for bad in ({"Pool": "rbd"}, {"radosNamespace": "ns"}, {"pool": "a/b"}, {"mounter": "x"}):
        with pytest.raises(CsiError):
            parse_volume_parameters(bad)


def test_access_modes() -> None:
    capability = csi.VolumeCapability
    for mode in capability.AccessMode.Mode.values():
        for fields in ({"mount": capability.MountVolume()}, {"block": capability.BlockVolume()}):
            asked = capability(access_mode=capability.AccessMode(mode=mode), **fields)
            shared_writer = mode in (4, 5) and "mount" in fields
            if mode == 0 or shared_writer:
                with pytest.raises(CsiError):
                    check_capability(asked)
            else:
                check_capability(asked)


def test_every_error_of_vdisk_has_its_grpc_code_as_documented() -> None:
    text = (REPO / "doc/errors.md").read_text()
    assert set(VDISK_CODES) == {error.code for error in ERROR_CLASSES}
    for code, grpc_code in VDISK_CODES.items():
        (line,) = [line for line in text.splitlines() if line.startswith(f"| `{code}`")]
        assert line.split("|")[-2].strip() == grpc_code.name


def test_no_secret_reaches_the_log() -> None:
    request = csi.NodeStageVolumeRequest(volume_id="v", secrets={"userKey": "hidden"})
    assert logs.shown(request) == {"volume_id": "v"}
    assert "hidden" not in repr(Identity().with_secrets({"userID": "a", "userKey": "hidden"}))
    for service in csi.DESCRIPTOR.services_by_name.values():
        for method in service.methods:
            for field in method.input_type.fields:
                assert "secret" not in field.name or field.name == "secrets"


# -- commands ---------------------------------------------------------------------------------------------------------


class FakeCluster:
    """Answers mgr commands with what a function says."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.sent: list[dict[str, Any]] = []
        self.texts: list[str] = []

    def mgr_command(self, text: str) -> tuple[int, bytes, str]:
        """Answer."""
        self.texts.append(text)
        self.sent.append(json.loads(text))
        result: tuple[int, bytes, str] = self.answer(self.sent[-1])
        return result


def client(answer: Any, patience: float = 5) -> tuple[Client, FakeCluster]:
    """A client of a fake cluster."""
    cluster = FakeCluster(answer)
    return Client(cluster, Lanes(), patience, Metrics()), cluster  # type: ignore[arg-type]


def error(code: str, **details: Any) -> tuple[int, bytes, str]:
    """An error of vdisk."""
    body = {"error": {"code": code, "message": f"it is {code}", "retryable": False, "details": details}}
    return -22, json.dumps(body).encode(), ""


def test_what_the_manager_cannot_answer_yet_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mgr, "_FIRST_PAUSE", 0.002)
    answers = iter(
        [(-95, b"", "Module 'vdisk' is not enabled/loaded"), error("not_ready"), error("throttled"), Again()]
    )

    def answer(command: dict[str, Any]) -> tuple[int, bytes, str]:
        found = next(answers, (0, b'{"fine": true}', ""))
        if isinstance(found, Again):
            raise found
        return found

    found, cluster = client(answer)
    assert asyncio.run(found.send("volume info", Deadline(5), volume="🎈")) == {"fine": True}
    assert len(cluster.sent) == 5
    assert all("🎈" in text for text in cluster.texts), "as a JSON escape it would kill the manager"


def test_errors_are_mapped_and_no_answer_is_unavailable() -> None:
    for code, grpc_code in VDISK_CODES.items():
        found, _ = client(lambda command, code=code: error(code), patience=0.2)
        with pytest.raises(CsiError) as raised:
            asyncio.run(found.send("x", Deadline(5)))
        expected = StatusCode.UNAVAILABLE if code in ("pending", "not_ready", "throttled") else grpc_code
        assert raised.value.code is expected


def test_many_operations_are_waited_for_in_one_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "_MOST", 0.005)
    polls: list[list[str]] = []

    def answer(command: dict[str, Any]) -> tuple[int, bytes, str]:
        if command["prefix"] != "vdisk op ls":
            body = {"state": "pending", "operation": f"op-{command['name']}", "handle": "h", "image": "i"}
            return 0, json.dumps(body).encode(), ""
        ids = command["ids"].split(",")
        polls.append(ids)
        rows = [{"id": each, "state": "running", "answered": False, "error": None} for each in ids]
        for row in rows:
            if len(ids) == 200 and len(polls) > 3:
                row.update(state="done", answered=True, handle=f"handle of {row['id']}", image="image")
            if len(polls) > 6:
                row.update(state="failed", error={"code": "no_space", "message": "full"})
        return 0, json.dumps(rows).encode(), ""

    async def run() -> list[Any]:
        found, _ = client(answer)
        return await asyncio.gather(
            *(found.change("volume create", Deadline(20), name=str(n)) for n in range(200)), return_exceptions=True
        )

    results = asyncio.run(run())
    assert [row["handle"] for row in results if isinstance(row, dict)] == [f"handle of op-{n}" for n in range(200)]
    assert len(polls) < 40
    assert operations._BATCH <= MAX_IDS


def test_an_operation_that_is_too_slow_is_aborted_and_one_that_is_forgotten_is_asked_for_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(operations, "_MOST", 0.005)
    state = "running"

    def answer(command: dict[str, Any]) -> tuple[int, bytes, str]:
        if command["prefix"] == "vdisk op ls":
            row = {"id": "1", "state": state, "answered": False, "error": None, "waiting_for": ["operation 7"]}
            return 0, json.dumps([row]).encode(), ""
        if state == "unknown" and len(cluster.sent) > 3:
            return 0, b'{"state": "ready"}', ""
        return 0, b'{"state": "pending", "operation": "1"}', ""

    found, cluster = client(answer)
    with pytest.raises(CsiError, match="operation 7") as raised:
        asyncio.run(found.change("snap create", Deadline(0.2)))
    assert raised.value.code is StatusCode.ABORTED
    state = "unknown"
    found, cluster = client(answer)
    assert asyncio.run(found.change("snap create", Deadline(5))) == {"state": "ready"}


def test_deadlines_end_before_the_clients() -> None:
    # What is left grows less while one looks.
    assert 30 < deadline_of(None, 60).left() <= 60
    assert 0 < deadline_of(10, 60).left() <= 9
    assert deadline_of(1, 60).left() <= 0.9


def test_hanging_calls_hold_up_only_their_threads() -> None:
    import threading

    gate = threading.Event()

    async def run() -> None:
        threads = Threads("test", 2)
        hanging = [threads.run(gate.wait) for _ in range(2)]
        waiting = threads.run(lambda: 1)
        with pytest.raises(TimeoutError):
            await Deadline(0.05).wait(waiting)
        assert threads.busy
        waiting.cancel()
        gate.set()
        assert [await each for each in hanging] == [True, True]
        assert await threads.run(lambda: 2) == 2

    asyncio.run(run())


# -- the command line -------------------------------------------------------------------------------------------------


def test_endpoints() -> None:
    assert address_of("unix:///csi/csi.sock") == "unix:/csi/csi.sock"
    assert address_of("unix:/csi/csi.sock") == "unix:/csi/csi.sock"
    assert address_of("/csi/csi.sock") == "unix:/csi/csi.sock"
    assert address_of("tcp://127.0.0.1:10000") == "127.0.0.1:10000"
    for bad in ("", "unix://", "unix:relative", "csi.sock", "tcp://x", "http://x:1"):
        with pytest.raises(BadEndpoint):
            address_of(bad)


def test_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "monitors").write_text("10.0.0.1\n10.0.0.2\n")
    words = (
        f"--controller --node --endpoint unix:///x --node-id n --id csi --monitors-file {tmp_path}/monitors --pool a"
    )
    config, level = parse([*words.split(), "--log-level", "debug"])
    assert (config.controller, config.node, level, config.pools) == (True, True, "debug", ("a",))
    assert config.identity == Identity(name="client.csi", monitors="10.0.0.1,10.0.0.2")
    assert config.identity.arguments() == ["--name", "client.csi", "--mon-host", "10.0.0.1,10.0.0.2"]
    for bad in (
        "--endpoint unix:///x", "--controller", "--node --endpoint unix:///x", "--controller --endpoint x",
        "--controller --endpoint unix:///x --id a --name b", "--controller --endpoint unix:///x --timeout 0",
    ):  # fmt: skip
        with pytest.raises(SystemExit):
            parse(bad.split())


def test_what_is_missing_is_said() -> None:
    assert missing() == []
    assert missing({"no_such_module": "somewhere", "no_such.module": "elsewhere"}) == [
        "the Python module no_such_module is missing: somewhere",
        "the Python module no_such.module is missing: elsewhere",
    ]


def test_every_option_is_documented() -> None:
    source = (REPO / "src/vdisk_csi/cli.py").read_text()
    text = (REPO / "doc/csi.md").read_text()
    for option in re.findall(r'"(--[a-z-]+)"', source):
        assert f"`{option}" in text, option
    assert dataclasses.is_dataclass(Identity)
