"""Histories made event by event, as long as a test needs them: any number of releases, with
failures, rollbacks, restores and crashes, and the records that belong to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random

from reconciler.gates.results import GateResult, Result
from reconciler.records.ledger import (
    AnyEvent,
    Captured,
    Committed,
    Found,
    GenerationMade,
    Pruned,
    Recovered,
    Reverted,
    State,
    WorldMade,
    add,
)
from reconciler.records.release import Dataset, Git, Image, Kind, Release

BEGIN = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
DATASETS = ("db-data", "uploads")
REASONS = (
    "web: GET /health answers 503 after 120 s\nlast words of web:\nKeyError: 'PAYMENT_URL'",
    "worker is not healthy: redis: connection refused",
    'postgres: migration 0042 failed: column "total" does not exist',
)


@dataclass
class History:
    """A stack's ledger under construction. Every figure follows from `seed`."""

    seed: int = 7
    state: State = field(default_factory=State)
    events: list[AnyEvent] = field(default_factory=list)
    records: dict[str, Release] = field(default_factory=dict)
    now: datetime = BEGIN

    def __post_init__(self) -> None:
        self.random = Random(self.seed)
        self.rows = dict.fromkeys(DATASETS, 1000)
        self.numbers = dict.fromkeys(DATASETS, 0)
        self.store_bytes = 40 << 20

    # what a person does ---------------------------------------------------------------------

    def new(self, description: str = "") -> str:
        """A release's record."""
        number = len(self.records) + 1
        name = f"prod-{number:03d}"
        self.records[name] = Release(
            name=name,
            parent=self.state.live_release,
            created=self._later(3000),
            created_by="ana",
            description=description or f"Change {number} of the shop",
            git=Git(commit=f"{self.random.getrandbits(160):040x}", branch="main"),
            model={"services": {"web": {"image": "x"}}},
            images={
                "web": Image(
                    service="web",
                    tag=f"shop-web:{name}",
                    id=f"sha256:{number:064d}",
                    bytes=180 << 20,
                )
            },
            datasets={
                d: Dataset(name=d, kind=Kind.VOLUME, driver="directory", source=f"shop_{d}")
                for d in DATASETS
            },
        )
        return name

    def forward(
        self, *, fails: str = "", who: str = "ana", description: str = "", again: bool = False
    ) -> None:
        """A new release (or the newest once more) on a fork of the live data."""
        release = list(self.records)[-1] if again else self.new(description)
        live = self.state.worlds.get(self.state.live or "")
        parents = dict(live.generations) if live else {}
        world = self._make(release, "fork" if live else "create", parents)
        move = "forward" if live else "first"
        if fails:
            self._revert(move, world, fails, who)
        else:
            self._commit(move, world, who)

    def back(self, release: str, *, restore: bool = False, who: str = "ben") -> None:
        """To a release that was live before: its volumes are attached, or restored."""
        left = self.state.departures_of(release)[-1]
        world = self._make(release, "restore", {}, left.snapshots) if restore else left.world
        before = dict(self.rows)
        self.rows = {d: counts["rows"] for d, counts in left.probes.items()}
        aside = {d: {"rows": before[d] - n} for d, n in self.rows.items() if before[d] > n}
        action = "restore" if restore else "attach"
        self._commit("back", world, who, action=action, aside=aside, probes=before)

    def repaired(self) -> None:
        """The live world stood still and was started again."""
        self._apply(
            Recovered(
                at=self._later(60),
                move="repair",
                from_world=self.state.live,
                to_world=str(self.state.live),
                reason="web stood still",
                downtime_seconds=4.2,
            )
        )

    def crashed(self) -> None:
        """A crash before anything was changed."""
        self._apply(
            Found(
                at=self._later(60),
                world=str(self.state.live),
                found=f"the switch to {self.state.live} was committed, but not finished",
                done="what remained of it is done",
            )
        )

    def prune(self, keep: int) -> None:
        """All but the newest records go."""
        for release in list(self.records)[:-keep]:
            live, previous = self.state.live_release, self.state.previous
            spared = {live, self.state.worlds[previous].release if previous else None}
            if release not in self.state.pruned and release not in spared:
                self._apply(Pruned(at=self._later(1), release=release))

    # what follows ---------------------------------------------------------------------------

    def _make(
        self,
        release: str,
        action: str,
        parents: Mapping[str, str],
        snapshots: Mapping[str, str] | None = None,
    ) -> str:
        count = len(self.state.worlds_of(release))
        world = f"shop-{release}" + (f"_{count + 1}" if count else "")
        generations = {}
        for dataset in DATASETS:
            self.numbers[dataset] += 1
            number = self.numbers[dataset]
            generations[dataset] = f"shop-prod_{dataset}_g{number}"
            self._apply(
                GenerationMade(
                    at=self._later(2),
                    name=generations[dataset],
                    dataset=dataset,
                    number=number,
                    parent=parents.get(dataset),
                    action=action,
                    snapshot=(snapshots or {}).get(dataset),
                    world=world,
                )
            )
        self._apply(
            WorldMade(
                at=self._later(2),
                world=world,
                release=release,
                generations=generations,
                fingerprint="",
            )
        )
        return world

    def _commit(
        self,
        move: str,
        world: str,
        who: str,
        *,
        action: str = "",
        aside: Mapping[str, Mapping[str, int]] | None = None,
        probes: Mapping[str, int] | None = None,
    ) -> None:
        live = self.state.worlds.get(self.state.live or "")
        planned = self._later(5)
        down = round(self.random.uniform(0.6, 2.4), 3) if live else None
        counted = probes or self.rows
        self._apply(
            Committed(
                at=self._later(8),
                who=who,
                move=move,
                from_world=live.name if live else None,
                to_world=world,
                planned=planned,
                started=planned,
                downtime_seconds=down,
                expected_seconds=1.4 if live else 0.0,
                datasets=dict.fromkeys(DATASETS, action or ("fork" if live else "create")),
                sealed=dict(live.generations) if live else {},
                probes={d: {"rows": n} for d, n in counted.items()} if live else {},
                set_aside={d: dict(c) for d, c in (aside or {}).items()},
                steps={"prepare": 0.1, "stop": 1.2, "start": 2.0, "prove": 3.1, "commit": 3.2},
            )
        )
        self._pay()
        self.rows = {d: n + self.random.randrange(50, 900) for d, n in self.rows.items()}

    def _revert(self, move: str, world: str, reason: str, who: str) -> None:
        planned = self._later(5)
        self._apply(
            Reverted(
                at=self._later(30),
                who=who,
                move=move,
                from_world=self.state.live,
                to_world=world,
                planned=planned,
                started=planned,
                reason=reason,
                touched=True,
                quarantine=True,
                downtime_seconds=round(self.random.uniform(3, 9), 3),
                expected_seconds=1.4,
                datasets=dict.fromkeys(DATASETS, "fork"),
                sealed=dict(self.state.worlds[world].generations),
                probes={d: {"rows": n} for d, n in self.rows.items()},
                written={d: {"rows": n + 3} for d, n in self.rows.items()},
                steps={"prepare": 0.1, "stop": 1.2, "start": 2.0},
                gates=(
                    GateResult(
                        gate="health",
                        service="web",
                        kind="http",
                        result=Result.PASSED,
                        means="pass",
                    ),
                    GateResult(
                        gate="checkout",
                        service="web",
                        kind="http",
                        result=Result.FAILED,
                        means="fail",
                        tries=12,
                        seconds=4.0,
                        said=reason.partition("\n")[0],
                    ),
                ),
            )
        )
        self._pay()

    def _pay(self) -> None:
        for departure, dataset in self.state.debts():
            held = departure.probes[dataset]["rows"] * 4096
            self.store_bytes += held // 9
            self._apply(
                Captured(
                    at=self._later(2),
                    generation=departure.generations[dataset],
                    sealing=departure.seq,
                    snapshot=f"{self.random.getrandbits(128):032x}",
                    bytes=held,
                    store_bytes=self.store_bytes,
                )
            )

    def _apply(self, event: AnyEvent) -> None:
        self.events.append(event)
        self.state = add(self.state, self.state.seq + 1, event)

    def _later(self, seconds: float) -> str:
        self.now += timedelta(seconds=seconds)
        return self.now.isoformat(timespec="milliseconds")


