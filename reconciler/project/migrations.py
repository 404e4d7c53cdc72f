"""The files of the folders in which a project keeps its migrations, written down with a release."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from reconciler.errors import BadInput

MOST_FILES, MOST_BYTES = 10_000, 64 << 20


def recorded(root: Path, folders: Sequence[str]) -> dict[str, str] | None:
    """Path below `root` -> sha256 of each file; None if the config names no folder.

    Raises BadInput for a folder that is none, lies outside, or holds more than anybody's.
    """
    if not folders:
        return None
    found: dict[str, str] = {}
    read = 0
    for name in folders:
        for path in _files(root, name):
            read += path.stat().st_size
            if len(found) >= MOST_FILES or read > MOST_BYTES:
                raise BadInput(
                    f"config migrations: {name} holds over {MOST_FILES} files or "
                    f"{MOST_BYTES >> 20} MiB: that is no folder of migrations",
                    next_step="lockstep config set --path 'migrations[0]' FOLDER   names another",
                )
            content = path.read_bytes()
            found[path.relative_to(root.resolve()).as_posix()] = hashlib.sha256(content).hexdigest()
    return found


def _files(root: Path, name: str) -> list[Path]:
    folder = (root / name).resolve()
    if not folder.is_relative_to(root.resolve()):
        raise BadInput(f"config migrations: {name} is outside of the project {root}")
    if not folder.is_dir():
        raise BadInput(
            f"config migrations: there is no folder {name} in {root}",
            next_step="lockstep config rm migrations   records none",
        )
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink() and not _hidden(path.relative_to(folder))
    )


def _hidden(path: Path) -> bool:
    """Caches and what editors leave are no migrations."""
    return any(part.startswith((".", "__pycache__")) for part in path.parts)
