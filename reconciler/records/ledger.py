"""The ledger: what happened on this host, as an append-only chain of events, and their sum.

One line of JSON an event. The commit of a switch is one appended, fsynced line: before it the
old world is live, after it the new one. Order comes from `seq`, never from a clock.

An event is written in the form that its hash is of, so a reader hashes the bytes as they stand;
lines that older versions wrote are brought into that form first.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from failpoints import failpoint
from reconciler.errors import CatalogDamaged
from reconciler.gates.results import GateResult
from reconciler.host.lasting import lasting
from reconciler.records.hookrecord import HookRun
from reconciler.records.release import Frozen
from snapshots.private import make_folder

if TYPE_CHECKING:
    from reconciler.records.ledgersum import Sum

GENESIS = "0" * 64
_BEFORE_CHAIN = b'{"seq":%d,"chain":"'
_COMPACT = json.JSONEncoder(sort_keys=True, separators=(",", ":"))
_PUT_BACK = "put back a copy of the file; nothing is changed until it can be trusted"


class Event(Frozen):
    """One line of the ledger."""

    at: str = Field(description="UTC, ISO 8601: for people; order comes from seq")
    who: str = ""


class Adopted(Event):
    """A compose project that ran before Lockstep came is the first world, and live."""

    kind: Literal["adopted"] = "adopted"
    world: str
    release: str
    generations: dict[str, str] = Field(description="dataset -> volume")


class GenerationMade(Event):
    """A volume is complete as far as its action can bring it before the switch."""

    kind: Literal["generation"] = "generation"
    name: str
    dataset: str
    number: int
    parent: str | None
    action: str
    snapshot: str | None = None
    world: str


class WorldMade(Event):
    """A world's containers exist, stopped, with these generations."""

    kind: Literal["world"] = "world"
    world: str
    release: str
    generations: dict[str, str] = Field(
        description="dataset -> generation (volume name); none for in-place and shared datasets"
    )
    fingerprint: str = Field(description="keyed hash of the secrets the containers were given")
    images: dict[str, str] = Field({}, description="service -> image id")


class Outcome(Event):
    """How a switch ended: what `log` shows."""

    move: str
    from_world: str | None
    to_world: str
    started: str = ""
    reason: str = ""
    downtime_seconds: float | None = None
    datasets: dict[str, str] = Field({}, description="dataset -> action")
    sealed: dict[str, str] = Field({}, description="dataset -> generation sealed by this switch")
    probes: dict[str, dict[str, int]] = Field(
        {}, description="dataset -> the left world's data probe just before it stopped"
    )
    snapshots: dict[str, str] = Field(
        {},
        description="dataset -> snapshot taken within the switch: in place and shared ones",
    )
    steps: dict[str, float] = Field({}, description="step -> seconds")
    gates: tuple[GateResult, ...] = Field((), description="what became of each gate asked")
    ingress: dict[str, dict[str, float]] = Field(
        {}, description="port -> HAProxy's own figures of the world that was left, and of the wait"
    )
    planned: str = Field("", description="when the facts were read that the plan was made from")
    expected_seconds: float | None = Field(None, description="the downtime that the plan foresaw")
    set_aside: dict[str, dict[str, int]] = Field(
        {}, description="dataset -> what the left data had more, as the plan counted it"
    )
    hooks: tuple[HookRun, ...] = Field((), description="the user's hooks that ran before it")
    incident: str = Field("", description="its folder below releases/incidents, if it has one")
    operator_reason: str = Field("", description="why, by who asked for it; never a secret")
    logs: tuple[str, ...] = Field(
        (), description="its progress files below releases/logs: several after a crash"
    )


class Committed(Outcome):
    """The new world is proved and live."""

    kind: Literal["committed"] = "committed"
    wish: str | None = Field(None, description="key of the one-shot wish that this fulfilled")


