"""Folders as they are found: files that shrink and vanish meanwhile, odd names and kinds."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from snapshots import reading
from snapshots.capture import capture
from snapshots.compare import tree_equal
from snapshots.errors import SourceChanging
from snapshots.fork import Fork
from snapshots.livepoint import LivePoint
from snapshots.restore import restore
from snapshots.store import Store
from snapshots.verify import verify
from tests.snapshots.trees import MIB

Happens = Callable[[Path], object]


def shrinks(file: Path) -> None:
    os.truncate(file, 100_000)


def is_emptied(file: Path) -> None:
    os.truncate(file, 0)


def is_replaced(file: Path) -> None:
    other = file.with_name("other")
    other.write_bytes(b"other")
    other.replace(file)


def becomes_a_fifo(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def becomes_a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def vanishes(file: Path) -> None:
    file.unlink()


def its_folder_vanishes(file: Path) -> None:
    file.parent.rename(file.parent.parent / "elsewhere")


def meanwhile(monkeypatch: pytest.MonkeyPatch, file: Path, what: Happens, when: str) -> None:
    """Something happens to a file, once: when it was looked at, or when a part of it was read."""
    waiting = [what]

    def happen() -> None:
        if waiting:
            waiting.pop()(file)

    if when == "looked at":
        looked = os.stat

        def stat(path: Any, *rest: Any, **named: Any) -> os.stat_result:
            st = looked(path, *rest, **named)
            if path == os.fsencode(file.name) and named.get("dir_fd") is not None:
                happen()
            return st

        monkeypatch.setattr(os, "stat", stat)
        return
    read = reading.FileReader._read

    def part_read(self: reading.FileReader, fd: int, path: bytes, *rest: Any) -> Any:
        piece = read(self, fd, path, *rest)
        if path.endswith(os.fsencode(file.name)):
            happen()
        return piece

    monkeypatch.setattr(reading.FileReader, "_read", part_read)


# What is opened afterwards is whole as it is then.
SEEN_LATER = [shrinks, is_emptied, is_replaced, its_folder_vanishes]
EVENTS = [*SEEN_LATER, vanishes, becomes_a_fifo, becomes_a_folder]


@pytest.mark.parametrize("size", [9 * MIB, 5000], ids=["large", "small"])
@pytest.mark.parametrize("when", ["looked at", "half read"])
@pytest.mark.parametrize("what", EVENTS)
def test_fault_28_a_file_changes_while_it_is_read(
    what: Happens,
    when: str,
    size: int,
    store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A file shrinks, vanishes or becomes something else after the look at it, or half read: of a
    folder that should be at rest there is no snapshot and the file is named, or the file is whole
    as it was when it was opened; a live snapshot is sound and names it."""
    content = os.urandom(size)
    for name in ("at rest", "live"):
        file = tmp_path / name / "d" / "file"
        file.parent.mkdir(parents=True)
        file.write_bytes(content)
        (file.parent / "z").write_bytes(b"z")
        live = LivePoint() if name == "live" else None
        whole = what is its_folder_vanishes or (when == "looked at" and what in SEEN_LATER)
        with monkeypatch.context() as patched:
            meanwhile(patched, file, what, when)
            if not whole and live is None:
                with pytest.raises(SourceChanging, match="d/file"):
                    capture(tmp_path / name, store, dataset="data")
                assert store.ids() == []
                continue
            record = capture(tmp_path / name, store, dataset="data", live=live)
        assert whole or [note for note in record.skipped if note.startswith("d/file: ")]
        assert verify(store, record.id, read_data=True) == []
        restore(store, record.id, tmp_path / f"{name} again")
        if whole:
            again = (tmp_path / f"{name} again" / "d" / "file").read_bytes()
            now = content if what is its_folder_vanishes else file.read_bytes()
            assert again == now


