"""Cephx secrets and keyring files, made without running a Ceph tool."""

import base64
import os
import struct
import time
from collections.abc import Mapping

Caps = Mapping[str, str]

ADMIN_CAPS: Caps = {"mon": "allow *", "mgr": "allow *", "osd": "allow *", "mds": "allow *"}
MGR_CAPS: Caps = {"mon": "allow profile mgr", "osd": "allow *", "mds": "allow *"}
OSD_CAPS: Caps = {"mon": "allow profile osd", "mgr": "allow profile osd", "osd": "allow *"}
MON_CAPS: Caps = {"mon": "allow *"}
NO_CAPS: Caps = {}


def new_secret() -> str:
    """Return a new AES cephx secret as a keyring file holds it (CryptoKey's encoding, in base64)."""
    secret = os.urandom(16)
    header = struct.pack("<hiih", 1, int(time.time()), 0, len(secret))
    return base64.b64encode(header + secret).decode("ascii")


def keyring_entry(entity: str, secret: str, caps: Caps) -> str:
    """Return the keyring file's section for one entity."""
    lines = [f"[{entity}]", f"\tkey = {secret}"]
    lines += [f'\tcaps {kind} = "{value}"' for kind, value in caps.items()]
    return "\n".join(lines) + "\n"
