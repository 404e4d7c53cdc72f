"""The user's hooks of one move: which are due, each run once, and what its failure does.

reconciler/hooks/hooktable.py is the table that all of this goes by.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from reconciler import clock
from reconciler.catalog import Catalog
from reconciler.config import Stack
from reconciler.docker import Docker
from reconciler.errors import CatalogDamaged, DebtsUnpaid, LockstepError, Refused
from reconciler.gates.results import GateResult, Result
from reconciler.hooks import hookscene
from reconciler.hooks.hookscene import Declared, Scene
from reconciler.hooks.hooktable import (
    BY_DATASET,
    BY_SERVICE,
    EXTENDS_THE_PROOF,
    IN_ORDER,
    PLACES,
    Abort,
    At,
    Failure,
    Side,
)
from reconciler.records import hookrecord
from reconciler.records.hookrecord import SAID, HookRun
from reconciler.switching.services import NotProved
from snapshots import private

_FILES = 200
"""Logs of hooks that are kept: one for each switch that ran any."""

Say = Callable[[str], None]


class HookFailed(LockstepError):
    """A hook whose failure aborts the move failed; the release itself is not to blame."""


class Hooks:
    """The hooks of one move. Safe to use from several threads."""

    def __init__(
        self,
        scene: Scene,
        say: Say,
        *,
        ran: Mapping[str, HookRun] = {},
        note: Callable[[dict[str, HookRun]], None] = lambda _: None,
        extend: Callable[[float], None] = lambda _: None,
    ) -> None:
        """`ran`: what the journal has; `note` writes it anew; `extend` gives the proof more time.

        Raises BadInput when what is declared cannot be read.
        """
        self.scene = scene
        self.warnings: list[str] = []
        self._say = say
        self._ran = dict(ran)
        self._note = note
        self._extend = extend
        self._guard = threading.Lock()
        settings = scene.stack.settings
        self._declared = {side: hookscene.declared(settings, scene.record(side)) for side in Side}

    @property
    def ran(self) -> dict[str, HookRun]:
        """Every hook that was run, or begun, in this move."""
        return dict(self._ran)

    def has(self, *places: At) -> bool:
        """Whether a hook of the stack, or one that runs with those, is due at any of them."""
        return any(self._at_boundary(at) for at in places)

    @property
    def keep_the_order(self) -> bool:
        """Whether nothing of the new world may start before the old one is at rest."""
        return self.has(*IN_ORDER)

    def boundary(self, at: At, *, reason: str = "", of: str = "") -> None:
        """Run what is due between two phases, in order. Raises what the table says."""
        for declared in self._at_boundary(at):
            self._one(declared, at, reason, of)

    def of_service(self, at: At, service: str) -> None:
        """Run a service's own hooks at its own moment. Raises what the table says."""
        for declared in self._due(at):
            if declared.service == service:
                self._one(declared, at, "", "")

    def of_dataset(self, at: At, dataset: str) -> None:
        """The same for a dataset."""
        for declared in self._due(at):
            if declared.dataset == dataset:
                self._one(declared, at, "", "")

    def clear(self) -> None:
        """Remove one-off containers that a killed process left."""
        if any(run.result == "begun" for run in self._ran.values()):
            from reconciler.hooks import hookrun

            hookrun.clear(self.scene, self.scene.old, self.scene.new)

    def _due(self, at: At) -> list[Declared]:
        return hookscene.due(self.scene, self._declared[PLACES[at].side], at)

    def _at_boundary(self, at: At) -> list[Declared]:
        alone = (at in BY_SERVICE, at in BY_DATASET)
        return [
            d for d in self._due(at)
            if not (d.service and alone[0]) and not (d.dataset and alone[1])
        ]  # fmt: skip

    def _one(self, declared: Declared, at: At, reason: str, of: str) -> None:
        begun = HookRun(
            name=declared.name,
            at=at,
            of=declared.of or of,
            result="begun",
            one_off=self._writes(declared, at),
        )
        if not self._begin(begun, repeatable=declared.hook.repeatable):
            return
        self._say(f"hook {declared.name} ({at}{f' of {begun.of}' if begun.of else ''})")
        from reconciler.hooks import hookrun  # who has no hooks does not pay for it

        facts = hookscene.facts(self.scene, declared, at, reason=reason, of=of)
        ran = hookrun.run(self.scene, declared, at, facts, declared.hook.limit(at))
        said = ran.last_words[:SAID]
        done = begun.model_copy(update={"result": ran.result, "seconds": ran.seconds, "said": said})
        self._write_log(done, ran.output)
        with suppress(OSError):  # on a full disk: that it was begun stands in the journal
            self._put(done)
        if at in EXTENDS_THE_PROOF:
            self._extend(ran.seconds)
        if not done.passed:
            self._failed(declared, done)

    def _writes(self, declared: Declared, at: At) -> str:
        hook = declared.hook
        new = hook.run is not None and hook.side(at) is Side.NEW
        return hook.container_of(declared.service) if new else ""

    def _begin(self, run: HookRun, *, repeatable: bool) -> bool:
        """Write down that it is run now; False when it was already. On the way back a full disk
        keeps no hook from running, elsewhere it raises OSError."""
        known = self._ran.get(run.key)
        if known is not None and not (repeatable and known.result == "begun"):
            return False
        if PLACES[At(run.at)].abort is Abort.NEVER:
            with suppress(OSError):
                self._put(run)
        else:
            self._put(run)
        return True

    def _put(self, run: HookRun) -> None:
        with self._guard:
            self._ran[run.key] = run
            self._note(dict(self._ran))

    def _failed(self, declared: Declared, run: HookRun) -> None:
        at = At(run.at)
        what = f"hook {run.name} ({at}): {run.said}"
        match declared.hook.failure(at):
            case Failure.IGNORE:
                self._say(f"{what} (ignored)")
            case Failure.WARN:
                self._say(what)
                self.warnings.append(what)
            case Failure.ABORT:
                raise _aborted(PLACES[at].abort, what, run)

    def _write_log(self, run: HookRun, output: str) -> None:
        """All that it said, beside the log of the switch; without it a hook is run all the same."""
        line = {"ended": clock.now("milliseconds"), **run.model_dump(), "output": output}
        with suppress(OSError), self._guard:
            path = log_path(self.scene)
            new = not path.exists()
            private.append(path, (json.dumps(line) + "\n").encode())
            if new:
                _forget_old(self.scene.catalog)


