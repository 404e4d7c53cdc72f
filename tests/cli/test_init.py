"""A folder becomes a project: what is made, what stays, how the config is kept usable."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from cli import initialize
from cli.envfile import LOOKS_SECRET, read_env, secrets_in
from cli.folder import compose_name
from cli.initialize import virtual_environment
from reconciler.config import Settings
from tests.documents import insist

ROOT = Path(__file__).resolve().parent.parent.parent
COMPOSE = """
name: r3init
services:
  web:
    image: lockstep-none/web:1
    environment: {DB_PASSWORD: "${DB_PASSWORD}"}
    volumes: ["files:/files", "./up:/up", "./web.conf:/web.conf:ro"]
volumes:
  files:
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a compose project that nobody ever started."""
    return a_compose_project(tmp_path / "shop")


def a_compose_project(root: Path) -> Path:
    root.mkdir()
    (root / "compose.yaml").write_text(COMPOSE)
    (root / "web.conf").write_text("x = 1\n")
    (root / ".env").write_text("DB_PASSWORD=hunter2\nWEB_PORT=80\n")
    (root / ".gitignore").write_text("*.log\n")
    return root


def lockstep(
    folder: Path, *words: str, stdin: str | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PULUMI_", "LOCKSTEP_"))}
    return subprocess.run(
        [sys.executable, "-m", "cli.main", *words],
        cwd=folder,
        env={
            **kept,
            "PYTHONPATH": str(ROOT),
            "LOCKSTEP_ENGINE": "embedded",
            "PULUMI_HOME": str(folder.parent / "pulumi-home"),
            **environment,
        },
        input=stdin or "",
        capture_output=True,
        text=True,
        timeout=60,
    )


def tree(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file below the folder: mode and content."""
    return {
        str(p.relative_to(folder)): (p.stat().st_mode, p.read_bytes())
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


@pytest.fixture(scope="session")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which `init` was run."""
    root = a_compose_project(tmp_path_factory.mktemp("init") / "shop")
    ran = lockstep(root, "init", "--yes")
    assert ran.returncode == 0, ran.stderr
    return root


@pytest.fixture
def made(first: Path, tmp_path: Path) -> Path:
    """The same, to be changed by one test."""
    return Path(shutil.copytree(first, tmp_path / "shop"))


def test_init_without_a_terminal_and_without_yes_changes_nothing(folder: Path) -> None:
    before = tree(folder)
    ran = lockstep(folder, "init")
    assert ran.returncode == 2
    assert "--yes" in ran.stderr
    assert tree(folder) == before


def test_init_in_a_folder_without_a_compose_file(tmp_path: Path) -> None:
    ran = lockstep(tmp_path, "init", "--yes")
    assert ran.returncode == 2
    assert "there is no compose file" in ran.stderr
    assert list(tmp_path.iterdir()) == []


def test_init_says_what_it_found_and_made(folder: Path) -> None:
    ran = lockstep(folder, "init", "--yes")
    assert ran.returncode == 0
    for text in (
        "services: web",
        "dataset files (web:/files)\n  driver directory: any files",
        "  forked: a new release works on a copy\ndataset up (web:/up)",
        "  in place: it is a directory of the host",
        "proof: no service has a health check or a gate, and none publishes a port",
        "free for volumes at",
        "nothing of project r3init",
        "lockstep new",
    ):
        assert text in ran.stderr, ran.stderr
    assert "Pulumi.prod.yaml" in ran.stdout
    assert "secrets.DB_PASSWORD, encrypted" in ran.stdout
    assert "hunter2" not in ran.stdout + ran.stderr


def test_what_init_made(made: Path) -> None:
    assert (made / "__main__.py").read_text() == (ROOT / "__main__.py").read_text()
    project = yaml.safe_load((made / "Pulumi.yaml").read_text())
    ours = yaml.safe_load((ROOT / "Pulumi.yaml").read_text())
    assert project["name"] == "r3init"
    assert project["config"].keys() == ours["config"].keys()
    assert {k: v["default"] for k, v in project["config"].items()} == {
        k: v["default"] for k, v in ours["config"].items()
    }
    assert (project["backend"], project["runtime"]["name"]) == (ours["backend"], "python")
    assert (made / ".gitignore").read_text() == "*.log\nreleases/\n.lockstep/\n.pulumi/\n"
    assert (made / ".lockstep").stat().st_mode & 0o777 == 0o700
    assert (made / ".lockstep" / "passphrase").stat().st_mode & 0o777 == 0o600
    assert len((made / ".lockstep" / "passphrase").read_text().strip()) >= 40
    assert (made / ".pulumi" / "stacks" / "r3init" / "prod.json").exists()
    settings = (made / "Pulumi.prod.yaml").read_text()
    assert "encryptionsalt" in settings
    assert "hunter2" not in settings
    modeline, title = settings.splitlines()[:2]
    assert modeline == "# yaml-language-server: $schema=lockstep.schema.json"
    assert title.startswith("# What the stack prod declares")
    schema = json.loads((made / "lockstep.schema.json").read_text())
    keys = schema["properties"]["config"]["properties"]
    assert keys.keys() == {f"r3init:{name}" for name in Settings.model_fields}
    assert schema["$defs"].keys() >= {"Gate", "DatasetSetting", "Wish"}


def test_the_secret_can_be_read_again(made: Path) -> None:
    ran = lockstep(made, "config", "get", "secrets.DB_PASSWORD")
    assert (ran.returncode, ran.stdout) == (0, "hunter2\n")
    shown = lockstep(made, "config")
    assert "hunter2" not in shown.stdout
    assert "[secret]" in shown.stdout
    document = json.loads(lockstep(made, "config", "--json").stdout)
    assert document["config"]["r3init:secrets"] == {"DB_PASSWORD": "[secret]"}
    open_ = json.loads(lockstep(made, "config", "--json", "--show-secrets").stdout)
    assert open_["config"]["r3init:secrets"] == {"DB_PASSWORD": "hunter2"}


def test_pulumi_means_the_new_stack_without_being_told(folder: Path) -> None:
    assert lockstep(folder, "init", "--yes").returncode == 0
    home = {"PULUMI_HOME": str(folder.parent / "pulumi-home")}
    asked = subprocess.run(
        [sys.executable, "-m", "cli.pulumi", "stack", "ls", "--json"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "LOCKSTEP_ENGINE": "embedded", **home},
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert [(s["name"], s["current"]) for s in json.loads(asked.stdout)] == [("prod", True)]
    assert lockstep(folder, "init", "--stack", "test", "--yes").returncode == 0
    assert lockstep(folder, "config", "get", "window", "--stack", "test").returncode == 0
    chosen = next((folder.parent / "pulumi-home" / "workspaces").iterdir())
    assert json.loads(chosen.read_text()) == {"stack": "prod"}


def test_init_tells_a_program_what_it_found_and_made_and_why(folder: Path) -> None:
    ran = lockstep(folder, "init", "--yes", "--json")
    document = json.loads(ran.stdout)
    insist(["init"], document)
    assert (document["project"], document["stack"]) == ("r3init", "prod")
    assert (document["services"], document["running"], document["adopts"]) == (["web"], [], None)
    files, up = document["datasets"]
    assert (files["name"], files["mounts"], files["strategy"]) == ("files", ["web:/files"], "fork")
    assert files["driver_because"].startswith("any files")
    assert (up["name"], up["strategy"]) == ("up", "in-place")
    assert document["proof"]["by"] == []
    for made in document["made"]:
        assert (folder / made["file"]).exists(), made
    assert "secrets.DB_PASSWORD, encrypted" in str(document["made"])
    assert any("lockstep new" in line for line in document["next"])
    assert "to be made:" in ran.stderr
    assert "hunter2" not in ran.stdout + ran.stderr
    again = json.loads(lockstep(folder, "init", "--json").stdout)
    insist(["init"], again)
    assert (again["made"], again["next"], again["datasets"]) == ([], [], document["datasets"])


def test_init_again_changes_nothing(made: Path) -> None:
    before = tree(made)
    ran = lockstep(made, "init")
    assert ran.returncode == 0, ran.stderr
    assert "nothing was changed" in ran.stdout
    assert tree(made) == before


def test_init_completes_what_is_missing_and_keeps_the_rest(made: Path) -> None:
    before = tree(made)
    (made / "__main__.py").unlink()
    (made / ".env").write_text("DB_PASSWORD=other\nAPI_TOKEN=t0ken\n")
    ran = lockstep(made, "init", "--yes")
    assert ran.returncode == 0, ran.stderr
    after = tree(made)
    assert after["__main__.py"] == before["__main__.py"]
    assert after[".lockstep/passphrase"] == before[".lockstep/passphrase"]
    get = ("config", "get", "secrets.DB_PASSWORD")
    assert lockstep(made, *get).stdout == "hunter2\n", "a secret that is set is not replaced"
    assert lockstep(made, "config", "get", "secrets.API_TOKEN").stdout == "t0ken\n"


def test_a_second_stack(made: Path) -> None:
    ran = lockstep(made, "init", "--stack", "test", "--yes")
    assert ran.returncode == 0, ran.stderr
    assert lockstep(made, "stack", "ls").stdout == "  prod\n  test\n"
    ran = lockstep(made, "list")
    assert ran.returncode == 2
    assert "several stacks: prod, test" in ran.stderr
    assert lockstep(made, "list", "-s", "test").returncode == 0
    assert lockstep(made, "list", PULUMI_STACK="test").returncode == 0


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--name", "Bad Name"], "cannot be the name of a compose project"),
        (["--stack", "Prod!"], "cannot name releases"),
    ],
)
def test_names_that_cannot_be_used(folder: Path, words: list[str], text: str) -> None:
    before = tree(folder)
    ran = lockstep(folder, "init", "--yes", *words)
    assert ran.returncode == 2
    assert text in ran.stderr
    assert tree(folder) == before


def test_another_name_than_the_project_has(made: Path) -> None:
    ran = lockstep(made, "init", "--yes", "--name", "other")
    assert ran.returncode == 2
    assert "calls this project r3init" in ran.stderr


def test_a_passphrase_of_the_user_is_used(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("my own passphrase\n")
    own = {"PULUMI_CONFIG_PASSPHRASE_FILE": str(tmp_path / "mine")}
    assert lockstep(folder, "init", "--yes", **own).returncode == 0
    assert not (folder / ".lockstep" / "passphrase").exists()
    assert lockstep(folder, "config", "get", "secrets.DB_PASSWORD", **own).stdout == "hunter2\n"
    ran = lockstep(folder, "list", PULUMI_CONFIG_PASSPHRASE="wrong")
    assert ran.returncode == 1
    assert "incorrect passphrase" in ran.stderr


def test_a_clone_without_its_passphrase_gets_no_other_one(made: Path) -> None:
    """A new passphrase could not open the secrets that are there."""
    shutil.rmtree(made / ".lockstep")
    shutil.rmtree(made / ".pulumi")
    before = tree(made)
    ran = lockstep(made, "init", "--yes")
    assert ran.returncode == 2
    assert "encrypted with a passphrase that is not here" in ran.stderr
    assert str(made / ".lockstep" / "passphrase") in ran.stderr
    assert tree(made) == before


def test_a_project_whose_compose_file_lies_elsewhere(folder: Path) -> None:
    """As in a repository with Pulumi.yaml at its top and settings that name the folder."""
    top = folder.parent
    (top / "Pulumi.yaml").write_text(
        "name: r3init\nruntime: python\nbackend: {url: file://.}\nconfig: {compose: {default: .}}\n"
    )
    (top / "Pulumi.prod.yaml").write_text("config:\n  r3init:compose: shop\n")
    (top / ".gitignore").write_text("/releases\n.pulumi")
    ran = lockstep(top, "init", "--yes")
    assert ran.returncode == 0, ran.stderr
    assert "services: web" in ran.stderr
    assert lockstep(top, "config", "get", "secrets.DB_PASSWORD").stdout == "hunter2\n"
    assert lockstep(top, "config", "get", "compose").stdout == "shop\n"
    assert (top / ".gitignore").read_text() == "/releases\n.pulumi\n.lockstep/\n"
    assert "nothing was changed" in lockstep(top, "init", "--yes").stdout


# config ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["windo", "3"], 2, "there is no setting windo; the nearest is window"),
        (["window", "0"], 2, "window.last"),
        (["data", "sometimes"], 2, "config data of stack prod"),
        (["gates.web.http.prot", "80"], 2, "gates.web.http"),
        (["release", "prod-001"], 2, "there is no release prod-001"),
        (["release", "--", "-rf"], 2, "is not a release name"),
        (["r3init:windo", "3"], 2, "the nearest is window"),
    ],
)
def test_a_setting_that_cannot_be_used_is_refused_and_nothing_changes(
    made: Path, words: list[str], code: int, text: str
) -> None:
    before = tree(made)
    ran = lockstep(made, "config", "set", *words)
    assert ran.returncode == code
    assert text in ran.stderr
    assert tree(made) == before


def test_settings_are_set_and_removed(made: Path) -> None:
    assert lockstep(made, "config", "set", "window", "5").returncode == 0
    assert lockstep(made, "config", "get", "window").stdout == "5\n"
    assert lockstep(made, "config", "set", "gates.web.http.port", "8080").returncode == 0
    assert lockstep(made, "config", "set", "--path", "gates.web.http.path", "/up").returncode == 0
    found = json.loads(lockstep(made, "config", "get", "gates", "--json").stdout)
    assert found == {"schema": 1, "value": {"web": {"http": {"port": 8080, "path": "/up"}}}}
    assert lockstep(made, "config", "rm", "gates.web").returncode == 0
    assert lockstep(made, "config", "get", "gates.web").returncode == 1
    assert lockstep(made, "config", "set", "docker:host", "unix:///x").returncode == 0
    assert lockstep(made, "config", "get", "docker:host").stdout == "unix:///x\n"
    assert "# What the stack prod declares" in (made / "Pulumi.prod.yaml").read_text()


def test_everything_under_secrets_is_encrypted_also_from_standard_input(made: Path) -> None:
    assert lockstep(made, "config", "set", "secrets.A", "plain-a").returncode == 0
    assert lockstep(made, "config", "set", "secrets.B", stdin="plain-b\n").returncode == 0
    text = (made / "Pulumi.prod.yaml").read_text()
    assert "plain-" not in text
    assert lockstep(made, "config", "get", "secrets.A").stdout == "plain-a\n"
    assert lockstep(made, "config", "get", "secrets.B").stdout == "plain-b\n"


def test_a_program_is_told_what_a_setting_was_and_is_and_never_a_secret(made: Path) -> None:
    def changed(*words: str, stdin: str | None = None) -> tuple[object, object, bool]:
        document = json.loads(lockstep(made, "config", *words, "--json", stdin=stdin).stdout)
        insist(["config", words[0]], document)
        assert document["key"] == words[1]
        return document["old"], document["new"], document["secret"]

    assert changed("set", "window", "5") == ("3", "5", False)
    assert changed("rm", "window") == ("5", None, False)
    assert changed("rm", "window") == (None, None, False)
    assert changed("set", "window.last", "4") == (None, 4, False)
    assert changed("set", "secrets.A", stdin="plain-a") == (None, "[secret]", True)
    assert changed("set", "secrets.A", stdin="plain-b") == ("[secret]", "[secret]", True)
    assert changed("rm", "secrets.A") == ("[secret]", None, True)
    assert changed("rm", "secrets") == ({"DB_PASSWORD": "[secret]"}, None, True)
    refused = lockstep(made, "config", "set", "windo", "3", "--json")
    assert (refused.returncode, refused.stdout) == (2, "")


# before anything was released --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["rollback", "--yes"], 2, "there is no release to go back to"),
        (["rollback", "prod-001", "--yes"], 2, "there is no release prod-001"),
        (["undo", "--yes"], 2, "there is nothing to undo"),
        (["info"], 2, "nothing is live yet"),
        (["info", "prod-1"], 2, "is not a release name"),
        (["diff"], 2, "nothing is live yet"),
        (["diff", "prod-001", "prod-002"], 2, "there is no release prod-001"),
        (["snapshot"], 2, "nothing is live yet"),
        (["compose", "ps"], 2, "nothing is live yet"),
        (["new", "x", "--image", "web"], 2, "expected SERVICE=REFERENCE"),
        (["new", "x", "--image", "a=1", "--image", "a=2"], 2, "names service a twice"),
        (["up"], 2, "no terminal"),
        (["stop"], 2, "no terminal"),
        (["cancel"], 2, "no terminal"),
        (["list", "--stack", "prdo"], 2, "the nearest is prod"),
        (["stack", "output", "nope"], 2, "has no output nope"),
    ],
)
def test_what_cannot_be_done_says_why(made: Path, words: list[str], code: int, text: str) -> None:
    before = tree(made)
    ran = lockstep(made, *words)
    assert (ran.returncode, "Traceback" in ran.stderr) == (code, False), ran.stderr
    assert text in ran.stderr
    assert tree(made) == before


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["list"], {"schema": 1, "live": None, "releases": []}),
        (["log"], {"schema": 1, "entries": [], "restored_by_others": []}),
        (["stack", "history"], {"schema": 1, "entries": []}),
        (["stack", "output"], {"schema": 1, "outputs": {}}),
        (["stack", "ls"], {"schema": 1, "stacks": [{"stack": "prod", "chosen": True}]}),
    ],
)
def test_documents_of_an_empty_stack(made: Path, words: list[str], wanted: object) -> None:
    ran = lockstep(made, *words, "--json")
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout) == wanted
    assert lockstep(made, *words).returncode == 0


def test_cancel_removes_a_lock(made: Path) -> None:
    lock = made / ".pulumi" / "locks" / "organization" / "r3init" / "prod" / "x.json"
    lock.parent.mkdir(parents=True)
    lock.write_text("{}")
    assert lockstep(made, "cancel", "--yes").returncode == 0
    assert not lock.exists()


def test_compose_commands_that_change_the_world_are_not_passed_on() -> None:
    from cli.host import check_harmless
    from reconciler.errors import BadInput

    for words in (["ps"], ["logs", "-f", "web"], ["exec", "web", "rm", "x"], []):
        assert check_harmless(words) == words
    for words in (["up", "-d"], ["--ansi=never", "down"], ["run", "web"]):
        with pytest.raises(BadInput, match="behind Lockstep's back"):
            check_harmless(words)


# pure parts --------------------------------------------------------------------------------------


def test_env_files(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text(
        "# comment\nA=1\nexport B = two words # not this\nC='it $is'\nD=\"x # y\"\n"
        "E=${A}-x\nF=\n=nothing\n1X=2\nG='open\nH=a#b\n"
    )
    assert read_env(path) == {
        "A": "1", "B": "two words", "C": "it $is", "D": "x # y", "F": "", "G": "'open", "H": "a#b",
    }  # fmt: skip
    assert read_env(tmp_path / "missing") == {}
    path.write_text("DB_PASSWORD=x\nAPI_TOKEN=\nPORT=1\n")
    assert secrets_in(path) == {"DB_PASSWORD": "x"}


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("DB_PASSWORD", True),
        ("STRIPE_SECRET", True),
        ("GH_TOKEN", True),
        ("API_KEY", True),
        ("KEY_ID", True),
        ("smtp_password", True),
        ("KEYBOARD", False),
        ("MONKEY", False),
        ("PORT", False),
        ("APP_VERSION", False),
    ],
)
def test_names_that_look_like_secrets(name: str, secret: bool) -> None:
    assert bool(LOOKS_SECRET.search(name)) is secret


def test_the_name_that_compose_would_use(tmp_path: Path) -> None:
    root = tmp_path / "My_Shop 2.0"
    root.mkdir()
    assert compose_name(root, {}) == "my_shop20"
    (root / "compose.yaml").write_text("name: named\nservices: {}\n")
    assert compose_name(root, {}) == "named"
    (root / ".env").write_text("COMPOSE_PROJECT_NAME=from-env\n")
    assert compose_name(root, {}) == "from-env"
    assert compose_name(root, {"COMPOSE_PROJECT_NAME": "outer"}) == "outer"
    (root / ".env").unlink()
    (root / "compose.yaml").write_text("name: ${X}\nservices: {}\n")
    assert compose_name(root, {}) == "my_shop20"
    (root / "compose.yaml").write_text("name: [\n")
    assert compose_name(root, {}) == "my_shop20"


def test_the_virtual_environment_that_pulumi_is_told_of(tmp_path: Path) -> None:
    inside, outside = tmp_path / "shop" / ".venv", tmp_path / "venv"
    for prefix in (inside, outside):
        prefix.mkdir(parents=True)
        (prefix / "pyvenv.cfg").write_text("")
    shop = tmp_path / "shop"
    assert virtual_environment(shop, inside).endswith("virtualenv: .venv")
    assert virtual_environment(shop, outside).endswith(f"virtualenv: {outside}")
    assert virtual_environment(shop, tmp_path) == ""


def test_templates_are_part_of_the_package() -> None:
    names = {path.name for path in initialize.TEMPLATES.iterdir() if path.is_file()}
    assert names == {"Pulumi.yaml", "Pulumi.stack.yaml", "__main__.py"}
    import tomllib

    package_data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert "templates/*" in package_data["package-data"]["cli"]
