"""Whether a folder was written to since it was captured, told without reading."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from snapshots.capture import capture
from snapshots.errors import Damaged
from snapshots.store import Store
from snapshots.touched import Touched, touched


def fill(folder: Path) -> None:
    (folder / "a" / "b").mkdir(parents=True)
    (folder / "a-b").mkdir()
    for name in ("a/b/deep", "a/z", "a-b/x", "b", "empty"):
        (folder / name).write_text(name if name != "empty" else "")
    os.link(folder / "b", folder / "a" / "linked")
    (folder / "points").symlink_to("b")
    os.mkfifo(folder / "pipe")
    time.sleep(0.1)  # until the times lie far enough back to be trusted


def rewritten(path: Path, text: str) -> None:
    """Other content of the same size, under the old modification time."""
    stamp = path.stat()
    path.write_text(text)
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))


def twice(folder: Path) -> None:
    (folder / "a" / "z").unlink()
    (folder / "zz").write_text("new")


@pytest.mark.parametrize(
    ("act", "changed", "unsure"),
    [
        (lambda _: None, (), ()),
        (lambda f: (f / "a" / "b" / "deep").read_text(), (), ()),
        (lambda f: (f / "b").write_text("longer than it was"), ("a/linked",), ()),
        (lambda f: os.utime(f / "a" / "z", ns=(1, 1)), ("a/z",), ()),
        (lambda f: (f / "a" / "added").write_text(""), ("a/added",), ()),
        (lambda f: (f / "empty").unlink(), ("empty",), ()),
        (twice, ("a/z", "zz"), ()),
        (lambda f: rewritten(f / "a-b" / "x", "forge"), (), ("a-b/x",)),
        (lambda f: (f / "a" / "z").chmod(0o700), (), ("a/z",)),
    ],
)
def test_what_differs_is_named(
    tmp_path: Path,
    act: Callable[[Path], object],
    changed: tuple[str, ...],
    unsure: tuple[str, ...],
) -> None:
    folder, store = tmp_path / "data", Store.open(tmp_path / "store")
    fill(folder)
    record = capture(folder, store, dataset="d")
    act(folder)
    assert touched(folder, store, record.id) == Touched(changed, unsure)


def test_the_look_ends_after_a_few_and_needs_hints(tmp_path: Path) -> None:
    folder, store = tmp_path / "data", Store.open(tmp_path / "store")
    fill(folder)
    record = capture(folder, store, dataset="d")
    for number in range(20):
        (folder / f"new-{number:02}").write_text("")
    assert touched(folder, store, record.id).changed == ("new-00", "new-01", "new-02")
    for hints in (tmp_path / "store" / "hints").iterdir():
        hints.unlink()
    with pytest.raises(Damaged):
        touched(folder, store, record.id)
