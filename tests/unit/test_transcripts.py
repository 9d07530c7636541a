"""Pages as what can be run of them: how commands and their output are found, compared and written anew."""

import pytest

from transcripts.blocks import Block, Remark, blocks, parts
from transcripts.match import match, match_line, translate
from transcripts.session import Played, rewritten

A, B = "139a2769-d844-4bf3-8aad-5f1237af6c31", "4ffa5952-efa1-48e0-9a86-a0c323616387"
X, Y = "00000000-0000-0000-0000-00000000000a", "00000000-0000-0000-0000-00000000000b"
PAGE = f"""# A page

<!-- run: rbd create rbd/golden --size 1G -->

```console
$ ceph vdisk snap create rbd/csi-vol-{A} s-1
name: s-1
$ ceph vdisk volume ls \\
    rbd
```

<!-- not run: needs Kubernetes -->

```sh
kubectl get pods   # <!-- run: this is no remark -->
```

<!-- open: rbd/pvc-1 -->

Words.

```text
$ rm -rf /
```
"""


def test_blocks_and_remarks_are_found_in_their_order():
    found = list(parts(PAGE))
    assert [part.kind if isinstance(part, Remark) else part.language for part in found] == [
        "run",
        "console",
        "not run",
        "sh",
        "open",
        "text",
    ]
    first, second, third = blocks(PAGE)
    assert [(typed.command, typed.output) for typed in first.typed] == [
        (f"ceph vdisk snap create rbd/csi-vol-{A} s-1", ("name: s-1",)),
        ("ceph vdisk volume ls \\\n    rbd", ()),
    ]
    assert second.remark == Remark("not run", "needs Kubernetes")
    assert third.remark is None, "words stand between"
    assert third.typed == ()
    assert PAGE[first.start : first.end] == first.body


def test_output_without_a_command_is_a_mistake():
    with pytest.raises(ValueError, match="without a command"):
        list(parts("```console\nname: x\n$ ceph -s\n```\n"))


@pytest.mark.parametrize(
    ("shown", "came", "same"),
    [
        ("size:  10 GiB", "size: 10 GiB", True),
        ("size:  10 GiB", "size: 11 GiB", False),
        ("created_at: 2026-11-24T15:49:43.769Z", "created_at: 2027-01-01T00:00:00.001Z", True),
        ("by 127.0.0.1:0/302 (client.4133)", "by 10.0.0.7:0/99 (client.7)", True),
        ("Error EBUSY: in_use: ...", "Error EBUSY: in_use: volume 'x'", True),
        ('  "size": 17179869184,', '  "size": 10737418240,', False),
        ("image_id: 100173905234", "image_id: 101394859403", False),
        ("image_id: 100c7390523f", "image_id: 101394859403", True),
        ("    seconds: 0.009728", "    seconds: 5e-06", True),
        ("NAME", "NAME*", False),
    ],
)
def test_a_line_is_the_same_but_for_what_changes_with_each_run(shown, came, same):
    assert (match_line(shown, came, {}) is not None) is same


def test_an_id_stands_for_one_thing_from_its_first_line_on():
    known = match([f"uuid: {A}", f"image: csi-vol-{A}"], [f"uuid: {X}", f"image: csi-vol-{X}"], {})
    assert known == {A: X}
    assert match([f"uuid: {A}", f"image: csi-vol-{A}"], [f"uuid: {X}", f"image: csi-vol-{Y}"], {}) is None
    assert match([f"uuid: {A}", f"uuid: {B}"], [f"uuid: {X}", f"uuid: {X}"], {}) is None
    assert match([f"{A} {A}"], [f"{X} {Y}"], {}) is None
    assert match([f"uuid: {A}"], [f"uuid: {Y}"], {A: X}) is None
    assert translate(f"rbd/csi-vol-{A}@csi-snap-{B}", {A: X}) == f"rbd/csi-vol-{X}@csi-snap-{B}"


def test_three_dots_stand_for_any_lines():
    assert match(["a", "...", "d"], ["a", "b", "c", "d"], {}) == {}
    assert match(["a", "...", "d"], ["a", "d"], {}) == {}
    assert match(["a", "..."], ["a"], {}) == {}
    assert match(["a", "...", "d"], ["a", "b", "c"], {}) is None
    assert match(["a"], ["a", "b"], {}) is None
    assert match([], [], {}) == {}


def test_a_page_is_written_anew_with_what_came_back_and_its_ids():
    page = f"Words of {A}.\n\n```console\n$ ceph a\nuuid: {A}\nold\n$ ceph b {A}\n...\nlast {A}\n```\n"
    block = blocks(page)[0]
    assert isinstance(block, Block)
    played = [
        Played(block, block.typed[0], "ceph a", (f"uuid: {X}", "new"), False),
        Played(block, block.typed[1], f"ceph b {X}", ("1", "2", f"last {X}"), True),
    ]
    assert rewritten(page, played, {A: X}) == (
        f"Words of {X}.\n\n```console\n$ ceph a\nuuid: {X}\nnew\n$ ceph b {X}\n...\nlast {X}\n```\n"
    )
