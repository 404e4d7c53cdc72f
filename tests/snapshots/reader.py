"""A reader of stores, written from docs/store-format.md alone: it uses nothing of the product.

It checks what the page says that a reader checks, and stops at the first thing that is wrong.
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import zstandard
from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

BLOCK = 65536
ENTRY = struct.Struct("<32sQIIIB3s")
TRAILER = struct.Struct("<QQ32s8s")


class Wrong(Exception):
    """The store is not what the page says."""


@dataclass
class Entry:
    """One entry: `kind` as in the tree, `data` its pieces of content by offset."""

    kind: str
    mode: int
    owner: tuple[int, int]
    mtime_ns: int
    xattrs: dict[bytes, bytes]
    size: int = 0
    target: bytes = b""
    data: list[tuple[int, bytes]] = field(default_factory=list)


def insist(condition: bool, what: str) -> None:
    if not condition:
        raise Wrong(what)


class Reader:
    def __init__(self, store: Path, passphrase: str = "") -> None:
        self._store = store
        versions = [b'{"format": "lockstep-store", "version": %d}\n' % n for n in (1, 2, 3)]
        version = (store / "format").read_bytes()
        insist(version in versions, "unknown format")
        self._key = _key(store, passphrase) if version == versions[2] else None
        self._longer = 28 if self._key else 0
        self._places: dict[bytes, tuple[Path, int, int, int, int, int]] = {}
        for pack in sorted((store / "packs").glob("*.pack")):
            self._index(pack)

    def snapshots(self) -> list[str]:
        return sorted(path.stem for path in (self._store / "snapshots").glob("*.json"))

    def record(self, snapshot: str) -> dict[str, Any]:
        body = (self._store / "snapshots" / f"{snapshot}.json").read_bytes()
        body = self._opened(body, snapshot.encode())
        insist(blake3(body).hexdigest()[:32] == snapshot, "altered record")
        record: dict[str, Any] = json.loads(body)
        insist(record["record"] == 1, "unknown record")
        return record

    def entries(self, snapshot: str) -> dict[bytes, Entry | bytes]:
        """Path -> the entry, or the path of which it is another name. The root is b"."."""
        record = self.record(snapshot)
        found: dict[bytes, Entry | bytes] = {}
        by_id: dict[int, bytes] = {}
        path: list[bytes] = []
        last: list[bytes] = []
        file: Entry | None = None
        files = data = 0
        lines = self._lines(record["root"])
        insist(json.loads(next(lines)) == {"tree": 1, "block": BLOCK}, "unknown tree")
        for line in lines:
            value = json.loads(line)
            kind = value["t"]
            if kind == "e":
                insist((value["files"], value["bytes"]) == (files, data), "wrong sums")
                insist((record["files"], record["bytes"]) == (files, data), "wrong record")
                insist(not path and next(lines, None) is None, "not the end")
                return found
            if kind == "b":
                insist(file is not None, "blocks without a file")
                assert file is not None
                data += self._blocks(file, value)
                continue
            if kind == "u":
                path.pop()
                last.pop()
                continue
            name = value["n"].encode("latin-1")
            if path:
                insist(name not in (b"", b".", b"..") and not set(name) & {0, 47}, "bad name")
                insist(last[-1] < name and len(name) <= 255, "names out of order")
                last[-1] = name
            else:
                insist(kind == "d" and name == b"" and not found, "no root")
            where = b"/".join((*path[1:], name)) or b"."
            if kind == "h":
                files += 1
                found[where] = by_id[value["of"]]
                continue
            entry = found[where] = _entry(value)
            file = entry if kind == "f" else None
            if "id" in value:
                insist(value["id"] not in by_id, "a number twice")
                by_id[value["id"]] = where
            if kind == "d":
                path.append(name)
                last.append(b"")
            else:
                insist(kind in ("f", "l", "p"), "unknown kind")
                files += 1
        raise Wrong("no end")

    # -- encryption ------------------------------------------------------------------------------

    def _opened(self, stored: bytes, place: bytes) -> bytes:
        return stored if self._key is None else _decrypted(self._key, stored, place)

    def _file(self, stored: bytes) -> bytes:
        if self._key is None:
            return stored
        piece = (1 << 18) + 28
        pieces = [stored[at : at + piece] for at in range(0, len(stored), piece)]
        return b"".join(
            _decrypted(
                self._key, data, b"file %d %s" % (n, b"end" if n + 1 == len(pieces) else b"")
            )
            for n, data in enumerate(pieces)
        )

    # -- trees -----------------------------------------------------------------------------------

    def _lines(self, root: str) -> Iterator[bytes]:
        name = root
        if self._key is not None:
            names = blake3(self._key, derive_key_context="lockstep-store 2026 names of trees")
            name = blake3(root.encode(), key=names.digest()).hexdigest()
        content = (self._store / "trees" / f"{name}.zst").read_bytes()
        insist(blake3(content[32:]).digest() == content[:32], "altered tree")
        frame = self._file(content[32:])
        lines = zstandard.ZstdDecompressor().decompressobj().decompress(frame)
        insist(blake3(lines).hexdigest() == root, "altered lines")
        insist(lines.endswith(b"\n"), "no newline at the end")
        return iter(lines[:-1].split(b"\n"))

    def _blocks(self, file: Entry, value: dict[str, Any]) -> int:
        packed = bytes.fromhex(value["h"])
        hashes = [packed[at : at + 32] for at in range(0, len(packed), 32)]
        insist(0 < len(hashes) <= 512 and len(packed) % 32 == 0, "bad run")
        start = value["at"] * BLOCK
        run = b"".join(self.block(digest) for digest in hashes)
        insist(len(run) == min(len(hashes) * BLOCK, file.size - start), "a run of another length")
        parts = value.get("s", [start, len(run)])
        pairs = list(zip(parts[::2], parts[1::2], strict=True))
        for offset, length in pairs:
            file.data.append((offset, run[offset - start : offset - start + length]))
        return sum(length for _, length in pairs)

    # -- packs -----------------------------------------------------------------------------------

    def _index(self, pack: Path) -> None:
        content = pack.read_bytes()
        count, offset, digest, magic = TRAILER.unpack(content[-TRAILER.size :])
        insist(content[:8] == magic == b"LSPACK01", "no pack")
        index = content[offset : -TRAILER.size]
        insist(len(index) == count * ENTRY.size + self._longer, "index of another length")
        insist(blake3(index).digest() == digest and digest.hex() == pack.stem, "altered index")
        index = self._opened(index, b"index")
        hashes = []
        for name, at, stored, raw, crc, codec, zero in ENTRY.iter_unpack(index):
            insist(zero == bytes(3) and 0 < stored - self._longer <= raw <= BLOCK, "bad entry")
            insist(at >= 8 and at + stored <= offset, "payload outside")
            self._places[name] = pack, at, stored, raw, crc, codec
            hashes.append(name)
        insist(hashes == sorted(hashes), "entries out of order")

    def block(self, digest: bytes, *, plain: bool = False) -> bytes:
        pack, at, stored, raw, crc, codec = self._places[digest]
        with open(pack, "rb") as file:
            file.seek(at)
            payload = file.read(stored)
        insist(zlib.crc32(payload) == crc, "altered payload")
        payload = self._opened(payload, digest)
        if codec == 0:
            content = payload
        elif codec == 1:
            insist(zstandard.frame_content_size(payload) == raw, "frame of another size")
            content = zstandard.ZstdDecompressor().decompress(payload)
        else:
            insist(codec == 2 and not plain, "codec that must not be")
            content = self._member(payload, raw)
        insist(len(content) == raw and blake3(content).digest() == digest, "another content")
        return content

    def _member(self, payload: bytes, raw: int) -> bytes:
        head_hash, number = struct.unpack("<32sI", payload)
        head = self.block(head_hash, plain=True)
        list_hash, size = struct.unpack_from("<32sI", head)
        frame = self._joined(head[36:])
        insist(zstandard.frame_content_size(frame) == size <= 16 << 20, "group of another size")
        dictionary = zstandard.ZstdCompressionDict(
            self._joined(self.block(list_hash, plain=True)),
            dict_type=zstandard.DICT_TYPE_RAWCONTENT,
        )
        group = zstandard.ZstdDecompressor(dict_data=dictionary).decompress(frame)
        return group[number * BLOCK : number * BLOCK + raw]

    def _joined(self, hashes: bytes) -> bytes:
        insist(len(hashes) % 32 == 0, "half a hash")
        return b"".join(
            self.block(hashes[at : at + 32], plain=True) for at in range(0, len(hashes), 32)
        )


def _key(store: Path, passphrase: str) -> bytes:
    try:
        value = json.loads((store / "key").read_bytes())
    except ValueError:
        raise Wrong("altered key") from None
    check = value.pop("check")
    insist(blake3(json.dumps(value, sort_keys=True).encode()).hexdigest() == check, "altered key")
    insist(value["key"] == 1, "unknown key")
    salt, wrapped = bytes.fromhex(value["salt"]), bytes.fromhex(value["wrapped"])
    return _decrypted(_derived(passphrase, salt, value["n"]), wrapped, b"lockstep-store key")


@lru_cache(maxsize=8)
def _derived(passphrase: str, salt: bytes, cost: int) -> bytes:
    return hashlib.scrypt(
        passphrase.encode(), salt=salt, n=cost, r=8, p=1, dklen=32, maxmem=1 << 26
    )


def _decrypted(key: bytes, stored: bytes, place: bytes) -> bytes:
    try:
        return AESGCM(key).decrypt(stored[:12], stored[12:], place)
    except InvalidTag:
        raise Wrong("altered, or another key") from None


def _entry(value: dict[str, Any]) -> Entry:
    return Entry(
        value["t"],
        value["m"],
        (value["u"], value["g"]),
        value["mt"],
        {n.encode("latin-1"): base64.b64decode(x) for n, x in value.get("x", {}).items()},
        value.get("s", 0),
        value.get("to", "").encode("latin-1"),
    )
