"""The seam to Docker and Compose, against the real daemon."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import docker.errors
import pytest
import requests
import urllib3

from reconciler import docker as seam
from reconciler.docker import (
    PROJECT,
    Compose,
    Docker,
    PortTaken,
    composeplugin,
    connect,
    failing,
    images,
)
from reconciler.errors import BadInput, DockerFailed, LockstepError, Refused, Unavailable
from tests.reconciler.trial import PYTHON, Trial, docker_cli, free_port, web

SLEEP = ["python3", "-c", "import time; time.sleep(600)"]


@pytest.fixture
def trial(tmp_path: Path) -> Iterator[Trial]:
    made = Trial(tmp_path)
    yield made
    made.clear()


def container(trial: Trial, *options: str, command: list[str] = SLEEP, start: bool = True) -> str:
    """A container of the trial's project; its id."""
    made = docker_cli(
        "create", "--init", "--label", f"{PROJECT}={trial.project}", *options, PYTHON, *command
    ).strip()
    if start:
        docker_cli("start", made)
    return made


# containers


def test_a_container_is_seen_in_full(trial: Trial) -> None:
    port = free_port()
    made = container(
        trial,
        "--name", f"{trial.project}-seen",
        "--health-cmd", "exit 0",
        "--health-start-period", "5s",
        "--health-timeout", "2s",
        "--stop-timeout", "3",
        "--restart", "on-failure:4",
        "--publish", f"127.0.0.1:{port}:80",
        "--env", "TOKEN=hush-hush",
        "--volume", f"{trial.project}_a:/a",
        "--volume", f"{trial.folder}:/b:ro",
    )  # fmt: skip
    found = trial.docker.inspect(made)
    assert found.name == f"{trial.project}-seen"
    assert (found.state, found.project, found.init) == ("running", trial.project, True)
    assert found.health is not None
    assert found.health.argv == ("/bin/sh", "-c", "exit 0")
    assert (found.health.start_period, found.health.timeout) == (5.0, 2.0)
    assert (found.stop_grace, found.restart_policy) == (3.0, "on-failure:4")
    assert found.ports == (seam.Published("127.0.0.1", port, "tcp", 80),)
    assert found.volumes == {"/a": f"{trial.project}_a", "/b": str(trial.folder)}
    assert found.read_only == {"/b"}
    assert found.pid > 0
    assert list(found.addresses) == ["bridge"]
    assert "TOKEN" in found.env_names
    assert "hush-hush" not in repr(found)
    (fact,) = trial.docker.containers(project=trial.project)
    assert (fact.id, fact.restart_policy, fact.volumes) == (
        made,
        "on-failure:4",
        dict(found.volumes),
    )
    assert trial.docker.containers(volume=f"{trial.project}_a") == (fact,)
    (listed,) = trial.docker.listing(labels=[f"{PROJECT}={trial.project}"], running=True)
    assert set(listed.mounts) == {f"{trial.project}_a", str(trial.folder)}
    assert listed.ports == found.ports


def test_stop_kill_wait_logs_and_restart_policy(trial: Trial) -> None:
    made = container(trial, command=["sh", "-c", "echo one; echo two >&2; sleep 600 & wait"])
    assert trial.docker.wait_exit(made, 0.2) is None
    trial.docker.set_restart(made, "unless-stopped")
    assert trial.docker.inspect(made).restart_policy == "unless-stopped"
    trial.docker.set_restart(made, "no")
    began = time.monotonic()
    trial.docker.stop(made, grace=10)
    assert time.monotonic() - began < 5
    assert trial.docker.wait_exit(made, 1) == 143
    assert sorted(trial.docker.logs(made).split()) == ["one", "two"]
    assert len(trial.docker.logs(made, tail=1).split()) == 1
    trial.docker.kill(made)
    trial.docker.stop(made)
    trial.docker.start(made)
    trial.docker.start(made)
    trial.docker.kill(made)
    assert trial.docker.wait_exit(made, 5) == 137
    trial.docker.remove_container(made)
    trial.docker.remove_container(made)
    with pytest.raises(DockerFailed, match="does not exist any more"):
        trial.docker.inspect(made)