class Reverted(Outcome):
    """The new world was not proved (or the switch could not be finished); the old one is live."""

    kind: Literal["reverted"] = "reverted"
    touched: bool = Field(description="containers of the new world ran, so its data changed")
    quarantine: bool = Field(description="the release itself failed, not the circumstances")
    written: dict[str, dict[str, int]] = Field(
        {}, description="dataset -> the failed world's data probe before it was stopped"
    )


class Recovered(Outcome):
    """A live world that was found stopped or broken was brought back (move repair)."""

    kind: Literal["recovered"] = "recovered"


class Stopped(Event):
    """The stack was stopped by hand (`lockstep stop`) and is meant to stand still."""

    kind: Literal["stopped"] = "stopped"
    reason: str = ""


class Found(Event):
    """What a crash had left unfinished, and what was done about it; where a switch was reverted,
    its outcome says so instead."""

    kind: Literal["found"] = "found"
    world: str = Field(description="the world that the interrupted switch was to make live")
    found: str
    done: str


class Hooked(Event):
    """User's hooks that ran after the outcome of their switch, or when a release was pruned."""

    kind: Literal["hooked"] = "hooked"
    world: str
    hooks: tuple[HookRun, ...]


class Captured(Event):
    """The content of a sealed generation is in the store and was read back."""

    kind: Literal["captured"] = "captured"
    generation: str
    sealing: int = Field(description="seq of the outcome that sealed it")
    snapshot: str
    bytes: int
    store_bytes: int | None = Field(None, description="what the store took on disk then")


class WorldRemoved(Event):
    """A world's containers and networks are gone."""

    kind: Literal["world-removed"] = "world-removed"
    world: str


class GenerationRemoved(Event):
    """A generation's volume is gone."""

    kind: Literal["generation-removed"] = "generation-removed"
    generation: str


class Imported(Event):
    """A release came from another stack or host, with snapshots that are in the store now."""

    kind: Literal["imported"] = "imported"
    release: str
    origin: str = Field(description="what it was there: shop/prod prod-003")
    departure: dict[str, str] = Field({}, description="dataset -> snapshot that it left there")
    arrival: dict[str, str] = Field({}, description="dataset -> snapshot it started from there")
    probes: dict[str, dict[str, int]] = Field({}, description="dataset -> counts when it was left")


class Pruned(Event):
    """A release left the window: its record and the snapshots only it needed are gone."""

    kind: Literal["pruned"] = "pruned"
    release: str


AnyEvent = Annotated[
    Adopted
    | GenerationMade
    | WorldMade
    | Committed
    | Reverted
    | Recovered
    | Stopped
    | Found
    | Hooked
    | Captured
    | WorldRemoved
    | GenerationRemoved
    | Imported
    | Pruned,
    Field(discriminator="kind"),
]
_EVENT: TypeAdapter[AnyEvent] = TypeAdapter(AnyEvent)


@dataclass(frozen=True)
class Generation:
    """One line of a dataset's content, as the ledger knows it."""

    name: str
    dataset: str
    number: int
    parent: str | None
    action: str
    world: str
    snapshot: str | None = None
    """restore: the snapshot it was filled from."""
    sealed: int | None = None
    """seq of the outcome that sealed it; None while a world may write it."""
    captured: str | None = None
    """The snapshot of its content as last sealed."""
    spoiled: bool = False
    """A world that was not proved wrote into it after it was sealed."""
    removed: bool = False


@dataclass(frozen=True)
class World:
    """One running place of a release, as the ledger knows it."""

    name: str
    release: str
    generations: Mapping[str, str]
    fingerprint: str
    images: Mapping[str, str] = field(default_factory=dict)
    """service -> image id: what is known of a release even when its record is damaged."""
    adopted: bool = False
    proved: bool = False
    failed: str | None = None
    """Why it failed its proof."""
    touched: bool = False
    """Its containers ran at least once."""
    removed: bool = False


