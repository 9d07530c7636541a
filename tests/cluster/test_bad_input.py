"""Bad input, as JSON clients can send it: the right error each time, one line, no traceback, and nothing changed."""

import json
from dataclasses import dataclass
from typing import Any

import pytest

from cluster.support import ERRNO, GIB, RETRYABLE, Vdisk, check_error, image_spec, pool_id, unchanged
from harness.cluster import Cluster
from vdisk.model.errors import ERROR_CLASSES

UUID = "768a1126-f064-11ec-9a2d-36614e068d81"


@dataclass(frozen=True)
class World:
    """What bad input may refer to. `fill` replaces `{name}` in arguments."""

    vdisk: Vdisk
    names: dict[str, str]

    def fill(self, value: Any) -> Any:
        """Return an argument with the names of this world in it."""
        if not isinstance(value, str):
            return value
        for name, text in self.names.items():
            value = value.replace("{" + name + "}", text)
        return value


def create(code: str = "invalid_argument", **args: Any) -> tuple[str, str, dict[str, Any]]:
    """Return a bad `volume create`: what is given differs from a good one; None leaves an argument out."""
    good = {"pool_spec": "{pool}", "name": "new", "size": "4M"}
    return code, "volume create", {key: value for key, value in {**good, **args}.items() if value is not None}


def case(code: str, words: str, **args: Any) -> tuple[str, str, dict[str, Any]]:
    """Return a bad command."""
    return code, words, args


