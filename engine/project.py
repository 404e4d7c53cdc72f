"""The project: Pulumi.yaml, the types and defaults of its config, and where its state is kept."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import yamlfile
from .errors import EngineError, NotInEngine

FILES = ("Pulumi.yaml", "Pulumi.yml")
_TYPES: dict[str, tuple[str, ...]] = {
    "string": ("string",),
    "integer": ("integer",),
    "number": ("integer", "number"),
    "boolean": ("boolean",),
    "array": ("array",),
    "object": ("object",),
}


@dataclass
class Project:
    """One folder with a Pulumi.yaml."""

    root: Path
    name: str
    settings: dict[str, Any] = field(repr=False)

    @classmethod
    def find(cls, start: Path) -> Project:
        """The project that `start` is in, looked for upwards. Raises EngineError if there is none,
        or if it is not a Python project."""
        start = start.resolve()
        for folder in (start, *start.parents):
            for name in FILES:
                if (folder / name).is_file():
                    return cls._load(folder, folder / name)
        raise EngineError(
            f"no Pulumi.yaml in {start} or above it; change to the project's folder, "
            "or make one with `lockstep init`"
        )

    @classmethod
    def _load(cls, root: Path, path: Path) -> Project:
        settings = yamlfile.read(path)
        name = settings.get("name")
        if not isinstance(name, str) or not name:
            raise EngineError(f"{path} has no `name:`; add the project's name")
        runtime = settings.get("runtime")
        language = runtime.get("name") if isinstance(runtime, dict) else runtime
        if language != "python":
            raise NotInEngine(f"the runtime {language!r}", str(path))
        found = cls(root, name, settings)
        found._check_declared(path)
        return found

    @property
    def program(self) -> Path:
        """The folder that holds __main__.py."""
        return (self.root / str(self.settings.get("main") or ".")).resolve()

    def backend_url(self) -> str:
        """PULUMI_BACKEND_URL, else `backend.url` of Pulumi.yaml, else what `pulumi login` chose,
        else file://~ ; relative ones made absolute. Raises EngineError for other kinds."""
        url, base = os.environ.get("PULUMI_BACKEND_URL") or "", Path.cwd()
        if not url:
            url, base = str((self.settings.get("backend") or {}).get("url") or ""), self.root
        if not url:
            url, base = _login() or "file://~", Path.home()
        if not url.startswith("file://"):
            raise NotInEngine(f"the state backend {url}")
        path = url.removeprefix("file://").split("?")[0]
        if path == "~" or path.startswith("~/"):
            return f"file://{Path.home() / path[2:]}"
        return f"file://{(base / path).resolve()}"

    def stack_file(self, stack: str) -> Path:
        """Pulumi.<stack>.yaml, in the folder that `stackConfigDir` names."""
        folder = self.settings.get("stackConfigDir") or self.settings.get("config")
        at = self.root / folder if isinstance(folder, str) else self.root
        return at / f"Pulumi.{stack}.yaml"

    def stacks(self) -> list[str]:
        """Names of the stacks that have a settings file or a state, sorted."""
        from .backend import Backend

        folder = self.stack_file("x").parent
        named = {p.name[7:-5] for p in folder.glob("Pulumi.*.yaml") if len(p.name) > 12}
        return sorted(named | set(Backend.stacks_of(self)))

    def key(self, name: str) -> str:
        """`release` -> `shop:release`; a key that has a namespace stays."""
        parts = name.split(":")
        if len(parts) == 3 and parts[1] == "config":
            return f"{parts[0]}:{parts[2]}"
        if len(parts) > 2 or not name:
            raise EngineError(
                f"invalid configuration key: could not parse {name} as a configuration key "
                "(configuration keys should be of the form `<namespace>:<name>`)"
            )
        return name if len(parts) == 2 else f"{self.name}:{name}"

    def declared(self) -> dict[str, dict[str, Any]]:
        """Config of Pulumi.yaml by namespaced key: type, default, secret, description, ..."""
        found = self.settings.get("config")
        if not isinstance(found, dict):
            return {}
        typed = ("type", "default", "value", "secret", "description", "items")
        return {
            self.key(str(key)): what
            if isinstance(what, dict) and any(word in what for word in typed)
            else {"value": what}
            for key, what in found.items()
        }

    def defaults(self) -> dict[str, Any]:
        """Values that hold where the stack sets none."""
        return {
            key: what["default"] if "default" in what else what["value"]
            for key, what in self.declared().items()
            if "default" in what or "value" in what
        }

    def validate(self, stack: str, config: dict[str, Any], secret_keys: set[str]) -> None:
        """Raises EngineError for a declared key that is missing, mistyped or not encrypted."""
        own, prefix = f"{self.name}:", f"validating stack config: Stack '{stack}'"
        declared = {k.removeprefix(own): (k, what) for k, what in self.declared().items()}
        missing = [
            k for k, (key, _) in declared.items() if key.startswith(own) and key not in config
        ]
        if missing:
            first, *more = sorted(missing)
            listed = ", ".join(f"'{k}'" for k in (first, *more[:-1]))
            listed += f" and '{more[-1]}'" if more else ""
            raise EngineError(
                f"{prefix} is missing configuration value{'s' if more else ''} {listed}; "
                f"set it with `config set {first} <value>`"
            )
        for shown, (key, what) in sorted(declared.items()):
            if key not in config or "type" not in what:
                continue
            if what.get("secret") and key not in secret_keys:
                raise EngineError(
                    f"{prefix} with configuration key '{shown}' must be encrypted as it's secret"
                )
            if not _fits(config[key], what["type"], what.get("items")):
                raise EngineError(
                    f"{prefix} with configuration key '{shown}' must be of type '{_full(what)}'"
                )

    def _check_declared(self, path: Path) -> None:
        """Raises EngineError for a declaration that says nothing, or against itself."""
        for key, what in self.declared().items():
            kind, shown = what.get("type"), key.removeprefix(f"{self.name}:")
            wrong = ""
            if "default" in what and "value" in what:
                wrong = (
                    f"project config '{shown}' cannot have both a 'default' and 'value' attribute"
                )
            elif kind is not None and kind not in _TYPES:
                wrong = f"the configuration key '{shown}' has the unknown type {kind!r}"
            elif kind == "array" and not what.get("items"):
                wrong = f"The configuration key '{shown}' declares an array but does not specify "
                wrong += "the underlying type via the 'items' attribute"
            elif kind and "default" in what and not _fits(what["default"], kind, what.get("items")):
                wrong = f"The default value specified for configuration key '{shown}' is not of "
                wrong += f"the expected type '{_full(what)}'"
            if wrong:
                raise EngineError(f"could not unmarshal '{path}': {wrong}")


