"""Any tree comes back, through the store and through a fork."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from snapshots.capture import capture
from snapshots.compare import tree_equal
from snapshots.fork import Fork
from snapshots.restore import restore
from snapshots.store import Store

names = st.binary(min_size=1, max_size=40).filter(
    lambda name: name not in (b".", b"..") and b"/" not in name and b"\0" not in name
)
contents = st.one_of(
    st.binary(max_size=300),
    st.tuples(st.integers(0, 300_000), st.integers(0, 255)),  # so many equal bytes
    st.lists(st.integers(0, 80), max_size=6),  # 4 KiB pages of a sparse file that have data
)
leaves = st.one_of(
    st.fixed_dictionaries({"file": contents, "mode": st.integers(0, 0o7777)}),
    st.fixed_dictionaries({"link": names}),
    st.fixed_dictionaries({"fifo": st.just(True)}),
    st.fixed_dictionaries({"same": st.integers(0, 5)}),  # another name of an earlier file
)
trees = st.recursive(
    st.dictionaries(names, leaves, max_size=5),
    lambda inner: st.dictionaries(names, st.one_of(leaves, inner), max_size=5),
    max_leaves=20,
)


def build(folder: bytes, tree: dict[bytes, Any], made: list[bytes]) -> None:
    os.makedirs(folder, exist_ok=True)
    for name, what in tree.items():
        path = folder + b"/" + name
        if "file" in what:
            write(path, what["file"])
            os.chmod(path, what["mode"])
            made.append(path)
        elif "link" in what:
            os.symlink(what["link"], path)
            made.append(path)
        elif "fifo" in what:
            os.mkfifo(path)
        elif "same" in what:
            if made:
                os.link(made[what["same"] % len(made)], path, follow_symlinks=False)
        else:
            build(path, what, made)


def write(path: bytes, content: Any) -> None:
    with open(path, "wb") as file:
        if isinstance(content, bytes):
            file.write(content)
        elif isinstance(content, tuple):
            file.write(bytes([content[1]]) * content[0])
        else:
            file.truncate(80 * 4096 + 17)
            for page in content:
                os.pwrite(file.fileno(), b"page" * 1024, page * 4096)


@settings(max_examples=60, deadline=None)
@given(first=trees, second=trees)
def test_any_tree_comes_back(first: dict[bytes, Any], second: dict[bytes, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        a, b = base / "a", base / "b"
        build(os.fsencode(a), first, [])
        build(os.fsencode(b), second, [])
        store = Store.open(base / "store")
        one = capture(a, store, dataset="a")
        two = capture(b, store, dataset="b", parent=one.id)

        restore(store, one.id, base / "target")
        assert tree_equal(a, base / "target") == []
        restore(store, two.id, base / "target", in_place=True)
        assert tree_equal(b, base / "target") == []

        store.sweep([two.id])
        restore(store, two.id, base / "after sweep")
        assert tree_equal(b, base / "after sweep") == []


@settings(max_examples=60, deadline=None)
@given(first=trees, second=trees)
def test_any_change_reaches_a_fork(first: dict[bytes, Any], second: dict[bytes, Any]) -> None:
    """The source is one tree at the first pass and another one at the last."""
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        a, b, target = base / "a", base / "b", base / "target"
        build(os.fsencode(a), first, [])
        build(os.fsencode(b), second, [])
        target.mkdir()
        Fork(a, target, index=base / "index").first_pass()
        assert tree_equal(a, target) == []

        # The index is of `a`; make its place hold `b`'s content, keeping the folder's inode.
        store = Store.open(base / "store")
        restore(store, capture(b, store, dataset="b").id, a, in_place=True)
        Fork(a, target, index=base / "index").final_pass()
        assert tree_equal(a, target) == tree_equal(b, target) == []
