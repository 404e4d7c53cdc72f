"""Images: found, pulled, tagged, saved."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any

from reconciler.docker import dockervalues as values
from reconciler.docker.client import Client
from reconciler.docker.dockervalues import (
    ImageInfo,
)
from reconciler.docker.failing import mapped
from reconciler.errors import DockerFailed


class Images(Client):
    """What is done with images."""

    def image(self, reference: str) -> ImageInfo | None:
        """A local image by tag, digest or id; None when there is none."""
        from docker.errors import ImageNotFound

        with mapped(f"image {reference}"), suppress(ImageNotFound):
            api: Any = self._api  # its stubs leave this one out
            return values.image(api.inspect_image(reference))
        return None

    def images(self) -> dict[str, tuple[str, ...]]:
        """Id -> tags, of every local image, in one request."""
        with mapped("the list of images"):
            found = self._api.images()
        return {
            image["Id"]: tuple(t for t in image["RepoTags"] or () if t != "<none>:<none>")
            for image in found
        }

    def image_ids(self) -> dict[str, str]:
        """Tag -> id, of every local image, in one request."""
        return {tag: image_id for image_id, tags in self.images().items() for tag in tags}

    def pull(self, reference: str, progress: Callable[[str], None] = lambda _: None) -> ImageInfo:
        """Pull an image. Raises DockerFailed with the registry's own words."""
        name, tag = _repository(reference)
        with mapped(f"pull of {reference}"):
            for step in self._api.pull(name, tag=tag or "latest", stream=True, decode=True):
                if "error" in step:
                    raise DockerFailed(f"pull of {reference}: {step['error']}")
                if step.get("status", "").startswith(("Status", "Digest")):
                    progress(f"{reference}: {step['status']}")
        found = self.image(reference)
        if found is None:
            raise DockerFailed(f"pull of {reference}: done, but no such image is there")
        return found

    def tag(self, image_id: str, tag: str) -> None:
        """Give an image a (further) tag `repository:tag`."""
        repository, name = _repository(tag)
        with mapped(f"tag {tag}"):
            self._api.tag(image_id, repository, name, force=True)

    def untag(self, tag: str) -> None:
        """Remove a tag, and the image when it was the last one. Gone already is fine."""
        from docker.errors import ImageNotFound

        with mapped(f"remove tag {tag}"), suppress(ImageNotFound):
            self._api.remove_image(tag)

    def save_image(self, image_id: str) -> Iterator[bytes]:
        """What `docker save` writes of an image."""
        with mapped(f"save of image {image_id[:19]}"):
            yield from self._api.get_image(image_id)

    def load_image(self, content: Iterable[bytes]) -> None:
        """Take in what `save_image` gave."""
        with mapped("load of an image"):
            api: Any = self._api
            for said in api.load_image(iter(content)):
                if "error" in said:
                    raise DockerFailed(f"load of an image: {said['error']}")


def _repository(reference: str) -> tuple[str, str | None]:
    """`registry:5000/shop/web:v1` -> (`registry:5000/shop/web`, `v1`); a digest is its own tag."""
    if "@" in reference:
        name, _, digest = reference.partition("@")
        return name, digest
    name, colon, tag = reference.rpartition(":")
    return (name, tag) if colon and "/" not in tag else (reference, None)
