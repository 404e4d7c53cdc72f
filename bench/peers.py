"""How each tool keeps the releases of a folder, as the lines that people type.

What the lines have in common: `$source` is the folder, `$kept` a folder of the tool's own,
`$number` the release, counted from 1, and `$target` where it is to be again. A tool that does not
remove what is too much gets an emptied folder when it restores in place: without that, stale files
stay behind, and a database that finds them does not start, or starts wrong.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from bench.measure import Command

ROOT = Path(__file__).resolve().parent.parent
EMPTY = 'find "$target" -mindepth 1 -delete; '
PASSWORD = {"RESTIC_PASSWORD": "bench"}
UNASKED = {
    "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
    "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes",
}


class Tool(Protocol):
    """Keeps releases of a folder and brings the last one back."""

    @property
    def name(self) -> str: ...

    def prepare(self, kept: Path) -> Command | None: ...

    def capture(self, kept: Path, source: Path, number: int) -> Command: ...

    def restore(self, kept: Path, number: int, target: Path) -> Command: ...

    def replace(self, kept: Path, number: int, target: Path) -> Command: ...


@dataclass(frozen=True)
class Peer:
    """A tool that is used through a shell."""

    name: str
    capturing: str
    restoring: str
    preparing: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    cache: Callable[[Path], Mapping[str, str]] = lambda _: {}

    def prepare(self, kept: Path) -> Command | None:
        return self._line(self.preparing, kept, {}) if self.preparing else None

    def capture(self, kept: Path, source: Path, number: int) -> Command:
        return self._line(self.capturing, kept, {"source": str(source), "number": str(number)})

    def restore(self, kept: Path, number: int, target: Path) -> Command:
        return self._line(self.restoring, kept, {"target": str(target), "number": str(number)})

    def replace(self, kept: Path, number: int, target: Path) -> Command:
        line = EMPTY + self.restoring
        return self._line(line, kept, {"target": str(target), "number": str(number)})

    def _line(self, line: str, kept: Path, names: Mapping[str, str]) -> Command:
        env = {"kept": str(kept), **names, **self.env, **self.cache(kept)}
        return Command(["sh", "-euc", line], cwd=kept, env=env)


@dataclass(frozen=True)
class Ours:
    """Our library, started anew for each step as a command would be."""

    name: str = "lockstep"

    def prepare(self, kept: Path) -> Command | None:  # noqa: ARG002
        return None

    def capture(self, kept: Path, source: Path, number: int) -> Command:  # noqa: ARG002
        return self._run("capture", kept / "store", source)

    def restore(self, kept: Path, number: int, target: Path) -> Command:  # noqa: ARG002
        return self._run("restore", kept / "store", target)

    def replace(self, kept: Path, number: int, target: Path) -> Command:  # noqa: ARG002
        return self._run("restore", kept / "store", target, "--in-place")

    def fork(self, source: Path, target: Path) -> Command:
        return self._run("fork", source, target)

    def _run(self, *words: str | Path) -> Command:
        argv = [sys.executable, "-m", "bench.product", *(str(word) for word in words)]
        return Command(argv, cwd=ROOT)


def _restic_cache(kept: Path) -> Mapping[str, str]:
    return {"RESTIC_CACHE_DIR": str(kept / "cache")}


def _borg_cache(kept: Path) -> Mapping[str, str]:
    return {"BORG_BASE_DIR": str(kept / "cache")}


TAR = Peer(
    "tar czf",
    'tar czf "$kept/$number.tgz" -C "$source" .',
    'mkdir -p "$target"; tar xzf "$kept/$number.tgz" -C "$target"',
)
COPY = Peer(
    "cp -a",
    'cp -a "$source" "$kept/$number"',
    'mkdir -p "$target"; cp -a "$kept/$number/." "$target"',
)
RESTIC = Peer(
    "restic",
    'cd "$source"; restic -q -r "$kept/repo" backup .',
    'restic -q -r "$kept/repo" restore latest --target "$target"',
    preparing='restic -q init -r "$kept/repo"',
    env=PASSWORD,
    cache=_restic_cache,
)
BORG = Peer(
    "borg",
    'cd "$source"; borg create --compression lz4 "$kept/repo::$number" .',
    'mkdir -p "$target"; cd "$target"; borg extract "$kept/repo::$number"',
    preparing='borg init --encryption none "$kept/repo"',
    env=UNASKED,
    cache=_borg_cache,
)
TAR_SPARSE = Peer("tar czf", TAR.capturing.replace("tar czf", "tar cSzf"), TAR.restoring)
BORG_SPARSE = Peer(
    "borg",
    BORG.capturing.replace("create", "create --sparse --chunker-params fixed,4194304"),
    BORG.restoring.replace("extract", "extract --sparse"),
    preparing=BORG.preparing,
    env=UNASKED,
    cache=_borg_cache,
)
OURS = Ours()
PEERS = (TAR, COPY, RESTIC, BORG)
PEERS_SPARSE = (TAR_SPARSE, COPY, RESTIC, BORG_SPARSE)
