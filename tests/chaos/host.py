"""What the real host has of one stack, compared with the ledger, with the model, and with nothing:
whatever belongs to no world, release or snapshot that is kept is an orphan."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import yaml

from reconciler.catalog import Catalog
from reconciler.config import read
from reconciler.records.ledger import State
from snapshots.restore import restore
from snapshots.store import Store
from snapshots.verify import verify_all
from tests.chaos.model import Model
from tests.chaos.stage import PLACES, marked_processes
from tests.stacks.harness import Project, docker


class Host:
    """Looks at one project; changes nothing."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.releases = project.folder / "releases"

    @property
    def catalog(self) -> Catalog:
        return Catalog(read(self.project.name, "prod", self.project.folder, {}))

    @property
    def state(self) -> State:
        return self.catalog.state()

    @property
    def declared(self) -> str | None:
        """The release that the stack's config names."""
        path = self.project.folder / "Pulumi.prod.yaml"
        config = yaml.safe_load(path.read_text()).get("config") or {}
        found = config.get(f"{self.project.name}:release")
        return str(found) if found else None

    def insist_on_one_world(self) -> None:
        """The live world's services run, all of them, and no other's; nothing is under way."""
        live = self.state.live
        running = self._containers(running=True)
        assert {world for world, _, _ in running} == {live}, (live, running)
        assert {s for _, s, _ in running} == {"app", "side", "late"}, running
        for world, service, policy in self._containers(running=False):
            wanted = "unless-stopped" if world == live else "no"
            assert policy == wanted, f"{service} of {world} restarts {policy}"
        assert not list(self.releases.glob("journal-*"))
        assert marked_processes(self.project) == {}

    def insist_on_no_orphans(self) -> None:
        """Containers, networks, volumes, images, mounts and files belong to what is kept."""
        state = self.state
        worlds = {w.name for w in state.worlds.values() if not w.removed}
        assert {w for w, _, _ in self._containers(running=False)} == worlds
        networks = docker("network", "ls", "--format", "{{.Name}}").split()
        assert {n for n in networks if self.project.name in n} == {f"{w}_default" for w in worlds}
        generations = {g.name for g in state.generations.values() if not g.removed}
        volumes = docker("volume", "ls", "--format", "{{.Name}}").split()
        assert {v for v in volumes if self.project.name in v} == generations
        records = {p.parent.name for p in self.releases.glob("*/release-info.json")}
        tags = {image.rpartition(":")[2] for image in self.project.images()} - {"latest"}
        assert tags == records, (tags, records)
        mounts = Path("/proc/self/mounts").read_text().splitlines()
        assert [m for m in mounts if self.project.name in m or str(self.project.folder) in m] == []
        self._insist_on_no_strange_files(worlds, records)

    def _insist_on_no_strange_files(self, worlds: set[str], records: set[str]) -> None:
        for folder in ("work", "files"):
            found = {p.name for p in (self.releases / folder).iterdir()}
            assert found <= worlds, f"{folder} of worlds that are gone: {found - worlds}"
        told = {outcome.incident for _, outcome in self.state.outcomes}
        incidents = {p.name for p in (self.releases / "incidents").glob("*")}
        assert incidents <= told, f"incidents of nothing: {incidents - told}"
        known = {"files", "incidents", "logs", "store", "work", *records}
        folders = {p.name for p in self.releases.iterdir() if p.is_dir()}
        assert folders <= known, f"folders of nobody: {folders - known}"
        drafts = [
            str(path.relative_to(self.project.folder))
            for path in self.project.folder.rglob("*")
            if path.name.endswith((".tmp", ".new", "~")) or path.name == "begun.json"
        ]
        assert drafts == [], f"temporary files are left: {drafts}"
        locks = [p for p in (self.project.folder / ".pulumi" / "locks").rglob("*") if p.is_file()]
        assert locks == []

    def insist_on_a_sound_store(self, *, swept: bool) -> None:
        """Every byte of every snapshot can be restored, nothing is owed. `swept`: releases were
        pruned without a crash, so only what somebody may still want is there."""
        store = Store.open(self.releases / "store", create=False)
        report = verify_all(store, None, read_data=True)
        assert report.damages == [], report.damages
        state = self.state
        assert state.debts() == []
        if swept:
            wanted = {s for d in state.departures for s in d.snapshots.values()}
            wanted |= {s for _, first in state.outcomes[:1] for s in first.snapshots.values()}
            assert set(store.ids()) <= wanted, f"snapshots of nobody: {set(store.ids()) - wanted}"

    def insist_on(self, model: Model) -> None:
        """What the ledger, the records, volumes and store say is what the model says."""
        state = self.state
        assert (state.live_release, state.live) == (model.live, model.live_world)
        previous = state.worlds[state.previous].release if state.previous else None
        assert previous == model.previous
        records = self.catalog.records(state)[0]
        for release, record in records.items():
            assert record.parent == model.parents[release], (release, record.parent)
        ends = {r for r in (model.live, model.previous) if r is not None}
        window = {*sorted(model.arrived)[-3:], *ends}
        assert {r for r in records if r in model.arrived} == window
        self._insist_on_generations(state, model)
        for release in sorted(window & model.left.keys()):
            self._insist_on_departure(state, model, release)

    def _insist_on_generations(self, state: State, model: Model) -> None:
        """Nothing that is not live may be written, and each knows where it comes from."""
        live = state.worlds[state.live or ""]
        for world in (w for w in state.worlds.values() if not w.removed):
            for dataset, name in world.generations.items():
                generation = state.generations[name]
                assert generation.parent is None or generation.parent in state.generations
                assert (generation.sealed is None) == (world is live or not world.touched), name
                if world.name == state.previous and model.previous is not None:
                    found = _lines(docker("volume", "inspect", "-f", "{{.Mountpoint}}", name))
                    model.insist_on_left(model.previous, dataset, found, "in its volume")

    def _insist_on_departure(self, state: State, model: Model, release: str) -> None:
        """The store gives back what the release left when it was last left."""
        left = state.departures_of(release)[-1]
        store = Store.open(self.releases / "store", create=False)
        assert left.snapshots.keys() == set(PLACES), (release, left.snapshots)
        for dataset, snapshot in left.snapshots.items():
            with tempfile.TemporaryDirectory() as folder:
                restore(store, snapshot, Path(folder))
                found = _lines(folder)
            model.insist_on_left(release, dataset, found, "in the store")

    def _containers(self, *, running: bool) -> list[tuple[str, str, str]]:
        """(world, service, restart policy) of every container that bears the project's name."""
        listed = docker("ps", *([] if running else ["--all"]), "--format", "{{.ID}} {{.Names}}")
        ids = [i for i, n in (x.split(" ", 1) for x in listed.splitlines()) if self._ours(n)]
        found = json.loads(docker("inspect", *ids)) if ids else []
        return [
            (
                c["Config"]["Labels"]["com.docker.compose.project"],
                c["Config"]["Labels"]["com.docker.compose.service"],
                c["HostConfig"]["RestartPolicy"]["Name"] or "no",
            )
            for c in found
        ]

    def _ours(self, name: str) -> bool:
        return self.project.name in name


def _lines(folder: str) -> frozenset[str]:
    path = Path(folder.strip()) / "lines"
    return frozenset(path.read_text().split()) if path.exists() else frozenset()