@pytest.mark.parametrize("what", EVENTS)
def test_fault_28_a_file_changes_while_it_is_forked(
    what: Happens, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same while a folder is forked: the pass that runs beside its service goes on, and the
    last pass, after which nobody may write, makes the fork equal or refuses by name."""
    file = tmp_path / "source" / "d" / "file"
    file.parent.mkdir(parents=True)
    file.write_bytes(os.urandom(300_000))
    (tmp_path / "target").mkdir()
    fork = Fork(tmp_path / "source", tmp_path / "target", index=tmp_path / "index")
    with monkeypatch.context() as patched:
        meanwhile(patched, file, what, "looked at")
        fork.first_pass()
    fork.final_pass()
    assert tree_equal(tmp_path / "source", tmp_path / "target") == []


def test_fault_73_names_of_any_bytes_come_back(store: Store, tmp_path: Path) -> None:
    """Files, folders and links whose names have newlines, escape sequences, every byte but two, are
    as long as can be, or look like options: captured, forked, listed and restored as they are."""
    source = tmp_path / "source"
    source.mkdir()
    every = bytes(b for b in range(1, 256) if b != ord("/"))
    names = [
        every[:127],
        every[127:],
        b"new\nline",
        b"\x1b[2Jescape",
        b"\xff\xfe not utf-8",
        "\u202egpj.exe".encode(),
        b"-rf",
        b"--help",
        b"~",
        b"*",
        b"$(reboot)",
        b"'; DROP TABLE orders; --",
        b" ",
        b"...",
        b"\\",
        b"x" * 255,
        "Ko\u0308ln".encode(),
        "K\u00f6ln".encode(),
    ]
    for name in names:
        here = os.fsencode(source) + b"/" + name
        os.mkdir(here)
        Path(os.fsdecode(here + b"/" + name)).write_bytes(name)
        os.symlink(name, here + b"/link")
    (tmp_path / "fork").mkdir()
    fork = Fork(source, tmp_path / "fork", index=tmp_path / "index")
    fork.first_pass()
    fork.final_pass()
    record = capture(source, store, dataset="data")
    again = capture(source, store, dataset="data", parent=record.id)
    assert again.root == record.root
    restore(store, again.id, tmp_path / "again")
    for copy in ("fork", "again"):
        assert tree_equal(source, tmp_path / copy) == []
        assert sorted(os.listdir(os.fsencode(tmp_path / copy))) == sorted(names)
    (source / "new\nline" / "new\nline").unlink()
    pack = max(store.packs.iterdir(), key=lambda path: path.stat().st_size)
    os.truncate(pack, 100)
    for damage in verify(store, record.id, read_data=True):
        assert damage.file.isprintable(), "a name from a volume cannot write on a terminal"


def test_fault_74_sockets_and_fifos_are_reported_and_nothing_hangs(
    store: Store, tmp_path: Path
) -> None:
    """A socket, a FIFO that nobody writes and one that somebody holds, a device: capture, fork and
    restore end; FIFOs come back, what cannot be is named."""
    source = tmp_path / "source"
    (source / "run").mkdir(parents=True)
    (source / "run" / "file").write_bytes(b"file")
    os.mkfifo(source / "run" / "idle", 0o640)
    os.mkfifo(source / "run" / "held")
    if os.geteuid() == 0:
        os.mknod(source / "run" / "device", 0o600 | stat.S_IFCHR, os.makedev(1, 5))
    holder = os.open(source / "run" / "held", os.O_RDWR)
    os.write(holder, b"waiting for a reader")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(source / "run" / "socket"))
        server.listen()
        record = capture(source, store, dataset="data")
        (tmp_path / "fork").mkdir()
        fork = Fork(source, tmp_path / "fork", index=tmp_path / "index")
        stats = [fork.first_pass(), fork.final_pass()]
    specials = ["run/device: a device"] if os.geteuid() == 0 else []
    assert record.skipped == [*specials, "run/socket: a socket"]
    assert all(sorted(s.skipped) == sorted(record.skipped) for s in stats)
    again = restore(store, record.id, tmp_path / "again")
    assert list(again.skipped) == record.skipped
    restore(store, record.id, tmp_path / "again", in_place=True)
    for copy in ("again", "fork"):
        made = tmp_path / copy / "run"
        assert sorted(os.listdir(made)) == ["file", "held", "idle"]
        assert stat.S_ISFIFO((made / "idle").lstat().st_mode)
        assert stat.S_IMODE((made / "idle").lstat().st_mode) == 0o640
    assert os.read(holder, 100) == b"waiting for a reader"
    os.close(holder)
