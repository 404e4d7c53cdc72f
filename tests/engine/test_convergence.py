"""Random programs and random failures: whatever happens, running again reaches what is declared."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from engine import providers
from engine.deployment import Deployment
from engine.options import Options
from engine.planner import Change
from engine.providers import Failures, Found, Known, ProviderFailed
from engine.snapshot import STACK_TYPE, Resource, Snapshot
from engine.steps import Step, Terminated
from engine.values import Props

TYPE = "memory:index:Thing"


@dataclass
class Memory:
    """A provider whose world is a table: id -> (inputs, ids that it was made from). It refuses to
    remove what something still stands on, as a volume in use does."""

    world: dict[str, Props] = field(default_factory=dict)
    refuses: set[tuple[str, str]] = field(default_factory=set)
    made: int = 0

    def check(self, _type: str, _olds: Props, news: Props, /) -> tuple[Props, Failures]:
        return dict(news), []

    def diff(self, old: Known, news: Props, /) -> Change:
        keys = tuple(k for k in ("value", "force", "on") if old.inputs.get(k) != news.get(k))
        replaces = tuple(k for k in keys if k in ("force", "on"))
        return Change(bool(keys), replaces, bool(news.get("first")), keys)

    def create(self, _type: str, news: Props, preview: bool, /) -> tuple[str, Props]:
        if preview:
            return "", dict(news)
        self._try("create", news["name"])
        for needed in news["on"]:
            assert needed in self.world, "made on something that does not exist"
        self.made += 1
        id_ = f"{news['name']}-{self.made}"
        self.world[id_] = dict(news)
        return id_, {**news, "id": id_}

    def read(self, old: Known, /) -> Found | None:
        return (old.outputs, None) if old.id in self.world else None

    def update(self, old: Known, news: Props, preview: bool, /) -> Props:
        if not preview:
            self._try("update", news["name"])
            self.world[old.id] = dict(news)
        return {**news, "id": old.id}

    def delete(self, old: Known, /) -> None:
        self._try("delete", old.outputs["name"])
        if old.id not in self.world:
            return  # What is gone already is no failure: an interrupted replacement asks again.
        users = [i for i, props in self.world.items() if old.id in props["on"]]
        assert not users, f"{old.id} was deleted before {users}, which stand on it"
        del self.world[old.id]

    def _try(self, call: str, name: str) -> None:
        if (call, name) in self.refuses:
            raise ProviderFailed(f"{call} of {name} refused")


class Silent:
    def step(self, _phase: str, _step: Step, _dry_run: bool, /) -> None: ...

    def diagnostic(
        self, _urn: str, _severity: str, _text: str, _ephemeral: bool = False, /
    ) -> None: ...


@dataclass(frozen=True)
class Wanted:
    """A declared thing; `on` are the positions of those before it that it is made from."""

    name: str
    value: int
    force: int
    first: bool
    on: tuple[str, ...]


@st.composite
def programs(draw: st.DrawFn) -> list[Wanted]:
    found: list[Wanted] = []
    for name in draw(st.lists(st.sampled_from("abcdef"), unique=True, max_size=6).map(sorted)):
        before = [w.name for w in found]
        on = draw(st.lists(st.sampled_from(before), unique=True, max_size=2)) if before else []
        small = st.integers(0, 1)
        found.append(Wanted(name, draw(small), draw(small), draw(st.booleans()), tuple(on)))
    return found


refusals = st.sets(
    st.tuples(st.sampled_from(["create", "update", "delete"]), st.sampled_from("abcdef")),
    max_size=3,
)


@contextmanager
def package(memory: Memory) -> Iterator[None]:
    providers.PACKAGES["memory"] = lambda _project, _config: memory
    try:
        yield
    finally:
        del providers.PACKAGES["memory"]


def run(program: list[Wanted], snapshot: Snapshot) -> tuple[Snapshot, Deployment]:
    """One update; gives the state as the file would hold it afterwards."""
    deployment = Deployment(
        project="p",
        stack="s",
        config={},
        snapshot=snapshot,
        save=check_order,
        listener=Silent(),
        dry_run=False,
        options=Options(parallel=1),
    )
    urns: dict[str, str] = {}
    ids: dict[str, str] = {}
    try:
        root = deployment.urn(STACK_TYPE, "p-s", "")
        deployment.register(Resource(root, STACK_TYPE, custom=False))
        for wanted in program:
            urn = urns[wanted.name] = deployment.urn(TYPE, wanted.name, root)
            needs = [urns[name] for name in wanted.on]
            inputs = {
                "name": wanted.name,
                "value": wanted.value,
                "force": wanted.force,
                "first": wanted.first,
                "on": [ids[name] for name in wanted.on],
            }
            declared = Resource(
                urn,
                TYPE,
                custom=True,
                inputs=inputs,
                parent=root,
                dependencies=needs,
                property_dependencies={"on": needs},
            )
            ids[wanted.name] = deployment.register(declared)[0].id
        deployment.finish()
    except Terminated:
        pass
    return Snapshot(snapshot.resources, snapshot.left_over), deployment


def check_order(snapshot: Snapshot) -> None:
    """What the official engine demands of a state: whatever a resource needs stands before it."""
    seen: set[str] = set()
    for resource in snapshot.resources:
        if not resource.delete:
            assert resource.needs() <= seen, f"{resource.urn} stands before what it needs"
        seen.add(resource.urn)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(programs(), refusals), max_size=4), programs())
def test_running_again_always_converges(
    history: list[tuple[list[Wanted], set[tuple[str, str]]]], final: list[Wanted]
) -> None:
    memory, state = Memory(), Snapshot()
    with package(memory):
        for program, refused in history:
            memory.refuses = refused
            state, _ = run(program, state)
            known = {r.id for r in state.resources}
            assert set(memory.world) <= known, "something exists that the state has lost"
        memory.refuses = set()
        state, deployment = run(final, state)
        assert not deployment.failed
        there = {props["name"]: props for props in memory.world.values()}
        assert len(there) == len(memory.world)
        assert sorted(there) == [wanted.name for wanted in final]
        for wanted in final:
            assert (there[wanted.name]["value"], there[wanted.name]["force"]) == (
                wanted.value,
                wanted.force,
            )
        world = dict(memory.world)
        state, deployment = run(final, state)
        assert set(deployment.changes) == {"same"}
        assert memory.world == world
        assert not [r for r in state.resources if r.delete or r.pending_replacement]
