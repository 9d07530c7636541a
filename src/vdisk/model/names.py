"""Names of the journal: objects, omap keys and images, exactly as CSI drivers write them (doc/concepts.md)."""

from __future__ import annotations

import enum
import re

from .errors import InvalidArgument

UUID_PATTERN = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_IMAGE = re.compile(rf"csi-(vol|snap)-({UUID_PATTERN})")
#: What the CSI specification bans in a name, and the separators of our own specs.
_BANNED = re.compile(r"[\x00-\x1f\x7f-\x9f/@]")
#: The CSI specification's size limit of a string field, in bytes.
MAX_REQUEST_NAME = 128

#: The journal's instance unless the option says otherwise.
DEFAULT_JOURNAL = "default"

IMAGE_NAME_KEY = "csi.imagename"
IMAGE_ID_KEY = "csi.imageid"
SOURCE_KEY = "csi.source"


_STEMS = {"volume": "volume", "snapshot": "snap", "group": "volume.group"}
_SHORT = {"volume": "vol", "snapshot": "snap", "group": "group"}


class Kind(enum.Enum):
    """The kinds of thing that the journal knows; the value is what users read.

    A group (:mod:`.groups`) is a snapshot of several volumes. It has no image of its own: :meth:`image` names the RBD
    group that it is made through.
    """

    VOLUME = "volume"
    SNAPSHOT = "snapshot"
    GROUP = "group"

    @property
    def _stem(self) -> str:
        return _STEMS[self.value]

    def directory(self, instance: str = DEFAULT_JOURNAL) -> str:
        """Name of the directory object: ``csi.volumes.<instance>``, ``csi.snaps.<...>`` or ``csi.groups.<...>``."""
        return f"csi.{self._stem.rpartition('.')[2]}s.{instance}"

    def key(self, request_name: str) -> str:
        """Directory key of a request name: ``csi.volume.<name>``, ``csi.snap.<name>``, ``csi.volume.group.<name>``."""
        return f"csi.{self._stem}.{request_name}"

    def request_name(self, key: str) -> str | None:
        """Inverse of :meth:`key`; None when the key belongs to something else."""
        prefix = f"csi.{self._stem}."
        return key[len(prefix) :] if key.startswith(prefix) else None

    def object(self, uuid: str) -> str:
        """Name of the journal object: ``csi.volume.<uuid>``, ``csi.snap.<uuid>`` or ``csi.volume.group.<uuid>``."""
        return f"csi.{self._stem}.{uuid}"

    def image(self, uuid: str) -> str:
        """Name of the RBD image, ``csi-vol-<uuid>`` or ``csi-snap-<uuid>``; of a group ``csi-group-<uuid>``."""
        return f"csi-{_SHORT[self.value]}-{uuid}"

    @property
    def name_key(self) -> str:
        """Key of the request name inside the journal object, ``csi.volname`` or ``csi.snapname``."""
        return "csi.snapname" if self is Kind.SNAPSHOT else "csi.volname"


def is_journal(text: str) -> bool:
    """Tell whether ``text`` can be the journal's instance, a part of object names."""
    return re.fullmatch(r"[A-Za-z0-9._-]{1,64}", text) is not None


def parse_image_name(image: str) -> tuple[Kind, str] | None:
    """Return (kind, uuid) of a ``csi-vol-*`` or ``csi-snap-*`` image name, None for any other name."""
    match = _IMAGE.fullmatch(image)
    if match is None:
        return None
    return (Kind.VOLUME if match[1] == "vol" else Kind.SNAPSHOT), match[2]


def temp_image(image: str) -> str:
    """Name of the temporary clone that a CSI driver may leave beside ``image`` (source note, volume delete)."""
    return f"{image}-temp"


def check_request_name(name: object, argument: str = "name") -> str:
    """Return ``name`` when it can be a request name, else raise :class:`InvalidArgument`."""
    if not isinstance(name, str) or not name:
        raise InvalidArgument(f"{argument} is missing: give a name of 1 to {MAX_REQUEST_NAME} bytes")
    try:
        size = len(name.encode("utf-8"))
    except UnicodeEncodeError:
        raise InvalidArgument(f"{argument} is not valid UTF-8") from None
    if size > MAX_REQUEST_NAME:
        raise InvalidArgument(f"{argument} is {size} bytes long: at most {MAX_REQUEST_NAME} are allowed")
    banned = _BANNED.search(name)
    if banned is not None:
        raise InvalidArgument(
            f"{argument} {name!r} holds {banned[0]!r}: '/', '@' and control characters are not allowed"
        )
    if name != name.strip():
        raise InvalidArgument(f"{argument} {name!r} begins or ends with white space")
    return name
