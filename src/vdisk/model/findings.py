"""What a check finds: its classes, and a finding with its evidence, cost, cause and repair (doc/check.md)."""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .observed import Location


class Trouble(enum.Enum):
    """Classes of findings; the values are stable."""

    KEY_WITHOUT_OBJECT = "key_without_object"
    OBJECT_WITHOUT_KEY = "object_without_key"
    OBJECT_INCOMPLETE = "object_incomplete"
    NAME_MISMATCH = "name_mismatch"
    DUPLICATE_NAMES = "duplicate_names"
    RESERVED_WITHOUT_IMAGE = "reserved_without_image"
    SNAPSHOT_NEVER_CUT = "snapshot_never_cut"
    IMAGE_LOST = "image_lost"
    IMAGE_TRASHED = "image_trashed"
    IMAGE_RENAMED = "image_renamed"
    IMAGE_HEADLESS = "image_headless"
    IMAGE_ID_MISSING = "image_id_missing"
    IMAGE_ID_MISMATCH = "image_id_mismatch"
    IMAGE_WITHOUT_JOURNAL = "image_without_journal"
    UNSEALED = "unsealed"
    LEFTOVER_CUT = "leftover_cut"
    LEFTOVER_TEMP = "leftover_temp"
    SNAPSHOT_ABANDONED = "snapshot_abandoned"
    FLATTEN_UNFINISHED = "flatten_unfinished"
    TRASH_ORPHAN = "trash_orphan"
    TRASH_MOVE_UNFINISHED = "trash_move_unfinished"
    TASK_WITHOUT_IMAGE = "task_without_image"
    RECORD_WITHOUT_IMAGE = "record_without_image"
    GROUP_UNFINISHED = "group_unfinished"
    GROUP_MEMBER_LOST = "group_member_lost"
    LEFTOVER_GROUP = "leftover_group"
    INTENT_UNREADABLE = "intent_unreadable"
    DEPTH_NEAR_LIMIT = "depth_near_limit"
    SNAPSHOTS_NEAR_LIMIT = "snapshots_near_limit"
    LARGE_DIRECTORY = "large_directory"


class SubjectKind(enum.Enum):
    """What a finding is about, and so how it is looked at again."""

    VOLUME = "volume"
    SNAPSHOT = "snapshot"
    GROUP = "group"
    IMAGE = "image"
    TRASH = "trash"
    TASK = "task"
    RECORD = "record"
    INTENT = "intent"
    DIRECTORY = "directory"


@dataclass(frozen=True)
class Subject:
    """One thing to judge. ``key`` is a uuid, an image id, a task id, an intent's id or a directory's name.

    ``names`` are request names that were seen to lead to a uuid: nothing leads from the uuid back to them.
    """

    kind: SubjectKind
    key: str
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Finding:
    """Something that is not as it should be.

    ``objects`` are the exact objects, keys and images concerned. ``held`` are the bytes that it keeps from being freed,
    None where that is unknown. ``repair`` is None where there is nothing that vdisk could do. ``automatic`` says that
    the repair cannot lose data, so that ``--repair`` does it without being asked for it by id.
    """

    trouble: Trouble
    where: Location
    subject: Subject
    objects: tuple[str, ...]
    cause: str
    repair: str | None
    risk: str
    automatic: bool = False
    held: int | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """The finding's id: the same as long as the same is wrong with the same objects."""
        parts = [self.trouble.value, str(self.where.pool_id), self.where.namespace, self.subject.key, *self.objects]
        return hashlib.sha256("\0".join(parts).encode("utf-8", "replace")).hexdigest()[:12]

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "id": self.id,
            "class": self.trouble.value,
            "pool": self.where.pool,
            "namespace": self.where.namespace,
            "subject": {"kind": self.subject.kind.value, "key": self.subject.key, "names": list(self.subject.names)},
            "objects": list(self.objects),
            "held": self.held,
            "cause": self.cause,
            "repair": self.repair,
            "risk": self.risk,
            "automatic": self.automatic,
            "evidence": dict(self.evidence),
        }


def subject_from_dict(data: Mapping[str, Any]) -> Subject:
    """Rebuild the subject of a stored finding; raises ``ValueError`` for a form that this version does not know."""
    try:
        return Subject(SubjectKind(data["kind"]), str(data["key"]), tuple(str(name) for name in data["names"]))
    except (KeyError, TypeError) as error:
        raise ValueError(f"field {error}") from error
