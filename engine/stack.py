"""One stack: its settings, secrets, state and history."""

from __future__ import annotations

import json
import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from . import config as conf
from . import yamlfile
from .backend import ORGANIZATION, Backend
from .errors import EngineError, NotInEngine, StackMissing
from .project import Project
from .secrets import Passphrase
from .snapshot import STACK_TYPE, Snapshot
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
        salt = settings.get("encryptionsalt")
        # The key is derived beside the imports; the state will need it.
        if salt and self._given_passphrase() is not None:
            self._secrets = Passphrase(self._given_passphrase() or "", salt)

    # ---- config --------------------------------------------------------------------------------

    def config(self) -> dict[str, Any]:
        """Every value by namespaced key, decrypted, defaults of the project included. Plain values
        are texts, as the program gets them; structured ones are dicts and lists."""
        return {
            k: _stored(conf.opened(v, self.secrets.decrypt) if conf.holds_secret(v) else v)
            for k, v in self._merged().items()
        }

    def secret_keys(self) -> set[str]:
        """Keys whose value is secret, as a whole or somewhere inside."""
        return {key for key, value in self._merged().items() if conf.holds_secret(value)}

    def masked_texts(self) -> list[str]:
        """The decrypted secrets of the config, which no displayed text may hold; longest first."""
        texts: set[str] = set()

        def note(sealed: str) -> str:
            texts.add(self.secrets.decrypt(sealed))
            return ""

        for value in self._own().values():
            conf.opened(value, note)
        # Text of one or two letters is everywhere; masking it would hide nothing and garble all.
        return sorted((t for t in texts if len(t.strip()) > 2), key=len, reverse=True)

    def config_get(self, key: str, path: bool = False) -> Any:
        """One value, decrypted. Raises EngineError if it is not set."""
        name, inside = self._place(key, path)
        try:
            return conf.get_path(self.config()[name], inside)
        except KeyError:
            raise EngineError(
                f"configuration key '{key}' not found for stack '{self.name}'; "
                f"set it with `config set {key} <value>`"
            ) from None

    def _place(self, key: str, path: bool) -> tuple[str, list[str | int]]:
        """The namespaced key, and the path inside its value."""
        parts: list[str | int] = conf.parse_path(key) if path else [key]
        return self.project.key(str(parts[0])), parts[1:]

    def config_set(self, key: str, value: Any, secret: bool = False, path: bool = False) -> None:
        """Set one value in Pulumi.<stack>.yaml: a text, or with `path` and an object or list, that
        structure. `secret` encrypts it."""
        name, inside = self._place(key, path)
        if isinstance(value, dict | list):
            new: Any = value
        else:
            new = conf.scalar(str(value)) if inside and not secret else _text(value)
        if secret:
            new = {conf.SECURE: self.secrets.encrypt(conf.as_text(new))}
        own = self._own()
        own[name] = conf.put_path(own.get(name), inside, new, name.rpartition(":")[2])
        self._write(own)

    def config_rm(self, key: str, path: bool = False) -> None:
        """Remove one value; nothing happens if it is not set."""
        name, inside = self._place(key, path)
        own = self._own()
        if name not in own:
            return
        if inside:
            own[name] = conf.drop_path(own[name], inside)
        else:
            del own[name]
        self._write(own)

    def config_shown(self, show_secrets: bool = False) -> dict[str, dict[str, Any]]:
        """Every value as `pulumi config --json` has it: value, objectValue, secret."""
        return {k: self._shown(v, show_secrets) for k, v in self._merged().items()}

    def config_entry(self, key: str, path: bool = False) -> dict[str, Any]:
        """One value as `pulumi config get --json` has it: value, objectValue, secret."""
        name, inside = self._place(key, path)
        return self._shown(conf.get_path(self._merged().get(name), inside), True)

    def _shown(self, value: Any, show_secrets: bool) -> dict[str, Any]:
        sealed = conf.holds_secret(value)
        if sealed and not show_secrets:
            return {"secret": True}
        opened = conf.opened(value, self.secrets.decrypt) if sealed else value
        shown: dict[str, Any] = {"value": conf.as_text(opened)}
        if isinstance(opened, dict | list):
            shown["objectValue"] = json.loads(shown["value"])
        return {**shown, "secret": sealed}

    def config_masked(self) -> dict[str, str]:
        """Every value as one text for a reader, with the secrets in it as [secret]."""
        return {
            k: conf.as_text(conf.opened(v, lambda _: "[secret]")) for k, v in self._merged().items()
        }

    def own_config(self) -> dict[str, Any]:
        """The values of the stack's own file as they stand there, secrets encrypted."""
        return self._settings().get("config") or {}

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

    def init(self) -> None:
        """Make the stack: an empty state, and a salt for its secrets. Raises EngineError if it is
        there already or no passphrase is given."""
        if self.exists():
            raise EngineError(
                f"stack '{ORGANIZATION}/{self.project.name}/{self.name}' already exists"
            )
        self.secrets.check()
        self._write(self._own())
        self.save(Snapshot())

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

    def history(self, show_secrets: bool = False) -> list[dict[str, Any]]:
        """Past operations, newest first, with the fields of `pulumi stack history --json`. Secret
        config values are left out of their entries unless asked for."""
        return [
            {
                "version": 0,
                **entry,
                "startTime": _when(entry.get("startTime")),
                "endTime": _when(entry.get("endTime")),
                "config": {
                    k: self._shown(v, show_secrets) for k, v in (entry.get("config") or {}).items()
                },
            }
            for entry in self.backend.history()
        ]

    def export(self, show_secrets: bool = False) -> dict[str, Any]:
        """The state as `pulumi stack export` gives it, secrets encrypted unless asked for."""
        snapshot = self.snapshot()
        if show_secrets:
            return {"version": 3, "deployment": snapshot.write(None, self.secrets.salt)}
        return {"version": 3, "deployment": self.backend.load() or {}}

    def import_(self, deployment: dict[str, Any]) -> None:
        """Replace the state by an exported one. Raises EngineError if it cannot be read with this
        stack's passphrase, StackLocked while somebody works on it."""
        body = deployment.get("deployment")
        if deployment.get("version") not in (3, 4) or not isinstance(body, dict):
            raise EngineError("this is not an export of a stack (version 3 with a `deployment`)")
        snapshot = Snapshot.read(body, lambda text: self.secrets.decrypt(text))
        with self.backend.lock():
            self.save(snapshot, durable=True)
            self.backend.backup()

    def cancel(self) -> None:
        """Clear the stack's locks, whoever holds them. A process that still runs goes on."""
        self.backend.unlock_all()

    def remove(self, force: bool = False, keep_config: bool = False) -> None:
        """Remove the stack and, unless kept, its settings file. Raises EngineError while it has
        resources, unless forced: they then exist without a state."""
        left = [r for r in self.snapshot().resources if r.type != STACK_TYPE and not r.is_provider]
        if left and not force:
            raise EngineError(
                f"'{self.name}' still has resources; removal rejected. Possible actions:\n"
                f"- Make sure that '{self.name}' is the stack that you want to destroy\n"
                "- Run `pulumi destroy` to delete the resources, then run `pulumi stack rm`\n"
                "- Run `pulumi stack rm --force` to override this error"
            )
        with self.backend.lock():
            self.backend.remove()
            if not keep_config:
                self.path.unlink(missing_ok=True)

    # ---- secrets -------------------------------------------------------------------------------

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

    def _own(self) -> dict[str, Any]:
        found = self._settings().get("config") or {}
        if not isinstance(found, dict):
            raise EngineError(f"`config:` of {self.path} must hold a mapping")
        return {self.project.key(str(key)): value for key, value in found.items()}

    def _merged(self) -> dict[str, Any]:
        return dict(sorted({**self.project.defaults(), **self._own()}.items()))

    def _write(self, own: dict[str, Any]) -> None:
        changes = (
            {"encryptionsalt": self.secrets.salt} if self._given_passphrase() is not None else {}
        )
        yamlfile.edit(self.path, changes, own)


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _stored(value: Any) -> Any:
    """A top-level value: structures stay, everything else is the text the program gets."""
    return value if isinstance(value, dict | list) else conf.as_text(value)


def _when(seconds: Any) -> Any:
    if not isinstance(seconds, int | float):
        return seconds
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
