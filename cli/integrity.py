"""`lockstep verify` and `lockstep repair`: is what the store holds still what was captured?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import options
from cli.context import Context, check_release
from cli.encryption import PassphraseFile
from cli.snapshots import StoreOption, docker_for, in_stack, opened
from reconciler.errors import BadInput, StoreDamaged

if TYPE_CHECKING:
    from rich.table import Table

    from reconciler.records.ledger import State
    from snapshots.repair import Repaired
    from snapshots.report import Finding, Report
    from snapshots.store import Store

REPAIR = "lockstep repair   mends what another pack or a sealed volume still has"
SHOWN = 3
"""Files of one damage that are named to a person; `--json` has all."""


def verify(
    context: typer.Context,
    release: Annotated[
        str | None,
        typer.Argument(help="Only what this release needs; the whole store if not named."),
    ] = None,
    read_data: Annotated[
        bool, typer.Option("--read-data", help="Read and check every byte, not only what is there.")
    ] = False,
    store: StoreOption = None,
    passphrase_file: PassphraseFile = None,
    as_json: options.Json = False,
) -> None:
    """Check that what the store holds can be restored. Exit code 7 when something is damaged.

    Quick: records, trees, indexes and the presence of every block. Nothing is changed.
    """
    from cli.progress import bar
    from reconciler.upkeep import integrity
    from snapshots.verify import verify_all

    here = Context.of(context)
    source, state = opened(here, store, passphrase_file), state_of(here)
    wanted, missing = None, dict[str, list[str]]()
    if release is not None:
        _check(here, release)
        wanted, lost = integrity.snapshots_of(state, source, release)
        missing = {release: lost} if lost else {}
    elif in_stack(here) and source.path == here.stack.store:
        missing = integrity.missing(state, source, here.catalog.records()[0])
    with bar(here) as progress:
        report = verify_all(source, wanted, read_data=read_data, progress=progress)
    if in_stack(here) and source.path == here.stack.store:
        _note(here, report, missing, state, source, release=release, read_data=read_data)
    means = Means(state, source, _folders(here, state, source) if report.damages else {})
    if as_json:
        from cli.releases import print_json

        lost = sorted({snapshot for ids in missing.values() for snapshot in ids})
        print_json(document(report, lost, means, read_data=read_data))
    else:
        show(report, means, read_data=read_data)
    if missing:
        told = "; ".join(f"{name}: {', '.join(ids)}" for name, ids in missing.items())
        problem = f"snapshots that releases need are not in {source.path}: {told}"
        _tell(here, problem)
        raise StoreDamaged(problem, next_step="put a copy of the store back")
    if report.damages:
        _tell(here, f"{source.path} is damaged: {'; '.join(map(str, report.damages))}")
        raise StoreDamaged(f"{source.path} is damaged", next_step=REPAIR)


def _note(
    here: Context,
    report: Report,
    missing: Mapping[str, Sequence[str]],
    state: State,
    store: Store,
    *,
    release: str | None,
    read_data: bool,
) -> None:
    """What the report says of the state of the store."""
    from reconciler.upkeep import integrity, verifybook

    touched = [integrity.touched(state, store, damage.snapshots) for damage in report.damages]
    verifybook.note(
        here.catalog,
        release=release,
        read_data=read_data,
        snapshots=len(report.snapshots),
        bytes_read=report.bytes_read,
        seconds=report.seconds,
        damages=len(report.damages),
        damaged=sorted({name for names in touched for name in names if name} | missing.keys()),
    )


def _tell(here: Context, problem: str) -> None:
    """Whoever asked to be told of damage is told."""
    if in_stack(here):
        from reconciler.notifications import notifications

        notifications.tell_damage(here.stack, problem)


def repair(
    context: typer.Context,
    store: StoreOption = None,
    passphrase_file: PassphraseFile = None,
    as_json: options.Json = False,
) -> None:
    """Mend what is damaged in the store, from other packs and from sealed volumes.

    Content is taken from anywhere only if it has the right hash. Exit code 7 when something
    stays damaged.
    """
    from cli.progress import bar
    from reconciler.reaching import reach as repairs

    here = Context.of(context)
    source, state = opened(here, store, passphrase_file), state_of(here)
    means = Means(state, source, _folders(here, state, source))
    with bar(here) as progress:
        done = repairs.repair(source, means.folders, progress)
    if as_json:
        from cli.releases import print_json

        print_json(repaired(done, means))
    else:
        _show_repaired(done, means)
    if done.unmended:
        raise StoreDamaged(
            f"{source.path} is still damaged: the content is in no pack and no sealed volume",
            next_step="put back a copy of its packs, then   lockstep repair   again; a capture of "
            "the same content mends it, too",
        )


@dataclass(frozen=True)
class Means:
    """By what it is told what a damage means. `folders`: dataset -> where repair looks for it."""

    state: State
    store: Store
    folders: Mapping[str, Sequence[Path]]

    def of(self, finding: Finding) -> dict[str, Any]:
        """A damage with all that it touches, and where its content still is or may be."""
        from reconciler.upkeep import integrity

        exactly = integrity.still_in_volume(self.state, finding.snapshots)
        others = [p for p in self.folders.get(finding.dataset, ()) if not {*p.parts} & {*exactly}]
        return {
            **asdict(finding),
            "releases": integrity.touched(self.state, self.store, finding.snapshots),
            "still_in_volume": exactly,
            "may_be_in": [str(path) for path in others],
        }


def _folders(here: Context, state: State, store: Store) -> Mapping[str, Sequence[Path]]:
    from reconciler.upkeep import integrity

    return integrity.folders(state, store, docker_for(here, "./"))


def repaired(done: Repaired, means: Means) -> dict[str, Any]:
    """`repair`: what was mended, and what could not be, with all that it touches."""
    return {
        "schema": 1,
        "mended": done.mended,
        "blocks": done.blocks,
        "unmended": [means.of(finding) for finding in done.unmended],
        "aside": [str(path) for path in done.aside],
        "seconds": round(done.seconds, 3),
    }


def _show_repaired(done: Repaired, means: Means) -> None:
    from cli import tables

    out = tables.console()
    for finding in done.unmended:
        out.print(_told(means.of(finding)))
        out.print()
    for mended in done.mended:
        out.print(f"mended: {mended}")
    for path in done.aside:
        out.print(f"kept aside: {path}")
    if not done.mended and not done.unmended:
        out.print("nothing is damaged")


def _check(here: Context, release: str) -> None:
    if not in_stack(here):
        raise BadInput(
            f"{release} is a release of a stack, and there is none in this folder",
            next_step="lockstep -C FOLDER verify ...   works on the stack of a folder",
        )
    state = here.catalog.state()
    good, damaged = here.catalog.records(state)
    check_release(release, here.stack_name, {*good, *damaged}, state.pruned)


def state_of(here: Context) -> State:
    """The ledger's sum; nothing at all outside a stack's folder."""
    from reconciler.records.ledger import State

    return here.catalog.state() if in_stack(here) else State()


def document(
    report: Report, missing: Sequence[str], means: Means, *, read_data: bool
) -> dict[str, Any]:
    """`verify`: what was checked, and each damage with all that it touches."""
    return {
        "schema": 1,
        "sound": not report.damages and not missing,
        "read_data": read_data,
        "snapshots": report.snapshots,
        "missing": list(missing),
        "bytes_read": report.bytes_read,
        "seconds": round(report.seconds, 3),
        "damages": [means.of(finding) for finding in report.damages],
    }


def show(report: Report, means: Means, *, read_data: bool) -> None:
    """The damages one by one, and what was checked in one line."""
    from cli import tables

    out = tables.console()
    for finding in report.damages:
        out.print(_told(means.of(finding)))
        out.print()
    read = f", {tables.size(report.bytes_read)} read" if read_data else ""
    found = f"{len(report.damages)} damaged" if report.damages else "nothing is damaged"
    out.print(f"{len(report.snapshots)} snapshots checked{read} in {report.seconds:.1f} s: {found}")
    if not read_data and not report.damages:
        out.print("lockstep verify --read-data   also reads every byte")


def _told(damage: Mapping[str, Any]) -> Table:
    """One damage for a person: where, what, and what it means."""
    from rich.table import Table
    from rich.text import Text

    files, blocks = damage["files"], damage["blocks"]
    more = f", and {blocks - 1} more blocks" if blocks > 1 else ""
    others = f" and {len(files) - SHOWN} more" if len(files) > SHOWN else ""
    rows = {
        "damaged": " ".join(filter(None, (damage["dataset"], ", ".join(files[:SHOWN]) + others)))
        or "the store itself",
        "because": f"{damage['reason']}{more}",
        "touches": touches(damage["releases"]),
        "still whole": whole(damage),
    }
    made = Table.grid(padding=(0, 2))
    for name, text in rows.items():
        made.add_row(Text(name, style="bold red" if name == "damaged" else "bold"), Text(text))
    return made


def touches(releases: Mapping[str, Sequence[str]]) -> str:
    """`prod-001 (left), prod-002 (started from)`; without a release what it was taken of."""
    said = [
        f"{release} ({', '.join(how)})" if release else ", ".join(how)
        for release, how in releases.items()
    ]
    return ", ".join(said) or "no release"


def whole(damage: Mapping[str, Any]) -> str:
    """Where else the content is: it can be mended from there, and a rollback may not need it."""
    places = ["another pack of the store"] if damage["elsewhere"] else []
    places += [f"volume {volume}" for volume in damage["still_in_volume"]]
    if places:
        return ", ".join(places)
    if damage["may_be_in"]:
        return f"perhaps in {', '.join(damage['may_be_in'])}: repair looks there for the same bytes"
    return "nowhere known"
