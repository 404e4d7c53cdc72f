"""Documents about releases: what they are, which are kept, and one as a file."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from cli.shapes.moves import Story
from cli.shapes.shape import At, Bytes, Counts, Document, Seconds, Shape
from reconciler.gates.results import GateResult
from reconciler.records.release import Release


class Name(Shape):
    """All that is left of a release that was pruned."""

    name: str


class New(Document, Release):
    """`new`: the whole record."""

    model_config = ConfigDict(extra="ignore")

    warnings: list[str]


class Listed(Shape):
    release: str
    status: Literal["live", "removed", "previous", "kept", "failed", "pruned"] = Field(
        description="removed: it was live until `remove` took the stack out of Docker"
    )
    created: At | None
    description: str
    git_commit: str
    images: dict[str, str] = Field(description="service -> tag")
    bytes: Bytes = Field(description="of its images")
    quarantined: str | None = Field(description="how it failed its proof, until that is answered")
    unusable: str = Field("", description="what is damaged or missing; only then it is there")


class Releases(Document):
    """`list`, oldest first."""

    live: str | None
    releases: list[Listed]


class World(Shape):
    world: str
    state: str
    failed: str | None
    generations: dict[str, str]


class Departure(Shape):
    at: At
    world: str
    failed: bool
    generations: dict[str, str]
    snapshots: dict[str, str]
    counts: dict[str, Counts]


class LastDrill(Shape):
    when: At
    at: str
    passed: bool
    seconds: Seconds


class IncidentOf(Shape):
    incident: str
    at: At
    result: str
    reason: str


class Info(Document):
    """`info`."""

    release: Release | Name
    status: str
    kept_because: list[str]
    worlds: list[World]
    departures: list[Departure]
    drill: LastDrill | None
    gates: list[GateResult] = Field(description="of the last switch to it")
    story: Story | None = Field(description="of that switch, where it was reverted")
    incidents: list[IncidentOf]


class Diff(Document):
    """`diff`."""

    from_: str
    to: str
    differences: list[str]


class Pins(Document):
    """`pin` and `unpin`."""

    pinned: list[str]


class Fate(Shape):
    kind: Literal["release", "world", "generation", "snapshot", "image", "incident"]
    name: str
    goes: bool
    why: str
    bytes: Bytes | None


class Prune(Document):
    """`prune`: everything there is."""

    things: list[Fate]


class Exported(Document):
    """`export`."""

    file: str
    bytes: Bytes
    release: str
    departure: dict[str, str] = Field(description="dataset -> snapshot")
    arrival: dict[str, str] = Field(description="dataset -> snapshot")
    images: list[str]
    encrypted: bool
    left_out: dict[str, str] = Field(description="dataset -> why")


class Imported(Document):
    """`import`."""

    release: str
    origin: str
    departure: dict[str, str] = Field(description="dataset -> snapshot")
    arrival: dict[str, str] = Field(description="dataset -> snapshot")
    warnings: list[str]
