"""What is kept of a switch that was reverted, of a rollback, of an undo, and of a crash: one stack
is taken through them, then its incidents are read as somebody does who has nothing else."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import uuid
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from reconciler.evidence import incidents
from tests.failing import Failing
from tests.reconciler.receivers import hanging, mail_server, refusing, webhook
from tests.stacks.harness import Project, notes_project, python_image
from tests.stacks.waiting import until

pytestmark = pytest.mark.timeout(600)

PASSWORD = f"canary-{uuid.uuid4().hex}"
FORMER = f"former-{uuid.uuid4().hex}"
PLAIN = f"plain-{uuid.uuid4().hex}"
GIVEN = {PASSWORD, FORMER, PLAIN}

SAYS = """
import os
print('I am version', os.environ['VERSION'], 'with', os.environ['DB_PASSWORD'], flush=True)
print('connecting to', os.environ['CACHE'], 'as', os.environ['API_TOKEN'], flush=True)
if os.environ.get('BROKEN'):
    for place in ('/notes/notes.txt', '/uploads/list.txt'):
        with open(place, 'a') as file:
            file.write('by the failed one\\n')
"""

BESIDE = """
  noisy:
    image: IMAGE
    command: ["sh", "-c", "seq -f %0200.0f 6000; exec sleep 1000"]
    stop_signal: SIGKILL
    network_mode: none
  mute:
    image: IMAGE
    command: ["sleep", "1000"]
    stop_signal: SIGKILL
    logging: {driver: none}
    network_mode: none
"""


@dataclass
class Past:
    """A stack to which all kinds of incidents happened."""

    project: Project
    ids: dict[str, str] = field(default_factory=dict)
    """what happened -> the incident's id."""
    mails: list[tuple[str, str]] = field(default_factory=list)
    hooked: list[dict[str, Any]] = field(default_factory=list)
    """what a mail server and a web hook were told."""

    @property
    def folder(self) -> Path:
        return self.project.folder / "releases" / "incidents"

    def named(self, what: str) -> Path:
        return self.folder / self.ids[what]

    def document(self, what: str) -> dict[str, Any]:
        return dict(json.loads((self.named(what) / "incident.json").read_text()))

    def readme(self, what: str) -> str:
        return (self.named(what) / "README.txt").read_text()

    def came(self, what: str) -> None:
        """The newest incident is what just happened, and no other is new."""
        there = {path.name for path in self.folder.iterdir()}
        new = there - set(self.ids.values())
        assert len(new) == 1, (what, there)
        self.ids[what] = new.pop()


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Past]:
    base = tmp_path_factory.mktemp("incidents")
    project = notes_project(base / "notes")
    with webhook() as hook, mail_server() as (box, mail), hanging() as deaf:
        address = "from=stack@example.org&to=ann@example.org"
        receivers: list[dict[str, Any]] = [
            {"name": "mail", "url": f"mailto://127.0.0.1:{mail}/?{address}"},
            {"name": "hook", "url": f"json://127.0.0.1:{hook.port}/", "events": [*BAD_NEWS]},
            {"name": "gone", "url": f"json://127.0.0.1:{refusing()}/", "events": ["committed"]},
            {"name": "deaf", "url": f"json://127.0.0.1:{deaf}/", "events": ["committed"]},
        ]
        try:
            past = Past(project, mails=box.mails, hooked=hook.got)
            _happens(past, base, receivers)
            yield past
        finally:
            project.remove()


BAD_NEWS = ("failed", "reverted")
HOOKS = {
    "ready": {"at": "pre-prepare", "command": ["test", "-e", "ready"], "moves": ["forward"]},
    "page": {
        "at": "post-revert",
        "command": ["sh", "-c", "cat; echo; echo paged somebody; exit 7"],
        "secrets": ["DB_PASSWORD"],
    },
}


