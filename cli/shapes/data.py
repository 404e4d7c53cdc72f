"""Documents about data: snapshots, the store, and whether it would come back."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from cli.shapes.shape import At, Bytes, Counts, Document, Number, Seconds, Shape


class Snapshot(Shape):
    snapshot: str = Field(description="its id")
    name: str
    created: At
    bytes: Bytes
    files: Number
    tags: dict[str, str]
    skipped: list[str] = Field(description="what was not captured, and why")


class Created(Document, Snapshot):
    """`snapshot create`."""


class Snapshots(Document):
    """`snapshot list`, newest first."""

    snapshots: list[Snapshot]
    damaged: list[str] = Field(description="records that cannot be read")


class Restored(Document):
    """`snapshot restore`."""

    snapshot: str
    target: str
    files: Number
    bytes_written: Bytes
    seconds: Seconds


class Removed(Document):
    """`snapshot rm`."""

    removed: list[str]
    bytes_freed: Bytes


class Backup(Shape):
    snapshot: str | None
    bytes: Bytes | None
    why_not: str = Field(description="why it could not be taken without a stop")


class Live(Document):
    """`snapshot`: of the live world."""

    release: str
    world: str
    datasets: dict[str, Backup]


class Damage(Shape):
    """What one cause does to one dataset."""

    dataset: str = Field(description='"": no snapshot that was checked needs it')
    snapshots: list[str] = Field(description="ids of all that it touches")
    files: list[str] = Field(description="paths of all that it touches; none: the whole snapshots")
    reason: str
    blocks: Number = Field(description="how many it concerns; 0: it is not about blocks")
    elsewhere: bool = Field(description="another pack of the store has all of them whole")
    releases: dict[str, list[str]] = Field(
        description='release -> what the snapshots are to it (left, started from, backup); "": '
        "what they were taken of, without a release"
    )
    still_in_volume: list[str] = Field(
        description="sealed volumes that hold exactly what a snapshot was taken of"
    )
    may_be_in: list[str] = Field(
        description="other folders at rest (sealed volumes of the dataset, what was captured "
        "without a release) where repair looks for content of the same hash"
    )


class Verified(Document):
    """`verify`."""

    sound: bool
    read_data: bool = Field(description="whether every byte was read, not only what is there")
    snapshots: list[str] = Field(description="ids checked")
    missing: list[str] = Field(description="ids that releases need and the store has not")
    bytes_read: Bytes
    seconds: Seconds
    damages: list[Damage]


class Repaired(Document):
    """`repair`."""

    mended: list[str] = Field(description="one sentence each")
    blocks: Number = Field(description="written anew, or proved to lie elsewhere")
    unmended: list[Damage]
    aside: list[str] = Field(description="damaged packs that were kept: nothing reads them")
    seconds: Seconds


class Drilled(Shape):
    driver: str
    snapshot: str | None
    engine: str | None = Field(description="the service that was started on it")
    bytes: Bytes
    seconds: dict[str, float] = Field(description="restore, start, ready, probe")
    recorded: Counts
    counts: Counts
    sums: Counts
    problems: list[str]


class Drill(Document):
    """`drill`."""

    release: str
    at: str
    passed: bool
    seconds: Seconds
    datasets: dict[str, Drilled]


class Encrypted(Document):
    """`encrypt`."""

    store: str
    was_there: bool = Field(description="false: it will be encrypted from its beginning")
    passphrase: Literal["new", "kept"] = Field(description="the config's `encryption`")


class Rekeyed(Document):
    """`rekey`: the config's `encryption` is the new passphrase."""

    store: str
