"""What the ingress owns, its configuration, and what it reads of HAProxy's answers. Pure."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.config import Ingress
from reconciler.facts import Container
from reconciler.ingress import ingressfile, ingressports, ingresstalk
from reconciler.ingress.ingressfile import Pointing
from reconciler.ingress.ingressports import Behind, Door
from reconciler.planning import refusals
from reconciler.project import compose
from tests.reconciler.test_worldmodel import release, world

HAPROXY = Ingress(way="haproxy")


def port(published: object, target: int = 80, **more: Any) -> dict[str, Any]:
    return {"published": published, "target": target, "protocol": "tcp", **more}


def owned(settings: Ingress, *ports: dict[str, Any], **body: Any) -> tuple[Behind, ...]:
    model = {"services": {"web": {"ports": list(ports), **body}}}
    return ingressports.of_service(model, "web", settings)


@pytest.mark.parametrize(
    ("settings", "ports"),
    [
        (HAPROXY, {8080, 8443}),
        (Ingress(), set()),
        (Ingress(ports={"web": "haproxy"}), {8080, 8443}),
        (Ingress(ports={"web:8443": "haproxy"}), {8443}),
        (Ingress(way="haproxy", ports={"web:8443": "direct"}), {8080}),
        (Ingress(way="haproxy", ports={"web": "direct", "web:8443": "haproxy"}), {8443}),
        (Ingress(ports={"other": "haproxy"}), set()),
    ],
)
def test_the_nearest_word_says_which_way_a_port_goes(settings: Ingress, ports: set[int]) -> None:
    found = owned(settings, port("8080"), port("8443"))
    assert {behind.door.port for behind in found} == ports


@pytest.mark.parametrize(
    "direct",
    [port("8080", protocol="udp"), port(""), port("8000-8010"), port("0"), {"target": 80}],
)
def test_udp_and_ports_that_are_not_fixed_stay_direct(direct: dict[str, Any]) -> None:
    assert owned(HAPROXY, direct) == ()


def test_a_service_without_a_network_of_its_own_stays_direct() -> None:
    assert owned(HAPROXY, port("8080"), network_mode="host") == ()


def test_a_world_does_not_publish_what_the_ingress_owns_and_says_so_in_its_label() -> None:
    dns = port("5353", 53, protocol="udp")
    model = {"services": {"web": {"ports": [port("8080", host_ip="127.0.0.1"), dns]}}}
    settings = Ingress(way="haproxy", proxy=("web",))

    made = world(release(model), ingress=settings)["services"]["web"]

    assert made["ports"] == [dns]
    assert ingressports.read(made["labels"]["lockstep.behind-ingress"]) == (
        Behind(Door("127.0.0.1", 8080), 80, True),
    )
    untouched = world(release(model))["services"]["web"]
    assert len(untouched["ports"]) == 2
    assert "lockstep.behind-ingress" not in untouched["labels"]


def container(behind: str, service: str = "web") -> Container:
    return Container(
        "1", "w-web-1", "w", service, "running", 0, "no", "sha256:1", {}, behind=behind
    )


def test_a_world_that_was_made_with_another_setting_is_seen_and_can_be_made_as_it_was() -> None:
    model = {"services": {"web": {"ports": [port("8080"), port("8443")]}}}
    half = Ingress(ports={"web:8443": "haproxy"}, proxy=("web",))
    made = [container(ingressports.label(owned(half, port("8080"), port("8443"))))]

    assert ingressports.changed(model, made, HAPROXY)
    assert ingressports.changed(model, made, Ingress())
    assert ingressports.changed(model, made, half.model_copy(update={"proxy": ()}))
    assert not ingressports.changed(model, made, half)
    again = ingressports.as_made(HAPROXY, made)
    assert not ingressports.changed(model, made, again)
    assert again.way_of("another, of which nothing is left", 80) == "haproxy"


@given(
    st.lists(
        st.builds(
            Behind,
            st.builds(Door, st.sampled_from(["", "127.0.0.1", "::1"]), st.integers(1, 65535)),
            st.integers(1, 65535),
            st.booleans(),
        )
    )
)
def test_a_label_is_read_as_it_was_written(found: list[Behind]) -> None:
    assert ingressports.read(ingressports.label(found)) == tuple(found)


@pytest.mark.parametrize("proxy", [True, False])
def test_a_configuration_tells_whom_it_serves(proxy: bool) -> None:
    pointing = Pointing("shop-prod-002-web-1", 8000, proxy)
    serving = ingressfile.text(pointing, HAPROXY, "10.0.0.253", serving=True)
    holding = ingressfile.text(pointing, HAPROXY, "10.0.0.253", serving=False)
    assert ingressfile.pointing_of(serving) == pointing
    assert ingressfile.pointing_of(holding) is None
    assert ingressfile.pointing_of("") is None


STATE = """1
# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_fqdn srv_port
3 world 1 gate 172.26.255.253 {gate} - 9
3 world 2 plain {plain} {name} 8000
3 world 3 proxy - 0 37 {name} 8000
"""


@pytest.mark.parametrize(
    ("gate", "plain", "name", "serves"),
    [
        ("0 1", "172.27.0.3 2 64", "web-1", True),
        ("2 0", "172.27.0.3 0 1", "web-1", False),  # it holds
        ("0 1", "172.27.0.3 2 64", "web-2", False),
        ("0 1", "172.27.0.3 0 1", "web-1", False),  # taken out of service
        ("0 1", "- 0 32", "web-1", True),  # the container stands still
    ],
)
def test_it_is_seen_whom_a_running_haproxy_serves(
    gate: str, plain: str, name: str, serves: bool
) -> None:
    said = ingressfile.servers(STATE.format(gate=gate, plain=plain, name=name))
    assert ingressfile.serves(said, Pointing("web-1", 8000, False)) is serves


def test_only_what_the_world_publishes_itself_keeps_a_service_from_an_early_start() -> None:
    model = {"services": {"web": {"ports": [port("8080"), port("8443")]}}}
    assert compose.not_early(model, {"web": 2}) == {}
    assert "publishes" in compose.not_early(model, {"web": 1})["web"]


@pytest.mark.parametrize(
    ("before", "now", "limit"),
    [
        (500, 0, ingressfile.UNLIMITED),  # nobody waits any more
        (500, 499, 64),
        (500, 500, 128),  # it does not keep up, or its connections last
        (500, 900, 128),
    ],
)
def test_so_many_are_let_in_at_once_as_the_world_keeps_up_with(
    before: int, now: int, limit: int
) -> None:
    assert ingresstalk.next_limit(64, before, now) == limit
    assert ingresstalk.next_limit(40_000, 5, 5) == ingressfile.UNLIMITED


@pytest.mark.parametrize(
    ("body", "refused"),
    [
        ({"ports": [port("8080")], "deploy": {"replicas": 2}}, True),
        ({"ports": [port("8080")], "scale": 2}, True),
        ({"ports": [port("5353", protocol="udp")], "scale": 2}, True),
        ({"ports": [port("8080")]}, False),
        ({"ports": [port("8080")], "scale": 0}, False),
        ({"ports": [port("8080-8081")], "scale": 2}, False),
        ({"ports": [port("")], "scale": 2}, False),
        ({"ports": [port("8080")], "scale": 2, "network_mode": "host"}, False),
    ],
)
def test_several_containers_cannot_publish_one_port(body: dict[str, Any], refused: bool) -> None:
    found = refusals.replicas(release({"services": {"web": body}}))
    assert bool(found) is refused
    if refused:
        assert "service web of prod-001 has 2 containers" in found[0].message