CASES: list[tuple[str, str, dict[str, Any]]] = [
    # Arguments that are missing, of another type, or unknown.
    create(pool_spec=None),
    create(name=None),
    create(size=None),
    create(pool_spec=""),
    create(name=""),
    create(size=""),
    create(pool_spec=7),
    create(name=7),
    create(name=["a", "b"]),
    create(size=True),
    create(size=1.5),
    create(size=["4M"]),
    create(sise="4M"),
    create(force=True),
    create(dry_run="perhaps"),
    create(dry_run=1),
    create(dry_run="no"),
    case("invalid_argument", "volume ls"),
    case("invalid_argument", "volume ls", pool_spec="{pool}", volume="{pool}/pvc"),
    case("invalid_argument", "snap create", image_spec="{pool}/pvc"),
    case("invalid_argument", "snap create", snap_name="shot"),
    case("invalid_argument", "snap ls"),
    case("invalid_argument", "snap ls", pool_spec="{pool}", image_spec="{pool}/pvc"),
    case("invalid_argument", "status", id="x"),
    case("invalid_argument", "op info"),
    case("invalid_argument", "op info", id=""),
    # 'None', as mgr_module's own decorators make it of what is missing, is a name like any other.
    create("not_found", pool_spec="None"),
    case("not_found", "volume info", volume="{pool}/None"),
    case("invalid_argument", "volume info", volume="None"),
    # Names.
    create(name="a/b"),
    create(name="a@b"),
    create(name="a\tb"),
    create(name="a\nb"),
    create(name="a\x01b"),
    create(name="a\x7fb"),
    create(name="a\x85b"),
    create(name=" a"),
    create(name="a "),
    create(name="\u2003a"),
    create(name="x" * 129),
    create(name="ü" * 65),
    create(name="x" * 100_000),
    case("invalid_argument", "snap create", image_spec="{image}", snap_name="a/b"),
    case("invalid_argument", "snap create", image_spec="{image}", snap_name="x" * 129),
    case("invalid_argument", "volume restore", snapshot="{shot}", name="a/b"),
    case("invalid_argument", "volume clone", volume="{volume}", name=""),
    # Sizes.
    create(size=0),
    create(size="0"),
    create(size="0K"),
    create(size=-1),
    create(size="-1"),
    create(size="-4M"),
    create(size="10X"),
    create(size="1e3"),
    create(size="1.5G"),
    create(size="4M4M"),
    create(size="M"),
    create(size="0x1000"),
    create(size="1_000"),
    create(size="١٢"),
    create(size="nan"),
    create(size="inf"),
    create("out_of_range", size="8E"),
    create("out_of_range", size=str(2**63)),
    create("out_of_range", size="99999999999999999999"),
    create("out_of_range", size="99999999999999999999E"),
    create("out_of_range", size="1P", object_size="4K"),
    create("out_of_range", size="7E"),
    case("out_of_range", "volume resize", volume="{volume}", size="7E"),
    case("out_of_range", "volume resize", volume="{volume}", size="1M"),
    case("out_of_range", "volume resize", volume="{volume}", size=1),
    case("invalid_argument", "volume resize", volume="{volume}", size=0),
    case("invalid_argument", "volume resize", volume="{volume}", size="+1G"),
    case("out_of_range", "volume restore", snapshot="{shot}", name="new", size="1M"),
    case("out_of_range", "volume clone", volume="{volume}", name="new", size="4095K"),
    case("invalid_argument", "volume restore", snapshot="{shot}", name="new", size="0"),
    case("out_of_range", "volume restore", snapshot="{shot}", name="new", size="7E"),
    # Pools, namespaces, images, specs.
    create("not_found", pool_spec="no-such-pool"),
    create("not_found", pool_spec="{pool}/no-such-namespace"),
    create(pool_spec="{pool}/"),
    create(pool_spec="/{pool}"),
    create(pool_spec="{pool}//ns"),
    create(pool_spec="{pool}/ns/image"),
    create(pool_spec="{pool}@x"),
    create(pool_spec="{pool}\n"),
    create(pool_spec="{bare}"),
    case("invalid_argument", "volume ls", pool_spec="{bare}"),
    case("not_found", "volume ls", pool_spec="no-such-pool"),
    case("not_found", "volume info", volume="no-such-pool/pvc"),
    case("not_found", "volume info", volume="{pool}/no-such-namespace/pvc"),
    case("not_found", "volume info", volume="{pool}/nothing"),
    case("not_found", "volume info", volume="{pool}/shot"),
    case("not_found", "snap info", snapshot="{pool}/pvc"),
    case("not_found", "snap info", snapshot="{pool}/other@shot"),
    case("invalid_argument", "snap info", snapshot="{pool}/pvc@"),
    case("invalid_argument", "snap info", snapshot="{pool}/@shot"),
    case("invalid_argument", "snap info", snapshot="{image}@a@b"),
    case("invalid_argument", "volume info", volume="pvc"),
    case("invalid_argument", "volume info", volume="{pool}/"),
    case("invalid_argument", "volume info", volume="{pool}/ns/image/more"),
    case("invalid_argument", "volume info", volume="{image}@shot"),
    case("not_found", "snap create", image_spec="{pool}/nothing", snap_name="new"),
    case("not_found", "snap create", image_spec="no-such-pool/image", snap_name="new"),
    case("invalid_argument", "snap create", image_spec="{pool}", snap_name="new"),
    case("invalid_argument", "snap create", image_spec="{image}@x", snap_name="new"),
    case("unsupported", "snap create", image_spec="{pool}/flat", snap_name="new"),
    case("not_found", "volume rm", volume="{pool}/nothing"),
    case("not_found", "snap rm", snapshot="{pool}/nothing"),
    case("not_found", "volume resize", volume="{pool}/nothing", size="1G"),
    case("not_found", "volume clone", volume="{pool}/nothing", name="new"),
    case("not_found", "volume restore", snapshot="{pool}/nothing", name="new"),
    case("not_found", "volume restore", snapshot="{shot}", name="new", pool_spec="no-such-pool"),
    case("invalid_argument", "volume restore", snapshot="{shot}", name="new", pool_spec="{bare}"),
    case("invalid_argument", "group snap create", name="new", volumes="pvc"),
    case("invalid_argument", "group snap create", name="new", volumes=","),
    case("invalid_argument", "group snap create", name="new", volumes=["{pool}/pvc"]),
    case("invalid_argument", "group snap create", name="new"),
    case("invalid_argument", "group snap create", volumes="{pool}/pvc"),
    case("invalid_argument", "group snap create", name="a/b", volumes="{pool}/pvc"),
    case("not_found", "group snap create", name="new", volumes="{pool}/pvc,{pool}/nothing"),
    case("not_found", "group snap create", name="new", volumes="{shot}"),
    case("invalid_argument", "group snap create", name="new", volumes="{pool}/pvc,{volume}"),
    case("not_found", "group snap ls", pool_spec="no-such-pool"),
    case("invalid_argument", "group snap ls", pool_spec="{pool}", limit=0),
    case("invalid_argument", "group snap info", group="new"),
    case("not_found", "group snap info", group="{pool}/nothing"),
    case("not_found", "group snap info", group="{volume}"),
    case("not_found", "group snap rm", group="{shot}"),
    case("not_found", "op info", id="no-such-operation"),
    # Handles of both families.
    case("not_found", "volume info", volume="0101-24-{fsid}-{pool8}-" + UUID),
    case("not_found", "volume info", volume="0001-0024-{fsid}-{pool16}-" + UUID),
    case("not_found", "volume info", volume="0101-24-{fsid}-7fffffff-" + UUID),
    case("not_found", "volume info", volume="0001-0024-{fsid}-7fffffffffffffff-" + UUID),
    case("not_found", "volume info", volume="0001-0024-{fsid}-ffffffffffffffff-" + UUID),
    case("not_found", "volume info", volume="0101-24-{fsid}-00000000-" + UUID),
    case("not_found", "volume info", volume="0101-24-00000000-0000-0000-0000-000000000000-{pool8}-" + UUID),
    case("not_found", "volume info", volume="0101-05-other-{pool8}-" + UUID),
    case("not_found", "snap info", snapshot="{volume}"),
    case("not_found", "volume info", volume="{shot}"),
    case("not_found", "volume rm", volume="{shot}"),
    case("not_found", "snap rm", snapshot="{volume}"),
    case("not_found", "volume restore", snapshot="{volume}", name="new"),
    case("not_found", "volume clone", volume="{shot}", name="new"),
    case("invalid_argument", "volume info", volume="0101-24-{fsid}-{pool16}-" + UUID),
    case("invalid_argument", "volume info", volume="0001-0024-{fsid}-{pool8}-" + UUID),
    case("invalid_argument", "volume info", volume="0101-23-{fsid}-{pool8}-" + UUID),
    case("invalid_argument", "volume info", volume="0101-00--{pool8}-" + UUID),
    case("invalid_argument", "volume info", volume="0101-ff-{fsid}-{pool8}-" + UUID),
    case("invalid_argument", "volume info", volume="0101-zz-{fsid}-{pool8}-" + UUID),
    case("invalid_argument", "volume info", volume="0101-24-{fsid}-{pool8}-" + UUID.upper()),
    case("invalid_argument", "volume info", volume="0101-24-{fsid}-{pool8}-" + UUID + "0"),
    case("not_found", "volume info", volume="0101-24-{fsid}-{pool8}-../../etc"),
    case("invalid_argument", "volume info", volume="0101-24-{fsid}-{pool8}"),
    case("invalid_argument", "volume info", volume="0202-24-{fsid}-{pool8}-" + UUID),
    case("invalid_argument", "volume info", volume="0101-"),
    case("invalid_argument", "volume info", volume="{volume} "),
    # Layout.
    create(image_features=""),
    create(image_features=","),
    create(image_features="layering,"),
    create(image_features="no-such-feature"),
    create(image_features="exclusive-lock"),
    create(image_features="layering,object-map"),
    create(image_features="layering,exclusive-lock,fast-diff"),
    create(image_features="layering,journaling"),
    create(image_features="layering,striping"),
    create(image_features="layering,data-pool"),
    create(image_features="LAYERING"),
    create(image_features=3),
    create(object_size="3M"),
    create(object_size="2K"),
    create(object_size="64M"),
    create(object_size="0"),
    create(object_size="big"),
    create(stripe_unit="64K"),
    create(stripe_count=4),
    create(stripe_unit="3K", stripe_count=4),
    create(stripe_unit="8M", stripe_count=4),
    create(stripe_unit="2M", stripe_count=4, object_size="1M"),
    create(stripe_unit="64K", stripe_count=0),
    create(stripe_unit="64K", stripe_count=-1),
    create(stripe_unit="64K", stripe_count="many"),
    create(stripe_unit="64K", stripe_count=2.5),
    create("not_found", data_pool="no-such-pool"),
    create(data_pool=""),
    # Forms, waits, pages.
    create(format="yaml"),
    create(wait="nan"),
    create(wait="inf"),
    create(wait="-inf"),
    create(wait=-1),
    create(wait=-0.5),
    create(wait=3601),
    create(wait="soon"),
    create(wait=True),
    create(wait=[]),
    case("invalid_argument", "volume ls", pool_spec="{pool}", limit=0),
    case("invalid_argument", "volume ls", pool_spec="{pool}", limit=-1),
    case("invalid_argument", "volume ls", pool_spec="{pool}", limit="x"),
    case("invalid_argument", "volume ls", pool_spec="{pool}", limit=1.5),
    case("invalid_argument", "volume ls", pool_spec="{pool}", limit=True),
    case("invalid_argument", "snap ls", pool_spec="{pool}", limit=0),
    case("invalid_argument", "volume ls", pool_spec="{pool}", marker=7),
    case("invalid_argument", "volume ls", pool_spec="{pool}", marker=""),
    case("invalid_argument", "volume ls", pool_spec="{pool}", marker="a/b"),
    # What exists and differs.
    create("already_exists", name="pvc", size="5M"),
    case("already_exists", "volume restore", snapshot="{shot}", name="pvc"),
    case("already_exists", "snap create", image_spec="{pool}/golden", snap_name="shot"),
]


