"""Incidents: one folder for each switch that went wrong or went back, below releases/incidents.

    incident.json    what happened, for programs (schema 1)
    README.txt       the same for a person
    remarks.jsonl    what people added, each with its time
    ...              what was gathered: see docs/incidents.md

Reading needs no lock. Nothing here touches containers.
"""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from reconciler import clock, masking
from reconciler.catalog import Catalog, write_durably
from reconciler.config import Incidents
from reconciler.errors import BadInput, LockstepError
from reconciler.evidence import incidenttext
from reconciler.records.ledger import Departure, State, fsync_directory
from snapshots import private

DOCUMENT, README, REMARKS = "incident.json", "README.txt", "remarks.jsonl"
SCHEMA = 1
_DAY = 86400.0

Document = dict[str, Any]


@dataclass(frozen=True)
class Incident:
    """One incident's folder."""

    folder: Path
    document: Document

    @property
    def id(self) -> str:
        return self.folder.name

    @cached_property
    def remarks(self) -> list[dict[str, str]]:
        """`{"at", "who", "text"}`, oldest first; a line that a crash tore is left out."""
        found = []
        with suppress(OSError):
            for line in (self.folder / REMARKS).read_text(encoding="utf-8").splitlines():
                with suppress(ValueError):
                    found.append(dict(json.loads(line)))
        return found

    @property
    def files(self) -> list[Path]:
        return sorted(path for path in self.folder.rglob("*") if path.is_file())

    @property
    def bytes(self) -> int:
        return sum(path.stat().st_size for path in self.files)


@dataclass(frozen=True)
class Retained:
    """An incident and why it is kept; no reason: it goes, and `why_not` says what it lacks."""

    incident: Incident
    reasons: tuple[str, ...]
    why_not: str = ""


def folder(catalog: Catalog) -> Path:
    """Where a catalog's incidents are; it need not be there yet."""
    return catalog.root / "incidents"


def new_id(catalog: Catalog, release: str) -> str:
    """`20261122T013015-prod-003`, in UTC; one that is free."""
    made = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{release}"
    number, name = 1, made
    while (folder(catalog) / name).exists() or (folder(catalog) / f".{name}").exists():
        number += 1
        name = f"{made}.{number}"
    return name