def test_a_container_that_was_never_started_has_not_ended(trial: Trial) -> None:
    made = container(trial, start=False)
    assert trial.docker.wait_exit(made, 0.5) is None


def test_a_container_that_ignores_its_stop_signal_is_killed_after_the_grace(trial: Trial) -> None:
    ignoring = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"
    made = container(trial, command=["python3", "-c", ignoring])
    time.sleep(0.3)
    began = time.monotonic()
    trial.docker.stop(made, grace=0.4)
    assert 0.9 < time.monotonic() - began < 5
    assert trial.docker.wait_exit(made, 1) == 137


def test_a_port_that_is_taken_is_told_apart(trial: Trial) -> None:
    publish = ("--publish", f"127.0.0.1:{free_port()}:80")
    container(trial, *publish)
    second = container(trial, *publish, "--name", f"{trial.project}-second", start=False)
    with pytest.raises(PortTaken, match=f"start container {trial.project}-second"):
        trial.docker.start(second)


# exec


def test_exec_gives_code_and_both_outputs(trial: Trial) -> None:
    made = container(trial)
    done = trial.docker.exec(made, ["sh", "-c", "cat; echo err >&2; exit 3"], stdin="in\n")
    assert (done.code, done.stdout, done.stderr) == (3, "in\n", "err\n")
    assert trial.docker.exec(made, ["id", "-u"], user="1234").stdout == "1234\n"
    assert trial.docker.exec(made, ["no-such-program"]).code in (126, 127)


def test_exec_carries_much_in_both_directions(trial: Trial) -> None:
    made = container(trial)
    text = "0123456789\n" * 400_000
    assert trial.docker.exec(made, ["cat"], stdin=text).stdout == text
    assert trial.docker.exec(made, ["head", "-c", "3"], stdin=text).stdout == "012"


def test_exec_that_takes_too_long_is_ended_in_the_container(trial: Trial) -> None:
    made = container(trial)
    began = time.monotonic()
    done = trial.docker.exec(made, ["sh", "-c", "echo begun; exec sleep 400"], timeout=0.5)
    assert time.monotonic() - began < 2
    assert (done.code, done.stdout) == (124, "begun\n")
    assert "0.5 s" in done.stderr
    time.sleep(0.2)
    ps = "import glob; print([open(p).read() for p in glob.glob('/proc/[0-9]*/cmdline')])"
    assert "400" not in trial.docker.exec(made, ["python3", "-c", ps]).stdout


def test_exec_needs_a_running_container(trial: Trial) -> None:
    made = container(trial, start=False)
    with pytest.raises(DockerFailed, match="not running"):
        trial.docker.exec(made, ["true"])


# images, volumes, networks


def test_an_image_that_was_saved_is_loaded_with_its_id(trial: Trial, tmp_path: Path) -> None:
    tag = f"{trial.project}:saved"
    (tmp_path / "file").write_text(trial.project)
    docker_cli("container", "create", "--name", f"{trial.project}-saved", PYTHON)
    try:
        docker_cli("cp", str(tmp_path / "file"), f"{trial.project}-saved:/file")
        image = docker_cli("commit", f"{trial.project}-saved", tag).strip()
    finally:
        docker_cli("rm", "--force", f"{trial.project}-saved")
    saved = tmp_path / "image"
    with open(saved, "wb") as file:
        file.writelines(trial.docker.save_image(image))
    trial.docker.untag(tag)
    assert trial.docker.image(image) is None
    content = saved.read_bytes()
    trial.docker.load_image(content[at : at + 70_000] for at in range(0, len(content), 70_000))
    try:
        found = trial.docker.image(image)
        assert found is not None
        assert found.id == image
        with pytest.raises(DockerFailed):
            trial.docker.load_image([b"no image"])
    finally:
        docker_cli("rmi", image)


