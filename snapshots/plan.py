"""The plan of a restore: all that it will do, proved possible before the first of it is done.

A plan is made in one pass over the tree, with the places of all blocks looked up, and lies in a
private temporary file that has no name: its size does not show in memory, and whatever happens to
the store meanwhile cannot change it.
"""

from __future__ import annotations

import marshal
import os
import pickle
import struct
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import IO, Any

from snapshots import fs
from snapshots.blocks import BlockIndex, Place
from snapshots.errors import Damaged, UnknownPath, shown
from snapshots.selection import Part, Selection
from snapshots.store import SnapshotRecord, Store
from snapshots.tree import (
    Blocks,
    Dir,
    Entry,
    Fifo,
    File,
    Hard,
    Symlink,
    Up,
    block_length,
    data_parts,
)

CHUNK = 256  # steps that are written and read back together
ROOM, MOST_ROOM = 32, 4096  # blocks: from how many on room is made for them, and for how many
LOOK_UP = 2048  # blocks whose places are looked up together, and a run more
_LENGTH = struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class Way:
    """A directory that only leads to what is restored; what else is in it stays as it is."""

    name: bytes
    meta: fs.Meta


@dataclass(frozen=True, slots=True)
class Run:
    """Neighbouring blocks of the file before it, from block `at`, each with its place.

    `parts`: where they have data, as (offset in the file, length).
    """

    at: int
    blocks: tuple[tuple[bytes, Place], ...]
    parts: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Room:
    """Where the runs after it have data, as (offset, length): so much that room for all of it is
    made at once. Between writes it would wait for those that are under way."""

    parts: tuple[tuple[int, int], ...]


Step = Dir | Way | Up | File | Run | Symlink | Fifo | Hard


class Plan:
    """Steps in the order of a tree. `files`, `folders`: entries; `data`: bytes of data."""

    def __init__(self) -> None:
        self.files = self.folders = self.data = 0
        self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `with`
        self._chunk: list[Any] = []

    def add(self, step: Step) -> None:
        if isinstance(step, Run):
            self.data += sum(length for _, length in step.parts)
        elif isinstance(step, (File, Symlink, Fifo, Hard)):
            self.files += 1
        elif isinstance(step, (Dir, Way)):
            self.folders += 1
        self._chunk.append(_flat(step))
        if len(self._chunk) >= CHUNK:
            self._write()

    def _write(self) -> None:
        body = marshal.dumps(self._chunk)
        self._file.write(_LENGTH.pack(len(body)) + body)
        self._chunk = []

    def steps(self) -> Iterator[Step]:
        """All steps from the first; nothing may be added any more."""
        self._write()
        self._file.seek(0)
        while head := self._file.read(_LENGTH.size):
            for flat in marshal.loads(self._file.read(_LENGTH.unpack(head)[0])):
                yield _step(flat)

    def __enter__(self) -> Plan:
        return self

    def __exit__(
        self, _k: type[BaseException] | None, _e: BaseException | None, _t: TracebackType | None
    ) -> None:
        self._file.close()


def with_room(steps: Iterable[Step]) -> Iterator[Step | Room]:
    """The same steps, and the room for runs before them."""
    runs: list[Run] = []
    blocks = 0
    for step in steps:
        if isinstance(step, Run):
            runs.append(step)
            blocks += len(step.blocks)
            if blocks < MOST_ROOM:
                continue
        if blocks >= ROOM:
            yield Room(tuple(_merged(part for run in runs for part in run.parts)))
        yield from runs
        runs, blocks = [], 0
        if not isinstance(step, Run):
            yield step
    yield from runs


