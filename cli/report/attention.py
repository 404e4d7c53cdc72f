"""What a person should look at, worst first, each with the command that helps. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from cli.report import words
from cli.report.material import Material
from reconciler.decide import rollback_target
from reconciler.upkeep.verifybook import is_sound, of_release

OLD = timedelta(days=30)
"""A check or a drill longer ago proves little of today's disks."""


@dataclass(frozen=True)
class Notice:
    """One sentence, and what to type."""

    level: Literal["error", "warning"]
    text: str
    command: str = ""


def notices(material: Material) -> list[Notice]:
    """Errors first."""
    found = [*_what_runs(material), *_data(material), *_proofs(material)]
    return sorted(found, key=lambda notice: notice.level != "error")


def _what_runs(material: Material) -> Iterator[Notice]:
    state, declared = material.state, material.declared
    if material.interrupted is not None:
        text = f"A switch was interrupted: {material.interrupted}"
        yield Notice("error", text, "lockstep recover")
    if state.dissolved:
        text = f"`lockstep remove` took {state.live} away, which was live."
        yield Notice("error", text, "lockstep preview")
    elif state.stopped:
        yield Notice("error", "The stack was stopped by hand.", "lockstep up")
    for release, world in state.quarantined.items():
        failed = state.worlds[world].failed or ""
        why = f": {failed.splitlines()[0]}" if failed else ""
        if release == declared:
            text = f"{release} is declared, but failed its proof{why}"
            yield Notice("error", text, f"lockstep info {release}")
    if (
        declared is not None
        and declared != state.live_release
        and not state.quarantined.get(declared)
    ):
        live = f"{state.standing_release} is live" if state.standing_release else "nothing is live"
        yield Notice("warning", f"{declared} is declared, but {live}.", "lockstep preview")


def _data(material: Material) -> Iterator[Notice]:
    for name, why in material.damaged.items():
        yield Notice("error", f"The record of {name} cannot be used: {why}", "lockstep doctor")
    if material.store.problem:
        yield Notice(
            "error", f"The store cannot be read: {material.store.problem}", "lockstep doctor"
        )
    if owed := len(material.state.debts()):
        text = f"{owed} sealed generation{'s are' if owed > 1 else ' is'} not in the store yet."
        yield Notice("warning", text, "lockstep up")


def _proofs(material: Material) -> Iterator[Notice]:
    if not material.store.snapshots:
        return
    for release in material.records:
        check = of_release(material.checks, release)
        if check is not None and not is_sound(check, release):
            yield Notice(
                "error", f"What the store holds of {release} is damaged.", "lockstep repair"
            )
    read = max((c.when for c in material.checks if c.read_data), default=None)
    checked = words.moment(read)
    if checked is None:
        text = "No check has read every byte of the store yet."
        yield Notice("warning", text, "lockstep verify --read-data")
    elif material.made - checked > OLD:
        text = f"The store was last read to its last byte {words.ago(checked, material.made)}."
        yield Notice("warning", text, "lockstep verify --read-data")
    target = rollback_target(material.state, material.records)
    if target is None:
        return
    drill = material.drills.get(target)
    when = words.moment(str(drill["when"])) if drill else None
    if drill is None or when is None:
        text = f"Whether the data of {target} comes back was never tried; a rollback goes there."
        yield Notice("warning", text, "lockstep drill")
    elif not drill.get("passed", True):
        text = f"In its last drill not all data of {target} came back; a rollback goes there."
        yield Notice("error", text, f"lockstep drill {target}")
    elif material.made - when > OLD:
        text = f"The last drill of {target} was {words.ago(when, material.made)}."
        yield Notice("warning", text, "lockstep drill")