@dataclass(frozen=True)
class Departure:
    """What a release left, one each time that it was left; an imported one left it elsewhere, in
    no world of this stack."""

    seq: int
    release: str
    world: str
    generations: Mapping[str, str]
    snapshots: Mapping[str, str]
    """dataset -> snapshot; what is missing here is a debt."""
    probes: Mapping[str, Mapping[str, int]]
    at: str
    failed: bool = False
    """Left because it was not proved: kept for a look, never data to go back to."""


@dataclass(frozen=True)
class State:
    """The sum of all events."""

    seq: int = 0
    head: int = 0
    """seq of the last event that changed what is live (or was meant to)."""
    chain: str = GENESIS
    live: str | None = None
    previous: str | None = None
    """The world before the last committed switch: where undo goes."""
    stopped: bool = False
    worlds: Mapping[str, World] = field(default_factory=dict)
    generations: Mapping[str, Generation] = field(default_factory=dict)
    departures: tuple[Departure, ...] = ()
    outcomes: tuple[tuple[int, Committed | Reverted | Recovered], ...] = ()
    found: tuple[tuple[int, Found], ...] = ()
    """What crashes left unfinished, by seq."""
    quarantined: Mapping[str, str] = field(default_factory=dict)
    """release -> the failed world whose failure nobody answered yet."""
    hooked: tuple[tuple[int, Hooked], ...] = ()
    wishes: frozenset[str] = frozenset()
    pruned: tuple[str, ...] = ()
    brought: Mapping[str, Departure] = field(default_factory=dict)
    """imported release -> what it started from where it was before."""

    @property
    def live_release(self) -> str | None:
        """The release of the live world."""
        return self.worlds[self.live].release if self.live else None

    @property
    def dissolved(self) -> bool:
        """Whether `lockstep remove` took away what is live: its world, and with it its volumes."""
        return self.live is not None and self.worlds[self.live].removed

    @property
    def standing(self) -> str | None:
        """The live world, unless it was dissolved."""
        return None if self.dissolved else self.live

    @property
    def standing_release(self) -> str | None:
        """The release of the live world, unless that was dissolved."""
        return None if self.dissolved else self.live_release

    def was_live(self, release: str) -> bool:
        """Whether a world of this release was ever proved and live."""
        return any(world.proved for world in self.worlds_of(release))

    def was_pruned(self, release: str) -> bool:
        """Whether it left the window and its record went."""
        return release in self._pruned

    def worlds_of(self, release: str) -> list[World]:
        """Every world ever made of a release, in order."""
        return list(self._worlds_by_release.get(release, ()))

    def departure_at(self, seq: int | None) -> Departure | None:
        """What the outcome `seq` sealed, or the import `seq` brought; None if it did neither."""
        return self._departures_by_seq.get(seq)

    def departure_with(self, dataset: str, snapshot: str) -> Departure | None:
        """The first departure whose content of a dataset this snapshot is."""
        return self._departures_by_snapshot.get((dataset, snapshot))

    def first_outcome_to(self, world: str) -> int | None:
        """seq of the first switch to a world, however it ended."""
        return self._first_outcomes.get(world)

    def departures_of(self, release: str) -> list[Departure]:
        """Every time the release was left after it had been live, in order."""
        return [d for d in self._departures_by_release.get(release, ()) if not d.failed]

    @cached_property
    def _pruned(self) -> frozenset[str]:
        return frozenset(self.pruned)

    @cached_property
    def _worlds_by_release(self) -> Mapping[str, list[World]]:
        found: dict[str, list[World]] = {}
        for world in self.worlds.values():
            found.setdefault(world.release, []).append(world)
        return found

    @cached_property
    def _departures_by_release(self) -> Mapping[str, list[Departure]]:
        found: dict[str, list[Departure]] = {}
        for departure in self.departures:
            found.setdefault(departure.release, []).append(departure)
        return found

    @cached_property
    def _departures_by_seq(self) -> Mapping[int | None, Departure]:
        return {d.seq: d for d in self.departures}

    @cached_property
    def _departures_by_snapshot(self) -> Mapping[tuple[str, str], Departure]:
        return {(k, s): d for d in reversed(self.departures) for k, s in d.snapshots.items()}

    @cached_property
    def _first_outcomes(self) -> Mapping[str, int]:
        return {outcome.to_world: seq for seq, outcome in reversed(self.outcomes)}

    def debts(self) -> list[tuple[Departure, str]]:
        """(departure, dataset) whose sealed content is not in the store yet, in order."""
        return [
            (d, dataset)
            for d in self.departures
            for dataset, generation in d.generations.items()
            if dataset not in d.snapshots and self._still_as_sealed(generation, d.seq)
        ]

    def _still_as_sealed(self, generation: str, seq: int) -> bool:
        known = self.generations.get(generation)
        return known is not None and not known.removed and known.sealed == seq


