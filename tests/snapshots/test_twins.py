"""After a fork or a restore, the next capture reads only what changed."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from snapshots.capture import capture
from snapshots.compare import tree_equal
from snapshots.errors import Damaged
from snapshots.fork import Fork
from snapshots.restore import restore
from snapshots.store import Store
from tests.snapshots.conftest import mounted
from tests.snapshots.reads import Read
from tests.snapshots.trees import MIB


def settle() -> None:
    """Wait until the files' times lie far enough back to be trusted."""
    time.sleep(0.1)


def a_source(base: Path) -> Path:
    source = base / "source"
    (source / "a" / "b").mkdir(parents=True)
    (source / "a.first").mkdir()
    for name in ("a/b/deep", "a/z", "a.first/x", "b", "changes", "replaced", "touched early"):
        (source / name).write_bytes(os.urandom(70_000))
    settle()
    return source


def forked(source: Path, base: Path, *, between: Callable[[], None] = settle) -> tuple[Path, Path]:
    """A fork of `source` at rest, and its twins."""
    target = base / "target"
    target.mkdir()
    fork = Fork(source, target, index=base / "db.index")
    fork.first_pass()
    between()
    fork.final_pass()
    assert fork.twins == base / "db.twins"
    return target, fork.twins


def change(folder: Path) -> None:
    """As a new world would."""
    settle()
    with open(folder / "changes", "r+b") as file:
        file.write(b"new")
    (folder / "new").write_bytes(b"new")
    (folder / "other").write_bytes((folder / "replaced").read_bytes())
    os.replace(folder / "other", folder / "replaced")
    (folder / "b").unlink()


CHANGED = [b"changes", b"new", b"replaced"]


def test_a_forked_folder_is_not_read_again(tmp_path: Path, store: Store, read: Read) -> None:
    source = a_source(tmp_path)

    def touch() -> None:
        settle()
        (source / "touched early").write_bytes(os.urandom(70_000))
        settle()

    target, twins = forked(source, tmp_path, between=touch)
    first = capture(source, store, dataset="db")
    change(target)
    read.clear()
    second = capture(target, store, dataset="db", parent=first.id, twins=twins)
    # The file of the final pass may have been finished within the tick in which that ended.
    assert [path for path in read if path != b"touched early"] == CHANGED
    restore(store, second.id, tmp_path / "again")
    assert tree_equal(target, tmp_path / "again") == []


def test_a_fork_of_a_fork_is_known_by_its_own_parent(
    tmp_path: Path, store: Store, read: Read
) -> None:
    source = a_source(tmp_path)
    one, twins = forked(source, tmp_path)
    first = capture(source, store, dataset="db")
    settle()
    (tmp_path / "next").mkdir()
    two, next_twins = forked(one, tmp_path / "next")
    second = capture(one, store, dataset="db", parent=first.id, twins=twins)
    change(two)
    read.clear()
    capture(two, store, dataset="db", parent=second.id, twins=next_twins)
    assert read == CHANGED


def test_a_source_that_changed_after_the_fork_is_no_twin(
    tmp_path: Path, store: Store, read: Read
) -> None:
    """The snapshot has what the source became; the fork has what it was."""
    source = a_source(tmp_path)
    target, twins = forked(source, tmp_path)
    settle()
    (source / "changes").write_bytes(os.urandom(70_000))
    settle()
    first = capture(source, store, dataset="db")
    read.clear()
    second = capture(target, store, dataset="db", parent=first.id, twins=twins)
    assert read == [b"changes"]
    restore(store, second.id, tmp_path / "again")
    assert tree_equal(target, tmp_path / "again") == []


def test_a_restored_folder_is_not_read_again(tmp_path: Path, store: Store, read: Read) -> None:
    source = a_source(tmp_path)
    first = capture(source, store, dataset="db")
    other = capture(source / "a", store, dataset="db")
    target, twins = tmp_path / "target", tmp_path / "db.twins"
    restore(store, first.id, target, twins=twins)
    settle()
    (target / "a" / "z").chmod(0o600)  # after the restore's last look
    change(target)
    read.clear()
    second = capture(target, store, dataset="db", parent=first.id, twins=twins)
    assert read == [b"a/z", *CHANGED]
    restore(store, second.id, tmp_path / "again")
    assert tree_equal(target, tmp_path / "again") == []

    read.clear()
    capture(target, store, dataset="db", parent=other.id, twins=twins)
    assert len(read) == 7, "twins of one snapshot say nothing of another"


@pytest.mark.parametrize("damage", ["missing", "flipped", "cut", "empty", "foreign"])
def test_lost_or_damaged_twins_cost_only_time(
    tmp_path: Path, store: Store, read: Read, damage: str
) -> None:
    source = a_source(tmp_path)
    target, twins = forked(source, tmp_path)
    first = capture(source, store, dataset="db")
    content = twins.read_bytes()
    if damage == "missing":
        twins.unlink()
    elif damage == "flipped":
        at = content.index(b"changes")
        twins.write_bytes(content[:at] + b"C" + content[at + 1 :])
    elif damage == "cut":
        twins.write_bytes(content[:-1])
    elif damage == "empty":
        twins.write_bytes(b"")
    else:
        shutil.rmtree(tmp_path / "other", ignore_errors=True)
        (tmp_path / "other").mkdir()
        _, foreign = forked(source / "a", tmp_path / "other")
        twins.write_bytes(foreign.read_bytes())
    read.clear()
    second = capture(target, store, dataset="db", parent=first.id, twins=twins)
    assert len(read) == 7
    assert second.root == first.root


def test_there_are_no_twins_of_a_source_whose_times_prove_nothing(tmp_path: Path) -> None:
    for point in mounted(tmp_path, "-t", "tmpfs", "-o", "size=10m", "tmpfs"):
        _, twins = forked(a_source(point), tmp_path)
        assert not twins.exists()


def test_a_failed_restore_leaves_no_twins(tmp_path: Path, store: Store) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(4):
        (source / str(number)).write_bytes(os.urandom(MIB))
    record = capture(source, store, dataset="db")
    pack = next(store.packs.glob("*.pack"))
    with open(pack, "r+b") as file:
        file.seek(2 * MIB)
        file.write(b"damaged")
    with pytest.raises(Damaged):
        restore(store, record.id, tmp_path / "target", twins=tmp_path / "db.twins")
    assert list(tmp_path.glob("*.tmp")) == []
    assert not (tmp_path / "db.twins").exists()
