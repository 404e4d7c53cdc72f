"""Whether two worlds fit into this host's memory side by side."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

from reconciler.docker import Docker
from reconciler.errors import LockstepError
from reconciler.world.hostworld import HostWorld

_SPARE_BYTES = 256 << 20
_GROUPS = Path("/sys/fs/cgroup")


def suffices_for(docker: Docker, world: HostWorld) -> bool:
    """Whether as much as the running world uses now is free besides, with a quarter to spare.

    False when it cannot be found out.
    """
    in_use = 0
    for service in world.services.values():
        for container in service.containers:
            with suppress(LockstepError):
                pid = docker.inspect(container.id).pid
                if pid:
                    of_container = used(pid)
                    if of_container is None:
                        return False
                    in_use += of_container
    free = _free()
    return free is not None and free > in_use * 5 // 4 + _SPARE_BYTES


def _free() -> int | None:
    with suppress(OSError):
        found = re.search(r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.M)
        return int(found[1]) << 10 if found else None
    return None


def used(pid: int) -> int | None:
    """Bytes that the container of a process cannot give back (without its page cache)."""
    with suppress(OSError, ValueError):
        for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers == "memory":
                return _stat(_GROUPS / "memory" / path.lstrip("/"), "total_rss")
            if controllers == "" and (_GROUPS / "cgroup.controllers").exists():
                return _stat(_GROUPS / path.lstrip("/"), "anon")
    return None


def _stat(group: Path, key: str) -> int | None:
    found = re.search(rf"^{key} (\d+)$", (group / "memory.stat").read_text(), re.M)
    return int(found[1]) if found else None
