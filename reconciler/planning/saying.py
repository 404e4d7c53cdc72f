"""A move in one sentence, as the preview, the log of an `up` and notifications begin. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from reconciler.plan import Action, DatasetPlan, Move
from reconciler.planning.situation import Situation
from reconciler.records.ledger import World
from reconciler.records.release import Release

_ONE, _MANY = 0, 1
_FATES = {
    Action.FORK: ("goes along on a fork", "go along on forks"),
    Action.ATTACH: ("comes back as it was left", "come back as they were left"),
    Action.RESTORE: ("comes back from the store", "come back from the store"),
    Action.CREATE: ("starts empty", "start empty"),
    Action.LEAVE: ("is shared, and left as it is", "are shared, and left as they are"),
}
_STAYS = ("stays where it is", "stay where they are")
_PUT_BACK = ("is put back in place", "are put back in place")


def standing(now: Situation, move: Move, live: World, owed: Collection[str]) -> str:
    """Where nothing is switched. `owed`: what `up` makes good all the same."""
    if move is Move.STAY:
        return f"{live.release} is live; {'nothing is switched' if owed else 'nothing to do'}"
    if now.facts.unfinished is not None:
        return f"a switch to {now.facts.unfinished} was not finished: it is put right first"
    if now.state.dissolved:
        return f"{live.release} was live until `lockstep remove`: its world is made again"
    if now.state.stopped:
        return f"{live.release} was stopped by hand: it is started again"
    broken = now.broken(live)
    if not broken:
        return (
            f"{live.release} is live, but {'; '.join(now.facts.ingress)}: the ingress is put right"
        )
    return (
        f"{live.release} is live, but {', '.join(broken)} stand still or are missing: started again"
    )


def going(now: Situation, move: Move, record: Release, datasets: Mapping[str, DatasetPlan]) -> str:
    """Where another world is made live."""
    live, name = now.state.live_release, record.name
    match move:
        case Move.FIRST:
            return f"nothing is live: {name} becomes the first release"
        case Move.ADOPT:
            return (
                f"the compose project {now.stack.project} that runs now is adopted as "
                f"{now.adopted_release}, then {name} goes live; {data(datasets)}"
            )
        case Move.FORWARD:
            return f"{live} -> {name}: a new release; {data(datasets)}"
        case Move.BACK if now.stack.settings.data == "keep" and now.wish is None:
            return f"{live} -> {name}: back, with the data as it is now"
        case Move.BACK if _is_own(datasets, name):
            return f"{live} -> {name}: back, with the data {name} left"
        case Move.BACK:
            return f"{live} -> {name}: back; {data(datasets)}"
        case _ if now.state.dissolved:
            return f"{name} was live until `lockstep remove`, and comes back; {data(datasets)}"
        case _ if now.wish is not None:
            return f"{name} stays live; a restore of its data was asked for"
        case _ if now.live is not None and now.other_way(now.live):
            return f"{name} stays live and its ports change hands, as `ingress` says"
        case _:
            return f"{name} stays live and gets its changed secrets"


def _is_own(datasets: Mapping[str, DatasetPlan], release: str) -> bool:
    """Whether everything comes back as this release left it."""
    return all(
        d.source_release == release and f"the data {release} left" in d.source_text
        for d in datasets.values()
    )


def data(datasets: Mapping[str, DatasetPlan]) -> str:
    """What becomes of the data: `db goes along on a fork; uploads stays where it is`."""
    by_fate: dict[tuple[str, str], list[str]] = {}
    for name, planned in sorted(datasets.items()):
        by_fate.setdefault(_fate(planned), []).append(name)
    if not by_fate:
        return "it has no data"
    if len(by_fate) == 1:
        return f"the data {next(iter(by_fate))[_ONE]}"
    return "; ".join(
        f"{', '.join(names)} {fate[_MANY if len(names) > 1 else _ONE]}"
        for fate, names in by_fate.items()
    )


def _fate(planned: DatasetPlan) -> tuple[str, str]:
    if planned.action is Action.IN_PLACE:
        return _STAYS if planned.snapshot is None else _PUT_BACK
    return _FATES[planned.action]
