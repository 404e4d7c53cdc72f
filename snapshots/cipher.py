"""How the files of a store are written: as they are, or encrypted so that only a key opens them.

AES-256-GCM by `cryptography`. Everything encrypted carries a nonce of its own before it and a tag
after it, and is bound to its place, so that what was altered or put elsewhere does not open.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol

from blake3 import blake3

from snapshots.errors import Damaged

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES = 32
NONCE, TAG = 12, 16
CHUNK = 1 << 18  # bytes of a file that are encrypted together
_NAMES = "lockstep-store 2026 names of trees"


class Writer(Protocol):
    """Where a file's content goes, piece by piece; `finish` before the file is closed."""

    def write(self, data: bytes, /) -> int: ...

    def finish(self) -> None: ...


class Cipher:
    """Of a store that is not encrypted: everything is written as it is."""

    overhead = 0  # bytes by which what is encrypted is longer

    def encrypt(self, data: bytes, place: bytes) -> bytes:
        """What is stored for `data`, which can be opened at this place only."""
        del place
        return data

    def decrypt(self, stored: bytes | memoryview, place: bytes) -> bytes | memoryview:
        """What `encrypt` was given. Raises Damaged."""
        del place
        return stored

    def guess(self, stored: bytes) -> bytes:
        """What `encrypt` was given, as far as can be told when it was damaged since."""
        return stored

    def name(self, digest: str) -> str:
        """The name of a file that is known by the hash of its content."""
        return digest

    def writer(self, file: BinaryIO) -> Writer:
        """Encrypts what goes into a file, from where it stands."""
        return _AsItIs(file)

    def reader(self, path: Path, start: int = 0) -> BinaryIO:
        """What a `writer` was given, which began at `start`. Raises OSError; reading, Damaged."""
        file = open(path, "rb")  # noqa: SIM115
        file.seek(start)
        return file


PLAIN = Cipher()


class AesGcm(Cipher):
    """By the key of one store, 32 bytes. Safe for several threads."""

    overhead = NONCE + TAG

    def __init__(self, key: bytes) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self._key = key
        self._aead: AESGCM = AESGCM(key)
        self._names = blake3(key, derive_key_context=_NAMES).digest()

    @property
    def key(self) -> bytes:
        """For a process of our own that works on the same store."""
        return self._key

    def encrypt(self, data: bytes, place: bytes) -> bytes:
        nonce = os.urandom(NONCE)
        return nonce + self._aead.encrypt(nonce, data, place)

    def decrypt(self, stored: bytes | memoryview, place: bytes) -> bytes:
        from cryptography.exceptions import InvalidTag

        if len(stored) < self.overhead:
            raise Damaged("what is encrypted was cut off")
        try:
            return self._aead.decrypt(bytes(stored[:NONCE]), stored[NONCE:], place)
        except InvalidTag:
            raise Damaged("what is encrypted was altered") from None

    def guess(self, stored: bytes) -> bytes:
        """Without its tag GCM is counter mode: one altered bit is one altered bit."""
        from cryptography.hazmat.primitives.ciphers import Cipher as Mode
        from cryptography.hazmat.primitives.ciphers import algorithms, modes

        if len(stored) < self.overhead:
            return b""
        counter = stored[:NONCE] + (2).to_bytes(4)
        plain = Mode(algorithms.AES(self._key), modes.CTR(counter)).decryptor()
        return plain.update(stored[NONCE:-TAG])

    def name(self, digest: str) -> str:
        """Keyed, so that nobody can see whether a folder that he has is in the store."""
        return blake3(digest.encode(), key=self._names).hexdigest()

    def writer(self, file: BinaryIO) -> Writer:
        return _Encrypting(self, file)

    def reader(self, path: Path, start: int = 0) -> BinaryIO:
        return io.BufferedReader(_Decrypting(self, path, start), CHUNK)


class _AsItIs:
    def __init__(self, file: BinaryIO) -> None:
        self.write = file.write

    def finish(self) -> None:
        """Nothing is held back."""


def _place(number: int, last: bool) -> bytes:
    return b"file %d %s" % (number, b"end" if last else b"")


class _Encrypting:
    """Pieces of CHUNK bytes; the last one, which may be empty, says that it is the last."""

    def __init__(self, cipher: AesGcm, file: BinaryIO) -> None:
        self._cipher, self._file = cipher, file
        self._waiting = bytearray()
        self._number = 0

    def write(self, data: bytes, /) -> int:
        self._waiting += data
        while len(self._waiting) > CHUNK:
            self._put(bytes(self._waiting[:CHUNK]), last=False)
            del self._waiting[:CHUNK]
        return len(data)

    def finish(self) -> None:
        self._put(bytes(self._waiting), last=True)
        self._waiting.clear()

    def _put(self, data: bytes, *, last: bool) -> None:
        self._file.write(self._cipher.encrypt(data, _place(self._number, last)))
        self._number += 1


class _Decrypting(io.RawIOBase):
    """Any part of what `_Encrypting` wrote, each piece checked as a whole."""

    def __init__(self, cipher: AesGcm, path: Path, start: int) -> None:
        self._cipher, self._start = cipher, start
        self._file = open(path, "rb")  # noqa: SIM115
        length = self._file.seek(0, os.SEEK_END) - start
        self._pieces = -(-length // (CHUNK + cipher.overhead))
        self._size = max(0, length - self._pieces * cipher.overhead)
        self._at = 0
        self._piece: tuple[int, bytes] = (-1, b"")

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise OSError(22, "Invalid argument")
        self._at = base + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        number, within = divmod(self._at, CHUNK)
        if number >= self._pieces:
            return 0
        data = self._read(number)[within : within + len(buffer)]
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def _read(self, number: int) -> bytes:
        if self._piece[0] != number:
            stored = CHUNK + self._cipher.overhead
            self._file.seek(self._start + number * stored)
            last = number == self._pieces - 1
            data = self._cipher.decrypt(self._file.read(stored), _place(number, last))
            self._piece = number, data
        return self._piece[1]

    def close(self) -> None:
        self._file.close()
        super().close()
