"""Chapter `catalog`: how long `list` and `preview` take when the catalog has grown for years.

`python -m bench.catalog [RUNS]` measures it alone. A plausible catalog and ledger of each size are
written, and the commands run on them as a person types them, in processes of their own. All
releases are kept, so that all that grows has grown; everything is removed afterwards. `first` is a
list after something was changed: the index that it reads is made anew. With `--running` the
widest stack is measured alone, and all containers of its live world run meanwhile.
"""

from __future__ import annotations

import hashlib
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bench.peers import OURS
from bench.results import Results, Series
from bench.shares import Share
from reconciler import names
from reconciler.catalog import Catalog
from reconciler.config import Settings, Stack
from reconciler.docker import OUR_PROJECT, OUR_STACK, OUR_WORLD, PROJECT
from reconciler.docker.dockervalues import ONE_OFF, SERVICE
from reconciler.records import ledger
from reconciler.records.ledger import (
    GENESIS,
    AnyEvent,
    Captured,
    Committed,
    GenerationMade,
    GenerationRemoved,
    WorldMade,
    WorldRemoved,
)
from reconciler.records.release import Dataset, Git, Image, Kind, Mount, Release

REPOSITORY = Path(__file__).parent.parent
IMAGE = "lockstep-base/debian:12"
BEGIN = datetime(2020, 1, 6, 9, 0, tzinfo=UTC)


@dataclass(frozen=True)
class Size:
    """How much there is; every release was live once and is kept."""

    releases: int
    services: int = 3
    datasets: int = 3
    running: bool = False
    """Whether the containers of the live world run."""

    @property
    def name(self) -> str:
        """`catalog-10000-3-3`: what the results call it."""
        return f"catalog-{self.releases}-{self.services}-{self.datasets}"


CHAPTER, RUNNING = "catalog", "--running"
FIRST = ", first"
CPU = ", processor"
COMMANDS = {
    f"list{FIRST}": ["list"],
    "list": ["list"],
    f"list --json{FIRST}": ["list", "--json"],
    "list --json": ["list", "--json"],
    "preview": ["preview", "--impact-only"],
    "preview --json": ["preview", "--json"],
}
WIDE = Size(100, 200, 100)
SIZES = (Size(100), Size(1_000), Size(10_000), WIDE, Size(1_000, 20, 10))


