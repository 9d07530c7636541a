"""The model: names, handles, specs, sizes, layouts, errors and the objects that users see."""

import contextlib
import errno
import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vdisk.engine.operation import Operation
from vdisk.lifecycle.removal import RemoveVolume
from vdisk.model import errors
from vdisk.model.errors import InvalidArgument, OutOfRange, error_from_dict
from vdisk.model.handles import Handle, HandleFormat, decode_handle
from vdisk.model.layout import (
    SNAPSHOT_FEATURES,
    Layout,
    check_size,
    feature_names,
    layout_differences,
    parse_features,
    parse_layout,
)
from vdisk.model.names import Kind, check_request_name, parse_image_name, temp_image
from vdisk.model.objects import Snapshot, Source, Volume, rfc3339
from vdisk.model.observed import Entry, Image, Location
from vdisk.model.specs import (
    MAX_SIZE,
    ImageSpec,
    NameRef,
    PoolSpec,
    format_size,
    parse_duration,
    parse_image_spec,
    parse_pool_spec,
    parse_size,
    parse_snapshot_ref,
    parse_volume_ref,
)

# -- handles: the source note's own values ---------------------------------------------------------------------------

CLUSTER = "4a9e463a-4853-4237-a5c5-9ae9d25bacda"
VOLUME = "768a1126-f064-11ec-9a2d-36614e068d81"
SNAPSHOT = "cd9f5f0e-f08a-11ec-8806-1ed64b5d608a"
RESTORED = "566a36f5-f090-11ec-9a2d-36614e068d81"


@pytest.mark.parametrize("uuid", [VOLUME, SNAPSHOT, RESTORED])
def test_handles_of_the_source_note_are_read_and_written(uuid):
    text = f"0101-24-{CLUSTER}-00000001-{uuid}"
    assert decode_handle(text) == Handle(CLUSTER, 1, uuid)
    assert Handle(CLUSTER, 1, uuid).encode() == text
    upstream = f"0001-0024-{CLUSTER}-0000000000000001-{uuid}"
    assert decode_handle(upstream) == Handle(CLUSTER, 1, uuid)
    assert Handle(CLUSTER, 1, uuid).encode(HandleFormat.CEPH_CSI) == upstream


CLUSTER_IDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=18)
HANDLES = st.builds(Handle, CLUSTER_IDS, st.integers(0, 2**32 - 1), st.uuids().map(str))


@settings(max_examples=60, deadline=None)
@given(HANDLES, st.sampled_from(HandleFormat))
def test_handles_of_both_families_come_back_as_they_were(handle, family):
    assert decode_handle(handle.encode(family)) == handle


@settings(max_examples=30, deadline=None)
@given(st.integers(2**32, 2**63 - 1))
def test_pool_ids_that_only_ceph_csi_has_room_for_come_back(pool_id):
    handle = Handle(CLUSTER, pool_id, VOLUME)
    assert decode_handle(handle.encode(HandleFormat.CEPH_CSI)) == handle


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=120) | st.text("01-24abf", max_size=120).map(lambda text: "0101-" + text))
def test_only_canonical_text_is_a_handle(text):
    with contextlib.suppress(InvalidArgument):
        handle = decode_handle(text)
        assert text in (handle.encode(HandleFormat.CSTOR), handle.encode(HandleFormat.CEPH_CSI))