@pytest.fixture
def world(cluster: Cluster, pool: str, pool_ns: str) -> World:
    """A pool with a volume `pvc` and a sealed snapshot `shot` of it, an image without layering, a pool not for RBD."""
    vdisk = Vdisk(cluster)
    volume = vdisk("volume create", pool_spec=pool, name="pvc", size="4M")
    vdisk("snap create", image_spec=image_spec(volume), snap_name="shot")
    shot = vdisk.sealed(f"{pool}/shot")
    cluster.rbd("create", f"{pool}/flat", "--size", "4M", "--image-feature", "exclusive-lock")
    cluster.rbd("create", f"{pool}/golden", "--size", "4M")
    number = pool_id(cluster, pool)
    names = {
        "pool8": f"{number:08x}",
        "pool16": f"{number:016x}",
        "pool": pool,
        "bare": "bare",
        "fsid": cluster.fsid,
        "image": image_spec(volume),
        "volume": volume["handle"],
        "shot": shot["handle"],
    }
    return World(vdisk, names)


def test_bad_input_is_refused_and_changes_nothing(cluster: Cluster, world: World) -> None:
    cluster.create_pool("bare", rbd_init=False)
    wrong = []
    try:
        with unchanged(cluster):
            for code, words, args in CASES:
                filled = {key: world.fill(value) for key, value in args.items()}
                ret, out, status = world.vdisk.raw(words, **{"format": "json", **filled})
                shown = (words, {key: str(value)[:60] for key, value in args.items()})
                if ret == 0:
                    wrong.append((shown, code, "worked", out))
                    continue
                if "format" in args:
                    # Without a form that can be understood, the answer is plain.
                    if (ret, out, status.partition(":")[0]) != (-ERRNO[code], "", code):
                        wrong.append((shown, code, ret, out, status))
                    continue
                refusal = check_error(ret, out, status)
                if refusal.code != code:
                    wrong.append((shown, code, refusal.code, refusal.message))
                if len(refusal.message) > 600:
                    wrong.append((shown, code, "a message of", len(refusal.message), "characters"))
            assert not wrong, "\n".join(map(str, wrong))
    finally:
        cluster.delete_pool("bare")
    assert len(CASES) >= 60
    assert [item["name"] for item in world.vdisk("volume ls", pool_spec=world.names["pool"])] == ["pvc"]