@dataclass(frozen=True)
class Ground:
    """A stack's folder under construction. The newest release is declared, the one before it is
    live, as if all had gone forward one after another."""

    folder: Path
    size: Size
    project: str
    image: str
    """The id of IMAGE."""

    def make(self) -> None:
        """Write project, config, records and ledger."""
        last = self._release(self.size.releases)
        (self.folder / "Pulumi.yaml").write_text(f"name: {self.project}\nruntime: python\n")
        (self.folder / "Pulumi.prod.yaml").write_text(
            f'config:\n  {self.project}:window: "{self.size.releases}"\n'
            f"  {self.project}:release: {last}\n"
        )
        root = self.folder / "releases"
        root.mkdir(mode=0o700)
        self._write_records(root)
        chain, lines = GENESIS, []
        for seq, event in enumerate(self.events(), start=1):
            line, chain = ledger.written(event, seq, chain)
            lines.append(line)
        _write(root / "ledger-prod.jsonl", b"".join(lines))
        _write(root / "key-prod", bytes(32))
        stack = Stack(project=self.project, name="prod", root=self.folder, settings=Settings())
        Catalog(stack).write_manifest()

    def _write_records(self, root: Path) -> None:
        before, link = self._record(1), ""
        for number in range(1, self.size.releases + 1):
            name = self._release(number)
            record = before.model_copy(
                update={
                    "name": name,
                    "previous": link,
                    "parent": self._release(number - 1) if number > 1 else None,
                    "created": self._at(number),
                    "description": f"Change {number} of the shop: what customers asked for",
                    "git": Git(commit=hashlib.sha1(name.encode()).hexdigest(), branch="main"),
                }
            )
            content = record.model_dump_json(indent=2).encode()
            (root / name).mkdir(mode=0o700)
            _write(root / name / "release-info.json", content)
            link = hashlib.sha256(content).hexdigest()

    def _record(self, number: int) -> Release:
        services = [f"service-{n}" for n in range(self.size.services)]
        datasets = [f"data-{n}" for n in range(self.size.datasets)]
        mounts = {d: services[n % len(services)] for n, d in enumerate(datasets)}
        return Release(
            name=self._release(number),
            parent=None,
            created=self._at(number),
            created_by="ana",
            model={
                "name": self.project,
                "services": {
                    name: {
                        "image": IMAGE,
                        "command": ["sleep", "infinity"],
                        "environment": {f"SETTING_{n}": f"value {n}" for n in range(8)},
                        "healthcheck": {"test": ["CMD", "true"], "interval": "30s"},
                        "networks": {"default": None},
                        "restart": "unless-stopped",
                        "volumes": [
                            {"type": "volume", "source": d, "target": f"/{d}", "volume": {}}
                            for d, by in mounts.items()
                            if by == name
                        ],
                    }
                    for name in services
                },
                "networks": {"default": {"name": f"{self.project}_default"}},
                "volumes": {d: {"name": f"{self.project}_{d}"} for d in datasets},
            },
            images={s: Image(service=s, tag=IMAGE, id=self.image, source=IMAGE) for s in services},
            datasets={
                d: Dataset(
                    name=d,
                    kind=Kind.VOLUME,
                    driver="directory",
                    source=f"{self.project}_{d}",
                    mounts=(Mount(service=by, target=f"/{d}"),),
                )
                for d, by in mounts.items()
            },
        )

    def events(self) -> Iterator[AnyEvent]:
        """Each release but the newest is made live on a fork of the data of the one before, whose
        content is then brought into the store; the world before that is removed."""
        seq, before = 0, dict[str, str]()
        for number in range(1, self.size.releases):
            made = {d: self.generation(d, number) for d in self._datasets()}
            switched = [*self._made(number, made, before), self._committed(number, made, before)]
            paid = list(self._paid(number, before, sealing=seq + len(switched)))
            yield from (*switched, *paid)
            seq, before = seq + len(switched) + len(paid), made

    def _made(
        self, number: int, made: dict[str, str], before: dict[str, str]
    ) -> Iterator[AnyEvent]:
        at, world, release = self._at(number), self._world(number), self._release(number)
        for dataset, generation in made.items():
            yield GenerationMade(
                at=at,
                name=generation,
                dataset=dataset,
                number=number,
                parent=before.get(dataset),
                action="fork" if before else "create",
                world=world,
            )
        yield WorldMade(at=at, world=world, release=release, generations=made, fingerprint="")

    def _committed(self, number: int, made: dict[str, str], before: dict[str, str]) -> Committed:
        left = self._world(number - 1) if before else None
        return Committed(
            at=self._at(number),
            who="ana",
            move="forward" if left else "first",
            from_world=left,
            to_world=self._world(number),
            downtime_seconds=1.0 + number % 7 / 10 if left else None,
            datasets=dict.fromkeys(made, "fork"),
            sealed=before,
            probes={d: {"bytes": 1000 * number, "files": number} for d in before},
        )

    def _paid(self, number: int, sealed: dict[str, str], *, sealing: int) -> Iterator[AnyEvent]:
        """What follows a switch: the store gets what was left, older worlds go."""
        at = self._at(number)
        for generation in sealed.values():
            snapshot = hashlib.sha256(generation.encode()).hexdigest()
            yield Captured(
                at=at, generation=generation, sealing=sealing, snapshot=snapshot, bytes=1000
            )
        if number > 2:
            for dataset in self._datasets():
                yield GenerationRemoved(at=at, generation=self.generation(dataset, number - 2))
            yield WorldRemoved(at=at, world=self._world(number - 2))

    def _datasets(self) -> list[str]:
        return [f"data-{n}" for n in range(self.size.datasets)]

    def generation(self, dataset: str, number: int) -> str:
        """The name of a generation's volume."""
        return names.generation_name(self.project, "prod", dataset, number)

    def live_volumes(self) -> list[str]:
        """Those of the release that is live."""
        return [self.generation(d, self.size.releases - 1) for d in self._datasets()]

    def start_containers(self) -> None:
        """Those of the live world, with the labels of one, each on its volumes."""
        live = self.size.releases - 1
        record, world = self._record(live), self._world(live)
        labels = {
            OUR_PROJECT: self.project,
            OUR_STACK: "prod",
            OUR_WORLD: world,
            PROJECT: world,
            ONE_OFF: "False",
        }
        for service in record.model["services"]:
            mounts = [
                f"--volume={self.generation(name, live)}:/{name}"
                for name, dataset in record.datasets.items()
                if dataset.mounts[0].service == service
            ]
            given = {**labels, SERVICE: service}
            _docker(
                "run", "--detach", "--network=none", f"--name={world}-{service}-1", *mounts,
                *(f"--label={key}={value}" for key, value in given.items()),
                IMAGE, "sleep", "infinity",
            )  # fmt: skip

    def remove_containers(self) -> None:
        """Whatever of them there is."""
        found = _docker("ps", "--all", "--quiet", f"--filter=label={OUR_PROJECT}={self.project}")
        if found:
            _docker("rm", "--force", *found.split())

    def _world(self, number: int) -> str:
        return names.world_name(self.project, self._release(number), 1)

    @staticmethod
    def _release(number: int) -> str:
        return names.release_name("prod", number)

    def _at(self, number: int) -> str:
        return (BEGIN + timedelta(hours=5 * number)).isoformat()


def _write(path: Path, content: bytes) -> None:
    path.touch(mode=0o600)
    path.write_bytes(content)


@dataclass(frozen=True)
class Took:
    """Seconds of one run of a command."""

    wall: float
    processor: float


