"""The facts of a host, seen on real Docker."""

from __future__ import annotations

import socket
import time

import pytest

from reconciler import observe
from reconciler.docker import Listed, Published
from reconciler.errors import BadInput
from reconciler.facts import Facts, PortHolder
from reconciler.project.compose import PublishedPort
from reconciler.project.ports import holders
from reconciler.records.ledger import Adopted, Ledger
from snapshots.capture import capture
from snapshots.store import Store
from tests.reconciler.trial import PYTHON, Trial, cache, docker_cli, free_port, web


def look(trial: Trial, *, probe: bool = False) -> Facts:
    return observe.observe(trial.stack, trial.catalog, trial.state, trial.docker, probe=probe)


def foreign(trial: Trial, *options: str) -> str:
    """A running container of nobody; its name."""
    name = f"{trial.project}-foreign"
    sleep = ["python3", "-c", "import time; time.sleep(600)"]
    label = f"com.docker.compose.project={trial.project}zzz"
    docker_cli("run", "-d", "--init", "--name", name, "--label", label, *options, PYTHON, *sleep)
    return name


def test_nothing_is_there_yet(trial: Trial) -> None:
    facts = look(trial)
    assert (facts.containers, facts.images, facts.volumes, facts.records) == ({}, {}, {}, {})
    assert abs(facts.now - time.time()) < 5
    assert facts.disk.volumes_free > 0
    assert facts.unfinished is None
    assert not trial.stack.store.exists()


def test_the_plain_project_is_seen_only_while_it_can_be_adopted(trial: Trial) -> None:
    trial.write({"web": web(), "cache": cache()})
    trial.plain("up", "-d")
    assert trial.project not in look(trial).containers
    trial.new()
    facts = look(trial)
    assert {c.service for c in facts.containers[trial.project]} == {"web", "cache"}
    assert set(facts.volumes) == {f"{trial.project}_notes", f"{trial.project}_cache-data"}
    assert facts.volumes[f"{trial.project}_cache-data"] > 0
    assert facts.images == {
        image.tag: image.id for image in facts.records["prod-001"].images.values()
    }
    assert (facts.foreign_mounts, facts.ports) == ({}, ())
    other = trial.catalog.root / "ledger-staging.jsonl"
    adopted = Adopted(at="then", world=trial.project, release="staging-000", generations={})
    Ledger(other).append(adopted)
    theirs = look(trial)
    assert trial.project not in theirs.containers, "it is another stack's first world"
    assert theirs.ports
    other.unlink()
    trial.plain("stop")
    assert trial.project not in look(trial).containers


def test_a_live_world_with_sizes_counts_and_fingerprint(trial: Trial) -> None:
    trial.write({"web": web(environment={"TOKEN": "${TOKEN}"}), "cache": cache()})
    trial.new()
    trial.up()
    trial.exec(trial.world(1), "cache", "redis-cli", "set", "key", "value")
    staying = look(trial, probe=True)
    assert {c.state for c in staying.containers[trial.world(1)]} == {"running"}
    assert staying.live_probe == {}
    live = trial.state.worlds[trial.world(1)]
    assert staying.fingerprint == live.fingerprint != ""

    trial.new(VERSION="2")
    moving = look(trial, probe=True)
    assert sum(moving.live_probe["cache-data"].values()) == 1
    assert moving.volumes[live.generations["cache-data"]] > 0
    assert look(trial).live_probe == {}
    assert moving.ports == ()

    trial.settings["secrets"] = {"TOKEN": "another"}
    assert look(trial).fingerprint not in ("", live.fingerprint)
    trial.settings["secrets"] = {}
    assert look(trial).fingerprint == ""


def test_who_else_uses_our_data_and_ports(trial: Trial) -> None:
    trial.write({"web": web()})
    trial.new()
    trial.up()
    generation = trial.state.worlds[trial.world(1)].generations["notes"]
    taken = free_port()
    name = foreign(trial, "-v", f"{generation}:/x", "-p", f"127.0.0.1:{taken}:80")
    facts = look(trial)
    assert facts.foreign_mounts == {generation: (name,)}
    assert facts.ports == ()

    trial.environment["PORT"] = str(taken)
    trial.new(VERSION="2")
    assert look(trial).ports == (PortHolder(taken, "tcp", f"container {name}"),)


