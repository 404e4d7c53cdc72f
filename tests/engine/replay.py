"""Replays a recorded scenario of the official engine on this one, operation by operation.

A scenario is a folder with a program (`program.txt`), `scenario.yaml` (ordered operations) and
`expected.json`: for each operation what the official engine did, reduced to what does not change
from run to run.
"""

from __future__ import annotations

import collections
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from engine import EngineError, Project, Result, Stack, destroy, preview, refresh, up
from engine.deployment import Step
from engine.snapshot import Resource

GOLDEN = Path(__file__).parent / "golden"
View = dict[str, Any]


class Recorder:
    """A display that keeps what it is told, as the official engine's event log does."""

    def __init__(self) -> None:
        self.steps: list[list[Any]] = []
        self.errors: list[list[str]] = []
        self.infos: list[str] = []

    def begin(self, _title: str, _stack: str, _dry_run: bool, _diff: bool, /) -> None:
        # The official log holds only the last phase.
        self.steps, self.errors, self.infos = [], [], []

    def step(self, phase: str, step: Step, _dry_run: bool, /) -> None:
        self.steps.append([phase, str(step.op), step.urn, _id(step.old), _id(step.new), step.keys])

    def diagnostic(self, urn: str, severity: str, text: str, _ephemeral: bool, /) -> None:
        if severity == "info":
            self.infos.append(text)
        else:
            self.errors.append([severity, urn, text])

    def outputs(self, _old: dict[str, Any], _new: dict[str, Any], _dry_run: bool, /) -> None: ...

    def summary(
        self, _changes: dict[str, int], _seconds: float, _dry_run: bool, _failed: bool, /
    ) -> None: ...

    def end(self) -> None: ...


def _id(resource: Resource | None) -> str | None:
    return (resource.id or None) if resource else None


