"""Volumes: found, made, and removed by full name with a label check."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from reconciler.docker import dockervalues as values
from reconciler.docker.containers import HELPER, Containers
from reconciler.docker.dockervalues import (
    OUR_PROJECT,
    OUR_STACK,
    VolumeInfo,
)
from reconciler.docker.failing import mapped
from reconciler.errors import Refused


class Volumes(Containers):
    """What is done with volumes."""

    def volumes(
        self, *, stack: tuple[str, str] | None = None, labels: Sequence[str] = ()
    ) -> dict[str, VolumeInfo]:
        """All volumes by name, or those of one stack, or with labels (`name=value`), in one
        request."""
        if stack is not None:
            labels = [*labels, f"{OUR_PROJECT}={stack[0]}", f"{OUR_STACK}={stack[1]}"]
        filters: dict[str, Any] = {"label": list(labels)} if labels else {}
        with mapped("the list of volumes"):
            found = self._api.volumes(filters=filters).get("Volumes") or ()
        return {volume["Name"]: values.volume(volume) for volume in found}

    def volume(self, name: str) -> VolumeInfo | None:
        """One volume; None when there is none."""
        from docker.errors import NotFound

        with mapped(f"volume {name}"), suppress(NotFound):
            return values.volume(self._api.inspect_volume(name))
        return None

    def create_volume(
        self,
        name: str,
        labels: Mapping[str, str],
        *,
        driver: str = "local",
        options: Mapping[str, str] | None = None,
    ) -> VolumeInfo:
        """A new volume. Raises Refused when somebody else's of that name exists: Docker itself
        would hand out the existing one, with its content."""
        with mapped(f"volume {name}"):
            made = values.volume(
                self._api.create_volume(
                    name, driver=driver, driver_opts=dict(options or {}), labels=dict(labels)
                )
            )
        if dict(made.labels) != dict(labels):
            raise Refused(
                f"a volume {name} exists already and is not of this stack",
                next_step=f"docker volume inspect {name}   shows whose it is",
            )
        return made

    def remove_volume(self, name: str, *, labels: Mapping[str, str]) -> None:
        """Remove a volume that has these labels; gone already is fine.

        Raises Refused when a volume of that name has not every one of them.
        """
        from docker.errors import NotFound

        found = self.volume(name)
        if found is None:
            return
        if not labels or any(found.labels.get(k) != v for k, v in labels.items()):
            raise Refused(f"volume {name} is not labelled as ours: not removed")
        for user in self.listing(labels=[HELPER], volume=name, helpers=True):
            self.remove_container(user.id, force=True)  # it waits for work, or works for a dead one
        with mapped(f"remove volume {name}"), suppress(NotFound):
            self._api.remove_volume(name)
