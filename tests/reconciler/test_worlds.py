"""Worlds on real Docker: making, completing, adopting and removing them."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import tempfile
import time
from typing import Any

import pytest

from reconciler import names, worlds
from reconciler.docker import OUR_DATASET, OUR_GENERATION, OUR_PROJECT, OUR_STACK, PROJECT, connect
from reconciler.errors import BadInput, CatalogDamaged, DockerFailed, Refused
from reconciler.making import adoption
from reconciler.plan import Action, DatasetPlan, Move, Plan
from reconciler.project import compose
from reconciler.records.ledger import Captured, Committed
from reconciler.world import leftovers
from snapshots.capture import capture
from snapshots.compare import tree_equal
from snapshots.store import Store
from tests.reconciler.trial import PYTHON, Trial, cache, docker_cli, web


def plan(trial: Trial, *datasets: DatasetPlan, number: int = 1, **more: Any) -> Plan:
    release = names.release_name("prod", number)
    return Plan(
        move=Move.FIRST,
        head=trial.state.head,
        target=release,
        from_world=trial.state.live,
        to_world=trial.world(number),
        new_world=True,
        datasets={d.name: d for d in datasets},
        **more,
    )


def generation(trial: Trial, dataset: str, action: Action, number: int = 1, **more: Any) -> Any:
    name = names.generation_name(trial.project, "prod", dataset, number)
    return DatasetPlan(dataset, action, name, number, new=True, **more)


def volume_content(trial: Trial, volume: str) -> dict[str, str]:
    found = trial.docker.volume(volume)
    assert found is not None
    return {
        str(path.relative_to(found.path)): path.read_text()
        for path in found.path.rglob("*")
        if path.is_file()
    }


def commit(trial: Trial, world: str, **more: Any) -> None:
    """What a switch writes when it succeeds, without starting anything."""
    trial.catalog.ledger.append(
        Committed(
            at="2026-01-01T00:00:00+00:00",
            move="forward",
            from_world=trial.state.live,
            to_world=world,
            **more,
        )
    )


def all_volumes(trial: Trial) -> set[str]:
    return {name for name in trial.docker.volumes() if name.startswith(trial.project)}


def test_a_first_world_is_made_stopped_with_labels_and_is_in_the_ledger(trial: Trial) -> None:
    (trial.folder / "app.toml").write_text("greeting = '$hello $$twice'\n")
    (trial.folder / "app.toml").chmod(0o640)
    service = web(
        volumes=["notes:/data", "./app.py:/app.py:ro", "./app.toml:/etc/app.toml:ro"],
        environment={"TOKEN": "${TOKEN}", "PLAIN": "a$$b"},
    )
    trial.write({"web": service})
    trial.settings["secrets"] = {"TOKEN": "s$cret-${X}-value"}
    trial.new()
    trial.make(plan(trial, generation(trial, "notes", Action.CREATE)))

    world = trial.state.worlds[trial.world(1)]
    volume = f"{trial.project}-prod_notes_g1"
    assert world.generations == {"notes": volume}
    assert world.fingerprint == trial.catalog.fingerprint({"TOKEN": "s$cret-${X}-value"})
    (container,) = trial.docker.containers(project=world.name)
    assert (container.state, container.restart_policy) == ("created", "no")
    assert container.volumes["/data"] == volume
    details = trial.docker.inspect(container.id)
    assert details.labels[OUR_PROJECT] == trial.project
    made = trial.docker.volume(volume)
    assert made is not None
    assert made.labels == {
        OUR_PROJECT: trial.project,
        OUR_STACK: "prod",
        OUR_DATASET: "notes",
        OUR_GENERATION: "1",
    }

    trial.docker.start(container.id)
    said = trial.docker.exec(container.id, ["sh", "-c", 'echo "$TOKEN"; echo "$PLAIN"'])
    assert said.stdout.splitlines() == ["s$cret-${X}-value", "a$b"]
    inside = trial.docker.exec(container.id, ["stat", "-c", "%a", "/etc/app.toml"])
    assert inside.stdout.strip() == "640"
    text = trial.docker.exec(container.id, ["cat", "/etc/app.toml"]).stdout
    assert text == "greeting = '$hello $$twice'\n"

    for path in trial.catalog.root.rglob("*"):
        if path.is_file():
            assert b"s$cret" not in path.read_bytes(), path


def test_the_world_keeps_the_config_file_of_its_release(trial: Trial) -> None:
    (trial.folder / "conf.d").mkdir()
    (trial.folder / "conf.d" / "a.conf").write_text("one")
    trial.write({"web": web(volumes=["./app.py:/app.py:ro", "./conf.d:/conf.d:ro"])})
    trial.new()
    (trial.folder / "conf.d" / "a.conf").write_text("two")
    (trial.folder / "conf.d" / "b.conf").write_text("new")
    trial.make(plan(trial))
    (container,) = trial.docker.containers(project=trial.world(1))
    trial.docker.start(container.id)
    said = trial.docker.exec(container.id, ["sh", "-c", "ls /conf.d; cat /conf.d/*"])
    assert said.stdout == "a.conf\none"


def test_files_given_by_content_are_there_at_the_first_start(trial: Trial) -> None:
    service = web(
        configs=[{"source": "said", "target": "/etc/deep/said"}],
        secrets=[{"source": "token", "mode": 0o400, "uid": "7"}],
    )
    trial.write(
        {"web": service},
        configs={"said": {"content": "costs $$5, ${TOKEN}"}},
        secrets={"token": {"environment": "TOKEN"}},
    )
    trial.new()
    wanted = plan(trial, generation(trial, "notes", Action.CREATE))
    trial.make(wanted)
    trial.docker.remove_container(trial.docker.containers(project=trial.world(1))[0].id)
    trial.make(wanted)
    (container,) = trial.docker.containers(project=trial.world(1))
    trial.docker.start(container.id)
    script = "cat /etc/deep/said; echo; cat /run/secrets/token; stat -c ' %a %u' /run/secrets/token"
    said = trial.docker.exec(container.id, ["sh", "-c", script]).stdout
    assert said == "costs $5, hush-hush-token\nhush-hush-token 400 7\n"


def test_two_worlds_publish_the_same_port_and_fork_the_data(trial: Trial) -> None:
    trial.write({"web": web(), "cache": cache()})
    trial.new()
    first = [generation(trial, name, Action.CREATE) for name in ("notes", "cache-data")]
    trial.make(plan(trial, *first))
    commit(trial, trial.world(1))
    content = trial.docker.volume(first[0].generation)
    assert content is not None
    (content.path / "notes").write_text("kept\n")
    (content.path / "owned").write_text("mine")
    os.chown(content.path / "owned", 123, 456)

    trial.new(VERSION="2")
    forks = [generation(trial, d.name, Action.FORK, 2, source=d.generation) for d in first]
    trial.make(plan(trial, *forks, number=2))

    assert volume_content(trial, forks[0].generation)["notes"] == "kept\n"
    forked = trial.docker.volume(forks[0].generation)
    assert forked is not None
    status = (forked.path / "owned").stat()
    assert (status.st_uid, status.st_gid) == (123, 456)
    assert trial.state.generations[forks[0].generation].parent == first[0].generation
    states = {c.state for n in (1, 2) for c in trial.docker.containers(project=trial.world(n))}
    assert states == {"created"}


def test_fault_41_an_image_fills_a_created_generation_and_no_other(trial: Trial) -> None:
    """An image with files where the dataset is mounted: they come into the volume of a new
    dataset, and never into one that is restored empty."""
    folder = trial.folder / "image"
    folder.mkdir()
    (folder / "seed").write_text("from the image")
    (folder / "Dockerfile").write_text(f"FROM {PYTHON}\nCOPY seed /data/seed\n")
    build = {"context": "./image", "network": "host"}
    trial.write({"web": web(image=None, build=build)})
    trial.new()
    made = generation(trial, "notes", Action.CREATE)
    trial.make(plan(trial, made))
    assert volume_content(trial, made.generation) == {"seed": "from the image"}
    commit(trial, trial.world(1))

    store = Store.open(trial.stack.store)
    empty = trial.folder / "empty"
    empty.mkdir()
    record = capture(empty, store, dataset="notes")
    trial.new(VERSION="2")
    restored = generation(trial, "notes", Action.RESTORE, 2, snapshot=record.id)
    trial.make(plan(trial, restored, number=2))
    assert volume_content(trial, restored.generation) == {}
    assert trial.state.generations[restored.generation].snapshot == record.id


def test_what_a_dead_run_left_is_made_anew(trial: Trial) -> None:
    trial.write({"web": web()})
    trial.new()
    wanted = generation(trial, "notes", Action.CREATE)
    trial.make(plan(trial, wanted))
    commit(trial, trial.world(1))
    source = trial.docker.volume(wanted.generation)
    assert source is not None
    (source.path / "notes").write_text("all of it\n")

    trial.new(VERSION="2")
    fork = generation(trial, "notes", Action.FORK, 2, source=wanted.generation)
    forward = plan(trial, fork, number=2)
    ledger = trial.catalog.ledger.path
    before = ledger.read_bytes()
    trial.make(forward)
    labels = {"lockstep.project": trial.project, "lockstep.dataset": "notes"}
    leftovers.note(trial.catalog, trial.world(2), {fork.generation: labels})
    half = trial.docker.volume(fork.generation)
    assert half is not None
    # As if the run had been killed just before its events were durable.
    ledger.write_bytes(before)
    (half.path / "notes").write_text("half")
    (half.path / "rubbish").write_text("x")
    old = {c.id for c in trial.docker.containers(project=trial.world(2))}

    trial.make(forward)

    assert volume_content(trial, fork.generation) == {"notes": "all of it\n"}
    assert not old & {c.id for c in trial.docker.containers(project=trial.world(2))}
    assert trial.world(2) in trial.state.worlds


@pytest.mark.parametrize("seconds", [0.15, 0.4, 0.7, 1.0])
def test_fault_06_killed_while_it_fills_a_volume(trial: Trial, seconds: float) -> None:
    """The process that fills a fork is killed at four moments: the ledger does not know the volume
    and nothing that runs mounts it; made again, it has exactly the content of its source."""
    trial.write({"web": web(), "cache": cache()})
    trial.new()
    first = [generation(trial, name, Action.CREATE) for name in ("notes", "cache-data")]
    trial.make(plan(trial, *first))
    commit(trial, trial.world(1))
    source = trial.docker.volume(first[0].generation)
    assert source is not None
    for number in range(40):
        (source.path / f"f{number}").write_bytes(os.urandom(4 << 20))
    trial.new(VERSION="2")
    forks = [generation(trial, d.name, Action.FORK, 2, source=d.generation) for d in first]
    forward = plan(trial, *forks, number=2)

    child = os.fork()
    if child == 0:
        trial.docker = connect()
        trial.make(forward)
        os._exit(0)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    unknown = {f.generation for f in forks} - set(trial.state.generations)
    running = trial.docker.listing(running=True)
    assert [c.name for c in running if unknown & set(c.mounts)] == []
    assert not unknown or trial.world(2) not in trial.state.worlds
    trial.make(forward)

    forked = trial.docker.volume(forks[0].generation)
    assert forked is not None
    assert tree_equal(source.path, forked.path) == []
    found = trial.docker.containers(project=trial.world(2))
    assert {(c.service, c.state) for c in found} == {("web", "created"), ("cache", "created")}
    assert len(found) == 2
    assert set(trial.state.worlds) == {trial.world(1), trial.world(2)}
    expected = {d.generation for d in (*first, *forks)}
    assert all_volumes(trial) == expected == set(trial.state.generations)


def test_a_world_of_the_ledger_gets_only_its_missing_containers_back(trial: Trial) -> None:
    twice = web(ports=[], deploy={"replicas": 2})
    trial.write({"web": twice, "cache": cache()})
    trial.new()
    made = [generation(trial, name, Action.CREATE) for name in ("notes", "cache-data")]
    wanted = plan(trial, *made)
    trial.make(wanted)
    seq = trial.state.seq
    before = {c.name: c.id for c in trial.docker.containers(project=trial.world(1))}
    gone = f"{trial.world(1)}-web-2"
    trial.docker.remove_container(before[gone])

    trial.make(wanted)

    after = {c.name: c.id for c in trial.docker.containers(project=trial.world(1))}
    assert set(after) == set(before)
    assert {name for name in after if after[name] != before[name]} == {gone}
    assert trial.state.seq == seq


def test_a_world_with_an_unreadable_record_is_left_as_it_is(trial: Trial) -> None:
    trial.write({"web": web()})
    trial.new()
    wanted = plan(trial, generation(trial, "notes", Action.CREATE))
    trial.make(wanted)
    (trial.stack.releases / "prod-001" / "release-info.json").write_text("{")
    before = trial.docker.containers(project=trial.world(1))
    trial.make(wanted)
    assert trial.docker.containers(project=trial.world(1)) == before
    trial.docker.remove_container(before[0].id)
    with pytest.raises(CatalogDamaged, match="prod-001"):
        trial.make(wanted)


def test_a_failure_leaves_nothing_behind(trial: Trial) -> None:
    trial.write({"web": web()})
    trial.new()
    bad = generation(trial, "notes", Action.FORK, source=f"{trial.project}_nothing")
    before = all_volumes(trial)
    with pytest.raises(Refused, match="does not exist"):
        trial.make(plan(trial, bad))
    assert all_volumes(trial) == before
    assert not trial.docker.containers(project=trial.world(1))
    assert trial.world(1) not in trial.state.worlds


def test_containers_that_cannot_be_created_leave_nothing_behind(trial: Trial) -> None:
    trial.write({"web": web(mem_limit="1m")})
    trial.new()
    with pytest.raises(DockerFailed) as failure:
        trial.make(plan(trial, generation(trial, "notes", Action.CREATE)))
    assert trial.world(1) in str(failure.value)
    assert all_volumes(trial) == set()
    assert not trial.docker.networks_of(trial.world(1))


def test_a_missing_secret_is_named_before_anything_is_made(trial: Trial) -> None:
    trial.write({"web": web(environment={"TOKEN": "${TOKEN}"})})
    trial.new()
    trial.settings["secrets"] = {}
    with pytest.raises(BadInput, match="TOKEN"):
        trial.make(plan(trial, generation(trial, "notes", Action.CREATE)))
    assert all_volumes(trial) == set()


def test_attack_names_a_foreign_project_with_the_worlds_name(trial: Trial) -> None:
    """A container of a compose project of the world's name is made by hand: refused, and it
    stays."""
    trial.write({"web": web()})
    trial.new()
    name = f"{trial.project}-foreign"
    docker_cli("create", "--name", name, "--label", f"{PROJECT}={trial.world(1)}", PYTHON, "true")
    with pytest.raises(Refused, match="exist already"):
        trial.make(plan(trial, generation(trial, "notes", Action.CREATE)))
    assert docker_cli("ps", "-aq", "--filter", f"name={name}")


def test_attack_names_a_foreign_volume_with_a_generations_name(trial: Trial) -> None:
    """A volume of the name that the next generation would have is made by hand: refused, and it
    stays."""
    trial.write({"web": web()})
    trial.new()
    wanted = generation(trial, "notes", Action.CREATE)
    docker_cli("volume", "create", wanted.generation)
    with pytest.raises(Refused, match="exists already"):
        trial.make(plan(trial, wanted))
    assert trial.docker.volume(wanted.generation) is not None


def test_the_data_of_a_lost_catalog_is_left_alone(trial: Trial) -> None:
    trial.write({"web": web()})
    trial.new()
    wanted = generation(trial, "notes", Action.CREATE)
    trial.make(plan(trial, wanted))
    containers = trial.docker.containers(project=trial.world(1))
    trial.stack.releases.rename(trial.folder / "lost")
    trial.new()
    with pytest.raises(Refused, match="may hold data of a catalog that was lost"):
        trial.make(plan(trial, wanted))
    assert trial.docker.volume(wanted.generation) is not None
    assert trial.docker.containers(project=trial.world(1)) == containers


def test_what_a_dead_run_of_another_release_left_is_removed(trial: Trial) -> None:
    trial.write({"web": web()})
    trial.new()
    wanted = generation(trial, "notes", Action.CREATE)
    ledger = trial.catalog.ledger.path
    trial.make(plan(trial, wanted))
    ledger.unlink()
    labels = {"lockstep.project": trial.project, "lockstep.dataset": "notes"}
    leftovers.note(trial.catalog, trial.world(1), {wanted.generation: labels})
    trial.new(VERSION="2")
    trial.make(plan(trial, wanted, number=2))
    assert not trial.docker.containers(project=trial.world(1))
    assert trial.docker.containers(project=trial.world(2))
    assert set(trial.state.worlds) == {trial.world(2)}


def test_adopting_changes_nothing_that_runs(trial: Trial) -> None:
    seed = {"image": PYTHON, "command": ["true"], "depends_on": ["cache"]}
    trial.write({"web": web(), "cache": cache(), "seed": seed})
    trial.plain("up", "-d")
    docker_cli("wait", f"{trial.project}-seed-1")
    before = {c.id: c for c in trial.docker.containers(project=trial.project)}
    trial.new(VERSION="2")
    record = trial.catalog.record("prod-001")
    assert record.parent == "prod-000"

    fork = generation(trial, "notes", Action.FORK, 2, source=f"{trial.project}_notes")
    keys = generation(trial, "cache-data", Action.FORK, 2, source=f"{trial.project}_cache-data")
    trial.make(plan(trial, fork, keys, adopt_project=trial.project, adopted_release="prod-000"))

    assert {c.id: c for c in trial.docker.containers(project=trial.project)} == before
    adopted = trial.catalog.record("prod-000")
    assert adopted.adopted
    assert compose.is_job(adopted.model, "seed"), "going back does not wait for it to run"
    assert {i.id for i in adopted.images.values()} == {c.image_id for c in before.values()}
    assert all(trial.docker.image(i.tag) for i in adopted.images.values())
    assert set(adopted.datasets) == {"notes", "cache-data"}
    state = trial.state
    assert state.live == trial.project
    assert state.worlds[trial.project].generations == {
        "notes": f"{trial.project}_notes",
        "cache-data": f"{trial.project}_cache-data",
    }
    assert state.generations[fork.generation].parent == f"{trial.project}_notes"


def test_what_runs_but_is_not_declared_any_more_is_adopted_as_seen(trial: Trial) -> None:
    trial.write({"web": web(), "old": cache()})
    trial.plain("up", "-d")
    trial.write({"web": web()})
    found = adoption.draft(trial.stack, trial.docker, trial.compose)
    assert found is not None
    assert set(found.release.images) == {"web", "old"}
    assert found.generations == {
        "notes": f"{trial.project}_notes",
        "cache-data": f"{trial.project}_cache-data",
    }


def test_an_adopted_release_knows_whether_its_containers_were_made_from_it(
    trial: Trial,
) -> None:
    trial.write({"web": web(environment={"TOKEN": "${TOKEN}", "VERSION": "${VERSION}"})})
    trial.plain("up", "-d")
    same = adoption.draft(trial.stack, trial.docker, trial.compose)
    assert same is not None
    assert adoption.SEEN_RUNNING not in same.release.model
    assert "hush-hush-token" not in same.release.model_dump_json()
    trial.environment["VERSION"] = "2"
    changed = adoption.draft(trial.stack, trial.docker, trial.compose)
    assert changed is not None
    assert changed.release.model[adoption.SEEN_RUNNING] is True
    assert changed.generations == same.generations


def test_a_stopped_project_is_not_adopted(trial: Trial) -> None:
    trial.write({"web": web()})
    trial.plain("up", "-d")
    trial.plain("stop")
    assert adoption.draft(trial.stack, trial.docker, trial.compose) is None


@pytest.fixture
def three(trial: Trial) -> Trial:
    """Three worlds, of which the third is live and the second previous; nothing runs."""
    trial.write({"web": web()})
    source = None
    for number in (1, 2, 3):
        trial.new(VERSION=str(number))
        action = Action.CREATE if source is None else Action.FORK
        wanted = generation(trial, "notes", action, number, source=source)
        trial.make(plan(trial, wanted, number=number))
        sealed: dict[str, str] = {"notes": source} if source else {}
        commit(trial, trial.world(number), sealed=sealed)
        source = wanted.generation
    return trial


def remove(trial: Trial, world: str) -> None:
    worlds.remove(trial.stack, trial.catalog, trial.docker, trial.compose, world)


def captured(trial: Trial, generation: str) -> None:
    """Pay the debt of a generation."""
    state = trial.state
    path = trial.docker.volume(generation)
    sealing = state.generations[generation].sealed
    assert path is not None
    assert sealing is not None
    record = capture(path.path, Store.open(trial.stack.store), dataset="notes")
    trial.catalog.ledger.append(
        Captured(at="", generation=generation, sealing=sealing, snapshot=record.id, bytes=0)
    )


@pytest.mark.parametrize(("number", "why"), [(3, "live"), (2, "previous")])
def test_a_needed_world_is_not_removed(three: Trial, number: int, why: str) -> None:
    with pytest.raises(Refused, match=why):
        remove(three, three.world(number))
    assert three.docker.containers(project=three.world(number))


def test_sealed_data_is_not_removed_before_it_is_in_the_store(three: Trial) -> None:
    first = f"{three.project}-prod_notes_g1"
    with pytest.raises(Refused, match="not in the store"):
        remove(three, three.world(1))
    captured(three, first)
    snapshot = three.state.generations[first].captured
    assert snapshot is not None
    (three.stack.store / "snapshots" / f"{snapshot}.json").rename(three.folder / "away")
    with pytest.raises(Refused, match="not in the store"):
        remove(three, three.world(1))
    (three.folder / "away").rename(three.stack.store / "snapshots" / f"{snapshot}.json")

    remove(three, three.world(1))

    assert three.state.worlds[three.world(1)].removed
    assert three.state.generations[first].removed
    assert three.docker.volume(first) is None
    assert not three.docker.containers(project=three.world(1))
    assert not three.docker.networks_of(three.world(1))
    assert all_volumes(three) == {f"{three.project}-prod_notes_g{n}" for n in (2, 3)}
    remove(three, three.world(1))


def test_a_generation_that_another_world_mounts_stays(three: Trial) -> None:
    captured(three, f"{three.project}-prod_notes_g1")
    attached = DatasetPlan("notes", Action.ATTACH, f"{three.project}-prod_notes_g1", 1, new=False)
    second = dataclasses.replace(
        plan(three, attached), to_world=names.world_name(three.project, "prod-001", 2)
    )
    three.make(second)
    remove(three, three.world(1))
    assert three.docker.volume(f"{three.project}-prod_notes_g1") is not None


def test_a_world_that_somebody_started_is_not_removed(three: Trial) -> None:
    captured(three, f"{three.project}-prod_notes_g1")
    (container,) = three.docker.containers(project=three.world(1))
    three.docker.start(container.id)
    with pytest.raises(Refused, match="runs"):
        remove(three, three.world(1))


def test_images_of_kept_releases_are_guarded(three: Trial) -> None:
    def guard(release: str) -> None:
        worlds.guard_images(three.stack, three.catalog, three.docker, release)

    with pytest.raises(Refused, match="kept"):
        guard("prod-001")
    with pytest.raises(Refused, match="kept"):
        guard("prod-003")
    three.catalog.remove("prod-001")
    guard("prod-001")
    tag = three.catalog.record("prod-002").images["web"].tag
    three.docker.untag(tag)
    guard("prod-002")


def test_images_of_an_unreadable_record_outlive_their_tag(three: Trial) -> None:
    image = three.catalog.record("prod-001").images["web"]
    (three.stack.releases / "prod-001" / "release-info.json").write_text("{")
    worlds.guard_images(three.stack, three.catalog, three.docker, "prod-001")
    three.docker.untag(image.tag)
    kept = three.docker.image(f"{image.tag}-kept")
    assert kept is not None
    assert kept.id == image.id


def test_bind_directories_and_in_place_volumes_are_made_as_compose_would(trial: Trial) -> None:
    trial.write(
        {"web": web(volumes=["./app.py:/app.py:ro", "./files:/files", "slow:/slow"])},
        volumes={"slow": {"x-lockstep": {"strategy": "in-place"}}},
    )
    trial.new()
    slow = DatasetPlan("slow", Action.IN_PLACE, f"{trial.project}_slow", 0, new=False)
    files = DatasetPlan("files", Action.IN_PLACE, str(trial.folder / "files"), 0, new=False)
    trial.make(plan(trial, slow, files))
    assert (trial.folder / "files").is_dir()
    (container,) = trial.docker.containers(project=trial.world(1))
    assert container.volumes["/slow"] == f"{trial.project}_slow"
    assert container.volumes["/files"] == str(trial.folder / "files")
    trial.plain("create")
    mounted = trial.docker.containers(project=trial.project)[0].volumes
    assert mounted["/slow"] == f"{trial.project}_slow"


def test_an_external_volume_that_does_not_exist_is_named(trial: Trial) -> None:
    trial.write(
        {"web": web(volumes=["./app.py:/app.py:ro", "far:/far"])},
        volumes={"far": {"external": True, "name": f"{trial.project}_far"}},
    )
    trial.new()
    far = DatasetPlan("far", Action.IN_PLACE, f"{trial.project}_far", 0, new=False)
    with pytest.raises(BadInput, match="docker volume create"):
        trial.make(plan(trial, far))


def test_a_fixed_subnet_is_shared_by_worlds_and_taken_over_when_adopted(trial: Trial) -> None:
    octet = int(trial.project[-2:], 16)
    networks = {"fix": {"ipam": {"config": [{"subnet": f"10.213.{octet}.0/24"}]}}}
    trial.write(
        {"web": web(networks={"fix": {"ipv4_address": f"10.213.{octet}.9"}})}, networks=networks
    )
    for number in (1, 2):
        trial.new(VERSION=str(number))
        trial.make(plan(trial, generation(trial, "notes", Action.CREATE, number), number=number))
    for number in (1, 2):
        (container,) = trial.docker.containers(project=trial.world(number))
        assert trial.docker.inspect(container.id).networks == {f"{trial.project}-prod_fix"}


def test_the_model_goes_in_by_standard_input_only(trial: Trial) -> None:
    """No secret in an argument list: what every process of the host shows while it is made."""
    trial.write({"web": web(environment={"TOKEN": "${TOKEN}"})})
    trial.new()
    with tempfile.TemporaryFile() as shown:  # a pipe would fill up, and the watcher stand still
        watcher = subprocess.Popen(
            ["sh", "-c", "while :; do cat /proc/[0-9]*/cmdline 2>/dev/null; sleep 0.02; done"],
            stdout=shown,
            stderr=subprocess.DEVNULL,
        )
        try:
            trial.make(plan(trial, generation(trial, "notes", Action.CREATE)))
        finally:
            watcher.kill()
            watcher.wait()
        shown.seek(0)
        seen = shown.read()
    assert b"compose" in seen
    assert b"hush-hush-token" not in seen
