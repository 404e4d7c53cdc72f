"""Makes a golden store with the code of today: python -m tests.snapshots.golden.make FOLDER
(or FOLDER PASSPHRASE, for an encrypted one).

Done once for each version of the format, when it is released; what is in FOLDER never changes
afterwards. Needs root's rights, for owners and attributes.
"""

from __future__ import annotations

import base64
import json
import os
import random
import shutil
import socket
import stat
import sys
import tempfile
from pathlib import Path
from typing import Any

from blake3 import blake3

from snapshots.capture import capture
from snapshots.store import Store
from tests.snapshots.trees import ACL, NET_BIND

OLD_NS = 1_234_567_890_123_456_789


def pages(first: int, count: int) -> bytes:
    """Content of many blocks, each different, that packs into little."""
    return b"".join(b"page %06d " % number * 341 for number in range(first, first + count))


def is_rdb(path: bytes) -> bool:
    return path.endswith(b".rdb")


def key(number: int) -> bytes:
    """Content that has its like only in the same key of another file."""
    return blake3(b"%d" % number).digest(length=24) * 170


def build(root: Path) -> None:
    """A folder with every kind of entry and metadata."""
    (root / "base" / "empty folder").mkdir(parents=True)
    (root / "base" / "table").write_bytes(pages(0, 75))
    (root / "dump.rdb").write_bytes(b"".join(map(key, range(330))))
    (root / "raw").write_bytes(b"".join(blake3(b"%d" % n).digest() for n in range(4)))
    (root / "none").touch()
    with open(root / "sparse", "wb") as file:
        file.truncate(1 << 30)
        for offset in (0, 5 << 20, (512 << 20) + 4096 * 3):
            os.pwrite(file.fileno(), b"data" * 1024, offset)
    with open(root / "hole", "wb") as file:
        file.truncate(200_001)
    os.link(root / "raw", root / "base" / "raw again")
    os.symlink("/etc/passwd", root / "link")
    os.symlink("nowhere\n/at all", root / "base" / "dangling")
    os.mkfifo(root / "fifo")
    for name in (b"not utf-8 \xff\xfe", b"new\nline", b" ", b"\xf0\x9f\x90\x98", b"x" * 255):
        Path(os.fsdecode(os.fsencode(root) + b"/" + name)).write_bytes(name)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(root / "socket"))
    _metadata(root)


def change(root: Path) -> None:
    """What the second snapshot has."""
    with open(root / "base" / "table", "r+b") as file:
        os.pwrite(file.fileno(), pages(900, 3), 100_000)
    keys = [key(number) for number in range(8, 340)]
    random.Random(1).shuffle(keys)
    (root / "dump.rdb").write_bytes(b"".join(keys))
    (root / "none").unlink()
    (root / "new").write_bytes(pages(5000, 20))
    _metadata(root)


def _metadata(root: Path) -> None:
    os.setxattr(root / "base" / "table", "user.note", b"\x00\xff binary")
    os.setxattr(root / "base", "system.posix_acl_default", ACL)
    os.setxattr(root / "raw", "system.posix_acl_access", ACL)
    for number, path in enumerate(sorted(root.rglob("*"))):
        os.chown(path, 70 + number, 1000 + number, follow_symlinks=False)
    (root / "base" / "table").chmod(0o6755)
    (root / "base" / "empty folder").chmod(0o1777)
    os.setxattr(root / "base" / "table", "security.capability", NET_BIND)
    for number, path in enumerate(sorted(root.rglob("*"), reverse=True)):
        os.utime(path, ns=(0, OLD_NS + number), follow_symlinks=False)
    os.chown(root, 999, 998)
    root.chmod(0o750)
    os.utime(root, ns=(0, OLD_NS))


def manifest(root: Path) -> dict[str, dict[str, Any]]:
    """Path (bytes as code points) -> everything that must come back. Sockets are left out."""
    found: dict[str, dict[str, Any]] = {}
    first: dict[int, str] = {}
    for path in sorted([root, *root.rglob("*")]):
        st = path.lstat()
        if stat.S_ISSOCK(st.st_mode):
            continue
        name = os.fsencode(path.relative_to(root)).decode("latin-1")
        entry: dict[str, Any] = {
            "mode": oct(st.st_mode),
            "owner": [st.st_uid, st.st_gid],
            "mtime_ns": st.st_mtime_ns,
            "xattrs": {
                attribute: base64.b64encode(
                    os.getxattr(path, attribute, follow_symlinks=False)
                ).decode()
                for attribute in os.listxattr(path, follow_symlinks=False)
            },
        }
        if path.is_symlink():
            entry["target"] = os.readlink(os.fsencode(path)).decode("latin-1")
        elif stat.S_ISREG(st.st_mode):
            entry |= {"size": st.st_size, "content": content(path), "sparse": _is_sparse(st)}
        if st.st_nlink > 1 and not stat.S_ISDIR(st.st_mode):
            entry["same as"] = first.setdefault(st.st_ino, name)
        found[name] = entry
    return found


def content(path: Path) -> str:
    """The hash of a file's data and of where it lies, without reading holes."""
    digest = blake3()
    with open(path, "rb") as file:
        size, at = os.fstat(file.fileno()).st_size, 0
        while at < size:
            try:
                at = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError:
                break
            end = os.lseek(file.fileno(), at, os.SEEK_HOLE)
            for offset in range(at, end, 4096):
                page = os.pread(file.fileno(), min(4096, end - offset), offset)
                if page.strip(b"\0"):
                    digest.update(b"%d:" % offset + page)
            at = end
    return str(digest.hexdigest())


def _is_sparse(st: os.stat_result) -> bool:
    return st.st_blocks * 512 < st.st_size


def main(folder: Path, passphrase: str | None = None) -> None:
    folder.mkdir()
    store = Store.open(folder / "store", passphrase=passphrase)
    with tempfile.TemporaryDirectory() as place:
        root = Path(place, "data")
        root.mkdir()
        build(root)
        first = capture(root, store, dataset="shop_db", tags={"release": "prod-001"})
        expected = {first.id: manifest(root)}
        change(root)
        second = capture(root, store, dataset="shop_db", parent=first.id, streams=is_rdb)
        expected[second.id] = manifest(root)
    body = json.dumps(expected, indent=0, sort_keys=True)
    (folder / "manifest.json").write_text(body + "\n")
    shutil.rmtree(store.hints)  # nothing depends on them


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:3])
