"""Names: the forms they must have, and how they are built from each other."""

from __future__ import annotations

import re

from reconciler.errors import BadInput

_STACK = re.compile(r"[a-z0-9][a-z0-9_]{0,30}")
_RELEASE = re.compile(r"([a-z0-9][a-z0-9_]{0,30})-([0-9]{3,6})")
_DATASET = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,80}")
ADOPTED_NUMBER = 0


def release_name(stack: str, number: int) -> str:
    """`prod`, 3 -> `prod-003`."""
    return f"{stack}-{number:03d}"


def release_number(release: str) -> int:
    """`prod-003` -> 3. Raises BadInput when the name is not of the form."""
    match = _RELEASE.fullmatch(release)
    if match is None or release != release_name(match[1], int(match[2])):
        raise BadInput(
            f"{release[:80]!r} is not a release name: expected the stack's name, a hyphen "
            "and a number of at least three digits, like prod-002",
            next_step="lockstep list   shows the releases there are",
        )
    return int(match[2])


def is_release(name: str) -> bool:
    """Whether a name has the form of a release."""
    match = _RELEASE.fullmatch(name)
    return match is not None and name == release_name(match[1], int(match[2]))


def check_release_of_stack(release: str, stack: str) -> None:
    """Raises BadInput unless `release` has the form of a release of `stack`."""
    number = release_number(release)
    if release != release_name(stack, number):
        raise BadInput(
            f"{release} is not a release of stack {stack}: its releases are called {stack}-NNN",
            next_step="lockstep list   shows the releases there are",
        )


def check_stack(stack: str) -> None:
    """Raises BadInput unless the stack's name can prefix releases and compose projects."""
    if _STACK.fullmatch(stack) is None:
        raise BadInput(
            f"stack name {stack[:80]!r} cannot name releases: use lower-case letters, digits "
            "and _ (at most 31), like prod"
        )


def check_dataset(name: str) -> None:
    """Raises BadInput unless the dataset's name can be part of a volume's name."""
    if _DATASET.fullmatch(name) is None:
        raise BadInput(f"dataset name {name[:80]!r} cannot be part of a volume name")


def world_name(project: str, release: str, number: int) -> str:
    """`shop`, `prod-003`, 2 -> `shop-prod-003_2`: a compose project name has no dots."""
    return f"{project}-{release}" + (f"_{number}" if number > 1 else "")


def generation_name(project: str, stack: str, dataset: str, number: int) -> str:
    """The generation's volume: `shop-prod_db-data_g4` (the stack, so that two do not collide)."""
    return f"{project}-{stack}_{dataset}_g{number}"


def image_tag(project: str, service: str, release: str) -> str:
    """The immutable tag that holds one service's image of one release."""
    return f"{project}-{service}:{release}".lower()
