"""What differs between two releases, and how it is told: by tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from reconciler.errors import BadInput
from reconciler.facts import Container
from reconciler.making import adoption
from reconciler.plan import Action, Count, DatasetPlan, Kept, Move, Plan
from reconciler.planning import impact, releasediff
from reconciler.planning.outlook import EngineJump, Migrations, Outlook, ServiceChange
from reconciler.project import compose, migrations
from reconciler.project.compose import placeholder
from reconciler.records.release import ConfigFile, Dataset, Image, Kind, Mount, Release

WEB = {"image": "shop-web", "environment": {"LEVEL": "info"}}
DB = {"image": "postgres:15.4", "environment": {"POSTGRES_PASSWORD": placeholder("DB_PASSWORD")}}


def a_release(
    number: int, services: dict[str, Any], ids: dict[str, str] | None = None, **more: Any
) -> Release:
    name = f"prod-{number:03d}"
    return Release(
        name=name,
        parent=None,
        created="2026-01-01T00:00:00+00:00",
        model={"name": "shop", "services": services},
        images={
            s: Image(
                service=s,
                tag=f"shop-{s}:{name}",
                id=f"sha256:{(ids or {}).get(s, 'a' * 64)}",
                source=body["image"],
            )
            for s, body in services.items()
        },
        datasets={
            "db-data": Dataset(
                name="db-data",
                kind=Kind.VOLUME,
                driver="postgres",
                mounts=(Mount(service="db", target="/var/lib/postgresql/data"),),
            )
        },
        **more,
    )


def test_equal_definitions_differ_in_nothing() -> None:
    found = releasediff.between(
        a_release(1, {"web": WEB, "db": DB}), a_release(2, {"web": WEB, "db": DB})
    )
    assert found == Outlook(unchanged=("db", "web"))


@pytest.mark.parametrize("extension", ["x-app", adoption.SEEN_RUNNING])
def test_what_only_the_compose_file_itself_reads_is_no_difference(extension: str) -> None:
    bare = a_release(1, {"web": WEB})
    more = bare.model_copy(update={"model": {**bare.model, extension: {"image": "web:1"}}})
    assert releasediff.between(bare, more) == Outlook(unchanged=("web",))
    noted = bare.model_copy(update={"model": {**bare.model, compose.NOTE: {"gates": []}}})
    assert releasediff.between(bare, noted).others


def test_without_a_live_release_every_service_is_added() -> None:
    found = releasediff.between(None, a_release(1, {"web": WEB, "db": DB}))
    assert [(s.service, s.change) for s in found.services] == [("db", "added"), ("web", "added")]


def test_services_come_go_and_change() -> None:
    cache = {"image": "redis:7"}
    before = a_release(1, {"web": WEB, "cache": cache, "db": DB})
    changed = {**WEB, "environment": {"LEVEL": "debug"}}
    after = a_release(2, {"web": changed, "mail": {"image": "mail:1"}, "db": DB})
    found = releasediff.between(before, after)
    assert found.services == (
        ServiceChange("cache", "removed", ("redis:7 (aaaaaaaaaaaa)", "")),
        ServiceChange("mail", "added", ("", "mail:1 (aaaaaaaaaaaa)")),
        ServiceChange("web", "changed", None, ("environment.LEVEL: 'info' -> 'debug'",)),
    )
    assert found.unchanged == ("db",)
    told = list(impact.changes(found))
    assert ("cache", "removed, image redis:7 (aaaaaaaaaaaa)") in told
    assert ("web", "environment.LEVEL: 'info' -> 'debug'") in told


def test_of_a_changed_secret_only_its_place_is_told() -> None:
    other = {**DB, "environment": {"POSTGRES_PASSWORD": placeholder("NEW_PASSWORD")}}
    found = releasediff.between(a_release(1, {"db": DB}), a_release(2, {"db": other}))
    (line,) = found.services[0].definition
    assert line == (
        "environment.POSTGRES_PASSWORD: '[secret DB_PASSWORD]' -> '[secret NEW_PASSWORD]'"
    )


@pytest.mark.parametrize(
    ("image", "expected", "major"),
    [
        ("postgres:16.1", ("15.4", "16.1"), True),
        ("postgres:15.6-bookworm", ("15.4", "15.6"), False),
        ("postgres:latest", ("15.4", ""), True),
        ("registry:5000/postgres:16@sha256:" + "0" * 64, ("15.4", "16"), True),
        ("postgres:15.4-alpine", None, None),
        ("shop-web", None, None),
    ],
)
def test_engines_that_come_in_another_version(
    image: str, expected: tuple[str, str] | None, major: bool | None
) -> None:
    after = a_release(2, {"db": {**DB, "image": image}}, {"db": "b" * 64})
    found = releasediff.between(a_release(1, {"db": DB}), after).engines
    if expected is None:
        assert found == ()
        return
    assert found == (EngineJump("db-data", "postgres", *expected),)
    assert found[0].major is major


def test_config_files_and_networks_are_told_beside_the_services() -> None:
    def config(letter: str) -> dict[str, ConfigFile]:
        return {"shop.toml": ConfigFile(path="/shop.toml", sha256=letter * 64)}

    before, after = (a_release(n, {"web": WEB}, configs=config(c)) for n, c in ((1, "a"), (2, "b")))
    after = after.model_copy(update={"model": {**after.model, "networks": {"back": {}}}})
    found = releasediff.between(before, after)
    assert found.files == ("shop.toml",)
    assert found.others == ("networks: nothing -> {'back': {}}",)


def test_migrations_on_either_side() -> None:
    older = a_release(1, {"web": WEB}, migrations={"m/1.sql": "a", "m/2.sql": "b"})
    newer = a_release(2, {"web": WEB}, migrations={"m/1.sql": "a", "m/2.sql": "x", "m/3.sql": "c"})
    forward, back = releasediff.between(older, newer), releasediff.between(newer, older)
    assert forward.migrations == Migrations(("m/3.sql",), (), ("m/2.sql",))
    assert back.migrations == Migrations((), ("m/3.sql",), ("m/2.sql",))
    assert releasediff.between(a_release(1, {"web": WEB}), newer).migrations is None


@pytest.mark.parametrize(
    ("move", "action", "warned"),
    [
        (Move.BACK, Action.FORK, True),
        (Move.BACK, Action.ATTACH, False),
        (Move.FORWARD, Action.FORK, False),
    ],
)
def test_data_that_goes_back_after_migrations_is_warned_of(
    move: Move, action: Action, warned: bool
) -> None:
    planned = DatasetPlan("db", action, "g", 1, new=True)
    plan = Plan(move, 1, "prod-001", "w2", "w1", True, {"db": planned})
    differs = Outlook(migrations=Migrations(unknown=("m/3.sql",)))
    assert bool(releasediff.warnings(plan, differs)) is warned


def test_what_is_recorded_of_a_folder_of_migrations(tmp_path: Path) -> None:
    folder = tmp_path / "db" / "migrations"
    (folder / "__pycache__").mkdir(parents=True)
    (folder / "__pycache__" / "x.pyc").write_text("x")
    (folder / "0001.sql").write_text("select 1")
    found = migrations.recorded(tmp_path, ("db/migrations",))
    assert found is not None
    assert list(found) == ["db/migrations/0001.sql"]
    assert migrations.recorded(tmp_path, ()) is None
    for wrong in ("nowhere", ".."):
        with pytest.raises(BadInput, match="migrations"):
            migrations.recorded(tmp_path, (wrong,))


def a_dataset(counts: dict[str, Count], **more: Any) -> DatasetPlan:
    aside = {w: c.now - (c.then or 0) for w, c in counts.items() if c.now > (c.then or 0)}
    return DatasetPlan(
        "d", Action.ATTACH, "g", 1, new=False, counts=counts, set_aside=aside, **more
    )


@pytest.mark.parametrize(
    ("count", "aside", "back"),
    [
        (Count(12, 10), ["2 orders (now 12, then 10)"], []),
        (Count(12, 10, estimated=True), ["about 2 orders (now 12, then 10)"], []),
        (Count(12, None), ["12 orders"], []),
        (Count(10, 12), [], ["2 orders (now 10, then 12)"]),
        (Count(10, 10), [], []),
    ],
)
def test_counts_now_against_then(count: Count, aside: list[str], back: list[str]) -> None:
    planned = a_dataset({"orders": count})
    assert (impact.set_aside(planned), impact.comes_back(planned)) == (aside, back)


def test_many_counts_are_cut_for_a_person() -> None:
    planned = a_dataset({f"t{n}": Count(2, 1) for n in range(9)})
    assert impact.set_aside(planned)[-1] == "and 3 more, which --json lists"
    assert len(impact.set_aside(planned)) == impact.MOST_COUNTS + 1


def test_releases_kept_for_the_same_reasons_are_told_together() -> None:
    keep = [Kept(f"prod-{n:03d}", ("pinned",)) for n in range(1, 7)]
    assert impact.window([*keep, Kept("prod-007", ("live", "pinned"))]) == [
        ("prod-001 ... prod-006 (6)", "pinned"),
        ("prod-007", "live, pinned"),
    ]


def test_diagnostics_and_output_tell_the_same_facts() -> None:
    differs = Outlook(
        services=(ServiceChange("web", "changed", ("shop:1 (a)", "shop:2 (b)")),),
        files=("shop.toml",),
        engines=(EngineJump("db", "postgres", "15", "16"),),
        migrations=Migrations(new=("m/3.sql",)),
    )
    planned = a_dataset({"orders": Count(12, 10), "carts": Count(1, 4)}, source_text="the data")
    plan = Plan(
        Move.BACK, 1, "prod-001", "w2", "w1", False, {"d": planned},
        says="prod-002 -> prod-001", outlook=differs, keep=(Kept("prod-002", ("previous",)),),
        downtime_estimate_seconds=1.5, downtime_basis="a guess", hooks=("hook warm: says so",),
    )  # fmt: skip
    told = "\n".join(impact.lines(plan))
    facts = (
        "web: image shop:1 (a) -> shop:2 (b)",
        "config files: shop.toml",
        "db: postgres 15 -> 16, another major version",
        "migrations: 1 new: m/3.sql",
        "set aside: 2 orders (now 12, then 10)",
        "comes back: 3 carts (now 1, then 4)",
        "about 1.5 s (a guess)",
    )
    for text in (*facts, "lockstep undo", "kept: prod-002 (previous)", "hook warm: says so"):
        assert text in told
    output = impact.output(plan)
    assert [fact for fact in facts if fact not in json.dumps(output)] == []
    assert output["says"] == plan.says


def test_an_adopted_project_is_told_by_the_images_that_run() -> None:
    """Nothing that runs already is called new; what it does not run is, and the other way round."""
    after = a_release(1, {"web": WEB, "db": DB, "worker": WEB}, {"web": "b" * 64, "db": "c" * 64})

    def runs(service: str, image: str) -> Container:
        return Container(
            service, service, "shop", service, "running", 0, "no", f"sha256:{image * 64}", {}
        )

    found = releasediff.adopting([runs("db", "c"), runs("web", "a"), runs("mail", "d")], after)
    assert found == Outlook(
        services=(
            ServiceChange("mail", "removed"),
            ServiceChange("web", "changed", ("a" * 12, f"shop-web ({'b' * 12})")),
            ServiceChange("worker", "added", ("", f"shop-web ({'a' * 12})")),
        ),
        unchanged=("db",),
    )
