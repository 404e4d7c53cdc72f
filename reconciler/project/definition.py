"""From a compose model to the definition of a release: datasets, config files, secrets. Pure."""

from __future__ import annotations

import copy
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from reconciler import names
from reconciler.config import DatasetSetting, Settings
from reconciler.errors import BadInput
from reconciler.project import compose
from reconciler.project.compose import Unfit, VolumeNote
from reconciler.records.release import ConfigFile, Dataset, Kind, Mount, Release, Strategy
from reconciler.world.worldmodel import given_by_content

DIRECTORY_DRIVER = "directory"
CONFIG_BYTES = 16 << 20
CONFIG_FILES = 1000
_SECRET_NAME = re.compile(r"(?i)(password|passwd|secret|token|api_?key|private_?key)$")
_SYSTEM = ("/dev", "/proc", "/run", "/sys", "/var/run", "/var/lib/docker")


@dataclass(frozen=True)
class Found:
    """What lies at the source of a bind mount."""

    kind: Literal["file", "directory", "other", "missing"]
    content: bytes = b""
    mode: int = 0o444
    files: Mapping[str, Found] = field(default_factory=dict)
    """directory: its regular files by relative path."""
    simple: bool = True
    """False: too large, or holds more than regular files, to be kept by content."""


@dataclass(frozen=True)
class Definition:
    """What a release is, apart from its images, name and history."""

    model: dict[str, Any]
    datasets: dict[str, Dataset]
    configs: dict[str, ConfigFile]
    contents: dict[str, bytes]
    """sha256 -> content of the config files."""
    secrets: tuple[str, ...]
    dropped: tuple[str, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class IdentityProblem:
    """A dataset whose identity between two releases is not clear."""

    dataset: str
    message: str
    remedy: str
    refused: bool


def define(
    model: compose.Model,
    settings: Settings,
    *,
    roots: Sequence[Path],
    look: Callable[[Path], Found],
    image_volumes: Mapping[str, Sequence[str]],
    detect: Callable[[str, str], str],
    looks_like: Callable[[str, str | None], str] = lambda _name, _source: DIRECTORY_DRIVER,
) -> Definition:
    """The definition that a model, made with placeholders for secrets, and the settings give.

    `roots`: the project's folders (bind-mounted files below them are config files); `look` says
    what lies at a path; `image_volumes`: service -> targets of its image's own VOLUMEs;
    `detect`: (image, mount target) -> name of the driver; `looks_like`: the same by what lies in a
    dataset now, of which its name and source are known. Raises BadInput with the line to add.
    """
    return _Defining(model, settings, roots, look, image_volumes, detect, looks_like).definition()


def insist_on_services(model: compose.Model) -> None:
    """Raises Unfit for what no world can honour, whatever its images are."""
    late = compose.after_commit(model)
    for service, body in compose.services(model).items():
        for hook in ("post_start", "pre_stop"):
            if body.get(hook):
                raise Unfit(
                    f"{hook} of service {service}: Lockstep starts and stops containers "
                    "itself, so Compose's hooks would not run",
                    at=("services", service, hook),
                    next_step="move it into the image's entrypoint, or into a job service",
                )
        if body.get("provider"):
            raise Unfit(
                f"service {service} has a provider: Lockstep cannot switch it",
                at=("services", service, "provider"),
                next_step="leave it out by a profile, or run it as a project of its own",
            )
        waits_for = sorted(set(compose.dependencies(model, service)) & late)
        if waits_for and service not in late:
            raise Unfit(
                f"service {service} depends on {waits_for[0]}, which starts after the commit: "
                "it could not be proved",
                at=("services", service, "depends_on"),
                next_step=f"let {service} start after the commit too, or drop the dependency",
            )
        hidden = sorted(compose.placeholders_in(body.get(compose.NOTE)))
        if hidden:
            raise Unfit(
                f"{compose.NOTE} of service {service} holds secret {hidden[0]}: it would not "
                "be replaced there",
                at=("services", service, compose.NOTE),
                next_step=f"let the command read it in the container, as $${hidden[0]}",
            )
    for kind in ("configs", "secrets"):
        for name, said in (model.get(kind) or {}).items():
            if (said or {}).get("external"):
                raise Unfit(
                    f"{kind}.{name} in the compose file is external, which Compose has for Swarm "
                    "alone",
                    at=(kind, name),
                    next_step="give it as `file:` or `environment:`",
                )


def changed(
    before: Mapping[str, Dataset], after: Definition | Release, *, release: str
) -> list[IdentityProblem]:
    """What `after` leaves unclear about the datasets of the release before it, called `release`:
    one that vanished (refused), one that is new beside existing data (to be warned of)."""
    renamed = {d.was: name for name, d in after.datasets.items() if d.was}
    found = []
    for name, dataset in before.items():
        if name in after.datasets or name in renamed or name in after.dropped:
            continue
        found.append(
            IdentityProblem(
                name,
                f"dataset {name} of {release} is not in the new release",
                f"say what became of it: `x-lockstep: {{was: {name}}}` on the volume that "
                f"replaces it, or `x-lockstep: {{dropped: [{name}]}}` at the top of the compose "
                "file",
                refused=not dataset.shared,
            )
        )
    for name, dataset in after.datasets.items():
        if before and name not in before and dataset.was not in before and not dataset.shared:
            known = ", ".join(sorted(before))
            found.append(
                IdentityProblem(
                    name,
                    f"dataset {name} is new and starts empty ({release} has {known})",
                    "if it is an old one under a new name, say `x-lockstep: {was: OLD-NAME}` on it",
                    refused=False,
                )
            )
    return found


class _Defining:
    def __init__(
        self,
        model: compose.Model,
        settings: Settings,
        roots: Sequence[Path],
        look: Callable[[Path], Found],
        image_volumes: Mapping[str, Sequence[str]],
        detect: Callable[[str, str], str],
        looks_like: Callable[[str, str | None], str],
    ) -> None:
        self.model: dict[str, Any] = copy.deepcopy(dict(model))
        self.settings = settings
        self.roots = tuple(roots)
        self.look = look
        self.image_volumes = image_volumes
        self.detect = detect
        self.looks_like = looks_like
        self.datasets: dict[str, Dataset] = {}
        self.configs: dict[str, ConfigFile] = {}
        self.contents: dict[str, bytes] = {}
        self.file_secrets: set[str] = set()
        self.warnings: list[str] = []
        self.top = compose.top_note(self.model)

    def definition(self) -> Definition:
        insist_on_services(self.model)
        self._warn_of_names_and_addresses()
        self._warn_of_plain_secrets()
        self._named_volumes()
        self._anonymous_volumes()
        self._binds()
        self._declared_elsewhere()
        self._top_level_files()
        self._check_given_by_content()
        self._check_identity()
        secrets = compose.placeholders_in(self.model) | self.file_secrets
        return Definition(
            model=self.model,
            datasets=self.datasets,
            configs=self.configs,
            contents=self.contents,
            secrets=tuple(sorted(secrets)),
            dropped=tuple(sorted({*self.top.dropped, *self.settings.dropped})),
            warnings=tuple(self.warnings),
        )

    # services -------------------------------------------------------------------------------

    def _warn_of_names_and_addresses(self) -> None:
        for service, body in compose.services(self.model).items():
            if body.get("container_name"):
                self.warnings.append(
                    f"container_name {body['container_name']} of {service} is an alias on its "
                    "networks, not the container's name: worlds exist side by side (`lockstep "
                    "compose` reaches services by name)"
                )
            if compose.has_fixed_address(body):
                self.warnings.append(
                    f"{service} has a fixed address: it cannot be started before the old world "
                    "is stopped"
                )

    def _warn_of_plain_secrets(self) -> None:
        for service, body in compose.services(self.model).items():
            for name, value in (body.get("environment") or {}).items():
                if _SECRET_NAME.search(name) and value and not compose.placeholders_in(value):
                    self.warnings.append(
                        f"{name} of service {service} is recorded in plain text: write ${{NAME}} "
                        "there, and lockstep config set --secret --path secrets.NAME"
                    )

    # datasets -------------------------------------------------------------------------------

    def _mounts(self, kind: str) -> Iterator[tuple[str, dict[str, Any]]]:
        for service, body in compose.services(self.model).items():
            for mount in body.get("volumes") or ():
                if mount.get("type") == kind:
                    yield service, mount

    def _named_volumes(self) -> None:
        mounts: dict[str, list[Mount]] = {}
        for service, mount in self._mounts("volume"):
            if mount.get("source"):
                mounts.setdefault(mount["source"], []).append(_mount(service, mount))
        for name, places in mounts.items():
            body = (self.model.get("volumes") or {}).get(name) or {}
            options = body.get("driver_opts") or {}
            if options.get("type") == "tmpfs":
                continue
            kind = Kind.EXTERNAL if body.get("external") else Kind.VOLUME
            elsewhere = bool(options) or body.get("driver", "local") != "local"
            if elsewhere and kind is Kind.VOLUME:
                self.warnings.append(
                    f"volume {name} has a driver or options of its own: it is worked on in place "
                    f"unless datasets.{name}.strategy is fork"
                )
            self._add(
                name,
                kind,
                places,
                source=compose.plain(body.get("name", name)),
                note=compose.volume_note(self.model, name),
                in_place=elsewhere or kind is Kind.EXTERNAL,
            )

    def _anonymous_volumes(self) -> None:
        found: list[tuple[str, str, bool]] = []
        for service, mount in self._mounts("volume"):
            if not mount.get("source"):
                found.append((service, mount["target"], bool(mount.get("read_only"))))
        for service, body in compose.services(self.model).items():
            covered = {_target(m["target"]) for m in body.get("volumes") or ()}
            covered |= {_target(t.partition(":")[0]) for t in _texts(body.get("tmpfs"))}
            for target in self.image_volumes.get(service, ()):
                if _target(target) not in covered:
                    found.append((service, target, False))
        for service, target, read_only in found:
            name = self._name_of_anonymous(service, target)
            place = Mount(service=service, target=target, read_only=read_only)
            self._add(name, Kind.ANONYMOUS, [place], source=None)

    def _name_of_anonymous(self, service: str, target: str) -> str:
        for name, said in self.settings.datasets.items():
            if said.service == service and _target(said.target or "") == _target(target):
                return name
        guess = f"{service}-{_slug(target)}"
        raise Unfit(
            f"service {service} keeps data at {target} in a volume without a name: its identity "
            "would be lost with its container",
            at=self._place_of_mount(service),
            holding=target,
            next_step=(
                f"name it: under volumes of service {service} add `- {guess}:{target}` (and "
                f"`{guess}:` under the top-level volumes); to take over the data it has now, "
                f"lockstep config set --path datasets.{guess}.service {service} and "
                f"datasets.{guess}.target {target}; data not worth keeping: `tmpfs: [{target}]`"
            ),
        )

    def _place_of_mount(self, service: str) -> tuple[str, ...]:
        mounts = compose.services(self.model)[service].get("volumes")
        return ("services", service, "volumes") if mounts else ("services", service)

    def _binds(self) -> None:
        by_source: dict[str, list[tuple[str, dict[str, Any]]]] = {}
        for service, mount in self._mounts("bind"):
            by_source.setdefault(compose.plain(mount["source"]), []).append((service, mount))
        for source, mounts in by_source.items():
            path = Path(source)
            if source == "/" or any(_below(path, Path(system)) for system in _SYSTEM):
                continue
            writable = any(not m.get("read_only") for _, m in mounts)
            found = self.look(path)
            ours = any(_below(path, root) for root in self.roots)
            if writable and found.kind in ("directory", "missing"):
                self._refuse_project_folder(path, mounts[0][0])
                places = [_mount(service, mount) for service, mount in mounts]
                self._add(self._bind_name(path), Kind.BIND, places, source=source, in_place=True)
            elif ours:
                self._config(path, found, writable)

    def _refuse_project_folder(self, path: Path, service: str) -> None:
        if any(_below(root, path) for root in self.roots):
            raise Unfit(
                f"service {service} mounts {path} writable, which holds the project itself: it "
                "cannot be a dataset",
                at=("services", service, "volumes"),
                next_step="mount a folder below it, or copy the code into the image",
            )

    def _bind_name(self, path: Path) -> str:
        for root in self.roots:
            if _below(path, root):
                return _slug(str(path.relative_to(root)))
        return _slug(str(path))

    def _declared_elsewhere(self) -> None:
        """Datasets that only the settings know: volumes that none of our services mounts."""
        for name, said in self.settings.datasets.items():
            if name in self.datasets:
                continue
            if said.volume:
                self._add(name, Kind.EXTERNAL, [], source=said.volume, in_place=True, shared=True)
            elif name not in {*self.top.dropped, *self.settings.dropped}:
                known = ", ".join(sorted(self.datasets)) or "none"
                raise BadInput(
                    f"config datasets.{name}: the compose file has no such dataset; it has {known}",
                    next_step=f"lockstep config rm --path datasets.{name}",
                )

    def _add(
        self,
        name: str,
        kind: Kind,
        mounts: Sequence[Mount],
        *,
        source: str | None,
        note: VolumeNote | None = None,
        in_place: bool = False,
        shared: bool = False,
    ) -> None:
        names.check_dataset(name)
        if name in self.datasets:
            raise Unfit(
                f"two datasets would be called {name}: {self.datasets[name].source} and {source}",
                at=("volumes", name),
                next_step="rename the volume, or move the directory",
            )
        said = self.settings.datasets.get(name) or DatasetSetting()
        note = note or VolumeNote()
        if said.kind is not None and said.kind is not kind:
            raise BadInput(f"config datasets.{name}.kind is {said.kind}, but it is {kind}")
        is_shared = next((s for s in (said.shared, note.shared) if s is not None), shared)
        strategy = said.strategy or note.strategy
        if is_shared and strategy is Strategy.FORK:
            raise Unfit(
                f"dataset {name} is shared: it cannot be forked, others would not see the fork",
                at=("volumes", name),
                next_step="drop `shared`, or `strategy: fork`",
            )
        default = Strategy.IN_PLACE if in_place or is_shared else Strategy.FORK
        if kind is Kind.ANONYMOUS and (strategy or default) is Strategy.IN_PLACE:
            raise BadInput(
                f"dataset {name} has no volume of its own to be worked on in place",
                next_step="give it a named volume in the compose file",
            )
        self.datasets[name] = Dataset(
            name=name,
            kind=kind,
            driver=said.named_driver or note.driver or self._driver(name, source, mounts),
            strategy=strategy or default,
            shared=is_shared,
            source=source,
            mounts=tuple(mounts),
            was=said.was or note.was,
            stop_owner=said.stop_owner,
        )

    def _driver(self, name: str, source: str | None, mounts: Sequence[Mount]) -> str:
        """The first driver that knows more than files, asked for those who write first; where no
        image tells, what lies in the dataset now does."""
        told = False
        for mount in sorted(mounts, key=lambda m: m.read_only):
            declared = compose.service_note(self.model, mount.service).driver
            body = compose.services(self.model)[mount.service]
            image = compose.plain(body.get("image", ""))
            driver = declared or self.detect(image, mount.target)
            if driver != DIRECTORY_DRIVER:
                return driver
            told = told or declared is not None
        return DIRECTORY_DRIVER if told else self.looks_like(name, source)

    # config files ---------------------------------------------------------------------------

    def _config(self, path: Path, found: Found, writable: bool) -> None:
        if found.kind in ("missing", "other"):
            self.warnings.append(f"{path} is mounted but is no file: it is not part of the release")
            return
        if not found.simple:
            self.warnings.append(
                f"{path} is mounted from the project but too large (or holds links): it is not "
                "part of the release, every release sees it as it is"
            )
            return
        if found.kind == "directory":
            for relative, file in found.files.items():
                self._add_config(path / relative, file)
            return
        if writable:
            self.warnings.append(
                f"{path} is mounted writable: each release has its own copy of it, what a "
                "container writes there is not carried on (add :ro if it only reads)"
            )
        self._add_config(path, found)

    def _add_config(self, path: Path, file: Found) -> None:
        digest = hashlib.sha256(file.content).hexdigest()
        self.contents[digest] = file.content
        self.configs[self._shown(path)] = ConfigFile(path=str(path), sha256=digest, mode=file.mode)

    def _shown(self, path: Path) -> str:
        for root in self.roots:
            if _below(path, root):
                return str(path.relative_to(root))
        return str(path)

    def _top_level_files(self) -> None:
        """Top-level `configs` and `secrets`: files by content, secrets never by value."""
        for name, body in (self.model.get("configs") or {}).items():
            if body.get("file"):
                path = Path(compose.plain(body["file"]))
                found = self.look(path)
                if found.kind != "file":
                    raise Unfit(
                        f"configs.{name} in the compose file: {path} is not a file",
                        at=("configs", name),
                        next_step="make it, or take the config out of the compose file",
                    )
                self._add_config(path, found)
            elif body.get("environment"):
                variable = body.pop("environment")
                body["content"] = self._value_of(f"configs.{name}", variable)
        for name, body in (self.model.get("secrets") or {}).items():
            if body.get("file"):
                self.file_secrets.add(compose.file_secret(compose.plain(body["file"])))
            elif body.get("environment"):
                variable = body["environment"]
                if variable not in self.settings.secrets:
                    raise Unfit(
                        f"secrets.{name} in the compose file takes its value from {variable}, "
                        "which the stack's config does not set",
                        at=("secrets", name),
                        next_step=f"lockstep config set --secret --path secrets.{variable}",
                    )
                # A note for whoever makes a world; Compose itself never reads this model.
                body["environment"] = compose.placeholder(variable)

    def _check_given_by_content(self) -> None:
        """Files that are put into a container's own file system need a place in it."""
        for service, body in compose.services(self.model).items():
            mounted = [Path(m["target"]) for m in body.get("volumes") or ()]
            for _, target, _ in given_by_content(self.model, body):
                if body.get("read_only"):
                    raise Unfit(
                        f"service {service} is read_only, so {target} cannot be put into it",
                        at=("services", service, "read_only"),
                        next_step="give the config or secret as `file:` in the compose file",
                    )
                if any(_below(Path(target), mount) for mount in mounted):
                    raise Unfit(
                        f"{target} of service {service} lies below one of its mounts: it would be "
                        "written into data",
                        at=("services", service),
                        next_step="give it another target in the compose file",
                    )

    def _value_of(self, place: str, variable: str) -> str:
        if variable in self.settings.secrets:
            return compose.placeholder(variable)
        if variable in self.settings.environment:
            return self.settings.environment[variable].replace("$", "$$")
        raise Unfit(
            f"{place} in the compose file takes its content from {variable}, which the stack's "
            "config does not set",
            at=tuple(place.split(".", 1)),
            next_step=f"lockstep config set --path environment.{variable} VALUE",
        )

    def _check_identity(self) -> None:
        taken: dict[str, str] = {}
        for name, dataset in self.datasets.items():
            if dataset.was is None:
                continue
            if dataset.was in self.datasets:
                raise Unfit(
                    f"dataset {name} says it was {dataset.was}, but {dataset.was} is still there",
                    at=("volumes", name),
                    next_step="drop `was`, or the old volume",
                )
            if dataset.was in taken:
                raise Unfit(
                    f"datasets {taken[dataset.was]} and {name} both say they were {dataset.was}",
                    at=("volumes", name),
                    next_step="only one of them can be it",
                )
            taken[dataset.was] = name


def _mount(service: str, mount: Mapping[str, Any]) -> Mount:
    return Mount(
        service=service,
        target=compose.plain(mount["target"]),
        read_only=bool(mount.get("read_only")),
    )


def _below(path: Path, root: Path) -> bool:
    return path == root or root in path.parents


def _target(path: str) -> str:
    return path.rstrip("/") or "/"


def _texts(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    return [str(v) for v in value] if isinstance(value, list | tuple) else []


def _slug(path: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", path).strip("-.") or "data"
