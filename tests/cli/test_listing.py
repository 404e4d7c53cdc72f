"""`list` with its index says what it says without one, whatever became of the files below it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from blake3 import blake3

from cli import listing
from cli.listing import Listing
from reconciler.catalog import TICK, Catalog
from reconciler.config import Settings, Stack
from reconciler.errors import CatalogDamaged
from reconciler.records import ledger, trust
from reconciler.records.ledger import GENESIS, AnyEvent, Pruned, Stopped
from tests.reconciler import ledgers

AT = "2026-11-20T10:00:00+00:00"
HISTORY = ledgers.many(24)


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    """Records, ledger and manifest of a history."""
    made = Catalog(Stack(project="shop", name="prod", root=tmp_path, settings=Settings()))
    made.root.mkdir(mode=0o700)
    for name, record in HISTORY.records.items():
        if name not in HISTORY.state.pruned:
            made.path(name).parent.mkdir()
            made.path(name).write_text(record.model_dump_json(indent=2))
    chain, lines = GENESIS, []
    for seq, event in enumerate(HISTORY.events, start=1):
        line, chain = ledger.written(event, seq, chain)
        lines.append(line)
    made.ledger.path.write_bytes(b"".join(lines))
    made.write_manifest()
    return made


def index(catalog: Catalog) -> Path:
    return catalog.root / "index-prod.jsonl"


def listed(catalog: Catalog, newest: int | None = None) -> Listing:
    """As `list` does it, in a process that has read nothing yet."""
    again = Catalog(catalog.stack)
    return listing.indexed(again, newest) or listing.made(again, newest)


def warm(catalog: Catalog, newest: int | None = None) -> Listing:
    """Its index is there, and good."""
    time.sleep(2 * TICK / 1e9)
    before = listed(catalog, newest)
    assert listing.indexed(catalog, newest) == before
    return before


def without_index(catalog: Catalog, newest: int | None = None) -> Listing:
    path, aside = index(catalog), index(catalog).with_suffix(".aside")
    if path.exists():
        path.rename(aside)
    try:
        return listing.made(Catalog(catalog.stack), newest)
    finally:
        path.unlink(missing_ok=True)
        if aside.exists():
            aside.rename(path)


def edited(path: Path, before: str, after: str) -> None:
    """In place, as an editor may: the same file, of the same length."""
    with path.open("r+") as file:
        text = file.read()
        file.seek(0)
        file.write(text.replace(before, after, 1))


def a_record(catalog: Catalog, random: Random) -> Path:
    return catalog.path(random.choice(catalog.recorded()))


def appended(catalog: Catalog, random: Random) -> None:
    events: list[AnyEvent] = [Stopped(at=AT), Pruned(at=AT, release=catalog.recorded()[0])]
    catalog.ledger.append(random.choice(events))


def described_otherwise(catalog: Catalog, random: Random) -> None:
    edited(a_record(catalog, random), "Change", random.choice(["Chance", "Orange", "Range!"]))


def damaged(catalog: Catalog, random: Random) -> None:
    a_record(catalog, random).write_text("{")


def times_put_back(catalog: Catalog, random: Random) -> None:
    path = a_record(catalog, random)
    old = path.stat()
    edited(path, "Change", "Hidden")
    os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns))


def removed(catalog: Catalog, random: Random) -> None:
    a_record(catalog, random).unlink()


def copied(catalog: Catalog, random: Random) -> None:
    (catalog.root / "prod-999").mkdir(exist_ok=True)
    catalog.path("prod-999").write_bytes(a_record(catalog, random).read_bytes())


def manifest_lost(catalog: Catalog, _: Random) -> None:
    catalog.manifest.unlink(missing_ok=True)


def index_cut(catalog: Catalog, random: Random) -> None:
    content = index(catalog).read_bytes()
    index(catalog).write_bytes(content[: random.randrange(len(content))])


def index_changed(catalog: Catalog, random: Random) -> None:
    content = bytearray(index(catalog).read_bytes())
    content[random.randrange(len(content))] ^= 1 << random.randrange(8)
    index(catalog).write_bytes(content)


def index_of_few(catalog: Catalog, random: Random) -> None:
    index(catalog).unlink()
    listing.made(catalog, random.randrange(1, 5))


HAPPENINGS: list[Callable[[Catalog, Random], None]] = [
    appended, described_otherwise, times_put_back, removed, copied, damaged,
    manifest_lost, index_cut, index_changed, index_of_few,
]  # fmt: skip


@pytest.mark.parametrize("seed", range(3))
def test_with_the_index_it_says_what_it_says_without(catalog: Catalog, seed: int) -> None:
    random = Random(seed)
    for happens in random.sample(HAPPENINGS, len(HAPPENINGS)):
        catalog.write_manifest()
        warm(catalog)
        happens(catalog, random)
        for newest in (None, 3, 1000):
            assert listed(catalog, newest) == without_index(catalog, newest), happens.__name__


def test_it_is_there_for_as_many_as_were_asked_for(catalog: Catalog) -> None:
    few = warm(catalog, 5)
    assert [e.document["release"] for e in few.entries] == [f"prod-{n:03d}" for n in range(20, 25)]
    assert few.count == 24
    assert listing.indexed(catalog, 6) is None
    assert listing.indexed(catalog, None) is None
    whole = warm(catalog)
    assert listing.indexed(catalog, 5) == few
    assert whole.entries[-5:] == few.entries
    assert oct(index(catalog).stat().st_mode & 0o777) == "0o600"


def test_an_index_of_elsewhere_is_none(catalog: Catalog, tmp_path: Path) -> None:
    warm(catalog)
    elsewhere = tmp_path / "elsewhere"
    os.mkdir(elsewhere)
    (catalog.root).rename(elsewhere / "releases")
    stack = catalog.stack.model_copy(update={"root": elsewhere})
    assert listing.indexed(Catalog(stack), 1) is None


@pytest.mark.parametrize("content", [b"", b"\n", b"null\n", b"[1]\n{}\n", b'{"of": 1}\n', b"\xff"])
def test_what_is_no_index_is_none(catalog: Catalog, content: bytes) -> None:
    index(catalog).write_bytes(content)
    assert listing.indexed(catalog, 1) is None


def test_what_was_tampered_with_is_found_below_an_index(catalog: Catalog) -> None:
    warm(catalog)
    good = catalog.ledger.path.read_bytes()
    edited(catalog.ledger.path, "prod-003", "prod-004")
    with pytest.raises(CatalogDamaged, match="was altered"):
        listed(catalog)
    with pytest.raises(CatalogDamaged, match="was altered"):
        Catalog(catalog.stack).state()
    catalog.ledger.path.write_bytes(good[: good.rindex(b"\n", 0, -1) + 1])
    assert listed(catalog) == without_index(catalog)


def test_whoever_acts_does_not_read_it(catalog: Catalog) -> None:
    """An index that says of a forged record what the true one said deceives `list` alone."""
    name = catalog.recorded()[1]
    head = trust.head(catalog, trust.Found())
    edited(catalog.path(name), "Change", "Forged")
    warm(catalog)
    lines = index(catalog).read_text().replace("Forged", "Change").splitlines(keepends=True)
    about = json.loads(lines[0])
    about["content"] = blake3("".join(lines[1:]).encode()).hexdigest()
    index(catalog).write_text(json.dumps(about) + "\n" + "".join(lines[1:]))
    assert "Forged" not in str(listed(catalog))
    again = Catalog(catalog.stack)
    assert again.record(name).description.startswith("Forged")
    assert name in trust.examine(head, again, again.state(), None).records