GOOD = f"0101-24-{CLUSTER}-00000001-{VOLUME}"
GOOD_CSI = f"0001-0024-{CLUSTER}-0000000000000001-{VOLUME}"
MALFORMED = [
    "",
    "-",
    "0101",
    "0101-",
    "0101-24",
    "0101-24-",
    "0001-",
    "0001-0024",
    "nothing",
    VOLUME,
    f"csi-vol-{VOLUME}",
    " " + GOOD,
    GOOD + " ",
    GOOD + "\n",
    GOOD + "\0",
    GOOD + "0",
    GOOD[:-1],
    GOOD[1:],
    GOOD.upper(),
    GOOD.replace("0101", "0102", 1),
    GOOD.replace("0101", "0001", 1),
    GOOD.replace("0101", "\u0661\u0660\u0661", 1),
    GOOD.replace("-24-", "-23-", 1),
    GOOD.replace("-24-", "-25-", 1),
    GOOD.replace("-24-", "-00-", 1),
    GOOD.replace("-24-", "-ff-", 1),
    GOOD.replace("-24-", "-2-", 1),
    GOOD.replace("-24-", "-024-", 1),
    GOOD.replace("-24-", "-zz-", 1),
    GOOD.replace("-24-", "-+4-", 1),
    GOOD.replace("-24-", "-2A-", 1),
    GOOD.replace("-24-", "--", 1),
    GOOD.replace("00000001", "0000001", 1),
    GOOD.replace("00000001", "000000001", 1),
    GOOD.replace("00000001", "0000000g", 1),
    GOOD.replace("00000001", "0000000A", 1),
    GOOD.replace("00000001", "-0000001", 1),
    GOOD.replace("00000001", "0x000001", 1),
    GOOD.replace("00000001", "\u0660\u0660\u0660\u0660\u0660\u0660\u0660\u0661", 1),
    GOOD.replace("00000001", "", 1),
    GOOD.replace(VOLUME, "", 1),
    GOOD.replace(VOLUME, VOLUME.upper(), 1),
    GOOD.replace(VOLUME, VOLUME.replace("-", ""), 1),
    GOOD.replace(VOLUME, VOLUME.replace("-", "_"), 1),
    GOOD.replace(VOLUME, VOLUME[:-1] + "g", 1),
    GOOD.replace(VOLUME, "{" + VOLUME + "}", 1),
    GOOD.replace(CLUSTER, "", 1),
    GOOD.replace(CLUSTER, CLUSTER[:-1] + "é", 1),
    GOOD.replace(CLUSTER, CLUSTER + "\ud800", 1),
    f"0101-03-\ud800-00000001-{VOLUME}",
    f"0101-01-é-00000001-{VOLUME}",
    f"0101-49-{'a' * 73}-00000001-{VOLUME}",
    f"0101-00--00000001-{VOLUME}",
    GOOD_CSI.replace("0001", "0101", 1),
    GOOD_CSI.replace("-0024-", "-24-", 1),
    GOOD_CSI.replace("-0024-", "-0025-", 1),
    GOOD_CSI.replace("-0024-", "-ffff-", 1),
    GOOD_CSI.replace("0000000000000001", "00000001", 1),
    GOOD_CSI.replace("0000000000000001", "000000000000000g", 1),
    GOOD_CSI + "-" + VOLUME,
]


def test_there_are_enough_malformed_handles():
    assert len(set(MALFORMED)) == len(MALFORMED) >= 50


@pytest.mark.parametrize("text", MALFORMED, ids=range(len(MALFORMED)))
def test_malformed_handles_are_invalid(text):
    with pytest.raises(InvalidArgument) as caught:
        decode_handle(text)
    assert len(caught.value.message) < 400


# -- names -----------------------------------------------------------------------------------------------------------


def test_names_are_those_of_the_source_note():
    assert Kind.VOLUME.directory() == "csi.volumes.default"
    assert Kind.SNAPSHOT.directory() == "csi.snaps.default"
    assert Kind.SNAPSHOT.directory("other") == "csi.snaps.other"
    assert Kind.VOLUME.key("pvc-1") == "csi.volume.pvc-1"
    assert Kind.SNAPSHOT.key("snapshot-1") == "csi.snap.snapshot-1"
    assert Kind.VOLUME.object(VOLUME) == f"csi.volume.{VOLUME}"
    assert Kind.SNAPSHOT.object(SNAPSHOT) == f"csi.snap.{SNAPSHOT}"
    assert Kind.VOLUME.image(VOLUME) == f"csi-vol-{VOLUME}"
    assert Kind.SNAPSHOT.image(SNAPSHOT) == f"csi-snap-{SNAPSHOT}"
    assert Kind.VOLUME.name_key == "csi.volname"
    assert Kind.SNAPSHOT.name_key == "csi.snapname"
    assert temp_image(f"csi-vol-{VOLUME}") == f"csi-vol-{VOLUME}-temp"


