"""The three inputs of a decision, and the plain questions that all its parts ask of them. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from reconciler import names
from reconciler.config import Stack, Wish
from reconciler.facts import Container, Facts
from reconciler.ingress import ingressports
from reconciler.project import compose
from reconciler.records import lineage
from reconciler.records.ledger import Departure, State, World


@dataclass(frozen=True)
class Situation:
    """Settings, ledger and facts of one moment."""

    stack: Stack
    state: State
    facts: Facts

    @property
    def live(self) -> World | None:
        """The live world."""
        return self.state.worlds[self.state.live] if self.state.live else None

    @property
    def plain_project(self) -> tuple[Container, ...]:
        """The containers of the compose project that ran before Lockstep came."""
        return tuple(c for c in self.facts.containers.get(self.stack.project, ()) if not c.one_off)

    @property
    def adopted_release(self) -> str:
        """The release that such a project becomes."""
        return names.release_name(self.stack.name, names.ADOPTED_NUMBER)

    @property
    def wish(self) -> Wish | None:
        """The one-shot wish, if it is for the declared release and was not fulfilled yet."""
        wish = self.stack.settings.restore
        if wish is None or wish.release != self.stack.settings.release:
            return None
        return None if wish.key in self.state.wishes else wish

    def saved(self, dataset: str, world: str | None, seq: int) -> Iterator[tuple[str, str]]:
        """(snapshot, whose it is) in the store, the nearest first to what a world left with the
        outcome `seq`: backups that somebody asked for while it was live, then what others left."""
        backups = [
            (kept.created, snapshot)
            for snapshot, kept in self.facts.snapshots.items()
            if kept.dataset == dataset and kept.backup_of and kept.backup_of == world
        ]
        for created, snapshot in sorted(backups, reverse=True):
            yield snapshot, f"the backup of {created}"
        for snapshot, whose in lineage.neighbours(self.state, dataset, seq):
            if snapshot in self.facts.snapshots:
                yield snapshot, whose

    def secrets_changed(self, world: World) -> bool:
        """Whether the world was given other secrets than the stack has now, as far as known."""
        known = bool(self.facts.fingerprint and world.fingerprint)
        return known and world.fingerprint != self.facts.fingerprint

    def other_way(self, world: World) -> bool:
        """Whether the config wants other ports of a world behind the ingress than it was made
        with. What was adopted keeps its ports: its containers are not ours to make."""
        record = self.facts.records.get(world.release)
        if record is None or world.adopted or world.removed:
            return False
        containers = self.facts.containers.get(world.name, ())
        return ingressports.changed(record.model, containers, self.stack.settings.ingress)

    def broken(self, world: World) -> tuple[str, ...]:
        """Services of a world whose containers are missing or stand still."""
        record = self.facts.records.get(world.release)
        if record is None:
            return ()
        found: dict[str, list[Container]] = {}
        for container in self.facts.containers.get(world.name, ()):
            if not container.one_off:
                found.setdefault(container.service, []).append(container)
        return tuple(
            service
            for service in record.model.get("services", {})
            if len(found.get(service, [])) < compose.replicas(record.model, service)
            or not _stands(found.get(service, []), job=compose.is_job(record.model, service))
        )

    def ran(self, world: World) -> bool:
        """Whether a container of a world was ever started, whatever the ledger says."""
        return any(c.state != "created" for c in self.facts.containers.get(world.name, ()))

    def used_since(self, generation: str, left: Departure) -> bool:
        """Whether a container that mounts a sealed generation was started after it was sealed:
        by `docker compose up` from habit, say. A clock that was set may make this true for
        nothing; then its content comes from the store, where it is the same."""
        sealed = datetime.fromisoformat(left.at)
        return any(
            container.started and datetime.fromisoformat(container.started) > sealed
            for containers in self.facts.containers.values()
            for container in containers
            if generation in container.volumes.values()
        )

    def made_anew_since(self, world: World) -> bool:
        """Whether containers of a world were made after it was last left: `docker compose up`
        puts those of an adopted project in the place of the ones that were adopted."""
        left = [d for d in self.state.departures if d.world == world.name]
        return bool(left) and any(
            container.created
            and datetime.fromisoformat(container.created) > datetime.fromisoformat(left[-1].at)
            for container in self.facts.containers.get(world.name, ())
            if not container.one_off
        )

    def images_of(self, release: str) -> dict[str, tuple[str, str]]:
        """service -> (tag, image id) of a release; of a damaged record, as far as its worlds
        tell. None of an adopted one: those images are not ours."""
        record = self.facts.records.get(release)
        if record is not None:
            found = {s: (i.tag, i.id) for s, i in record.images.items()}
            return {} if record.adopted else found
        return {
            service: (names.image_tag(self.stack.project, service, release), image_id)
            for world in self.state.worlds_of(release)
            for service, image_id in world.images.items()
        }

    def age(self, departure: Departure) -> float:
        """Seconds since something was left."""
        return max(0.0, self.facts.now - datetime.fromisoformat(departure.at).timestamp())


def _stands(containers: list[Container], *, job: bool) -> bool:
    if job:
        return all(c.state == "running" or c.exit_code == 0 for c in containers)
    return all(c.state in ("running", "restarting") for c in containers)
