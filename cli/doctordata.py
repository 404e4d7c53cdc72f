"""What `lockstep doctor` looks at of releases: their data, images and config files."""

from __future__ import annotations

from collections.abc import Iterator

from cli.context import Context
from cli.finding import FAILED, OK, WARNING, Finding


def data(here: Context) -> Iterator[Finding]:
    """What releases left is in the store, and sealed volumes are as they were sealed."""
    from reconciler.planning import retention
    from reconciler.upkeep import untouched

    state = here.catalog.state()
    debts = state.debts()
    for departure, dataset in debts:
        yield Finding(
            "data",
            WARNING,
            f"{dataset} as {departure.release} left it is not in the store yet",
            "lockstep up   captures it",
        )
    good, _ = here.catalog.records()
    needed = retention.needed_snapshots(state, good)
    missing: set[str] = set()
    if needed:
        store = here.stack.open_store(create=False)
        missing = needed - set(store.ids())
        for volume, release, files in untouched.edited(state, here.docker, store):
            text = f"somebody changed files in volume {volume} since {release} was left"
            remedy = (
                f"lockstep config set release {release}, then lockstep preview   names the ways"
            )
            yield Finding("data", WARNING, f"{text}: {', '.join(files)}", remedy)
    for snapshot in sorted(missing):
        yield Finding("data", FAILED, f"snapshot {snapshot[:20]} is not in the store")
    if not debts and not missing:
        yield Finding("data", OK, f"{len(needed)} snapshots that releases need are in the store")


def images(here: Context) -> Iterator[Finding]:
    """Images of kept releases are there, and held against prune."""
    from reconciler.world import imagehold

    good, _ = here.catalog.records()
    gone = imagehold.missing(here.docker, {n: imagehold.of(r) for n, r in good.items()})
    for release, why in gone.items():
        remedy = (
            f"lockstep config set release {release}, then lockstep preview   names the way back"
        )
        yield Finding("images", WARNING, f"{release} is unusable: {why}", remedy)
    for holder in imagehold.holders(here.stack, here.docker):
        if holder.state != "running":
            yield Finding(
                "images",
                WARNING,
                f"container {holder.name}, which holds an image of a kept release against "
                "`docker system prune -a`, does not run",
                f"docker start {holder.name}",
            )
    if not gone:
        yield Finding("images", OK, f"the images of {len(good)} releases are there")


def config_files(here: Context) -> Iterator[Finding]:
    """What the live world mounts from its folder of files is as it was recorded."""
    from reconciler.world import places

    state = here.catalog.state()
    live = state.worlds.get(state.live or "")
    good, _ = here.catalog.records(state)
    record = good.get(live.release) if live is not None else None
    if live is None or record is None or record.adopted:
        return
    altered = places.altered_files(here.catalog, live.name, record)
    for path in altered:
        yield Finding(
            "config files",
            WARNING,
            f"{path} is not as {record.name} has it",
            "lockstep stop, then lockstep up   puts it back",
        )
    if not altered:
        yield Finding("config files", OK, f"{len(record.configs)} are as {record.name} has them")


def ingress_of_live(here: Context) -> Iterator[Finding]:
    """Whether the ingress has the ports of the live world, and serves it."""
    from reconciler.ingress import ingressfacts

    state, units = here.catalog.state(), ingressfacts.units(here.stack, here.docker)
    if state.standing is None or state.stopped:
        return
    live = here.docker.containers(project=state.live)
    wrong = ingressfacts.examine(here.catalog, units, live)
    for text in wrong:
        yield Finding("ingress", FAILED, text, "lockstep up   puts it right")
    if units and not wrong:
        ports = ", ".join(map(str, sorted(units)))
        yield Finding("ingress", OK, f"has port {ports} and serves {state.live}")