def _happens(past: Past, base: Path, receivers: list[dict[str, str]]) -> None:
    project = past.project
    (project.folder / "app.py").write_text(SAYS + (project.folder / "app.py").read_text())
    (project.folder / "uploads").mkdir()
    project.compose_file(
        a='      VERSION: "1"=>      VERSION: "1"\n      DB_PASSWORD: "${DB_PASSWORD}"\n'
        f'      API_TOKEN: "{PLAIN}"\n      CACHE: "redis://app:{PLAIN}@cache"\n'
        "    network_mode: bridge",
        c="\nvolumes:\n=>" + BESIDE.replace("IMAGE", python_image()) + "\nvolumes:\n",
        b="      - notes:/notes=>      - notes:/notes\n      - ./uploads:/uploads",
    )
    project.init()
    project.run("config", "set", "--secret", "--path", "secrets.DB_PASSWORD", FORMER)
    project.run("config", "set", "deadline", "4")
    project.run("config", "set", "--path", "incidents.limit", "1MiB")
    project.run("new", "one")
    project.up()
    project.note("of one")
    settings = project.folder / "Pulumi.prod.yaml"
    told = (
        f"config:\n  {project.name}:notify: {json.dumps(receivers)}\n"
        f"  {project.name}:hooks: {json.dumps(HOOKS)}\n"
    )
    settings.write_text(settings.read_text().replace("config:\n", told))
    project.run("config", "set", "--secret", "--path", "secrets.DB_PASSWORD", PASSWORD)
    project.compose_file(v='VERSION: "1"=>VERSION: "2"')
    project.run("new", "two")
    project.up(code=3)
    (project.folder / "ready").touch()
    project.up()
    project.note("of two")
    assert not past.folder.exists() or not [*past.folder.iterdir()], "going on is no incident"
    project.compose_file(v='VERSION: "2"=>VERSION: "3"\n      BROKEN: "the disk smells"')
    project.run("new", "three")
    project.up(code=4)
    past.came("reverted")
    project.run("rollback", "--yes", "--reason", f"customers wait; try {PASSWORD}")
    past.came("rollback")
    project.run("config", "rm", "notify")
    project.run("undo", "--yes", "--reason", "it was the network")
    past.came("undo")
    for point, what in (("switch.started kill", "crashed"), ("journal.remove kill", "late")):
        points = Failing(base / f"points-{what}", point)
        project.run("rollback", "prod-001", "--yes", "--reason", what, code=None, env=points.env)
        assert points.happened
        project.run("recover", code=None)
        past.came(what)


TOLD = {
    "the switch to prod-002 has begun": 2,
    "prod-002: hook ready (pre-prepare): ended with exit code 1": 1,
    "prod-002 is live": 1,
    "the switch to prod-003 has begun": 1,
    "prod-003 did not pass its proof; prod-002 is live, with its own data": 1,
    "the way back to prod-001 has begun": 1,
    "rolled back to prod-001": 1,
}


def test_the_team_is_told_of_all_of_it_by_mail_and_web_hook(past: Past) -> None:
    """Each message once, with the facts of the log; neither a receiver that is not there nor one
    that hangs failed a switch or held one up."""
    until(lambda: len(past.mails) == sum(TOLD.values()))
    until(lambda: len(past.hooked) == len(BAD_NEWS))
    begins = f"[{past.project.name}/prod] "
    mails = {subject.removeprefix(begins): body for subject, body in past.mails}
    assert mails.keys() == TOLD.keys()
    bad = {said for said in TOLD if "hook ready" in said or "did not pass" in said}
    assert {message["title"].removeprefix(begins) for message in past.hooked} == bad
    name = past.project.name
    for title, facts in {
        "prod-002 is live": (
            f"notes ({name}-prod_notes_g1) as prod-001 left it",
            "lockstep undo   goes back to prod-001, with that data",
        ),
        "prod-003 did not pass its proof; prod-002 is live, with its own data": (
            "the health check of app",
            f"Downtime measured: {past.document('reverted')['downtime_seconds']:.2f} s",
            f"lockstep incident show {past.ids['reverted']}   names each snapshot",
            f"releases/incidents/{past.ids['reverted']}",
            f"lockstep config set retry {name}-prod-003",
            f"notes ({name}-prod_notes_g3)",
        ),
        "rolled back to prod-001": (
            "customers wait; try ***",
            f"Downtime measured: {past.document('rollback')['downtime_seconds']:.2f} s",
            f"notes ({name}-prod_notes_g2) as prod-002 left it",
            "lockstep undo   goes back to prod-002, with that data",
        ),
    }.items():
        assert [fact for fact in facts if fact not in mails[title]] == []
    entries = past.project.run("notify", "log", "--json").json()["entries"]
    results = {(e["event"], e["to"]): e["result"] for e in entries}
    assert results["quarantined", "mail"] == results["quarantined", "hook"] == "sent"
    assert "sent" not in (results["committed", "gone"], results["committed", "deaf"])


