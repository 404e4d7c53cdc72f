"""What the driver of QuestDB adds to the contract of all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from snapshots.drivers import driver_for
from snapshots.errors import EngineFailed, Unsupported
from snapshots.livecapture import capture_live
from snapshots.store import Store
from snapshots.verify import verify
from tests.snapshots.contract.cases import QUESTDB, QUESTDB_CASE, quest
from tests.snapshots.engines import Container, docker, insist, insist_on_images

DRIVER = driver_for("questdb")
PASSWORD = "s p'a$ce"


def test_the_password_comes_from_the_environment(tmp_path: Path) -> None:
    """Also a port of the user's own, and names that need quotes."""
    insist_on_images(QUESTDB.image)
    given = {
        "QDB_HTTP_USER": "shop",
        "QDB_HTTP_PASSWORD": PASSWORD,
        "QDB_HTTP_NET_BIND_TO": "0.0.0.0:9090",
    }
    locked = replace(
        QUESTDB, ready=lambda run: run(["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/9090"]).code == 0
    )
    with locked.running(tmp_path / "data", given) as run:
        assert DRIVER.probe(run) == {}
        assert DRIVER.check(run) == []
        assert not any(PASSWORD in f"{argv}{stdin}" for argv, stdin in run.calls)


@pytest.mark.chaos
def test_fault_83_a_checkpoint_outlives_neither_a_killed_capture_nor_a_killed_server(
    store: Store, tmp_path: Path
) -> None:
    """A capture was killed in QuestDB's checkpoint: the next one releases it and works. The server
    is killed in its checkpoint: there is no snapshot, its rows are there when it runs again, it is
    in no checkpoint, and the next capture works."""
    insist_on_images(QUESTDB.image)
    data = tmp_path / "data"
    with QUESTDB.running(data) as run:
        QUESTDB.write(run, 100)
        assert DRIVER.probe(run) == {"trades": 100}
        quest(run, "CHECKPOINT CREATE")  # what a capture leaves that was killed
        first = capture_live(DRIVER, run, data, store, dataset="q")
        QUESTDB_CASE.left(run, data)

        def killed(what: str, done: int, total: int) -> None:  # noqa: ARG001
            assert what == "capture"
            docker("kill", "--signal", "KILL", run.name)  # once is enough

        with pytest.raises(EngineFailed):
            capture_live(DRIVER, run, data, store, dataset="q", progress=killed)
        assert store.ids() == [first.id]
        insist(docker("start", run.name))
        run.wait_until(QUESTDB.ready)
        QUESTDB_CASE.left(run, data)
        assert DRIVER.probe(run) == {"trades": 100}
        second = capture_live(DRIVER, run, data, store, dataset="q", parent=first.id)
        QUESTDB_CASE.left(run, data)
    assert verify(store, second.id, read_data=True) == []


def test_only_the_whole_root_folder_gives_a_live_point(tmp_path: Path) -> None:
    nobody = Container("lockstep-test-no-such-container")
    with pytest.raises(Unsupported, match="mount that one"), DRIVER.live(nobody, tmp_path):
        pass


def test_the_newest_version_that_ran_on_the_files_counts(tmp_path: Path) -> None:
    folder = tmp_path / "db" / "telemetry_config"
    folder.mkdir(parents=True)
    symbols = [len(v).to_bytes(4, "little") + v.encode("utf-16-le") for v in ("9.3.4", "9.10.0")]
    (folder / "version.c").write_bytes(b"".join(symbols) + bytes(4096))
    assert DRIVER.version(tmp_path) == "9.10.0"
    (folder / "version.c").write_bytes(b"\xff\xff")
    assert DRIVER.version(tmp_path) is None


def test_a_table_without_its_file_of_transactions_is_named(tmp_path: Path) -> None:
    (tmp_path / "db" / "trades~1").mkdir(parents=True)
    (tmp_path / "db" / "trades~1" / "_meta").touch()
    (problem,) = DRIVER.check_path(tmp_path)
    assert "trades~1" in problem


def test_a_server_that_is_not_there_is_an_error() -> None:
    with pytest.raises(EngineFailed, match="asking QuestDB"):
        DRIVER.probe(Container("lockstep-test-no-such-container"))
