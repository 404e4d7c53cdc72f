"""Images that releases need, against everybody who tidies up a host.

`docker system prune -a` removes stopped containers first and then every image that no container
uses, and takes all tags but one of those that are used. So each image of a kept release that the
live world does not run has a small container that does nothing (its holder), and a tag that is
gone is put back wherever the image itself is still there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from reconciler.errors import LockstepError

if TYPE_CHECKING:
    from reconciler.config import Stack
    from reconciler.docker import Docker, Listed
    from reconciler.planning.situation import Situation
    from reconciler.records.release import Release

HOLDS = "lockstep.holds"
"""Label of a holder: the stack whose images it holds."""


def put_back_tags(docker: Docker, gone: Mapping[str, str]) -> list[str]:
    """Give images (tag -> id) their tags again; what was done, as sentences."""
    for tag, image_id in gone.items():
        docker.tag(image_id, tag)
    return [
        f"tag {tag} was gone: put back on {i[:19]}, which was still there"
        for tag, i in gone.items()
    ]


def gone_tags(now: Situation) -> dict[str, str]:
    """Tag -> id, of images of releases that are there without their release's tag. Pure."""
    return {
        image.tag: image.id
        for record in now.facts.records.values()
        for image in record.images.values()
        if image.tag not in now.facts.images and image.id in now.facts.image_ids
    }


def missing(docker: Docker, images: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Release -> what cannot be had again here, of those whose images somebody removed. `images`:
    release -> tag -> id."""
    there = docker.images()
    found = {}
    for name, of_release in images.items():
        gone = sorted(tag for tag, image_id in of_release.items() if image_id not in there)
        if gone:
            found[name] = f"image {', '.join(gone)} was removed"
    return found


def to_hold(now: Situation, kept: Iterable[str], live: str | None) -> dict[str, str]:
    """Image id -> a tag of it, of the images of these releases that are there and that the live
    release does not run. Pure."""
    run = set(_images(now, live).values()) if live is not None else set()
    return {
        image_id: tag
        for release in kept
        for tag, image_id in _images(now, release).items()
        if image_id in now.facts.image_ids and image_id not in run
    }


def of(record: Release) -> dict[str, str]:
    """Tag -> id."""
    return {image.tag: image.id for image in record.images.values()}


def _images(now: Situation, release: str) -> dict[str, str]:
    """Tag -> id. An adopted release's too: its containers are not ours, so they may go."""
    record = now.facts.records.get(release)
    return of(record) if record is not None else dict(now.images_of(release).values())


def hold(stack: Stack, docker: Docker, images: Mapping[str, str]) -> list[str]:
    """Make exactly these images (id -> tag) have a holder. What could not be done is returned as
    warnings: it is no reason to go back."""
    warnings: list[str] = []
    there = {found.image_id: found for found in holders(stack, docker)}
    for image_id in there.keys() - images.keys():
        docker.remove_container(there[image_id].id, force=True)
    for image_id, tag in images.items():
        holder = there.get(image_id)
        if holder is not None and holder.state == "running":
            continue
        name = f"{stack.project}-{stack.name}-holds-{image_id.removeprefix('sha256:')[:12]}"
        try:
            made = holder.id if holder else docker.create_idle(name, image_id, {HOLDS: _of(stack)})
            docker.start(made)
        except LockstepError as error:
            warnings.append(
                f"image {tag} is not held against `docker system prune -a`: {error.message}"
            )
    return warnings


def holders(stack: Stack, docker: Docker) -> tuple[Listed, ...]:
    """The stack's holders, running or not."""
    return docker.listing(labels=[f"{HOLDS}={_of(stack)}"])


def _of(stack: Stack) -> str:
    return f"{stack.project}/{stack.name}"
