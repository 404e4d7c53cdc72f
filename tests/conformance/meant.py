"""The table of meant differences between a world's containers and those of `docker compose up`.

docs/compose.md is made from it; a comparison forgives what a row forgives and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from reconciler.project import compose
from reconciler.records.release import Kind, Release
from tests.conformance.inspected import Pair


@dataclass(frozen=True)
class Meant:
    """One meant difference. `fields`: pattern of a field's path, as `docker inspect` nests it."""

    fields: str
    what: str
    why: str
    forgives: Callable[[Pair, Release], bool] = lambda _pair, _release: True

    def covers(self, pair: Pair, release: Release) -> bool:
        """Whether this row is the reason of a difference."""
        return bool(re.fullmatch(self.fields, pair.path)) and self.forgives(pair, release)


def _service(pair: Pair) -> str:
    return pair.place.rsplit(" ", 1)[0]


def _policy(pair: Pair, release: Release) -> bool:
    """At the commit the container gets what the plain project's has."""
    name, _, attempts = compose.restart_policy(release, _service(pair)).partition(":")
    if pair.path.endswith("/Name"):
        return pair.world == "no" and (pair.plain or "no") == name
    return not pair.world and pair.plain == int(attempts or 0)


def _image(pair: Pair, release: Release) -> bool:
    return bool(pair.world == release.images[_service(pair)].tag)


def _is_of_anonymous(pair: Pair, release: Release) -> bool:
    return any(
        f"/{mount.target}" in pair.path
        for dataset in release.datasets.values()
        if dataset.kind is Kind.ANONYMOUS
        for mount in dataset.mounts
    )


def _is_volume(pair: Pair, _: Release) -> bool:
    return pair.place.startswith("volume ")


def _is_anonymous_volume(pair: Pair, release: Release) -> bool:
    name = pair.place.removeprefix("volume ")
    known = release.datasets.get(name)
    return known is not None and known.kind is Kind.ANONYMOUS


def _has_container_name(pair: Pair, release: Release) -> bool:
    """Its alias by container_name is there in both; the world's own name is one more."""
    said = compose.services(release.model)[_service(pair)].get("container_name")
    is_own = pair.path.endswith(f"-{pair.place.replace(' ', '-')}")
    return bool(said) and pair.plain is None and is_own


MEANT = (
    Meant(
        r"Id|Created|LogPath|(Resolv|Hosts?)\w*Path|GraphDriver/.*|State/.*|Scope"
        r"|NetworkSettings/Sandbox(ID|Key)|Config/Hostname|CreatedAt",
        "ids, times, paths of Docker's own and the host name made from the id",
        "each container has its own, those of two `docker compose up` differ in them as well",
        lambda pair, _: pair.path != "Config/Hostname" or str(pair.plain).startswith("container "),
    ),
    Meant(
        r"Name",
        "`shop-prod-003-web-1` instead of `shop-web-1` or `container_name`",
        "worlds exist side by side; `lockstep compose exec web` reaches the live one",
    ),
    Meant(
        r"NetworkSettings/Networks/[^/]+/Aliases/.*",
        "a service with `container_name` has its world's name beside it",
        "`container_name` stays an alias on all its networks, so that others still find it",
        _has_container_name,
    ),
    Meant(
        r"HostConfig/RestartPolicy/(Name|MaximumRetryCount)",
        "`no` until the release is live, then what the compose file says",
        "a reboot brings back exactly the live world",
        _policy,
    ),
    Meant(
        r"Config/Image",
        "`shop-web:prod-003` instead of the compose file's reference; the image is the same",
        "a tag that moves elsewhere must not change a release",
        _image,
    ),
    Meant(
        r"Config/Labels/lockstep\.(project|stack|world)"
        r"|Config/Labels/com\.docker\.compose\.(config-hash|image|replace)"
        r"|Config/Labels/com\.docker\.compose\.project(|\.config_files|\.working_dir"
        r"|\.environment_file)"
        r"|Labels/com\.docker\.compose\.(config-hash|project|version|volume|network)"
        r"|Labels/lockstep\..*",
        "labels of Compose that tell project, file and hash, and `lockstep.*`; yours are the same",
        "a world is a compose project of its own",
    ),
    Meant(
        r"Mounts/.*/Source|Mountpoint|Options/size",
        "a generation's volume, `shop-prod_db-data_g4`, in the place of `shop_db-data`",
        "each release has its own copy of the data; the option `size=0` keeps `docker volume "
        "prune` away",
        lambda pair, _: _is_volume(pair, _) or "_g" in str(pair.world),
    ),
    Meant(
        r"(HostConfig/(Binds|Mounts)|Mounts)/.*",
        "a volume without a name is one with a name",
        "else its content would be lost with its container; the config names it as a dataset",
        _is_of_anonymous,
    ),
    Meant(
        r".*",
        "(the same, seen at the volume)",
        "",
        _is_anonymous_volume,
    ),
    Meant(
        r"IPAM/Config",
        "another free subnet, where the compose file gives none",
        "the networks of two worlds exist side by side",
        lambda pair, release: not _fixed(pair, release),
    ),
)


def _fixed(pair: Pair, release: Release) -> bool:
    key = pair.place.removeprefix("network ").partition("_")[2]
    said = (release.model.get("networks") or {}).get(key) or {}
    return bool((said.get("ipam") or {}).get("config"))


BESIDE = (
    (
        "files of the project that are mounted read-only, and `configs`",
        "mounted from `releases/files/<world>`, where they are laid from the record",
        "a file that is edited changes the next release and none that exists",
    ),
    (
        "`configs` with `content` or `environment`, `secrets` with `environment`",
        "put into the container when it is created; Compose does it when it starts it",
        "Lockstep starts containers without Compose",
    ),
    (
        "`depends_on` of services that no active profile has",
        "left out",
        "they do not exist in this release",
    ),
    (
        "`build`, `pull_policy`, `develop`, `env_file`, `profiles`",
        "read by `lockstep new`, and not again when a world is made",
        "a release is what it was when it was made",
    ),
)
"""What is done otherwise without a difference in `docker inspect`: (what, how, why)."""
