"""The stack's ingress: a HAProxy of its own for every published port that it owns.

    prepare     make what is missing and join the target's networks, while the old world runs
    hold        whoever connects from now on waits; open connections get time to end
    open        take the ports that the old world has just given up
    aim         when it is proved: know where the new world is, let nobody in
    let in      after the commit: who waits is served, in turn
    serve       then, or on the way back: point at the live world, let who waits in
    keep pace   until nobody waits any more

Before the commit no configuration names the new world as one to serve, so nobody but its gates
reaches it. `serve` can be repeated at any time: recovery, repair and the guard do. Nothing here
decides what is live: the ledger does.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from failpoints import failpoint
from reconciler.catalog import Catalog, write_durably
from reconciler.config import Stack
from reconciler.docker import (
    OUR_PROJECT,
    OUR_STACK,
    ContainerDetails,
    Docker,
    Listed,
    PortTaken,
    Published,
)
from reconciler.errors import DockerFailed, LockstepError, Refused, Unavailable
from reconciler.ingress import ingressfile as file
from reconciler.ingress.ingressfacts import (
    DOOR,
    GET_IMAGE,
    LOCAL,
    OF_STACK,
    door_of,
    folder,
    stack_of,
    units,
)
from reconciler.ingress.ingressfile import UNLIMITED, Pointing
from reconciler.ingress.ingressports import Behind, Door, read
from reconciler.ingress.ingresstalk import AT_FIRST, Talk
from reconciler.records.ledger import fsync_directory
from reconciler.world.hostworld import HostWorld
from snapshots.private import make_folder

_USER = 61000
"""Who HAProxy is where Lockstep itself is root: nobody else's number."""
_PORT_SECONDS = 10.0
_ANSWER_SECONDS = 10.0
_LOOK = 0.02
_DRAFT = f".{file.FILE}.new"
_SYSCTLS = {"net.core.somaxconn": "65535"}


@dataclass(frozen=True)
class _Back:
    """What stands behind a door."""

    behind: Behind
    container: ContainerDetails

    @property
    def pointing(self) -> Pointing:
        return Pointing(self.container.name, self.behind.target, self.behind.proxy)


