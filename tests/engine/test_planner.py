"""The planner: goal and old state in, steps out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import paths, planner
from engine.planner import Change, Op
from engine.snapshot import Resource
from engine.targets import Targets
from engine.values import UNKNOWN, Props, Secret


def old(**more: object) -> Resource:
    return Resource("urn:a", "t", True, id="a-1", **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("known", "change", "op"),
    [
        (None, None, Op.CREATE),
        (old(), Change(), Op.SAME),
        (old(), Change(True), Op.UPDATE),
        (old(), Change(True, ("k",)), Op.REPLACE),
        (old(), Change(False, ("k",)), Op.REPLACE),
        # The old object is gone already, whatever the provider thinks of the inputs.
        (old(pending_replacement=True), Change(), Op.REPLACE),
    ],
)
def test_what_happens_to_one_resource(
    known: Resource | None, change: Change | None, op: Op
) -> None:
    assert planner.decide(known, change) == op


@pytest.mark.parametrize(
    ("said", "asked", "first"),
    [(None, False, False), (None, True, True), (True, False, True), (False, True, False)],
)
def test_the_program_says_whether_the_old_one_goes_first(
    said: bool | None, asked: bool, first: bool
) -> None:
    wanted = Resource("urn:a", "t", True, delete_before_replace=said)
    assert planner.deletes_first(wanted, Change(True, ("k",), asked)) is first


@pytest.mark.parametrize(
    ("news", "olds", "path", "kept"),
    [
        ({"v": 2, "w": 2}, {"v": 1, "w": 1}, "v", {"v": 1, "w": 2}),
        ({"v": 2}, {}, "v", {}),
        ({}, {"v": 1}, "v", {"v": 1}),
        ({"o": {"a": 2, "b": 2}}, {"o": {"a": 1, "b": 1}}, "o.a", {"o": {"a": 1, "b": 2}}),
        ({"o": {"a b": 2}}, {"o": {"a b": 1}}, 'o["a b"]', {"o": {"a b": 1}}),
        ({"v": 2, "w": 2}, {"v": 1}, "*", {"v": 1}),
        ({"l": [2, 2]}, {"l": [1, 1]}, "l[1]", {"l": [2, 1]}),
        ({"l": [2, 2]}, {"l": [1, 1]}, "l[*]", {"l": [1, 1]}),
        ({"l": [{"k": 2, "m": 2}]}, {"l": [{"k": 1, "m": 1}]}, "l[*].k", {"l": [{"k": 1, "m": 2}]}),
        ({"o": {"n": 2}}, {"o": {}}, "o.n", {"o": {}}),
        ({"v": 2}, {"v": 1}, "nosuch.deeper", {"v": 2}),
        ({"o": Secret({"a": 2})}, {"o": Secret({"a": 1})}, "o.a", {"o": Secret({"a": 1})}),
        ({"o": {"a": 2}}, {"o": Secret({"a": 1})}, "o.a", {"o": {"a": Secret(1)}}),
    ],
)
def test_ignored_changes_keep_the_old_value(
    news: Props, olds: Props, path: str, kept: Props
) -> None:
    assert paths.keep_ignored(news, olds, [path]) == (kept, [])


@pytest.mark.parametrize(
    ("news", "olds", "path"),
    [
        ({}, {"o": {"n": 1}}, "o.n"),
        ({"l": [2]}, {"l": [1, 1]}, "l[1]"),
        ({"l": [2, 2]}, {"l": [1]}, "l[1]"),
        ({"l": "text"}, {"l": [1]}, "l[0]"),
        ({"o": {}}, {"o": {"a": {"x": 1}}}, "o[*].x"),
    ],
)
def test_nothing_is_kept_of_what_was_added_or_removed(news: Props, olds: Props, path: str) -> None:
    assert paths.keep_ignored(news, olds, [path]) == (news, [path])


@pytest.mark.parametrize(
    ("keys", "on_changes", "replaces"),
    [
        (("a", "b"), ["a"], ("a",)),
        (("a.b", "c[0]"), ["a", "c"], ("a.b", "c[0]")),
        (("ab",), ["a"], ()),
        (("a",), ["*"], ("a",)),
        ((), ["a"], ()),
        (("l[0].x", "l[1].y"), ["l[*].x"], ("l[0].x",)),
    ],
)
def test_replace_on_changes(
    keys: tuple[str, ...], on_changes: list[str], replaces: tuple[str, ...]
) -> None:
    assert planner.replacing(Change(True, keys=keys), on_changes).replaces == replaces


def of(name: str, needs: str, key: str = "v", **more: object) -> Resource:
    """A resource that takes a property from another one."""
    found = Resource(f"urn:{name}", "t", True, inputs={key: 1}, **more)  # type: ignore[arg-type]
    found.property_dependencies = {key: [needs]}
    return found


def going(root: Resource, state: list[Resource], settled: set[str]) -> list[Resource]:
    """What goes before `root`, where a change of the property `v` replaces."""

    def ask(_: Resource, guess: Props) -> Change:
        assert UNKNOWN in guess.values()
        return Change(True, ("v",) if guess.get("v") is UNKNOWN else ())

    return [resource for resource, _ in planner.replaced_with(root, state, settled, ask)]


def test_dependents_of_a_resource_that_goes_first() -> None:
    root, replaced, below = old(), of("b", "urn:a"), of("c", "urn:b")
    updated, under_updated = of("d", "urn:a", "soft"), of("e", "urn:d")
    ordered_only = Resource("urn:f", "t", True, dependencies=["urn:a"])
    child = Resource("urn:g", "t", True, parent="urn:a")
    component = Resource("urn:h", "t", False, dependencies=["urn:a"])
    through_it = of("i", "urn:h")
    state = [root, replaced, below, updated, under_updated, ordered_only, child, component]
    assert going(root, [*state, through_it], set()) == [below, replaced]


def test_dependents_that_this_run_has_planned_already_stay() -> None:
    root, planned, waiting = old(), of("b", "urn:a"), of("c", "urn:a", pending_replacement=True)
    # One that waits for its replacement is asked to go again, as the official engine does.
    assert going(root, [root, planned, waiting], {"urn:b"}) == [waiting]


def test_what_an_earlier_run_left_over_goes_before_what_it_stands_on() -> None:
    root, left_over = old(), of("c", "urn:a", delete=True)
    assert going(root, [root, left_over], set()) == [left_over]


def test_what_uses_a_provider_that_is_replaced_goes_with_it() -> None:
    provider = Resource("urn:p", "pulumi:providers:docker", True, id="1")
    user = Resource("urn:u", "t", True, provider="urn:p::1")
    assert going(provider, [provider, user], set()) == [user]


def test_all_that_a_resource_stands_on_is_spared_with_it() -> None:
    state = [Resource(f"urn:{n}", "t", True, dependencies=d) for n, d in CHAIN.items()]
    assert planner.needed_by(state[-1], state) == {"urn:a", "urn:b"}


CHAIN: dict[str, list[str]] = {"a": [], "b": ["urn:a"], "x": [], "c": ["urn:b"]}


@pytest.mark.parametrize(
    ("named", "urn", "meant"),
    [
        ("urn:a::t::x", "urn:a::t::x", True),
        ("urn:a::t::x", "urn:a::t::xy", False),
        ("**x", "urn:a::t::x", True),
        ("urn:a::*::x", "urn:a::t::x", True),
        ("urn:a::*::x", "urn:a::t::u::x", False),
        ("urn:a::t$**", "urn:a::t$u::x", True),
    ],
)
def test_targets_and_patterns(named: str, urn: str, meant: bool) -> None:
    assert (urn in Targets([named])) is meant


@st.composite
def states(draw: st.DrawFn) -> list[Resource]:
    """A consistent state: each resource needs only ones that stand before it."""
    size = draw(st.integers(0, 12))
    found: list[Resource] = []
    for number in range(size):
        before = [r.urn for r in found]
        parents = draw(st.sets(st.sampled_from(before), max_size=3)) if before else set()
        found.append(
            Resource(f"urn:{number}", "t", True, id=str(number), dependencies=sorted(parents))
        )
    return found


@given(states(), st.data())
def test_nothing_is_deleted_before_what_depends_on_it(
    state: list[Resource], data: st.DataObject
) -> None:
    declared = {r.urn for r in state if data.draw(st.booleans())}
    doomed = planner.condemned(state, declared)
    waves = planner.waves(doomed)
    flat = [r for wave in waves for _, r in wave]
    assert sorted(r.urn for r in flat) == sorted(r.urn for _, r in doomed)
    assert {r.urn for r in flat} == {r.urn for r in state} - declared
    at = {r.urn: number for number, wave in enumerate(waves) for _, r in wave}
    for resource in flat:
        for needed in resource.needs() & at.keys():
            assert at[resource.urn] < at[needed]


@given(states(), st.data())
def test_replaced_objects_go_whether_declared_or_not(
    state: list[Resource], data: st.DataObject
) -> None:
    for resource in state:
        resource.delete = data.draw(st.booleans())
    doomed = planner.condemned(state, {r.urn for r in state})
    assert {r.urn for _, r in doomed} == {r.urn for r in state if r.delete}
    assert {op for op, _ in doomed} <= {Op.DELETE_REPLACED}
