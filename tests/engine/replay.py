"""Replays a recorded scenario of the official CLI on the embedded engine, operation by operation.

A scenario is a folder with a program (`program.txt`), `scenario.yaml` (ordered operations) and
`expected.json`: for each operation what the official CLI did, reduced to what does not change from
run to run. `python -m tests.engine.replay RECORDINGS` makes the latter from recordings.
"""

from __future__ import annotations

import collections
import contextlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from cli import pulumi, stackstate
from engine.project import Project
from engine.stack import Stack

GOLDEN = Path(__file__).parent / "golden"
REPOSITORY = Path(__file__).parents[2]
NAMES = sorted(path.name for path in GOLDEN.glob("s*"))
View = dict[str, Any]
PATIENCE = 60
# A recorded failure waited until the others were done; that they are is also so much earlier.
HASTE = 0.3


def normal(value: Any) -> str:
    """The value as text, without what is random."""
    text = json.dumps(value, sort_keys=True)
    text = re.sub(r"<UUID\d*>|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "<UUID>", text)
    text = re.sub(r"object at <ADDR>|object at 0x[0-9a-f]+", "object", text)
    text = re.sub(r"\b[0-9a-f]{64}\b", "<HEX64>", text)
    return re.sub(r'"v1:[^"]*"', '"<CIPHER>"', text)


def bag(rows: list[Any]) -> dict[str, int]:
    return dict(sorted(collections.Counter(normal(r) for r in rows).items()))


def step_rows(steps: list[dict[str, Any]]) -> list[Any]:
    return [
        [
            *(step.get(key) for key in ("phase", "op", "urn", "keys", "diffs", "detailedDiff")),
            bool(step.get("logical")),
            (step.get("old") or {}).get("id"),
            (step.get("new") or {}).get("id"),
        ]
        for step in steps
    ]


def call_rows(calls: list[dict[str, Any]]) -> list[Any]:
    """Provider and hook calls: which, on what, and with what."""
    rows = []
    for call in calls:
        given = call.get("props") or call.get("news") or call
        rows.append([call["call"], call.get("hook"), call.get("id"), given.get("name")])
    return rows


def state_rows(resources: list[dict[str, Any]]) -> list[Any]:
    keys: tuple[str, ...] = ("id", "delete", "pendingReplacement", "protect", "retainOnDelete")
    keys += ("resourceHooks", "ignoreChanges", "additionalSecretOutputs", "parent", "provider")
    keys += ("customTimeouts", "sourcePosition", "replaceOnChanges", "external")
    return [
        [
            resource["urn"],
            # The official CLI has a place of its own for what no line of the program declares.
            *(None if resource.get(k) == "<SRC>" else resource.get(k) for k in keys),
            sorted(resource.get("dependencies") or []),
            {k: sorted(v) for k, v in (resource.get("propertyDependencies") or {}).items()},
            sealed(resource.get("inputs")),
            sealed(resource.get("outputs")),
        ]
        for resource in resources
    ]


def sealed(value: Any) -> Any:
    """State values with every ciphertext made equal."""
    if isinstance(value, dict):
        if "ciphertext" in value:
            return "[secret]"
        return {k: sealed(v) for k, v in value.items()}
    return [sealed(v) for v in value] if isinstance(value, list) else value


def message_rows(messages: list[dict[str, Any]], *, errors: bool) -> list[Any]:
    wanted = ("error", "warning") if errors else ("info",)
    found = [m for m in messages if m["severity"] in wanted]
    return [[m["severity"], m.get("urn"), clean(m["message"])] for m in found]


def clean(text: str) -> str:
    """A message without what differs by intent: the official CLI shows a provider's traceback where
    this one prints a sentence with the place."""
    if text.startswith("Traceback"):
        text = text.strip().splitlines()[-1].partition(": ")[2] + "\n"
    text = re.sub(r" \([\w.]+:\d+\)$", "", text)
    return re.sub(r'File ".*/', 'File "', text)


def command_output(text: str) -> str:
    """What a command printed, without paths, processes and times."""
    text = re.sub(r"file://\S+/locks/", "locks/", text)
    text = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|<UUID\d+>", "<UUID>", text)
    return re.sub(r"created by \S+ \(pid \S+\) at \S+", "created by SOMEBODY", text)


def view(
    exit_code: int,
    steps: list[dict[str, Any]],
    messages: list[dict[str, Any]],
    calls: list[dict[str, Any]],
    deployment: dict[str, Any],
    outputs: Any,
    history: list[dict[str, Any]],
    said: str,
) -> View:
    """What an operation did, in the form that recordings and replays are compared in."""
    pending = deployment.get("pending_operations") or []
    newest = [[h["kind"], h["result"], h.get("resourceChanges")] for h in history[:1]]
    return {
        "exit_code": exit_code,
        "steps": bag(step_rows(steps)),
        "errors": bag(message_rows(messages, errors=True)),
        "infos": bag(message_rows(messages, errors=False)),
        "calls": bag(call_rows(calls)),
        "state": bag(state_rows(deployment.get("resources") or [])),
        "pending": bag([[p["type"], p["resource"]["urn"]] for p in pending]),
        "outputs": normal(outputs),
        "history": normal([len(history), newest]),
        "said": command_output(said),
    }


def events_of(path: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The steps and the messages of an event log."""
    steps, messages = [], []
    phases = {"resourcePreEvent": "pre", "resOutputsEvent": "outputs", "resOpFailedEvent": "failed"}
    for line in path.read_text().splitlines() if path.exists() else []:
        event = json.loads(line)
        for kind, phase in phases.items():
            if kind in event:
                steps.append({"phase": phase, **event[kind]["metadata"]})
        if "diagnosticEvent" in event:
            messages.append(event["diagnosticEvent"])
    return steps, messages


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
        self.calls, self.world, self.logs = folder / "calls", folder / "world", folder / "logs"
        for made in (folder / "state", self.logs):
            made.mkdir()
        self.background: dict[str, tuple[subprocess.Popen[str], Path]] = {}
        self.env = {
            "LOCKSTEP_ENGINE": "embedded",
            "PULUMI_HOME": str(folder / "home"),
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
        """(number, operation, what this engine did) for each operation that can be compared."""
        try:
            with environment(self.env):
                assert self.pulumi(["stack", "init", "dev"])[0] == 0
            for number, operation in enumerate(self.spec["ops"], 1):
                more = {k: str(v) for k, v in (operation.get("env") or {}).items()}
                if "step" in operation:
                    more = {"GOLDEN_STEP": str(operation["step"]), **more}
                if "GOLDEN_SLEEP" in more and not operation.get("background"):
                    more["GOLDEN_SLEEP"] = shortened(more["GOLDEN_SLEEP"], HASTE)
                with environment({**self.env, **more}):
                    done = self.do(operation, self.logs / str(number))
                if done is not None:
                    self.calls.unlink(missing_ok=True)
                    yield number, operation, done
        finally:
            for process, _ in self.background.values():
                process.kill()

    def do(self, operation: dict[str, Any], log: Path) -> View | None:
        kind, args = operation["op"], [str(a) for a in operation.get("args") or []]
        if kind == "world":
            self.edit_world(operation)
        elif kind == "project":
            self.write_project(operation["pulumi_yaml"] or {})
        elif kind in ("kill", "wait"):
            return self.end(operation)
        elif kind in ("config_set", "config_rm", "cli"):
            words = [] if kind == "cli" else kind.split("_")
            code, said = self.pulumi([*words, *args], not operation.get("no_stack"))
            return {"exit_code": code, "said": command_output(said), "file": self.settings()}
        elif kind != "shell":
            asked = [kind, "--non-interactive", "--color", "never", "--event-log", str(log)]
            if kind != "preview":
                asked += [] if operation.get("no_yes") else ["--yes"]
                asked += [] if operation.get("with_preview") else ["--skip-preview"]
            if operation.get("background"):
                self.begin([*asked, *args], operation, log)
                return None
            return self.after(*self.pulumi([*asked, *args]), log)
        return None

    def pulumi(self, arguments: list[str], named: bool = True) -> tuple[int, str]:
        """The command, in this process: its exit code, and what it printed for itself."""
        printed, said = io.StringIO(), io.StringIO()
        where = [*(["--stack", "dev"] if named else []), "--cwd", str(self.folder)]
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(said):
            code = pulumi.main([*arguments, *where])
        shown = "" if "--event-log" in arguments else printed.getvalue()
        return code, shown + said.getvalue()

    def begin(self, arguments: list[str], operation: dict[str, Any], log: Path) -> None:
        process = subprocess.Popen(
            [sys.executable, "-m", "cli.pulumi", *arguments, "--stack", "dev"],
            cwd=self.folder,
            env={
                **os.environ,
                "PYTHONPATH": str(REPOSITORY),
                "GOLDEN_SLEEP": shortened(os.environ["GOLDEN_SLEEP"], 0.15),
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.background[operation["background"]] = process, log
        call, _, name = operation["wait_for"].partition(":")
        deadline = time.monotonic() + PATIENCE
        while [call, name] not in [[row[0], row[3]] for row in call_rows(self.called())]:
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def end(self, operation: dict[str, Any]) -> View:
        process, log = self.background[operation["name"]]
        for number in operation.get("signals", [9]) if operation["op"] == "kill" else []:
            process.send_signal(signal.Signals(number))
            time.sleep(min(operation.get("gap", 0), 0.5))
        _, said = process.communicate(timeout=PATIENCE)
        return self.after(process.returncode, said, log)

    def called(self) -> list[dict[str, Any]]:
        lines = self.calls.read_text().splitlines(keepends=True) if self.calls.exists() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def after(self, code: int, said: str, log: Path) -> View:
        steps, messages = events_of(log)
        stack = self.stack()
        deployment = stackstate.export(stack)["deployment"]
        outputs = stack.outputs(show_secrets=True)
        return view(
            code,
            steps,
            messages,
            self.called(),
            deployment,
            outputs,
            stackstate.history(stack),
            said,
        )

    def settings(self) -> str:
        return without_ciphers(self.stack().path.read_text())

    def edit_world(self, operation: dict[str, Any]) -> None:
        world = json.loads(self.world.read_text()) if self.world.exists() else {}
        for key, value in (operation.get("set") or {}).items():
            world.setdefault(key, {}).update(value)
        for key in operation.get("delete") or []:
            world.pop(key, None)
        self.world.write_text(json.dumps(world))


def shortened(sleeps: str, factor: float) -> str:
    """`create:b=2` with the seconds multiplied."""
    return re.sub(r"=(\d+)", lambda found: f"={int(found[1]) * factor}", sleeps)


def without_ciphers(text: str) -> str:
    return re.sub(r"v1:[A-Za-z0-9+/=]+:\S+", "<CIPHER>", text)


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


# ---- making expected.json ----------------------------------------------------------------------


def recorded(folder: Path, operation: dict[str, Any]) -> View | None:
    """The reduced recording of one operation; None for what only prepares others."""

    def of(name: str, otherwise: Any) -> Any:
        path = folder / name
        return json.loads(path.read_text()) if path.exists() else otherwise

    if operation["op"] in ("world", "project", "shell") or operation.get("background"):
        return None
    code = int((folder / "exit_code").read_text())
    said = "".join((folder / n).read_text() for n in ("stderr.txt",) if (folder / n).exists())
    if operation["op"] in ("config_set", "config_rm", "cli"):
        text = (folder / "stdout.txt").read_text()
        settings = without_ciphers((folder / "Pulumi.dev.yaml").read_text())
        return {"exit_code": code, "said": command_output(text + said), "file": settings}
    return view(
        code,
        of("steps.json", []),
        of("diagnostics.json", []),
        of("calls.json", []),
        of("state.json", {})["deployment"],
        of("outputs.json", {}),
        of("history.json", []),
        said,
    )


def reduce_recordings(source: Path) -> None:
    """Write program, operations and expected.json of every scenario below `source`."""
    for scenario in sorted(source.glob("s[0-9][0-9]*")):
        target = GOLDEN / scenario.name[:3]
        target.mkdir(exist_ok=True)
        shutil.copy(scenario / "__main__.py", target / "program.txt")
        shutil.copy(scenario / "scenario.yaml", target / "scenario.yaml")
        operations = yaml.safe_load((scenario / "scenario.yaml").read_text())["ops"]
        folders = {int(p.name[:2]): p for p in (scenario / "golden").glob("[0-9][0-9]-*")}
        found = {n: recorded(folders[n], o) for n, o in enumerate(operations, 1)}
        kept = {str(n): entry for n, entry in found.items() if entry is not None}
        text = json.dumps(kept, indent=1, sort_keys=True, ensure_ascii=False)
        (target / "expected.json").write_text(text + "\n")


if __name__ == "__main__":
    reduce_recordings(Path(sys.argv[1]))
