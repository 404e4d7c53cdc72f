"""Compose files and texts that want more than they may, on a live stack, by the command."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from reconciler.records.release import ConfigFile, Release
from tests.stacks.harness import Project, live_notes

NASTY = {
    "A": "$(touch pwned)`touch pwned`; touch pwned #",
    "B": "line 1\nVERSION: hacked\n- x: {y: [z",
    "C": "${HOME} $HOME %s {{.ID}} \\n \"quoted\" 'single'",
    "D": "--rm -v /:/host",
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    with live_notes(tmp_path_factory.mktemp("dangers") / "notes") as project:
        yield project


@pytest.fixture
def live(shared: Project) -> Iterator[Project]:
    """The project with a live release; afterwards it has its compose file and release again."""
    text = (shared.folder / "compose.yaml").read_text()
    yield shared
    (shared.folder / "compose.yaml").write_text(text)
    shared.declare(str(shared.live()))


def test_fault_65_a_service_gets_what_the_config_allows_and_nothing_else(live: Project) -> None:
    """A service asks for docker.sock and SYS_PTRACE: `new` refuses with file, line and key; what
    is allowed by name is recorded; when it is not allowed any more, `up` refuses and the old
    release goes on."""
    before = live.containers()
    live.compose_file(
        a="    volumes:\n=>    cap_add: [SYS_PTRACE]\n    volumes:\n"
        "      - /var/run/docker.sock:/var/run/docker.sock\n"
    )
    text = (live.folder / "compose.yaml").read_text()
    line = 1 + text.splitlines().index("      - /var/run/docker.sock:/var/run/docker.sock")
    ran = live.run("new", "wants too much", code=3)
    assert f"(compose.yaml, line {line})" in ran.err
    assert "app.bind:/var/run/docker.sock" in ran.err
    assert "gets the capability SYS_PTRACE" in ran.err
    live.compose_file(b="      - /var/run/docker.sock:/var/run/docker.sock\n=>")
    live.run("config", "set", "--path", "allow[0]", "app.cap:SYS_PTRACE")
    name = live.new("what is allowed")
    live.run("config", "rm", "allow")
    ran = live.up(code=3)
    assert "lockstep config set --path 'allow[0]' app.cap:SYS_PTRACE" in ran.text
    assert live.containers() == before
    live.run("config", "set", "--path", "allow[0]", "app.cap:SYS_PTRACE")
    live.up()
    assert live.live() == name


def test_fault_62_63_attacks_in_every_text_stay_text(live: Project) -> None:
    """$(...), backticks, ;, newlines, YAML and options in values, secrets, file names and the
    description: the container gets exactly these values, and nothing was run or changed."""
    file = "$(touch pwned);`id`.toml"
    (live.folder / file).write_text("settings")
    doubled = {key: value.replace("$", "$$") for key, value in NASTY.items()}
    body = "".join(f"      {key}: {json.dumps(value)}\n" for key, value in doubled.items())
    mount = json.dumps(f"./{file}:/settings.toml:ro".replace("$", "$$"))
    live.compose_file(
        a=f"    environment:\n=>    environment:\n{body}",
        b=f"    volumes:\n=>    volumes:\n      - {mount}\n",
    )
    name = live.new("$(touch pwned)\n- x: `touch pwned`")
    live.up()
    for key, value in NASTY.items():
        assert live.get(f"/{key}") == value
    assert live.get("/settings") == "settings"
    assert list(live.folder.rglob("pwned")) == []
    assert live.notes() == ["a"]
    info = live.run("info", name, "--json").json()
    assert "touch pwned" in json.dumps(info)


@pytest.mark.parametrize(
    "path", ["../../etc/cron.d/x", "/srv/../etc/cron.d/x", "/srv//x", "/srv/x\0y", "", "etc/x"]
)
def test_fault_64_attack_a_config_file_that_leads_elsewhere(path: str) -> None:
    """A record names a config file ../../etc/cron.d/x, or one with detours: the record is not
    valid, so nothing is laid anywhere."""
    with pytest.raises(ValueError, match="path"):
        ConfigFile(path=path, sha256="0" * 64)
    with pytest.raises(ValueError, match="sha256"):
        ConfigFile(path="/srv/x", sha256="../../../etc/passwd")


@pytest.mark.parametrize("name", ["..", "-rf", "prod-1", "../prod-001", "prod-001\n", "x" * 99])
def test_attack_names_a_record_that_is_called_something_else(name: str) -> None:
    """A record calls its release .., -rf or a path: it is not valid and counts as damaged."""
    with pytest.raises(ValueError, match="name"):
        Release(name=name, parent=None, created="", model={}, images={}, datasets={})


def test_attack_names_a_tampered_record_lays_no_file_outside(live: Project) -> None:
    """Somebody edits the next release's record so that a config file goes to ../../../pwned: `up`
    calls the record damaged, and nothing is written there."""
    live.compose_file(v='VERSION: "1"=>VERSION: "2"')
    name = live.new("two")
    record = live.folder / "releases" / name / "release-info.json"
    value = json.loads(record.read_text())
    for config in value["configs"].values():
        config["path"] = "/../../../../pwned"
    record.write_text(json.dumps(value))
    before = live.containers()
    ran = live.up(code=3)
    assert "damaged" in ran.text
    assert live.containers() == before
    assert [*live.folder.rglob("pwned")] == []


def test_attack_names_a_folder_becomes_a_link_to_the_host(live: Project) -> None:
    """After `new` has recorded it, a mounted folder of the project is exchanged for a link to
    /etc: `up` looks again, refuses, and the old release goes on."""
    folder = live.folder / "conf"
    folder.mkdir()
    (folder / "big").write_bytes(b"x" * (17 << 20))
    live.compose_file(a="    volumes:\n=>    volumes:\n      - ./conf:/conf:ro\n")
    live.new("with a folder")
    (folder / "big").unlink()
    folder.rmdir()
    folder.symlink_to("/etc")
    before = live.containers()
    ran = live.up(code=3)
    assert "which belongs to the host (/etc)" in ran.text
    assert live.containers() == before
