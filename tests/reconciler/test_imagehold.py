"""Which images have to be held, and what is said of one that cannot be."""

from __future__ import annotations

from dataclasses import replace

from reconciler.facts import Facts
from reconciler.planning.situation import Situation
from reconciler.world import imagehold
from tests.reconciler.hostmodel import Host
from tests.reconciler.trial import PYTHON, Trial, docker_cli


def now(host: Host, **changes: object) -> Situation:
    facts: Facts = replace(host.facts(), **changes)  # type: ignore[arg-type]
    return Situation(host.stack(), host.state, facts)


def test_what_the_live_release_runs_or_nobody_has_is_not_held() -> None:
    host = Host()
    for _ in range(3):
        host.new()
        host.up()
    there = frozenset(i.id for r in host.records.values() for i in r.images.values())
    live = {i.id for i in host.records["prod-003"].images.values()}
    held = imagehold.to_hold(now(host, image_ids=there), host.records, "prod-003")
    assert held.keys() == there - live
    assert imagehold.to_hold(now(host), host.records, "prod-003") == {}


def test_a_tag_that_is_gone_is_told_from_an_image_that_is_gone() -> None:
    host = Host()
    host.new()
    image = next(iter(host.records["prod-001"].images.values()))
    tags = {t: i for t, i in host.facts().images.items() if t != image.tag}
    assert imagehold.gone_tags(now(host, images=tags, image_ids=frozenset({image.id}))) == {
        image.tag: image.id
    }
    assert imagehold.gone_tags(now(host, images=tags)) == {}


def test_an_image_is_held_once_and_let_go(trial: Trial) -> None:
    image = trial.docker.image(PYTHON)
    assert image is not None
    for _ in range(2):
        assert imagehold.hold(trial.stack, trial.docker, {image.id: PYTHON}) == []
        (holder,) = imagehold.holders(trial.stack, trial.docker)
        assert (holder.state, holder.network_mode, holder.mounts) == ("running", "none", ())
        assert holder.project == ""
    assert imagehold.hold(trial.stack, trial.docker, {}) == []
    assert imagehold.holders(trial.stack, trial.docker) == ()


def test_an_image_that_can_run_nothing_is_warned_of(trial: Trial) -> None:
    tag = f"{trial.project}-empty:1"
    (trial.folder / "Dockerfile").write_text("FROM scratch\nCOPY app.py /app.py\n")
    docker_cli("build", "--quiet", "--tag", tag, str(trial.folder))
    image = trial.docker.image(tag)
    assert image is not None
    (warning,) = imagehold.hold(trial.stack, trial.docker, {image.id: tag})
    assert tag in warning
    assert "docker system prune -a" in warning
    # It holds the image against `docker image prune -a` all the same.
    assert len(imagehold.holders(trial.stack, trial.docker)) == 1
    imagehold.hold(trial.stack, trial.docker, {})
