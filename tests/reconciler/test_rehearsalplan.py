"""What is rehearsed reaches nobody outside, and is reached by nobody."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler.docker import dockervalues
from reconciler.trials.rehearsalplan import beside, differences, held_back, wrong_lines

MODEL: dict[str, Any] = {
    "name": "shop-prod-rehearsal",
    "services": {
        "web": {
            "image": "shop-web:prod-002",
            "ports": [{"target": 80, "published": "8080"}],
            "networks": {"front": {"ipv4_address": "10.1.0.5", "aliases": ["www"]}, "wan": None},
            "depends_on": {"mailer": {"condition": "service_started"}, "db": {}},
            "links": ["mailer:m", "db"],
            "labels": {dockervalues.OUR_STACK: "prod", "traefik.enable": "true"},
            "volumes": [
                {"type": "bind", "source": "/srv/theirs", "target": "/theirs"},
                {"type": "bind", "source": "/files/own/a.conf", "target": "/a"},
                {"type": "volume", "source": "data", "target": "/data"},
            ],
            "deploy": {"replicas": 4, "resources": {}},
        },
        "db": {"image": "db", "network_mode": "host", "pid": "host", "ipc": "shareable"},
        "side": {"image": "s", "network_mode": "service:web", "volumes_from": ["container:x"]},
        "tail": {"image": "t", "network_mode": "service:mailer"},
        "mailer": {"image": "m"},
    },
    "networks": {
        "front": {"ipam": {"config": [{"subnet": "10.1.0.0/24"}]}},
        "wan": {"external": True},
    },
    "volumes": {"data": {"name": "scratch", "external": True}},
}


def made(*, outgoing: bool = False) -> dict[str, Any]:
    label = ("lockstep.rehearsal", "shop/prod")
    return beside(MODEL, {"mailer"}, label=label, files="/files/own", outgoing=outgoing)


def test_there_is_no_way_in_or_out() -> None:
    model = made()
    assert model["networks"] == {
        "front": {"internal": True}, "wan": {"internal": True}, "default": {"internal": True},
    }  # fmt: skip
    assert not any("ports" in body for body in model["services"].values())
    web, db = model["services"]["web"], model["services"]["db"]
    assert web["networks"] == {"front": {"aliases": ["www"]}, "wan": None}
    assert db["networks"] == {"default": None}
    assert not {"network_mode", "pid"} & db.keys()
    assert db["ipc"] == "shareable"
    assert {n["internal"] for n in made(outgoing=True)["networks"].values()} == {False}


def test_nothing_of_the_host_is_written_and_no_world_is_claimed() -> None:
    web = made()["services"]["web"]
    assert [m.get("read_only") for m in web["volumes"]] == [True, None, None]
    assert web["labels"] == {"traefik.enable": "true", "lockstep.rehearsal": "shop/prod"}


def test_what_is_left_out_is_missed_by_nobody() -> None:
    services = made()["services"]
    assert services.keys() == {"web", "db", "side", "tail"}
    assert services["web"]["depends_on"] == {"db": {}}
    assert services["web"]["links"] == ["db"]
    assert services["side"]["network_mode"] == "service:web"
    assert services["side"]["volumes_from"] == []
    assert services["tail"]["networks"] == {"default": None}


def test_who_serves_comes_first() -> None:
    for body in made()["services"].values():
        assert (body["cpu_shares"], body["oom_score_adj"]) == (128, 1000)
    assert "replicas" not in made()["services"]["web"]["deploy"]
    assert MODEL["services"]["web"]["deploy"]["replicas"] == 4


def test_who_acts_on_the_world_is_held_back() -> None:
    model = {
        "services": {
            "mailer": {"x-lockstep": {"start": "after-commit"}},
            "proxy": {
                "volumes": [{"type": "bind", "source": "/var/run/docker.sock", "target": "/d"}]
            },
            "root": {"privileged": True},
            "host": {"network_mode": "host"},
            "web": {},
        }
    }
    found = held_back(model)
    assert found.keys() == {"mailer", "proxy", "root"}
    assert found["mailer"] == "start: after-commit"


@pytest.mark.parametrize(
    ("log", "count", "last"),
    [
        ("", 0, ()),
        ("all is well\nno terrors here", 0, ()),
        ("ERROR: x\nfine\npanic: y", 2, ("ERROR: x", "panic: y")),
        ("\n".join(f"Error {n}" for n in range(9)), 9, ("Error 6", "Error 7", "Error 8")),
    ],
)
def test_lines_that_speak_of_errors(log: str, count: int, last: tuple[str, ...]) -> None:
    found = wrong_lines(log)
    assert (found.count, found.last) == (count, last)


def test_differences_name_both_sides() -> None:
    assert differences({"a": 1, "b": 2, "c": 3}, {"a": 1, "b": 5, "d": 1}) == {
        "b": (2, 5),
        "c": (3, None),
        "d": (None, 1),
    }
