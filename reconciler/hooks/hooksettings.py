"""A user's hook, as config `hooks` and `x-lockstep: {hooks: ...}` declare it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from reconciler.hooks.hooktable import PLACES, At, Failure, Side
from reconciler.plan import Action, Move
from reconciler.setting import Setting, Word

Command = Annotated[tuple[Word, ...], Field(min_length=1)]
_PREVIEWED = frozenset({At.PRE_PREPARE, At.POST_PREPARE, At.PRE_STOP})
"""Where the world of the hook runs already when a preview is made."""


class InContainer(Setting):
    """A command in a running container of a service."""

    command: Command = Field(description="what is run in it")
    service: str = Field("", description="whose container; the hook's own service if not said")
    user: str = Field("", description="as whom; the container's own user if not said")


class OneOff(Setting):
    """A one-off container of a service: `docker compose run`, removed when it has ended."""

    command: Command = Field(description="what it runs")
    service: str = Field("", description="whose image and volumes; the hook's own if not said")
    entrypoint: str | None = Field(None, description="in place of the image's own")


class Call(Setting):
    """An HTTP request, which any answer of 2xx (or one of `status`) lets pass."""

    url: str = Field("", pattern=r"^(https?://.+)?$", description="where to")
    port: int | None = Field(None, description="in place of a url: a port of the service itself")
    path: str = Field("/", description="with `port`")
    service: str = Field("", description="with `port`: whose; the hook's own if not said")
    method: Literal["POST", "PUT", "GET"] = Field("POST", description="GET sends no facts")
    headers: dict[str, Word] = Field({}, description="${NAME} is the value of secrets.NAME")
    status: tuple[int, ...] = Field((), description="answers that let pass; any 2xx if not said")

    @model_validator(mode="after")
    def _goes_one_way(self) -> Self:
        if self.url and self.port is not None:
            raise ValueError("http has either a url, or a port (and path) of a service")
        return self


class Hook(Setting):
    """One hook: when, what, and what its failure means (docs/hooks.md)."""

    at: tuple[At, ...] = Field((), description="when it runs: one place, or several")
    exec: InContainer | None = None
    run: OneOff | None = None
    http: Call | None = None
    command: Command | None = Field(None, description="on the host; only in the stack's config")
    service: str | None = Field(None, description="of one service; only in the stack's config")
    dataset: str | None = Field(None, description="of one dataset; only in the stack's config")
    on_failure: Failure | None = Field(
        None, description="by the table of docs/hooks.md if not said"
    )
    timeout: Annotated[float, Field(gt=0)] | None = Field(
        None, description="seconds; by the table if not said"
    )
    order: int = Field(0, description="hooks at one place run by this, then by name")
    moves: tuple[Move, ...] = Field((), description="only with these moves; all if not said")
    actions: tuple[Action, ...] = Field((), description="of a dataset: only with these actions")
    world: Side | None = Field(None, description="by the table if not said")
    repeatable: bool = Field(False, description="may be run again after a crash")
    preview: bool = Field(False, description="asked by a preview as well, with `dry: true`")
    rehearse: bool | None = Field(
        None, description="run by `rehearse` as well; if not said, what works in its world alone"
    )
    secrets: tuple[str, ...] = Field((), description="secrets whose values its facts have")

    @field_validator("at", mode="before")
    @classmethod
    def _at_may_be_one(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _can_be_run(self) -> Self:
        if len(self._kinds) > 1:
            raise ValueError("a hook has one of exec, run, http and command")
        if self.service and self.dataset:
            raise ValueError("a hook is of a service or of a dataset, not of both")
        if self.actions and not self.dataset and self.service:
            raise ValueError("actions are those of a dataset")
        for at in self.at:
            self._fits(at)
        return self

    def _fits(self, at: At) -> None:
        place, side = PLACES[at], self.side(at)
        if self.on_failure is not None and self.on_failure not in place.allowed:
            allowed = " or ".join(place.allowed)
            raise ValueError(f"on_failure at {at} is {allowed}: it {place.abort}")
        if self.world is not None and self.world is not place.side and side not in place.runs:
            raise ValueError(f"at {at} a hook is for the {place.side} world")
        if self.exec is not None and side not in place.runs:
            raise ValueError(f"at {at} no container of the {side} world runs: exec cannot be")
        if self.run is not None and side not in place.one_off:
            raise ValueError(f"at {at} nobody may write the {side} world's data: run cannot be")
        if self.preview and (self.run is not None or (self.in_world and at not in _PREVIEWED)):
            raise ValueError(f"at {at} a preview has no world to ask: preview cannot be")

    @property
    def _kinds(self) -> list[str]:
        kinds = ("exec", "run", "http", "command")
        return [kind for kind in kinds if getattr(self, kind) is not None]

    @property
    def incomplete(self) -> str | None:
        """What is missing. No error of the config, in which one is set after the other."""
        if not self.at:
            return "at: when it runs"
        if self.http is not None and not self.http.url and self.http.port is None:
            return "http.url, or http.port of a service"
        return None if self._kinds else "one of exec, run, http and command"

    @property
    def in_world(self) -> bool:
        """Whether it needs a container of the world."""
        return self.exec is not None or (self.http is not None and not self.http.url)

    @property
    def acts_outside(self) -> bool:
        """Whether it does more than work in a container of its world."""
        return self.command is not None or (self.http is not None and bool(self.http.url))

    def side(self, at: At) -> Side:
        """The world that it works in."""
        return self.world or PLACES[at].side

    def failure(self, at: At) -> Failure:
        return self.on_failure or PLACES[at].failure

    def limit(self, at: At) -> float:
        """Seconds."""
        return self.timeout or PLACES[at].seconds

    def container_of(self, own: str) -> str:
        """The service whose container it works with; `own`: the service that it is a hook of."""
        said = self.exec or self.run or self.http
        return (said.service if said is not None else "") or own


def parsed(hooks: Mapping[str, Mapping[str, Any]]) -> dict[str, Hook]:
    """The hooks by name. Raises ValueError that names the key and what is wrong with it."""
    found = {}
    for name, said in hooks.items():
        try:
            found[name] = Hook.model_validate(said)
        except ValidationError as error:
            problem = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(["hooks", name, *(str(part) for part in problem["loc"])])
            raise ValueError(f"{where}: {problem['msg']}") from None
    return found


def schema() -> dict[str, Any]:
    """The JSON schema of a hook, without references: it stands within another's."""
    whole = Hook.model_json_schema()
    parts = whole.pop("$defs")

    def without_references(value: Any) -> Any:
        if isinstance(value, list):
            return [without_references(part) for part in value]
        if not isinstance(value, dict):
            return value
        rest = {k: without_references(v) for k, v in value.items() if k != "$ref"}
        name = value.get("$ref", "").rpartition("/")[2]
        return {**without_references(parts[name]), **rest} if name else rest

    described: dict[str, Any] = without_references(whole)
    return described