@given(st.text(max_size=20))
@settings(max_examples=30, deadline=None)
def test_directory_keys_come_back_as_names(name):
    for kind in Kind:
        assert kind.request_name(kind.key(name)) == name
        assert kind.request_name("other." + name) is None


def test_image_names_tell_what_they_are():
    assert parse_image_name(f"csi-vol-{VOLUME}") == (Kind.VOLUME, VOLUME)
    assert parse_image_name(f"csi-snap-{SNAPSHOT}") == (Kind.SNAPSHOT, SNAPSHOT)
    for other in ("", "vm-1", f"csi-vol-{VOLUME}-temp", f"csi-vol-{VOLUME}\n", f"csi-group-{VOLUME}", VOLUME):
        assert parse_image_name(other) is None


@pytest.mark.parametrize("name", ["a", "pvc-1", "a b", "名字", "a" * 128, "é" * 64, "-x", ".", "csi.volume.x", "a:b"])
def test_good_request_names_are_taken_as_they_are(name):
    assert check_request_name(name) == name


@pytest.mark.parametrize(
    "name",
    [None, 1, "", " ", "a ", " a", "a/b", "a@b", "a\nb", "a\0", "\x7f", "\x85", "a" * 129, "é" * 65, "\ud800", []],
)
def test_bad_request_names_are_invalid_and_the_argument_is_named(name):
    with pytest.raises(InvalidArgument, match=r"^marker "):
        check_request_name(name, "marker")


def test_an_entry_knows_its_keys_and_stands_missing_ones():
    values = {"csi.imagename": "odd", "csi.snapname": "s", "csi.source": "src", "csi.imageid": "1", "csi.groupid": "g"}
    entry = Entry(Kind.SNAPSHOT, SNAPSHOT, values)
    assert (entry.image, entry.name, entry.source, entry.image_id) == ("odd", "s", "src", "1")
    bare = Entry(Kind.VOLUME, VOLUME)
    assert (bare.image, bare.name, bare.source, bare.image_id) == (f"csi-vol-{VOLUME}", None, None, None)


# -- specs -----------------------------------------------------------------------------------------------------------


def test_specs_are_parsed_and_written():
    assert parse_pool_spec("rbd") == PoolSpec("rbd")
    assert parse_pool_spec("rbd/ns") == PoolSpec("rbd", "ns")
    assert parse_image_spec("rbd/i") == ImageSpec(PoolSpec("rbd"), "i")
    assert parse_image_spec("rbd/ns/i") == ImageSpec(PoolSpec("rbd", "ns"), "i")
    assert parse_volume_ref("rbd/ns/v") == NameRef(PoolSpec("rbd", "ns"), "v")
    assert parse_volume_ref(GOOD) == Handle(CLUSTER, 1, VOLUME)
    assert parse_snapshot_ref("rbd/i@s") == NameRef(PoolSpec("rbd"), "s", "i")
    assert parse_snapshot_ref("rbd/ns/i@s") == NameRef(PoolSpec("rbd", "ns"), "s", "i")
    assert parse_snapshot_ref("rbd/s") == NameRef(PoolSpec("rbd"), "s")
    assert parse_snapshot_ref(GOOD_CSI) == Handle(CLUSTER, 1, VOLUME)
    for spec in ("rbd", "rbd/ns"):
        assert str(parse_pool_spec(spec)) == spec
    for spec in ("rbd/i", "rbd/ns/i"):
        assert str(parse_image_spec(spec)) == spec
    for spec in ("rbd/s", "rbd/ns/i@s"):
        assert str(parse_snapshot_ref(spec)) == spec


