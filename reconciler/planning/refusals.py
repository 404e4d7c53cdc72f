"""What must not be done, each with the evidence and what would allow it. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from reconciler.errors import Exit
from reconciler.plan import Action, DatasetPlan, DiskNeed, Refusal
from reconciler.planning.situation import Situation
from reconciler.project import compose
from reconciler.project.dangers import find as find_dangers
from reconciler.project.dangers import refused, remedy
from reconciler.records import lineage
from reconciler.records.ledger import World
from reconciler.records.release import Release

RESERVE_BYTES = 64 << 20
"""Free space that no plan may use up."""
RESERVE_FILES = 1000
"""Likewise, of the files that can still be made: a world's containers and the store need some."""


def unusable(now: Situation, target: str) -> Refusal:
    """A declared release that there is no usable record of."""
    if target in now.facts.damaged:
        return Refusal(now.facts.damaged[target], "lockstep list   shows usable releases")
    if now.state.was_pruned(target):
        return Refusal(
            f"{target} was pruned: it left the window and its data is gone",
            "lockstep list   shows the releases there are",
            Exit.BAD_INPUT,
        )
    near = difflib.get_close_matches(target, now.facts.records, n=3, cutoff=0.5)
    hint = f"; the nearest are {', '.join(near)}" if near else ""
    return Refusal(
        f"there is no release {target}{hint}",
        "lockstep list   shows the releases there are",
        Exit.BAD_INPUT,
    )


def dangers(now: Situation, record: Release) -> list[Refusal]:
    """What would let a container take over its host, and the config does not allow."""
    if record.adopted:
        return []
    allow = now.stack.settings.allow
    found = [d for d in find_dangers(record.model) if d.place != "build"]
    return [
        Refusal(f"service {d.service} of {record.name} {d.what}", remedy([d], allow))
        for d in refused(found, allow)
    ]


def unfinished(now: Situation) -> list[Refusal]:
    """Gates of the config that were set key by key, and not to their end."""
    shows = "docs/gates.md says what a gate may say; lockstep config set KEY VALUE   adds to it"
    return [
        Refusal(f"config {lacks}", shows, Exit.BAD_INPUT) for lacks in now.stack.settings.lacking
    ]


def unanswerable(now: Situation, record: Release) -> list[Refusal]:
    """Gates of jobs that need a running container: by then it has ended."""
    found = []
    for service in compose.services(record.model):
        if not compose.is_job(record.model, service):
            continue
        gates = compose.gates(record.model, now.stack.settings, service)
        kinds = {kind for gate in gates for kind, _ in gate.asks()} - {"log", "host"}
        if kinds:
            found.append(
                Refusal(
                    f"service {service} of {record.name} is a job: when it is asked by gates "
                    f"({', '.join(sorted(kinds))}) it has ended",
                    f"lockstep config set --path 'gates.{service}.log.must[0]' TEXT   asks what it "
                    "said; its exit code is asked anyway",
                    Exit.BAD_INPUT,
                )
            )
    return found


def unasked(now: Situation, record: Release) -> list[str]:
    """Gates of the config that nobody is asked by, as sentences."""
    settings, services = now.stack.settings, compose.services(record.model)
    late = compose.after_commit(record.model)
    named = [
        *((f"gates.{service}", service) for service in settings.gates),
        *(("stackGates", gate.service) for gate in settings.stackGates if gate.service),
    ]
    return [
        f"config {key} asks nothing: "
        + (
            f"{service} starts after the commit"
            if service in services
            else f"{record.name} has no service {service}"
        )
        for key, service in named
        if service not in services or service in late
    ]


def quarantine(now: Situation, record: Release) -> list[Refusal]:
    """A release that failed its proof, unless `retry` answers that very failure."""
    failed = now.state.quarantined.get(record.name)
    if failed is None or now.stack.settings.retry == failed:
        return []
    # The first line: what follows are the container's last words, which `info` has.
    why = (now.state.worlds[failed].failed or "it did not pass its proof").splitlines()[0]
    return [
        Refusal(
            f"{record.name} is quarantined: {why}",
            f"lockstep info {record.name}   tells how it failed; declare a new release (lockstep "
            f"new), or answer this failure: lockstep config set retry {failed}",
        )
    ]


def images(now: Situation, release: str) -> tuple[Refusal, ...]:
    """Images of a release that are missing, or whose tag means another image now."""
    found = []
    for service, (tag, image_id) in now.images_of(release).items():
        there = now.facts.images.get(tag)
        if there is None and image_id in now.facts.image_ids:
            continue  # only its tag is gone, which `up` puts back
        if there is None:
            found.append(
                Refusal(
                    f"image {tag} of service {service} in {release} is missing "
                    f"(it was {image_id[:19]})",
                    _way_back(now, release, service, tag),
                )
            )
        elif there != image_id:
            found.append(
                Refusal(
                    f"tag {tag} was moved: it is {there[:19]}, {release} was made "
                    f"with {image_id[:19]}",
                    f"docker tag {image_id[:19]} {tag}   puts it back",
                )
            )
    return tuple(found)


