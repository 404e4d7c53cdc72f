"""Snapshots without a release: real folders, real volumes, a real Redis."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cli import main
from snapshots.compare import tree_equal
from snapshots.pack import read_index
from snapshots.reading import FileReader
from snapshots.store import Store
from tests.stacks.harness import Ran, base_image, docker

LABEL = "lockstep.test.alone"


@dataclass
class Command:
    """`lockstep` outside every stack's folder, with a store of its own."""

    folder: Path
    capsys: pytest.CaptureFixture[str]

    def run(self, *args: str, code: int | None = 0) -> Ran:
        ended = main.main(["-C", str(self.folder), *args])
        shown = self.capsys.readouterr()
        ran = Ran(args, ended, shown.out, shown.err)
        assert code in (None, ran.code), f"{args}: {ran.code}\n{ran.text}"
        return ran

    def create(self, *args: str) -> str:
        return str(self.run("snapshot", "create", *args, "--json").json()["snapshot"])


@pytest.fixture
def command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Command:
    monkeypatch.setenv("LOCKSTEP_STORE", str(tmp_path / "store"))
    (tmp_path / "wiki" / "pages").mkdir(parents=True)
    (tmp_path / "wiki" / "pages" / "home").write_text("welcome\n")
    (tmp_path / "wiki" / "index").write_bytes(os.urandom(100_000))
    return Command(tmp_path, capsys)


@pytest.fixture
def volume() -> Iterator[str]:
    name = f"lockstep-test-{uuid.uuid4().hex[:8]}"
    docker("volume", "create", "--label", f"{LABEL}={name}", name)
    try:
        yield name
    finally:
        for container in docker("ps", "-aq", "--filter", f"label={LABEL}={name}").split():
            docker("rm", "--force", container)
        docker("volume", "rm", "--force", name, f"{name}-again")


def redis_on(volume: str) -> str:
    """A running Redis; its name."""
    name = f"{volume}-redis"
    docker(
        "run", "-d", "--name", name, "--label", f"{LABEL}={volume}", "--network", "none",
        "-v", f"{volume}:/data", base_image("redis:7"),
    )  # fmt: skip
    for _ in range(100):
        if "PONG" in docker("exec", name, "redis-cli", "ping", check=False):
            return name
        time.sleep(0.1)
    raise AssertionError(docker("logs", name))


def test_a_folder_there_and_back_without_release_and_pulumi(command: Command) -> None:
    wiki, again = command.folder / "wiki", command.folder / "again"
    first = command.create("./wiki")
    (wiki / "pages" / "home").write_text("rewritten\n")
    second = command.create("wiki/", "--name", "the wiki")
    listed = command.run("snapshot", "list", "--json").json()["snapshots"]
    assert [(s["snapshot"], s["name"]) for s in listed] == [(second, "the wiki"), (first, "wiki")]
    assert listed[0]["tags"]["of"] == str(wiki)
    shown = command.run("snapshot", "list").out
    assert first[:12] in shown
    assert command.run("verify", "--read-data", "--json").json()["sound"] is True

    command.run("snapshot", "restore", second[:8], "./again")
    assert tree_equal(wiki, again) == []
    assert "not empty" in command.run("snapshot", "restore", first, "./again", code=1).err
    assert "--yes" in command.run("snapshot", "restore", first, "again/", "--in-place", code=2).err
    back = command.run("snapshot", "restore", first, "again/", "--in-place", "--yes", "--json")
    assert back.json()["bytes_written"] <= len("welcome\n"), "only what differs is written"
    assert (again / "pages" / "home").read_text() == "welcome\n"

    part = command.folder / "part"
    command.run("snapshot", "restore", second, "./part", "--path", "pages/home")
    assert [path.relative_to(part) for path in part.rglob("*") if path.is_file()] == [
        Path("pages/home")
    ]
    unknown = command.run("snapshot", "restore", second, "./x", "--path", "pages/nothing", code=1)
    assert "pages/nothing" in unknown.err

    assert "--yes" in command.run("snapshot", "rm", second, code=2).err
    command.run("snapshot", "rm", second[:10], "--yes")
    assert [
        s["snapshot"] for s in command.run("snapshot", "list", "--json").json()["snapshots"]
    ] == [first]
    assert command.run("verify", "--read-data", "--json").json()["sound"] is True


