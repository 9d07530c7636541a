"""Stands in for bcrypt in the manager of Debian 13's Reef, whose Python cannot load the real one.

Since version 4 bcrypt refuses to be imported in a sub-interpreter, which is where managers before Tentacle run every
module; where the manager's helper library imports it, no module loads at all. Debian 12's Pacific has an older bcrypt
that minds nothing. Good for test clusters only.
"""

import base64
import hashlib
import hmac
import os

_ROUNDS = 1000


def gensalt(rounds: int = 12, prefix: bytes = b"2b") -> bytes:
    """Return a new salt."""
    return b"$" + prefix + b"$%02d$" % rounds + base64.b64encode(os.urandom(15), b"./")


def hashpw(password: bytes, salt: bytes) -> bytes:
    """Return the hash of a password under a salt, or under the salt of an earlier hash."""
    head = salt[:27]
    digest = hashlib.pbkdf2_hmac("sha256", password, head, _ROUNDS)
    return head + base64.b64encode(digest[:21], b"./")


def checkpw(password: bytes, hashed_password: bytes) -> bool:
    """Return whether the password has that hash."""
    return hmac.compare_digest(hashpw(password, hashed_password), hashed_password)
