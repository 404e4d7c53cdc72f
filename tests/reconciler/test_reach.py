"""Volumes worked on in a helper container: the same as without, and nothing beyond the volume."""

from __future__ import annotations

import json
import os
import secrets
import socket
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from reconciler.docker import HELPER, Docker, connect
from reconciler.errors import BadInput, DockerFailed, LockstepError
from reconciler.reaching import helper, helperimage, reach
from reconciler.world import places
from snapshots.compare import tree_equal
from snapshots.drivers import ExecResult
from snapshots.errors import Damaged, SnapshotError, TargetNotEmpty
from snapshots.fork import Fork
from snapshots.privileges import CAPABILITIES
from snapshots.store import Store
from tests.snapshots.trees import everything

LABEL = {"lockstep.test": "reach"}

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="compares with what root sees")


@pytest.fixture(scope="module")
def docker() -> Iterator[Docker]:
    yield connect("helper")
    helper.close()


@pytest.fixture
def volume(docker: Docker) -> Iterator[list[Path]]:
    """Two volumes, as `places.place` gives them."""
    names = [f"lsreach{secrets.token_hex(4)}" for _ in range(2)]
    for name in names:
        docker.create_volume(name, LABEL)
    try:
        yield [places.place(docker, name) for name in names]
    finally:
        for name in names:
            docker.remove_volume(name, labels=LABEL)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


def helpers(docker: Docker, path: Path) -> list[str]:
    """Helper containers that have a folder."""
    listed = docker.listing(labels=[HELPER], helpers=True)
    return [each.id for each in listed if path.parent.name in each.mounts]


def test_a_helper_forks_captures_and_restores_exactly(
    docker: Docker, volume: list[Path], store: Store, tmp_path: Path
) -> None:
    source, target = volume
    everything(source)
    assert reach.is_far(source)
    fork = reach.Fork(source, target, index=tmp_path / "work.index")
    first = fork.first_pass()
    (source / "late").write_bytes(b"late")
    fork.catch_up()
    (source / "late").unlink()
    fork.final_pass()
    assert first.files > 10
    assert tree_equal(source, target) == []
    twins = Fork(source, target, index=tmp_path / "work.index").twins
    seen: list[tuple[str, int, int]] = []
    record = reach.capture(
        source, store, dataset="d", progress=lambda *args: seen.append(args), tags={"a": "b"}
    )
    assert store.read(record.id) == record
    assert seen[-1][0] == "capture"
    again = reach.capture(target, store, dataset="d", parent=record.id, twins=twins)
    assert again.root == record.root
    with pytest.raises(TargetNotEmpty):
        reach.restore(store, record.id, target)
    (target / "big").write_bytes(b"altered")
    (target / "more").mkdir()
    reach.restore(store, record.id, target, in_place=True, twins=tmp_path / "made" / "d.twins")
    assert tree_equal(source, target) == []
    assert reach.measure(target).files == reach.measure(source).files - 1, "all but the socket"
    assert reach.entries(source) == len(os.listdir(source))
    assert sum(1 for _ in helpers(docker, source)) == 3, "one for each kind of work, used again"