def _full(what: dict[str, Any]) -> str:
    """`array<string>` of a declaration."""
    items = what.get("items")
    inner = items if isinstance(items, dict) and what.get("type") == "array" else None
    return f"array<{_full(inner)}>" if inner else str(what.get("type"))


def _fits(value: Any, kind: str, items: Any = None) -> bool:
    if _type_of(value, kind) not in _TYPES[kind]:
        return False
    inner = items.get("type") if isinstance(items, dict) else None
    found = json.loads(value) if isinstance(value, str) and kind == "array" else value
    return not inner or all(_fits(v, inner, items.get("items")) for v in found)


def _type_of(value: Any, wanted: str) -> str:
    """The JSON type of a config value; the texts of the stack file count as what they spell."""
    if isinstance(value, str):
        if wanted in ("integer", "number") and re.fullmatch(r"[-+]?\d+", value):
            return "integer"
        if wanted == "number" and re.fullmatch(r"[-+]?\d*\.?\d+([eE][-+]?\d+)?", value):
            return "number"
        if wanted == "boolean" and value in ("true", "false"):
            return "boolean"
        if wanted in ("array", "object"):
            try:
                return _type_of(json.loads(value), "")
            except ValueError:
                return "string"
        return "string"
    names = {bool: "boolean", int: "integer", float: "number", list: "array", dict: "object"}
    return names.get(type(value), "null")


def _login() -> str | None:
    home = Path(os.environ.get("PULUMI_HOME") or Path.home() / ".pulumi")
    try:
        current = json.loads((home / "credentials.json").read_text()).get("current")
    except (OSError, ValueError, AttributeError):
        return None
    return current if isinstance(current, str) and current else None
