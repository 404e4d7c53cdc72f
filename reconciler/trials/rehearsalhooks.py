"""The user's hooks in a rehearsal: what works in its own world is run, what would reach further is
held back, and of each it is said."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from reconciler.hooks.hooks import Hooks
from reconciler.hooks.hookscene import Declared, Scene, due
from reconciler.hooks.hooktable import BY_SERVICE, PLACES, At, Side
from reconciler.plan import Move
from reconciler.records.hookrecord import HookRun

HELD_BACK = "held-back"
NOT_REACHED = "not-reached"
_LINES, _CHARACTERS = 10, 600


@dataclass(frozen=True)
class RehearsedHook:
    """What became of one hook at one of its places."""

    name: str
    at: str
    of: str
    """The service or dataset that it is of; "" for the stack."""
    result: str
    """passed, failed, timed-out, held-back or not-reached."""
    seconds: float = 0.0
    why: str = ""
    """Why it was held back; else the last of what it said."""
    output: str = ""
    """Its last lines, masked."""

    @property
    def ran(self) -> bool:
        return self.result not in (HELD_BACK, NOT_REACHED)


class RehearsalHooks(Hooks):
    """The hooks of one rehearsal; `scene.new` is the rehearsal's world."""

    def __init__(
        self,
        scene: Scene,
        say: Callable[[str], None],
        *,
        held: Mapping[str, str],
        extend: Callable[[float], None],
    ) -> None:
        """`held`: services that are not started -> why. Raises BadInput when what is declared
        cannot be read."""
        super().__init__(scene, say, extend=extend)
        self._held = held
        self._outputs: dict[str, str] = {}

    def report(self) -> list[RehearsedHook]:
        """Every hook that is declared, in the order of the places."""
        return [
            self._told(declared, at)
            for at in At
            if at.phase != "prune"
            for declared in self._declared[PLACES[at].side]
            if at in declared.hook.at
        ]

    def _told(self, declared: Declared, at: At) -> RehearsedHook:
        name, of = declared.name, declared.of
        why = self._why_not(declared, at)
        if why:
            return RehearsedHook(name, at, of, HELD_BACK, why=why)
        key = HookRun(name=name, at=at, of=of, result="begun").key
        run = self.ran.get(key)
        if run is None:
            return RehearsedHook(name, at, of, NOT_REACHED, why="the rehearsal ended before")
        output = self._outputs.get(key, "")
        return RehearsedHook(name, at, of, run.result, run.seconds, run.said, output)

    def _due(self, at: At) -> list[Declared]:
        return [d for d in super()._due(at) if not self._why_not(d, at)]

    def _why_not(self, declared: Declared, at: At) -> str:
        if self.scene.move in (Move.STAY, Move.REPAIR):
            return "the release is live: `up` would run no hook"
        if not due(self.scene, [declared], at):
            return f"it is not meant for this move ({self.scene.move})"
        return next(_reasons(declared, at, self._held), "")

    def _write_log(self, run: HookRun, output: str) -> None:
        super()._write_log(run, output)
        lines = [line.rstrip() for line in output.splitlines() if line.strip()]
        self._outputs[run.key] = "\n".join(lines[-_LINES:])[-_CHARACTERS:]


def _reasons(declared: Declared, at: At, held: Mapping[str, str]) -> Iterator[str]:
    """Why a hook is held back; none when it may run."""
    hook = declared.hook
    if PLACES[at].side is Side.OLD:
        yield "it works in the world that is left, which a rehearsal leaves alone"
    if at in (At.POST_COMMIT, At.PRE_REVERT):
        yield f"a rehearsal comes to no {at.phase}"
    if hook.rehearse is False:
        yield "it says `rehearse: false`"
    if hook.acts_outside and not hook.rehearse:
        what = "runs on the host" if hook.command is not None else "calls an address outside"
        yield f"it {what}; with `rehearse: true` it is run"
    works_in_container = hook.in_world or hook.run is not None
    services = [hook.container_of(declared.service)] if works_in_container else []
    services += [declared.service] if at in BY_SERVICE else []
    for service in services:
        if service in held:
            yield f"{service} is held back ({held[service]})"
