"""Documents of the commands that move the host, and of those that show it beforehand or after."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from cli.shapes.shape import At, Bytes, Counts, Document, Number, Seconds, Shape
from reconciler.gates.results import GateResult
from reconciler.records.hookrecord import HookRun

MoveName = Literal["stay", "first", "adopt", "forward", "back", "refresh", "repair"]
ActionName = Literal["fork", "attach", "restore", "create", "in-place", "leave"]

ResultName = Literal[
    "committed", "reverted", "recovered", "nothing-to-do", "refused", "declined", "unfinished",
    "failed",
]  # fmt: skip


class Refusal(Shape):
    message: str
    remedy: str = Field(description="what allows it")
    exit_code: Number


class Story(Shape):
    title: str
    parts: dict[str, list[str]] = Field(description="what a part is about -> its lines")


class MovedDataset(Shape):
    action: ActionName
    generation: str | None = Field(description="the volume that the live world has now")
    sealed: str | None = Field(description="the volume that this switch sealed")
    snapshot: str | None = Field(description="of what was sealed, as far as the store has it")
    set_aside: Counts = Field(description="what the sealed data has more than the live one")
    brought_back_by: str | None = Field(description="the command for what is set aside")


class Debt(Shape):
    release: str
    dataset: str


class Moved(Document):
    """`up`, `rollback` and `undo`: how it ended, as the ledger has it."""

    command: Literal["up", "rollback", "undo"]
    result: ResultName = Field(
        description="unfinished: a switch goes on by itself, or has to be recovered"
    )
    exit_code: Number = Field(description="the command's own (docs/exit-codes.md)")
    error: str | None = Field(description="what kept it from exit code 0, and what to type next")
    move: MoveName | None = Field(description="null: it was not decided")
    from_: str | None = Field(description="the release that was live")
    to: str | None = Field(description="the release that was to be live")
    live: str | None = Field(description="the release that is live now")
    world: str | None = Field(description="its world")
    downtime_seconds: Seconds | None = Field(description="null: nothing stood still, or unknown")
    expected_downtime_seconds: Seconds | None
    seconds: Seconds = Field(description="of the whole command")
    steps: dict[str, float] = Field(description="step of the switch -> seconds")
    datasets: dict[str, MovedDataset]
    gates: list[GateResult]
    hooks: list[HookRun]
    warnings: list[str] = Field(description="of the plan, as the preview shows them")
    refusals: list[Refusal]
    debts: list[Debt] = Field(description="sealed data that is not in the store yet")
    reason: str = Field(description="why it was reverted")
    operator_reason: str
    story: Story | None = Field(description="reverted: what failed, was put back, is to be done")
    incident: str | None = Field(description="its id: lockstep incident show ID")
    logs: list[str] = Field(description="files of the switch's own log, below the project")


class Stopped(Document):
    """`stop`."""

    containers: Number = Field(description="how many were stopped")
    live: str | None = Field(description="the release that `lockstep up` starts again")
    reason: str


class RemovedStack(Document):
    """`remove`: all by full names."""

    stack: str
    containers: list[str]
    networks: list[str]
    volumes: list[str]
    tags: list[str]
    unsaved: list[str] = Field(description="volumes that held the live data")
    stays: list[str] = Field(description="what is not the stack's own")
    kept: list[str] = Field(description="folders with records, ledger and snapshots")


class Recovered(Document):
    """`recover`."""

    unfinished: str | None = Field(
        None, description="the world that a switch found unfinished was to"
    )
    followed: bool = Field(False, description="it still ran, and was followed to its end")
    done: list[str] = Field(description="one sentence each; none: nothing was unfinished")
    live: str | None = Field(None, description="the release that is live now")
    world: str | None = None


class Image(Shape):
    from_: str | None
    to: str | None


class ServiceChange(Shape):
    service: str
    change: Literal["added", "removed", "changed"]
    image: Image | None
    definition: list[str] = Field(description="place: old -> new")


class EngineJump(Shape):
    dataset: str
    engine: str
    from_: str | None
    to: str | None
    major: bool


class Migrations(Shape):
    new: list[str]
    unknown_there: list[str] = Field(description="which only the release that runs has")
    altered: list[str]


class Count(Shape):
    now: int
    then: int | None
    estimated: bool


class PlannedDataset(Shape):
    action: ActionName
    source: str = Field(description="where its content comes from, in words")
    age_seconds: Seconds | None
    bytes: Bytes | None
    set_aside: Counts
    counts: dict[str, Count]
    brought_back_by: str | None


class Downtime(Shape):
    seconds: Seconds | None
    worst_seconds: Seconds | None
    measured_switches: Number
    guess: bool
    basis: str


class Disk(Shape):
    needed_bytes: Bytes
    free_bytes: Bytes
    store_free_bytes: Bytes


class Kept(Shape):
    release: str
    reasons: list[str]


class Preview(Document):
    """`preview` (docs/preview.md)."""

    move: MoveName
    says: str = Field(description="the move in one sentence")
    from_: str | None
    to: str | None
    services: list[ServiceChange]
    unchanged_services: list[str]
    other_changes: list[str]
    changed_files: list[str]
    engines: list[EngineJump]
    migrations: Migrations | None
    datasets: dict[str, PlannedDataset]
    downtime_estimate_seconds: Seconds | None
    downtime: Downtime
    disk: Disk
    hooks: list[str]
    owed: list[str] = Field(description="what an `up` makes good although it switches nothing")
    prune: list[str]
    keep: list[Kept]
    warnings: list[str]
    refusals: list[Refusal]


class LoggedDataset(Shape):
    action: str


class LogEntry(Shape):
    at: At
    who: str
    move: str
    from_: str | None
    to: str | None
    result: str
    reason: str
    downtime_seconds: Seconds | None
    datasets: dict[str, LoggedDataset]
    operator_reason: str
    incident: str | None
    gates: list[GateResult]
    hooks: list[HookRun]
    logs: list[str]


class Log(Document):
    """`log`: how every switch ended, newest first."""

    entries: list[LogEntry]
    restored_by_others: list[str]


class RehearsedDataset(Shape):
    action: str
    how: str
    bytes: Bytes | None
    seconds: Seconds
    before: Counts
    after: Counts
    differences: dict[str, list[int | None]] = Field(description="[live, copy]")


class LogErrors(Shape):
    count: Number
    last: list[str]


class RehearsedHook(Shape):
    name: str
    at: str
    of: str = Field(description="its service or dataset")
    result: str = Field(description="passed, failed, timed-out, held-back or not-reached")
    seconds: Seconds
    why: str = Field(description="why it was held back; else the last of what it said")
    output: str = Field(description="its last lines")


class Rehearsal(Document):
    """`rehearse`."""

    release: str
    live: str | None
    passed: bool
    problem: str
    refusals: list[str] = Field(description="what `up` would be refused for")
    hooks: list[RehearsedHook]
    hooks_not_run: list[str] = Field(description="names of those held back or not reached")
    steps: dict[str, float]
    datasets: dict[str, RehearsedDataset]
    services: dict[str, float] = Field(description="service -> seconds until it was ready")
    gates: list[GateResult]
    held_back: dict[str, str] = Field(description="service that was not started -> why")
    log_errors: dict[str, LogErrors]


class Spread(Shape):
    count: Number
    median: Seconds
    worst: Seconds
    total: Seconds


class Figures(Shape):
    switches: Number
    committed: Number
    reverted: Number
    recovered: Number
    success_rate: float | None
    repeats: Number
    seconds: Spread | None
    downtime_seconds: Spread | None
    missed_estimate_seconds: Spread | None
    set_aside_switches: Number
    set_aside: dict[str, Counts]
    written_by_failed: dict[str, Counts]


class Metrics(Document):
    """`metrics` (docs/report.md)."""

    stack: str
    live: str | None
    since: At | None
    until: At | None
    rollback_seconds: Spread | None
    interrupted: Number
    captures_owed: Number
    all: Figures
    moves: dict[str, Figures]
