"""Decoders of what RBD keeps in RADOS, on bytes built by hand from Ceph's encoding rules."""

import contextlib
import struct

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from vdisk.cluster.header import (
    decode_children,
    decode_image,
    decode_parent,
    decode_snap,
    decode_string,
    decode_time,
    decode_trash,
)
from vdisk.model.errors import Internal
from vdisk.model.observed import Child, Parent, Trashed


def u8(value):
    return struct.pack("<B", value)


def u32(value):
    return struct.pack("<I", value)


def u64(value):
    return struct.pack("<Q", value)


def i64(value):
    return struct.pack("<q", value)


def text(value):
    return u32(len(value.encode())) + value.encode()


def frame(version, compatible, *parts):
    content = b"".join(parts)
    return u8(version) + u8(compatible) + u32(len(content)) + content


def child(pool_id, namespace, image_id, later=b""):
    return frame(2, 1, i64(pool_id), text(image_id), text(namespace), later)


def snap_v8(snap_id, name, size, namespace=0, later=b""):
    """A snapshot record as Nautilus and later write it: no features, no parent."""
    return frame(
        8,
        8,
        *[u64(snap_id), text(name), u64(size), u8(0), u64(0)],
        frame(1, 1, u32(namespace), *([u32(0), text("before")] if namespace == 2 else [])),
        *[struct.pack("<II", 1, 2), u32(1), u8(0), later],
    )


def test_strings_are_read():
    assert decode_string(text("2aa3aa335f812b")) == "2aa3aa335f812b"
    assert decode_string(text("é") + b"more") == "é"


def test_times_are_seconds():
    assert decode_time(struct.pack("<II", 1655723953, 500_000_000)) == 1655723953.5


@pytest.mark.parametrize("later", [b"", b"unknown later fields"])
def test_a_trash_entry_tells_the_former_name_and_whether_the_move_is_over(later):
    times = struct.pack("<IIII", 1, 500_000_000, 3, 0)
    old = decode_trash("10aa", frame(1, 1, u8(0), text("csi-vol-x"), times))
    assert old == Trashed("10aa", "csi-vol-x", 1.5, 3.0, True)
    for state, over in ((0, True), (1, False), (2, True)):
        value = frame(2, 1, u8(0), text("csi-vol-x"), times, u8(state), later)
        assert decode_trash("10aa", value) == Trashed("10aa", "csi-vol-x", 1.5, 3.0, over)


def test_parents_are_read_in_both_versions():
    old = frame(1, 1, i64(3), text("abc"), u64(7), u64(1 << 30))
    assert decode_parent(old) == Parent(3, "", "abc", 7)
    new = frame(2, 1, i64(3), text("ns"), text("abc"), u64(7), u8(1), u64(1 << 30), b"later")
    assert decode_parent(new) == Parent(3, "ns", "abc", 7)


@pytest.mark.parametrize(
    "value",
    [
        frame(1, 1, i64(-1), text(""), u64(0), u64(0)),
        frame(1, 1, i64(3), text("abc"), u64(7), u64(0)),
        frame(2, 1, i64(-1), text(""), text(""), u64(0), u8(0)),
        frame(2, 1, i64(3), text(""), text("abc"), u64(7), u8(0)),
    ],
)
def test_a_parent_that_is_detached_is_none(value):
    assert decode_parent(value) is None


def test_children_are_read_and_sorted():
    value = u32(2) + child(2, "ns", "bbb", b"later") + frame(1, 1, i64(1), text("aaa"))
    assert decode_children(value) == (Child(1, "", "aaa"), Child(2, "ns", "bbb"))
    assert decode_children(u32(0)) == ()


@pytest.mark.parametrize(("namespace", "user"), [(0, True), (1, False), (2, False), (3, False)])
def test_snapshots_tell_whether_they_are_the_users(namespace, user):
    found = decode_snap(snap_v8(4, "s", 1 << 30, namespace, b"later"), u32(1) + child(1, "", "aaa"))
    assert (found.id, found.name, found.size, found.user) == (4, "s", 1 << 30, user)
    assert found.children == (Child(1, "", "aaa"),)


def test_snapshots_of_old_releases_carry_features_and_a_parent():
    parent = frame(1, 1, i64(-1), text(""), u64(0), u64(0))
    value = frame(6, 1, u64(4), text("s"), u64(5), u64(61), parent, u8(1), u64(0), frame(1, 1, u32(0)), u64(0))
    found = decode_snap(value)
    assert (found.id, found.name, found.size, found.user, found.children) == (4, "s", 5, True, ())
    ancient = frame(2, 1, u64(4), text("s"), u64(5), u64(1), parent, u8(0))
    assert decode_snap(ancient).user


