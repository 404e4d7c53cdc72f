"""The event log of an operation, as `pulumi up --event-log FILE` writes it: one object a line."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

from engine.snapshot import Resource
from engine.steps import Display, Step
from engine.values import UNKNOWN_TEXT, masked


class EventLog:
    """A display that writes what it is told to a file, then lets another one show it.

    The file is begun anew for each phase: after an `up` with preview it holds the update alone.
    """

    def __init__(self, display: Display, path: Path, config: dict[str, str]) -> None:
        """`config`: the stack's values as they may be shown, secrets masked."""
        self._display, self._path, self._config = display, path, config
        self._lock = threading.RLock()
        self._number = self._begun = 0

    def begin(self, title: str, stack: str, dry_run: bool, diff: bool, /) -> None:
        self._number = self._begun = 0
        self._path.write_text("")
        self._write("preludeEvent", {"config": self._config})
        self._display.begin(title, stack, dry_run, diff)

    def step(self, phase: str, step: Step, dry_run: bool, /) -> None:
        metadata = {
            "op": str(step.op),
            "urn": step.urn,
            "type": step.type,
            "old": _state(step.old),
            "new": _state(step.new),
            "keys": list(step.change.replaces) or None,
            "diffs": list(step.change.keys) or None,
            "detailedDiff": step.change.detailed,
            "logical": step.logical or None,
        }
        self._begun += phase == "pre"
        event: dict[str, Any] = {"metadata": {k: v for k, v in metadata.items() if v is not None}}
        if dry_run:
            event["planning"] = True
        if phase == "failed":
            event |= {"status": 0, "steps": self._begun}
        kinds = {"pre": "resourcePreEvent", "outputs": "resOutputsEvent"}
        self._write(kinds.get(phase, "resOpFailedEvent"), event)
        self._display.step(phase, step, dry_run)

    def diagnostic(self, urn: str, severity: str, text: str, ephemeral: bool = False, /) -> None:
        event = {
            "urn": urn,
            "prefix": "" if severity.startswith("info") else f"{severity}: ",
            "message": text + "\n",
            "color": "never",
            "severity": severity,
            "ephemeral": ephemeral,
        }
        self._write("diagnosticEvent", {k: v for k, v in event.items() if v})
        self._display.diagnostic(urn, severity, text, ephemeral)

    def outputs(self, old: dict[str, Any], new: dict[str, Any], dry_run: bool, /) -> None:
        self._display.outputs(old, new, dry_run)

    def summary(
        self, changes: dict[str, int], seconds: float, dry_run: bool, failed: bool, /
    ) -> None:
        event = {
            "maybeCorrupt": False,
            "durationSeconds": round(seconds),
            "resourceChanges": changes,
            "PolicyPacks": {},
            "isPreview": dry_run,
            "result": "failed" if failed else "succeeded",
        }
        self._write("summaryEvent", event)
        self._display.summary(changes, seconds, dry_run, failed)

    def end(self) -> None:
        self._write("cancelEvent", {})
        self._display.end()

    def _write(self, kind: str, event: dict[str, Any]) -> None:
        with self._lock:
            line = {"sequence": self._number, "timestamp": int(time.time()), kind: event}
            self._number += 1
            with self._path.open("a") as file:
                file.write(json.dumps(line, ensure_ascii=False) + "\n")


def _state(resource: Resource | None) -> dict[str, Any] | None:
    if resource is None:
        return None
    shown = resource.write(lambda value: masked(value, UNKNOWN_TEXT))
    return {"inputs": {}, "outputs": {}, **shown}
