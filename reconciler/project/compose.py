"""Reading a compose model: its order, ports, jobs, gates and x-lockstep notes. Pure.

A model is what `docker compose config` writes: every `$` in a value is doubled (`plain` undoes
it), and where a secret's value belongs stands its placeholder.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator, Field, ValidationError, model_validator

from reconciler.config import Setting, Settings
from reconciler.errors import BadInput
from reconciler.gates import written
from reconciler.gates.written import Gates
from reconciler.records.release import Release, Strategy
from reconciler.setting import Hooks

Model = Mapping[str, Any]
NOTE = "x-lockstep"
_PLACEHOLDER = re.compile(r"lockstep-secret:([A-Za-z_][A-Za-z0-9_]*):")
_FILE_SECRET = "file:"
_DIGEST = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{52}\b")


def _insist_on_noted(hooks: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """A compose file may come from anywhere; who may command the host says so in the config."""
    for name, hook in hooks.items():
        if hook.get("command") is not None:
            raise ValueError(f"{name}: a command on the host belongs into the stack's config")
        if hook.get("service") or hook.get("dataset"):
            raise ValueError(f"{name}: it is of where it stands; only the config names another")
    return hooks


NotedHooks = Annotated[Hooks, AfterValidator(_insist_on_noted)]


class ServiceNote(Setting):
    """`x-lockstep` of a service."""

    start: Literal["after-commit"] | None = None
    gate: Gates = ()
    gates: Gates = ()
    driver: str | None = None
    job: bool | Literal["again"] = False
    """Ends by itself; `again`: runs also when a release is gone back to."""
    hooks: NotedHooks = Field({}, description="of this service; no command on the host")

    @property
    def all_gates(self) -> Gates:
        return (*self.gate, *self.gates)

    @model_validator(mode="after")
    def _gates_are_in_their_place(self) -> Self:
        written.insist_on_place("this service", self.all_gates)
        return self


class VolumeNote(Setting):
    """`x-lockstep` of a volume."""

    driver: str | None = None
    strategy: Strategy | None = None
    shared: bool | None = None
    was: str | None = None
    hooks: NotedHooks = Field({}, description="of this dataset; no command on the host")


class TopNote(Setting):
    """`x-lockstep` at the top of the compose file."""

    dropped: tuple[str, ...] = ()
    gates: Gates = ()
    hooks: NotedHooks = Field({}, description="of the stack; no command on the host")

    @model_validator(mode="after")
    def _gates_are_in_their_place(self) -> Self:
        written.insist_on_place("", self.gates)
        if any(gate.host for gate in self.gates):
            raise ValueError("a command on the host is said in the config, as stackGates")
        return self


_Note = TypeVar("_Note", bound=Setting)


class Unfit(BadInput):
    """Something in the compose file that cannot be honoured. `at`: the path of members where it
    stands; `holding`: a text of the entry that is meant, where that is a list."""

    def __init__(
        self, message: str, *, at: tuple[str, ...], holding: str = "", next_step: str = ""
    ) -> None:
        super().__init__(message, next_step=next_step)
        self.at = at
        self.holding = holding


@dataclass(frozen=True)
class PublishedPort:
    """A port of the host that a service publishes; `ip` "" means every address."""

    ip: str
    port: int
    protocol: str
    service: str


def placeholder(name: str) -> str:
    """What stands for a secret's value wherever a record could see it."""
    return f"lockstep-secret:{name}:"


def placeholders_in(value: Any) -> set[str]:
    """Names of the secrets whose placeholders occur anywhere in a model or a part of it."""
    if isinstance(value, str):
        return set(_PLACEHOLDER.findall(value))
    if isinstance(value, Mapping):
        return set().union(*(placeholders_in(v) for v in value.values()), placeholders_in([*value]))
    if isinstance(value, list | tuple):
        return set().union(*(placeholders_in(v) for v in value))
    return set()


