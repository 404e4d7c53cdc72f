"""The model: files and folders in memory, and a log of all that was done to them.

Of the log follows what a power cut may leave: what was synced is there; of everything else any part
is, in whatever order, folders' entries as well as content. The rules are those of POSIX and no
kinder: syncing a file does not sync its name, and syncing a folder syncs its entries only. A rename
is atomic, and durable when every folder that it touched was synced.
"""

from __future__ import annotations

import errno
import os
import random
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

ROOT = 1
SECTOR = 512


@dataclass
class Node:
    """A file, folder or link. `content` is of files, `names` of folders, `target` of links."""

    number: int
    mode: int
    uid: int
    gid: int
    mtime_ns: int = 0
    content: bytearray = field(default_factory=bytearray)
    names: dict[str, int] = field(default_factory=dict)
    target: str = ""
    links: int = 0

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.mode)

    def write(self, data: bytes, at: int) -> None:
        if at > len(self.content):
            self.content.extend(bytes(at - len(self.content)))
        self.content[at : at + len(data)] = data

    def resize(self, size: int) -> None:
        del self.content[size:]
        self.content.extend(bytes(size - len(self.content)))


@dataclass(eq=False)
class Change:
    """One thing that was done. `waits`: nodes to be synced before it is durable.

    `lost`: the sync that would have made it durable failed, so nothing ever will.
    """

    waits: set[int]
    durable_at: int | None = None
    lost: bool = False


@dataclass(eq=False)
class Write(Change):
    node: int = 0
    data: bytes = b""
    at: int = 0


@dataclass(eq=False)
class Resize(Change):
    node: int = 0
    size: int = 0


@dataclass(eq=False)
class Meta(Change):
    node: int = 0
    values: dict[str, int] = field(default_factory=dict)


@dataclass(eq=False)
class Entries(Change):
    """Names that were given (folder, name, node) or taken (None), all at once."""

    given: tuple[tuple[int, str, int | None], ...] = ()


@dataclass(frozen=True)
class Synced:
    node: int


# Of a change that was not synced: whether it is kept, or which sectors of a write are.
Keep = Callable[[Change], bool | list[bool]]


