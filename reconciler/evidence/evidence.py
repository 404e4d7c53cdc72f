"""What is gathered of a switch, so that somebody else can tell later what happened.

Of the old world while it still runs, of the new one when it has failed, and of both in the end,
with their logs. It is put into a draft; where the switch is reverted or went back, the draft
becomes an incident. Nothing here raises, and nobody whose service stands still waits for it.
"""

from __future__ import annotations

import gzip
import json
import platform
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

from reconciler import clock
from reconciler.catalog import Catalog
from reconciler.config import Stack
from reconciler.docker import Docker
from reconciler.errors import LockstepError
from reconciler.evidence import evidencetext, hostfacts, incidents
from reconciler.evidence.evidencetext import AFTER, BEFORE, FAILING
from reconciler.evidence.hiding import Hiding
from reconciler.evidence.witness import LOG_LINES, Witness, in_parallel
from reconciler.project import compose
from reconciler.records import hookrecord
from reconciler.records.journal import Intent
from reconciler.records.ledger import Committed, Recovered, Reverted, State
from reconciler.records.release import Release

Say = Callable[[str], None]
T = TypeVar("T")

_BEFORE_SECONDS = 1.0
_FAILING_SECONDS = 0.25
"""Longest wait for a look at the failed world, while nobody answers the stack's clients."""
_CLOSING_SECONDS = 30.0
_TURN_SECONDS = 5.0
_LEAST_LOG, _MOST_LOG = 16 << 10, 4 << 20
_OWN = 128 << 10
"""Bytes for the incident's document and its text."""
_OWN_FILES = {incidents.DOCUMENT, incidents.README, incidents.REMARKS}
_MOST_CHANGES = 200
_COMPRESSED = 4
"""Logs become at least so many times smaller, nearly always."""