def test_what_hooks_did_after_the_revert_is_in_the_incident(past: Past) -> None:
    """Also after a crash, masked; the folder's text names them, and all that they said is there."""
    for what in ("reverted", "crashed"):
        document, text = past.document(what), past.readme(what)
        after = next(hook for hook in document["hooks"] if hook["name"] == "page")
        assert (after["at"], after["result"]) == ("post-revert", "failed")
        line = "page (post-revert) failed: ended with exit code 7: paged somebody"
        assert line in text
        assert line in past.project.run("incident", "show", past.ids[what]).out
        assert "hooks.jsonl" in document["files"]
        lines = (past.named(what) / "hooks.jsonl").read_text().splitlines()
        said = [json.loads(each) for each in lines]
        (page,) = [each for each in said if each["name"] == "page"]
        assert '"DB_PASSWORD": "***"' in page["output"]


def test_a_revert_can_be_understood_from_its_folder_alone(past: Past) -> None:
    document, text = past.document("reverted"), past.readme("reverted")
    assert (document["schema"], document["kind"]) == (1, "reverted")
    assert (document["from"]["release"], document["to"]["release"]) == ("prod-002", "prod-003")
    assert document["live"]["release"] == "prod-002"
    assert "the switch to prod-003 was reverted; prod-002 was live afterwards" in text.lower()
    assert "health check of app" in text
    for fact in (
        f"commands are typed there in {past.project.folder}",
        f'prod-002 (world {past.project.name}-prod-002), "two"',
        f'prod-003 (world {past.project.name}-prod-003), "three"',
        "What differs between prod-002 and prod-003:",
        "services.app.environment.VERSION: '2' -> '3'",
        "notes: prod-003 got a fork of it; prod-002 has its own, as it left it",
        "uploads: changed in place for prod-003; what it was before was put back",
    ):
        assert fact in text
    assert document["who"]
    assert document["who"] in text
    assert document["outcome"]["steps"].keys() >= {"prepare", "stop", "start", "prove"} - {"prove"}
    plan = json.loads((past.named("reverted") / "plan.json").read_text())
    assert (plan["move"], plan["target"]) == ("forward", "prod-003")
    ps = (past.named("reverted") / "ps.txt").read_text()
    for world in ("prod-002", "prod-003"):
        assert f"{past.project.name}-{world}-app-1" in ps
    assert "before anything was stopped" in ps
    assert "when it had failed" in ps


def test_it_has_what_was_there_while_the_worlds_ran(past: Past) -> None:
    """Stats of the old world while it ran and of the failed one before it was stopped; the host's
    memory and disk; Docker's events; the logs of both since the last switch."""
    folder, name = past.named("reverted"), past.project.name
    for moment, world in (("before", "prod-002"), ("failing", "prod-003")):
        seen = json.loads((folder / f"{moment}.json").read_text())
        (app,) = [c for c in seen["worlds"][f"{name}-{world}"] if c["service"] == "app"]
        assert app["state"] == "running"
        late = any(f"stats of {app['name']}" in why for why in past.document("reverted")["missing"])
        assert late or app["stats"]["memory_bytes"] > 0, "nobody waits long for it, but it is said"
        assert seen["host"]["memory"]["available_bytes"] > 0
        assert seen["host"]["disk"]["docker"]["free_bytes"] > 0
        inspect = json.loads((folder / "inspect" / f"{moment}-{name}-{world}.json").read_text())
        assert inspect[0]["Config"]["Image"]
    actions = {
        (event["name"], event["action"])
        for event in map(json.loads, (folder / "events.jsonl").read_text().splitlines())
    }
    assert (f"{name}-prod-003-app-1", "start") in actions
    assert (f"{name}-prod-003-app-1", "die") in actions
    logs = {
        log["world"]: log for log in past.document("reverted")["logs"] if log["service"] == "app"
    }
    assert all(log["whole"] for log in logs.values())
    assert logs.keys() == {f"{name}-prod-002", f"{name}-prod-003"}
    said = gzip.decompress((folder / logs[f"{name}-prod-003"]["file"]).read_bytes()).decode()
    assert "I am version 3" in said


