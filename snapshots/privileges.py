"""Another user with the capabilities that work on any folder needs, and no others."""

from __future__ import annotations

import ctypes
import os

# As in linux/capability.h.
CAPABILITIES = {"CHOWN": 0, "DAC_OVERRIDE": 1, "FOWNER": 3, "FSETID": 4, "SETFCAP": 31}
_VERSION_3 = 0x20080522
_PR_SET_KEEPCAPS = 8

_libc = ctypes.CDLL(None, use_errno=True)


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Set(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


def become(uid: int, gid: int) -> None:
    """Be this user from now on and keep `CAPABILITIES`: what is made belongs to it, and any owner,
    mode and attribute can be given. Before the first thread. Raises OSError."""
    if os.geteuid() != 0:
        raise PermissionError("only root can become another user")
    _checked(_libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0))
    if gid != os.getegid() or uid != 0:
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    mask = sum(1 << number for number in CAPABILITIES.values())
    sets = (_Set * 2)(_Set(mask, mask, 0), _Set(0, 0, 0))
    _checked(_libc.capset(ctypes.byref(_Header(_VERSION_3, 0)), sets))


def _checked(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