class Ingress:
    """The ingress of one stack. Needs the host lock for whatever changes something."""

    def __init__(
        self, stack: Stack, catalog: Catalog, docker: Docker, say: Callable[[str], None]
    ) -> None:
        self.stack = stack
        self.catalog = catalog
        self.docker = docker
        self.say = say
        self._before: dict[Door, Listed] = {}
        """Its containers before the switch."""
        self._talk = Talk(catalog, say)
        self._aimed: dict[Door, _Back] = {}
        self._paced: dict[Door, Pointing] = {}
        """Where who waited is let in, but not all at once."""
        self._held_since: float | None = None
        self._held_seconds: float | None = None

    # while the old world runs -----------------------------------------------------------------

    def prepare(self, old: HostWorld | None, new: HostWorld) -> None:
        """Make the containers that the new world needs, and join its networks. Nobody notices.

        Raises Refused when there is no image of HAProxy.
        """
        backs, units = _backs(new), self._units()
        serving = _backs(old).keys() if old is not None else ()
        for door in units.keys() - serving:
            self._remove(units.pop(door))
        self._before = units
        for door, back in backs.items():
            unit = units.get(door)
            made = unit.id if unit is not None else self._make(door, back, serving=False)
            self._join(made, back)

    def hold(self, old: HostWorld | None, new: HostWorld) -> dict[str, dict[str, float]]:
        """Whoever connects waits from now on; connections that are open get `ingress.drain`
        seconds to end. Ports that the new world wants for itself are given up.

        Returns HAProxy's figures of the old world by port.
        """
        units = self._before
        doors = sorted(_backs(old).keys() & units.keys()) if old is not None else []
        if doors:
            self._held_since = time.monotonic()
            self._talk.hold(doors)
            self.say(f"holding connections to {', '.join(map(str, doors))}")
            failpoint("ingress.held")
            self._talk.drain(doors, self.stack.settings.ingress.drain)
        figures = {str(door): self._talk.figures(door) for door in doors}
        self._give_up(units, _backs(new))
        return {door: found for door, found in figures.items() if found}

    def waiting(self) -> dict[str, dict[str, float]]:
        """By port, how many are held at this moment and since when, in seconds."""
        if self._held_since is None:
            return {}
        found = {}
        for door in self._units():
            with self._talk.lenient():
                count = self._talk.counted(door).waiting
                found[str(door)] = {"held": float(count), "held_seconds": self.held_seconds or 0.0}
        return found

    @property
    def held_seconds(self) -> float | None:
        """For how long connections are, or were, held; None when none were."""
        if self._held_since is None:
            return self._held_seconds
        return round(time.monotonic() - self._held_since, 3)

    def make_way(self, old: HostWorld | None, new: HostWorld) -> None:
        """Give up the ports that the old world publishes itself: it comes back."""
        backs = _backs(old) if old is not None else {}
        if backs or _backs(new):
            self._give_up(self._units(), backs)

    def _give_up(self, units: Mapping[Door, Listed], kept: Mapping[Door, _Back]) -> None:
        for door in units.keys() - kept.keys():
            if units[door].state == "running":
                self.say(f"the ingress gives up port {door}")
            # What it was told before would bring it back in the middle of another's turn.
            self.docker.set_restart(units[door].id, "no")
            self.docker.stop(units[door].id)

    def open(self, new: HostWorld) -> None:
        """Take the ports that were given up; whoever connects waits. Raises PortTaken."""
        backs = _backs(new)
        units = self._units() if backs else {}
        for door in backs:
            if door in units and units[door].state != "running":
                self._start(units[door].id)
                self.say(f"the ingress has port {door}")

    def aim(self, new: HostWorld) -> None:
        """While everybody waits: see that letting them in is all that is left for after the
        commit. Never raises: what fails here `serve` does again."""
        with self._talk.lenient():
            units = self._units()
            for door, back in _backs(new).items():
                unit = units.get(door)
                if unit is None or unit.state != "running" or not self._is_ours_as_made(unit):
                    continue
                address = _address(self.docker.inspect(back.container.id))
                if address is not None and not self._aim(door, back, address):
                    self._draft(door, back, serving=True)
                    self._aimed[door] = back

    # when it is decided -----------------------------------------------------------------------

    def let_in(self) -> None:
        """The first thing after the commit: who waits is served by the world that was aimed at.
        Never raises: `serve` comes after it."""
        for door, back in self._aimed.items():
            with self._talk.lenient():
                self._publish(door)
                failpoint("ingress.written")
                self._let_in(door, back, AT_FIRST)
        if self._paced:
            self._released()
        self._aimed.clear()

    def serve(self, live: HostWorld | None) -> None:
        """Make the ingress what the live world needs: its ports and no others, pointing at it, with
        nobody held. `live` None: nothing is. Raises DockerFailed, Unavailable."""
        units = self._units()
        backs = _backs(live) if live is not None else {}
        unneeded = units.keys() - backs.keys()
        for door in unneeded:
            self._remove(units.pop(door))
        unserved = []
        for door, back in backs.items():
            try:
                self._serve(door, back, units.get(door))
            except LockstepError as error:
                # One port that cannot be had must not keep the others shut.
                unserved.append(f"port {door}: {error.message}")
        self._released()
        if unserved:
            raise DockerFailed(
                "; ".join(unserved), next_step="lockstep up   puts the ingress right"
            )
        if unneeded and not backs:
            self.docker.remove_network(self._network, labels=self._labels)
        for door, back in backs.items():
            self._leave_others(self._units()[door].id, back)

    def keep_pace(self) -> None:
        """Return when everybody who waited has been let in, after `let_in` or `serve`. Never
        raises."""
        self._talk.keep_pace(self._paced)
        self._paced.clear()

    def _serve(self, door: Door, back: _Back, unit: Listed | None) -> None:
        if unit is not None and not self._is_ours_as_made(unit):
            self._remove(unit)
            unit = None
        # First: should HAProxy die now, it comes back with the world that the ledger names.
        self._write(door, back, serving=True)
        failpoint("ingress.written")
        unit_id = unit.id if unit is not None else self._make(door, back, serving=True)
        self._join(unit_id, back)
        if unit is None or unit.state != "running":
            unit_id = self._start_anyhow(door, back, unit_id)
        try:
            self._point(door, back)
        except Unavailable:
            self.say(f"the ingress of port {door} does not answer: it is started again")
            self.docker.stop(unit_id, grace=0)
            self._start(unit_id)
            self._point(door, back)
        if self.docker.inspect(unit_id).restart_policy != "always":
            self.docker.set_restart(unit_id, "always")

    def _start_anyhow(self, door: Door, back: _Back, unit_id: str) -> str:
        """One whose networks are gone cannot be started, and is made anew."""
        try:
            self._start(unit_id)
            return unit_id
        except PortTaken:
            raise
        except DockerFailed:
            self.docker.remove_container(unit_id, force=True)
            made = self._make(door, back, serving=True)
            self._join(made, back)
            self._start(made)
            return made

    def _point(self, door: Door, back: _Back) -> None:
        """Tell the running HAProxy, and see that it is so before anybody is let in."""
        address = _address(self.docker.inspect(back.container.id))
        serves = address is None or self._aim(door, back, address)
        if not serves:
            self._let_in(door, back, AT_FIRST)
        elif door not in self._paced:
            self._let_in(door, back, UNLIMITED)

    def _aim(self, door: Door, back: _Back, address: str) -> bool:
        return self._talk.aim(door, back.pointing, address, self._name(door))

    def _let_in(self, door: Door, back: _Back, at_once: int) -> None:
        self._talk.let_in(door, back.pointing, at_once)
        if at_once < UNLIMITED:
            self._paced[door] = back.pointing
        failpoint("ingress.pointed")

    def _released(self) -> None:
        """Nobody is held any more."""
        if self._held_since is not None:
            self._held_seconds, self._held_since = self.held_seconds, None
            self.say(f"connections were held for {self._held_seconds} s")

    # the containers ---------------------------------------------------------------------------

    def _units(self) -> dict[Door, Listed]:
        return units(self.stack, self.docker)

    @property
    def _labels(self) -> dict[str, str]:
        # As the worlds' own: `lockstep stop` stops it with them.
        return {OUR_PROJECT: self.stack.project, OUR_STACK: self.stack.name}

    @property
    def _network(self) -> str:
        # Docker publishes ports through the network whose name comes first, and moves them, with
        # every connection lost, when another takes its place.
        return f"0-{self.stack.project}-{self.stack.name}-ingress"

    @cached_property
    def _gate(self) -> str:
        found = self.docker.network(self._network)
        if found is None:
            self.docker.create_network(self._network, self._labels, {})
            found = self.docker.network(self._network)
        if found is None or not found.subnets:
            raise DockerFailed(f"network {self._network} has no addresses")
        return file.unused_address(next(s for s in found.subnets if ":" not in s))

    @cached_property
    def _image(self) -> str:
        name = self.stack.settings.ingress.image
        found = self.docker.image(name)
        if found is None and not name.startswith(LOCAL):
            found = self.docker.pull(name, self.say)
        if found is None:
            raise Refused(f"the image of the ingress, {name}, is missing", next_step=GET_IMAGE)
        return found.id

    def _name(self, door: Door) -> str:
        return f"{self.stack.project}-{self.stack.name}-ingress-{door.slug}"

    def _folder(self, door: Door) -> Path:
        return folder(self.catalog, door)

    def _is_ours_as_made(self, unit: Listed) -> bool:
        """By today's image, if that can be had."""
        with suppress(LockstepError):
            return unit.image_id == self._image
        return True

    def _make(self, door: Door, back: _Back, *, serving: bool) -> str:
        image = self._image
        self._write(door, back, serving=serving)
        here = self._folder(door).resolve()
        self.say(f"making the ingress of port {door}")
        made = self.docker.create_server(
            self._name(door),
            image,
            command=("haproxy", "-db", "-f", f"{file.INSIDE}/{file.FILE}"),
            labels={**self._labels, OF_STACK: stack_of(self.stack), DOOR: f"{door.ip} {door.port}"},
            user=self._user[1],
            network=self._network,
            publish=Published(door.ip, door.port, "tcp", file.PORT),
            folders={
                str(here / "config"): (file.INSIDE, False),
                str(here / "run"): (file.RUN_INSIDE, True),
            },
            sysctls=_SYSCTLS,
        )
        failpoint("ingress.made")
        return made

    @property
    def _user(self) -> tuple[int | None, str]:
        """Whose the files are (None: ours), and who HAProxy is. Only they may read them."""
        if self.docker.info.rootless:
            return None, "0:0"  # inside; on the host it is the daemon's own user
        if os.geteuid() == 0:
            return _USER, f"{_USER}:{_USER}"
        return None, f"{os.geteuid()}:{os.getegid()}"

    def _write(self, door: Door, back: _Back, *, serving: bool) -> None:
        """The configuration that the door's HAProxy starts from, durably."""
        self._draft(door, back, serving=serving)
        self._publish(door)

    def _draft(self, door: Door, back: _Back, *, serving: bool) -> None:
        here, (owner, _) = self._folder(door), self._user
        for part in (here / "config", here / "run"):
            make_folder(part)
            if owner is not None:
                os.chown(part, owner, owner)
        settings = self.stack.settings.ingress
        content = file.text(back.pointing, settings, self._gate, serving=serving)
        draft = self._config(door).with_name(_DRAFT)
        write_durably(draft, content.encode(), owner=owner)

    def _publish(self, door: Door) -> None:
        path = self._config(door)
        path.with_name(_DRAFT).replace(path)
        fsync_directory(path.parent)

    def _config(self, door: Door) -> Path:
        return self._folder(door) / "config" / file.FILE

    def _start(self, unit_id: str) -> None:
        """Start it, and wait until it answers. Raises PortTaken when the port stays taken."""
        give_up = time.monotonic() + _PORT_SECONDS
        while True:
            try:
                self.docker.start(unit_id)
                break
            except PortTaken:
                # A port is free only when Docker has cleaned up after its last holder.
                if time.monotonic() > give_up:
                    raise
                time.sleep(0.1)
        details = self.docker.inspect(unit_id)
        ip, _, port = details.labels[DOOR].rpartition(" ")
        give_up = time.monotonic() + _ANSWER_SECONDS
        while True:
            try:
                self._talk.ask(Door(ip, int(port)), "show info")
                return
            except Unavailable:
                now = self.docker.inspect(unit_id)
                if now.state not in ("running", "restarting") or time.monotonic() > give_up:
                    said = self.docker.logs(unit_id, tail=3).strip()
                    raise DockerFailed(f"{now.name} does not work: {said}") from None
                time.sleep(_LOOK)

    def _remove(self, unit: Listed) -> None:
        self.docker.remove_container(unit.id, force=True)
        shutil.rmtree(self._folder(door_of(unit)), ignore_errors=True)

    def _join(self, unit_id: str, back: _Back) -> None:
        network = _network_of(back.container)
        if network in self.docker.inspect(unit_id).networks:
            return
        found = self.docker.network(network)
        # In a network that all worlds share a container may ask for a low address of its own.
        subnets = found.subnets if found is not None else ()
        v4 = next((s for s in subnets if ":" not in s), None)
        address = file.unused_address(v4) if v4 is not None else None
        self.docker.join_network(unit_id, network, address)

    def _leave_others(self, unit_id: str, back: _Back) -> None:
        for network in self.docker.inspect(unit_id).networks - {
            self._network,
            _network_of(back.container),
        }:
            self.docker.leave_network(unit_id, network)


def _backs(world: HostWorld) -> dict[Door, _Back]:
    found = (
        (behind.door, _Back(behind, container))
        for service in world.services.values()
        for container in service.containers
        for behind in read(container.behind)
    )
    return dict(sorted(found, key=lambda entry: entry[0]))


def _network_of(container: ContainerDetails) -> str:
    return min(container.networks)


def _address(container: ContainerDetails) -> str | None:
    """Where it answers, in the network that the ingress shares with it; None while it is down."""
    return container.addresses.get(_network_of(container))