def test_what_is_cut_or_could_not_be_had_is_said(past: Past) -> None:
    """A log that is longer than may be kept, and one that Docker cannot read."""
    document, text = past.document("reverted"), past.readme("reverted")
    long = [log for log in document["logs"] if log["service"] == "noisy"]
    assert len(long) == 2
    assert all(0 < log["lines"] < 5000 and not log["whole"] for log in long)
    assert sum(p.stat().st_size for p in past.named("reverted").rglob("*.*")) < 1 << 20
    kept = gzip.decompress((past.named("reverted") / long[0]["file"]).read_bytes()).decode()
    assert kept.splitlines()[-1].endswith("06000"), "the newest lines are kept"
    left = f"{long[0]['file']}: the newest {long[0]['lines']} lines; older ones were left out"
    assert left in text
    mute = [why for why in document["missing"] if "log" in why]
    assert mute, "the log of mute"
    assert all("mute" in why and why in text for why in mute)


def test_what_the_failed_world_wrote_can_be_had_by_the_command_that_is_named(past: Past) -> None:
    """In its own volume as well as in place: the live world has none of it, the store has it."""
    document = past.document("reverted")
    data = {entry["dataset"]: entry for entry in document["data"]}
    assert data.keys() == {"notes", "uploads"}
    for name, file in (("notes", "notes.txt"), ("uploads", "list.txt")):
        assert data[name]["command"] in past.readme("reverted")
        words = data[name]["command"].split()[1:]
        past.project.run(*words)
        place = past.project.folder / words[-1]
        assert "by the failed one" in (place / file).read_text()
    assert "by the failed one" not in "".join(past.project.notes())
    assert not (past.project.folder / "uploads" / "list.txt").exists()


@pytest.mark.parametrize(
    ("what", "between"),
    [("rollback", ("prod-002", "prod-001")), ("undo", ("prod-001", "prod-002"))],
)
def test_going_back_is_an_incident_with_its_reason(
    past: Past, what: str, between: tuple[str, str]
) -> None:
    document, text = past.document(what), past.readme(what)
    reason = {"rollback": "customers wait; try ***", "undo": "it was the network"}[what]
    assert (document["kind"], document["operator_reason"]) == (what, reason)
    assert (document["from"]["release"], document["to"]["release"]) == between
    assert reason in text
    (left,) = [entry for entry in document["data"] if entry["dataset"] == "notes"]
    assert left["snapshot"], "what was left is in the store by then"
    before = json.loads((past.named(what) / "before.json").read_text())
    left_world = before["worlds"][document["from"]["world"]]
    assert {c["service"] for c in left_world} == {"app", "noisy", "mute"}
    assert all("stats" in c for c in left_world)
    entry = next(e for e in past.project.entries() if e["incident"] == past.ids[what])
    assert entry["operator_reason"] == reason
    (log,) = entry["logs"]
    assert Path(log).name.startswith("rollback-")
    steps = [json.loads(line).get("step") for line in (past.project.folder / log).open()]
    assert [s for s in steps if s] == ["prepare", "stop", "start", "prove", "commit"]
    history = past.project.run("stack", "history", "--json").json()["entries"]
    assert any(e["message"].endswith(f": {reason}") for e in history)


def test_a_crash_leaves_an_incident_too(past: Past) -> None:
    """The machine's end in the middle of a switch, and between its outcome and its incident."""
    crashed = past.document("crashed")
    logs = crashed["outcome"]["logs"]
    assert [name.partition("-")[0] for name in logs] == ["rollback", "recover"]
    assert (crashed["kind"], crashed["interrupted"], crashed["asked"]) == (
        "reverted",
        True,
        "rollback",
    )
    assert "was interrupted" in past.readme("crashed")
    assert (past.named("crashed") / "before.json").exists(), "from before the crash"
    assert (past.named("crashed") / "logs").is_dir()
    assert past.document("late")["kind"] == "rollback"
    assert past.document("late")["operator_reason"] == "late"
    assert [p.name for p in past.folder.glob(".*")] == [], "nothing is left half gathered"


