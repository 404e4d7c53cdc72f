"""Documents about the host, its incidents and notifications, and Pulumi's stack."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from cli.shapes.shape import At, Bytes, Counts, Document, Number, Seconds, Shape
from reconciler.notifications.notifylog import Entry
from reconciler.records.hookrecord import HookRun
from reconciler.records.ledger import Committed, Reverted
from reconciler.records.release import Git


class InitDataset(Shape):
    name: str
    mounts: list[str] = Field(description="service:path")
    driver: str
    driver_because: str
    strategy: Literal["fork", "in-place", "shared"]
    strategy_says: str


class InitProof(Shape):
    by: list[str] = Field(description="services with a health check or a gate")
    says: list[str]


class InitRoom(Shape):
    root: str = Field(description="Docker's folder")
    file_system: str
    free: Bytes
    data: Bytes = Field(description="what the data takes now")
    clones: bool = Field(description="whether files can be cloned (reflinks)")
    tried: bool = Field(description="false: only told from the file system's name")
    store: str
    store_free: Bytes


class InitMade(Shape):
    file: str = Field(description="below the folder")
    says: str = Field(description="what was made there, and why")


class Initialized(Document):
    """`init`: what it found, what it proposes with reasons, and what it wrote."""

    project: str
    stack: str
    folder: str
    compose_file: str | None
    services: list[str]
    datasets: list[InitDataset]
    proof: InitProof = Field(description="what will prove a release")
    room: InitRoom | None
    running: list[str] = Field(description="containers of the plain compose project")
    adopts: str | None = Field(description="the release as which the first `up` adopts them")
    warnings: list[str]
    made: list[InitMade] = Field(description="none: everything was there already")
    left_out: list[str] = Field(description="of the container of --from-container")
    next: list[str] = Field(description="what to type next")


class GuardLine(Document):
    """`guard`: a line for each thing that it finds or does; with --once exactly one."""

    at: At
    stack: str
    event: Literal["watching", "well", "repaired", "waiting", "failed", "ended"]
    found: str | None = Field(description="what was wrong")
    done: list[str] = Field(description="what was done about it, one sentence each")
    says: str = Field(description="the line that a person gets")
    exit_code: Number = Field(description="with --once the command's own (docs/exit-codes.md)")


class Check(Shape):
    check: str
    level: Literal["ok", "warning", "failed"]
    text: str
    remedy: str


class Doctor(Document):
    """`doctor`."""

    sound: bool
    checks: list[Check]


class Cancelled(Document):
    """`cancel`."""

    stack: str
    host_held_by: str | None = Field(description="what still works on this host")


class IncidentSummary(Shape):
    id: str
    at: At
    kind: Literal["reverted", "rollback", "undo"]
    asked: str = Field(description="the command that asked for the switch")
    who: str
    operator_reason: str
    reason: str
    move: str
    downtime_seconds: Seconds | None
    from_: str | None
    to: str | None
    live: str | None
    bytes: Bytes
    folder: str
    kept_because: list[str]


class Incidents(Document):
    """`incident list`, newest first."""

    incidents: list[IncidentSummary]
    damaged: dict[str, str] = Field(description="id -> why it cannot be read")


class Place(Shape):
    world: str | None
    release: str | None


class IncidentData(Shape):
    dataset: str
    world: str
    generation: str | None
    counts: Counts
    snapshot: str | None
    command: str | None = Field(description="brings it back beside the running service")


class IncidentLog(Shape):
    file: str
    world: str
    service: str
    container: str
    lines: Number
    whole: bool


class IncidentHost(Shape):
    name: str
    folder: str = Field(description="of the project")


class IncidentRelease(Shape):
    description: str
    created: At
    created_by: str
    git: Git
    images: dict[str, str] = Field(description="service -> its image and the image's id")


class Remark(Shape):
    at: At
    who: str
    text: str


class Incident(Document):
    """`incident show`: incident.json, with where it is and what people added."""

    id: str
    project: str
    stack: str
    seq: int = Field(description="of the outcome in the ledger")
    kind: Literal["reverted", "rollback", "undo"]
    asked: str
    at: At
    started: At
    who: str
    operator_reason: str
    reason: str
    move: str
    from_: Place
    to: Place
    live: Place
    subject: Place = Field(description="the world that failed, or was left")
    interrupted: bool
    downtime_seconds: Seconds | None
    quarantined: bool
    data: list[IncidentData] = Field(description="what that world had written")
    outcome: Annotated[Committed | Reverted, Field(discriminator="kind")]
    host: IncidentHost | None = None
    releases: dict[str, IncidentRelease] = Field({}, description="those it went from and to")
    changes: list[str] = Field([], description="how the second differs from the first")
    hooks: list[HookRun] = Field([], description="every hook that was run, or begun")
    logs: list[IncidentLog]
    limit_bytes: Bytes
    log_lines: Number
    missing: list[str] = Field(description="what could not be gathered, and why")
    files: list[str]
    folder: str
    remarks: list[Remark]


class IncidentExport(Document):
    """`incident export`."""

    incident: str
    file: str
    bytes: Bytes


class IncidentNote(Document, Remark):
    """`incident note`."""

    incident: str


class Notifications(Document):
    """`notify test` and `notify log`."""

    entries: list[Entry]


class Report(Document):
    """`report`."""

    path: str
    bytes: Bytes


class Serve(Document):
    """`serve`."""

    url: str


class Config(Document):
    """`config`: every value by its full key; a secret is masked unless it was asked for."""

    config: dict[str, Any]


class ConfigValue(Document):
    """`config get`."""

    value: Any


class ConfigChange(Document):
    """`config set` and `config rm`."""

    key: str
    secret: bool
    old: Any = Field(description="null: it was not set; a secret is masked")
    new: Any = Field(description="null: it was removed; a secret is masked")
    warnings: list[str] = Field(description="what `up` refuses until more is said")


class SchemaNames(Document):
    """`schema` without a name."""

    names: list[str]


class Completion(Document):
    """`completion`."""

    shell: Literal["bash", "zsh", "fish"]
    file: str = Field(description="where the shell reads it from, for everybody on the host")
    script: str


class Update(Shape):
    at: str
    kind: str
    result: str
    release: str | None
    message: str
    changes: dict[str, int]


class StackHistory(Document):
    """`stack history`, newest first."""

    entries: list[Update]


class StackOutput(Document):
    """`stack output`."""

    outputs: dict[str, Any]


class KnownStack(Shape):
    stack: str
    chosen: bool


class Stacks(Document):
    """`stack ls`."""

    stacks: list[KnownStack]


class Version(Document):
    """`version`."""

    lockstep: str | None
    engine: str
    python: str