def with_secrets(value: Any, secrets: Mapping[str, str]) -> Any:
    """A model in which placeholders are replaced by values, their `$` doubled.

    Raises BadInput when a value is not in `secrets`.
    """
    if isinstance(value, str):
        return _PLACEHOLDER.sub(lambda m: _secret(m[1], secrets).replace("$", "$$"), value)
    if isinstance(value, Mapping):
        return {with_secrets(k, secrets): with_secrets(v, secrets) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [with_secrets(v, secrets) for v in value]
    return value


def _secret(name: str, secrets: Mapping[str, str]) -> str:
    if name not in secrets:
        raise BadInput(
            f"the value of secret {name} is not in the stack's config",
            next_step=f"lockstep config set --secret --path secrets.{name}",
        )
    return secrets[name]


def file_secret(path: str) -> str:
    """The name under which the content of a secret's file counts among a release's secrets."""
    return f"{_FILE_SECRET}{path}"


def secret_file(name: str) -> str | None:
    """The path of a secret that is a file; None when its value stands in the config."""
    return name.removeprefix(_FILE_SECRET) if name.startswith(_FILE_SECRET) else None


def plain(value: Any) -> Any:
    """A model's value, or a whole part of it, as it is meant: `$$` is `$`."""
    if isinstance(value, str):
        return value.replace("$$", "$")
    if isinstance(value, Mapping):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return value


def services(model: Model) -> Mapping[str, Mapping[str, Any]]:
    """The services by name."""
    found: Mapping[str, Mapping[str, Any]] = model.get("services") or {}
    return found


def service_note(model: Model, service: str) -> ServiceNote:
    """What x-lockstep says of a service. Raises BadInput with the place."""
    return _note(ServiceNote, services(model).get(service) or {}, "services", service)


def volume_note(model: Model, volume: str) -> VolumeNote:
    """What x-lockstep says of a top-level volume. Raises BadInput with the place."""
    return _note(VolumeNote, (model.get("volumes") or {}).get(volume) or {}, "volumes", volume)


def top_note(model: Model) -> TopNote:
    """What x-lockstep at the top says. Raises BadInput with the place."""
    return _note(TopNote, model)


def _note(kind: type[_Note], body: Mapping[str, Any], *place: str) -> _Note:
    said = plain(body.get(NOTE) or {})
    try:
        return kind.model_validate(said)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        where = ".".join([*place, NOTE, *written.place(problem)])
        known = ", ".join(sorted(kind.model_fields))
        raise Unfit(
            f"{where} in the compose file: {problem['msg']}",
            at=(*place, NOTE),
            next_step=f"{NOTE} may say here: {known}",
        ) from None


def dependencies(model: Model, service: str) -> dict[str, str]:
    """Services that must be there first -> condition (service_started, service_healthy,
    service_completed_successfully). Dependencies that are not in the model are left out."""
    said = (services(model).get(service) or {}).get("depends_on") or {}
    return {
        other: (body or {}).get("condition", "service_started")
        for other, body in said.items()
        if other in services(model)
    }


def start_order(model: Model) -> list[list[str]]:
    """Waves of services: each needs only services of earlier waves. Reversed, it is the order
    to stop them in. Compose has refused cycles already."""
    left = {service: set(dependencies(model, service)) for service in services(model)}
    waves: list[list[str]] = []
    done: set[str] = set()
    while left:
        wave = sorted(service for service, needs in left.items() if needs <= done)
        if not wave:
            raise BadInput(f"services depend on each other in a circle: {', '.join(sorted(left))}")
        waves.append(wave)
        done.update(wave)
        for service in wave:
            del left[service]
    return waves


def published_ports(model: Model) -> list[PublishedPort]:
    """Fixed ports of the host; ranges and ports that Docker chooses are left out."""
    found = []
    for service, body in services(model).items():
        for port in body.get("ports") or ():
            published = str(port.get("published") or "")
            if published.isdigit() and int(published):
                ip = str(port.get("host_ip") or "")
                protocol = port.get("protocol") or "tcp"
                found.append(PublishedPort(ip, int(published), protocol, service))
    return found


def is_job(model: Model, service: str) -> bool:
    """Whether a service is meant to end, and proved by exit 0."""
    waited_for = any(
        dependencies(model, other).get(service) == "service_completed_successfully"
        for other in services(model)
    )
    return waited_for or bool(service_note(model, service).job)


def runs_again(model: Model, service: str) -> bool:
    """Whether a job runs also in a world where it has done its work before."""
    return service_note(model, service).job == "again"


def after_commit(model: Model) -> set[str]:
    """Services that start only once the release is proved."""
    return {s for s in services(model) if service_note(model, s).start == "after-commit"}


def gates(model: Model, settings: Settings, service: str) -> Gates:
    """How a service is proved besides its health check: the config's word before the file's."""
    return settings.gates.get(service) or service_note(model, service).all_gates


def runs_on_host(model: Model, service: str) -> bool:
    """Whether the compose file has a gate of the service run a command on the host."""
    return any(gate.host for gate in service_note(model, service).all_gates)


def stack_gates(model: Model, settings: Settings) -> Gates:
    """What the stack as a whole must show: the config's word before the file's."""
    return settings.stackGates or top_note(model).gates


def has_health_check(model: Model, service: str) -> bool | None:
    """Whether the compose file gives a health check; False: disables it; None: says nothing."""
    said = services(model)[service].get("healthcheck")
    if not said:
        return None
    if said.get("disable") or (said.get("test") or [""])[0] == "NONE":
        return False
    return True if said.get("test") else None


def restart_policy(release: Release, service: str) -> str:
    """The service's own restart policy, which its containers get at the commit. As with Compose,
    `deploy.restart_policy` comes before `restart`, and without a condition there is none."""
    body = services(release.model).get(service) or {}
    said = (body.get("deploy") or {}).get("restart_policy")
    if said is None:
        return str(body.get("restart") or "no")
    condition = said.get("condition") or "no"
    policy = {"any": "always", "none": "no"}.get(condition, condition)
    attempts = said.get("max_attempts")
    return f"{policy}:{attempts}" if policy == "on-failure" and attempts else str(policy)


def shared_networks(model: Model) -> dict[str, Mapping[str, Any]]:
    """Networks that the worlds of a stack have in common, by their key in the model: external
    ones, those with a fixed subnet, and those with a name of their own."""
    found = {}
    for key, body in (model.get("networks") or {}).items():
        said = body or {}
        fixed = bool((said.get("ipam") or {}).get("config"))
        if said.get("external") or fixed or has_own_name(model, key):
            found[key] = said
    return found


def has_own_name(model: Model, network: str) -> bool:
    """Whether the compose file gives a network a name that is not made from the project's."""
    said = (model.get("networks") or {}).get(network) or {}
    by_project = f"{model.get('name', '')}_{network}"
    return bool(said.get("name", by_project) != by_project)


def labels(body: Mapping[str, Any] | None) -> dict[str, str]:
    """The labels that a network or a volume of a model has, as text."""
    said = plain((body or {}).get("labels") or {})
    return {str(key): "" if value is None else str(value) for key, value in said.items()}


def not_early(model: Model, behind: Mapping[str, int] = {}) -> dict[str, str]:
    """Services that may not run while another world of the stack does -> why. `behind`: service ->
    how many of its ports the ingress has."""
    shared = shared_networks(model)
    found = {}
    for service, body in services(model).items():
        networks: Mapping[str, Any] = body.get("networks") or {}
        published = [port for port in body.get("ports") or () if port.get("published")]
        if len(published) > behind.get(service, 0):
            found[service] = "it publishes a port"
        elif body.get("network_mode") == "host":
            found[service] = "it uses the host's network"
        elif has_fixed_address(body):
            found[service] = "it has a fixed address"
        elif joined := sorted(set(networks) & set(shared)):
            # Both worlds' containers answer to the service's name there.
            found[service] = f"network {joined[0]} is common to all worlds"
        elif service_note(model, service).start == "after-commit":
            found[service] = "it starts after the commit"
    return found


def has_fixed_address(body: Mapping[str, Any]) -> bool:
    """Whether a service has an address of its own choice on any network."""
    networks: Mapping[str, Any] = body.get("networks") or {}
    kinds = ("ipv4_address", "ipv6_address")
    return any((said or {}).get(kind) for said in networks.values() for kind in kinds)


def replicas(model: Model, service: str) -> int:
    """How many containers Compose makes for a service."""
    body = services(model)[service]
    said = body.get("scale", (body.get("deploy") or {}).get("replicas"))
    return 1 if said is None else int(said)


def differences(before: Release, after: Release) -> list[str]:
    """What the second release defines differently, one line each; secrets show as placeholders."""
    return changed(comparable(before), comparable(after))


def changed(before: Any, after: Any) -> list[str]:
    """How a definition, or a part of one, differs from another: `place: old -> new`."""
    if before == after:
        return []
    from deepdiff import DeepDiff

    found = DeepDiff(before, after, ignore_order=True, view="tree", verbose_level=2)
    lines = []
    for levels in found.values():
        for level in levels:
            place = ".".join(str(part) for part in level.path(output_format="list"))
            lines.append(f"{place}: {_shown(level.t1)} -> {_shown(level.t2)}".removeprefix(": "))
    return sorted(lines)


def comparable(release: Release) -> dict[str, Any]:
    """The release as a reader compares it: no tags or paths that differ in every release."""
    model = plain({k: v for k, v in release.model.items() if k != "name" and not _is_extension(k)})
    return {
        **model,
        "images": {s: i.id for s, i in release.images.items()},
        "datasets": {
            name: dataset.model_dump(mode="json", exclude={"mounts"}, exclude_defaults=True)
            for name, dataset in release.datasets.items()
        },
        "files": {path: config.sha256 for path, config in release.configs.items()},
        "dropped": list(release.dropped),
    }


def _is_extension(key: str) -> bool:
    """What nobody but the compose file itself reads: an anchor's place, a mark."""
    return key.startswith("x-") and key != NOTE


def _shown(value: Any) -> str:
    text = "nothing" if type(value).__name__ == "NotPresent" else repr(value)
    text = _PLACEHOLDER.sub(r"[secret \1]", _DIGEST.sub(r"\1", text))
    return text if len(text) <= 120 else f"{text[:117]}..."