def test_the_adopted_project_started_by_hand_is_foreign(trial: Trial) -> None:
    trial.write({"web": web(), "cache": cache()})
    trial.plain("up", "-d")
    trial.new()
    trial.up()
    assert look(trial).foreign_mounts == {}
    trial.plain("start", "cache")
    volume = f"{trial.project}_cache-data"
    assert look(trial).foreign_mounts == {volume: (f"{trial.project}-cache-1",)}


@pytest.mark.parametrize(("address", "held"), [("127.0.0.1", True), ("127.0.0.2", False)])
def test_a_process_of_the_host_holds_a_port(trial: Trial, address: str, held: bool) -> None:
    with socket.create_server((address, 0)) as server:
        trial.environment["PORT"] = str(server.getsockname()[1])
        trial.write({"web": web()})
        trial.new()
        expected = PortHolder(server.getsockname()[1], "tcp", "a process of this host")
        assert look(trial).ports == ((expected,) if held else ())


def test_udp_and_every_address() -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as server:
        server.bind(("::", 0))
        port = server.getsockname()[1]
        wanted = [PublishedPort("127.0.0.1", port, "udp", "dns")]
        expected = (PortHolder(port, "udp", "a process of this host"),)
        assert holders(wanted, [], lambda _: False) == expected
        assert holders([PublishedPort("", port, "tcp", "dns")], [], lambda _: False) == ()


def listed(name: str, ip: str = "0.0.0.0", mode: str = "bridge") -> Listed:
    return Listed(name, name, {}, "running", "", (), (Published(ip, 9, "tcp", 80),), mode)


@pytest.mark.parametrize(
    ("wanted_ip", "running", "expected"),
    [
        ("", [listed("other")], ["container other"]),
        ("127.0.0.1", [listed("other")], ["container other"]),
        ("127.0.0.1", [listed("other", "127.0.0.1")], ["container other"]),
        ("127.0.0.1", [listed("other", "127.0.0.2")], []),
        ("", [listed("ours")], []),
        ("", [listed("ours"), listed("a"), listed("b")], ["container a", "container b"]),
        ("", [], []),
    ],
)
def test_containers_hold_ports(wanted_ip: str, running: list[Listed], expected: list[str]) -> None:
    wanted = [PublishedPort(wanted_ip, 9, "tcp", "web")]
    found = holders(wanted, running, lambda c: c.name == "ours")
    assert [holder.holder for holder in found] == expected


def test_snapshots_and_recorded_sizes(trial: Trial) -> None:
    trial.write({"web": web()})
    trial.new()
    content = trial.folder / "content"
    content.mkdir()
    (content / "a").write_bytes(b"x" * 1000)
    store = Store.open(trial.stack.store)
    record = capture(content, store, dataset="notes")
    facts = look(trial)
    assert facts.snapshots[record.id].dataset == "notes"
    assert facts.snapshots[record.id].bytes == 1000
    (trial.stack.store / "snapshots" / f"{record.id}.json").write_text("{}")
    assert look(trial).snapshots == {}


@pytest.mark.parametrize("store", ["app.py", "app.py/store"])
def test_a_store_that_cannot_be_written(trial: Trial, store: str) -> None:
    trial.write({"web": web()})
    trial.new()
    trial.settings["store"] = store
    with pytest.raises(BadInput, match="config set store"):
        look(trial)


def test_a_damaged_record_is_named_and_the_others_go_on(trial: Trial) -> None:
    trial.write({"web": web()})
    trial.new()
    trial.new(VERSION="2")
    (trial.stack.releases / "prod-001" / "release-info.json").write_text("{")
    facts = look(trial)
    assert set(facts.records) == {"prod-002"}
    assert "prod-001" in facts.damaged["prod-001"]


def test_it_is_fast(trial: Trial) -> None:
    trial.write({"web": web(), "cache": cache()})
    trial.new()
    trial.up()
    trial.new(VERSION="2")
    seconds = []
    for _ in range(3):
        began = time.monotonic()
        look(trial)
        seconds.append(time.monotonic() - began)
    assert min(seconds) < 0.5