def a_dozen() -> History:
    """About twelve releases, with what can happen to them."""
    made = History()
    texts = {
        1: "The shop as it was on the old server",
        2: "Orders have a currency",
        5: "Postgres 15, new checkout",
        8: "Search in the catalogue, with typos forgiven",
        12: "Invoices by mail; the worker starts after the commit",
    }
    for number in range(1, 13):
        made.now += timedelta(days=5, hours=number)
        text = texts.get(number, "")
        match number:
            case 4 | 9:
                made.forward(fails=REASONS[number % len(REASONS)], description=text)
            case 7:
                made.forward(fails=REASONS[0], description=text)
                made.forward(again=True)
            case _:
                made.forward(description=text)
        made.now += timedelta(hours=3)
        if number == 6:
            made.back("prod-005")
        if number == 8:
            made.back("prod-003", restore=True)
            made.back("prod-008")
            made.crashed()
        if number == 10:
            made.repaired()
        if number == 12:
            made.back("prod-011")
    made.prune(keep=5)
    return made


def many(count: int, keep: int = 6) -> History:
    """So many releases; every eighth fails, every tenth is rolled back; the newest are kept."""
    made = History()
    for number in range(1, count + 1):
        made.now += timedelta(hours=5)
        before = made.state.live_release
        made.forward(fails=REASONS[number % 3] if number % 8 == 7 else "")
        if number % 10 == 0 and before is not None and before != made.state.live_release:
            made.now += timedelta(minutes=20)
            made.back(before, restore=number % 20 == 0)
    made.prune(keep=keep)
    return made
