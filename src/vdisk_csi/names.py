"""Request names: what CSI allows in a name and what vdisk does, and an injective map from one to the other.

CSI allows any Unicode but most control characters, up to 128 bytes. vdisk's names also hold no ``/``, ``@`` or control
character and neither begin nor end with white space. Those characters, and ``%`` itself, are percent-encoded byte by
byte. If the result is longer than 128 bytes it becomes its first bytes and ``%sha256-<64 hex digits of the name>``,
which no encoding yields. Names such as ``pvc-<uuid>`` stay as they are, and no two names become one.
"""

from __future__ import annotations

import hashlib
import re

from .errors import invalid

#: The specification's limit of a string field, in bytes; also that of a request name in vdisk.
MAX_BYTES = 128
#: What the specification bans: control characters other than tab, line feed and carriage return.
_BANNED = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_ENCODED = re.compile(r"[%/@\t\n\r]|^\s+|\s+$")


def request_name(name: str, field: str = "name") -> str:
    """Return vdisk's request name for a name that CSI gave; INVALID_ARGUMENT for one that the specification bans."""
    if not name:
        raise invalid(f"{field} is missing")
    size = len(name.encode())
    if size > MAX_BYTES:
        raise invalid(f"{field} is {size} bytes long: at most {MAX_BYTES} are allowed")
    if _BANNED.search(name):
        raise invalid(f"{field} {name!r} holds a control character")
    encoded = _ENCODED.sub(lambda match: "".join(f"%{byte:02X}" for byte in match[0].encode()), name)
    if len(encoded.encode()) <= MAX_BYTES:
        return encoded
    mark = f"%sha256-{hashlib.sha256(name.encode()).hexdigest()}"
    head = encoded.encode()[: MAX_BYTES - len(mark)].decode(errors="ignore").rstrip()
    return head + mark
