"""`pulumi` without the official one: its calls, what it prints, and that it steps aside."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from cli import engines, pulumi
from setup import pulumi_command
from tests.engine.conftest import PASSPHRASE, Ground


@pytest.fixture
def here(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> Ground:
    monkeypatch.setenv("LOCKSTEP_ENGINE", "embedded")
    monkeypatch.setenv("PULUMI_HOME", str(ground.root / "home"))
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", PASSPHRASE)
    monkeypatch.chdir(ground.root)
    return ground


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a call prints, which must succeed."""
    capsys.readouterr()
    assert pulumi.main(arguments) == 0, capsys.readouterr().err
    return capsys.readouterr().out


def test_config_and_up_as_people_type_them(
    here: Ground, capsys: pytest.CaptureFixture[str]
) -> None:
    here.program("Thing('a', value=pulumi.Config().require('release'))\n")
    said(capsys, "stack", "select", "dev")
    said(capsys, "config", "set", "release", "prod-002")
    shown = said(capsys, "up", "--yes")
    assert "Previewing update (dev):" in shown
    assert "Updating (dev):" in shown
    assert json.loads(here.world.read_text()) == {"a": "prod-002"}
    assert said(capsys, "config", "get", "release") == "prod-002\n"
    preview = json.loads(said(capsys, "preview", "--json"))
    assert preview["changeSummary"] == {"same": 2}


def test_a_preview_as_json_lists_what_happens_and_why(
    here: Ground, capsys: pytest.CaptureFixture[str]
) -> None:
    here.program("Thing('a', force='1')\nThing('b', value='1')\n")
    said(capsys, "up", "-s", "dev", "--yes", "--skip-preview")
    here.program("Thing('a', force='2')\nThing('b', value='1')\npulumi.log.warn('look')\n")
    told = json.loads(said(capsys, "preview", "-s", "dev", "--json"))
    steps = [
        (s["op"], s["urn"].rpartition("::")[2], s.get("replaceReasons")) for s in told["steps"]
    ]
    assert steps == [("same", "shop-dev", None), ("replace", "a", ["force"])]
    assert told["steps"][1]["oldState"]["inputs"]["force"] == "1"
    # Each is told as it began; a replacement when its new object is there, which has no id yet.
    assert "id" not in told["steps"][1]["newState"]
    assert told["steps"][1]["newState"]["outputs"]["force"] == "2"
    assert "outputs" not in told["steps"][0]["newState"]
    assert told["diagnostics"] == [{"message": "warning: look\n", "severity": "warning"}]
    assert told["changeSummary"] == {"replace": 1, "same": 2}
    here.world.write_text(json.dumps({"gone": ["b-1"]}))
    read = json.loads(said(capsys, "preview", "-s", "dev", "--refresh", "--json"))["steps"]
    kinds = [(s["op"], s["urn"].rpartition("::")[2]) for s in read]
    assert sorted(kinds[:3]) == [("refresh", "a"), ("refresh", "b"), ("refresh", "shop-dev")]
    assert sorted(kinds[3:]) == [("create", "b"), ("replace", "a"), ("same", "shop-dev")]
    read = json.loads(said(capsys, "refresh", "-s", "dev", "--preview-only", "--json"))["steps"]
    kinds = [(s["op"], s["urn"].rpartition("::")[2]) for s in read]
    assert sorted(kinds) == [("delete", "b"), ("refresh", "a"), ("refresh", "shop-dev")]


