"""The compose model of a world: pinned, labelled, with its own generations, without notes."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.project import compose
from reconciler.records.release import ConfigFile, Dataset, Image, Kind, Mount, Release, Strategy
from reconciler.world import worldmodel

FILES = Path("/cat/files/shop-prod-001")


def release(model: dict[str, Any], datasets: tuple[Dataset, ...] = (), **more: Any) -> Release:
    images = {
        s: Image(service=s, tag=f"shop-{s}:prod-001", id=f"sha256:{s}") for s in model["services"]
    }
    named = {dataset.name: dataset for dataset in datasets}
    return Release(
        name="prod-001",
        parent=None,
        created="",
        model={"name": "shop", **model},
        images=images,
        datasets=named,
        **more,
    )


def world(of: Release, **more: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "project": "shop",
        "stack": "prod",
        "world": "shop-prod-001",
        "volumes": {},
        "created": (),
        "networks": {},
        "files": FILES,
        "secrets": {},
        "engine_api": "1.41",
    }
    return worldmodel.world_model(of, **{**values, **more})


def dataset(name: str, *targets: str, **more: Any) -> Dataset:
    mounts = tuple(Mount(service="web", target=target) for target in targets)
    values = {"name": name, "kind": Kind.VOLUME, "driver": "directory", "source": f"shop_{name}"}
    return Dataset(mounts=mounts, **{**values, **more})


def test_a_service_is_pinned_stopped_and_labelled() -> None:
    body = {
        "build": {"context": "/src"},
        "container_name": "web",
        "profiles": ["a"],
        "env_file": [{"path": "/x.env"}],
        "restart": "always",
        "deploy": {"replicas": 2, "restart_policy": {"condition": "any"}},
        "environment": {"A": "1", "FROM_OUTSIDE": None},
        "labels": {"mine": "yes"},
        "x-lockstep": {"start": "after-commit"},
    }
    made = world(release({"services": {"web": body}, "x-lockstep": {"dropped": ["a"]}}))
    assert made["name"] == "shop-prod-001"
    assert made["services"]["web"] == {
        "image": "shop-web:prod-001",
        "pull_policy": "never",
        "restart": "no",
        "deploy": {"replicas": 2},
        "environment": {"A": "1"},
        "labels": {
            "mine": "yes",
            "lockstep.project": "shop",
            "lockstep.stack": "prod",
            "lockstep.world": "shop-prod-001",
        },
    }
    assert "x-lockstep" not in made


@pytest.mark.parametrize(("api", "kept"), [("1.41", False), ("1.44", True), ("1.100", True)])
def test_what_the_engine_cannot_do_is_left_out_and_said(api: str, kept: bool) -> None:
    body = {
        "healthcheck": {"test": ["CMD", "x"], "start_interval": "1s"},
        "annotations": {"a": "b"},
    }
    of = release({"services": {"web": body}})
    made = world(of, engine_api=api)["services"]["web"]
    assert ("start_interval" in made["healthcheck"]) is kept
    assert ("annotations" in made) is kept
    assert (worldmodel.engine_warnings(of.model, api) == []) is kept


def test_datasets_are_mounted_from_the_worlds_generations() -> None:
    mounts = [
        {"type": "volume", "source": "db", "target": "/db", "volume": {"subpath": "x"}},
        {"type": "volume", "target": "/anon", "volume": {}},
        {"type": "bind", "source": "/srv/shop/up", "target": "/up", "bind": {}},
        {"type": "bind", "source": "/srv/shop/there", "target": "/there", "bind": {}},
        {"type": "volume", "source": "scratch", "target": "/scratch", "volume": {}},
        {"type": "tmpfs", "target": "/tmp"},
    ]
    scratch = {"name": "shop_scratch", "driver_opts": {"type": "tmpfs"}}
    declared = {"db": {"name": "shop_db", "x-lockstep": {}}, "scratch": scratch}
    of = release(
        {"services": {"web": {"volumes": mounts}}, "volumes": declared},
        (
            dataset("db", "/db"),
            dataset("seen", "/anon", kind=Kind.ANONYMOUS, source=None),
            dataset("image", "/image", kind=Kind.ANONYMOUS, source=None),
            dataset("up", "/up", kind=Kind.BIND, source="/srv/shop/up"),
            dataset(
                "there",
                "/there",
                kind=Kind.BIND,
                source="/srv/shop/there",
                strategy=Strategy.IN_PLACE,
            ),
        ),
    )
    generations = {name: f"g_{name}" for name in ("db", "seen", "image", "up")}
    volumes = worldmodel.volumes_of(of, generations)
    assert volumes == generations
    made = world(of, volumes=volumes, created={"db"})
    by_target = {m["target"]: m for m in made["services"]["web"]["volumes"]}
    assert by_target["/db"]["volume"] == {"subpath": "x"}
    for name, target in (("seen", "/anon"), ("image", "/image"), ("up", "/up")):
        assert by_target[target]["type"] == "volume"
        assert by_target[target]["source"] == name
        assert by_target[target]["volume"] == {"nocopy": True}
    assert "bind" not in by_target["/up"]
    assert by_target["/there"] == mounts[3]
    assert by_target["/scratch"] == mounts[4]
    assert by_target["/tmp"] == mounts[5]
    assert made["volumes"] == {
        "scratch": {"driver_opts": {"type": "tmpfs"}},
        **{name: {"name": f"g_{name}", "external": True} for name in generations},
    }


def test_in_place_and_external_datasets_keep_their_own_volume() -> None:
    of = release(
        {"services": {"web": {}}},
        (
            dataset("slow", "/slow", strategy=Strategy.IN_PLACE),
            dataset("far", "/far", kind=Kind.EXTERNAL, source="real"),
            dataset("others", kind=Kind.EXTERNAL, source="not_ours", shared=True),
            dataset("kept", "/kept", kind=Kind.BIND, source="/srv/kept"),
        ),
    )
    generations = {"kept": "/srv/kept"}
    assert worldmodel.volumes_of(of, generations) == {"slow": "shop_slow", "far": "real"}


def test_config_files_come_from_the_worlds_own_folder() -> None:
    mounts = [
        {"type": "bind", "source": "/srv/shop/a$$b.toml", "target": "/a", "read_only": True},
        {"type": "bind", "source": "/srv/shop/conf.d", "target": "/c", "read_only": True},
        {"type": "bind", "source": "/srv/shop/conf.dd", "target": "/d", "read_only": True},
    ]
    of = release(
        {
            "services": {"web": {"volumes": mounts, "configs": [{"source": "app"}]}},
            "configs": {"app": {"name": "shop_app", "file": "/srv/shop/a$$b.toml"}},
        },
        configs={
            "a$b.toml": ConfigFile(path="/srv/shop/a$b.toml", sha256="0" * 64),
            "conf.d/x": ConfigFile(path="/srv/shop/conf.d/x", sha256="0" * 64),
        },
    )
    made = world(of)
    sources = [m["source"] for m in made["services"]["web"]["volumes"]]
    assert sources == [
        f"{FILES}/srv/shop/a$$b.toml",
        f"{FILES}/srv/shop/conf.d",
        "/srv/shop/conf.dd",
    ]
    assert made["configs"]["app"]["file"] == f"{FILES}/srv/shop/a$$b.toml"
    assert worldmodel.config_place(FILES, of.configs["a$b.toml"]) == Path(
        f"{FILES}/srv/shop/a$b.toml"
    )


def test_what_is_given_by_content_is_injected_and_a_file_stays_a_file() -> None:
    of = release(
        {
            "services": {
                "web": {
                    "configs": [{"source": "said"}, {"source": "app", "target": "/app"}],
                    "secrets": [
                        {"source": "token", "mode": "0400", "uid": "5", "gid": "6"},
                        {"source": "key", "target": "/run/secrets/key"},
                    ],
                },
                "db": {},
            },
            "configs": {
                "said": {"name": "s", "content": f"$$x {compose.placeholder('TOKEN')}"},
                "app": {"name": "a", "file": "/srv/shop/app"},
            },
            "secrets": {
                "token": {"name": "t", "environment": compose.placeholder("TOKEN")},
                "key": {"name": "k", "file": "/srv/shop/key"},
            },
        }
    )
    made = world(of, secrets={"TOKEN": "a$b"})
    assert made["services"]["web"]["configs"] == [{"source": "app", "target": "/app"}]
    assert made["services"]["web"]["secrets"] == [{"source": "key", "target": "/run/secrets/key"}]
    assert made["configs"] == {"app": {"name": "a", "file": "/srv/shop/app"}}
    assert made["secrets"] == {"key": {"name": "k", "file": "/srv/shop/key"}}
    assert worldmodel.injected(of, {"TOKEN": "a$b"}) == {
        "web": (
            worldmodel.Injected("/said", b"$x a$b", 0o444, 0, 0),
            worldmodel.Injected("/run/secrets/token", b"a$b", 0o400, 5, 6),
        )
    }
    assert worldmodel.has_injected(of)
    assert not worldmodel.has_injected(release({"services": {"web": {}}}))


def test_networks_are_the_worlds_own_unless_they_are_shared() -> None:
    of = release(
        {
            "services": {"web": {}},
            "networks": {
                "default": {"name": "shop_default"},
                "fixed": {"name": "shop_fixed", "ipam": {"config": [{"subnet": "10.0.0.0/24"}]}},
                "plain": None,
            },
        }
    )
    made = world(of, networks={"fixed": "shop-prod_fixed"})
    assert made["networks"] == {
        "default": {},
        "fixed": {"name": "shop-prod_fixed", "external": True},
        "plain": None,
    }


SERVICES = st.dictionaries(
    st.sampled_from(["web", "db", "worker"]),
    st.fixed_dictionaries(
        {},
        optional={
            "build": st.just({"context": "."}),
            "restart": st.sampled_from(["always", "no"]),
            "container_name": st.just("x"),
            "profiles": st.just(["p"]),
            "environment": st.dictionaries(
                st.sampled_from("AB"),
                st.none() | st.sampled_from(["v", "$$", compose.placeholder("PW")]),
            ),
            "x-lockstep": st.just({"job": True}),
            "healthcheck": st.just({"test": ["CMD", "x"], "start_interval": "1s"}),
            "secrets": st.just([{"source": "s"}]),
        },
    ),
    min_size=1,
)


@given(SERVICES, st.text("ab$", min_size=1).map(lambda text: f"hunter2{text}"))
def test_every_world_keeps_its_promises(services: dict[str, Any], secret: str) -> None:
    of = release(
        {"services": services, "secrets": {"s": {"environment": compose.placeholder("PW")}}}
    )
    before = copy.deepcopy(of.model)
    made = world(of, secrets={"PW": secret})
    assert of.model == before
    assert "hunter2" not in of.model_dump_json()
    assert "lockstep-secret" not in json.dumps(made)
    for service, body in made["services"].items():
        assert body["image"] == f"shop-{service}:prod-001"
        assert (body["restart"], body["pull_policy"]) == ("no", "never")
        assert not {"build", "container_name", "profiles", "x-lockstep"} & set(body)
        assert None not in (body.get("environment") or {}).values()
        for name, value in (services[service].get("environment") or {}).items():
            if value == compose.placeholder("PW"):
                assert compose.plain(body["environment"][name]) == secret


def test_a_container_name_stays_an_alias_on_every_network() -> None:
    networks = {"front": None, "back": {"aliases": ["db"], "priority": 1}}
    body = {"container_name": "shop_db", "networks": networks}
    made = world(release({"services": {"web": body}}))
    assert made["services"]["web"]["networks"] == {
        "front": {"aliases": ["shop_db"]},
        "back": {"aliases": ["db", "shop_db"], "priority": 1},
    }


def test_an_optional_dependency_of_another_profile_is_left_out() -> None:
    needs = {"absent": {"condition": "service_started", "required": False}}
    made = world(release({"services": {"web": {"depends_on": needs}}}))
    assert made["services"]["web"]["depends_on"] == {}
