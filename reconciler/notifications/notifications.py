"""Who is told of what happened, after the fact: nothing here fails or delays what it tells of."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from reconciler import clock, masking
from reconciler.catalog import Catalog
from reconciler.config import Stack
from reconciler.errors import (
    Busy,
    CatalogDamaged,
    Damage,
    LockstepError,
    Reverted,
    WorldChanged,
)
from reconciler.host import process
from reconciler.notifications import notifylog, stories, wording
from reconciler.notifications.notifylog import Entry
from reconciler.notifications.notifysettings import Happening, Notify
from reconciler.notifications.wording import Story
from reconciler.plan import Plan
from reconciler.records.journal import JournalFile

LIMIT_SECONDS = 30.0
"""For each try to tell a receiver; all are told at the same time."""
WAITS = (5.0, 20.0, 60.0)
"""Seconds before each other try: after less than four minutes a message is given up."""
_STARTS_SECONDS = 30.0
_NOTIFIER = [sys.executable, "-m", "reconciler.notifications.notifier"]
_AGAIN = timedelta(hours=24)
"""After this long a disk that is still nearly full is told again."""
_disk_told: datetime | None = None
"""When this process told it: where the disk is full, the log may not have it."""


@contextmanager
def telling(stack: Stack, catalog: Catalog) -> Iterator[None]:
    """Tell in the end of every outcome that the ledger has since, or since the journal that was
    found: a switch that died could not tell its own."""
    since: int | None = None
    with suppress(LockstepError, OSError):
        since = _beginning(catalog) if stack.settings.notify else None
    try:
        yield
    finally:
        if since is not None:
            _tell_outcomes(stack, catalog, since)
            tell_of_disk(stack, catalog)


def tell_begun(stack: Stack, catalog: Catalog, plan: Plan, who: str) -> None:
    """Tell that a switch begins."""
    with _quietly():
        state = catalog.state()
        left = state.worlds.get(plan.from_world or "")
        before = left.release if left else ""
        since = clock.now()
        story = stories.begun(stack, plan, plan.target or "", before, who=who, since=since)
        tell(stack, catalog, (Happening.STARTED,), story)


def tell_failure(stack: Stack, release: str, error: Exception) -> None:
    """Tell of an error that ended an operation; that of a reverted switch was told as such."""
    if not stack.settings.notify or isinstance(error, Reverted | Busy | WorldChanged):
        return
    message = str(getattr(error, "message", None) or error)
    next_step = str(getattr(error, "next_step", ""))
    if isinstance(error, Damage | CatalogDamaged):
        tell_damage(stack, message, next_step)
        return
    with _quietly():
        catalog = Catalog(stack)
        story = stories.failed(stack, catalog.state(), release, message, next_step=next_step)
        tell(stack, catalog, (Happening.FAILED,), story)


def tell_damage(stack: Stack, what: str, next_step: str = "") -> None:
    """Tell that something kept is not what was written."""
    with _quietly():
        story = stories.damaged(stack, what, next_step=next_step)
        tell(stack, Catalog(stack), (Happening.DAMAGE,), story)


def tell_of_disk(stack: Stack, catalog: Catalog) -> None:
    """Tell of a file system with little room, once a day as long as it has."""
    global _disk_told
    with _quietly():
        places = (stack.store, catalog.root, stack.root)
        folder = next((f for f in places if f.exists()), stack.root)
        state = os.statvfs(folder)
        free = state.f_bavail * state.f_frsize
        now = datetime.now(UTC)
        if free >= stack.settings.diskLow or (_disk_told and now - _disk_told < _AGAIN):
            return
        _disk_told = now
        with _one_at_a_time(catalog):
            if not _disk_was_told(catalog, now - _AGAIN):
                story = stories.disk_low(stack, str(folder), free)
                tell(stack, catalog, (Happening.DISK_LOW,), story)


def _disk_was_told(catalog: Catalog, since: datetime) -> bool:
    told = [e for e in read_log(catalog) if e.event == Happening.DISK_LOW and not e.trial]
    return any(datetime.fromisoformat(entry.at) > since for entry in told)


@contextmanager
def _one_at_a_time(catalog: Catalog) -> Iterator[None]:
    """Between processes that look at the same time: a guard and an `up`."""
    descriptor = os.open(catalog.logs() / ".disk-low.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def tell(
    stack: Stack,
    catalog: Catalog,
    kinds: Sequence[Happening],
    story: Story,
    *,
    outcome: int = 0,
) -> None:
    """Hand the story to a process that tells whoever wants to know of one of `kinds`; does not
    wait for it. Raises OSError, BadInput (a template)."""
    receivers = [
        (number, receiver)
        for number, receiver in enumerate(stack.settings.notify, start=1)
        if set(receiver.events) & set(kinds)
    ]
    if not receivers:
        return
    for document in documents(stack, catalog, receivers, story, outcome=outcome):
        notifylog.write(Path(document["log"]), Entry.model_validate(document["entry"]))
        with _stdin(document) as given:
            subprocess.Popen(_NOTIFIER, stdin=given, **_apart())


def tell_and_wait(documents: Sequence[dict[str, Any]]) -> list[Entry]:
    """Tell every receiver at the same time; what became of each."""

    def one(document: dict[str, Any]) -> None:
        with _stdin(document) as given, suppress(subprocess.TimeoutExpired):
            waits = document["waits"]
            limit = document["limit"] * (1 + len(waits)) + sum(waits) + _STARTS_SECONDS
            subprocess.run(_NOTIFIER, stdin=given, timeout=limit, check=False, **_apart())

    if not documents:
        return []
    path = Path(documents[0]["log"])
    notifylog.write(path, *(Entry.model_validate(d["entry"]) for d in documents))
    with ThreadPoolExecutor(len(documents)) as pool:
        list(pool.map(one, documents))
    ids = {document["entry"]["id"] for document in documents}
    return [entry for entry in notifylog.read(path) if entry.id in ids]


def documents(
    stack: Stack,
    catalog: Catalog,
    receivers: Sequence[tuple[int, Notify]],
    story: Story,
    *,
    outcome: int = 0,
    trial: bool = False,
    limit: float = LIMIT_SECONDS,
    waits: Sequence[float] = WAITS,
) -> list[dict[str, Any]]:
    """What the sending process of each receiver is given; no text in it shows a secret. `trial`:
    it only tries whether it arrives."""
    secrets = masking.forms(stack.secret_values.values())
    shown = replace(
        story,
        **{
            name: masking.masked(masking.without(getattr(story, name), secrets))
            for name in wording.NAMES
        },
    )
    log, number = log_path(catalog), os.urandom(6).hex()
    return [
        {
            "entry": Entry(
                id=f"{number}-{n}",
                event=story.event,
                outcome=outcome,
                to=receiver.label(n),
                result="begun",
                trial=trial,
            ).model_dump(),
            "log": str(log),
            "limit": limit,
            "waits": list(waits),
            "url": receiver.url,
            "hidden": list(receiver.hidden),
            **_message(stack, receiver, shown),
        }
        for n, receiver in receivers
    ]


def _message(stack: Stack, receiver: Notify, story: Story) -> dict[str, str]:
    """Its texts below each other; the first one's subject is the message's."""
    texts = [
        wording.written(stack.root, stack.settings.texts, text, story) for text in receiver.texts
    ]
    (subject, first), *more = texts
    return {
        "subject": subject,
        "body": "\n\n".join([first, *(f"{title}\n\n{body}" for title, body in more)]),
    }


def log_path(catalog: Catalog) -> Path:
    """Where the log of notifications lies."""
    return catalog.logs() / notifylog.NAME


def read_log(catalog: Catalog) -> list[Entry]:
    """The log, newest last."""
    return notifylog.read(log_path(catalog))


@contextmanager
def _stdin(document: dict[str, Any]) -> Iterator[int]:
    """The document as a file in memory: neither an argument list nor a pipe that nobody reads."""
    descriptor = os.memfd_create("lockstep")
    try:
        os.write(descriptor, json.dumps(document).encode())
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield descriptor
    finally:
        os.close(descriptor)


def _apart() -> dict[str, Any]:
    """A process of its own, which finds this package and says nothing."""
    return {
        "stdout": subprocess.DEVNULL,
        "stderr": subprocess.DEVNULL,
        "env": process.environment_of_ours(),
        "start_new_session": True,
    }


def _beginning(catalog: Catalog) -> int:
    """The ledger's event after which nothing was told yet."""
    intent = JournalFile(catalog.journal).read()
    return intent.head if intent is not None else catalog.state().seq


def _tell_outcomes(stack: Stack, catalog: Catalog, since: int) -> None:
    with _quietly():
        state = catalog.state()
        new = [(seq, outcome) for seq, outcome in state.outcomes if seq > since]
        told = {e.outcome for e in read_log(catalog) if e.result != "begun"} if new else set()
        for seq, outcome in new:
            if seq in told:
                continue
            known = state.worlds.get(outcome.to_world)
            description = ""
            with suppress(LockstepError):
                description = catalog.record(known.release).description if known else ""
            story = stories.ended(stack, state, outcome, description=description)
            tell(stack, catalog, stories.happenings(outcome), story, outcome=seq)


@contextmanager
def _quietly() -> Iterator[None]:
    """Whatever goes wrong in telling does not keep anybody from anything, least of all a switch
    from its own end."""
    try:
        yield
    except Exception as error:
        print(masking.masked(f"nobody could be told: {error!r}"), file=sys.stderr, flush=True)
