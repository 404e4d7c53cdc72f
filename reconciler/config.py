"""The stack's settings: one typed model, read from Pulumi's stack config."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import (
    ByteSize,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from reconciler import masking, names
from reconciler.errors import BadInput
from reconciler.gates import written
from reconciler.gates.written import SetGates
from reconciler.notifications.notifysettings import Notify, Text
from reconciler.records.release import Kind, Strategy
from reconciler.setting import Hooks
from reconciler.setting import Setting as Setting

if TYPE_CHECKING:
    from snapshots.store import Store

COMMAND_DRIVER = "command"


class Window(Setting):
    """Which releases are kept besides live, previous and unfinished ones (a union)."""

    last: Annotated[int, Field(ge=1)] = Field(3, description="so many that were live last")
    days: Annotated[int, Field(ge=0)] = Field(0, description="live within so many days; 0: none")
    pinned: tuple[str, ...] = Field((), description="these, as `lockstep pin` writes them")


class Commands(Setting):
    """The user's own commands for a dataset's engine: each runs in its container by `sh -c`.

    A live snapshot is made either by `dump`, whose counterpart `restore` runs in the new world
    when the data came from it, or by `freeze` and `thaw`.
    """

    before_stop: str = Field("", description="shortens the stop that follows")
    freeze: str = Field("", description="brings the files to rest, until `thaw`")
    thaw: str = Field("", description="runs in any case, also when Lockstep died")
    dump: str = Field("", description="prints the data, or writes it to a file in the volume")
    restore: str = Field("", description="loads it; has what `dump` printed as its input")
    probe: str = Field("", description="prints lines of a name and a number, or JSON")
    check: str = Field("", description="fails, and says why, when the data is damaged")
    timeout: Annotated[float, Field(gt=0)] = Field(600, description="seconds for each of them")
    freeze_limit: Annotated[float, Field(gt=0)] = Field(
        30, description="seconds between `freeze` and `thaw` at most"
    )

    @property
    def incomplete(self) -> str | None:
        """What is missing. No error of the config, in which one is set after the other."""
        for one, other in (("freeze", "thaw"), ("thaw", "freeze"),
                           ("dump", "restore"), ("restore", "dump")):  # fmt: skip
            if getattr(self, one) and not getattr(self, other):
                return other
        return None


class DatasetSetting(Setting):
    """What the stack says about a dataset that the compose file does not, or cannot."""

    driver: str | None = Field(None, description="which driver knows its engine")
    strategy: Strategy | None = Field(None, description="a generation for each world, or one place")
    shared: bool | None = Field(None, description="others use it: left as it is")
    was: str | None = Field(None, description="what the dataset was called before")
    kind: Kind | None = Field(None, description="where its data lies under plain Compose")
    volume: str | None = Field(None, description="a volume that no service of ours mounts")
    service: str | None = Field(None, description="for an image's own VOLUME: which service")
    target: str | None = Field(None, description="for an image's own VOLUME: mounted where")
    stop_owner: bool = Field(False, description="a restore may stop the containers that use it")
    commands: Commands | None = Field(None, description="for `driver: command`, and imply it")

    @model_validator(mode="after")
    def _commands_are_for_their_driver(self) -> Self:
        if self.commands is not None and self.driver not in (None, COMMAND_DRIVER):
            raise ValueError(f"commands are only for driver: {COMMAND_DRIVER}, not {self.driver}")
        return self

    @property
    def named_driver(self) -> str | None:
        """The driver that the config says, if any."""
        return self.driver or (COMMAND_DRIVER if self.commands is not None else None)


class Wish(Setting):
    """A one-shot wish: applies once, and only while its release is the declared one."""

    release: str = Field(description="it is fulfilled while this one is declared")
    at: str = Field(
        "departure", description="departure, arrival, a snapshot's id or a world that was left"
    )
    shared: tuple[str, ...] = Field((), description="shared datasets that are put back as well")
    asked: str = Field("", description="any text: another text makes the same wish a new one")

    @property
    def key(self) -> str:
        """What the ledger remembers of a fulfilled wish."""
        return f"{self.release}@{self.at}+{','.join(sorted(self.shared))}#{self.asked}"


class Incidents(Setting):
    """Which incidents are kept besides those whose world is still there (a union)."""

    last: Annotated[int, Field(ge=1)] = Field(20, description="so many of the newest")
    days: Annotated[int, Field(ge=0)] = Field(90, description="those of the last so many days")
    limit: Annotated[ByteSize, Field(ge=1 << 20)] = Field(
        ByteSize(32 << 20), description="bytes of one incident's folder, like 32MiB"
    )


class CopyRate(Setting):
    """Bytes per second at which data is copied and captured while a world is live.

    Between both the rate follows what the host bears without the live world noticing.
    """

    floor: ByteSize = Field(ByteSize(20 << 20), description="never slower, like 20MiB")
    cap: ByteSize = Field(ByteSize(0), description="never faster; 0: as fast as the host bears")

    @model_validator(mode="after")
    def _cap_is_above(self) -> Self:
        if self.floor < 1 or 0 < self.cap < self.floor:
            raise ValueError("floor must be above 0, and cap above floor (or 0: none)")
        return self


Way = Literal["haproxy", "direct"]


class Ingress(Setting):
    """Who owns the published TCP ports: the stack's ingress, or the containers themselves.

    May be written as one word, the `way` of all ports.
    """

    way: Way = Field("direct", description="of all published TCP ports but those named in `ports`")
    ports: dict[str, Way] = Field(
        {}, description="SERVICE or SERVICE:PORT -> another way than that of the stack"
    )
    proxy: tuple[str, ...] = Field(
        (), description="SERVICE or SERVICE:PORT that is told clients' addresses (PROXY protocol)"
    )
    hold: Annotated[float, Field(gt=0)] = Field(
        300, description="seconds that a client waits at most while nothing is live"
    )
    drain: Annotated[float, Field(ge=0)] = Field(
        2, description="seconds that open connections get to end before their world is stopped"
    )
    image: str = Field("lockstep-base/haproxy:2", description="a tag, or better name@sha256:...")

    def way_of(self, service: str, port: int) -> Way:
        """The way of one published port: its own, else its service's, else the stack's."""
        of_service = self.ports.get(service, self.way)
        return self.ports.get(f"{service}:{port}", of_service)

    def tells_address(self, service: str, port: int) -> bool:
        """Whether the service is sent the PROXY protocol's header at this published port."""
        return service in self.proxy or f"{service}:{port}" in self.proxy