def test_stacks_are_made_chosen_listed_and_removed(
    here: Ground, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said(capsys, "stack", "init", "other") == "Created stack 'other'\n"
    listed = json.loads(said(capsys, "stack", "ls", "--json"))
    assert [(s["name"], s["current"], s["resourceCount"]) for s in listed] == [
        ("dev", False, 0),
        ("other", True, 0),
    ]
    said(capsys, "stack", "select", "dev")
    rows = said(capsys, "stack", "ls").splitlines()
    assert rows[0].split("  ")[0] == "NAME"
    assert rows[1].startswith("dev*")
    assert said(capsys, "stack", "rm", "other", "--yes") == "Stack 'other' has been removed!\n"
    assert not (here.root / "Pulumi.other.yaml").exists()
    assert pulumi.main(["stack", "select", "other"]) == 6
    assert "no stack named 'other' found" in capsys.readouterr().err


def test_a_stack_with_resources_is_not_removed(
    here: Ground, capsys: pytest.CaptureFixture[str]
) -> None:
    here.program("Thing('a', value='1')\n")
    said(capsys, "up", "-s", "dev", "--yes", "--skip-preview")
    assert pulumi.main(["stack", "rm", "dev", "--yes"]) == 1
    assert "'dev' still has resources; removal rejected" in capsys.readouterr().err
    assert said(capsys, "destroy", "-s", "dev", "--yes")
    said(capsys, "stack", "rm", "dev", "--yes")


def test_an_export_with_its_secrets_is_imported(
    here: Ground, capsys: pytest.CaptureFixture[str]
) -> None:
    here.program("pulumi.export('v', pulumi.Output.secret({'k': 's3cret'}))\n")
    said(capsys, "up", "-s", "dev", "--yes", "--skip-preview", "--message", "the first")
    assert "s3cret" not in said(capsys, "stack", "export", "-s", "dev")
    exported = said(capsys, "stack", "export", "-s", "dev", "--show-secrets")
    root = json.loads(exported)["deployment"]["resources"][0]
    assert json.loads(root["outputs"]["v"]["plaintext"]) == {"k": "s3cret"}
    path = here.root / "exported.json"
    said(capsys, "stack", "export", "-s", "dev", "--file", str(path), "--show-secrets")
    assert path.stat().st_mode & 0o777 == 0o600
    assert said(capsys, "stack", "import", "-s", "dev", "--file", str(path)) == "Import complete.\n"
    assert said(capsys, "stack", "output", "-s", "dev", "v") == "[secret]\n"
    shown = said(capsys, "stack", "output", "-s", "dev", "v", "--show-secrets", "--json")
    assert json.loads(shown) == {"k": "s3cret"}
    history = said(capsys, "stack", "history", "-s", "dev")
    assert "UpdateKind: update\nStatus: succeeded\nMessage: the first\n" in history
    assert re.search(r"\+1-0~0 0 Updated .* took \d+s", history)


def test_only_the_targets_change(here: Ground, capsys: pytest.CaptureFixture[str]) -> None:
    here.program("Thing('a', value='1')\nThing('b', value='1')\n")
    said(capsys, "up", "-s", "dev", "--yes", "--skip-preview")
    here.program("Thing('a', value='2')\nThing('b', value='2')\nThing('c', value='2')\n")
    a = "urn:pulumi:dev::shop::pulumi-python:dynamic:Resource::a"
    said(capsys, "up", "-s", "dev", "--yes", "--skip-preview", "--target", a)
    assert json.loads(here.world.read_text()) == {"a": "2", "b": "1"}


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (["login"], "login"),
        (["up", "--yes", "--policy-pack", "x"], "--policy-pack"),
        (["watch"], "watch"),
    ],
)
def test_any_other_call_says_what_this_is(
    here: Ground, capsys: pytest.CaptureFixture[str], call: list[str], named: str
) -> None:
    here.program("Thing('a')\n")
    assert pulumi.main(call) == 1
    text = capsys.readouterr().err
    assert named in text
    assert "embedded engine, not the official Pulumi CLI" in text
    assert not here.world.exists()


def test_it_asks_for_consent_where_it_cannot_ask(
    here: Ground, capsys: pytest.CaptureFixture[str]
) -> None:
    here.program("Thing('a')\n")
    assert pulumi.main(["up", "-s", "dev", "--non-interactive"]) == 2
    assert "--yes or --skip-preview must be passed" in capsys.readouterr().err


def test_the_command_in_an_environment_is_not_taken_for_the_official_cli(tmp_path: Path) -> None:
    ours, official = tmp_path / "a" / "pulumi", tmp_path / "b" / "pulumi"
    for path, text in ((ours, pulumi_command.SCRIPT), (official, "#!/bin/sh\necho v3.260.0\n")):
        path.parent.mkdir()
        path.write_text(text)
        path.chmod(0o755)
    folders = os.pathsep.join(str(p.parent) for p in (ours, official))
    assert engines.find(folders, tmp_path) == official
    assert engines.find(str(ours.parent), tmp_path) is None


def test_set_up_puts_the_command_there_only_without_an_official_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere, command = tmp_path / "elsewhere", tmp_path / "bin" / "pulumi"
    elsewhere.mkdir()
    command.parent.mkdir()
    monkeypatch.setattr(pulumi_command, "BIN", command.parent)
    monkeypatch.setattr(pulumi_command, "COMMAND", command)
    monkeypatch.setenv("PATH", f"{command.parent}{os.pathsep}{elsewhere}")
    pulumi_command.ensure()
    assert command.read_text() == pulumi_command.SCRIPT
    assert os.access(command, os.X_OK)
    official = elsewhere / "pulumi"
    official.write_text("#!/bin/sh\n")
    official.chmod(0o755)
    pulumi_command.ensure()
    assert not command.exists()
