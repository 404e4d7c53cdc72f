"""What is captured, forked and restored: each in three states, with 2 % churn between them.

States are built once and kept below the cache folder; a folder that is being built has another
name until it is whole.
"""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import images
from bench.errors import BenchError
from bench.machine import ask
from bench.work import bring

STATES = (1, 2, 3)
CHURN = 0.02
GIB = 1 << 30
MIB = 1 << 20
FILES = 100_000
SPARSE_BYTES = 100 * GIB
SPARSE_DATA = 256 * MIB
ROW_BYTES = 150  # of pgbench_accounts with its index
ROWS_PER_SCALE = 100_000
PAGE = 8192


@dataclass(frozen=True)
class Subject:
    """Data with a name, and how its states are made."""

    name: str
    title: str
    folder: Path
    build: Callable[[Path], None]
    """Makes state 1 in an empty folder."""
    churn: Callable[[Path, int], None]
    """Turns a copy of the state before into state `number`."""
    sparse: bool = False
    many: bool = False
    """So many files that removing them can take longer than what is measured: on the disk's own
    file system, if that discards what is freed. So they get one of its kind for themselves."""

    @property
    def kind(self) -> str:
        """`postgres`, `files` or `sparse`."""
        return self.name.partition("-")[0]

    def state(self, number: int) -> Path:
        """The folder of a state, which is built now if it is not there."""
        place = self.folder / f"state-{number}"
        if place.is_dir():
            return place
        unfinished = place.with_suffix(".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        if number == 1:
            unfinished.mkdir(parents=True)
            self.build(unfinished)
        else:
            bring(self.state(number - 1), unfinished)
            self.churn(unfinished, number)
        unfinished.rename(place)
        return place


# PostgreSQL ---------------------------------------------------------------------------------------


def postgres(cache: Path, size: int, owner: str) -> Subject:
    """A PostgreSQL data folder of about `size` bytes under pgbench's schema."""

    def build(folder: Path) -> None:
        with server(folder, size, owner) as container:
            _fill(container, rows_in(size) // ROWS_PER_SCALE)

    def churn(folder: Path, number: int) -> None:
        # Each transaction dirties about one page of the accounts, and one of the log.
        transactions = round(CHURN * size / PAGE / 2)
        with server(folder, size, owner) as container:
            _pgbench(container, "-n", "-t", str(transactions), "--random-seed", str(number))

    return Subject(
        name=f"postgres-{size // MIB}",
        title=f"PostgreSQL, {_in_words(size)}",
        folder=cache / f"postgres-{size // MIB}",
        build=build,
        churn=churn,
    )


def rows_in(size: int) -> int:
    """Rows of pgbench_accounts in a PostgreSQL folder of about `size` bytes."""
    scale = round((size - wal_bytes(size)) / (ROW_BYTES * ROWS_PER_SCALE))
    return max(1, scale) * ROWS_PER_SCALE


def wal_bytes(size: int) -> int:
    """How much write-ahead log a server keeps beside data of this size."""
    return min(max(size // 8, 64 * MIB), 256 * MIB)


def settings(size: int) -> list[str]:
    """The server's settings: those of a small production machine."""
    return [
        "-c", "shared_buffers=256MB", "-c", f"max_wal_size={wal_bytes(size) // MIB}MB",
        "-c", f"min_wal_size={max(32, wal_bytes(size) // 2 // MIB)}MB",
    ]  # fmt: skip


@contextmanager
def server(folder: Path, size: int, owner: str) -> Iterator[str]:
    """A Postgres on the data folder; the container's id. Stopped cleanly afterwards."""
    container = ask(
        "docker", "run", "--detach", "--label", images.label(owner), "--network", "none",
        "--env", f"POSTGRES_USER={images.USER}", "--env", f"POSTGRES_PASSWORD={images.PASSWORD}",
        "--volume", f"{folder}:/var/lib/postgresql/data", images.POSTGRES,
        "postgres", *settings(size),
    )  # fmt: skip
    try:
        _wait(container)
        yield container
        checkpoint = ["psql", "-U", images.USER, "-c", "checkpoint"]
        ask("docker", "exec", container, *checkpoint, seconds=600)
        ask("docker", "stop", "--time", "120", container, seconds=150)
    finally:
        ask("docker", "rm", "--force", "--volumes", container)


def _wait(container: str) -> None:
    """While the image makes the cluster, a server answers on the socket alone; so ask by TCP."""
    until = time.monotonic() + 120
    while True:
        try:
            ask("docker", "exec", container, "pg_isready", "-h", "127.0.0.1", "-U", images.USER)
            return
        except BenchError:
            if time.monotonic() > until:
                raise
            time.sleep(0.2)


def _fill(container: str, scale: int) -> None:
    """pgbench's tables, with a filler that compresses about 3:1 as rows do; its own is blanks."""
    _pgbench(container, "-i", "-q", "-I", "dt", "-s", str(scale))
    for table, columns, rows in (
        ("branches", "i, 0, null", scale),
        ("tellers", "i, (i-1)/10+1, 0, null", scale * 10),
        (
            "accounts",
            f"i, (i-1)/{ROWS_PER_SCALE}+1, 0, md5(random()::text)||md5(random()::text)",
            scale * ROWS_PER_SCALE,
        ),
    ):
        insert = f"insert into pgbench_{table} select {columns} from generate_series(1, {rows}) i"
        ask("docker", "exec", container, "psql", "-U", images.USER, "-qc", insert, seconds=900)
    _pgbench(container, "-i", "-q", "-I", "vp", "-s", str(scale))


def _pgbench(container: str, *words: str) -> None:
    ask("docker", "exec", container, "pgbench", "-U", images.USER, *words, images.USER, seconds=900)


# Files --------------------------------------------------------------------------------------------


def small_files(cache: Path, count: int) -> Subject:
    """Files of 0.2 to 16 KiB in folders of 200, of words like logs and invoices have."""

    def build(folder: Path) -> None:
        rng = random.Random(1)
        for number in range(count):
            place = _nth(folder, number)
            if number % 200 == 0:
                place.parent.mkdir(parents=True)
            place.write_bytes(_prose(rng, _size(rng)))

    def churn(folder: Path, number: int) -> None:
        """Half of it written anew, a quarter removed, a quarter added."""
        rng = random.Random(number)
        chosen = rng.sample(range(count), round(count * CHURN * 3 / 4))
        for at, which in enumerate(chosen):
            if at % 3 == 0:
                _nth(folder, which).unlink(missing_ok=True)
            else:
                _nth(folder, which).write_bytes(_prose(rng, _size(rng)))
        added = folder / f"added-{number}"
        added.mkdir()
        for which in range(len(chosen) // 3):
            (added / str(which)).write_bytes(_prose(rng, _size(rng)))

    return Subject(
        name=f"files-{count}",
        title=f"{count:,} small files".replace(",", " "),
        folder=cache / f"files-{count}",
        build=build,
        churn=churn,
        many=True,
    )


def _nth(folder: Path, number: int) -> Path:
    return folder / f"{number // 200:04}" / f"{number}.txt"


def _size(rng: random.Random) -> int:
    return int(200 * 2 ** (rng.random() * 6.3))


def _prose(rng: random.Random, size: int) -> bytes:
    """Half of it random hexadecimal, half the same words again and again: about 3:1."""
    line = b"invoice paid order customer %s\n"
    return b"".join(line % rng.randbytes(10).hex().encode() for _ in range(size // 48 + 1))[:size]


def sparse(cache: Path, size: int, data: int) -> Subject:
    """One file of `size` bytes with `data` bytes in it, in islands of 1 MiB far apart."""
    islands = max(1, data // MIB)

    def build(folder: Path) -> None:
        rng = random.Random(1)
        with (folder / "disk.img").open("wb") as file:
            file.truncate(size)
            for island in range(islands):
                file.seek(_island(size, islands, island))
                file.write(_prose(rng, MIB))

    def churn(folder: Path, number: int) -> None:
        rng = random.Random(number)
        with (folder / "disk.img").open("r+b") as file:
            for island in rng.sample(range(islands), max(1, round(islands * CHURN))):
                file.seek(_island(size, islands, island))
                file.write(_prose(rng, MIB))

    return Subject(
        name=f"sparse-{size // GIB}",
        title=f"a sparse file of {_in_words(size)} with {_in_words(data)} of data",
        folder=cache / f"sparse-{size // GIB}",
        build=build,
        churn=churn,
        sparse=True,
    )


def _island(size: int, islands: int, number: int) -> int:
    return size // islands * number // MIB * MIB


def _in_words(size: int) -> str:
    return f"{size / GIB:g} GiB" if size >= GIB else f"{size // MIB} MiB"
