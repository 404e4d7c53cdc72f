"""`lockstep doctor`: what could be in the way, each with what to do about it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import typer

from cli import doctorclock, doctordata, failures, moves, options
from cli.context import Context
from cli.finding import FAILED, OK, WARNING, Finding
from reconciler.errors import Exit, LockstepError

TIGHT_BYTES = 1 << 30


def doctor(context: typer.Context, as_json: options.Json = False) -> None:
    """Check the host, the stack and the catalog; exit 1 when something is wrong."""
    findings = examine(Context.of(context))
    if as_json:
        from cli.releases import print_json

        print_json(document(findings))
    else:
        _show(findings)
    raise typer.Exit(Exit.FAILED if any(f.level == FAILED for f in findings) else Exit.OK)


def document(findings: list[Finding]) -> dict[str, object]:
    """`doctor`: what every check saw."""
    sound = all(f.level != FAILED for f in findings)
    return {"schema": 1, "sound": sound, "checks": [asdict(finding) for finding in findings]}


def examine(here: Context) -> list[Finding]:
    """Run every check. One that cannot be made is a failure, said once however many need it."""
    findings: list[Finding] = []
    said: set[str] = set()
    for name, check in CHECKS:
        try:
            findings += check(here)
        except Exception as error:
            if failures.exit_code(error) is None:
                raise
            if str(error) not in said:
                findings.append(_not_made(name, error))
            said.add(str(error))
    return findings


def _not_made(name: str, error: Exception) -> Finding:
    if isinstance(error, LockstepError):
        return Finding(name, FAILED, error.message, error.next_step)
    return Finding(name, FAILED, str(error))


def _engine(here: Context) -> Iterator[Finding]:
    from cli import engines

    choice = engines.choose(os.environ, here.project.root)
    too_old = "has no resource hooks" in choice.says
    yield Finding("pulumi", WARNING if too_old else OK, choice.says.removeprefix("Pulumi: "))


def _config(here: Context) -> Iterator[Finding]:
    declared = here.stack.settings.release or "no release"
    yield Finding("config", OK, f"stack {here.stack_name} declares {declared}")


def _docker(here: Context) -> Iterator[Finding]:
    info = here.docker.info
    yield Finding("docker", OK, f"Docker Engine {info.version}, API {info.api}")


def _volumes(here: Context) -> Iterator[Finding]:
    """How the content of volumes is reached."""
    from reconciler.reaching import helperimage, reach

    way = reach.way(here.docker)
    if way.direct:
        yield Finding("volumes", OK, f"read directly: {way.why}")
        return
    image = helperimage.ensure(here.docker).removeprefix("sha256:")[:12]
    yield Finding("volumes", OK, f"read through helper containers (image {image}): {way.why}")


def _compose(here: Context) -> Iterator[Finding]:
    own = here.compose.environment.get("DOCKER_CONFIG")
    yield Finding("compose", OK, f"the Compose plugin is there{f' (in {own})' if own else ''}")


def _compose_file(here: Context) -> Iterator[Finding]:
    from reconciler.project import compose, source

    warnings: list[str] = []
    model = source.read_model(here.stack, here.compose, warnings.append)
    found = source.define(here.stack, model, image_volumes=_image_volumes(here))
    services = compose.services(model)
    for warning in (*warnings, *found.warnings):
        yield Finding("compose file", WARNING, warning)
    yield Finding("compose file", OK, f"{len(services)} services, {len(found.datasets)} datasets")


def _image_volumes(here: Context) -> dict[str, tuple[str, ...]]:
    """Service -> the volumes that its image of the declared release has of its own."""
    good, _ = here.catalog.records()
    record = good.get(here.stack.settings.release or "")
    images = record.images if record is not None else {}
    there = {service: here.docker.image(image.id) for service, image in images.items()}
    return {service: image.volumes for service, image in there.items() if image is not None}


def _writable(here: Context) -> Iterator[Finding]:
    for name, folder in (("catalog", here.stack.releases), ("store", here.stack.store)):
        existing = nearest_existing(folder)
        if not os.access(existing, os.W_OK | os.X_OK):
            yield Finding(
                name, FAILED, f"{existing} is not writable", f"chown or chmod it, for {folder}"
            )
        else:
            yield Finding(name, OK, f"{folder} is writable")


def _disk(here: Context) -> Iterator[Finding]:
    from reconciler.planning.impact import size

    places = {"disk of the store": here.stack.store, "disk of the volumes": here.docker.info.root}
    for name, folder in places.items():
        free = shutil.disk_usage(nearest_existing(folder)).free
        yield Finding(
            name,
            WARNING if free < TIGHT_BYTES else OK,
            f"{size(free)} free",
            "free space before the next up" if free < TIGHT_BYTES else "",
        )


def _ledger(here: Context) -> Iterator[Finding]:
    from reconciler.records import trust

    state = here.catalog.state()
    yield Finding("ledger", OK, f"{state.seq} events, the chain is whole")
    mended = here.catalog.mend_manifest()
    if mended:
        yield Finding("manifest", WARNING, mended)
    good, damaged = here.catalog.records(state)
    accepted = here.stack.settings.trust
    found = trust.examine(moves.last_head(here), here.catalog, state, accepted)
    for why in (found.ledger, *found.records.values()):
        if why:
            yield Finding("records", FAILED, why, found.remedy)
    broken = trust.broken(here.catalog, state, good)
    for why in (*broken.values(), *damaged.values()):
        yield Finding("records", FAILED, why, "put back a copy of the file; others go on")
    if not damaged:
        yield Finding("records", OK, f"{len(good)} can be read")
    declared = here.stack.settings.release
    if declared is not None and declared not in {*good, *damaged}:
        yield Finding(
            "records",
            FAILED,
            f"stack {here.stack_name} declares {declared}, which does not exist",
            "lockstep list   shows the releases there are",
        )


def _journal(here: Context) -> Iterator[Finding]:
    from reconciler.host import hostlock
    from reconciler.records import journal

    holder = hostlock.holder()
    world = journal.unfinished(here.catalog.journal)
    if world is None:
        yield Finding("journal", OK, "no switch is unfinished")
    elif holder is not None:
        yield Finding("journal", OK, f"a switch to {world} is under way: {holder}")
    else:
        yield Finding(
            "journal",
            FAILED,
            f"a switch to {world} was interrupted",
            "lockstep recover   finishes or reverts it",
        )


def _live(here: Context) -> Iterator[Finding]:
    state = here.catalog.state()
    if state.live is None:
        yield Finding("live world", OK, "nothing is live yet")
        return
    if state.dissolved:
        yield Finding(
            "live world", WARNING, f"{state.live} was live until `lockstep remove`",
            "lockstep preview   shows what brings a release back",
        )  # fmt: skip
        return
    found = here.docker.containers(project=state.live)
    still = [c.name for c in found if c.state != "running" and c.exit_code != 0]
    if state.stopped:
        yield Finding(
            "live world", WARNING, f"{state.live} was stopped by hand", "lockstep up   starts it"
        )
    elif not found or still:
        what = f"{', '.join(still)} stand still" if found else "has no containers"
        yield Finding(
            "live world", FAILED, f"{state.live}: {what}", "lockstep up   starts what is missing"
        )
    else:
        yield Finding("live world", OK, f"{state.live} runs {len(found)} containers")


def _restart_policies(here: Context) -> Iterator[Finding]:
    """A reboot must bring back exactly the live world."""
    from reconciler.project import compose

    state = here.catalog.state()
    good, _ = here.catalog.records()
    wrong = []
    for world in state.worlds.values():
        record = good.get(world.release)
        if world.removed or record is None:
            continue
        live = world.name == state.live and not state.stopped
        for container in here.docker.containers(project=world.name):
            wanted = compose.restart_policy(record, container.service) if live else "no"
            if container.restart_policy != wanted:
                wrong.append((container.name, container.restart_policy, wanted))
    for name, policy, wanted in wrong:
        yield Finding(
            "restart policies",
            WARNING,
            f"{name} has restart {policy}, a reboot would bring back the wrong containers",
            f"docker update --restart {wanted} {name}",
        )
    if not wrong:
        yield Finding("restart policies", OK, "a reboot brings back exactly the live world")


def _foreign(here: Context) -> Iterator[Finding]:
    state = here.catalog.state()
    project = here.project.name
    if state.live is None or state.live == project:
        return
    running = [c.name for c in here.docker.containers(project=project, running=True)]
    if running:
        yield Finding(
            "foreign starts",
            WARNING,
            f"the plain compose project {project} runs beside the live world: {', '.join(running)}",
            f"docker compose -p {project} stop",
        )


def _health(here: Context) -> Iterator[Finding]:
    from reconciler.project import compose
    from reconciler.switching import deaf

    state = here.catalog.state()
    good, _ = here.catalog.records()
    live = state.worlds.get(state.live or "")
    record = good.get(live.release) if live else None
    if live is None or record is None:
        return
    for container in here.docker.containers(project=live.name, running=True):
        details = here.docker.inspect(container.id)
        service = container.service
        if details.unhealthy:
            yield Finding(
                "health",
                FAILED,
                f"Docker calls {container.name} unhealthy: its health check fails",
                f"lockstep compose logs {service}   shows what it says",
            )
        known = service in compose.services(record.model)
        gates = compose.gates(record.model, here.stack.settings, service) if known else ()
        if known and details.health is None and not gates:
            yield Finding(
                "health",
                WARNING,
                f"service {service} has no health check and no gate: it is proved by running alone",
                f"add healthcheck: to it, or: lockstep config set gates.{service}.tcp PORT",
            )
        unheard = deaf.of(details, here.docker.image)
        if unheard is not None:
            yield Finding(
                "stop signal",
                WARNING,
                str(unheard),
                "init: true in the compose file, or another stop_signal, makes it quick",
            )


def nearest_existing(folder: Path) -> Path:
    """The folder itself, or the first one above it that exists."""
    return next(path for path in (folder, *folder.parents) if path.is_dir())


def _aside(here: Context) -> Iterator[Finding]:
    from reconciler.trials.aside import Aside

    for kind, command in (("drill", "drill"), ("rehearsal", "rehearse")):
        aside = Aside(kind, here.stack, here.catalog, here.docker)
        left = aside.leftovers()
        if left and not aside.under_way():
            yield Finding(
                kind,
                WARNING,
                f"a {kind} that did not end left {', '.join(left)}",
                f"lockstep {command}   removes them first",
            )


CHECKS: tuple[tuple[str, Callable[[Context], Iterator[Finding]]], ...] = (
    ("pulumi", _engine),
    ("config", _config),
    ("docker", _docker),
    ("volumes", _volumes),
    ("compose", _compose),
    ("compose file", _compose_file),
    ("catalog", _writable),
    ("disk", _disk),
    ("clock", doctorclock.clock),
    ("ledger", _ledger),
    ("journal", _journal),
    ("data", doctordata.data),
    ("images", doctordata.images),
    ("live world", _live),
    ("ingress", doctordata.ingress_of_live),
    ("config files", doctordata.config_files),
    ("restart policies", _restart_policies),
    ("foreign starts", _foreign),
    ("health", _health),
    ("drill", _aside),
)


def _show(findings: list[Finding]) -> None:
    from rich.text import Text

    from cli import tables

    style = {OK: "green", WARNING: "yellow", FAILED: "red"}
    made = tables.table("", "check", "", wide=("",))
    for finding in findings:
        text = Text(finding.text)
        if finding.remedy:
            text.append(f"\n{finding.remedy}", style="cyan")
        made.add_row(Text(finding.level, style=style[finding.level]), finding.check, text)
    tables.console().print(made)