@pytest.mark.parametrize(
    ("parse", "bad"),
    [
        *[(parse_pool_spec, bad) for bad in ("", None, 3, "/", "a/", "/a", "a/b/c", "a@b", "a\n", "a//b", ["a"])],
        *[(parse_image_spec, bad) for bad in ("", None, "a", "a/", "a/b/c/d", "a/b@c", "a//b", "a/b\0")],
        *[(parse_volume_ref, bad) for bad in ("", None, "a", "a/", "a/b/c/d", "a/b@c", "0101-/x/y/z")],
        *[(parse_snapshot_ref, bad) for bad in ("", None, "a", "a/b@", "a/b@c@d", "@", "a@b", "a/b@c/d", "/@x")],
    ],
)
def test_bad_specs_are_invalid(parse, bad):
    with pytest.raises(InvalidArgument):
        parse(bad)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (1, 1),
        ("1", 1),
        ("10G", 10 << 30),
        ("10GiB", 10 << 30),
        ("10gib", 10 << 30),
        ("10 GiB", 10 << 30),
        ("1024B", 1024),
        ("4k", 4096),
        ("3Ti", 3 << 40),
        (" 2M ", 2 << 20),
        ("7E", 7 << 60),
        (MAX_SIZE, MAX_SIZE),
        (str(MAX_SIZE), MAX_SIZE),
    ],
)
def test_sizes_are_bytes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "bad",
    [
        *[
            None,
            True,
            "",
            " ",
            "G",
            "10X",
            "-1",
            -1,
            0,
            "0",
            "0G",
            "1.5G",
            "1e9",
            "1_000",
            "0x10",
            "10GG",
            "10GB",
            "10G B",
        ],
        *[[], {}, 1.0, "\u0661", "1\n2", "None", "1" * 30, "10KiBB", "10 "[:-1] + "\0"],
    ],
)
def test_what_is_no_size_is_invalid(bad):
    with pytest.raises(InvalidArgument, match="size"):
        parse_size(bad)


def test_a_unit_that_only_looks_like_k_is_invalid():
    with pytest.raises(InvalidArgument):
        parse_size("10\u212a")  # the Kelvin sign, which re.IGNORECASE takes for k


@pytest.mark.parametrize("big", ["8E", MAX_SIZE + 1, "9" * 20, 10**400, "20E"])
def test_sizes_beyond_any_image_are_out_of_range(big):
    with pytest.raises(OutOfRange) as caught:
        parse_size(big)
    assert caught.value.details == {"maximum": MAX_SIZE}


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=12) | st.text("0123456789kKmMgGtTiIbB .-", max_size=12))
def test_any_text_is_a_size_or_a_proper_error(text):
    with contextlib.suppress(InvalidArgument, OutOfRange):
        assert 1 <= parse_size(text) <= MAX_SIZE


def test_durations_are_seconds():
    assert [parse_duration(text, "keep_for") for text in ("0", "30", "30s", "5m", "12h", "7d", "2w")] == [
        *[0, 30, 30, 300, 43200, 604800, 1209600]
    ]
    for bad in (None, 7, "", "d", "-1d", "1.5h", "7D", "7 d", "7dd", "\u0667d"):
        with pytest.raises(InvalidArgument, match="keep_for"):
            parse_duration(bad, "keep_for")
    with pytest.raises(OutOfRange):
        parse_duration("999999w", "keep_for")


def test_sizes_are_shown_as_rbd_shows_them():
    shown = {
        0: "0 B",
        512: "512 B",
        1024: "1 KiB",
        1536: "1.5 KiB",
        1 << 30: "1 GiB",
        3 << 40: "3 TiB",
        1 << 62: "4 EiB",
    }
    assert {size: format_size(size) for size in shown} == shown