class Settings(Setting):
    """Everything the stack's config says (`Pulumi.<stack>.yaml`), validated."""

    release: str | None = Field(None, description="the release that this host runs: prod-003")
    compose: tuple[str, ...] = Field((".",), description="a folder, or compose files in order")
    profiles: tuple[str, ...] = Field((), description="Compose's profiles that are on")
    store: str = Field("releases/store", description="the folder of the snapshot store")
    encryption: str | None = Field(
        None, min_length=12, description="the passphrase of an encrypted store: always a secret"
    )
    window: Window = Window()
    incidents: Incidents = Incidents()
    data: Literal["restore", "keep"] = Field(
        "restore", description="going back: a release's own data returns, or today's goes along"
    )
    environment: dict[str, str] = Field({}, description="plain values, frozen at `new`")
    secrets: dict[str, str] = Field({}, description="secret values, read anew at every up")
    datasets: dict[str, DatasetSetting] = Field({})
    groups: dict[str, tuple[str, ...]] = Field(
        {}, description="datasets that belong together: sealed, and captured, at one point"
    )
    dropped: tuple[str, ...] = Field((), description="datasets that were taken out on purpose")
    migrations: tuple[str, ...] = Field(
        (), description="folders of the project whose files the preview compares between releases"
    )
    allow: tuple[str, ...] = Field(
        (), description="SERVICE.KEY: what a service may ask of its host, as a refusal names it"
    )
    gates: dict[str, SetGates] = Field(
        {}, description="service -> a gate or a list: what it must show before it is live"
    )
    stackGates: SetGates = Field((), description="the same, for the stack as a whole")  # noqa: N815
    ingress: Ingress = Field(Ingress(), description="haproxy or direct, or more about it")
    restore: Wish | None = None
    retry: str | None = Field(
        None, description="a failed world whose release may be tried once more"
    )
    trust: str | None = Field(
        None, description="takes releases/ as it is, by the mark that the refusal names"
    )
    reach: Literal["auto", "direct", "helper"] = Field(
        "auto", description="volumes are read by this process itself, or by helper containers"
    )
    hooks: Hooks = Field({}, description="what is run before and after each phase of a switch")
    notify: tuple[Notify, ...] = Field((), description="who is told what happens: Apprise URLs")
    texts: dict[Text, str] = Field(
        {}, description="files with the team's own templates of what is told"
    )
    diskLow: ByteSize = Field(  # noqa: N815
        ByteSize(2 << 30), description="free bytes below which `disk-low` is told"
    )
    copyRate: CopyRate = CopyRate()  # noqa: N815 - the key as it is written in the config
    deadline: Annotated[float, Field(gt=0)] = Field(
        120.0,
        description="seconds from the start of the new world until it must be proved",
    )
    steady: Annotated[float, Field(ge=0)] = Field(
        0.0,
        description="seconds that a proved world must stand and stay healthy before it is live",
    )

    @model_validator(mode="after")
    def _secrets_are_never_shown(self) -> Self:
        masking.hide([*self.secrets.values(), self.encryption or ""])
        masking.hide(receiver.url for receiver in self.notify)
        return self

    @model_validator(mode="after")
    def _gates_are_in_their_place(self) -> Self:
        for service, gates in self.gates.items():
            written.insist_on_place(service, gates)
        return self

    @property
    def lacking(self) -> tuple[str, ...]:
        """What is set only in part. No error of the config, in which one is set after the other;
        no release is made live before."""
        return tuple(written.lacking(self.gates, self.stackGates))

    def commands(self, dataset: str) -> dict[str, str]:
        """The options of a dataset's driver: the user's own commands by name."""
        said = self.datasets.get(dataset)
        if said is None or said.commands is None:
            return {}
        return {name: str(value) for name, value in said.commands if value}

    def together_with(self, dataset: str) -> tuple[str, ...]:
        """The datasets of its group, itself included; itself alone if it is in none."""
        return next((g for g in self.groups.values() if dataset in g), (dataset,))

    @model_validator(mode="after")
    def _each_dataset_is_in_one_group(self) -> Self:
        seen: dict[str, str] = {}
        for group, datasets in self.groups.items():
            if not datasets:
                raise ValueError(f"groups.{group}: a group has at least one dataset")
            for dataset in datasets:
                if dataset in seen:
                    raise ValueError(
                        f"groups.{group}: dataset {dataset} is in group {seen[dataset]} already"
                    )
                seen[dataset] = group
        return self

    @field_validator("window", mode="before")
    @classmethod
    def _window_may_be_a_number(cls, value: Any) -> Any:
        return {"last": value} if isinstance(value, int | str) else value

    @field_validator("ingress", mode="before")
    @classmethod
    def _ingress_may_be_one_word(cls, value: Any) -> Any:
        return {"way": value} if isinstance(value, str) else value

    @field_validator("compose", mode="before")
    @classmethod
    def _compose_may_be_one(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("environment", "secrets", mode="before")
    @classmethod
    def _values_are_text(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        return {k: _as_text(v) for k, v in value.items()}


class Stack(Setting):
    """A stack with its settings and where it lies."""

    project: str
    name: str
    root: Path = Field(description="the folder of Pulumi.yaml")
    settings: Settings

    @property
    def releases(self) -> Path:
        """The catalog's folder."""
        return self.root / "releases"

    @property
    def store(self) -> Path:
        """The snapshot store's folder."""
        return (self.root / self.settings.store).resolve()

    def open_store(self, *, create: bool = True) -> Store:
        """The snapshot store, by the stack's passphrase if it has one. Raises as Store.open."""
        # Reading settings must not wait for what only works on data.
        from snapshots.store import Store

        return Store.open(self.store, create=create, passphrase=self.settings.encryption)

    @property
    def secret_values(self) -> dict[str, str]:
        """Secret environment values by name."""
        return dict(self.settings.secrets)


def read(project: str, stack: str, root: Path, values: Mapping[str, Any]) -> Stack:
    """The stack from its config values (keys without the project's prefix).

    Raises BadInput that names the key, what is wrong with it and how to set it.
    """
    names.check_stack(stack)
    try:
        # Pulumi gives a declared key that nobody set its default, which may be empty.
        settings = Settings.model_validate({k: v for k, v in values.items() if v != ""})
    except ValidationError as error:
        raise BadInput(_explain(error, stack)) from None
    if settings.release is not None:
        names.check_release_of_stack(settings.release, stack)
    if settings.texts:
        from reconciler.notifications import wording

        wording.check(root, settings.texts)
    for dataset in (*settings.datasets, *chain.from_iterable(settings.groups.values())):
        names.check_dataset(dataset)
    return Stack(project=project, name=stack, root=root, settings=settings)


def _as_text(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else value


def _explain(error: ValidationError, stack: str) -> str:
    problems = error.errors(include_url=False, include_input=False)
    lines = [f"config {'.'.join(written.place(p))} of stack {stack}: {p['msg']}" for p in problems]
    if any(problem["type"] == "extra_forbidden" for problem in problems):
        lines.append(f"  known keys: {', '.join(sorted(Settings.model_fields))}")
    return "\n".join([*lines, "  lockstep config set KEY VALUE   sets one"])