def test_tags_come_and_go_and_the_image_stays(trial: Trial) -> None:
    base = trial.docker.image(PYTHON)
    assert base is not None
    tag = f"{trial.project}-web:prod-001"
    trial.docker.tag(base.id, tag)
    tagged = trial.docker.image(tag)
    assert tagged is not None
    assert (tagged.id, tagged.bytes > 0) == (base.id, True)
    assert trial.docker.image_ids()[tag] == base.id
    trial.docker.untag(tag)
    trial.docker.untag(tag)
    assert trial.docker.image(tag) is None
    # Stacks beside this one may have given it tags of theirs meanwhile.
    left = trial.docker.image(PYTHON)
    assert left is not None
    assert (left.id, tag in left.tags) == (base.id, False)


def test_a_pull_that_fails_says_why() -> None:
    with pytest.raises(DockerFailed, match=r"pull of 127\.0\.0\.1:9/nothing:x"):
        connect().pull("127.0.0.1:9/nothing:x")


@pytest.mark.parametrize(
    ("reference", "parts"),
    [
        ("web", ("web", None)),
        ("web:v1", ("web", "v1")),
        ("reg:5000/web", ("reg:5000/web", None)),
        ("reg:5000/web:v1", ("reg:5000/web", "v1")),
        ("web@sha256:0", ("web", "sha256:0")),
    ],
)
def test_references(reference: str, parts: tuple[str, str | None]) -> None:
    assert images._repository(reference) == parts


def test_volumes_are_ours_by_label_or_left_alone(trial: Trial) -> None:
    ours, theirs = f"{trial.project}_ours", f"{trial.project}_theirs"
    labels = {"lockstep.project": trial.project, "lockstep.stack": "prod"}
    made = trial.docker.create_volume(ours, labels)
    assert made.path.is_dir()
    docker_cli("volume", "create", theirs)
    with pytest.raises(Refused, match=theirs):
        trial.docker.create_volume(theirs, labels)
    with pytest.raises(Refused, match="not removed"):
        trial.docker.remove_volume(theirs, labels=labels)
    with pytest.raises(Refused, match="not removed"):
        trial.docker.remove_volume(ours, labels={})
    assert set(trial.docker.volumes(stack=(trial.project, "prod"))) == {ours}
    assert {ours, theirs} <= set(trial.docker.volumes())
    trial.docker.remove_volume(ours, labels=labels)
    trial.docker.remove_volume(ours, labels=labels)
    assert trial.docker.volume(ours) is None


def test_a_volume_that_is_a_bind_lies_at_its_device(trial: Trial) -> None:
    name = f"{trial.project}_bound"
    options = {"type": "none", "o": "bind", "device": str(trial.folder)}
    assert trial.docker.create_volume(name, {"a": "b"}, options=options).path == trial.folder


def test_networks(trial: Trial) -> None:
    name = f"{trial.project}_fixed"
    subnet = f"10.214.{int(trial.project[-2:], 16)}.0/24"
    trial.docker.create_network(name, {"a": "b"}, {"ipam": {"config": [{"subnet": subnet}]}})
    found = trial.docker.network(name)
    assert found is not None
    assert (found.labels, found.subnets) == ({"a": "b"}, (subnet,))
    assert trial.docker.network(name[:-1]) is None
    with pytest.raises(Refused):
        trial.docker.remove_network(name, labels={"a": "c"})
    trial.docker.remove_network(name, labels={"a": "b"})
    trial.docker.remove_network(name, labels={"a": "b"})


# errors


def every(kind: type[Exception]) -> set[type[Exception]]:
    return {kind}.union(*(every(sub) for sub in kind.__subclasses__()))


