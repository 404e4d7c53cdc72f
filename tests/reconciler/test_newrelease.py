"""`new` on real Docker and git: what a record holds, and what is refused."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from reconciler.catalog import RECORD
from reconciler.errors import BadInput, DockerFailed, LockstepError, Refused
from reconciler.making import newrelease
from reconciler.records.release import Kind, Release
from tests.reconciler.trial import PYTHON, Trial, cache, docker_cli, web

TOKEN = "hush-hush-token"


def make(trial: Trial, **options: Any) -> tuple[Release, list[str]]:
    return newrelease.make(
        trial.stack,
        trial.catalog,
        trial.docker,
        trial.compose,
        description="what it is",
        created_by="me@here",
        progress=trial.say,
        **options,
    )


def git(trial: Trial, *args: str) -> str:
    identity = ["-c", "user.name=x", "-c", "user.email=x@x", "-c", "init.defaultBranch=trunk"]
    return subprocess.run(
        ["git", *identity, *args], cwd=trial.folder, check=True, capture_output=True, text=True
    ).stdout.strip()


def nothing_made(trial: Trial) -> bool:
    tags = [t for t in trial.docker.image_ids() if t.startswith(trial.project) and "prod-" in t]
    return not tags and not list(trial.stack.releases.glob(f"*/{RECORD}"))


def test_a_record_says_it_all_and_no_secret(trial: Trial) -> None:
    (trial.folder / "Dockerfile").write_text(f"FROM {PYTHON}\nENV BUILT=yes\n")
    build = {"context": ".", "network": "host"}
    environment = {"TOKEN": "${TOKEN}", "VERSION": "${VERSION}"}
    trial.write({"web": web(image=None, build=build, environment=environment), "cache": cache()})
    git(trial, "init")
    git(trial, "add", ".")
    git(trial, "commit", "-m", "all")

    made, _ = make(trial)

    assert trial.catalog.record("prod-001") == made
    assert (made.parent, made.description, made.created_by) == (None, "what it is", "me@here")
    assert (made.git.commit, made.git.branch, made.git.dirty) == (
        git(trial, "rev-parse", "HEAD"),
        "trunk",
        False,
    )
    for service, image in made.images.items():
        found = trial.docker.image(f"{trial.project}-{service}:prod-001")
        assert found is not None
        assert (found.id, found.bytes, image.tag) == (
            image.id,
            image.bytes,
            f"{trial.project}-{service}:prod-001",
        )
    assert made.images["web"].id != made.images["cache"].id
    assert made.model["services"]["web"]["environment"]["VERSION"] == "1"
    assert made.secrets == ("TOKEN",)
    assert set(made.datasets) == {"notes", "cache-data"}
    assert made.datasets["cache-data"].driver == "redis"
    assert trial.catalog.content("prod-001", made.configs["app.py"].sha256)
    for path in trial.stack.releases.rglob("*"):
        if path.is_file():
            assert TOKEN.encode() not in path.read_bytes()
            assert path.stat().st_mode & 0o077 == 0, path
    manifest = json.loads((trial.stack.releases / "manifest.json").read_text())
    assert manifest["releases"][0]["git_branch"] == "trunk"


def test_numbers_go_up_and_images_can_be_given(trial: Trial) -> None:
    trial.write({"web": web(image="no.such.registry/web:1")})
    with pytest.raises(DockerFailed, match=r"pull of no\.such\.registry/web:1"):
        make(trial)
    first, _ = make(trial, images={"web": PYTHON})
    second, _ = make(trial, images={"web": PYTHON})
    assert (first.name, second.name) == ("prod-001", "prod-002")
    assert first.images["web"].source == PYTHON
    with pytest.raises(BadInput, match="there are web"):
        make(trial, images={"wep": PYTHON})


def test_a_dirty_tree_is_refused_unless_allowed(trial: Trial) -> None:
    trial.write({"web": web()})
    git(trial, "init")
    git(trial, "add", ".")
    git(trial, "commit", "-m", "all")
    (trial.folder / "Pulumi.prod.yaml").write_text("config: {}")
    make(trial)
    make(trial)
    (trial.folder / "a new file").write_text("x")
    with pytest.raises(Refused, match="a new file"):
        make(trial)
    made, _ = make(trial, allow_dirty=True)
    assert made.git.dirty
    git(trial, "add", "a new file")
    git(trial, "commit", "-m", "more")
    git(trial, "mv", "app.py", "moved.py")
    with pytest.raises(Refused, match=r"moved\.py"):
        make(trial)


def test_without_git_it_is_said(trial: Trial) -> None:
    trial.write({"web": web()})
    made, warnings = make(trial)
    assert made.git.commit == ""
    assert any("no git work tree" in warning for warning in warnings)


PROVED: list[dict[str, Any]] = [
    {"web": web()},
    {"web": web(healthcheck=None, **{"x-lockstep": {"gate": {"tcp": 8000}}})},
    {"web": web(healthcheck=None), "cache": cache()},
]
NOT_PROVED: list[dict[str, Any]] = [
    {"web": web(healthcheck=None)},
    {"web": web(healthcheck={"disable": True})},
    {
        "web": web(healthcheck=None),
        "late": web(ports=[], **{"x-lockstep": {"start": "after-commit"}}),
    },
    {"web": web(healthcheck=None), "job": web(ports=[], **{"x-lockstep": {"job": True}})},
]


@pytest.mark.parametrize("services", PROVED)
def test_something_must_prove_it(trial: Trial, services: dict[str, Any]) -> None:
    trial.write(services)
    make(trial)


@pytest.mark.parametrize("services", NOT_PROVED)
def test_fault_36_nothing_that_could_prove_it(trial: Trial, services: dict[str, Any]) -> None:
    """Health checks switched off, only jobs or only late services: refused with the lines to
    add, nothing is made; with a gate it is a release."""
    trial.write(services)
    with pytest.raises(Refused, match="could not be proved") as refusal:
        make(trial)
    assert "healthcheck" in refusal.value.next_step
    assert "x-lockstep" in refusal.value.next_step
    assert nothing_made(trial)
    trial.settings["gates"] = {"web": {"http": {"port": 8000}}}
    make(trial)


def test_an_images_own_health_check_proves_it(trial: Trial) -> None:
    (trial.folder / "Dockerfile").write_text(f"FROM {PYTHON}\nHEALTHCHECK CMD true\n")
    build = {"context": ".", "network": "host"}
    trial.write({"web": web(image=None, build=build, healthcheck=None)})
    make(trial)


def test_fault_42_an_images_own_volume_must_be_named(trial: Trial) -> None:
    """An image declares a VOLUME where nothing of ours is mounted: refused with the line to add,
    nothing is made."""
    (trial.folder / "Dockerfile").write_text(f"FROM {PYTHON}\nVOLUME /seen\n")
    build = {"context": ".", "network": "host"}
    trial.write({"web": web(image=None, build=build)})
    with pytest.raises(BadInput, match="- web-seen:/seen"):
        make(trial)
    assert nothing_made(trial)
    trial.settings["datasets"] = {"seen": {"service": "web", "target": "/seen"}}
    made, _ = make(trial)
    assert made.datasets["seen"].kind is Kind.ANONYMOUS


@pytest.mark.parametrize(
    "place",
    [
        {"environment": {"COPIED": TOKEN}},
        {"labels": {"a": f"x{TOKEN}"}},
        {"environment": {"URL": f"postgres://u:{TOKEN}@db/x"}},
    ],
)
def test_a_secret_in_plain_text_is_refused(trial: Trial, place: dict[str, Any]) -> None:
    trial.write({"web": web(**place)})
    with pytest.raises(Refused, match="secret TOKEN stands in plain text") as refusal:
        make(trial)
    assert TOKEN not in str(refusal.value)
    assert nothing_made(trial)


def test_a_secret_in_a_config_file_is_refused(trial: Trial) -> None:
    trial.write({"web": web()})
    with (trial.folder / "app.py").open("a") as file:
        file.write(f"# {TOKEN}\n")
    with pytest.raises(Refused, match=r"in the file app\.py") as refusal:
        make(trial)
    assert "configs" in refusal.value.next_step
    assert nothing_made(trial)


def test_against_the_running_plain_project(trial: Trial) -> None:
    anonymous = web(volumes=["notes:/data", "./app.py:/app.py:ro", "/seen"])
    trial.write({"web": anonymous, "cache": cache()})
    trial.settings["datasets"] = {"seen": {"service": "web", "target": "/seen"}}
    trial.plain("up", "-d")
    running = {c.service: c for c in trial.docker.containers(project=trial.project)}

    made, _ = make(trial)
    assert made.parent == "prod-000"
    assert made.datasets["seen"].source == running["web"].volumes["/seen"]

    trial.write({"web": anonymous})
    with pytest.raises(Refused, match="dataset cache-data of prod-000") as refusal:
        make(trial)
    assert "was: cache-data" in refusal.value.next_step
    trial.write({"web": anonymous}, **{"x-lockstep": {"dropped": ["cache-data"]}})
    made, _ = make(trial)
    assert made.dropped == ("cache-data",)

    renamed = {"keys": {"x-lockstep": {"was": "cache-data"}}}
    trial.write({"web": anonymous, "cache": cache(volumes=["keys:/data"])}, volumes=renamed)
    made, warnings = make(trial)
    assert made.datasets["keys"].source == f"{trial.project}_cache-data"
    assert not any("starts empty" in warning for warning in warnings)

    trial.write({"web": anonymous, "cache": cache(volumes=["cache-data:/data", "more:/more"])})
    made, warnings = make(trial)
    assert any("dataset more is new and starts empty" in warning for warning in warnings)


def test_a_driver_that_does_not_exist_is_refused(trial: Trial) -> None:
    trial.write({"web": web()}, volumes={"notes": {"x-lockstep": {"driver": "postgress"}}})
    with pytest.raises(BadInput, match=r"dataset notes: .*postgress"):
        make(trial)
    assert nothing_made(trial)


def test_a_failure_while_recording_leaves_no_tag(trial: Trial) -> None:
    trial.write({"web": web()})
    (trial.stack.releases).mkdir()
    (trial.stack.releases / "prod-001").write_text("in the way")
    with pytest.raises((LockstepError, OSError)):
        make(trial)
    assert nothing_made(trial)
    docker_cli("image", "inspect", PYTHON)


def test_a_secret_that_an_env_file_gives_comes_from_the_config(trial: Trial) -> None:
    """`env_file: .env` is what many projects have; the value is not recorded."""
    (trial.folder / "secret.env").write_text("TOKEN='hush-hush-token'\nOTHER=plain\n")
    trial.write({"web": web(env_file=["secret.env"])})
    trial.new()
    (record,) = trial.catalog.records()[0].values()
    environment = record.model["services"]["web"]["environment"]
    assert environment["TOKEN"] == "lockstep-secret:TOKEN:"
    assert environment["OTHER"] == "plain"
    assert "TOKEN" in record.secrets
