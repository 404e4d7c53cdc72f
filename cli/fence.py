"""The fence: `docker compose up` in the folder of a project that Lockstep runs says so and ends.

It is one line of the project's override file, a variable that only Lockstep sets: Compose refuses
a file whose variable is missing, with the text given there.
"""

from __future__ import annotations

from pathlib import Path

import yaml

from reconciler.docker.composeplugin import FENCE_KEY, FENCE_VARIABLE

OVERRIDES = (
    "compose.override.yaml",
    "compose.override.yml",
    "docker-compose.override.yml",
    "docker-compose.override.yaml",
)
_SAYS = (
    "Lockstep runs this project: `lockstep up`, and `lockstep compose ps` (logs, exec ...). "
    "The containers of before hold older data. "
    f"{FENCE_VARIABLE}=off before a command goes round this line"
)
_LINE = f'{FENCE_KEY}: "${{{FENCE_VARIABLE}?{_SAYS}}}"'
_COMMENT = (
    "# Keeps `docker compose up` from starting the containers of before; from `lockstep init`."
)


def override_of(root: Path, compose_file: Path) -> Path:
    """The override file that Compose reads beside the project's file, there or not."""
    there = [root / name for name in OVERRIDES if (root / name).is_file()]
    return there[0] if there else root / f"{compose_file.stem}.override{compose_file.suffix}"


def stands(override: Path) -> bool:
    """Whether the fence is there already."""
    return override.is_file() and FENCE_KEY in override.read_text()


def may_stand(override: Path) -> bool:
    """Whether a line can be added to the file: it is missing, or lists its members by lines."""
    if not override.is_file():
        return True
    try:
        node = yaml.compose(override.read_text(), yaml.SafeLoader)
    except (OSError, yaml.YAMLError):
        return False
    return node is None or (isinstance(node, yaml.MappingNode) and not node.flow_style)


def build(override: Path) -> None:
    """Add the line."""
    before = override.read_text() if override.is_file() else ""
    gap = "" if before.endswith("\n") or not before else "\n"
    override.write_text(f"{before}{gap}{_COMMENT}\n{_LINE}\n")