def an(kind: type[Exception]) -> Exception | None:
    """An instance, if any simple arguments give one."""
    tried: list[tuple[Any, ...]] = [("a",), ("a", "b"), ("a", "b", 0), (1, 2), ()]
    for arguments in [*tried, ("a", "b", "c", "d", "e")]:
        with suppress(TypeError, AttributeError):
            made = kind(*arguments)
            assert str(made) is not None
            return made
    return None


def test_no_error_of_the_libraries_gets_through() -> None:
    kinds = every(docker.errors.DockerException) | every(requests.RequestException)
    kinds |= every(urllib3.exceptions.HTTPError)
    errors = [error for error in map(an, kinds) if error is not None]
    assert len(errors) > 50
    for error in errors:
        with pytest.raises(LockstepError, match="something"), failing.mapped("something"):
            raise error


@pytest.mark.parametrize("endpoint", ["unix:///nowhere/docker.sock", "tcp://127.0.0.1:9"])
def test_a_daemon_that_does_not_answer(endpoint: str) -> None:
    with pytest.raises(Unavailable) as failure:
        Docker(endpoint)
    assert endpoint in failure.value.message
    assert "docker info" in failure.value.next_step
    assert any(why in str(failure.value) for why in ("No such file", "refused"))


def test_a_context_that_does_not_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setenv("DOCKER_CONTEXT", "no-such-context")
    with pytest.raises(Unavailable, match="no-such-context"):
        connect()


def test_the_compose_plugin_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "docker"
    fake.write_text("#!/bin/sh\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setattr(composeplugin, "_PLUGIN_FOLDERS", ())
    monkeypatch.setattr(composeplugin, "CODE", tmp_path / "a")
    with pytest.raises(Unavailable, match="plugin is missing"):
        Compose(tmp_path)
    plugins = tmp_path / ".tools" / "docker-config" / "cli-plugins"
    plugins.mkdir(parents=True)
    (plugins / "docker-compose").write_text("")
    found = Compose(tmp_path).environment
    assert found["DOCKER_CONFIG"] == str(tmp_path / ".tools" / "docker-config")
    fake.unlink()
    with pytest.raises(Unavailable, match="docker command"):
        Compose(tmp_path)


# Compose

NASTY = [
    "plain", "", " spaces ", "no", "yes", "on", "~", "null", "true", "1", "1.5", "1e3", "0400",
    "0x10", "1_000", "12:30:45", "2024-01-01", "=", "<<", "a: b", "- a", "#x", "'", '"', "\\n",
    "line\nline", "tab\t", "ünï", "$", "$$", "${X}", "%s", "{{.Names}}", "[a]", "*a", "&a", "!a",
]  # fmt: skip


def test_values_survive_reading_a_model_and_creating_from_it(trial: Trial) -> None:
    written = {f"V{n}": value.replace("$", "$$") for n, value in enumerate(NASTY)}
    trial.write({"web": web(environment=written)})
    model = trial.compose.model([trial.folder], project=trial.project, env=trial.environment)
    assert model["services"]["web"]["environment"] == written
    trial.compose.create(trial.project, model)
    (made,) = trial.docker.containers(project=trial.project)
    assert made.state == "created"
    said = json.loads(docker_cli("inspect", made.id))[0]["Config"]["Env"]
    inside = dict(entry.split("=", 1) for entry in said)
    assert [inside[f"V{n}"] for n in range(len(NASTY))] == NASTY


def test_notes_of_services_and_volumes_are_in_the_model(trial: Trial) -> None:
    trial.write(
        {"web": web(**{"x-lockstep": {"start": "after-commit"}})},
        volumes={"notes": {"x-lockstep": {"driver": "redis"}}},
        **{"x-lockstep": {"dropped": ["old"]}},
    )
    model = trial.compose.model([trial.folder], project=trial.project, env=trial.environment)
    assert model["services"]["web"]["x-lockstep"] == {"start": "after-commit"}
    assert model["volumes"]["notes"]["x-lockstep"] == {"driver": "redis"}
    assert model["x-lockstep"] == {"dropped": ["old"]}


def test_profiles_files_and_warnings(trial: Trial) -> None:
    trial.write({"web": web(environment={"A": "${NOT_SET}"}), "extra": web(profiles=["more"])})
    warnings: list[str] = []

    def services(*profiles: str, files: tuple[Path, ...] = (trial.folder,)) -> dict[str, Any]:
        model = trial.compose.model(
            files,
            project=trial.project,
            env=trial.environment,
            profiles=profiles,
            warn=warnings.append,
        )
        found: dict[str, Any] = model["services"]
        return found

    assert set(services()) == {"web"}
    assert len(warnings) == 1
    assert "NOT_SET" in warnings[0]
    assert set(services("more")) == {"web", "extra"}
    (trial.folder / "more.yaml").write_text("services: {web: {labels: {a: b}}}")
    both = services(files=(trial.folder / "compose.yaml", trial.folder / "more.yaml"))
    assert both["web"]["labels"] == {"a": "b"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("services: {web: {image: a, imagee: b}}", "imagee"),
        ("services:\n  web: {image: a\n  db: [", "line "),
        ("services: {web: {image: '${MUST:?put it into .env}'}}", "put it into .env"),
        ("services: {}", "no service"),
    ],
)
def test_an_error_in_the_compose_file(trial: Trial, text: str, says: str) -> None:
    (trial.folder / "compose.yaml").write_text(text)
    with pytest.raises(BadInput) as refusal:
        trial.compose.model([trial.folder], project=trial.project, env={})
    assert str(trial.folder) in str(refusal.value)
    assert says in str(refusal.value)