def _way_back(now: Situation, release: str, service: str, tag: str) -> str:
    """How the very same image can be had again: only what a registry has."""
    record = now.facts.records.get(release)
    image = record.images.get(service) if record is not None else None
    if image is not None and image.digests:
        pulled = image.digests[0]
        return f"docker pull {pulled} && docker tag {pulled} {tag}   gets it from its registry"
    return (
        f"docker load   from a `docker save` of {tag}; it was built here, so nobody else has it: "
        "else declare another release"
    )


def worlds_beside(now: Situation) -> list[Refusal]:
    """Worlds of this stack that run although another one is live.

    Somebody started them by hand, or the ledger is older than the host: then what they write is
    the live data, and no fork or return may touch it.
    """
    found = []
    for world in now.state.worlds.values():
        if world.name == now.state.live or world.removed or world.adopted:
            continue
        containers = now.facts.containers.get(world.name, ())
        running = sorted(c.name for c in containers if c.state in ("running", "restarting"))
        if running:
            found.append(
                Refusal(
                    f"{', '.join(running)} of {world.name} run although the ledger says that "
                    f"{now.state.live or 'nothing'} is live",
                    f"docker compose -p {world.name} stop   if somebody started them by hand; if "
                    "the ledger is an old copy, put the newest one back",
                )
            )
    return found + worlds_unknown(now)


def worlds_unknown(now: Situation) -> list[Refusal]:
    """Worlds of this stack that run and that the ledger does not know: it is an old copy. What it
    says is live may have been left since, and must not even be started."""
    unknown = now.facts.containers.keys() - now.state.worlds.keys() - {now.stack.project}
    running = sorted(
        c.name
        for world in unknown
        for c in now.facts.containers[world]
        if c.state in ("running", "restarting")
    )
    if not running:
        return []
    return [
        Refusal(
            f"{', '.join(running)} run, of a world that the ledger does not know",
            "put the newest copy of the ledger (releases/) back",
        )
    ]


def foreign_users(now: Situation, datasets: Mapping[str, DatasetPlan]) -> list[Refusal]:
    """Volumes of the move that running containers of others mount."""
    found = []
    for planned in datasets.values():
        users = now.facts.foreign_mounts.get(planned.generation, ())
        users = (*users, *now.facts.foreign_mounts.get(planned.source or "", ()))
        if users and not planned.shared and not planned.stop_owner:
            found.append(
                Refusal(
                    f"dataset {planned.name}: {planned.source or planned.generation} is in use "
                    f"by {', '.join(sorted(set(users)))}, which is none of ours",
                    "stop it first, or declare the dataset shared",
                )
            )
    return found


def lost(now: Situation, datasets: Mapping[str, DatasetPlan] | None = None) -> list[Refusal]:
    """Live data whose volume somebody removed: of all datasets, or of those that a move forks. It
    is never made anew empty."""
    live = now.live
    found = []
    for dataset, volume in live.generations.items() if live is not None else ():
        planned = datasets.get(dataset) if datasets is not None else None
        forked = planned is not None and planned.source == volume and planned.new
        if volume in now.facts.volumes or (datasets is not None and not forked):
            continue
        ways = ["put the volume back from a backup of yours, if there is one"]
        nearest = next(now.saved(dataset, now.state.live, now.state.seq + 1), None)
        if nearest is not None:
            snapshot, whose = nearest
            way = lineage.way_to(now.state.live_release, snapshot)
            ways.insert(0, f"{way}   takes {whose}, the newest there is")
        found.append(
            Refusal(
                f"the live data of dataset {dataset} is gone: volume {volume} does not exist",
                "\n  ".join(ways),
            )
        )
    return found


def moved_away(now: Situation, *worlds: str | None) -> list[Refusal]:
    """What containers of a move's worlds mount and is gone: they would not start (again)."""
    found = []
    for world in dict.fromkeys(worlds):
        missing = now.facts.missing_mounts.get(world or "", ())
        if not missing:
            continue
        before, ours, _ = missing[0].partition(f"/{now.stack.releases.name}/files/")
        folder = f"; if the folder was moved:  ln -s {now.stack.root.resolve()} {before}"
        found.append(
            Refusal(
                f"{missing[0]}, which containers of {world} mount, does not exist: they could not "
                "be started",
                f"put it back{folder if ours else ''}",
            )
        )
    return found