class Disk:
    """Not safe for several threads: whoever serves it has a lock."""

    def __init__(self) -> None:
        self.nodes: dict[int, Node] = {}
        self.log: list[Change | Synced] = []
        self._born: dict[int, Node] = {}
        self._pending: dict[int, list[Change]] = {}
        self.make(stat.S_IFDIR | 0o755)

    # -- looking ---------------------------------------------------------------------------------

    def find(self, path: str) -> Node:
        """Raises OSError (ENOENT, ENOTDIR)."""
        node = self.nodes[ROOT]
        for name in filter(None, path.split("/")):
            if not node.is_folder:
                raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
            if name not in node.names:
                raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), path)
            node = self.nodes[node.names[name]]
        return node

    # -- changing --------------------------------------------------------------------------------

    def make(self, mode: int, target: str = "", uid: int = 0, gid: int = 0) -> Node:
        """Something without a name yet."""
        node = Node(len(self.nodes) + 1, mode, uid, gid, time.time_ns(), target=target)
        self.nodes[node.number] = node
        self._born[node.number] = Node(node.number, mode, uid, gid, node.mtime_ns, target=target)
        return node

    def enter(self, *given: tuple[Node, str, Node | None]) -> None:
        for folder, name, node in given:
            old = folder.names.pop(name, None)
            if old is not None:
                self.nodes[old].links -= 1
            if node is not None:
                folder.names[name] = node.number
                node.links += 1
            folder.mtime_ns = time.time_ns()
        entries = tuple((f.number, name, n.number if n else None) for f, name, n in given)
        self._note(Entries({folder.number for folder, _, _ in given}, given=entries))

    def write(self, node: Node, data: bytes, at: int) -> None:
        node.write(data, at)
        node.mtime_ns = time.time_ns()
        self._note(Write({node.number}, node=node.number, data=data, at=at))

    def resize(self, node: Node, size: int) -> None:
        node.resize(size)
        node.mtime_ns = time.time_ns()
        self._note(Resize({node.number}, node=node.number, size=size))

    def set(self, node: Node, folder: Node, **values: int) -> None:
        """Metadata. That of what cannot be opened is synced with the folder it is in."""
        for name, value in values.items():
            setattr(node, name, value)
        opens = stat.S_ISREG(node.mode) or node.is_folder
        self._note(Meta({(node if opens else folder).number}, node=node.number, values=values))

    def sync(self, node: Node) -> None:
        self.log.append(Synced(node.number))
        for change in self._pending.pop(node.number, []):
            change.waits.discard(node.number)
            if not change.waits and change.durable_at is None:
                change.durable_at = len(self.log)

    def fail_to_sync(self, node: Node) -> None:
        """As a kernel does: what was to be synced is thought clean from now on, and never is."""
        for change in self._pending.pop(node.number, []):
            change.lost = True

    def _note(self, change: Change) -> None:
        self.log.append(change)
        for number in change.waits:
            self._pending.setdefault(number, []).append(change)

    # -- losing power ----------------------------------------------------------------------------

    def after_power_loss(self, at: int, keep: Keep) -> dict[int, Node]:
        """What is on the disk if power was lost when the log was `at` long; node 1 is its root."""
        nodes = {ROOT: self._fresh(ROOT)}
        for change in self.log[:at]:
            if isinstance(change, Synced):
                continue
            durable = change.durable_at is not None and change.durable_at <= at
            kept = not change.lost and (durable or keep(change))
            if kept is not False:
                self._apply(nodes, change, kept)
        return nodes

    def _fresh(self, number: int) -> Node:
        born = self._born[number]
        return Node(number, born.mode, born.uid, born.gid, born.mtime_ns, target=born.target)

    def _apply(self, nodes: dict[int, Node], change: Change, kept: bool | list[bool]) -> None:
        def of(number: int) -> Node:
            return nodes.setdefault(number, self._fresh(number))

        if isinstance(change, Write):
            of(change.node).write(_torn(of(change.node), change, kept), change.at)
        elif isinstance(change, Resize):
            of(change.node).resize(change.size)
        elif isinstance(change, Meta):
            for name, value in change.values.items():
                setattr(of(change.node), name, value)
        elif isinstance(change, Entries):
            for folder, name, node in change.given:
                of(folder).names.pop(name, None)
                if node is not None:
                    of(folder).names[name] = of(node).number


def _torn(node: Node, change: Write, kept: bool | list[bool]) -> bytes:
    """What of a write reached the disk: in its other sectors is what was there before."""
    if kept is True or not isinstance(kept, list):
        return change.data
    old = bytes(node.content[change.at : change.at + len(change.data)]).ljust(len(change.data))
    before = old[: max(0, len(node.content) - change.at)].ljust(len(change.data), b"\0")
    return b"".join(
        (change.data if kept[n % len(kept)] else before)[at : at + SECTOR]
        for n, at in enumerate(range(0, len(change.data), SECTOR))
    )


def keep_by(what: str, seed: int) -> Keep:
    """What is left of the changes that were not synced: "none", "all", or "some" by the seed."""
    if what != "some":
        return lambda _: what == "all"
    chance = random.Random(seed)
    share = chance.choice((0.15, 0.5, 0.85))

    def keep(change: Change) -> bool | list[bool]:
        if isinstance(change, Write) and chance.random() < 0.3:
            return [chance.random() < share for _ in range(16)]
        return chance.random() < share

    return keep


def write_out(nodes: dict[int, Node], folder: Path, number: int = ROOT) -> None:
    """Make the folder hold what is on the disk."""
    node = nodes[number]
    folder.mkdir(mode=0o700, exist_ok=True)
    for name, inner in node.names.items():
        child, path = nodes[inner], folder / name
        if child.is_folder:
            write_out(nodes, path, inner)
            continue
        if stat.S_ISLNK(child.mode):
            path.symlink_to(child.target)
        else:
            path.write_bytes(child.content)
            path.chmod(stat.S_IMODE(child.mode))
        os.utime(path, ns=(child.mtime_ns, child.mtime_ns), follow_symlinks=False)
    folder.chmod(stat.S_IMODE(node.mode))
    os.utime(folder, ns=(node.mtime_ns, node.mtime_ns))
