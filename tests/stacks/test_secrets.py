"""One stack with a canary in every secret, driven through a day, then searched for them."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cli import stackconfig
from engine import project as engine_project
from engine.stack import Stack
from tests.failing import Failing
from tests.stacks.canary import Watch, holding
from tests.stacks.harness import TIMEOUT_SECONDS, Project, Ran, docker, notes_project, pulumi

pytestmark = pytest.mark.timeout(900)

PASSWORD = f"pw-{uuid.uuid4().hex}"
TOKEN = f"to'k\"en-{uuid.uuid4().hex}$HOME"
FILE = f"file-{uuid.uuid4().hex}"
KEY = f"key-{uuid.uuid4().hex}"
BUILD = f"build-{uuid.uuid4().hex}"
CANARIES = (PASSWORD, TOKEN, FILE, KEY, BUILD)
SAYS = (
    "import os; print('started with', os.environ['DB_PASSWORD'], os.environ['TOKEN'], flush=True)\n"
)
PROBE = 'echo "with $DB_PASSWORD" >&2; echo "notes $(wc -l < /notes/notes.txt)"'


@dataclass
class Day:
    """A stack that has been through everything, and what was seen meanwhile."""

    project: Project
    temporary: Path
    watch: Watch
    passphrase: str = ""
    said: list[Ran] = field(default_factory=list)

    def run(self, *args: str, code: int | None = 0, **env: str) -> Ran:
        ran = self.project.run(*args, code=code, env={"TMPDIR": str(self.temporary), **env})
        self.said.append(ran)
        return ran

    def crash(self, *args: str, **env: str) -> None:
        """What may end in a traceback: an error where none can be foreseen."""
        child = self.project.start(*args, env={"TMPDIR": str(self.temporary), **env})
        out, _ = child.communicate(timeout=TIMEOUT_SECONDS)
        self.said.append(Ran(args, child.returncode, out, ""))

    def give(self, key: str, value: str) -> None:
        """A secret, typed as a person does it: by standard input."""
        done = subprocess.run(
            [sys.executable, "-m", "cli.main", "config", "set", "--secret", key],
            cwd=self.project.folder,
            env=self.project.environment(),
            input=value + "\n",
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
        )
        assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Day]:
    """Everything is done with a umask that hides nothing."""
    base = tmp_path_factory.mktemp("secrets")
    project = notes_project(base / "notes", warm=False)
    temporary = base / "tmp"
    temporary.mkdir()
    before = os.umask(0)
    try:
        with Watch(*CANARIES) as watch:
            day = Day(project, temporary, watch)
            _through_the_day(day)
        yield day
    finally:
        os.umask(before)
        project.remove()


def _through_the_day(day: Day) -> None:
    project = day.project
    (project.folder / "app.py").write_text(SAYS + (project.folder / "app.py").read_text())
    (project.folder / "token.txt").write_text(FILE)
    (project.folder / "Dockerfile").write_text(f"FROM {_image_line(project).split()[1]}\n")
    project.compose_file(
        a="    environment:\n=>    build: {context: ., network: none}\n    environment:\n"
        '      DB_PASSWORD: "${DB_PASSWORD}"\n      TOKEN: "${TOKEN}"\n',
        b="    ports:=>    secrets: [file, given]\n    ports:",
        c="\nvolumes:\n=>\nsecrets:\n  file: {file: ./token.txt}\n  given: {environment: BUILD}\n"
        "volumes:\n",
        d=_image_line(project) + "=>",
    )
    day.run("init", "--yes", "--name", project.name)
    day.give("secrets.DB_PASSWORD", PASSWORD)
    config = Stack(engine_project.Project.find(project.folder), "prod")
    os.environ["PULUMI_CONFIG_PASSPHRASE_FILE"] = str(project.folder / ".lockstep" / "passphrase")
    for key, value in (("secrets.TOKEN", TOKEN), ("secrets.BUILD", BUILD), ("encryption", KEY)):
        stackconfig.put(config, key, value, secret=True, path="." in key)
    del os.environ["PULUMI_CONFIG_PASSPHRASE_FILE"]
    stackconfig.put(config, "datasets.notes.commands.probe", PROBE, path=True)
    stackconfig.put(config, "deadline", "6")
    day.run("new", "one")
    day.run("up", "--yes")
    project.note("kept-" + PASSWORD[:8])
    project.compose_file(v='VERSION: "1"=>VERSION: "2"')
    day.run("new", "two")
    day.run("preview", "--json")
    day.run("up", "--yes")
    project.compose_file(b='VERSION: "2"=>VERSION: "3"\n      BROKEN: "no ${DB_PASSWORD}"')
    day.run("new", "three")
    day.run("up", "--yes", code=4)
    points = Failing(project.folder.parent / "points", "switch.stop kill")
    day.run("rollback", "prod-001", "--yes", code=None, **points.env)
    assert points.happened
    day.run("recover")
    points = Failing(project.folder.parent / "points2", "* error 9")
    stackconfig.put(config, "release", "prod-002")
    day.crash("up", "--yes", **points.env)
    assert points.happened
    day.run("recover")
    for command in ("log", "info", "doctor", "config"):
        day.run(command, "--json", code=None)


def _image_line(project: Project) -> str:
    text = (project.folder / "compose.yaml").read_text()
    return next(line for line in text.splitlines(keepends=True) if "image:" in line)


def test_fault_68_no_process_had_a_secret_in_its_arguments_or_environment(day: Day) -> None:
    """A canary in every secret; through new, up, rollback, a failing up, kills and recovery every
    process of the host is watched: none but the containers' own has one in argv or environ."""
    assert any("docker" in name for name in day.watch.processes), "the watch saw the work"
    assert day.watch.seen == set()