def every(catalog: Catalog) -> tuple[list[Incident], dict[str, str]]:
    """(those of this stack, newest first; id -> why it cannot be read)."""
    good: list[Incident] = []
    damaged: dict[str, str] = {}
    for path in sorted(folder(catalog).glob("[!.]*")):
        try:
            document = json.loads((path / DOCUMENT).read_text(encoding="utf-8"))
            if document["schema"] != SCHEMA:
                raise ValueError(f"schema {document['schema']} is not known")
            own = (document["project"], document["stack"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            damaged[path.name] = f"{path / DOCUMENT} cannot be read: {error}"
            continue
        if own == (catalog.stack.project, catalog.stack.name):
            good.append(Incident(path, document))
    return sorted(good, key=lambda i: (i.document["seq"], i.id), reverse=True), damaged


def find(catalog: Catalog, named: str | None) -> Incident:
    """The incident of this id, or the only one that begins or ends so; the newest if not named.
    Raises BadInput."""
    good, damaged = every(catalog)
    shows = "lockstep incident list   shows those there are"
    if named is None:
        if not good:
            raise BadInput("there is no incident: no switch was reverted or went back")
        return good[0]
    fits = [i for i in good if i.id == named] or [
        i for i in good if i.id.startswith(named) or i.id.endswith(f"-{named}")
    ]
    if len(fits) == 1:
        return fits[0]
    if named in damaged:
        raise LockstepError(damaged[named], next_step=shows)
    if fits:
        names = ", ".join(i.id for i in fits[:3])
        raise BadInput(f"{len(fits)} incidents are named like {named}: {names}", next_step=shows)
    raise BadInput(f"there is no incident {named}", next_step=shows)


def remark(incident: Incident, who: str, text: str) -> dict[str, str]:
    """Add a dated remark, which is durable then; returns it. Secrets of this process are masked."""
    added = {
        "at": clock.now(),
        "who": who,
        "text": masking.masked(text).strip(),
    }
    path = incident.folder / REMARKS
    # Two people may add at once, and a line that was torn ends before this one.
    line = _after_torn_line(path) + json.dumps(added).encode() + b"\n"
    private.append(path, line, durable=True)
    _write_readme(Incident(incident.folder, incident.document))
    return added


def _after_torn_line(path: Path) -> bytes:
    if not path.exists():
        return b""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        if not size:
            return b""
        file.seek(size - 1)
        return b"" if file.read(1) == b"\n" else b"\n"


def export(incident: Incident, target: Path) -> int:
    """Write the whole folder as one file, 0600: zip if its name says so, else tar.gz. Returns its
    size. Raises BadInput when it is there already."""
    if target.exists():
        raise BadInput(
            f"{target} is there already: nothing was written",
            next_step="--output FILE   names another",
        )
    draft = target.with_name(f".{target.name}.{os.getpid()}.new")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            if target.suffix == ".zip":
                import zipfile

                with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
                    for path in incident.files:
                        archive.write(path, _inside(incident, path))
            else:
                with tarfile.open(fileobj=file, mode="w:gz") as tar:
                    for path in incident.files:
                        tar.add(path, _inside(incident, path), filter=_nobodys)
        draft.replace(target)
    except OSError as error:
        raise LockstepError(f"{target} cannot be written: {error.strerror}") from None
    finally:
        draft.unlink(missing_ok=True)
    return target.stat().st_size


def _inside(incident: Incident, path: Path) -> str:
    return f"{incident.id}/{path.relative_to(incident.folder)}"


def _nobodys(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Whose machine it was made on is nobody's business there."""
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry


def retain(
    settings: Incidents, incidents: Iterable[Incident], state: State, now: float
) -> list[Retained]:
    """Each incident with its reasons to be kept, in the order given (newest first). Pure.

    Kept is a union: the newest `last`, those of the last `days`, and all whose failed world is
    still there for a look. `now`: seconds since 1970; ages are told by the newest incident before
    it, for a clock that jumps ahead would make everything old at once.
    """
    listed, found = list(incidents), []
    now = max((t for i in listed if (t := _at(i)) <= now), default=now)
    for number, incident in enumerate(listed):
        reasons = []
        if number < settings.last:
            reasons.append(f"one of the last {settings.last}")
        age = now - _at(incident)
        if settings.days and age <= settings.days * _DAY:
            reasons.append(f"of the last {settings.days} days")
        world = state.worlds.get(str(incident.document["subject"]["world"]))
        if world is not None and not world.removed and not world.adopted:
            reasons.append(f"its world {world.name} is still kept")
        why_not = f"{number} are newer, the newest by {age / _DAY:.0f} days" if not reasons else ""
        found.append(Retained(incident, tuple(reasons), why_not))
    return found


def _at(incident: Incident) -> float:
    return datetime.fromisoformat(incident.document["at"]).timestamp()


def prune(catalog: Catalog, settings: Incidents, state: State, now: float) -> list[Retained]:
    """Remove what nothing keeps; returns what was removed, each with why it was not kept."""
    good, _ = every(catalog)
    going = [r for r in retain(settings, good, state, now) if not r.reasons]
    for retained in going:
        # Renamed first: a folder that is half removed is nobody's incident.
        doomed = retained.incident.folder.with_name(f".{retained.incident.id}.gone")
        with suppress(OSError):
            retained.incident.folder.rename(doomed)
            shutil.rmtree(doomed, ignore_errors=True)
    return going


def refresh(catalog: Catalog, state: State) -> None:
    """Tell the incidents which snapshots came into the store since; never raises OSError."""
    good, _ = every(catalog)
    for incident in good:
        data = data_of(state, incident.document["seq"])
        if data is not None and data != incident.document["data"]:
            with suppress(OSError):
                write(incident.folder, {**incident.document, "data": data})


def data_of(state: State, seq: int) -> list[Document] | None:
    """What the world that failed, or was left, had written, and how to get it; None where the
    ledger knows of no such departure."""
    departure = state.departure_at(seq)
    if departure is None:
        return None
    names = sorted({*departure.generations, *departure.snapshots})
    return [_dataset(departure, name) for name in names]


def _dataset(departure: Departure, name: str) -> Document:
    snapshot = departure.snapshots.get(name)
    return {
        "dataset": name,
        "world": departure.world,
        "generation": departure.generations.get(name),
        "counts": dict(departure.probes.get(name, {})),
        "snapshot": snapshot,
        "command": (
            f"lockstep snapshot restore {snapshot} ./{departure.world}-{name}" if snapshot else None
        ),
    }


def write(place: Path, document: Document) -> None:
    """Make an incident's document and its text durable."""
    private.make_folder(place)
    write_durably(place / DOCUMENT, json.dumps(document, indent=2, ensure_ascii=False).encode())
    _write_readme(Incident(place, document))


def _write_readme(incident: Incident) -> None:
    text = incidenttext.readme(incident.document, incident.remarks)
    write_durably(incident.folder / README, text.encode())


def put(path: Path, content: bytes) -> None:
    """Write a file, 0600 from its first moment, in a folder that is 0700."""
    private.make_folder(path.parent)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)


def draft(catalog: Catalog, incident: str) -> Path:
    """Where what is gathered for an incident lies until it is one."""
    return folder(catalog) / f".{incident}"


def clear_drafts(catalog: Catalog, but: str) -> None:
    """Remove what switches that ended well, or died, had begun to gather; needs the host lock."""
    for path in folder(catalog).glob(".*"):
        if path.name != f".{but}":
            shutil.rmtree(path, ignore_errors=True)


def promote(catalog: Catalog, incident: str) -> Path:
    """What was gathered becomes the incident; durable. Raises OSError."""
    place = folder(catalog) / incident
    draft(catalog, incident).rename(place)
    fsync_directory(place.parent)
    return place