def test_no_compose_file(trial: Trial) -> None:
    for where in (trial.folder, trial.folder / "other.yaml"):
        with pytest.raises(BadInput, match="config set compose"):
            trial.compose.model([where], project=trial.project, env={})


def test_a_failing_create_shows_no_secret(trial: Trial) -> None:
    model = {"services": {"web": {"image": PYTHON, "mem_limit": "hush-hush-value"}}}
    with pytest.raises(DockerFailed) as failure:
        trial.compose.create(trial.project, model, hide=["hush-hush-value"])
    assert "hush-hush" not in str(failure.value)
    assert trial.project in str(failure.value)


def test_a_build_is_shown_as_it_goes_and_its_end_when_it_fails(trial: Trial) -> None:
    (trial.folder / "Dockerfile").write_text(
        f"FROM {PYTHON}\nLABEL lockstep.test={trial.project}\nRUN echo building-this; exit 7\n"
    )
    build = {"context": ".", "network": "host"}
    trial.write({"web": web(image=None, build=build)})
    said: list[str] = []
    with pytest.raises(DockerFailed, match="the build of web failed") as failure:
        trial.compose.build(
            [trial.folder],
            project=trial.project,
            env=trial.environment,
            services=["web"],
            progress=said.append,
        )
    assert any("building-this" in line for line in said)
    assert "7" in str(failure.value)
    # Docker leaves the container of a step that failed.
    for left in docker_cli("ps", "-aq", "--filter", f"label=lockstep.test={trial.project}").split():
        docker_cli("rm", left)


def test_compose_commands_are_passed_on(trial: Trial) -> None:
    container(trial)
    assert trial.compose.passthrough(trial.project, ["ps", "-q"]) == 0
    assert trial.compose.passthrough(trial.project, ["no-such-command"]) != 0


def test_threads_have_connections_of_their_own(trial: Trial) -> None:
    from concurrent.futures import ThreadPoolExecutor

    made = container(trial)
    with ThreadPoolExecutor(8) as pool:
        done = pool.map(lambda n: trial.docker.exec(made, ["echo", str(n)]).stdout, range(16))
    assert list(done) == [f"{n}\n" for n in range(16)]
