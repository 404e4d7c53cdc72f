"""`python -m tests.faultdisk.serve FOLDER`: a disk mounted there, and told what to do.

Orders come as lines of JSON on standard input, each is answered by a line; when the input ends, the
mount is gone.
"""

# ruff: noqa: ARG002  # the kernel tells more than is asked for

from __future__ import annotations

import errno
import fnmatch
import json
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mfusepy

from tests.faultdisk.disk import Disk, Node, keep_by, write_out

BLOCK = 4096
FREE = 1 << 20  # blocks, so that nobody finds the disk small


@dataclass
class Fault:
    """The `nth` operation of a kind on what the pattern names fails; with `lasting`, all later
    ones as well. `kind`: read, write, fsync, rename, create, remove, or change (all but read)."""

    kind: str
    nth: int
    code: int
    lasting: bool
    pattern: str
    passed: int = 0
    failed: int = 0

    def due(self, kind: str, path: str) -> bool:
        if self.kind not in (kind, "change") or (self.kind == "change" and kind == "read"):
            return False
        if not fnmatch.fnmatch(path, self.pattern):
            return False
        self.passed += 1
        due = self.passed == self.nth or (self.lasting and self.passed > self.nth)
        self.failed += due
        return due


class Served(mfusepy.Operations):
    """The disk for the kernel. Paths lead to nodes; open files are known by their node's number."""

    use_ns = True

    def __init__(self) -> None:
        self.guard = threading.RLock()
        self.disk = Disk()
        self.faults: list[Fault] = []
        self.lying = ""  # pattern of files whose writes are thrown away
        self.delay = 0.0
        self._paths: dict[int, str] = {}

    def init(self, path: str) -> None:
        print(json.dumps("mounted"), flush=True)

    def _pass(self, kind: str, path: str) -> None:
        if self.delay and kind in ("read", "write", "fsync"):
            time.sleep(self.delay)
        due = [fault for fault in self.faults if fault.due(kind, path)]
        if due:
            raise OSError(due[0].code, os.strerror(due[0].code), path)

    def _node(self, path: str | None, fh: int | None) -> Node:
        return self.disk.nodes[fh] if fh else self.disk.find(path or "/")

    def _parent(self, path: str) -> tuple[Node, str]:
        folder, _, name = path.rpartition("/")
        return self.disk.find(folder), name

    def _folder_of(self, path: str | None) -> Node:
        return self._parent(path)[0] if path else self.disk.find("/")

    # -- looking ---------------------------------------------------------------------------------

    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        with self.guard:
            node = self._node(path, fh)
            size = len(node.target) if node.target else len(node.content)
            return {
                "st_ino": node.number,
                "st_mode": node.mode,
                "st_nlink": 2 if node.is_folder else node.links,
                "st_uid": node.uid,
                "st_gid": node.gid,
                "st_size": size,
                "st_blocks": -(-size // 512),
                "st_blksize": BLOCK,
                **dict.fromkeys(("st_mtime", "st_ctime", "st_atime"), node.mtime_ns),
            }

    def readdir(self, path: str, fh: int) -> Iterator[tuple[str, dict[str, int], int]]:
        with self.guard:
            folder = self.disk.find(path)
            here = [(".", folder.number), ("..", folder.number), *folder.names.items()]
            modes = {number: self.disk.nodes[number].mode for _, number in here}
            return iter([(name, {"st_ino": n, "st_mode": modes[n]}, 0) for name, n in here])

    def readlink(self, path: str) -> str:
        with self.guard:
            return self.disk.find(path).target

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        with self.guard:
            self._pass("read", self._paths[fh])
            return bytes(self.disk.nodes[fh].content[offset : offset + size])

    def statfs(self, path: str) -> dict[str, int]:
        sizes = {"f_bsize": BLOCK, "f_frsize": BLOCK, "f_namemax": 255}
        counts = ("f_blocks", "f_bfree", "f_bavail", "f_files", "f_ffree", "f_favail")
        return {**sizes, **dict.fromkeys(counts, FREE)}

    # -- files -----------------------------------------------------------------------------------

    def create(self, path: str, mode: int, flags: int) -> int:
        with self.guard:
            self._pass("create", path)
            node = self.disk.make(stat.S_IFREG | stat.S_IMODE(mode))
            self.disk.enter((*self._parent(path), node))
            return self._opened(node, path)

    def open(self, path: str, flags: int) -> int:
        with self.guard:
            node = self.disk.find(path)
            if flags & os.O_TRUNC and node.content:
                self._pass("write", path)
                self.disk.resize(node, 0)
            return self._opened(node, path)

    def _opened(self, node: Node, path: str) -> int:
        self._paths[node.number] = path
        return node.number

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        with self.guard:
            path = self._paths[fh]
            try:
                self._pass("write", path)
            except OSError as error:
                full = [f for f in self.faults if f.failed == 1 and f.lasting]
                if error.errno != errno.ENOSPC or not full or len(data) < 2:
                    raise
                data = data[: len(data) // 2]  # a disk that gets full takes a part first
            stored = data
            if self.lying and fnmatch.fnmatch(path, self.lying):
                stored = bytes(len(data))
            self.disk.write(self.disk.nodes[fh], stored, offset)
            return len(data)

    def truncate(self, path: str, length: int, fh: int | None = None) -> int:
        with self.guard:
            node = self._node(path, fh)
            self._pass("write", path or self._paths[node.number])
            self.disk.resize(node, length)
            return 0

    def fsync(self, path: str, datasync: int, fh: int) -> int:
        with self.guard:
            return self._sync(self.disk.nodes[fh], self._paths[fh])

    def fsyncdir(self, path: str, datasync: int, fh: int) -> int:
        with self.guard:
            return self._sync(self.disk.find(path), path)

    def _sync(self, node: Node, path: str) -> int:
        try:
            self._pass("fsync", path)
        except OSError:
            self.disk.fail_to_sync(node)
            raise
        self.disk.sync(node)
        return 0

    # -- names and metadata ----------------------------------------------------------------------

    def mkdir(self, path: str, mode: int) -> int:
        with self.guard:
            self._pass("create", path)
            node = self.disk.make(stat.S_IFDIR | stat.S_IMODE(mode))
            self.disk.enter((*self._parent(path), node))
            return 0

    def symlink(self, target: str, source: str) -> int:
        with self.guard:
            self._pass("create", target)
            self.disk.enter(
                (*self._parent(target), self.disk.make(stat.S_IFLNK | 0o777, target=source))
            )
            return 0

    def link(self, target: str, source: str) -> int:
        with self.guard:
            self._pass("create", target)
            self.disk.enter((*self._parent(target), self.disk.find(source)))
            return 0

    def rename(self, old: str, new: str, flags: int = 0) -> int:
        with self.guard:
            self._pass("rename", new)
            node = self.disk.find(old)
            self.disk.enter((*self._parent(old), None), (*self._parent(new), node))
            return 0

    def unlink(self, path: str) -> int:
        with self.guard:
            self._pass("remove", path)
            self.disk.enter((*self._parent(path), None))
            return 0

    def rmdir(self, path: str) -> int:
        with self.guard:
            self._pass("remove", path)
            if self.disk.find(path).names:
                raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), path)
            self.disk.enter((*self._parent(path), None))
            return 0

    def chmod(self, path: str, mode: int, fh: int | None = None) -> int:
        with self.guard:
            node = self._node(path, fh)
            mode = stat.S_IFMT(node.mode) | stat.S_IMODE(mode)
            self.disk.set(node, self._folder_of(path), mode=mode)
            return 0

    def chown(self, path: str, uid: int, gid: int, fh: int | None = None) -> int:
        with self.guard:
            node = self._node(path, fh)
            kept = 0xFFFFFFFF
            uid, gid = uid & kept, gid & kept
            self.disk.set(
                node,
                self._folder_of(path),
                uid=node.uid if uid == kept else uid,
                gid=node.gid if gid == kept else gid,
            )
            return 0

    def utimens(
        self, path: str, times: tuple[int, int] | None = None, fh: int | None = None
    ) -> int:
        with self.guard:
            mtime_ns = times[1] if times else time.time_ns()
            self.disk.set(self._node(path, fh), self._folder_of(path), mtime_ns=mtime_ns)
            return 0

    # -- orders ----------------------------------------------------------------------------------

    def order(self, name: str, **given: Any) -> Any:
        with self.guard:
            return getattr(self, f"order_{name}")(**given)

    def order_fail(self, kind: str, nth: int, code: int, lasting: bool, pattern: str) -> None:
        self.faults.append(Fault(kind, nth, code, lasting, pattern))

    def order_heal(self) -> int:
        """How many operations failed."""
        failed = sum(fault.failed for fault in self.faults)
        self.faults, self.lying, self.delay = [], "", 0.0
        return failed

    def order_lie(self, pattern: str) -> None:
        self.lying = pattern

    def order_slow(self, seconds: float) -> None:
        self.delay = seconds

    def order_passed(self) -> int:
        """How many operations came by the last fault that was ordered."""
        return self.faults[-1].passed

    def order_sync_all(self) -> None:
        for node in list(self.disk.nodes.values()):
            self.disk.sync(node)

    def order_mark(self) -> int:
        """How long the log is."""
        return len(self.disk.log)

    def order_lose_power(self, at: int, keep: str, seed: int, folder: str) -> None:
        """A folder of its own gets what was on the disk; the disk itself goes on."""
        write_out(self.disk.after_power_loss(at, keep_by(keep, seed)), Path(folder))


def obey(served: Served, point: str) -> None:
    for line in sys.stdin:
        try:
            answer = {"result": served.order(**json.loads(line))}
        except Exception as error:
            answer = {"error": repr(error)}
        print(json.dumps(answer), flush=True)
    subprocess.run(["umount", "-l", point], check=False, timeout=30)
    os._exit(0)


def main(point: str) -> None:
    served = Served()
    threading.Thread(target=obey, args=(served, point), daemon=True).start()
    mfusepy.FUSE(
        served,
        point,
        foreground=True,
        nothreads=True,
        allow_other=True,
        direct_io=True,
        hard_remove=True,
        use_ino=True,
        attr_timeout=0,
        entry_timeout=0,
        default_permissions=True,
    )


if __name__ == "__main__":
    main(sys.argv[1])
