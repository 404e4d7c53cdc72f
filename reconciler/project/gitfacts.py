"""Where the source stands, by git."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from reconciler.records.release import Git

_TIMEOUT = 30


def read(folder: Path, ignore: Callable[[Path], bool]) -> tuple[Git | None, list[str]]:
    """(facts, changed paths below `folder` that `ignore` does not excuse); (None, []) when the
    folder is in no git work tree, or there is no git."""
    top = _git(folder, ["rev-parse", "--show-toplevel"])
    if top is None:
        return None, []
    root = Path(top.strip())
    commit = (_git(folder, ["rev-parse", "--verify", "--quiet", "HEAD"]) or "").strip()
    branch = (_git(folder, ["symbolic-ref", "--short", "--quiet", "HEAD"]) or "").strip()
    changed = [path for path in _changed(folder, root) if not ignore(path)]
    shown = [str(path.relative_to(root)) for path in changed]
    return Git(commit=commit, branch=branch, dirty=bool(changed)), shown


def _changed(folder: Path, root: Path) -> list[Path]:
    said = _git(folder, ["status", "--porcelain", "-z", "--untracked-files=all", "--", "."]) or ""
    found = []
    entries = iter(said.split("\0"))
    for entry in entries:
        if entry:
            found.append(root / entry[3:])
            if entry[0] in "RC":
                next(entries, None)
    return found


def _git(folder: Path, args: Sequence[str]) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *args],
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",
            timeout=_TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