def ports(now: Situation, record: Release) -> list[Refusal]:
    """Ports that the release publishes and somebody else holds."""
    published = {(p.port, p.protocol) for p in compose.published_ports(record.model)}
    return [
        Refusal(
            f"port {held.port}/{held.protocol} that {record.name} publishes is held by "
            f"{held.holder}",
            "stop it, or publish another port",
        )
        for held in now.facts.ports
        if (held.port, held.protocol) in published
    ]


def replicas(record: Release) -> list[Refusal]:
    """Services of which several containers would publish one port: Docker starts only the first,
    and the ingress serves one container."""
    found = []
    published = compose.published_ports(record.model)
    for service, body in compose.services(record.model).items():
        number = compose.replicas(record.model, service)
        fixed = [str(p.port) for p in published if p.service == service]
        if number > 1 and fixed and not body.get("network_mode"):
            last = int(fixed[0]) + number - 1
            found.append(
                Refusal(
                    f"service {service} of {record.name} has {number} containers, and port "
                    f"{', '.join(fixed)} could be published by one of them only",
                    f"publish a range, {fixed[0]}-{last}, which gives each a port of its own; or "
                    "let one container of a balancer publish the port for all",
                )
            )
    return found


def vanished(now: Situation, record: Release, live: World | None) -> list[Refusal]:
    """Datasets of the live world that a release never live before does not know."""
    if live is None or now.state.was_live(record.name):
        return []
    known = set(record.datasets) | set(record.dropped)
    known |= {d.was for d in record.datasets.values() if d.was}
    return [
        Refusal(
            f"dataset {name} of {live.release} is not in {record.name}",
            "declare the release anew with x-lockstep: {was: "
            + name
            + "} on the volume that replaces it, or x-lockstep: {dropped: ["
            + name
            + "]} at the top of the compose file",
        )
        for name in live.generations
        if name not in known
    ]


def disk(now: Situation, datasets: Mapping[str, DatasetPlan]) -> tuple[DiskNeed, list[Refusal]]:
    """What the move needs, and the refusal when there is less than that and a reserve."""
    room = now.facts.disk
    copies = [d for d in datasets.values() if d.new and d.action in (Action.FORK, Action.RESTORE)]
    written = [d for d in copies if not (d.action is Action.FORK and room.reflink)]
    needed = sum(d.bytes or 0 for d in written)
    captured = sum(d.bytes or 0 for d in datasets.values() if d.action is Action.IN_PLACE)
    files = sum(_files(now, d) for d in copies)
    together = needed + captured if room.one else needed
    need = DiskNeed(needed, room.volumes_free, room.store_free)
    if needed and together + RESERVE_BYTES > room.volumes_free:
        return need, [_no_space(needed, together - needed, room.volumes_free)]
    if captured and captured + RESERVE_BYTES > room.store_free:
        return need, [
            Refusal(
                f"not enough disk for a safety snapshot: {_mib(captured)} MiB are needed, "
                f"{_mib(room.store_free)} MiB are free for the store",
                "free space, or put the store elsewhere (lockstep config set store PATH)",
            )
        ]
    if copies and room.volumes_inodes is not None and files + RESERVE_FILES > room.volumes_inodes:
        return need, [
            Refusal(
                f"not enough inodes for a second copy of the data: it has {files} files, "
                f"{room.volumes_inodes} can still be made, and {RESERVE_FILES} are kept in reserve",
                "remove files, or lower the window (lockstep config set window 1)",
            )
        ]
    if captured and room.store_inodes is not None and room.store_inodes < RESERVE_FILES:
        return need, [
            Refusal(
                f"not enough inodes for a safety snapshot: {room.store_inodes} files can still be "
                "made in the store",
                "remove files that nobody needs there, or put the store elsewhere "
                "(lockstep config set store PATH)",
            )
        ]
    return need, []


def _no_space(needed: int, captured: int, free: int) -> Refusal:
    beside = f", {_mib(captured)} MiB for safety snapshots" if captured else ""
    return Refusal(
        f"not enough disk for a second copy of the data: {_mib(needed)} MiB{beside} and a "
        f"reserve of {_mib(RESERVE_BYTES)} MiB are needed, {_mib(free)} MiB are free",
        "free space, lower the window (lockstep config set window 1), or keep the volumes on XFS "
        "or btrfs, where a fork needs no space",
    )


def _files(now: Situation, planned: DatasetPlan) -> int:
    if planned.action is Action.RESTORE:
        return now.facts.snapshots[planned.snapshot].files if planned.snapshot else 0
    return now.facts.files.get(planned.source or "", 0)


def _mib(size: int) -> int:
    return -(-size // (1 << 20))
