"""Pulumi's passphrase secrets: AES-256-GCM under a key from PBKDF2-SHA256 with 1,000,000 rounds."""

from __future__ import annotations

import base64
import os
import threading
from functools import lru_cache
from typing import Any

from .errors import EngineError

ROUNDS = 1_000_000
CHECK_TEXT = "pulumi"


class Passphrase:
    """Encrypts and decrypts for one stack.

    The derivation takes a tenth of a second: it is left until the first use, or started by
    `begin` on its own thread (the library lets the interpreter go).
    """

    def __init__(self, passphrase: str, salt: str | None = None) -> None:
        """`salt` is the stack's `encryptionsalt`; None makes a new one.

        Raises EngineError for a salt of another format.
        """
        self._passphrase = passphrase
        self._given = salt
        if salt is None:
            self._salt = os.urandom(8)
        else:
            parts = salt.split(":", 2)
            if len(parts) != 3 or parts[0] != "v1":
                raise EngineError(
                    f"the stack's encryption salt {salt!r} is not of Pulumi's form v1"
                )
            self._salt = base64.b64decode(parts[1])
        self._cipher: Any = None
        self._checked = salt is None
        self._ready: threading.Thread | None = None
        self._guard = threading.Lock()

    def begin(self) -> None:
        """Have the key derived beside what the caller does next."""
        self._deriving()

    def _deriving(self) -> threading.Thread:
        with self._guard:
            if self._ready is None:
                # Not a daemon: one still deriving as the interpreter ends aborts the process.
                self._ready = threading.Thread(target=self._derive)
                self._ready.start()
            return self._ready

    def _derive(self) -> None:
        key = _key(self._passphrase, self._salt)
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self._cipher = AESGCM(key)

    def _use(self) -> Any:
        self._deriving().join()
        if not self._checked and self._given is not None:
            self._checked = True
            if self._open(self._given.split(":", 2)[2]) != CHECK_TEXT:
                raise EngineError(WRONG)
        return self._cipher

    def check(self) -> None:
        """Raises EngineError if the passphrase is not the one the stack was made with."""
        self._use()

    @property
    def salt(self) -> str:
        """The text to keep as `encryptionsalt`: the salt and a sealed word to check against."""
        if self._given is None:
            head = base64.b64encode(self._salt).decode()
            self._given = f"v1:{head}:{self.encrypt(CHECK_TEXT)}"
        return self._given

    def encrypt(self, text: str) -> str:
        """`v1:nonce:ciphertext`, both in base64; a new nonce each time."""
        nonce = os.urandom(12)
        sealed: bytes = self._use().encrypt(nonce, text.encode(), None)
        return f"v1:{base64.b64encode(nonce).decode()}:{base64.b64encode(sealed).decode()}"

    def decrypt(self, sealed: str) -> str:
        """Raises EngineError for a wrong passphrase or an altered ciphertext."""
        self._use()
        return self._open(sealed)

    def _open(self, sealed: str) -> str:
        from cryptography.exceptions import InvalidTag

        try:
            version, nonce, body = sealed.split(":")
            opened: bytes = self._cipher.decrypt(
                base64.b64decode(nonce), base64.b64decode(body), None
            )
        except (InvalidTag, ValueError):
            raise EngineError(WRONG) from None
        if version != "v1":
            raise EngineError(f"a secret of the unknown form {version!r}; use the Pulumi CLI")
        return opened.decode()


@lru_cache(maxsize=8)
def _key(passphrase: str, salt: bytes) -> bytes:
    # hashlib derives the same key, but takes half as long again.
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC

    return PBKDF2HMAC(SHA256(), 32, salt, ROUNDS).derive(passphrase.encode())


WRONG = (
    "incorrect passphrase: the stack was made with another one; "
    "set PULUMI_CONFIG_PASSPHRASE or PULUMI_CONFIG_PASSPHRASE_FILE"
)
