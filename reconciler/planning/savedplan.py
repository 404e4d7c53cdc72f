"""A plan that was looked at, kept in a file: carried out as it is, or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from reconciler.catalog import Catalog, write_durably
from reconciler.config import Stack
from reconciler.errors import BadInput, WorldChanged
from reconciler.plan import AGREED, Plan
from reconciler.records.ledger import State

_DECISIVE = (
    "move", "head", "target", "from_world", "to_world", "new_world", "worlds", "images", "prune",
    "leftovers", "adopt_project", "adopted_release", "wish",
)  # fmt: skip
_OF_A_DATASET = (
    "action",
    "generation",
    "number",
    "new",
    "source",
    "snapshot",
    "driver",
    "shared",
    "stop_owner",
)


class Saved(BaseModel):
    """What such a file holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["lockstep-plan"] = "lockstep-plan"
    version: Literal[1] = 1
    project: str
    stack: str
    made: str
    ledger: str
    """The chain of the ledger that it was made from."""
    settings: str
    """Keyed hash of the stack's settings, secrets included."""
    plan: Plan


def save(path: Path, stack: Stack, catalog: Catalog, state: State, plan: Plan, made: str) -> None:
    """Write the plan to a file (0600). Raises OSError."""
    saved = Saved(
        project=stack.project,
        stack=stack.name,
        made=made,
        ledger=state.chain,
        settings=_settings(stack, catalog),
        plan=plan,
    )
    write_durably(path, saved.model_dump_json(indent=2).encode() + b"\n")


def read(path: Path, stack: Stack) -> Saved:
    """Raises BadInput for a file that holds no plan of this stack."""
    how = "lockstep preview --save-plan FILE   makes one"
    try:
        saved = Saved.model_validate_json(path.read_bytes())
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}", next_step=how) from None
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise BadInput(
            f"{path} holds no plan of this version: {where} {problem['msg']}", next_step=how
        ) from None
    if (saved.project, saved.stack) != (stack.project, stack.name):
        raise BadInput(
            f"{path} holds a plan of {saved.project}/{saved.stack}, not of "
            f"{stack.project}/{stack.name}"
        )
    return saved


def insist_on_same(saved: Saved, stack: Stack, catalog: Catalog, state: State, plan: Plan) -> None:
    """Raises WorldChanged unless what would be done now, `plan`, is what was saved."""
    if saved.ledger != state.chain:
        changed = "something was done on this host"
    elif saved.settings != _settings(stack, catalog):
        changed = "the config was changed"
    else:
        changed = ", ".join(_differing(essence(saved.plan), essence(plan)))
    if changed:
        raise WorldChanged(
            f"the plan of {saved.made} is not carried out, for the world changed since: {changed}",
            next_step="lockstep preview --save-plan FILE   makes one for what is there now",
        )


def agree(plan: Plan) -> None:
    """From now on the program of this process, and of those it starts, carries out this or
    nothing."""
    os.environ[AGREED] = json.dumps(essence(plan), sort_keys=True)


def insist_on_agreed(plan: Plan) -> None:
    """For the program. Raises WorldChanged when another plan was agreed to."""
    said = os.environ.get(AGREED)
    if said is None:
        return
    changed = _differing(json.loads(said), essence(plan))
    if changed:
        raise WorldChanged(
            f"the plan that was agreed to is not carried out: {', '.join(changed)} changed since",
            next_step="lockstep preview   shows what would be done now",
        )


def essence(plan: Plan) -> dict[str, Any]:
    """What a plan does, without what only measures it: sizes, ages, counts, estimates."""
    found: dict[str, Any] = {name: _plain(getattr(plan, name)) for name in _DECISIVE}
    for name, planned in plan.datasets.items():
        found[f"dataset {name}"] = {key: _plain(getattr(planned, key)) for key in _OF_A_DATASET}
    return found


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _differing(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    return [key for key in sorted({*before, *after}) if before.get(key) != after.get(key)]


def _settings(stack: Stack, catalog: Catalog) -> str:
    return catalog.fingerprint({"settings": stack.settings.model_dump_json()})