HEADER = {
    "size": u64(1 << 30),
    "order": u8(22),
    "features": u64(61),
    "object_prefix": text("rbd_data.1"),
    "snap_seq": u64(4),
    "create_timestamp": struct.pack("<II", 1655723953, 0),
    "snapshot_0000000000000005": snap_v8(5, "b", 2),
    "snapshot_0000000000000004": snap_v8(4, "a", 1),
    "snap_children_0000000000000004": u32(1) + child(1, "", "kid"),
    "parent": frame(2, 1, i64(3), text(""), text("abc"), u64(7), u8(1), u64(1)),
}


def test_an_image_is_read_from_its_header():
    image = decode_image("i", "id1", HEADER, trashed=True)
    assert (image.name, image.id, image.size, image.features, image.order) == ("i", "id1", 1 << 30, 61, 22)
    assert (image.stripe_unit, image.stripe_count, image.data_pool_id) == (1 << 22, 1, None)
    assert (image.created_at, image.trashed, image.parent) == (1655723953.0, True, Parent(3, "", "abc", 7))
    assert [snap.name for snap in image.snaps] == ["a", "b"]
    assert image.children == (Child(1, "", "kid"),)
    assert image.snap("a").size == 1
    assert image.snap("c") is None


def test_striping_and_data_pool_are_read():
    image = decode_image(
        "i", "1", {**HEADER, "stripe_unit": u64(65536), "stripe_count": u64(16), "data_pool_id": i64(9)}
    )
    assert (image.stripe_unit, image.stripe_count, image.data_pool_id) == (65536, 16, 9)


@pytest.mark.parametrize("key", ["size", "order", "features"])
def test_a_header_that_lacks_a_key_is_an_internal_error_that_names_it(key):
    with pytest.raises(Internal, match=f"i has no '{key}'"):
        decode_image("i", "1", {name: value for name, value in HEADER.items() if name != key})


@settings(max_examples=80, deadline=None, phases=[Phase.generate], derandomize=True)
@given(st.sampled_from(sorted(HEADER)), st.integers(0, 60))
def test_a_value_that_was_cut_short_is_an_internal_error(key, length):
    cut = HEADER[key][:length]
    with contextlib.suppress(Internal):
        decode_image("i", "1", {**HEADER, key: cut})


class Ioctx:
    """Serves reads of one object."""

    def __init__(self, data):
        self.data = data

    def read(self, oid, length, offset):
        import rados

        assert oid == "rbd_object_map.1"
        if self.data is None:
            raise rados.ObjectNotFound("no object map")
        return self.data[offset : offset + length]


def count(data, objects):
    pytest.importorskip("rados")
    from vdisk.cluster.usage import count_objects

    return count_objects(Ioctx(data), "1", objects)


def test_existing_objects_are_counted_from_the_object_map():
    header = bytes(18)
    assert count(header + bytes([0b01_10_11_00, 0b00_00_00_01]), 8) == 4
    assert count(header + bytes(100), 400) == 0
    assert count(header + b"\xff" * 25, 100) == 100
    assert count(header, 0) == 0


def test_what_follows_the_object_map_is_not_counted():
    assert count(bytes(18) + bytes(2) + b"\xff" * 8, 8) == 0


def test_an_object_map_that_is_too_short_counts_what_is_there():
    assert count(bytes(18) + b"\x55", 4000) == 4


def test_images_without_object_map_have_no_count():
    assert count(None, 8) is None


def test_errors_of_librados_become_those_of_the_model():
    rados = pytest.importorskip("rados")
    import errno

    from vdisk.cluster.errors import from_errno, translated
    from vdisk.model import errors as model

    expected = {
        errno.ENOENT: model.NotFound,
        errno.EEXIST: model.AlreadyExists,
        errno.ENOSPC: model.NoSpace,
        errno.EDQUOT: model.NoSpace,
        errno.EBUSY: model.NotReady,
        errno.EPERM: model.NotReady,
        errno.ETIMEDOUT: model.NotReady,
        errno.ESHUTDOWN: model.Disconnected,
        errno.EOPNOTSUPP: model.Unsupported,
        errno.EFAULT: model.Internal,
    }
    for number, cls in expected.items():
        assert type(from_errno(-number, "x")) is cls
    with pytest.raises(model.Disconnected, match="doing"), translated("doing"):
        raise rados.ConnectionShutdown("x", errno=errno.ESHUTDOWN)
    with pytest.raises(model.Disconnected), translated("doing"):
        raise rados.IoctxStateError("closed")
    with pytest.raises(model.NotFound), translated("doing"):
        raise rados.ObjectNotFound("x", errno=errno.ENOENT)