def normal(value: Any) -> str:
    """The value as text, without what is random."""
    text = json.dumps(value, sort_keys=True)
    text = re.sub(r"<UUID\d*>|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "<UUID>", text)
    text = re.sub(r"object at <ADDR>|object at 0x[0-9a-f]+", "object", text)
    text = re.sub(r"\b[0-9a-f]{64}\b", "<HEX64>", text)
    return re.sub(r'"v1:[^"]*"', '"<CIPHER>"', text)


def bag(rows: list[Any]) -> dict[str, int]:
    return dict(sorted(collections.Counter(normal(r) for r in rows).items()))


def call_rows(calls: list[dict[str, Any]]) -> list[Any]:
    """Provider and hook calls: which, on what, and whether there was something before."""
    rows = []
    for call in calls:
        given = call.get("props") or call.get("news") or call
        rows.append([call["call"], call.get("hook"), call.get("id"), given.get("name")])
    return rows


def state_rows(resources: list[dict[str, Any]]) -> list[Any]:
    keys: tuple[str, ...] = (
        "id",
        "delete",
        "pendingReplacement",
        "protect",
        "retainOnDelete",
        "resourceHooks",
    )
    keys += ("ignoreChanges", "additionalSecretOutputs", "parent", "provider")
    return [
        [
            r["urn"],
            *(r.get(k) for k in keys),
            sorted(r.get("dependencies") or []),
            {k: sorted(v) for k, v in (r.get("propertyDependencies") or {}).items()},
            sealed(r.get("inputs") or {}),
            sealed(r.get("outputs") or {}),
        ]
        for r in resources
    ]


def sealed(value: Any) -> Any:
    """State values with every ciphertext made equal, and defaults' ids as one."""
    if isinstance(value, dict):
        if "ciphertext" in value:
            return "[secret]"
        return {k: sealed(v) for k, v in value.items()}
    return [sealed(v) for v in value] if isinstance(value, list) else value


class Scenario:
    """One scenario in a folder of its own."""

    def __init__(self, name: str, folder: Path) -> None:
        self.source = GOLDEN / name
        self.spec = yaml.safe_load((self.source / "scenario.yaml").read_text())
        self.folder = folder / "prog"
        self.folder.mkdir()
        # Kept as recorded, so they are data here and become modules in the scenario's own folder.
        shutil.copy(self.source / "program.txt", self.folder / "__main__.py")
        shutil.copy(GOLDEN / "gold.txt", self.folder / "gold.py")
        self.write_project(self.spec.get("pulumi_yaml") or {})
        self.calls, self.world = folder / "calls", folder / "world"
        (folder / "state").mkdir()
        self.env = {
            "PULUMI_CONFIG_PASSPHRASE": "golden",
            "PULUMI_BACKEND_URL": f"file://{folder / 'state'}",
            "GOLDEN_CALLS": str(self.calls),
            "GOLDEN_WORLD": str(self.world),
        }

    def write_project(self, more: dict[str, Any]) -> None:
        (self.folder / "Pulumi.yaml").write_text(
            yaml.safe_dump({"name": "golden", "runtime": "python", **more})
        )

    def stack(self) -> Stack:
        return Stack(Project.find(self.folder), "dev")

    def run(self) -> Iterator[tuple[int, dict[str, Any], View]]:
        """(number, operation, what this engine did) for each operation that can be run here."""
        with environment(self.env):
            self.stack().init()
        for number, operation in enumerate(self.spec["ops"], 1):
            more = {k: str(v) for k, v in (operation.get("env") or {}).items()}
            if "step" in operation:
                more = {"GOLDEN_STEP": str(operation["step"]), **more}
            with environment({**self.env, **more}):
                view = self.do(operation)
            if view is not None:
                yield number, operation, view

    def do(self, operation: dict[str, Any]) -> View | None:
        kind, args = operation["op"], [str(a) for a in operation.get("args") or []]
        if kind == "world":
            self.edit_world(operation)
            return None
        if kind == "project":
            self.write_project(operation["pulumi_yaml"] or {})
            return None
        if kind in ("config_set", "config_rm"):
            return self.configure(kind, args)
        if kind not in ("up", "preview", "refresh", "destroy"):
            return None
        self.calls.unlink(missing_ok=True)
        recorder = Recorder()
        error: EngineError | None = None
        result: Result | None = None
        try:
            result = self.operation(kind, args, recorder, operation)
        except EngineError as problem:
            error = problem
        return self.view(recorder, result, error)

    def operation(
        self, kind: str, args: list[str], recorder: Recorder, operation: dict[str, Any]
    ) -> Result:
        stack = self.stack()
        fresh, unchanged = "--refresh" in args, "--expect-no-changes" in args
        run: dict[str, Callable[[], Result]] = {
            "preview": lambda: preview(stack, display=recorder, refresh=fresh),
            "up": lambda: up(
                stack,
                display=recorder,
                message="",
                skip_preview=not operation.get("with_preview"),
                refresh=fresh,
                expect_no_changes=unchanged,
            ),
            "refresh": lambda: refresh(
                stack,
                display=recorder,
                preview_only="--preview-only" in args,
                expect_no_changes=unchanged,
            ),
            "destroy": lambda: destroy(
                stack, display=recorder, run_program="--run-program" in args
            ),
        }
        return run[kind]()

    def view(self, recorder: Recorder, result: Result | None, error: EngineError | None) -> View:
        stack = self.stack()
        deployment = stack.export()["deployment"]
        pending = deployment.get("pending_operations") or []
        history = stack.history()[:1]
        calls = self.calls.read_text().splitlines() if self.calls.exists() else []
        errors = [*recorder.errors, *([["error", "", str(error)]] if error else [])]
        if result and result.exit_code not in (0, 1):
            errors.append(["error", "", str(result.error)])
        return {
            "exit_code": error.exit_code if error else result.exit_code if result else 0,
            "steps": bag(recorder.steps),
            "calls": bag(call_rows([json.loads(line) for line in calls])),
            "state": bag(state_rows(deployment.get("resources") or [])),
            "pending": bag([[p["type"], p["resource"]["urn"]] for p in pending]),
            "outputs": normal(stack.outputs(show_secrets=True)),
            "history": normal([[h["kind"], h["result"], h["resourceChanges"]] for h in history]),
            "errors": bag([clean_error(*row) for row in errors]),
            "infos": bag([text.rstrip() for text in recorder.infos]),
        }

    def configure(self, kind: str, args: list[str]) -> View:
        flags = {a for a in args if a.startswith("--")}
        words = [a for a in args if not a.startswith("--")]
        stack, path = self.stack(), "--path" in flags
        if kind == "config_set":
            stack.config_set(words[0], words[1], secret="--secret" in flags, path=path)
        else:
            stack.config_rm(words[0], path=path)
        text = self.stack().path.read_text()
        return {"file": re.sub(r"v1:[A-Za-z0-9+/=]+:\S+", "<CIPHER>", text)}

    def edit_world(self, operation: dict[str, Any]) -> None:
        world = json.loads(self.world.read_text()) if self.world.exists() else {}
        for key, value in (operation.get("set") or {}).items():
            world.setdefault(key, {}).update(value)
        for key in operation.get("delete") or []:
            world.pop(key, None)
        self.world.write_text(json.dumps(world))


def clean_error(severity: str, urn: str, text: str) -> list[str]:
    """An error without what differs by intent: the official engine prints a provider's traceback
    where this one prints a sentence with the place, and says more on what to do next."""
    text = text.strip()
    if text.startswith("Traceback"):
        text = text.splitlines()[-1].partition(": ")[2]
    text = re.sub(r" \([\w.]+:\d+\)$", "", text)
    text = re.sub(r'File ".*/', 'File "', text)
    if text.startswith("Attempting to deploy"):
        text = text.split("\n")[0]
    return [severity, urn, text]


@contextmanager
def environment(values: dict[str, str]) -> Iterator[None]:
    before = {k: os.environ.get(k) for k in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value