def test_a_folder_is_one_also_where_the_command_is_typed(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen from the working directory itself, ./wiki must not become the volume wiki."""
    monkeypatch.chdir(command.folder)
    command.folder = Path()
    snapshot = command.create("./wiki")
    command.run("snapshot", "restore", snapshot, "./again")
    assert tree_equal(Path("wiki"), Path("again")) == []
    (listed,) = command.run("snapshot", "list", "--json").json()["snapshots"]
    assert listed["tags"]["of"] == str(Path("wiki").resolve())


def test_paranoid_reads_also_what_seems_unchanged(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    time.sleep(0.1)  # what changed a moment ago is read again in any case
    first = command.create("./wiki")
    read: list[bytes] = []
    small = FileReader.small

    def seen(self: FileReader, dir_fd: int, folder: bytes, name: bytes, size: int) -> None:
        read.append(name)
        small(self, dir_fd, folder, name, size)

    monkeypatch.setattr(FileReader, "small", seen)
    store = Store.open(command.folder / "store")
    second = command.create("./wiki")
    assert read == []
    third = command.create("./wiki", "--paranoid")
    assert sorted(read) == [b"home", b"index"]
    assert len({store.read(each).root for each in (first, second, third)}) == 1


def flip_bits(command: Command) -> None:
    """One bit of every block."""
    for pack in (command.folder / "store" / "packs").glob("*.pack"):
        content = bytearray(pack.read_bytes())
        for placed in read_index(pack, pack.stem):
            content[placed.offset + placed.stored // 2] ^= 0x10
        pack.write_bytes(content)


def test_damage_is_told_and_mended_from_the_folder_at_rest(command: Command) -> None:
    snapshot = command.create("./wiki")
    flip_bits(command)
    assert "nothing is damaged" in command.run("verify").out, "what is there is not read"
    ran = command.run("verify", "--read-data", code=7)
    assert "wiki index" in ran.out
    assert "lockstep repair" in ran.err
    assert f"perhaps in {command.folder / 'wiki'}" in " ".join(ran.out.split())
    damages = command.run("verify", "--read-data", "--json", code=7).json()["damages"]
    assert {tuple(d["may_be_in"]) for d in damages} == {(str(command.folder / "wiki"),)}
    assert command.run("snapshot", "restore", snapshot, "./again", code=7).err
    assert command.run("repair", "--json").json()["blocks"] == 3
    command.run("verify", "--read-data")
    command.run("snapshot", "restore", snapshot, "./again", "--in-place", "--yes")
    assert tree_equal(command.folder / "wiki", command.folder / "again") == []

    (command.folder / "wiki" / "index").unlink()
    flip_bits(command)
    ran = command.run("repair", code=7)
    assert "wiki index" in ran.out
    assert "kept aside" in ran.out


def test_files_that_would_be_no_use_are_not_captured(command: Command) -> None:
    server = command.folder / "server"
    (server / "global").mkdir(parents=True)
    (server / "global" / "pg_control").write_bytes(bytes(8192))
    (server / "PG_VERSION").write_text("15\n")
    (server / "pg_wal").symlink_to(command.folder / "wiki")
    create = ("snapshot", "create", "./server", "--driver", "postgres")
    assert "outside" in command.run(*create, code=3).err
    (server / "pg_wal").unlink()
    (server / "pg_wal").mkdir()
    live = command.run(*create, "--live", code=3)
    assert "no container runs" in live.err
    assert "--driver directory" in live.err
    command.create("./server", "--live", "--driver", "directory")
    command.run(*create)
    (newest, _) = command.run("snapshot", "list", "--json").json()["snapshots"]
    assert newest["tags"]["driver"] == "postgres"


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("create", "nothing-of-that-name"), 2, "docker volume ls"),
        (("create", "./nothing"), 2, "no folder"),
        (("create", "./wiki", "--driver", "oracle"), 1, "there is no driver"),
        (("create", "./wiki", "--container", "nobody"), 2, "no running container nobody"),
        (("create", "./wiki", "--store", "./wiki/store"), 1, "lie in each other"),
        (("restore", "abc", "./x"), 2, "no snapshot begins so"),
        (("restore", "0" * 32, "./x"), 2, "no snapshot begins so"),
        (("restore", "0" * 32, "./x", "--store", "/nowhere"), 1, "no store"),
        (("rm", "0" * 32, "--yes"), 2, "lockstep snapshot list"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_done_is_said(
    command: Command, words: tuple[str, ...], code: int, says: str
) -> None:
    command.create("./wiki")
    assert says in command.run("snapshot", *words, code=code).err


def test_a_running_engine_is_captured_by_its_driver(command: Command, volume: str) -> None:
    server = redis_on(volume)
    docker("exec", server, "redis-cli", "set", "cup", "blue")
    started = docker("inspect", "--format", "{{.State.StartedAt}}", server)
    snapshot = command.create(volume)
    tags = command.run("snapshot", "list", "--json").json()["snapshots"][0]["tags"]
    assert (tags["driver"], tags["of"]) == ("redis", volume)

    for target in (volume, docker("volume", "inspect", "--format", "{{.Mountpoint}}", volume)):
        refused = command.run(
            "snapshot", "restore", snapshot, target.strip(), "--in-place", "--yes", code=3
        )
        assert f"docker stop {server}" in refused.err
    command.run("snapshot", "restore", snapshot, f"{volume}-again")
    assert docker("inspect", "--format", "{{.State.StartedAt}}", server) == started

    docker("exec", server, "redis-cli", "set", "cup", "red")
    docker("rm", "--force", server)
    command.run("snapshot", "restore", snapshot, volume, "--in-place", "--yes")
    assert docker("exec", redis_on(volume), "redis-cli", "get", "cup") == "blue\n"


def test_who_writes_unknown_to_every_driver_has_to_be_allowed(
    command: Command, volume: str
) -> None:
    docker(
        "run", "-d", "--name", f"{volume}-app", "--label", f"{LABEL}={volume}",
        "--network", "none", "--init", "-v", f"{command.folder / 'wiki'}:/wiki",
        base_image("python:3.11-slim"), "sleep", "600",
    )  # fmt: skip
    refused = command.run("snapshot", "create", "./wiki/pages", code=3)
    assert f"{volume}-app" in refused.err
    assert "--live" in refused.err
    assert command.create("./wiki/pages", "--live")