class Evidence:
    """What is gathered of one switch, by whoever carries it on. Safe from several threads."""

    def __init__(
        self,
        stack: Stack,
        catalog: Catalog,
        docker: Docker,
        intent: Intent,
        records: Mapping[str, Release | None],
        say: Say,
    ) -> None:
        self.stack = stack
        self.catalog = catalog
        self.docker = docker
        self.intent = intent
        self.records = records
        self.say = say
        self.draft = incidents.draft(catalog, intent.incident)
        self.missing: list[str] = []
        self._looking: threading.Thread | None = None
        self._turn, self._guard = threading.Lock(), threading.Lock()
        self._used: int | None = None

    @property
    def of_commit(self) -> str:
        """The incident's name that a commit writes down: going back is one, going on is none."""
        back = self.intent.move == "back" or bool(self.intent.asked)
        return self.intent.incident if back else ""

    # while the switch is under way --------------------------------------------------------------

    def begin(self, plan: Mapping[str, Any]) -> None:
        """Look at the old world beside the preparations; `wait` ends that."""
        if not self.intent.incident:
            return

        def gather() -> None:
            incidents.clear_drafts(self.catalog, self.intent.incident)
            self._put("plan.json", self.witness.hiding.document(dict(plan)))
            if self.intent.from_world is not None:
                self._look(BEFORE, [self.intent.from_world])

        self._beside(gather)

    def look_at_failed(self) -> None:
        """Look at the new world beside the first steps of the way back; `wait` ends that."""
        if self.intent.incident:
            self._beside(partial(self._look, FAILING, [self.intent.to_world]))

    def wait(self, seconds: float) -> None:
        """Until the look is over, but no longer."""
        if self._looking is not None:
            self._looking.join(seconds)

    def wait_before_stop(self) -> None:
        self.wait(_BEFORE_SECONDS)

    def wait_before_way_back(self) -> None:
        self.wait(_FAILING_SECONDS)

    def drop(self) -> None:
        """Nothing went wrong."""
        if self.intent.incident:
            self.wait(_BEFORE_SECONDS)
            shutil.rmtree(self.draft, ignore_errors=True)

    # in the end ---------------------------------------------------------------------------------

    def close(self) -> None:
        """After the outcome is in the ledger: make the incident of it, or drop the draft. Can be
        done again. What hangs is left behind."""
        found = self._outcome()
        if found is None or not found[1].incident:
            self.drop()
            return
        seq, outcome = found
        if (incidents.folder(self.catalog) / self.intent.incident).exists():
            return
        self.wait(_BEFORE_SECONDS)
        self._beside(lambda: self._close(seq, outcome))
        self.wait(_CLOSING_SECONDS)
        if (incidents.folder(self.catalog) / self.intent.incident).exists():
            self.say(f"what happened is kept: lockstep incident show {self.intent.incident}")
        else:
            self.say("; ".join(["what happened could not be kept", *self.missing]))

    def add_hooks(self) -> None:
        """After hooks that ran when the outcome stood already: the incident gets what came of
        them, and all that hooks said. Can be done again."""
        place = incidents.folder(self.catalog) / self.intent.incident
        if not self.intent.incident or not self.intent.hooks or not place.exists():
            return
        self.draft, self._used, before = place, None, len(self.missing)
        with suppress(OSError, ValueError):
            document = json.loads((place / incidents.DOCUMENT).read_text(encoding="utf-8"))
            self._tried(self._copy_hooks)
            document["hooks"] = self._hooks()
            document["missing"] += self.missing[before:]
            document["files"] = self._files()
            incidents.write(place, document)

    def _outcome(self) -> tuple[int, Committed | Reverted] | None:
        with suppress(LockstepError):
            for seq, outcome in self.catalog.state().outcomes:
                ours = seq > self.intent.head and outcome.to_world == self.intent.to_world
                if ours and not isinstance(outcome, Recovered):
                    return seq, outcome
        return None

    def _close(self, seq: int, outcome: Committed | Reverted) -> None:
        for torn in self.draft.glob(".*.new"):
            torn.unlink()
        state = self.catalog.state()
        worlds = [w for w in (self.intent.from_world, self.intent.to_world) if w is not None]
        containers = self._tried(partial(self._look, AFTER, worlds)) or {}
        self._tried(self._mask_plan)
        self._tried(lambda: self._put("ps.txt", evidencetext.tables(self.draft)))
        self._tried(self._copy_progress)
        self._tried(self._copy_hooks)
        logs = self._tried(partial(self._logs, containers)) or []
        incidents.write(self.draft, self._document(seq, outcome, state, logs))
        incidents.promote(self.catalog, self.intent.incident)

    def _document(
        self,
        seq: int,
        outcome: Committed | Reverted,
        state: State,
        logs: list[dict[str, Any]],
    ) -> dict[str, Any]:
        hide = self.witness.hiding
        reverted = isinstance(outcome, Reverted)
        subject = outcome.to_world if reverted else outcome.from_world
        live = state.live
        return {
            "schema": incidents.SCHEMA,
            "id": self.intent.incident,
            "project": self.stack.project,
            "stack": self.stack.name,
            "host": {"name": platform.node(), "folder": str(self.stack.root)},
            "seq": seq,
            "kind": "reverted" if reverted else self.intent.asked or "rollback",
            "asked": self.intent.asked or "up",
            "at": outcome.at,
            "started": outcome.started,
            "who": outcome.who,
            "operator_reason": hide.text(outcome.operator_reason),
            "reason": hide.text(outcome.reason),
            "move": outcome.move,
            "from": evidencetext.named(state, outcome.from_world),
            "to": evidencetext.named(state, outcome.to_world),
            "live": evidencetext.named(state, live),
            "subject": evidencetext.named(state, subject),
            "releases": {
                record.name: hide.document(evidencetext.told(record))
                for record in self.records.values()
                if record is not None
            },
            "changes": self._tried(self._changes) or [],
            "interrupted": outcome.reason.startswith("interrupted at "),
            "downtime_seconds": outcome.downtime_seconds,
            "quarantined": isinstance(outcome, Reverted) and outcome.quarantine,
            "data": incidents.data_of(state, seq) or [],
            "outcome": hide.document(outcome.model_dump(mode="json")),
            "hooks": self._hooks(),
            "logs": logs,
            "limit_bytes": int(self.stack.settings.incidents.limit),
            "log_lines": LOG_LINES,
            "missing": [*self.missing, *self.witness.missing],
            "files": self._files(),
        }

    def _changes(self) -> list[str]:
        """How the release that came differs from the one that was left."""
        left = self.records.get(self.intent.from_world or "")
        came = self.records.get(self.intent.to_world)
        if left is None or came is None:
            return []
        lines = [self.witness.hiding.difference(d) for d in compose.differences(left, came)]
        return lines[:_MOST_CHANGES]

    def _mask_plan(self) -> None:
        """With what was learnt since it was written."""
        path = self.draft / "plan.json"
        with suppress(FileNotFoundError):
            plan = self.witness.hiding.document(json.loads(path.read_text(encoding="utf-8")))
            incidents.put(path, json.dumps(plan, indent=1).encode())

    def _hooks(self) -> list[dict[str, Any]]:
        """Every hook that was run, or begun, in order."""
        runs = [run.model_dump(mode="json") for run in self.intent.hooks.values()]
        return [dict(self.witness.hiding.document(run)) for run in runs]

    def _files(self) -> list[str]:
        found = (str(p.relative_to(self.draft)) for p in sorted(self.draft.rglob("*.*")))
        return [name for name in found if name not in _OWN_FILES]

    # the parts ----------------------------------------------------------------------------------

    @cached_property
    def witness(self) -> Witness:
        return Witness(self.docker, Hiding(self.stack, list(self.records.values())))

    @cached_property
    def _known(self) -> State:
        """The ledger as it was when this was first asked: reading it takes long."""
        return self.catalog.state()

    def _look(self, moment: str, worlds: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
        """How worlds stand now, with their inspects in files of their own."""
        seen = {world: self.witness.look(world) for world in worlds}
        for world, containers in seen.items():
            inspects = [found.pop("inspect") for found in containers]
            if inspects:
                self._put(f"inspect/{moment}-{world}.json", inspects)
        places = {"releases": self.catalog.root, "store": self.stack.store}
        info = self.witness.told("docker info", lambda: self.docker.info)
        host = hostfacts.look(places | ({"docker": info.root} if info is not None else {}))
        self._put(f"{moment}.json", {"at": clock.now("milliseconds"), "host": host, "worlds": seen})
        self._remember_events(worlds)
        return seen

    def _remember_events(self, worlds: Sequence[str]) -> None:
        """Docker forgets soon, so each look takes what there is; each event is kept once."""
        since = min(self._since(world) for world in worlds)
        found = self.witness.events(since, time.time(), self._is_ours)
        path = self.draft / "events.jsonl"
        with suppress(FileNotFoundError):
            found = path.read_text(encoding="utf-8").splitlines() + found
        unique = sorted(dict.fromkeys(found), key=lambda line: float(json.loads(line)["time"]))
        self._put("events.jsonl", "".join(f"{line}\n" for line in unique))

    def _is_ours(self, name: str) -> bool:
        """Containers, networks and volumes of both worlds, by their names."""
        worlds = [self._known.worlds[world] for world in self.records]
        return any(
            name.startswith((f"{w.name}-", f"{w.name}_")) or name in w.generations.values()
            for w in worlds
        )

    def _since(self, world: str) -> float:
        """When a world went live, or was meant to: in seconds since 1970."""
        if world == self.intent.from_world:
            for seq, outcome in reversed(self._known.outcomes):
                went_live = outcome.to_world == world and not isinstance(outcome, Reverted)
                if went_live and seq <= self.intent.head:
                    return _seconds(outcome.started or outcome.at)
            return 0.0
        return _seconds(self.intent.started)

    def _logs(self, seen: Mapping[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
        """The logs of all containers since the last switch, each with the same share of what the
        incident's limit leaves."""
        waiting = [(world, found) for world, each in seen.items() for found in each]
        left = max(0, self._limit - self._size()) * _COMPRESSED
        share = max(_LEAST_LOG, min(_MOST_LOG, left // max(1, len(waiting))))

        def one(entry: tuple[str, dict[str, Any]]) -> dict[str, Any] | None:
            world, found = entry
            since, name = self._since(world), f"logs/{world}/{found['name']}.log.gz"
            log = self.witness.log(found["id"], found["name"], since=since, limit=share)
            if log is None or not log.text or not self._put(name, log.text, compressed=True):
                return None
            return {
                "file": name,
                "world": world,
                "service": found["service"],
                "container": found["name"],
                "lines": log.text.count("\n"),
                "whole": log.whole,
            }

        return [told for told in in_parallel(one, waiting) if told is not None]

    def _copy_progress(self) -> None:
        said = ""
        for log in (*self.intent.earlier_logs, self.intent.log):
            with suppress(OSError):
                said += Path(log).read_text(encoding="utf-8", errors="replace")
        self._put("progress.jsonl", self.witness.hiding.text(said))

    def _copy_hooks(self) -> None:
        """All that the user's hooks said."""
        intent = self.intent
        path = hookrecord.log_path(self.catalog.logs(), intent.started, intent.to_world)
        with suppress(FileNotFoundError):
            said = path.read_text(encoding="utf-8", errors="replace")
            self._put("hooks.jsonl", self.witness.hiding.text(said))

    def _put(self, name: str, content: Any, *, compressed: bool = False) -> bool:
        """A file of the draft, unless the incident would be larger than it may be."""
        text = content if isinstance(content, str) else json.dumps(content, indent=1)
        body = gzip.compress(text.encode(), mtime=0) if compressed else text.encode()
        with self._guard:
            used = self._size() + len(body)
            if used > self._limit:
                self.missing.append(f"{name}: left out, the incident may have {self._limit} bytes")
                return False
            self._used = used
        incidents.put(self.draft / name, body)
        return True

    @property
    def _limit(self) -> int:
        return int(self.stack.settings.incidents.limit) - _OWN

    def _size(self) -> int:
        """Bytes of the draft; another process may have begun it."""
        if self._used is None:
            self._used = sum(p.stat().st_size for p in self.draft.rglob("*") if p.is_file())
        return self._used

    def _beside(self, work: Callable[[], object]) -> None:
        """In a thread of its own; what goes wrong there is noted."""

        def safely() -> None:
            mine = self._turn.acquire(timeout=_TURN_SECONDS)  # one that hangs keeps nobody
            try:
                self._tried(work)
            finally:
                if mine:
                    self._turn.release()

        self._looking = threading.Thread(target=safely, daemon=True)
        self._looking.start()

    def _tried(self, act: Callable[[], T]) -> T | None:
        """What it gives; what went wrong is noted."""
        try:
            return act()
        except Exception as error:
            said = getattr(error, "message", None) or f"{type(error).__name__}: {error}"
            self.missing.append(self.witness.hiding.text(str(said)))
            return None


def keep(stack: Stack, catalog: Catalog, docker: Docker, world: str) -> None:
    """Before a world is removed: write logs/worlds/WORLD.json and the log of each container beside
    it, without secrets. What cannot be read or written is left out."""
    with suppress(OSError):
        folder = catalog.logs() / "worlds"
        record = None
        with suppress(LockstepError, KeyError):
            record = catalog.record(catalog.state().worlds[world].release)
        witness = Witness(docker, Hiding(stack, [record]))
        containers = []
        for found in witness.look(world):
            log = witness.log(found["id"], found["name"], since=0.0, limit=_MOST_LOG)
            if log is None:
                continue
            incidents.put(folder / f"{found['name']}.log", log.text.encode())
            del found["inspect"]
            containers.append({**found, "log": f"{found['name']}.log"})
        if containers:
            document = {
                "schema": 1,
                "world": world,
                "removed": clock.now(),
                "containers": containers,
            }
            incidents.put(folder / f"{world}.json", json.dumps(document, indent=2).encode())


def _seconds(at: str) -> float:
    with suppress(ValueError):
        return datetime.fromisoformat(at).timestamp()
    return 0.0