def test_fault_68_no_file_and_no_answer_has_a_secret(day: Day) -> None:
    """State, history, ledger, journal, records, logs, progress and temporary files, the store, and
    everything that was printed (--json too) are searched: no canary, in plain text or base64."""
    folder = day.project.folder
    but = (folder / "token.txt",)
    for value in CANARIES:
        for form in (value, base64.b64encode(value.encode()).decode().rstrip("=")):
            assert [*holding(folder.parent, form, but=but)] == []
            for ran in day.said:
                assert form not in ran.text, ran.args
    logs = [ran for ran in day.said if "***" in ran.text]
    assert logs, "what the broken container said of it is shown, masked"


def test_fault_68_docker_shows_a_secret_only_of_the_container_that_needs_it(day: Day) -> None:
    """Images with their history, volumes, networks and the helper's containers are inspected: no
    canary; the app's own container has what it was given."""
    project = day.project
    images = docker("images", "-q", "--no-trunc").split()
    shown = docker("image", "inspect", *sorted(set(images)))
    shown += "".join(docker("history", "--no-trunc", image) for image in project.images())
    shown += docker("volume", "inspect", *project.volumes())
    shown += docker("network", "inspect", *docker("network", "ls", "-q").split())
    foreign = [
        c
        for c in docker("ps", "-aq", "--no-trunc").split()
        if c not in project.containers(running=False)
    ]
    shown += docker("inspect", *foreign, check=False) if foreign else ""
    for value in CANARIES:
        assert value not in shown
    own = docker("inspect", *project.containers(running=False))
    assert PASSWORD in own


def test_fault_69_everything_is_private_whatever_the_umask_is(day: Day) -> None:
    """With umask 0 all of this was done: no file or folder of state, catalog or store is open to
    anybody else, but for what containers mount, which lies below a closed folder."""
    folder = day.project.folder
    mounted = folder / "releases" / "files"
    open_ = [
        f"{path.stat().st_mode & 0o777:o} {path}"
        for place in ("releases", ".lockstep", ".pulumi")
        for path in (folder / place, *sorted((folder / place).rglob("*")))
        if path.exists() and not path.is_symlink()
        if path.stat().st_mode & 0o077
        and len(path.relative_to(mounted).parts if mounted in path.parents else ()) < 2
    ]
    assert open_ == []


