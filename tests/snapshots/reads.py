"""Which files a capture reads, and which it takes over from an earlier snapshot."""

from __future__ import annotations

from typing import Any

import pytest

from snapshots import reading

Read = list[bytes]


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Read:
    """Paths of the files of which something is read in full, in order."""
    paths: Read = []
    original = reading.FileReader._read

    def noted(self: reading.FileReader, fd: int, path: bytes, *rest: Any) -> Any:
        paths.append(path)
        return original(self, fd, path, *rest)

    monkeypatch.setattr(reading.FileReader, "_read", noted)
    return paths