def _merged(parts: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Neighbours become one part."""
    start = end = 0
    for offset, length in parts:
        if offset != end:
            if end > start:
                yield start, end - start
            start = offset
        end = offset + length
    if end > start:
        yield start, end - start


def _flat(step: Step) -> Any:
    """A step as tuples of plain values, its kind first."""
    if isinstance(step, Run):
        return "b", step.at, step.blocks, step.parts
    if isinstance(step, Up):
        return ("u",)
    if isinstance(step, Hard):
        return "h", step.name, step.of
    meta = step.meta
    plain = step.name, (meta.mode, meta.uid, meta.gid, meta.mtime_ns, meta.xattrs)
    if isinstance(step, File):
        return "f", *plain, step.size, step.link
    if isinstance(step, Symlink):
        return "l", *plain, step.target, step.link
    if isinstance(step, Fifo):
        return "p", *plain, step.link
    return "d" if isinstance(step, Dir) else "w", *plain


def _step(flat: Any) -> Step:
    kind, *rest = flat
    if kind == "b":
        return Run(*rest)
    if kind == "u":
        return Up()
    if kind == "h":
        return Hard(*rest)
    kinds: dict[str, Any] = {"f": File, "l": Symlink, "p": Fifo, "d": Dir, "w": Way}
    step: Step = kinds[kind](rest[0], fs.Meta(*rest[1]), *rest[2:])
    return step


def make_plan(
    plan: Plan, store: Store, record: SnapshotRecord, index: BlockIndex, only: Sequence[str]
) -> None:
    """Fill a plan with what restoring a snapshot, or `only` these paths of it, takes.

    The whole tree is read and checked, and that every block that is wanted is there. Raises
    Damaged, UnknownPath.
    """
    selection = Selection(only)
    entries = store.tree(record.root)
    _Planning(plan, index, selection).run(entries)
    if not selection.complete:
        raise UnknownPath(
            f"snapshot {record.id} has no {', '.join(selection.missed)}: name paths as they are in "
            "the snapshot, relative to the folder it was made of"
        )
    if not only and (record.files, record.bytes) != (plan.files, plan.data):
        raise Damaged(f"snapshot {record.id} and its tree {record.root[:12]} do not agree")


@dataclass(frozen=True, slots=True)
class _Unplaced:
    """Blocks of the file of this path and size that were not looked up yet."""

    path: bytes
    size: int
    run: Blocks


class _Planning:
    """Goes through a tree once.

    A hard link may be wanted whose first name is not: then it becomes that file itself. So the
    linked files outside the selection are laid aside until the end.
    """

    def __init__(self, plan: Plan, index: BlockIndex, selection: Selection) -> None:
        self._plan, self._index, self._selection = plan, index, selection
        self._open: list[tuple[bytes, Part]] = []
        self._file: tuple[bytes, int, Part] | None = None  # path, size, and whose blocks come now
        self._aside = _Aside()
        self._waiting: list[Step | _Unplaced] = []  # steps whose blocks are looked up together
        self._hashes: list[bytes] = []

    def run(self, entries: Iterable[Entry]) -> None:
        with self._aside:
            for entry in entries:
                if isinstance(entry, Blocks):
                    self._blocks(entry)
                elif isinstance(entry, Up):
                    if self._open.pop()[1] is not Part.OUTSIDE:
                        self._add(entry)
                elif isinstance(entry, Dir):
                    self._dir(entry)
                else:
                    self._leaf(entry)
            self._look_up()

    def _add(self, step: Step | _Unplaced) -> None:
        self._waiting.append(step)
        if len(self._waiting) >= CHUNK or len(self._hashes) >= LOOK_UP:
            self._look_up()

    def _part(self, name: bytes) -> Part:
        within = self._open[-1][1] if self._open else Part.ABOVE
        if within is Part.OUTSIDE or (within is Part.INSIDE and self._selection.complete):
            return within
        names = (*(open_name for open_name, _ in self._open[1:]), name) if self._open else ()
        part = self._selection.part(names)
        return within if within is Part.INSIDE else part

    def _dir(self, entry: Dir) -> None:
        part = self._part(entry.name)
        self._open.append((entry.name, part))
        if part is Part.INSIDE:
            self._add(entry)
        elif part is Part.ABOVE:
            self._add(Way(entry.name, entry.meta))

    def _leaf(self, entry: File | Symlink | Fifo | Hard) -> None:
        part = self._part(entry.name)
        if part is Part.ABOVE:  # a file cannot lead to anything
            part = Part.OUTSIDE
        size = entry.size if isinstance(entry, File) else 0
        path = b"/".join((*(name for name, _ in self._open[1:]), entry.name))
        self._file = path, size, part
        self._aside.end()
        if part is Part.INSIDE:
            if isinstance(entry, Hard) and entry.of in self._aside:
                self._in_its_place(entry)
            else:
                self._add(entry)
        elif not isinstance(entry, Hard) and entry.link is not None:
            self._aside.begin(entry.link, entry)

    def _in_its_place(self, entry: Hard) -> None:
        """The first wanted name of a file becomes the file; further ones are links of it."""
        for each in self._aside.take(entry.of):
            if isinstance(each, Blocks):
                self._blocks(each)
            else:
                assert isinstance(each, (File, Symlink, Fifo))
                assert self._file is not None
                size = each.size if isinstance(each, File) else 0
                self._file = self._file[0], size, Part.INSIDE
                self._add(replace(each, name=entry.name))

    def _blocks(self, run: Blocks) -> None:
        assert self._file is not None
        path, size, part = self._file
        if part is Part.OUTSIDE:
            self._aside.add(run)
            return
        self._hashes += run.hashes
        self._add(_Unplaced(path, size, run))

    def _look_up(self) -> None:
        places = self._index.find_many(self._hashes)
        for step in self._waiting:
            self._plan.add(_placed(step, places) if isinstance(step, _Unplaced) else step)
        self._waiting, self._hashes = [], []


def _placed(what: _Unplaced, places: Mapping[bytes, Place]) -> Run:
    run = what.run
    for number, digest in enumerate(run.hashes, start=run.at):
        place, length = places.get(digest), block_length(number, what.size)
        if place is None or place[3] != length:
            has = f"has {place[3]} bytes instead of {length}" if place else "is missing"
            raise Damaged(
                f"{shown(what.path)}: block {digest.hex()[:12]} {has}; verify tells what else is "
                "damaged, repair puts back what can still be had"
            )
    blocks = tuple((digest, places[digest]) for digest in run.hashes)
    return Run(run.at, blocks, tuple(data_parts(run, what.size)))


class _Aside:
    """Linked files outside the selection, on disk, by their numbers."""

    def __init__(self) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `with`
        self._starts: dict[int, int] = {}
        self._open = False

    def __contains__(self, number: int) -> bool:
        return number in self._starts

    def begin(self, number: int, entry: File | Symlink | Fifo) -> None:
        self._starts[number] = self._file.seek(0, os.SEEK_END)
        self._open = True
        pickle.dump(entry, self._file)

    def add(self, run: Blocks) -> None:
        """Blocks of the file that was begun last, if any is open."""
        if self._open:
            pickle.dump(run, self._file)

    def end(self) -> None:
        """No more blocks of the file that was begun last."""
        if self._open:
            pickle.dump(None, self._file)
            self._open = False

    def take(self, number: int) -> Iterator[Entry]:
        """A file and its blocks; it is not aside any more."""
        self._file.seek(self._starts.pop(number))
        while (entry := pickle.load(self._file)) is not None:
            yield entry

    def __enter__(self) -> _Aside:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
