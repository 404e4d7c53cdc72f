"""The catalog: releases/ on disk. Records, the ledger and the secrets' key are the one truth;
the manifest is an index for readers and is made anew from them."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets as entropy
import shutil
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from failpoints import failpoint
from reconciler import names
from reconciler.config import Stack
from reconciler.errors import CatalogDamaged, Refused
from reconciler.host import process
from reconciler.host.lasting import lasting
from reconciler.records.ledger import Ledger, State, fsync_directory
from reconciler.records.release import Release
from snapshots import private
from snapshots.private import make_folder

RECORD = "release-info.json"
TICK = 50_000_000
"""Nanoseconds in which a file can change twice and bear the same times."""


@dataclass
class _Record:
    """The file of a record, as it was read."""

    same: tuple[int, int, int, int]
    digest: str
    content: bytes
    release: Release | None = None

    def parsed(self) -> Release:
        """Raises ValidationError."""
        if self.release is None:
            self.release = Release.model_validate_json(self.content)
            self.content = b""
        return self.release


class Catalog:
    """The releases/ folder of one stack's project."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.root = stack.releases
        self.ledger = Ledger(self.root / f"ledger-{stack.name}.jsonl")
        self._seen: dict[str, _Record] = {}

    def insist_private(self) -> None:
        """Raises Refused when others of this host could read or exchange what is in it."""
        wrong = private.complaint(self.root) if self.root.exists() else None
        if wrong is not None:
            why, _, command = wrong.partition(": ")
            raise Refused(f"the catalog would not be private: {why}", next_step=command)

    def state(self) -> State:
        """The sum of the ledger. Raises CatalogDamaged."""
        return self.ledger.read()

    def another_stack_adopted(self) -> bool:
        """Whether the plain compose project is the first world of another stack of this folder."""
        others = [p for p in self.root.glob("ledger-*.jsonl") if p != self.ledger.path]
        return any(w.adopted for path in others for w in Ledger(path).read().worlds.values())

    @property
    def manifest(self) -> Path:
        """The index for readers."""
        return self.root / "manifest.json"

    @property
    def journal(self) -> Path:
        """Where the intents of a switch under way are written."""
        return self.root / f"journal-{self.stack.name}.json"

    def work(self, world: str) -> Path:
        """A folder for what is being made for a world; its content can always be made again."""
        path = self.root / "work" / world
        make_folder(path)
        return path

    def clear_work(self, world: str) -> None:
        """Remove a world's work folder."""
        shutil.rmtree(self.root / "work" / world, ignore_errors=True)

    def logs(self) -> Path:
        """The folder of the per-operation logs."""
        path = self.root / "logs"
        make_folder(path)
        return path

    def records(
        self, state: State | None = None, among: Collection[str] | None = None
    ) -> tuple[dict[str, Release], dict[str, str]]:
        """(release -> record, release -> why its record cannot be used), in order.

        With the ledger's state, a release that has a world and was not pruned, but whose record
        is gone, is among the latter. `among`: only these are read; None: all.
        """
        good: dict[str, Release] = {}
        damaged: dict[str, str] = {}
        recorded = self.recorded()
        wanted = recorded if among is None else [name for name in recorded if name in among]
        with lasting(len(wanted)):
            for name in wanted:
                try:
                    good[name] = self.record(name)
                except CatalogDamaged as error:
                    damaged[name] = error.message
        state = state or State()
        for name in {w.release for w in state.worlds.values()} - set(state.pruned):
            asked = among is None or name in among
            if asked and name not in good and name not in damaged:
                damaged[name] = f"the record of {name} is missing: {self.root / name / RECORD}"
        return good, damaged

    def names(self, state: State) -> list[str]:
        """Every release there ever was, in the order of their numbers."""
        lived = {world.release for world in state.worlds.values()}
        return sorted({*self.recorded(), *lived, *state.pruned}, key=names.release_number)

    def record(self, release: str) -> Release:
        """One record. Raises CatalogDamaged when it cannot be used or does not exist."""
        try:
            found = self._read(release).parsed()
        except OSError as error:
            raise CatalogDamaged(
                f"the record of {release} cannot be read: {self.path(release)}: {error.strerror}"
            ) from None
        except ValidationError as error:
            problem = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in problem["loc"])
            raise CatalogDamaged(
                f"the record of {release} is damaged: {self.path(release)}: {where} "
                f"{problem['msg']}".rstrip()
            ) from None
        if found.name != release:
            raise CatalogDamaged(
                f"{self.path(release)} is the record of {found.name}, not of {release}"
            )
        return found

    def write(self, release: Release, contents: Mapping[str, bytes]) -> None:
        """Make a record durable, its config contents (by sha256) first, the record last."""
        folder = self.root / release.name
        configs = folder / "configs"
        make_folder(configs)
        for digest, content in contents.items():
            write_durably(configs / digest, content)
        failpoint("catalog.record")
        write_durably(folder / RECORD, release.model_dump_json(indent=2).encode())
        fsync_directory(self.root)
        failpoint("catalog.recorded")
        self.write_manifest()

    def content(self, release: str, digest: str) -> bytes:
        """A config file's content. Raises CatalogDamaged when it is not what was recorded."""
        path = self.root / release / "configs" / digest
        try:
            content = path.read_bytes()
        except OSError as error:
            raise CatalogDamaged(f"{path} of {release} cannot be read: {error.strerror}") from None
        if hashlib.sha256(content).hexdigest() != digest:
            raise CatalogDamaged(f"{path} of {release} was altered: its hash does not fit its name")
        return content

    def remove(self, release: str) -> None:
        """Remove a release's record and configs, all at once: what a killed process left of them
        is a draft."""
        gone = self.root / f".{release}.{os.getpid()}.new"
        shutil.rmtree(gone, ignore_errors=True)
        with suppress(FileNotFoundError):
            (self.root / release).rename(gone)
            fsync_directory(self.root)
        failpoint("catalog.record-gone")
        shutil.rmtree(gone, ignore_errors=True)
        self.write_manifest()

    def next_number(self, state: State) -> int:
        """The number of the next release: never one that was used before."""
        used = [names.ADOPTED_NUMBER]
        used += [names.release_number(name) for name in self.names(state)]
        return max(used) + 1

    def fingerprint(self, values: Mapping[str, str]) -> str:
        """Keyed hash of secrets; "" when the key is missing although worlds were made with one."""
        key = self._key()
        if key is None:
            return ""
        text = json.dumps(dict(values), sort_keys=True)
        return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()

    def _key(self) -> bytes | None:
        path = self.root / f"key-{self.stack.name}"
        try:
            return path.read_bytes()
        except FileNotFoundError:
            if self.ledger.path.exists():
                return None
        make_folder(self.root)
        write_durably(path, entropy.token_bytes(32))
        return path.read_bytes()

    def clear_drafts(self) -> None:
        """Remove what killed processes had begun to write. Below files/ are names of the user's."""
        for pattern in (
            ".*.new",
            "*/.*.new",
            "incidents/*/.*.new",
            "ingress/*/*/config/.*.new",
            "*/configs/.*.new",
            "work/*/.*.new",
            "work/*/.*.tmp",
        ):
            self._clear_drafts(pattern)

    def _clear_drafts(self, pattern: str) -> None:
        for draft in self.root.glob(pattern):
            writer = _writer_of(draft)
            if not writer or process.is_alive(writer):
                continue
            if draft.is_dir():
                shutil.rmtree(draft, ignore_errors=True)
            else:
                draft.unlink(missing_ok=True)

    def write_manifest(self) -> None:
        """Make manifest.json from the records and the ledger."""
        make_folder(self.root)
        text = json.dumps(self._manifest(), indent=2) + "\n"
        write_durably(self.manifest, text.encode())

    def mend_manifest(self) -> str | None:
        """Make the manifest anew when it is damaged or missing; returns a warning, or None."""
        path = self.manifest
        try:
            if json.loads(path.read_text())["schema_version"] == 1:
                return None
        except FileNotFoundError:
            if not self.recorded():
                return None
        except (ValueError, KeyError, TypeError, OSError):
            pass
        self.write_manifest()
        return f"{path} was damaged or missing: made anew from the records and the ledger"

    def _manifest(self) -> dict[str, Any]:
        state = self.state()
        good, damaged = self.records()
        return {
            "schema_version": 1,
            "current_release": state.standing_release,
            "max_releases": self.stack.settings.window.last,
            "releases": [
                {
                    "version": r.name,
                    "created": r.created,
                    "git_commit": r.git.commit,
                    "git_branch": r.git.branch,
                    "description": r.description,
                    "docker_image": {s: i.tag for s, i in r.images.items()},
                    "status": status(r.name, state),
                    "volumes": sorted(r.datasets),
                    "configs": sorted(r.configs),
                }
                for r in good.values()
            ]
            + [{"version": name, "status": "damaged"} for name in damaged],
        }

    def newest_link(self) -> str:
        """What the next record has as `previous`: the hash of the newest one, "" for the first."""
        made = [name for name in self.recorded() if names.release_number(name)]
        return hashlib.sha256(self.path(made[-1]).read_bytes()).hexdigest() if made else ""

    def recorded(self) -> list[str]:
        """Every release with a record, in the order of their numbers."""
        return list(self.files())

    def files(self) -> dict[str, os.stat_result]:
        """Release -> what the file system says of its record, in the order of their numbers."""
        prefix, root = f"{self.stack.name}-", str(self.root)
        there: list[str] = []
        with suppress(OSError):
            there = os.listdir(root)
        releases = [name for name in there if name.startswith(prefix) and names.is_release(name)]
        found: dict[str, os.stat_result] = {}
        for name in sorted(releases, key=lambda name: int(name.removeprefix(prefix))):
            with suppress(OSError):
                found[name] = os.stat(f"{root}/{name}/{RECORD}")
        return found

    def path(self, release: str) -> Path:
        """The file of a release's record."""
        return self.root / release / RECORD

    def digest(self, release: str) -> str:
        """The hash of a release's record as it lies there, in hex; "" if it cannot be read."""
        with suppress(OSError):
            return self._read(release).digest
        return ""

    def _read(self, release: str) -> _Record:
        """A record's file, read again only if it is not the one that this process has read.
        Raises OSError."""
        path = f"{self.root}/{release}/{RECORD}"
        found = os.stat(path)
        same = found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
        known = self._seen.get(release)
        if known is None or known.same != same:
            with open(path, "rb", buffering=0) as file:
                content = file.read()
            known = _Record(same, hashlib.sha256(content).hexdigest(), content)
            if time.time_ns() - found.st_ctime_ns > TICK:
                self._seen[release] = known
        return known


def status(release: str, state: State) -> str:
    """live, removed (it was live until `lockstep remove`), previous, kept, failed or pruned: what
    `list` shows of a release."""
    if state.was_pruned(release):
        return "pruned"
    if state.live is not None and state.worlds[state.live].release == release:
        return "removed" if state.dissolved else "live"
    if state.previous is not None and state.worlds[state.previous].release == release:
        return "previous"
    if release in state.quarantined:
        return "failed"
    return "kept"


def _writer_of(draft: Path) -> int:
    """The process that writes a draft, by its name; 0 if it is none of ours."""
    number = draft.stem.rpartition(".")[2]
    return int(number) if number.isdigit() else 0


def write_durably(path: Path, content: bytes, *, owner: int | None = None) -> None:
    """Replace a file's content at once or not at all; 0600; file and directory fsynced.

    `owner`: whose the file is from then on, user and group; None: ours.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.new")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            if owner is not None:
                os.fchown(file.fileno(), owner, owner)
            file.write(content)
            file.flush()
            failpoint("catalog.fsync")
            os.fsync(file.fileno())
        failpoint("catalog.rename")
        beside.replace(path)
    except BaseException as error:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)
        raise
    failpoint("catalog.renamed")
    fsync_directory(path.parent)
