"""A stack behind its ingress: no client meets a release that is not proved, none is refused."""

from __future__ import annotations

import datetime
import json
import shutil
import socket
import ssl
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from reconciler.ingress import ingressfile, ingresssocket
from tests.failing import Failing
from tests.stacks.asking import asking
from tests.stacks.harness import Project, docker, free_port, notes_project, python_image
from tests.stacks.waiting import until

EDGE = """  edge:
    image: {image}
    command: ["python3", "/edge.py"]
    volumes: ["./edge.py:/edge.py:ro", "./edge.pem:/edge.pem:ro"]
    ports: ["127.0.0.1:{tls}:8443", "{who}:9000", "127.0.0.1:{lodger}:9100"]
    init: true
    stop_grace_period: 1s
  lodger:
    image: {image}
    command: ["python3", "-m", "http.server", "9100", "--directory", "/tmp"]
    network_mode: "service:edge"
    depends_on: [edge]
    init: true
    stop_grace_period: 1s
volumes:
  notes:"""


class Behind(Project):
    """The small project and a second service, with the addresses of its ports."""

    tls: int
    who: int
    lodger: int
    certificate: bytes

    def units(self, *options: str) -> dict[str, str]:
        """Name -> state, of the ingress's containers."""
        form = "{{.Names}} {{.State}}"
        label = f"label=lockstep.ingress={self.name}/prod"
        listed = docker("ps", "--all", "--filter", label, "--format", form, *options)
        return dict(line.split(" ", 1) for line in listed.splitlines())

    def unit(self, port: int) -> str:
        """The container that has a port."""
        return next(name for name in self.units() if f"-ingress-{port}" in name)

    def ask(self, *commands: str) -> str:
        """What the HAProxy of the app's port answers."""
        return ingresssocket.ask(self.of_port / "run" / ingressfile.SOCKET, *commands)

    def counted(self) -> ingressfile.Counted:
        return ingressfile.counted(self.ask("show stat"))

    @property
    def of_port(self) -> Path:
        """Where the ingress of the app's port has its files."""
        return self.folder / "releases" / "ingress" / "prod" / f"{self.port}-127.0.0.1"

    def networks(self) -> list[str]:
        found = docker("network", "ls", "--format", "{{.Name}}").split()
        return [name for name in found if self.name in name]

    def version(self) -> str:
        return self.get("/version", timeout=60)

    def next_version(self) -> str:
        """A release that says another version; only declared."""
        path = self.folder / "compose.yaml"
        before, _, rest = path.read_text().partition('VERSION: "')
        number, _, after = rest.partition('"')
        path.write_text(f'{before}VERSION: "{int(number) + 1}"{after}')
        self.new("another version")
        return str(int(number) + 1)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Behind]:
    """Adopted from a compose project that ran with its own ports, with a note in its data."""
    folder = tmp_path_factory.mktemp("behind") / "notes"
    project = notes_project(folder, Behind)
    assert isinstance(project, Behind)
    project.tls, project.who, project.lodger = free_port(), free_port(), free_port()
    shutil.copy(Path(__file__).with_name("edge.py"), folder / "edge.py")
    project.certificate = certificate(folder / "edge.pem")
    path = folder / "compose.yaml"
    edge = EDGE.format(
        image=python_image(), tls=project.tls, who=project.who, lodger=project.lodger
    )
    path.write_text(path.read_text().replace("volumes:\n  notes:", edge))
    try:
        docker("compose", "--project-directory", str(folder), "-p", project.name, "up", "--detach")
        project.wait_until_it_answers()
        project.note("a")
        project.init()
        project.run("config", "set", "--path", "ingress.way", "haproxy")
        project.run("config", "set", "--path", "ingress.proxy[0]", f"edge:{project.who}")
        project.next_version()
        project.up()
        yield project
    finally:
        project.remove()