def of_pruning(stack: Stack, catalog: Catalog, docker: Docker, say: Say) -> Hooks:
    """The hooks of prune, in the live world."""
    state = catalog.state()
    live = state.worlds.get(state.live or "")
    record = None
    if live is not None:
        with suppress(CatalogDamaged):
            record = catalog.record(live.release)
    scene = Scene(stack, catalog, docker, "prune", clock.now(), None, live, None, record)
    return Hooks(scene, say)


def log_path(scene: Scene) -> Path:
    """Where the whole output of a move's hooks is kept."""
    world = scene.new.name if scene.new else "none"
    path = hookrecord.log_path(scene.catalog.logs(), scene.started, world)
    private.make_folder(path.parent)
    return path


def _forget_old(catalog: Catalog) -> None:
    for path in sorted((catalog.logs() / "hooks").glob("*.jsonl"))[:-_FILES]:
        path.unlink(missing_ok=True)


def _aborted(abort: Abort, what: str, run: HookRun) -> LockstepError:
    match abort:
        case Abort.REFUSED:
            return Refused(what, next_step="nothing was changed; mend it, then run this again")
        case Abort.UNPROVED:
            failure = NotProved(what)
            failure.result = GateResult(
                gate=f"hook {run.name} ({run.at})",
                service=run.of,
                kind="hook",
                result=Result.FAILED,
                means="fail",
                seconds=run.seconds,
                said=run.said,
            )
            return failure
        case Abort.UNPRUNED:
            again = "lockstep up   tries again; nothing is pruned before"
            return DebtsUnpaid(what, next_step=again)
        case _:
            return HookFailed(what)