# -- layouts ---------------------------------------------------------------------------------------------------------


def test_layouts_are_parsed():
    assert parse_layout() == Layout()
    assert parse_layout().arguments() == {}
    full = parse_layout("layering, exclusive-lock", "8M", "64K", 16, "data")
    assert full == Layout(5, 23, 65536, 16, "data")
    assert set(full.arguments()) == {"features", "order", "stripe_unit", "stripe_count", "data_pool"}
    assert full.clone_arguments() == full.arguments()
    assert Layout(order=16).clone_arguments() == {"order": 16, "stripe_unit": 65536, "stripe_count": 1}
    assert Layout(order=16).arguments() == {"order": 16}
    assert Layout().clone_arguments() == {}
    assert parse_features("layering,exclusive-lock,object-map,fast-diff,deep-flatten") == SNAPSHOT_FEATURES
    assert feature_names(5) == ["layering", "exclusive-lock"]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"image_features": ""}, "empty"),
        ({"image_features": 5}, "empty"),
        ({"image_features": "layering,"}, "none of"),
        ({"image_features": "layering,magic"}, "'magic'"),
        ({"image_features": "layering,striping"}, "striping"),
        ({"image_features": "layering,data-pool"}, "data-pool"),
        ({"image_features": "layering,object-map"}, "exclusive-lock"),
        ({"image_features": "layering,exclusive-lock,fast-diff"}, "object-map"),
        ({"image_features": "layering,journaling"}, "exclusive-lock"),
        ({"image_features": "exclusive-lock"}, "layering"),
        ({"object_size": "3M"}, "power of two"),
        ({"object_size": "2K"}, "power of two"),
        ({"object_size": "64M"}, "power of two"),
        ({"object_size": "big"}, "object_size"),
        ({"stripe_unit": "64K"}, "belong together"),
        ({"stripe_count": 4}, "belong together"),
        ({"stripe_unit": "65K", "stripe_count": 4}, "power of two"),
        ({"stripe_unit": "2K", "stripe_count": 4}, "power of two"),
        ({"stripe_unit": "8M", "stripe_count": 4}, "larger"),
        ({"object_size": "1M", "stripe_unit": "2M", "stripe_count": 4}, "larger"),
        ({"stripe_unit": "64K", "stripe_count": 0}, "stripe_count"),
        ({"stripe_unit": "64K", "stripe_count": 1025}, "stripe_count"),
        ({"stripe_unit": "64K", "stripe_count": True}, "stripe_count"),
        ({"stripe_unit": "64K", "stripe_count": "4"}, "stripe_count"),
        ({"data_pool": ""}, "data_pool"),
        ({"data_pool": 7}, "data_pool"),
    ],
)
def test_bad_layouts_say_which_option_is_wrong(arguments, word):
    with pytest.raises(InvalidArgument, match=word):
        parse_layout(**arguments)


