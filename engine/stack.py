"""One stack: its settings, secrets, state and history."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from . import config as conf
from . import yamlfile
from .backend import Backend
from .errors import EngineError, NotInEngine, StackMissing
from .project import Project
from .secrets import Passphrase
from .snapshot import Snapshot
from .values import Props, Secret, masked, plain


class Stack:
    """A stack of a project, named as in Pulumi.<name>.yaml."""

    def __init__(self, project: Project, name: str, passphrase: str | None = None) -> None:
        """`passphrase` else PULUMI_CONFIG_PASSPHRASE, else the file PULUMI_CONFIG_PASSPHRASE_FILE
        names. It is needed, and asked for with EngineError, only where a secret is."""
        odd = re.search(r"[^A-Za-z0-9_.-]", name)
        if odd or not name:
            reason = f"invalid character '{odd[0]}' at position {odd.start()}" if odd else "no name"
            raise EngineError(
                "a stack name may only contain alphanumeric, hyphens, underscores, or periods: "
                f"{reason}"
            )
        self.project, self.name = project, name
        self.backend = Backend(project, name)
        self.path = project.stack_file(name)
        self._passphrase = passphrase
        self._secrets: Passphrase | None = None
        settings = self._settings()
        for key in ("secretsprovider", "encryptedkey"):
            if settings.get(key) and settings[key] != "passphrase":
                raise NotInEngine(f"the secrets provider of {self.path.name} ({key})")

    # ---- config --------------------------------------------------------------------------------

    def config(self) -> dict[str, Any]:
        """Every value by namespaced key, decrypted, defaults of the project included. Plain values
        are texts, as the program gets them; structured ones are dicts and lists."""
        found = {}
        for key, value in self.merged().items():
            opened = conf.opened(value, self.secrets.decrypt) if conf.holds_secret(value) else value
            found[key] = opened if isinstance(opened, dict | list) else conf.as_text(opened)
        return found

    def secret_keys(self) -> set[str]:
        """Keys whose value is secret, as a whole or somewhere inside."""
        return {key for key, value in self.merged().items() if conf.holds_secret(value)}

    def masked_texts(self) -> list[str]:
        """The decrypted secrets of the config, which no displayed text may hold; longest first."""
        texts: set[str] = set()

        def note(sealed: str) -> str:
            texts.add(self.secrets.decrypt(sealed))
            return ""

        for value in self.own().values():
            conf.opened(value, note)
        # Text of one or two letters is everywhere; masking it would hide nothing and garble all.
        return sorted((t for t in texts if len(t.strip()) > 2), key=len, reverse=True)

    def texts(self) -> dict[str, str]:
        """The config as the SDK takes it: every value a text, structures as JSON."""
        return {key: conf.as_text(value) for key, value in self.config().items()}

    def provider_inputs(self) -> Props:
        """The config as the inputs of the default provider of dynamic resources."""
        secret = self.secret_keys()
        return {k: Secret(v) if k in secret else v for k, v in sorted(self.texts().items())}

    def validate(self) -> None:
        """Raises EngineError if the config does not fit what the project declares."""
        self.project.validate(self.name, self.config(), self.secret_keys())

    # ---- state ---------------------------------------------------------------------------------

    def exists(self) -> bool:
        """Whether the stack was made (its state, not only its settings file)."""
        return self.backend.exists()

    def outputs(self, show_secrets: bool = False) -> dict[str, Any]:
        """The stack's outputs; secret ones as [secret] unless asked for."""
        root = self.snapshot().root
        found: dict[str, Any] = (plain if show_secrets else masked)(root.outputs if root else {})
        return found

    def snapshot(self) -> Snapshot:
        """The state as it is on disk now. Raises EngineError if there is no stack."""
        if not self.exists():
            raise StackMissing(
                f"no stack named '{self.name}' found in {self.backend.url}; "
                f"make it with `pulumi stack init {self.name}`"
            )
        return Snapshot.read(self.backend.load(), lambda text: self.secrets.decrypt(text))

    def save(self, snapshot: Snapshot, durable: bool = False) -> None:
        """Write the state; secrets encrypted with the stack's passphrase."""
        self.backend.save(snapshot.write(self.secrets.encrypt, self.secrets.salt), durable)

    # ---- secrets -------------------------------------------------------------------------------

    def begin(self) -> None:
        """For what will read the state: the key is derived beside the imports."""
        if self._settings().get("encryptionsalt") and self.has_passphrase:
            self.secrets.begin()

    @property
    def secrets(self) -> Passphrase:
        """The stack's encryption. Raises EngineError without a passphrase."""
        if self._secrets is None:
            passphrase = self._given_passphrase()
            if passphrase is None:
                raise EngineError(
                    f"stack '{self.name}' needs its passphrase: set PULUMI_CONFIG_PASSPHRASE or "
                    "PULUMI_CONFIG_PASSPHRASE_FILE"
                )
            self._secrets = Passphrase(
                passphrase, self._settings().get("encryptionsalt") or self._state_salt()
            )
        return self._secrets

    def _state_salt(self) -> str | None:
        found = (self.backend.load() or {}).get("secrets_providers") or {}
        return (found.get("state") or {}).get("salt")

    @property
    def has_passphrase(self) -> bool:
        """Whether one is given."""
        return self._given_passphrase() is not None

    def _given_passphrase(self) -> str | None:
        if self._passphrase is not None:
            return self._passphrase
        given = os.environ.get("PULUMI_CONFIG_PASSPHRASE")
        path = os.environ.get("PULUMI_CONFIG_PASSPHRASE_FILE")
        if given is None and path:
            try:
                return Path(path).read_text().strip()
            except OSError as error:
                raise EngineError(
                    f"the passphrase file {path} cannot be read: {error.strerror}"
                ) from None
        return given

    # ---- the settings file ---------------------------------------------------------------------

    def _settings(self) -> dict[str, Any]:
        return yamlfile.read(self.path)

    def own(self) -> dict[str, Any]:
        """The values of the stack's own file by namespaced key, secrets encrypted."""
        found = self._settings().get("config") or {}
        if not isinstance(found, dict):
            raise EngineError(f"`config:` of {self.path} must hold a mapping")
        return {self.project.key(str(key)): value for key, value in found.items()}

    def merged(self) -> dict[str, Any]:
        """Those, and the project's defaults for the others."""
        return dict(sorted({**self.project.defaults(), **self.own()}.items()))
