"""What `list` shows of each release, and an index of it.

To tell it, the whole ledger is added up and the records are read; the index keeps what came of
that, of as many of the newest releases as were asked for. It holds for one content of the ledger
and one state of every record's file, and is made anew for any other. Only `list` reads it:
whatever decides or acts reads ledger and records themselves.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from blake3 import blake3

from reconciler.catalog import TICK, Catalog, write_durably

_FORM = 2
"""Another number for every change of what an index says."""


@dataclass(frozen=True)
class Entry:
    """One release."""

    document: Mapping[str, Any]
    """As `list --json` has it, but for what Docker says."""
    data: str | None
    """How its data would come back."""
    images: Mapping[str, str]
    """Tag -> id."""


@dataclass(frozen=True)
class Listing:
    """The newest releases, oldest first."""

    live: str | None
    stopped: bool
    dissolved: str | None
    """The release that was live until `lockstep remove`."""
    count: int
    """Of all releases there ever were."""
    entries: tuple[Entry, ...]


def indexed(catalog: Catalog, newest: int | None) -> Listing | None:
    """As the index has it; None where there is none that tells of so many releases as they are
    now. `newest`: how many are asked for; None: all."""
    try:
        head, _, rest = _path(catalog).read_bytes().partition(b"\n")
        about = json.loads(head)
        if about["content"] != blake3(rest).hexdigest() or about["of"] != _of(catalog):
            return None
        lines, count = rest.splitlines(), int(about["count"])
        wanted = count if newest is None else min(newest, count)
        if len(lines) < wanted:
            return None
        entries = tuple(Entry(**json.loads(line)) for line in lines[len(lines) - wanted :])
        return Listing(about["live"], about["stopped"], about["dissolved"], count, entries)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def made(catalog: Catalog, newest: int | None) -> Listing:
    """From ledger and records; leaves the index of it. Raises CatalogDamaged."""
    from cli import documents
    from reconciler.world import imagehold

    of = _of(catalog)
    state = catalog.state()
    every = catalog.names(state)
    wanted = set(every if newest is None else every[-newest:])
    good, damaged = catalog.records(state, wanted)
    entries = tuple(
        Entry(
            document,
            documents.data_at_hand(state, name),
            imagehold.of(good[name]) if name in good else {},
        )
        for document in documents.releases(state, good, damaged)["releases"]
        if (name := document["release"]) in wanted
    )
    dissolved = state.live_release if state.dissolved else None
    found = Listing(state.standing_release, state.stopped, dissolved, len(every), entries)
    if of is not None and of == _of(catalog):
        with suppress(OSError):  # whoever cannot write it, can read all the same
            _write(_path(catalog), of, found)
    return found


def _path(catalog: Catalog) -> Path:
    return catalog.root / f"index-{catalog.stack.name}.jsonl"


def _write(path: Path, of: str, found: Listing) -> None:
    rest = "".join(json.dumps(asdict(entry)) + "\n" for entry in found.entries).encode()
    about = {
        "of": of,
        "live": found.live,
        "stopped": found.stopped,
        "dissolved": found.dissolved,
        "count": found.count,
        "content": blake3(rest).hexdigest(),
    }
    write_durably(path, json.dumps(about).encode() + b"\n" + rest)


def _of(catalog: Catalog) -> str | None:
    """What an index would be of: where the catalog lies, the ledger's content, and which files the
    records and the manifest are. None where one of them is missing, or was changed just now: it
    could change again and bear the same times."""
    try:
        files = {**catalog.files(), "": catalog.manifest.stat()}
        ledger = blake3(catalog.ledger.path.read_bytes()).hexdigest()
    except OSError:
        return None
    if time.time_ns() - max(found.st_ctime_ns for found in files.values()) < TICK:
        return None
    same = [
        (name, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        for name, found in files.items()
    ]
    return blake3(repr((_FORM, str(catalog.ledger.path), ledger, same)).encode()).hexdigest()
