"""Reading a compose model: order, ports, jobs, notes, placeholders, differences."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.config import Settings
from reconciler.errors import BadInput
from reconciler.gates.model import Gate, HttpGate
from reconciler.project import compose
from reconciler.records.release import ConfigFile, Dataset, Image, Kind, Release

NAMES = st.text("abcdefghijklmnopqrstuvwxyz_", min_size=1, max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def model(**services: dict[str, Any]) -> dict[str, Any]:
    return {"name": "shop", "services": services}


def release(model: dict[str, Any], **more: Any) -> Release:
    images = {
        s: Image(service=s, tag=f"shop-{s}:prod-001", id=f"sha256:{s}") for s in model["services"]
    }
    values = {"name": "prod-001", "parent": None, "created": "", "images": images, "datasets": {}}
    return Release(model=model, **{**values, **more})


def doubled(value: Any) -> Any:
    """What Compose does to every value of a model."""
    if isinstance(value, str):
        return value.replace("$", "$$")
    if isinstance(value, dict):
        return {k: doubled(v) for k, v in value.items()}
    if isinstance(value, list):
        return [doubled(v) for v in value]
    return value


@given(VALUES)
def test_plain_undoes_what_compose_does(value: Any) -> None:
    assert compose.plain(doubled(value)) == value


@given(NAMES, st.text(), st.text("abc$ {}:", max_size=6), st.text("abc$ {}:", max_size=6))
def test_a_secret_comes_out_as_it_went_in(name: str, value: str, left: str, right: str) -> None:
    written = {"a": [doubled(left) + compose.placeholder(name) + doubled(right)]}
    assert compose.placeholders_in(written) == {name}
    assert compose.plain(compose.with_secrets(written, {name: value})) == {
        "a": [left + value + right]
    }


@given(VALUES)
def test_without_placeholders_nothing_is_replaced(value: Any) -> None:
    assert compose.placeholders_in(value) == set()
    assert compose.with_secrets(value, {}) == value


def test_a_secret_without_a_value_is_named_with_the_command_to_set_it() -> None:
    with pytest.raises(BadInput, match=r"config set --secret --path secrets\.PASSWORD"):
        compose.with_secrets(["x" + compose.placeholder("PASSWORD")], {})


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, Any]:
    """Models whose services depend only on services that come before them in some order."""
    names = draw(st.lists(NAMES, unique=True, min_size=1, max_size=8))
    services = {}
    for position, name in enumerate(names):
        needs = draw(st.sets(st.sampled_from(names[:position]))) if position else set()
        services[name] = {"depends_on": {n: {"condition": "service_started"} for n in needs}}
    return {"services": dict(draw(st.permutations(list(services.items()))))}


@given(graphs())
def test_waves_hold_every_service_once_after_what_it_needs(graph: dict[str, Any]) -> None:
    waves = compose.start_order(graph)
    flat = [service for wave in waves for service in wave]
    assert sorted(flat) == sorted(graph["services"])
    for position, wave in enumerate(waves):
        earlier = {service for other in waves[:position] for service in other}
        for service in wave:
            assert set(compose.dependencies(graph, service)) <= earlier


def test_a_wave_is_as_early_as_it_can_be() -> None:
    started = {"condition": "service_started"}
    graph = model(
        web={"depends_on": {"db": started, "cache": started}},
        db={},
        cache={},
        proxy={"depends_on": {"web": started, "not-in-this-profile": started}},
    )
    assert compose.start_order(graph) == [["cache", "db"], ["web"], ["proxy"]]
    assert compose.dependencies(graph, "proxy") == {"web": "service_started"}


def test_a_circle_is_refused() -> None:
    started = {"condition": "service_started"}
    with pytest.raises(BadInput, match="a, b"):
        compose.start_order(
            model(a={"depends_on": {"b": started}}, b={"depends_on": {"a": started}})
        )


def test_only_fixed_ports_count() -> None:
    ports = [
        {"target": 80, "published": "8080", "protocol": "tcp"},
        {"target": 53, "published": "53", "protocol": "udp", "host_ip": "127.0.0.1"},
        {"target": 81},
        {"target": 82, "published": "0"},
        {"target": 83, "published": "9000-9005"},
    ]
    assert compose.published_ports(model(web={"ports": ports}, db={})) == [
        compose.PublishedPort("", 8080, "tcp", "web"),
        compose.PublishedPort("127.0.0.1", 53, "udp", "web"),
    ]


def test_jobs_are_waited_for_or_say_so() -> None:
    completed = {"condition": "service_completed_successfully"}
    found = model(
        web={"depends_on": {"migrate": completed}},
        migrate={},
        sweep={"x-lockstep": {"job": True}},
    )
    assert [s for s in found["services"] if compose.is_job(found, s)] == ["migrate", "sweep"]


def test_the_stacks_gate_comes_before_the_files() -> None:
    found = model(web={"x-lockstep": {"gate": {"command": ["sh", "-c", "test $$A"]}}}, db={})
    ours = Gate(http=HttpGate(port=80))
    assert compose.gates(found, Settings(), "web") == (Gate(command=("sh", "-c", "test $A")),)
    assert compose.gates(found, Settings(gates={"web": (ours,)}), "web") == (ours,)
    assert compose.gates(found, Settings(gates={"web": (ours, ours)}), "web") == (ours, ours)
    assert compose.gates(found, Settings(), "db") == ()


def read_notes(found: dict[str, Any]) -> None:
    compose.top_note(found)
    for service in found.get("services", {}):
        compose.service_note(found, service)
    for volume in found.get("volumes", {}):
        compose.volume_note(found, volume)


@pytest.mark.parametrize(
    ("found", "place"),
    [
        (model(web={"x-lockstep": {"start": "later"}}), "services.web.x-lockstep.start"),
        (model(web={"x-lockstep": {"drivr": "x"}}), "services.web.x-lockstep.drivr"),
        ({"volumes": {"db": {"x-lockstep": {"strategy": "x"}}}}, "volumes.db.x-lockstep.strategy"),
        ({"volumes": {"db": {"x-lockstep": "fork"}}}, "volumes.db.x-lockstep"),
        ({"x-lockstep": {"dropped": "db"}}, "x-lockstep.dropped"),
    ],
)
def test_a_wrong_note_is_refused_with_its_place(found: dict[str, Any], place: str) -> None:
    with pytest.raises(BadInput) as refusal:
        read_notes(found)
    assert str(refusal.value).startswith(f"{place} ")


@pytest.mark.parametrize(
    ("body", "policy"),
    [
        ({}, "no"),
        ({"restart": "unless-stopped"}, "unless-stopped"),
        ({"restart": "on-failure:3"}, "on-failure:3"),
        ({"deploy": {"restart_policy": {"condition": "any"}}}, "always"),
        ({"deploy": {"restart_policy": {"condition": "none"}}}, "no"),
        ({"deploy": {"restart_policy": {"condition": "on-failure"}}}, "on-failure"),
        (
            {"deploy": {"restart_policy": {"condition": "on-failure", "max_attempts": 4}}},
            "on-failure:4",
        ),
        ({"deploy": {"restart_policy": {"delay": "5s"}}}, "no"),
        ({"restart": "always", "deploy": {"restart_policy": {}}}, "no"),
        ({"restart": "no", "deploy": {"restart_policy": {"condition": "any"}}}, "always"),
    ],
)
def test_restart_policies_as_compose_reads_them(body: dict[str, Any], policy: str) -> None:
    assert compose.restart_policy(release(model(web=body)), "web") == policy


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (None, None),
        ({"test": ["CMD", "x"]}, True),
        ({"test": ["NONE"]}, False),
        ({"disable": True}, False),
        ({"interval": "5s"}, None),
    ],
)
def test_a_health_check_is_given_disabled_or_left_to_the_image(said: Any, expected: Any) -> None:
    body = {} if said is None else {"healthcheck": said}
    assert compose.has_health_check(model(web=body), "web") is expected


def test_what_may_not_run_beside_the_old_world() -> None:
    found = {
        **model(
            web={"ports": [{"target": 80, "published": "80"}]},
            random_port={"ports": [{"target": 80}], "networks": {"default": None}},
            host={"network_mode": "host"},
            fixed={"networks": {"own": {"ipv4_address": "10.0.0.2"}}},
            joined={"networks": {"default": None, "edge": None}},
            late={"x-lockstep": {"start": "after-commit"}},
            db={"networks": {"default": None}},
        ),
        "networks": {
            "default": {"name": "shop_default"},
            "own": {"name": "shop_own"},
            "edge": {"name": "edge", "external": True},
        },
    }
    assert set(compose.not_early(found)) == {"web", "host", "fixed", "joined", "late"}


def test_networks_that_worlds_share() -> None:
    found = {
        "name": "shop",
        "services": {},
        "networks": {
            "default": {"name": "shop_default"},
            "bare": None,
            "fixed": {"name": "shop_fixed", "ipam": {"config": [{"subnet": "10.1.0.0/24"}]}},
            "far": {"name": "far", "external": True},
            "named": {"name": "proxy"},
        },
    }
    assert set(compose.shared_networks(found)) == {"fixed", "far", "named"}


def test_differences_are_lines_with_the_place_and_both_values() -> None:
    environment = {"VERSION": "1", "PASSWORD": compose.placeholder("PW")}
    before = release(
        model(web={"image": "shop:1", "environment": environment}, old={"image": "x"}),
        datasets={"db": Dataset(name="db", kind=Kind.VOLUME, driver="postgres")},
        configs={"app.toml": ConfigFile(path="/a/app.toml", sha256="1" * 64)},
    )
    after = release(
        model(web={"image": "shop:1", "environment": {**environment, "VERSION": "$$2"}}),
        name="prod-002",
        datasets={"db": Dataset(name="db", kind=Kind.VOLUME, driver="directory")},
        configs={"app.toml": ConfigFile(path="/b/app.toml", sha256="2" * 64)},
    )
    assert compose.differences(before, before) == []
    lines = compose.differences(before, after)
    assert "services.web.environment.VERSION: '1' -> '$2'" in lines
    assert "datasets.db.driver: 'postgres' -> 'directory'" in lines
    assert "files.app.toml: '111111111111' -> '222222222222'" in lines
    assert any(line.startswith("services.old: ") and line.endswith("-> nothing") for line in lines)
    assert not any("PASSWORD" in line for line in lines)