def measure(size: Size, runs: int) -> dict[str, list[Took]]:
    """command -> what each run took."""
    project = f"bench{uuid.uuid4().hex[:6]}"
    image = _docker("image", "inspect", "--format", "{{.Id}}", IMAGE)
    with tempfile.TemporaryDirectory(prefix="lockstep-bench-catalog-") as folder:
        ground = Ground(Path(folder), size, project, image)
        ground.make()
        try:
            for volume in ground.live_volumes():
                _docker("volume", "create", volume)
            if size.running:
                ground.start_containers()
            return _times(ground, runs)
        finally:
            ground.remove_containers()
            _docker("volume", "rm", *ground.live_volumes())


def _times(ground: Ground, runs: int) -> dict[str, list[Took]]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PULUMI_", "LOCKSTEP_"))}
    env = {
        **kept,
        "LOCKSTEP_ENGINE": "embedded",
        "LOCKSTEP_LOCK_DIR": str(ground.folder / "locks"),
        "PULUMI_HOME": str(ground.folder / "home"),
        "PULUMI_CONFIG_PASSPHRASE": "bench",
        "PYTHONPATH": str(REPOSITORY),
    }
    (ground.folder / "locks").mkdir()
    found: dict[str, list[Took]] = {name: [] for name in COMMANDS}
    for _ in range(runs):
        for name, words in COMMANDS.items():
            if name.endswith(FIRST):
                (ground.folder / "releases" / "index-prod.jsonl").unlink(missing_ok=True)
            began, used = time.monotonic(), _processor()
            done = subprocess.run(
                [sys.executable, "-m", "cli.main", *words],
                cwd=ground.folder,
                env=env,
                capture_output=True,
                text=True,
            )
            found[name].append(Took(time.monotonic() - began, _processor() - used))
            if done.returncode:
                raise RuntimeError(f"lockstep {' '.join(words)}: {done.stdout}{done.stderr}")
    return found


def _processor() -> float:
    """Seconds that all processes started so far, and ended, had a processor."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@dataclass
class Cataloguing:
    """All sizes, for the bench."""

    results: Results
    say: Callable[[str], None]

    def carry_out(self, rounds: int, share: Share) -> None:
        """Every round that is not there yet; all of a size at once."""
        share.start()
        for size in SIZES:
            missing = [
                n for n in range(1, rounds + 1) if not self.results.has(CHAPTER, size.name, n)
            ]
            self.say(f"{size.releases} releases, {size.services} services")
            times = measure(size, len(missing)) if missing else {}
            for at, number in enumerate(missing):
                with self.results.round(CHAPTER, size.name, number):
                    for what, took in times.items():
                        self._add(size, what, took[at].wall)
                        self._add(size, f"{what}{CPU}", took[at].processor)

    def _add(self, size: Size, what: str, seconds: float) -> None:
        self.results.add(Series(CHAPTER, size.name, OURS.name, what), seconds)


def page(results: Results) -> Iterator[str]:
    """Its part of the report."""

    def cell(size: Size, what: str) -> str:
        wall = results.figure(Series(CHAPTER, size.name, OURS.name, what))
        cpu = results.figure(Series(CHAPTER, size.name, OURS.name, f"{what}{CPU}"))
        return f"{wall.value:.2f} ({cpu.value:.2f}), {wall.n}" if wall and cpu else "-"

    figures = {size: [cell(size, what) for what in COMMANDS] for size in SIZES}
    if all(shown == "-" for row in figures.values() for shown in row):
        return
    yield "## A catalog that has grown"
    yield ""
    yield (
        "Seconds of whole commands, in brackets those that they had a processor. Every release was "
        "live once and is kept; `list` shows a person the newest 50, for the first time after a "
        "change without its index; `preview` is without Pulumi's resources."
    )
    yield ""
    yield f"| releases | services | datasets | {' | '.join(COMMANDS)} |"
    yield f"| ---: | ---: | ---: |{' ---: |' * len(COMMANDS)}"
    for size, row in figures.items():
        yield f"| {size.releases} | {size.services} | {size.datasets} | {' | '.join(row)} |"
    yield ""


def _docker(*words: str) -> str:
    done = subprocess.run(["docker", *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _median(took: list[Took]) -> str:
    """`0.41 s (0.38)`: in brackets of the processor."""
    wall = statistics.median(each.wall for each in took)
    return f"{wall:.2f} s ({statistics.median(each.processor for each in took):.2f})"


def main() -> int:
    given = [word for word in sys.argv[1:] if word != RUNNING]
    runs = int(given[0]) if given else 5
    sizes = (replace(WIDE, running=True),) if RUNNING in sys.argv else SIZES
    print(f"| releases | services | datasets | {' | '.join(COMMANDS)} |")
    print(f"| ---: | ---: | ---: |{' ---: |' * len(COMMANDS)}")
    for size in sizes:
        times = measure(size, runs)
        figures = " | ".join(_median(took) for took in times.values())
        print(f"| {size.releases} | {size.services} | {size.datasets} | {figures} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
