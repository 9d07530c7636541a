"""Keeps the exception classes of rados and rbd safe where modules of a mgr have interpreters of their own.

Before Tentacle each mgr module has its own Python interpreter, but all of them share the extension modules ``rados``
and ``rbd`` with their classes. From Python 3.12 on an interpreter numbers classes ("version tags") by its own counter
and keeps caches of methods by that number. A shared class got its number in one interpreter; another one gives the same
number to a class of its own, and then finds that class's methods in place of the shared one's: an ENOENT became
``TypeError: CloneVolume.__init__() got an unexpected keyword argument 'errno'``, at every thirtieth start or so.

CPython 3.13 numbers a class at most a thousand times (``MAX_VERSIONS_PER_CLASS`` in Objects/typeobject.c), and each
change of the class takes its number away. A class that has used them up has none for good and is looked up uncached.
"""

from __future__ import annotations

import types

import rados
import rbd

_MAX_VERSIONS_PER_CLASS = 1000
#: Py_TPFLAGS_IMMUTABLETYPE: classes written in C, which are numbered by one counter for all interpreters.
_IMMUTABLE = 1 << 8
_MARK = "__vdisk_unversioned__"


def use_up_versions(*modules: types.ModuleType) -> int:
    """Take the version tags away from the classes of ``modules`` (by default rados and rbd); returns how many.

    Takes some milliseconds, does nothing the second time, and changes nothing else about the classes.
    """
    count = 0
    for module in modules or (rados, rbd):
        for cls in list(vars(module).values()):
            if isinstance(cls, type) and cls.__module__ == module.__name__ and not cls.__flags__ & _IMMUTABLE:
                count += _use_up(cls)
    return count


def _use_up(cls: type) -> bool:
    if _MARK in vars(cls):
        return False
    for _ in range(_MAX_VERSIONS_PER_CLASS + 1):
        setattr(cls, _MARK, True)  # takes the number away
        getattr(cls, _MARK)  # looks the class up, which gives it the next one
    setattr(cls, _MARK, True)
    return True
