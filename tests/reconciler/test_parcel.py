"""An export is read to its end, or not at all; nothing in it chooses its own place."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from reconciler.errors import BadInput, StoreDamaged
from reconciler.making import parcel
from reconciler.making.parcel import Head, Reader, Writer

HEAD = Head(project="shop", stack="prod", release="prod-001", root="/srv/shop", created="now")
DIGEST = "a" * 64


def written(path: Path) -> Path:
    with open(path, "wb") as file:
        writer = Writer(file)
        writer.add(parcel.HEAD, HEAD.model_dump_json().encode())
        writer.add(parcel.RECORD, b"{}")
        writer.add(f"configs/{DIGEST}", b"content")
        writer.add(f"store/packs/{DIGEST}.pack", b"p" * 100_000)
        writer.add_pieces("images/000", (b"i" * 1000 for _ in range(10_000)))
        writer.add_pieces("images/001", [b"another"])
        writer.end()
    return path


def names(path: Path) -> list[str]:
    return [name for name, _, _ in Reader(path).members()]


def test_what_was_written_is_read(tmp_path: Path) -> None:
    path = written(tmp_path / "file")
    reader = Reader(path)
    assert reader.head() == HEAD
    found = {name: content.read() for name, content, _ in reader.members()}
    assert found[f"configs/{DIGEST}"] == b"content"
    assert [n for n in found if n.startswith("images/000/")] == [
        "images/000/000000",
        "images/000/000001",
    ]
    assert b"".join(reader.image("000")) == b"i" * 10_000_000
    assert b"".join(reader.image("001")) == b"another"
    assert len(names(path)) == 6, "content that nobody reads is hashed all the same"


@pytest.mark.parametrize("at", [700, 2100, 60_000, 5_000_000])
def test_attack_data_an_export_with_an_altered_byte_is_not_read(tmp_path: Path, at: int) -> None:
    """A byte of any member's content is another one: nothing of the export is believed."""
    path = written(tmp_path / "file")
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
    with pytest.raises((StoreDamaged, BadInput)):
        names(path)


@pytest.mark.parametrize("left", [0, 100, 5000, 100_000, 9_000_000])
def test_an_export_that_was_cut_off_is_not_read(tmp_path: Path, left: int) -> None:
    path = written(tmp_path / "file")
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises((StoreDamaged, BadInput)):
        names(path)


def member(name: str, content: bytes = b"", **more: object) -> tuple[tarfile.TarInfo, bytes]:
    made = tarfile.TarInfo(name)
    made.size = len(content)
    for key, value in more.items():
        setattr(made, key, value)
    return made, content


def head(**changes: object) -> tuple[tarfile.TarInfo, bytes]:
    said = {**HEAD.model_dump(mode="json"), **changes}
    return member(parcel.HEAD, json.dumps(said).encode())


@pytest.mark.parametrize(
    ("members", "why"),
    [
        ([head(), member("../../etc/passwd", b"x")], "which no export has"),
        ([head(), member("/etc/passwd", b"x")], "which no export has"),
        ([head(), member("configs/../../x", b"x")], "which no export has"),
        ([head(), member("store/packs/../x.pack", b"x")], "which no export has"),
        ([head(), member("store/lock", b"x")], "which no export has"),
        ([head(), member("record.json", type=tarfile.SYMTYPE, linkname="/x")], "is no file"),
        ([head(), member("record.json", type=tarfile.LNKTYPE, linkname="/x")], "is no file"),
        ([head(), member("record.json", type=tarfile.CHRTYPE)], "is no file"),
        ([head(version=2)], "version 2"),
        ([head(more=1)], "first member"),
        ([member("record.json", b"{}")], "does not begin as one"),
    ],
)
def test_attack_names_an_export_that_leads_outside_is_refused(
    tmp_path: Path, members: list[tuple[tarfile.TarInfo, bytes]], why: str
) -> None:
    """Members with `..`, absolute names, links, devices and names that no export has: refused by
    name, before anything is laid out."""
    path = tmp_path / "file"
    with tarfile.open(path, "w") as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    with pytest.raises(BadInput, match=why):
        _ = (Reader(path).head(), names(path))


@pytest.mark.parametrize(
    "make",
    [
        Path.mkdir,
        lambda path: path.write_bytes(b"this is no tar" * 100),
        Path.exists,
    ],
)
def test_what_is_no_export_is_said_to_be_none(
    tmp_path: Path, make: Callable[[Path], object]
) -> None:
    make(tmp_path / "file")
    with pytest.raises(BadInput, match="file"):
        Reader(tmp_path / "file").head()
