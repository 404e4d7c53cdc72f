"""The planner: goal and old state in, steps out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import planner
from engine.planner import Change, Op
from engine.snapshot import Resource
from engine.values import UNKNOWN, Props, Secret


def goal(delete_before_replace: bool | None = None) -> Resource:
    return Resource("urn:a", "t", True, delete_before_replace=delete_before_replace)


def old(**more: object) -> Resource:
    return Resource("urn:a", "t", True, id="a-1", **more)  # type: ignore[arg-type]


CREATE_FIRST = (Op.CREATE_REPLACEMENT, Op.REPLACE)
DELETE_FIRST = (Op.DELETE_REPLACED, Op.REPLACE, Op.CREATE_REPLACEMENT)


@pytest.mark.parametrize(
    ("declared", "known", "change", "steps"),
    [
        (goal(), None, None, (Op.CREATE,)),
        (goal(), old(), Change(), (Op.SAME,)),
        (goal(), old(), None, (Op.SAME,)),
        (goal(), old(), Change(True), (Op.UPDATE,)),
        (goal(), old(), Change(True, ("k",)), CREATE_FIRST),
        (goal(), old(), Change(False, ("k",)), CREATE_FIRST),
        (goal(), old(), Change(True, ("k",), delete_first=True), DELETE_FIRST),
        (goal(delete_before_replace=True), old(), Change(True, ("k",)), DELETE_FIRST),
        (goal(delete_before_replace=False), old(), Change(True, ("k",), True), CREATE_FIRST),
        (goal(delete_before_replace=True), old(), Change(True), (Op.UPDATE,)),
        # The old object is gone already, whatever the provider thinks of the inputs.
        (goal(), old(pending_replacement=True), Change(), DELETE_FIRST[1:]),
        (goal(), old(pending_replacement=True), Change(True, ("k",)), DELETE_FIRST[1:]),
    ],
)
def test_the_steps_of_one_resource(
    declared: Resource, known: Resource | None, change: Change | None, steps: tuple[Op, ...]
) -> None:
    assert planner.decide(declared, known, change) == steps


@pytest.mark.parametrize(
    ("news", "olds", "paths", "kept"),
    [
        ({"v": 2, "w": 2}, {"v": 1, "w": 1}, ["v"], {"v": 1, "w": 2}),
        ({"v": 2}, {}, ["v"], {}),
        ({}, {"v": 1}, ["v"], {"v": 1}),
        ({"o": {"a": 2, "b": 2}}, {"o": {"a": 1, "b": 1}}, ["o.a"], {"o": {"a": 1, "b": 2}}),
        ({"v": 2, "w": 2}, {"v": 1}, ["*"], {"v": 1}),
    ],
)
def test_ignored_changes_keep_the_old_value(
    news: Props, olds: Props, paths: list[str], kept: Props
) -> None:
    assert planner.keep_ignored(news, olds, paths) == kept


@pytest.mark.parametrize(
    ("keys", "paths", "replaces"),
    [
        (("a", "b"), ["a"], ("a",)),
        (("a.b", "c[0]"), ["a", "c"], ("a.b", "c[0]")),
        (("ab",), ["a"], ()),
        (("a",), ["*"], ("a",)),
        ((), ["a"], ()),
    ],
)
def test_replace_on_changes(
    keys: tuple[str, ...], paths: list[str], replaces: tuple[str, ...]
) -> None:
    assert planner.replacing(Change(True, keys=keys), paths).replaces == replaces


def test_becoming_secret_is_no_change_of_a_components_inputs() -> None:
    assert planner.same_inputs({"a": "x"}, {"a": Secret("x")})
    assert not planner.same_inputs({"a": "x"}, {"a": Secret("y")})


def test_dependents_of_a_resource_that_goes_first() -> None:
    def of(name: str, needs: str, key: str = "v") -> Resource:
        return Resource(
            f"urn:{name}", "t", True, inputs={key: 1}, property_dependencies={key: [needs]}
        )

    root, replaced, below = old(), of("b", "urn:a"), of("c", "urn:b")
    updated, under_updated = of("d", "urn:a", "soft"), of("e", "urn:d")
    ordered_only = Resource("urn:f", "t", True, dependencies=["urn:a"])
    asked: dict[str, Props] = {}

    def asks(resource: Resource, guess: Props) -> bool:
        asked[resource.urn] = guess
        return "v" in guess

    state = [root, replaced, below, updated, under_updated, ordered_only]
    assert planner.replaced_with(root, state, asks) == [below, replaced]
    # Only what takes a property from a doomed one is asked, with that property unknown.
    assert set(asked) == {"urn:b", "urn:c", "urn:d"}
    assert all(UNKNOWN in guess.values() for guess in asked.values())


def test_what_is_gone_is_not_deleted_again_and_leftovers_go_first() -> None:
    def of(name: str, needs: str, delete: bool = False, pending: bool = False) -> Resource:
        return Resource(
            f"urn:{name}",
            "t",
            True,
            inputs={"v": 1},
            property_dependencies={"v": [needs]},
            delete=delete,
            pending_replacement=pending,
        )

    root = old()
    gone = of("b", "urn:a", pending=True)
    successor, user = of("c", "urn:x"), of("d", "urn:c")
    left_over = of("c", "urn:a", delete=True)
    state = [root, gone, successor, user, left_over]
    # `d` may still stand on the left-over object of `c`, so it goes before that.
    assert planner.replaced_with(root, state, lambda *_: True) == [user, left_over]


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
