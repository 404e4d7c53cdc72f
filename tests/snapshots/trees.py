"""Folders with everything in them that a file system can hold."""

from __future__ import annotations

import os
import random
import socket
import struct
from pathlib import Path

OLD_NS = 981_173_106_123_456_789  # a time long ago, with nanoseconds

# An ACL as the kernel keeps it: owner rw, user 1234 r, group r, mask r, others nothing.
ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", tag, permission, who)
    for tag, permission, who in [
        (0x01, 6, 0xFFFFFFFF),
        (0x02, 4, 1234),
        (0x04, 4, 0xFFFFFFFF),
        (0x10, 4, 0xFFFFFFFF),
        (0x20, 0, 0xFFFFFFFF),
    ]
)
NET_BIND = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)
MIB = 1 << 20


def everything(root: Path) -> None:
    """Fill `root` with every kind of entry and metadata. Needs root's rights."""
    big = root / "big"
    big.write_bytes(random.Random(1).randbytes(9 * MIB + 12345))
    os.setxattr(big, "user.note", b"\x00\xff binary")
    os.setxattr(big, "system.posix_acl_access", ACL)
    (root / "repeated").write_bytes(b"0123456789abcdef" * (MIB // 4))
    (root / "empty").touch()
    tool = root / "tool"
    tool.write_bytes(b"#!/bin/true\n")
    os.chown(tool, 1000, 1001)
    tool.chmod(0o6755)
    os.setxattr(tool, "security.capability", NET_BIND)

    with open(root / "sparse", "wb") as file:
        file.truncate(40 * MIB)
        for offset in (0, 3 * MIB + 4096 * 5, 30 * MIB):
            os.pwrite(file.fileno(), b"data" * 2048, offset)
    with open(root / "hole only", "wb") as file:
        file.truncate(200_001)

    deep = root / "a" / "b" / "c"
    deep.mkdir(parents=True)
    (root / "a" / "empty folder").mkdir(mode=0o1777)
    os.link(big, deep / "another name of big")
    os.chown(root / "a" / "b", 70, 71)
    (root / "a" / "b").chmod(0o2770)
    os.setxattr(root / "a" / "b", "system.posix_acl_default", ACL)

    os.symlink("/etc/passwd", root / "absolute")
    os.symlink("nowhere\n/at all", root / "a" / "dangling")
    os.link(root / "absolute", root / "absolute too", follow_symlinks=False)
    os.chown(root / "absolute", 5, 6, follow_symlinks=False)
    os.mkfifo(root / "fifo", 0o640)
    for name in (
        b"not utf-8 \xff\xfe",
        b"new\nline",
        b"-rf",
        b"\xf0\x9f\x90\x98",
        b" ",
        b"x" * 255,
    ):
        (Path(os.fsdecode(os.fsencode(root) + b"/" + name))).write_bytes(name)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(root / "socket"))
    for folder, names, files in os.walk(root, topdown=False):
        for entry in files + names:
            os.utime(Path(folder, entry), ns=(OLD_NS, OLD_NS + len(entry)), follow_symlinks=False)
    os.utime(root, ns=(OLD_NS, OLD_NS))
    root.chmod(0o750)
    os.chown(root, 999, 998)


def holes(path: Path) -> list[tuple[int, int]]:
    """Where a file has data, as (offset, length)."""
    found, at = [], 0
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        while at < size:
            try:
                start = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError:
                break
            at = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            found.append((start, at - start))
    return found