def add(state: State, seq: int, event: AnyEvent) -> State:
    """The sum after one more event; pure. Events come in the order of `seq`."""
    from reconciler.records.ledgersum import Sum

    after = Sum(state)
    after.add(seq, event)
    return after.state()


def fold(events: Iterable[AnyEvent]) -> State:
    """The sum of events in order, numbered from 1."""
    from reconciler.records.ledgersum import Sum

    whole = Sum(State())
    for number, event in enumerate(events, start=1):
        whole.add(number, event)
    return whole.state()


_verified: dict[Path, tuple[bytes, Sum, State]] = {}
"""ledger -> what this process has read of it and found good, and what that comes to."""
_reading = threading.Lock()


class Ledger:
    """The ledger's file. Appending needs the host lock; reading does not."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> State:
        """The sum of all events. A last line torn by a crash was never promised and is left out.

        Every line is compared with what this process has verified before, to the last byte, and
        verified if it is another: a long ledger is added up once. Raises CatalogDamaged when a line
        is altered, missing or out of order.
        """
        from reconciler.records.ledgersum import Sum

        text = self._whole_text()
        with _reading:
            known = _verified.pop(self.path, None)
            if known is None or not text.startswith(known[0]):
                known = b"", Sum(State()), State()
            before, whole, state = known
            if len(text) > len(before):
                lines = text[len(before) :].split(b"\n")[:-1]
                with lasting(len(lines)):
                    for line in lines:
                        self._add_line(whole, line)
                state = whole.state()
            _verified[self.path] = text, whole, state
        return state

    def events(self) -> tuple[list[AnyEvent], str]:
        """(every event in order, the chain's value after the last). Raises CatalogDamaged."""
        found: list[AnyEvent] = []
        chain = GENESIS
        for seq, line in enumerate(self._whole_lines(), start=1):
            event, chain = self._event_of(line, seq, chain)
            found.append(event)
        return found, chain

    def append(self, *events: AnyEvent) -> State:
        """Make events durable (file and directory fsynced), in order; returns the new sum."""
        from reconciler.records.ledgersum import Sum

        whole = Sum(self.read())
        lines = []
        for event in events:
            line, whole.chain = written(event, whole.seq + 1, whole.chain)
            whole.add(whole.seq + 1, event)
            lines.append(line)
        self._write_lines(lines)
        return whole.state()

    def chain_at(self, seq: int) -> str | None:
        """The chain's value after event `seq`; None when there are not so many events."""
        if seq == 0:
            return GENESIS
        lines = self._whole_lines()
        return str(json.loads(lines[seq - 1])["chain"]) if seq <= len(lines) else None

    def _whole_lines(self) -> list[bytes]:
        return self._whole_text().split(b"\n")[:-1]

    def _whole_text(self) -> bytes:
        try:
            text = self.path.read_bytes()
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise CatalogDamaged(
                f"the ledger {self.path} cannot be read: {error.strerror}", next_step=_PUT_BACK
            ) from None
        whole = text[: text.rfind(b"\n") + 1]
        last = whole.rfind(b"\n", 0, -1) + 1
        # Of a line that a power cut tore, parts that never reached the disk are zeros.
        return whole[:last] if b"\0" in whole[last:] else whole

    def _add_line(self, whole: Sum, line: bytes) -> None:
        event, chain = self._event_of(line, whole.seq + 1, whole.chain)
        try:
            whole.add(whole.seq + 1, event)
        except KeyError as error:
            raise self._damaged(
                whole.seq, f"speaks of {error}, which no line before it made"
            ) from None
        whole.chain = chain

    def _event_of(self, line: bytes, seq: int, previous: str) -> tuple[AnyEvent, str]:
        """(event, chain) of the line that is to be number `seq`, after the chain `previous`."""
        text, chain = _parted(line, seq)
        if text and chain == _hash(previous, text):
            with suppress(ValidationError):
                return _EVENT.validate_json(text), chain
        try:
            body: dict[str, Any] = json.loads(line)
            said, chain = body.pop("seq"), body.pop("chain")
            event = _EVENT.validate_python(body)
        except UnicodeDecodeError:
            raise self._damaged(seq, "is not text") from None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise self._damaged(seq, f"cannot be read ({str(error).splitlines()[0]})") from None
        if said != seq or chain != _link(previous, body):
            raise self._damaged(seq, "was altered, or lines before it are missing")
        return event, chain

    def _damaged(self, seq: int, what: str) -> CatalogDamaged:
        return CatalogDamaged(
            f"the ledger {self.path} is damaged: line {seq} {what}",
            next_step=_PUT_BACK,
        )

    def _write_lines(self, lines: list[bytes]) -> None:
        make_folder(self.path.parent)
        whole = len(self._whole_text())
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            if os.fstat(descriptor).st_size > whole:
                # A torn last line of a crashed append must not swallow the next one.
                os.ftruncate(descriptor, whole)
                os.fsync(descriptor)
            end = whole
            for line in lines:  # one by one: only the last line of a ledger can ever be torn
                failpoint("ledger.write")
                _write_all(descriptor, line, end)
                failpoint("ledger.fsync")
                os.fsync(descriptor)
                end += len(line)
        except OSError as error:
            # What its writer could not promise must not be found there after a power cut.
            with suppress(OSError):
                os.ftruncate(descriptor, whole)
                os.fsync(descriptor)
            error.filename = error.filename or str(self.path)
            raise
        finally:
            os.close(descriptor)
        failpoint("ledger.written")
        fsync_directory(self.path.parent)


def _write_all(descriptor: int, content: bytes, position: int) -> None:
    """A full disk takes a part of a write without a word; only the next write fails."""
    while content:
        written = os.pwrite(descriptor, content, position)
        content, position = content[written:], position + written


def fsync_directory(path: Path) -> None:
    """Make names made or removed in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def written(event: AnyEvent, seq: int, previous: str) -> tuple[bytes, str]:
    """(line, chain) of an event that is to be number `seq`, after the chain `previous`."""
    text = _text(event.model_dump(mode="json"))
    chain = _hash(previous, text)
    return b"".join((_BEFORE_CHAIN % seq, chain.encode(), b'",', text[1:], b"\n")), chain


def _parted(line: bytes, seq: int) -> tuple[bytes, str]:
    """(event, chain) of line number `seq` as `written` makes it; any other has no event, b""."""
    before = _BEFORE_CHAIN % seq
    at, end = len(before), len(before) + len(GENESIS)
    if line[:at] != before or line[end : end + 2] != b'",':
        return b"", ""
    return b"{" + line[end + 2 :], line[at:end].decode("latin-1")


def _link(previous: str, body: Mapping[str, Any]) -> str:
    return _hash(previous, _text(body))


def _text(body: Mapping[str, Any]) -> bytes:
    return _COMPACT.encode(body).encode()


def _hash(previous: str, text: bytes) -> str:
    return hashlib.sha256(f"{previous}\n".encode() + text).hexdigest()
