"""Pulumi's file backend: where state, history, backups and locks of a stack are on disk."""

from __future__ import annotations

import base64
import contextlib
import getpass
import hashlib
import json
import os
import socket
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from failpoints import failpoint

from .errors import EngineError, NotInEngine, StackLocked
from .snapshot import PROVIDER_PREFIX

if TYPE_CHECKING:
    from .project import Project

ORGANIZATION = "organization"
# What the official CLI's library notes beside each file.
ATTRIBUTES = {
    "user.cache_control": "",
    "user.content_disposition": "",
    "user.content_encoding": "",
    "user.content_language": "",
    "user.content_type": "text/plain; charset=utf-8",
    "user.metadata": None,
}
KILLED = (
    "nobody holds it any more: that process was killed; `lockstep cancel` or `pulumi cancel` "
    "removes what it left"
)


class Backend:
    """The files of one stack below `<root>/.pulumi`. Files are 0600, folders 0700."""

    def __init__(self, project: Project, stack: str) -> None:
        self.url = project.backend_url()
        self.root = Path(self.url.removeprefix("file://")) / ".pulumi"
        self.project, self.stack = project.name, stack
        self.state_file = self.root / "stacks" / project.name / f"{stack}.json"
        self.history_dir = self.root / "history" / project.name / stack
        self.backup_dir = self.root / "backups" / project.name / stack
        self.lock_dir = self.root / "locks" / ORGANIZATION / project.name / stack
        old_layout = any((self.root / "stacks").glob("*.json"))
        if old_layout and not (self.root / "meta.yaml").exists():
            raise NotInEngine("the old state layout without projects", str(self.root))

    @staticmethod
    def stacks_of(project: Project) -> list[str]:
        """Names of the project's stacks that have a state."""
        root = Path(project.backend_url().removeprefix("file://")) / ".pulumi"
        return [p.stem for p in (root / "stacks" / project.name).glob("*.json")]

    def exists(self) -> bool:
        """Whether the stack has a state."""
        return self.state_file.is_file()

    def load(self) -> dict[str, Any] | None:
        """The deployment in the checkpoint, None for a stack without resources so far.

        Raises EngineError if the file cannot be read or is of a version not known here.
        """
        try:
            found = json.loads(self.state_file.read_bytes())
            version, latest = found["version"], found["checkpoint"].get("latest")
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise EngineError(
                f"{self.state_file} cannot be read ({error}); "
                f"the version before it is {self.state_file.name}.bak, older ones are in "
                f"{self.backup_dir}"
            ) from None
        if version not in (3, 4):
            raise NotInEngine(f"version {version} of the state", str(self.state_file))
        return latest if isinstance(latest, dict) else None

    def packages(self) -> list[str]:
        """Names of the provider packages that the state's resources need."""
        entries = (self.load() or {}).get("resources") or []
        types = {str(entry.get("type", "")) for entry in entries}
        named = {t.removeprefix(PROVIDER_PREFIX) for t in types if t.startswith(PROVIDER_PREFIX)}
        return sorted(named - {"pulumi-python"})

    def save(self, deployment: dict[str, Any] | None, durable: bool = False) -> None:
        """Replace the state in one step; the one before stays as .bak.

        `durable` waits until the disk has it: done once at the end of an operation. Raises
        EngineError when it cannot be written.
        """
        try:
            self._save(deployment, durable)
        except OSError as error:
            raise EngineError(
                f"the state {self.state_file} cannot be written: {error.strerror}; "
                "mend that, then run this again: it goes on from what the state has"
            ) from error

    def _save(self, deployment: dict[str, Any] | None, durable: bool) -> None:
        if not (self.root / "meta.yaml").exists():
            self._write(self.root / "meta.yaml", b"version: 1\n")
        if self.state_file.exists():
            previous = Path(f"{self.state_file}.bak")
            previous.unlink(missing_ok=True)
            os.link(self.state_file, previous)
        failpoint("engine.state")
        body: dict[str, Any] = {"stack": f"{ORGANIZATION}/{self.project}/{self.stack}"}
        if deployment is not None:
            body["latest"] = deployment
        self._write(self.state_file, _json({"version": 3, "checkpoint": body}), durable)

    def backup(self) -> None:
        """Keep a copy of the state as it is now."""
        if self.state_file.exists():
            name = f"{self.stack}.{time.time_ns()}.json"
            self._write(self.backup_dir / name, self.state_file.read_bytes())

    def record(self, entry: dict[str, Any]) -> None:
        """Add an entry to the history, with the state that the operation left, and a backup."""
        failpoint("engine.history")
        stem = f"{self.stack}-{time.time_ns()}"
        self._write(self.history_dir / f"{stem}.history.json", _json(entry))
        self._write(self.history_dir / f"{stem}.checkpoint.json", self.state_file.read_bytes())
        self.backup()

    def history(self) -> list[dict[str, Any]]:
        """The raw entries, newest first."""
        files = sorted(self.history_dir.glob("*.history.json"), reverse=True)
        return [json.loads(path.read_bytes()) for path in files]

    def unlock_all(self) -> None:
        """Remove every lock, whoever holds it. A process that still runs goes on."""
        for path in self.lock_dir.glob("*.json"):
            remove(path)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the stack. Raises StackLocked if somebody else does.

        Every process writes its own file and then looks for others: of two that start at the same
        moment both may step back, but never both go on.
        """
        mine = self.lock_dir / f"{uuid.uuid4()}.json"
        self._refuse_if_locked(mine)
        holder = {
            "pid": os.getpid(),
            "username": _user(),
            "hostname": socket.gethostname(),
            "timestamp": datetime.now(UTC).isoformat(),
        }
        self._write(mine, json.dumps(holder).encode())
        try:
            failpoint("engine.locked")
            self._refuse_if_locked(mine)
            self._clear_drafts()
            yield
        finally:
            self.release(mine)

    def release(self, lock: Path | None = None) -> None:
        """Remove one lock, or all that this process holds."""
        for path in [lock] if lock else self.lock_dir.glob("*.json"):
            with contextlib.suppress(OSError, ValueError):
                if lock or json.loads(path.read_bytes()).get("pid") == os.getpid():
                    remove(path)

    def left_locks(self) -> list[str]:
        """Locks that killed processes of this host left: who made each, and when."""
        found = ((path, _holder(path)) for path in sorted(self.lock_dir.glob("*.json")))
        return [f"{path}: {_created(who)}" for path, who in found if _is_gone(who)]

    def _refuse_if_locked(self, mine: Path) -> None:
        others = {p: _holder(p) for p in sorted(self.lock_dir.glob("*.json")) if p != mine}
        if not others:
            return
        lines = [
            f"the stack is currently locked by {len(others)} lock(s). Either wait for the other "
            "process(es) to end or delete the lock with `lockstep cancel` or `pulumi cancel`."
        ]
        lines += [f"  {path}: {_created(who)}" for path, who in others.items()]
        if all(_is_gone(who) for who in others.values()):
            lines.append(f"  {KILLED}")
        raise StackLocked("\n".join(lines))

    def _clear_drafts(self) -> None:
        """Remove what killed processes of this host had begun to write."""
        folders = (self.root, self.state_file.parent, self.history_dir, self.backup_dir)
        for folder in (*folders, self.lock_dir):
            for draft in folder.glob(".*.tmp"):
                if _is_gone(_writer_of(draft)):
                    draft.unlink(missing_ok=True)

    def _write(self, path: Path, content: bytes, durable: bool = False) -> None:
        _folder(path.parent)
        _replace(path, content, durable)
        digest = base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()
        _replace(Path(f"{path}.attrs"), _json({**ATTRIBUTES, "md5": digest}) + b"\n")


def _holder(lock: Path) -> dict[str, Any]:
    """What a lock says of who made it; {} when it does not say it."""
    try:
        found = json.loads(lock.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _created(who: dict[str, Any]) -> str:
    if not {"username", "hostname", "pid", "timestamp"} <= who.keys():
        return "of an unknown holder"
    pid = f"pid {who['pid']}, which is gone" if _is_gone(who) else f"pid {who['pid']}"
    return f"created by {who['username']}@{who['hostname']} ({pid}) at {who['timestamp']}"


def _is_gone(who: dict[str, Any]) -> bool:
    """Whether the process was one of this host, and is no more."""
    pid = who.get("pid")
    if not isinstance(pid, int) or pid <= 0 or who.get("hostname") != socket.gethostname():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        pass
    return False


def remove(path: Path) -> None:
    """Remove a file of the backend with what is noted beside it."""
    path.unlink(missing_ok=True)
    Path(f"{path}.attrs").unlink(missing_ok=True)


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def _folder(path: Path) -> None:
    if not path.is_dir():
        _folder(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)


def _writer_of(draft: Path) -> dict[str, Any]:
    """Who writes a draft, by its name; {} if it is none of ours."""
    host, pid, end = [*draft.name.rsplit("@", 2), "", ""][:3]
    who = {"hostname": host.removeprefix("."), "pid": int(pid) if pid.isdigit() else 0}
    return who if end.endswith(".tmp") else {}


def _replace(path: Path, content: bytes, durable: bool = False) -> None:
    unique = f"{os.getpid()}@{uuid.uuid4().hex[:8]}"
    draft = path.with_name(f".{socket.gethostname()}@{unique}.tmp")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        failpoint("engine.write")
        if durable:
            file.flush()
            os.fsync(file.fileno())
    failpoint("engine.rename")
    os.replace(draft, path)
    failpoint("engine.renamed")
    if durable:
        folder = os.open(path.parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
