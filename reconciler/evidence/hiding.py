"""What must not stand in evidence: secrets of the stack, and what containers were given as such.

A world may have been made with secrets that the config does not hold any more, and an adopted
project with ones that it never held: what looks like a secret in a container's environment counts
as one, and its value is masked wherever it occurs.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from reconciler import masking
from reconciler.config import Stack
from reconciler.masking import MASK, SHORTEST
from reconciler.project import compose
from reconciler.records.release import Release

_SECRET_NAME = re.compile(r"(?i)(pass|passwd|password|passphrase|secret|token|credential|key)s?$")
_IN_ADDRESS = re.compile(r"://[^/@:\s]*:([^/@\s]+)@")
_FILE_BYTES = 1 << 16


class Hiding:
    """Masks texts and documents; learns from what it is shown. Safe to use from several threads."""

    def __init__(self, stack: Stack, records: Collection[Release | None]) -> None:
        self._guard = threading.Lock()
        self._values = set(stack.secret_values.values()) | _from_files(records)
        self._forms = masking.forms(self._values)
        self._names = set().union(*(_given_names(record) for record in records if record))

    def text(self, text: str) -> str:
        """The text without any secret."""
        return masking.masked(masking.without(text, self._forms))

    def document(self, value: Any) -> Any:
        """A JSON document, its keys included, without any secret."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.text(str(k)): self.document(v) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [self.document(v) for v in value]
        return value

    def difference(self, line: str) -> str:
        """A line `place: old -> new` of two definitions, without the values of a secret's place."""
        place = line.partition(": ")[0]
        hidden = self._is_secret(place.rpartition(".")[2])
        return f"{place}: {MASK} -> {MASK}" if hidden else self.text(line)

    def inspected(self, said: Mapping[str, Any]) -> dict[str, Any]:
        """What `docker inspect` says of a container; secret values of its environment are learnt
        and masked."""
        config = dict(said.get("Config") or {})
        entries = [entry.partition("=") for entry in config.get("Env") or ()]
        given = [v for name, _, v in entries if self._is_secret(name)]
        given += [found for _, _, v in entries for found in _IN_ADDRESS.findall(v)]
        shown = f"{said.get('Name')} {config.get('Image')}"
        # A password that is the name of its service cannot be hidden, only its place can.
        self._learn(v for v in given if len(v) >= SHORTEST and v not in shown)
        masked: dict[str, Any] = self.document(said)
        if entries:
            masked["Config"]["Env"] = [
                f"{name}={MASK if value and self._is_secret(name) else self.text(value)}"
                for name, _, value in entries
            ]
        return masked

    def _is_secret(self, name: str) -> bool:
        return name in self._names or _SECRET_NAME.search(name) is not None

    def _learn(self, values: Iterable[str]) -> None:
        with self._guard:
            new = set(values) - self._values
            if new:
                self._values |= new
                self._forms = masking.forms(self._values)


def _from_files(records: Collection[Release | None]) -> set[str]:
    """What is in the secret files of releases, as far as they can be read."""
    paths = {compose.secret_file(name) for r in records if r is not None for name in r.secrets}
    found = set()
    for path in filter(None, paths):
        with suppress(OSError, UnicodeDecodeError):
            with Path(path).open(encoding="utf-8") as file:
                text = file.read(_FILE_BYTES)
            found |= {text, text.strip()} if len(text.strip()) >= SHORTEST else set()
    return found


def _given_names(record: Release) -> set[str]:
    """Names of the environment variables whose values are, or hold, a secret of the release."""
    found = set()
    for body in compose.services(record.model).values():
        given = body.get("environment") or {}
        if isinstance(given, Mapping):
            found |= {str(name) for name, v in given.items() if compose.placeholders_in(v)}
    return found
