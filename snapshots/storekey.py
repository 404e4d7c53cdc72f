"""The key of an encrypted store: random, and kept in the store wrapped by a passphrase.

Two files of the store hold the same, so that one damaged file loses nothing. A checksum tells
damage apart from a wrong passphrase.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from blake3 import blake3

from snapshots import fs
from snapshots.cipher import KEY_BYTES, NONCE
from snapshots.errors import Damaged, StoreUnusable

FILES = ("key", "key.copy")
SALT = 16
COST, BLOCK_SIZE, PARALLEL = 1 << 15, 8, 1  # of scrypt: 32 MiB, a third of a second
MOST_COST = 1 << 20
_PLACE = b"lockstep-store key"


class WrongKey(StoreUnusable):
    """The store is encrypted, and what was given does not open it."""


def make(folder: Path, passphrase: str) -> bytes:
    """A new key for the store in `folder`, written there, wrapped; returns the key."""
    key = os.urandom(KEY_BYTES)
    write(folder, key, passphrase)
    return key


def write(folder: Path, key: bytes, passphrase: str, files: Sequence[str] = FILES) -> None:
    """Wrap the key anew: from now on this passphrase opens the store, and no other one.

    With one of the files only, what the other one holds opens it, too.
    """
    body = _body(key, passphrase)
    for name in files:
        fs.write_durably(folder / name, body)


def read(folder: Path, passphrase: str) -> bytes:
    """The key of the store in `folder`. Raises WrongKey, Damaged (of both files)."""
    bodies = _whole(folder)
    if not bodies:
        raise Damaged(
            f"the key of the store {folder} is damaged or missing, and so is its copy: put "
            f"{folder / FILES[0]} back from a copy of the store; nothing else opens it"
        )
    for body in bodies:  # two of them differ where a change of the passphrase was cut off
        key = _unwrapped(body, passphrase)
        if key is not None:
            return key
    raise WrongKey(
        f"the store {folder} is encrypted with another passphrase than the one given; it is not "
        "damaged: lockstep config set --secret encryption   takes the right one"
    )


def damaged(folder: Path) -> list[str]:
    """Which of the two files cannot be used."""
    return [name for name in FILES if not _parsed(_bytes_of(folder / name))]


def mend(folder: Path) -> list[str]:
    """Write a damaged file anew from the other one; the names of those mended."""
    lost, whole = damaged(folder), _whole(folder)
    if not whole:
        return []
    for name in lost:
        fs.write_durably(folder / name, whole[0])
    return lost


def _body(key: bytes, passphrase: str) -> bytes:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    salt, nonce = os.urandom(SALT), os.urandom(NONCE)
    wrapped = AESGCM(_derived(passphrase, salt, COST)).encrypt(nonce, key, _PLACE)
    value = {"key": 1, "n": COST, "salt": salt.hex(), "wrapped": (nonce + wrapped).hex()}
    return sealed_text(value)


def sealed_text(value: dict[str, Any]) -> bytes:
    """The content of a key file: `value` with its checksum."""
    return json.dumps({**value, "check": _check(value)}, sort_keys=True).encode() + b"\n"


def _check(value: dict[str, Any]) -> str:
    return blake3(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _bytes_of(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(4096)
    except OSError:
        return b""


def _whole(folder: Path) -> list[bytes]:
    return [body for body in (_bytes_of(folder / name) for name in FILES) if _parsed(body)]


def _parsed(body: bytes) -> tuple[int, bytes, bytes] | None:
    """(cost, salt, nonce and wrapped key), None when the file is damaged."""
    try:
        value = json.loads(body)
        check = value.pop("check")
        cost = value["n"]
        sound = value["key"] == 1 and check == _check(value) and type(cost) is int
        if not sound or not 2 <= cost <= MOST_COST or cost & (cost - 1):
            return None
        return cost, bytes.fromhex(value["salt"]), bytes.fromhex(value["wrapped"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


@lru_cache(maxsize=8)
def _unwrapped(body: bytes, passphrase: str) -> bytes | None:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    parsed = _parsed(body)
    assert parsed is not None
    cost, salt, wrapped = parsed
    try:
        return AESGCM(_derived(passphrase, salt, cost)).decrypt(
            wrapped[:NONCE], wrapped[NONCE:], _PLACE
        )
    except (InvalidTag, ValueError):
        return None


def _derived(passphrase: str, salt: bytes, cost: int) -> bytes:
    from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

    return Scrypt(salt=salt, length=KEY_BYTES, n=cost, r=BLOCK_SIZE, p=PARALLEL).derive(
        passphrase.encode()
    )
