"""What the driver of the user's own commands adds to the contract of all."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.docker import connect
from reconciler.reaching.inside import Inside
from snapshots.drivers import driver_for
from snapshots.errors import EngineFailed, Unsupported
from tests.snapshots.engines import FILES, docker, insist_on_images

LOAD = ".lockstep-load"


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Inside, Path]]:
    insist_on_images(FILES.image)
    data = tmp_path_factory.mktemp("command") / "da ta"
    with FILES.running(data) as container:
        full = docker("inspect", "-f", "{{.Id}}", container.name).stdout.strip()
        yield Inside(connect(), full), data


@pytest.fixture
def run(started: tuple[Inside, Path]) -> Inside:
    return started[0]


@pytest.fixture
def data(started: tuple[Inside, Path]) -> Path:
    """Empty for each test."""
    for entry in started[1].iterdir():
        entry.unlink()
    return started[1]


@pytest.mark.parametrize(
    ("printed", "counts"),
    [
        ("orders 3\\nall the rest  4\\n\\n", {"orders": 3, "all the rest": 4}),
        ('{\\"orders\\": 3}', {"orders": 3}),
        ("", {}),
    ],
)
def test_what_a_probe_prints_is_counted(run: Inside, printed: str, counts: dict[str, int]) -> None:
    assert driver_for("command", {"probe": f'printf "{printed}"'}).probe(run) == counts


@pytest.mark.parametrize("printed", ["orders", "orders many", '{\\"orders\\": []}', "[1]", "{"])
def test_a_probe_that_prints_something_else_is_an_error(run: Inside, printed: str) -> None:
    with pytest.raises(EngineFailed, match="lines of a name and a number"):
        driver_for("command", {"probe": f'printf "{printed}"'}).probe(run)


def test_a_failure_names_the_command_and_what_it_said(run: Inside, data: Path) -> None:
    driver = driver_for(
        "command",
        {
            "probe": "echo out; echo why not >&2; exit 3",
            "before_stop": "sleep 60",
            "timeout": "0.5",
            "dump": "echo half; exit 1",
            "restore": "true",
        },
    )
    with pytest.raises(EngineFailed, match=r"probe \(echo out.*exit code 3: why not"):
        driver.probe(run)
    with pytest.raises(EngineFailed, match=r"before_stop \(sleep 60\).*not finished after 0\.5 s"):
        driver.before_stop(run)
    with pytest.raises(EngineFailed, match=r"dump \(echo half"), driver.live(run, data):
        pass
    assert list(data.iterdir()) == []


def test_without_commands_only_a_stop_gives_a_point(run: Inside, data: Path) -> None:
    driver = driver_for("command")
    driver.before_stop(run)
    assert driver.probe(run) == {}
    assert driver.check(run) == []
    with pytest.raises(Unsupported, match="neither dump and restore, nor"), driver.live(run, data):
        pass


def test_a_dump_is_bytes_and_nothing_else_is_captured(run: Inside, data: Path) -> None:
    driver = driver_for("command", {"dump": "printf 'a\\377\\000b'", "restore": "true"})
    with driver.live(run, data) as point:
        (dump,) = data.iterdir()
        assert dump.read_bytes() == b"a\xff\0b"
        assert dump.stat().st_mode & 0o777 == 0o600
        assert not point.left_out(dump.name.encode())
        assert point.left_out(b"1")
        assert point.finish() == {LOAD.encode(): b""}
    assert list(data.iterdir()) == []


def test_a_dump_that_prints_nothing_wrote_a_file_of_its_own(run: Inside, data: Path) -> None:
    driver = driver_for("command", {"dump": "echo all > /srv/files/own", "restore": "true"})
    with driver.live(run, data) as point:
        assert not point.left_out(b"own")
        assert point.finish() == {LOAD.encode(): b""}
    assert [entry.name for entry in data.iterdir()] == ["own"]


def test_a_dump_is_loaded_once_and_again_when_that_failed(run: Inside, data: Path) -> None:
    first = {"dump": "true", "restore": "cat > /srv/files/loaded; exit 1"}
    driver = driver_for("command", first | {"restore": "cat >> /srv/files/loaded"})
    driver.load(run, data)
    assert list(data.iterdir()) == []
    (data / LOAD).touch()
    (data / ".lockstep-dump").write_bytes(b"all")
    with pytest.raises(EngineFailed, match="names no restore"):
        driver_for("command", {"probe": "true"}).load(run, data)
    with pytest.raises(EngineFailed, match="restore"):
        driver_for("command", first).load(run, data)
    assert (data / LOAD).exists()
    driver.load(run, data)
    driver.load(run, data)
    assert [entry.name for entry in data.iterdir()] == ["loaded"]
    assert (data / "loaded").read_bytes() == b"allall"


def test_what_is_frozen_too_long_is_thawed_and_no_point(run: Inside, data: Path) -> None:
    frozen = data / "frozen"
    driver = driver_for(
        "command",
        {
            "freeze": "touch /srv/files/frozen",
            "thaw": "rm /srv/files/frozen",
            "freeze_limit": "1",
        },
    )

    def capture_slowly() -> None:
        with driver.live(run, data) as point:
            assert frozen.exists()
            give_up = time.monotonic() + 20
            while frozen.exists():
                assert time.monotonic() < give_up
                time.sleep(0.05)
            point.finish()

    with pytest.raises(EngineFailed, match="too long"):
        capture_slowly()
    with driver.live(run, data) as point:
        assert frozen.exists()
        point.finish()
        assert not frozen.exists()


def test_a_freeze_or_a_thaw_that_fails_is_an_error(run: Inside, data: Path) -> None:
    never = driver_for("command", {"freeze": "echo no >&2; exit 1", "thaw": "touch /tmp/thawed"})
    with pytest.raises(EngineFailed, match="no"), never.live(run, data):
        pass
    assert run(["test", "-e", "/tmp/thawed"]).code != 0
    stuck = driver_for("command", {"freeze": "true", "thaw": "echo stuck >&2; exit 1"})
    with pytest.raises(EngineFailed, match="stuck"), stuck.live(run, data) as point:
        point.finish()