def test_a_helper_that_reads_damage_says_what_a_direct_read_says(
    volume: list[Path], store: Store
) -> None:
    source, target = volume
    (source / "file").write_bytes(os.urandom(200_000))
    record = reach.capture(source, store, dataset="d")
    (pack,) = store.packs.glob("*.pack")
    body = bytearray(pack.read_bytes())
    body[len(body) // 3] ^= 1
    pack.chmod(0o600)
    pack.write_bytes(body)
    with pytest.raises(Damaged, match="file"):
        reach.restore(store, record.id, target)
    mended = reach.repair(store, {"d": [source]})
    assert mended.unmended == []
    reach.restore(store, record.id, target, in_place=True)
    assert tree_equal(source, target) == []


def test_an_error_of_ours_comes_back_from_a_helper_as_itself(
    volume: list[Path], store: Store
) -> None:
    source, _ = volume
    (source / "file").write_bytes(bytes(1000))

    def stop(what: str, done: int, total: int) -> None:
        raise ValueError(f"{what} {done} {total}")

    with pytest.raises(ValueError, match="capture 1000 1000"):
        reach.capture(source, store, dataset="d", progress=stop)
    assert reach.capture(source, store, dataset="d").bytes == 1000, "it works on"


def test_drivers_ask_their_engine_through_the_helper(volume: list[Path], store: Store) -> None:
    source, _ = volume
    with closing(sqlite3.connect(source / "data")) as database:
        database.execute("CREATE TABLE orders (id)")
        database.commit()
    found = reach.looks_like(source)
    assert (found.name, found.probe_path(source)) == ("sqlite", {"data.orders": 0})
    assert found.check_path(source) == []
    driver = reach.driver_for("redis")
    asked: list[tuple[str, ...]] = []

    class Engine:
        """A container whose engine does not answer."""

        def __call__(self, argv: object, **_: object) -> ExecResult:
            asked.append(tuple(argv))  # type: ignore[arg-type]
            raise DockerFailed("it went away")

    with pytest.raises(DockerFailed, match="it went away"):
        reach.capture_live(driver, Engine(), source, store, dataset="d")  # type: ignore[arg-type]
    assert asked
    assert store.ids() == []


@pytest.mark.parametrize("missing", sorted(CAPABILITIES))
def test_without_any_one_capability_a_helper_could_not_restore(
    docker: Docker, volume: list[Path], store: Store, missing: str
) -> None:
    """Each capability that a helper gets is needed: without it owner, mode or content differ."""
    source, target = volume
    everything(source)
    record = reach.capture(source, store, dataset="d")
    os.chown(target, 3000, 3000)
    target.chmod(0o700)
    for root, folders, files in os.walk(store.path):
        for each in (".", *folders, *files):
            os.chown(os.path.join(root, each), 2000, 2000)
    code = f"""
        from pathlib import Path
        from snapshots import privileges
        from snapshots.restore import restore
        from snapshots.store import Store
        privileges.CAPABILITIES.pop({missing!r}, None)
        privileges.become(2000, 2000)
        restore(Store.open(Path({str(store.path)!r}), create=False), {record.id!r},
                Path({str(target)!r}))
    """
    mounts = frozenset({helper.Mount(str(store.path)), helper.Mount(str(target), None, True)})
    words = helper.command(docker, "IMAGE", mounts, f"lsreach-{secrets.token_hex(4)}")
    at = words.index("IMAGE")
    words[at:] = [helperimage.ensure(docker), "-c", textwrap.dedent(code)]
    words[at:at] = ["--entrypoint", "python3"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0 or tree_equal(source, target) != []


def test_a_helper_is_given_exactly_what_is_promised(
    docker: Docker, volume: list[Path], store: Store
) -> None:
    source, target = volume
    (source / "file").write_bytes(b"x")
    record = reach.capture(source, store, dataset="d")
    reach.restore(store, record.id, target)
    found = json.loads(
        subprocess.check_output(["docker", "inspect", *helpers(docker, target)], timeout=60)
    )
    assert len(found) == 1
    (said,) = found
    host = said["HostConfig"]
    assert said["Image"] == helperimage.ensure(docker)
    assert host["NetworkMode"] == "none"
    assert host["ReadonlyRootfs"] is True
    assert host["CapDrop"] == ["ALL"]
    given = {cap.removeprefix("CAP_") for cap in host["CapAdd"]}
    assert given == {*CAPABILITIES, "SETUID", "SETGID"}
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert host["Privileged"] is False
    assert host["PidMode"] == ""
    assert host["IpcMode"] == "none"
    assert host["AutoRemove"] is True
    assert host["PidsLimit"] == 512
    assert list(host["Tmpfs"]) == ["/tmp"]
    mounts = {(m["Type"], m["Destination"], m["RW"]) for m in said["Mounts"]}
    assert mounts == {("volume", str(target), True), ("bind", str(store.path), False)}
    assert not [word for word in said["Config"]["Env"] if "DOCKER" in word]


def test_who_works_in_a_helper_keeps_five_capabilities(docker: Docker, volume: list[Path]) -> None:
    source, _ = volume
    reach.measure(source)
    (container,) = helpers(docker, source)
    pid = json.loads(subprocess.check_output(["docker", "inspect", container]))[0]["State"]["Pid"]
    status = Path(f"/proc/{pid}/status").read_text()
    values = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    mask = sum(1 << number for number in CAPABILITIES.values())
    assert int(values["CapEff"], 16) == int(values["CapPrm"], 16) == mask
    assert int(values["CapInh"], 16) == int(values["CapAmb"], 16) == 0
    assert values["NoNewPrivs"] == "1"
    assert values["Seccomp"] == "2"


def test_a_helper_ends_when_its_caller_is_killed(docker: Docker, volume: list[Path]) -> None:
    source, _ = volume
    code = (
        "import sys, time\n"
        "from reconciler.reaching import reach\n"
        "from reconciler.world import places\n"
        "from reconciler.docker import connect\n"
        "path = places.place(connect('helper'), sys.argv[1])\n"
        "reach.measure(path)\n"
        "print('there', flush=True)\n"
        "time.sleep(60)\n"
    )
    caller = subprocess.Popen(
        [sys.executable, "-c", code, source.parent.name], stdout=subprocess.PIPE, text=True
    )
    assert caller.stdout is not None
    assert caller.stdout.readline() == "there\n"
    assert len(helpers(docker, source)) == 1
    caller.kill()
    caller.wait()
    caller.stdout.close()
    assert _gone(docker, source)


def test_a_killed_helper_is_said_by_name_and_the_next_call_has_a_new_one(
    docker: Docker, volume: list[Path]
) -> None:
    source, _ = volume
    reach.measure(source)
    (container,) = helpers(docker, source)
    own = helper.of_folder(docker, str(source), source.parent.name)
    own.docker.kill(container)
    with pytest.raises(SnapshotError, match=f"{source.parent.name} ended before"):
        own.call("measure", {"path": str(source)}, helper.Asked())
    assert reach.measure(source).files == 0
    helper.close(source.parent.name)
    assert _gone(docker, source)


def test_a_volume_in_use_by_a_helper_alone_can_be_removed(docker: Docker) -> None:
    name = f"lsreach{secrets.token_hex(4)}"
    docker.create_volume(name, LABEL)
    path = places.place(docker, name)
    reach.measure(path)
    assert docker.listing(volume=name) == (), "a helper is nobody who uses a volume"
    docker.remove_volume(name, labels=LABEL)
    assert docker.volume(name) is None


def test_how_volumes_are_reached_is_found_out_and_can_be_said(
    docker: Docker, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not reach.way(docker).direct
    assert reach.way(connect()).direct
    assert "config says" in reach.way(connect("direct")).why
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: 1000)
        assert reach.way(connect()) == reach.Way(False, "this user is not root")
        assert reach.way(connect("direct")).direct
    monkeypatch.setenv(reach.OVERRIDE, "helper")
    assert not reach.way(connect()).direct
    monkeypatch.setenv(reach.OVERRIDE, "magic")
    with pytest.raises(BadInput, match="auto, direct, helper"):
        reach.way(connect())


# Attacks ----------------------------------------------------------------------------------------


def test_attack_data_a_moved_tag_of_the_helper_image(
    docker: Docker, volume: list[Path], store: Store
) -> None:
    """Somebody in the docker group gives the helper image's tag to an image of his own: the helper
    is started by its id, so what runs is still ours."""
    source, _ = volume
    (source / "file").write_bytes(b"x")
    ours = helperimage.ensure(docker)
    other = docker.image(helperimage.BASE)
    assert other is not None
    tag = f"{helperimage.REPOSITORY}:{helperimage.content_of(other.id)}"
    docker.tag(other.id, tag)
    try:
        code = (
            "import sys\nfrom reconciler.reaching import helperimage\n"
            "from reconciler.docker import connect\nprint(helperimage.ensure(connect()))\n"
        )
        said = subprocess.check_output([sys.executable, "-c", code], text=True, timeout=120)
        assert said.strip() == ours, "a new process is not deceived either"
        assert reach.capture(source, store, dataset="d").bytes == 1
        (container, *_) = helpers(docker, source)
        ran = json.loads(subprocess.check_output(["docker", "inspect", container]))[0]["Image"]
        assert ran == ours
    finally:
        docker.tag(ours, tag)


def test_attack_data_a_hostile_tree_in_a_helper(
    docker: Docker, volume: list[Path], store: Store
) -> None:
    """A volume full of links to everything, and a call for a path outside: what a helper captures
    and restores stays in its volume, and there is nothing else that it could read."""
    source, target = volume
    for number, place in enumerate(("/", "/etc/shadow", "../../..", str(store.path), "/proc/1")):
        os.symlink(place, source / f"link{number}")
    (source / "hard").write_bytes(b"x")
    record = reach.capture(source, store, dataset="d")
    assert record.bytes == 1, "links are links"
    os.symlink("/tmp", target / "link0")
    reach.restore(store, record.id, target, in_place=True)
    assert tree_equal(source, target) == []
    own = helper.of_folder(docker, str(source), source.parent.name)
    assert own.call("entries", {"path": str(source.parent.parent)}, helper.Asked()) == 1
    for path in (target, Path(__file__).parent, Path("/var/lib/docker/containers")):
        with pytest.raises(OSError, match="No such file"):
            own.call("entries", {"path": str(path)}, helper.Asked())
    into = {"store": [str(store.path), None], "snapshot": record.id, "target": str(source)}
    with pytest.raises(SnapshotError, match="Read-only"):
        own.call("restore", {**into, "in_place": True}, helper.Asked())
    for name in ("os.system", "__class__", ""):
        with pytest.raises((SnapshotError, KeyError)):
            own.call(name, {}, helper.Asked())
    assert (source / "hard").read_bytes() == b"x"


def test_attack_data_a_helper_reaches_no_network(docker: Docker, volume: list[Path]) -> None:
    """Code in the helper's place tries to get data out by the network and through Docker's socket:
    there is neither."""
    source, _ = volume
    with socket.create_server(("0.0.0.0", 0)) as server:
        port = server.getsockname()[1]
        code = f"""
            import os, socket
            assert os.listdir("/sys/class/net") == ["lo"], os.listdir("/sys/class/net")
            for place in ("172.17.0.1", "127.0.0.1", "1.1.1.1"):
                try:
                    socket.create_connection((place, {port}), timeout=2)
                    raise SystemExit("it got through to " + place)
                except OSError:
                    pass
            assert not os.path.exists("/var/run/docker.sock")
            assert not os.path.exists("/run/docker.sock")
            open("/tmp/written", "w")
            try:
                open("/written", "w")
                raise SystemExit("the root can be written")
            except OSError:
                pass
        """
        mounts = frozenset({helper.Mount(str(source), source.parent.name)})
        words = helper.command(docker, "IMAGE", mounts, f"lsreach-{secrets.token_hex(4)}")
        at = words.index("IMAGE")
        words[at:] = [helperimage.ensure(docker), "-c", textwrap.dedent(code)]
        words[at:at] = ["--entrypoint", "python3"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr


def _gone(docker: Docker, path: Path) -> bool:
    deadline = time.monotonic() + 20
    while helpers(docker, path):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def test_a_helper_that_cannot_be_started_says_why(docker: Docker, tmp_path: Path) -> None:
    missing = reach.through_helper(docker, tmp_path / "nowhere", None)
    with pytest.raises(LockstepError, match=r"cannot be started.*nowhere"):
        reach.measure(missing)


def test_a_daemon_that_does_not_see_our_files_is_refused_by_name(
    volume: list[Path], tmp_path: Path
) -> None:
    """As with a daemon on another host: nothing is captured into a folder of that host."""
    source, _ = volume
    folder = tmp_path / "here"
    folder.mkdir()
    code = (
        "import sys\nfrom pathlib import Path\nfrom reconciler.reaching import reach\n"
        "from reconciler.world import places\n"
        "from reconciler.docker import connect\nfrom reconciler.errors import Unavailable\n"
        "from snapshots.store import Store\n"
        "path = places.place(connect('helper'), sys.argv[1])\n"
        "try:\n    reach.capture(path, Store.open(Path(sys.argv[2]) / 'store'), dataset='d')\n"
        "except Unavailable as error:\n    print(error)\n"
    )
    for there in ((), ("store",)):  # a folder that the other host has not, or another one there
        for name in there:
            (folder / name).mkdir()
        shell = f'mount -t tmpfs none {folder} && exec "$@"'
        said = subprocess.run(
            ["unshare", "--mount", "sh", "-c", shell, "sh",
             sys.executable, "-c", code, source.parent.name, str(folder)],
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert "is on another host" in said.stdout, said.stderr
        assert "here/store" in said.stdout
        assert not (folder / "store" / "format").exists()
