"""Failures at named places (`failpoints`), wanted by a test for the processes that it starts."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from failpoints import VARIABLE


class Failing:
    """A folder of wanted failures; `wanted`: lines as in `failpoints`, "switch.seal kill"."""

    def __init__(self, folder: Path, *wanted: str) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "wanted").write_text("".join(line + "\n" for line in wanted))
        (folder / "hits").touch()

    @property
    def env(self) -> dict[str, str]:
        """To be added to the environment of what is started."""
        return {VARIABLE: str(self.folder)}

    @property
    def hits(self) -> Counter[str]:
        """Failpoint -> how often it was passed."""
        return Counter(line.split()[0] for line in (self.folder / "hits").read_text().splitlines())

    @property
    def last(self) -> str | None:
        """The failpoint that was passed last."""
        lines = (self.folder / "hits").read_text().splitlines()
        return lines[-1].split()[0] if lines else None

    @property
    def happened(self) -> bool:
        """Whether any of what was wanted was done."""
        return any(self.folder.glob("done-*"))


@contextmanager
def failing(*wanted: str) -> Iterator[Failing]:
    """For what this process starts within it, and whatever that starts in turn."""
    with tempfile.TemporaryDirectory() as folder:
        points = Failing(Path(folder), *wanted)
        os.environ.update(points.env)
        try:
            yield points
        finally:
            del os.environ[VARIABLE]