def test_sizes_are_checked_against_the_object_map_and_features_asked_only_then():
    check_size(1 << 40, None, lambda: 1 // 0)
    check_size(1 << 60, None, lambda: 1)
    check_size(1 << 50, 25, lambda: SNAPSHOT_FEATURES)
    with pytest.raises(OutOfRange):
        check_size((256_000_000 << 22) + 1, None, lambda: SNAPSHOT_FEATURES)


def test_differences_in_layout_are_named():
    image = Image("i", "1", 1, 5 | 2 | 128, 22, 1 << 22, 1, 7, 0.0, None)
    assert layout_differences(image, Layout(), None) == []
    assert layout_differences(image, Layout(5, 22, 1 << 22, 1, "data"), 7) == []
    assert len(layout_differences(image, Layout(1, 23, 4096, 2, "data"), 8)) == 5


# -- errors: doc/errors.md's table --------------------------------------------------------------------------------

TABLE = {
    "invalid_argument": errno.EINVAL,
    "not_found": errno.ENOENT,
    "already_exists": errno.EEXIST,
    "in_use": errno.EBUSY,
    "has_dependents": errno.ENOTEMPTY,
    "pending": errno.EAGAIN,
    "throttled": errno.EAGAIN,
    "not_ready": errno.EAGAIN,
    "out_of_range": errno.ERANGE,
    "no_space": errno.ENOSPC,
    "denied": errno.EACCES,
    "unsupported": errno.EOPNOTSUPP,
    "internal": errno.EIO,
}


def test_codes_and_errnos_are_those_of_the_design():
    assert {cls.code: cls.errno for cls in errors.ERROR_CLASSES} == TABLE
    assert {cls.code for cls in errors.ERROR_CLASSES if cls.errno == errno.EAGAIN or cls.code == "no_space"} == {
        cls.code for cls in errors.ERROR_CLASSES if cls.retryable
    }


@pytest.mark.parametrize("cls", errors.ERROR_CLASSES)
def test_errors_come_back_from_their_json_form_as_one_line(cls):
    error = cls("two\n lines", watchers=["a"])
    data = json.loads(json.dumps(error.to_dict()))
    assert data == {
        "error": {
            "code": cls.code,
            "message": "two lines",
            "retryable": cls.retryable,
            "details": {"watchers": ["a"]},
        }
    }
    again = error_from_dict(data["error"])
    assert type(again) is cls
    assert again.to_dict() == data


def test_errors_of_other_versions_are_internal():
    assert type(error_from_dict({"code": "novel", "message": "m", "details": None})) is errors.Internal


# -- objects ---------------------------------------------------------------------------------------------------------


def test_times_are_rfc_3339_in_utc():
    assert rfc3339(None) is None
    assert rfc3339(0) == "1970-01-01T00:00:00.000Z"
    assert rfc3339(1655723953.278633948) == "2022-06-20T11:19:13.278Z"
    assert rfc3339(2**32 - 1) == "2106-02-07T06:28:15.000Z"


def fields(name):
    """Read the fields of an object out of the design's text, when it is at hand."""
    fixed = {
        "Volume": "name handle uuid pool namespace image image_id size state created_at source{kind,handle,name}",
        "Snapshot": "name handle uuid pool namespace image image_id source{image,handle} size created_at state "
        "ready_to_use sealed",
        "Operation": "id kind target state step progress waiting_for started_at error",
    }
    return [re.sub(r"\{.*\}", "", word) for word in fixed[name].split()]


def test_a_volume_has_the_fields_of_the_design():
    shown = Volume(
        "n", "h", "u", "p", "", "i", "1", 1, "ready", 0.0, Source("snapshot", "h", "n", Location(1, "p"))
    ).to_dict()
    assert sorted(shown) == sorted(fields("Volume"))
    assert sorted(shown["source"]) == ["handle", "kind", "name"]
    assert Volume("n", "h", "u", "p", "", "i", None, None, "pending", None, None).to_dict()["source"] is None


@pytest.mark.parametrize(("state", "ready"), [("ready", True), ("pending", False), ("deleting", False)])
def test_a_snapshot_has_the_fields_of_the_design(state, ready):
    shown = Snapshot("n", "h", "u", "p", "", "i", "1", "src", "sh", 1, 0.0, state, False).to_dict()
    assert sorted(shown) == sorted(fields("Snapshot"))
    assert sorted(shown["source"]) == ["handle", "image"]
    assert shown["ready_to_use"] is ready


def test_an_operation_has_the_fields_of_the_design():
    operation = Operation("o", RemoveVolume(Location(1, "rbd", "ns"), "n", VOLUME), 0.0)
    assert set(fields("Operation")) <= set(operation.to_dict())
    assert operation.to_dict()["target"] == "rbd/ns/n"
    json.dumps(operation.to_dict(details=True))