def test_no_secret_is_in_an_incident_or_its_export(past: Past, tmp_path: Path) -> None:
    """Neither one of today, nor one that the config does not hold any more, nor what only looks
    like one: searched in every file, unpacked, and in both kinds of export."""
    found = []
    for what in past.ids:
        for path in past.named(what).rglob("*.*"):
            content = path.read_bytes()
            content = gzip.decompress(content) if path.suffix == ".gz" else content
            found += [(str(path), value) for value in GIVEN if value.encode() in content]
        for kind in ("zip", "tar.gz"):
            target = tmp_path / f"{what}.{kind}"
            incidents.export(incidents.Incident(past.named(what), past.document(what)), target)
            assert target.stat().st_mode & 0o777 == 0o600
            for name, content in _unpacked(target):
                content = gzip.decompress(content) if name.endswith(".gz") else content
                found += [(f"{target}:{name}", v) for v in GIVEN if v.encode() in content]
    assert found == []
    said = next(past.named("reverted").rglob("logs/*prod-003*/*-app-*.gz"))
    assert "with ***" in gzip.decompress(said.read_bytes()).decode()


def _unpacked(path: Path) -> Iterator[tuple[str, bytes]]:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            yield from ((name, archive.read(name)) for name in archive.namelist())
        return
    with tarfile.open(path) as tar:
        for member in tar:
            file = tar.extractfile(member) or io.BytesIO()
            yield member.name, file.read()


def test_incidents_are_private(past: Past) -> None:
    paths = [past.folder, *past.folder.rglob("*")]
    assert {oct(p.stat().st_mode & 0o777) for p in paths if p.is_dir()} == {"0o700"}
    assert {oct(p.stat().st_mode & 0o777) for p in paths if p.is_file()} == {"0o600"}


def test_the_commands_list_show_and_note(past: Past) -> None:
    run = past.project.run
    listed = run("incident", "list", "--json").json()
    assert [i["id"] for i in listed["incidents"]] == [*reversed(past.ids.values())]
    assert all(i["kept_because"] for i in listed["incidents"])
    assert listed["damaged"] == {}
    assert past.ids["undo"] in run("incident", "list", "-n", "3").out
    made = run("incident", "export", "--json").json()
    assert Path(made["file"]).stat().st_size == made["bytes"]
    noted = run("incident", "note", f"see 4711 {PASSWORD}", "--of", "prod-003", "--json").json()
    assert (noted["incident"], noted["text"]) == (past.ids["reverted"], "see 4711 ***")
    shown = run("incident", "show", "prod-003").out
    assert "see 4711" in shown
    assert "see 4711" in past.readme("reverted")
    document = run("incident", "show", past.ids["reverted"], "--json").json()
    assert document["remarks"][0]["text"] == "see 4711 ***"
    assert document["folder"] == str(past.named("reverted"))


def test_prune_tells_why_each_stays(past: Past) -> None:
    things = past.project.run("prune", "--json").json()["things"]
    told = {thing["name"]: thing for thing in things if thing["kind"] == "incident"}
    assert told.keys() == set(past.ids.values())
    assert not any(thing["goes"] for thing in told.values())
    world = f"{past.project.name}-prod-002"
    assert f"its world {world} is still kept" in told[past.ids["late"]]["why"]


def test_bad_input_is_told_as_such(past: Past) -> None:
    run = past.project.run
    assert "there is no incident nowhere" in run("incident", "show", "nowhere", code=2).err
    assert "are named like" in run("incident", "show", "20", code=2).err
    assert ".zip or .tar.gz" in run("incident", "export", "-o", "what.rar", code=2).err


def test_a_damaged_incident_does_not_hide_the_others(past: Past) -> None:
    path = past.named("late") / "incident.json"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    try:
        listed = past.project.run("incident", "list", "--json").json()
        assert len(listed["incidents"]) == len(past.ids) - 1
        assert past.ids["late"] in listed["damaged"]
        assert (
            "cannot be read" in past.project.run("incident", "show", past.ids["late"], code=1).err
        )
    finally:
        path.write_bytes(whole)