@pytest.mark.chaos
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_fault_69_files_are_private_from_their_first_moment(day: Day, tmp_path: Path) -> None:
    """Every open with O_CREAT and every mkdir of `lockstep new` and `up` in state, catalog and
    store is traced, with umask 0: no mode lets others in, not even until a later chmod."""
    project = day.project
    project.compose_file(b='\n      BROKEN: "no ${DB_PASSWORD}"=>')
    for number, command in enumerate((["new", "traced"], ["up", "--yes"])):
        log = tmp_path / f"trace-{number}"
        done = subprocess.run(
            ["strace", "-f", "-qq", "-y", "-s", "400", "-o", str(log),
             "-e", "trace=open,openat,openat2,creat,mkdir,mkdirat,mknod,mknodat",
             sys.executable, "-m", "cli.main", *command],
            cwd=project.folder, env=project.environment(), stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=TIMEOUT_SECONDS * 2,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        made = [line for line in log.read_text().splitlines() if _makes(line, project.folder)]
        assert made, "the trace shows what is made"
        wrong = [line for line in made if int(_mode(line) or "0", 8) & 0o077]
        assert wrong == []


def _makes(line: str, folder: Path) -> bool:
    places = [f"{folder}/{place}" for place in ("releases", ".pulumi", ".lockstep")]
    ours = any(place in line for place in places) and f"{folder}/releases/files/" not in line
    return ours and ("O_CREAT" in line or "mkdir" in line) and "EEXIST" not in line


def _mode(line: str) -> str | None:
    found = re.search(r", (0[0-7]+)\)", line)
    return found[1] if found else None


def test_attack_secrets_a_world_readable_catalog(day: Day) -> None:
    """releases/, its store or .lockstep are opened to everybody: preview and up refuse, and name
    the chmod that mends it; after that they go on."""
    folder = day.project.folder
    for place, code in (("releases", 3), ("releases/store", 1), (".lockstep", 3)):
        (folder / place).chmod(0o755)
        ran = day.run("up", "--yes", code=None)
        assert ran.code == code, ran.text
        assert f"chmod 700 {folder / place}" in ran.text
        (folder / place).chmod(0o700)
    day.run("up", "--yes")


def test_attack_secrets_a_store_that_belongs_to_somebody_else(day: Day) -> None:
    """The store's folder is given to another user: up refuses, and names the chown."""
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder away")
    store = day.project.folder / "releases" / "store"
    os.chown(store, 1234, 1234)
    try:
        assert f"chown -R 0 {store}" in day.run("up", "--yes", code=None).text
    finally:
        os.chown(store, 0, 0)


def examined(day: Day) -> str:
    """What doctor finds, in whole sentences."""
    return day.run("doctor", "--json", code=None).out


def test_attack_ledger_yesterdays_copy_is_put_back(day: Day) -> None:
    """The ledger is exchanged for a copy with its last event cut off, which is whole in itself:
    preview, up, a plain `pulumi up` and doctor refuse, because Pulumi's state knows a later one;
    none of them takes it for the good one, unless `trust` names exactly what is there."""
    day.run("up", "--yes")  # what an up pays after its switch is known to the state by the next
    ledger = day.project.folder / "releases" / "ledger-prod.jsonl"
    whole = ledger.read_bytes()
    ledger.write_bytes(b"".join(whole.splitlines(keepends=True)[:-1]))
    try:
        for _ in range(2):
            by_pulumi = pulumi(day.project, "up", "--yes", "--skip-preview")
            assert by_pulumi.returncode != 0
            assert "an older copy was put back" in by_pulumi.stdout + by_pulumi.stderr
        assert "an older copy was put back" in day.run("up", "--yes", code=3).text
        assert "an older copy was put back" in examined(day)
        told = day.run("preview", "--json", code=3).json()["refusals"][0]
        assert "an older copy was put back" in told["message"]
        mark = told["remedy"].split("config set trust ")[1].split()[0]
        day.run("config", "set", "trust", "9-0123456789abcdef")
        assert mark in day.run("up", "--yes", code=3).text
        day.run("config", "set", "trust", mark)
        assert "older copy" not in day.run("preview", "--json", code=None).out
    finally:
        ledger.write_bytes(whole)
        day.run("config", "rm", "trust")
    assert "older copy" not in examined(day)


def test_attack_ledger_a_record_is_altered(day: Day) -> None:
    """Somebody gives an old release another image by editing its record: doctor says it, up
    refuses to go there, and a plain `pulumi up` of another release does not make it a good one."""
    record = day.project.folder / "releases" / "prod-001" / "release-info.json"
    whole = record.read_bytes()
    value = json.loads(whole)
    value["images"]["app"]["id"] = "sha256:" + "0" * 64
    record.write_bytes(json.dumps(value).encode())
    try:
        assert "prod-001 was altered or exchanged since the last up" in examined(day)
        ran = day.run("rollback", "prod-001", "--yes", code=3)
        assert "altered or exchanged" in ran.text
        by_pulumi = pulumi(day.project, "up", "--yes", "--skip-preview")
        assert "altered or exchanged" in by_pulumi.stdout + by_pulumi.stderr
        assert "prod-001 was altered or exchanged since the last up" in examined(day)
    finally:
        record.write_bytes(whole)


@pytest.mark.chaos
def test_attack_ledger_records_are_exchanged_and_removed(day: Day) -> None:
    """Two records are put in each other's place, an old one is replayed as a new one, one is
    removed: each is said by doctor, whichever it was."""
    releases = day.project.folder / "releases"
    one, two = (releases / name / "release-info.json" for name in ("prod-001", "prod-002"))
    first, second = one.read_bytes(), two.read_bytes()
    try:
        one.write_bytes(second)
        two.write_bytes(first)
        assert "is the record of prod-002, not of prod-001" in examined(day)
        two.write_bytes(first.replace(b'"prod-001"', b'"prod-002"'))
        one.write_bytes(first)
        assert "altered or exchanged" in examined(day)
        two.unlink()
        assert "prod-002 is gone" in examined(day)
    finally:
        one.write_bytes(first)
        two.write_bytes(second)
    newest = sorted(releases.glob("prod-*/release-info.json"))[-1]
    whole = newest.read_bytes()
    newest.write_bytes(whole.replace(b'"description":', b'"description" :'))
    try:
        assert "altered or exchanged since the last up" in examined(day)
    finally:
        newest.write_bytes(whole)


def test_attack_secrets_the_stores_key_is_exchanged(day: Day) -> None:
    """The config gets another passphrase than the store was made with: up says that it is the
    wrong one and not damage, before anything is stopped."""
    before = day.project.containers()
    day.give("encryption", "mistyped-1234567")
    try:
        ran = day.run("verify", code=None)
        assert "another passphrase than the one given" in ran.text
        assert "not damaged" in ran.text
        assert day.run("up", "--yes", code=None).code != 0
        assert day.project.containers() == before
    finally:
        day.give("encryption", KEY)
    day.run("verify")


def test_a_stores_passphrase_is_changed(day: Day) -> None:
    """`lockstep rekey`: the store opens with the new one, which nobody saw."""
    assert KEY not in day.run("rekey", "--yes", "--json").text
    assert day.run("config", "get", "encryption").out.strip() != KEY
    day.run("verify", "--read-data")
