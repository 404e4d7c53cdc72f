"""The file that `export` writes and `import` reads: a tar of known names, with its own checksum.

The first member says what it is, the last one how many there are and the hash of all of them: a
file that was cut off, altered or put together by somebody else is not read. Nothing in it is ever
laid out under a name of its own choosing. docs/export-format.md describes it.
"""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal, Protocol, cast

from blake3 import blake3
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from reconciler.errors import BadInput, StoreDamaged
from snapshots.transfer import FILE

HEAD, RECORD, END = "lockstep-export.json", "record.json", "end.json"
PIECE = 8 << 20
"""Bytes of an image that are one member."""
_CONFIG = re.compile(r"configs/[0-9a-f]{64}")
_STORE = "store/"
_IMAGE = re.compile(r"images/([0-9]{3})/[0-9]{6}")
_MOST_JSON = 64 << 20


class Head(BaseModel):
    """What an export says of itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["lockstep-export"] = "lockstep-export"
    version: Literal[1] = 1
    project: str
    stack: str
    release: str
    root: str = Field(description="the project's folder on the host that it comes from")
    created: str
    departure: dict[str, str] = Field({}, description="dataset -> snapshot that the release left")
    arrival: dict[str, str] = Field({}, description="dataset -> snapshot that it started from")
    probes: dict[str, dict[str, int]] = Field(
        {}, description="dataset -> what was counted when it was left"
    )
    images: dict[str, str] = Field({}, description="number in the file -> image id")
    encrypted: bool = Field(False, description="its snapshots open by the store's passphrase")


class Writer:
    """Writes an export to a file, member by member."""

    def __init__(self, file: IO[bytes]) -> None:
        self._tar = tarfile.open(  # noqa: SIM115 - closed by `end`
            fileobj=file, mode="w|", format=tarfile.USTAR_FORMAT
        )
        self._hash, self._members = blake3(), 0

    def add(self, name: str, content: bytes) -> None:
        self.add_stream(name, io.BytesIO(content), len(content))

    def add_file(self, name: str, path: Path) -> None:
        with open(path, "rb") as file:
            self.add_stream(name, file, path.stat().st_size)

    def add_stream(self, name: str, content: IO[bytes], size: int) -> None:
        """Of exactly `size` bytes."""
        member = tarfile.TarInfo(name)
        member.size, member.mode = size, 0o600
        self._hash.update(_head_of(name, size))
        self._tar.addfile(member, cast("IO[bytes]", _Hashed(content, self._hash)))
        self._members += 1

    def add_pieces(self, folder: str, content: Iterable[bytes]) -> None:
        """A content of unknown length, as members of PIECE bytes."""
        for number, piece in enumerate(_pieces(content)):
            self.add(f"{folder}/{number:06d}", piece)

    def end(self) -> None:
        """Without it the file is no export."""
        said = {"members": self._members, "blake3": self._hash.hexdigest()}
        content = json.dumps(said).encode()
        member = tarfile.TarInfo(END)
        member.size, member.mode = len(content), 0o600
        self._tar.addfile(member, io.BytesIO(content))
        self._tar.close()


class Reader:
    """An export as it lies in a file; every walk through it checks its names and its hash."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def head(self) -> Head:
        """Raises BadInput for a file that is no export, or of a version that is not known."""
        for name, content, _ in self._members():
            if name == HEAD:
                return self._parsed(content.read(_MOST_JSON))
            break
        raise self._none("it does not begin as one")

    def members(self) -> Iterator[tuple[str, Content, int]]:
        """Name, content and bytes of each member but the first and the last, in order, each to be
        read before the next. Raises StoreDamaged, at its end at the latest, BadInput."""
        digest = blake3()
        for count, (name, content, size) in enumerate(self._members()):
            if name == END:
                self._insist_on_end(content.read(4096), count, digest.hexdigest())
                return
            digest.update(_head_of(name, size))
            hashed = _Hashed(content, digest)
            if name != HEAD:
                self._insist_on_name(name)
                yield name, hashed, size
            while hashed.read(1 << 20):
                pass
        raise _cut_off(self.path)

    def image(self, number: str) -> Iterator[bytes]:
        """What `docker save` gave of one image."""
        for name, content, _ in self._members():
            found = _IMAGE.fullmatch(name)
            if found is not None and found[1] == number:
                yield content.read()

    def _members(self) -> Iterator[tuple[str, _Whole, int]]:
        with self._opened() as tar:
            for member in tar:
                content = tar.extractfile(member) if member.isreg() else None
                if content is None:
                    raise self._none(f"it has {member.name[:80]!r}, which is no file")
                yield member.name, _Whole(content, self.path), member.size

    @contextmanager
    def _opened(self) -> Iterator[tarfile.TarFile]:
        try:
            with tarfile.open(self.path, mode="r:") as tar:
                yield tar
        except tarfile.ReadError as error:
            raise self._none(str(error)) from None
        except OSError as error:
            raise BadInput(f"{self.path} cannot be read: {error.strerror or error}") from None

    def _parsed(self, content: bytes) -> Head:
        try:
            value: Any = json.loads(content)
            if value.get("format") == "lockstep-export" and value.get("version") != 1:
                raise BadInput(
                    f"{self.path} is an export of version {value.get('version')}, this version of "
                    "Lockstep reads 1",
                    next_step="import it with the version that wrote it, or a newer one",
                )
            return Head.model_validate(value)
        except (ValidationError, ValueError, AttributeError):
            raise self._none("its first member is not what it should be") from None

    def _insist_on_name(self, name: str) -> None:
        known = name == RECORD or _CONFIG.fullmatch(name) or _IMAGE.fullmatch(name)
        if not known and not (name.startswith(_STORE) and FILE.fullmatch(name[len(_STORE) :])):
            raise self._none(f"it has {name[:80]!r}, which no export has")

    def _insist_on_end(self, content: bytes, count: int, digest: str) -> None:
        try:
            said = json.loads(content)
            same = (said["members"], said["blake3"]) == (count, digest)
        except (ValueError, KeyError, TypeError):
            same = False
        if not same:
            raise StoreDamaged(
                f"the export {self.path} was altered or damaged: nothing was imported",
                next_step="copy it again from where it was made",
            )

    def _none(self, why: str) -> BadInput:
        return BadInput(
            f"{self.path} is no export of Lockstep: {why}",
            next_step="lockstep export RELEASE FILE   makes one",
        )