def certificate(path: Path) -> bytes:
    """A key and a self-signed certificate in a file; the certificate as DER."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "edge")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    own = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path.write_bytes(own + made.public_bytes(serialization.Encoding.PEM))
    return made.public_bytes(serialization.Encoding.DER)


def test_a_project_that_is_adopted_hands_its_ports_over(stack: Behind) -> None:
    assert stack.notes() == ["a"]
    assert stack.version() == "2"
    assert set(stack.units().values()) == {"running"}
    assert len(stack.units()) == 4
    assert stack.entries()[0]["downtime_seconds"] > 0
    worlds = docker("ps", "--filter", f"label=com.docker.compose.project={stack.name}-prod-001",
                    "--format", "{{.Ports}}").split()  # fmt: skip
    assert worlds == [], "a world behind the ingress publishes nothing"
    stack.nothing_to_do()


def test_the_ingress_may_do_nothing_but_its_work(stack: Behind) -> None:
    said = json.loads(docker("inspect", stack.unit(stack.port)))[0]
    assert said["Config"]["User"] not in ("", "0", "root", "0:0")
    host = said["HostConfig"]
    assert host["CapDrop"] == ["ALL"]
    assert host["ReadonlyRootfs"]
    assert not host["Privileged"]
    assert "no-new-privileges" in host["SecurityOpt"]
    assert host["RestartPolicy"]["Name"] == "always"
    for file in (stack.folder / "releases" / "ingress").rglob("haproxy.cfg"):
        assert file.stat().st_mode & 0o077 == 0


def test_tls_is_passed_through(stack: Behind) -> None:
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", stack.tls), timeout=30) as plain,
        trusting.wrap_socket(plain) as talk,
    ):
        assert talk.recv(3) == b"tls"
        assert talk.getpeercert(binary_form=True) == stack.certificate


def test_the_proxy_protocol_tells_a_client_s_own_address(stack: Behind) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # sends nothing: only an address of this host is wanted
        here = probe.getsockname()[0]
    with socket.create_connection((here, stack.who), timeout=30) as talk:
        host, port = talk.getsockname()
        assert talk.makefile().read() == f"{host}:{port}"


def test_a_service_in_another_s_network_is_reached_by_the_other_s_port(stack: Behind) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{stack.lodger}/", timeout=60) as answer:
        assert answer.status == 200


def test_forward_and_back_no_client_is_refused(stack: Behind) -> None:
    before = stack.version()
    after = stack.next_version()
    with asking(stack.version) as asked:
        stack.note("b")
        stack.up()
        stack.note("c")
        stack.run("rollback", "--yes")
        assert stack.notes() == ["a", "b"]
        stack.run("undo", "--yes")
    assert asked.failures == []
    assert set(asked.answers) == {before, after}
    assert stack.notes() == ["a", "b", "c"]
    figures = committed(stack)["ingress"][f"127.0.0.1:{stack.port}"]
    assert figures["connections"] > 0
    assert figures["errors"] == 0
    assert figures["held_seconds"] > 0


def committed(stack: Behind) -> dict[str, dict[str, dict[str, float]]]:
    """The last outcome, as the ledger has it."""
    lines = (stack.folder / "releases" / "ledger-prod.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    events = [event.get("event", event) for event in events]
    return next(e for e in reversed(events) if e["kind"] in ("committed", "reverted"))


def test_who_waits_longest_is_served_first(stack: Behind) -> None:
    """Also who has tried the gate in vain meanwhile, which takes one after the other."""
    config = (stack.of_port / "config" / ingressfile.FILE).read_text()
    pointing = ingressfile.pointing_of(config)
    assert pointing is not None
    names = [f"in turn {number:02}" for number in range(60)]
    stack.ask(*ingressfile.hold())
    try:
        with ThreadPoolExecutor(len(names)) as pool:
            for name in names:
                pool.submit(stack.note, name, timeout=60)
                time.sleep(0.025)
            until(lambda: stack.counted().waiting == len(names))
            stack.ask(*ingressfile.serve(pointing, 1))
    finally:
        stack.ask(*ingressfile.serve(pointing))
    taken = [note for note in stack.notes() if note in names]
    assert sorted(taken) == names
    at = {name: place for place, name in enumerate(taken)}
    overtaken = [a for a, later in zip(names, names[12:], strict=False) if at[a] > at[later]]
    # Whoever tries the gate at the moment when it opens comes back 0.1 s later.
    assert len(overtaken) <= 1, f"who came 0.3 s after them was served before {overtaken}"


def test_no_client_reaches_a_release_that_fails_and_no_order_is_lost(stack: Behind) -> None:
    """It acknowledges whatever it is sent and never gets healthy."""
    live, kept = stack.version(), []
    path = stack.folder / "compose.yaml"
    sound = path.read_text()
    path.write_text(sound.replace('VERSION: "', 'BROKEN: "not ready"\n      VERSION: "9'))
    stack.new("never healthy")
    stack.run("config", "set", "deadline", "4")
    orders, guard = iter(range(10**6)), threading.Lock()

    def order() -> str:
        with guard:
            name = f"order {next(orders)}"
        stack.note(name, timeout=60)
        kept.append(name)
        return stack.version()

    with asking(order, clients=2) as asked:
        stack.up(code=4)
    path.write_text(sound)
    stack.run("config", "rm", "deadline")
    stack.declare(str(stack.live()))
    assert asked.failures == []
    assert set(asked.answers) == {live}
    assert len(kept) > 10
    assert set(kept) <= set(stack.notes())


@pytest.mark.chaos
def test_an_ingress_that_was_killed_is_seen_and_brought_back(stack: Behind) -> None:
    live, world = stack.version(), stack.live()
    unit = stack.unit(stack.port)
    docker("kill", unit)
    assert f"port 127.0.0.1:{stack.port} does not run" in stack.run("preview").text
    assert "does not run" in stack.run("doctor", code=1).text
    assert "put right" in stack.run("guard", "--once").text
    assert stack.version() == live

    docker("rm", "--force", unit)
    stack.up()
    assert stack.version() == live
    assert stack.live() == world
    stack.nothing_to_do()

    docker("restart", "--time", "0", stack.unit(stack.port))
    until(lambda: answer(stack) == live, 30)  # its configuration is all it needs


def test_a_world_s_container_that_comes_back_at_another_address_is_found(stack: Behind) -> None:
    live = stack.version()
    (app,) = [c for c, name in stack.containers().items() if name.endswith("-app-1")]
    docker("kill", app)
    docker("start", app)
    until(lambda: answer(stack) == live, 30)


def answer(stack: Behind) -> str | None:
    try:
        return stack.get("/version")
    except OSError:
        return None


@pytest.mark.chaos
@pytest.mark.parametrize("place", ["switch.committed", "ingress.written", "ingress.pointed"])
def test_a_crash_between_the_commit_and_the_new_pointing_is_put_right(
    stack: Behind, tmp_path: Path, place: str
) -> None:
    after = stack.next_version()
    points = Failing(tmp_path / "points", f"{place} kill")
    with asking(stack.version) as asked:
        stack.run("up", "--yes", env=points.env, code=None)
        assert points.happened
        stack.up()
    assert asked.failures == []
    assert stack.version() == after
    assert stack.counted().limit == ingressfile.UNLIMITED, "who waits is let in slowly for a while"
    stack.nothing_to_do()


@pytest.mark.chaos
@pytest.mark.parametrize("when", ["switch.started", "ingress.held"])
def test_an_ingress_that_is_killed_in_a_switch_does_not_change_its_outcome(
    stack: Behind, tmp_path: Path, when: str
) -> None:
    after = stack.next_version()
    points = Failing(tmp_path / "points", f"{when} wait 3")
    upping = stack.start("up", "--yes", env=points.env)
    until(lambda: points.happened)
    docker("kill", stack.unit(stack.port))
    assert upping.wait(120) == 0, upping.communicate()
    assert stack.version() == after
    stack.nothing_to_do()


@pytest.mark.chaos
def test_a_switch_that_is_killed_while_it_holds_lets_everybody_in_again(
    stack: Behind, tmp_path: Path
) -> None:
    before = stack.version()
    live = stack.live()
    stack.next_version()
    points = Failing(tmp_path / "points", "switch.started kill")
    with asking(stack.version) as asked:
        stack.run("up", "--yes", env=points.env, code=None)
    assert points.happened
    assert asked.failures == []
    assert set(asked.answers) == {before}
    stack.declare(str(live))
    stack.up()
    stack.nothing_to_do()


def test_the_emergency_stop_stops_the_ingress_too(stack: Behind) -> None:
    live = stack.version()
    stack.run("stop", "--yes")
    assert "running" not in stack.units().values()
    assert answer(stack) is None
    stack.up()
    assert stack.version() == live
    stack.nothing_to_do()


def test_going_direct_hands_the_ports_back(stack: Behind) -> None:
    notes, live = stack.notes(), stack.version()
    stack.run("config", "set", "--path", "ingress.way", "direct")
    stack.up()
    assert stack.units() == {}
    assert not any(name.endswith("-ingress") for name in stack.networks())
    assert stack.notes() == notes
    assert stack.version() == live
    stack.nothing_to_do()
    assert not list((stack.folder / "releases" / "ingress").rglob("haproxy.cfg"))