def test_booleans_and_numbers_as_text_are_understood(cluster: Cluster, world: World) -> None:
    vdisk, pool = world.vdisk, world.names["pool"]
    with unchanged(cluster):
        for text in ("true", "True", True):
            assert vdisk("volume create", pool_spec=pool, name="new", size="4M", dry_run=text)["dry_run"] is True
        assert len(vdisk("volume ls", pool_spec=pool, limit="1", marker="a")) == 1
    for number, text in enumerate(("false", False)):
        made = vdisk("volume create", pool_spec=pool, name=f"new-{number}", size=4 << 20, dry_run=text, wait="10")
        assert made["state"] == "ready"


def test_errors_in_plain_form_are_one_line(world: World) -> None:
    for words, args in (
        ("volume info", {"volume": "{pool}/nothing"}),
        ("volume create", {"pool_spec": "{pool}", "name": "a\nb", "size": "1"}),
        ("volume create", {"pool_spec": "{pool}", "name": "a", "size": "x\ny"}),
        ("volume info", {"volume": "0101-\n\n-x"}),
    ):
        for form in ({}, {"format": "plain"}, {"format": "json-pretty"}):
            filled = {key: world.fill(value) for key, value in args.items()}
            ret, out, status = world.vdisk.raw(words, **filled, **form)
            assert ret < 0
            assert "\n" not in status
            if form.get("format") == "json-pretty":
                check_error(ret, out, status)
            else:
                assert out == ""


def test_unknown_commands_are_not_ours(cluster: Cluster) -> None:
    for prefix in ("vdisk", "vdisk volume", "vdisk volume explode", "vdisk  status", "vdiskstatus"):
        ret, _, status = cluster.mgr_command({"prefix": prefix}, timeout=20)
        assert ret < 0, prefix
        assert "Traceback" not in status


def test_every_error_class_has_its_form() -> None:
    assert {cls.code: cls.errno for cls in ERROR_CLASSES} == ERRNO
    for cls in ERROR_CLASSES:
        error = cls("one\nline  of text", maximum=GIB)
        body = json.loads(json.dumps(error.to_dict()))
        assert body == {
            "error": {
                "code": cls.code,
                "message": "one line of text",
                "retryable": cls.code in RETRYABLE,
                "details": {"maximum": GIB},
            }
        }