class Content(Protocol):
    """What a member holds."""

    def read(self, size: int = -1, /) -> bytes: ...


class _Whole:
    """A member's content; one that ends too soon is not taken for a short one."""

    def __init__(self, content: IO[bytes], path: Path) -> None:
        self._content, self._path = content, path

    def read(self, size: int = -1, /) -> bytes:
        try:
            return self._content.read(size)
        except tarfile.ReadError:
            raise _cut_off(self._path) from None


def _cut_off(path: Path) -> StoreDamaged:
    return StoreDamaged(
        f"the export {path} is cut off: nothing was imported",
        next_step="copy it again from where it was made",
    )


class _Hashed:
    """A content that is hashed while it is read."""

    def __init__(self, content: Content, digest: blake3) -> None:
        self._content, self._digest = content, digest

    def read(self, size: int = -1, /) -> bytes:
        data = self._content.read(size)
        self._digest.update(data)
        return data


def _head_of(name: str, size: int) -> bytes:
    return f"{name}\0{size}\0".encode()


def _pieces(content: Iterable[bytes]) -> Iterator[bytes]:
    waiting = bytearray()
    for data in content:
        waiting += data
        while len(waiting) >= PIECE:
            yield bytes(waiting[:PIECE])
            del waiting[:PIECE]
    if waiting:
        yield bytes(waiting)
