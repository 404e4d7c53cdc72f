"""docs/getting-started.md on a container that was started by hand: it becomes a compose project,
is adopted behind a fence, released, rehearsed, rolled back and brought forward again."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stacks.harness import Project, docker, python_image

VAULT = """
import http.server, os, signal, sqlite3, sys

db = sqlite3.connect("/data/vault.sqlite3", check_same_thread=False, isolation_level=None)
db.execute("PRAGMA journal_mode=WAL")
db.execute("create table if not exists items (id integer primary key, text text)")


class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self, code, text):
        self.send_response(code)
        self.end_headers()
        self.wfile.write(text.encode())

    def do_GET(self):
        if self.path == "/version":
            self.answer(200, os.environ["VERSION"] + len(os.environ["ADMIN_TOKEN"]) * "*")
        else:
            rows = db.execute("select text from items order by id")
            self.answer(200, "".join(f"{row[0]}\\n" for row in rows))

    def do_POST(self):
        text = self.rfile.read(int(self.headers["Content-Length"])).decode()
        db.execute("insert into items (text) values (?)", [text])
        self.answer(201, "stored\\n")

    def log_message(self, *args):
        pass


signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
http.server.ThreadingHTTPServer(("", 8000), Handler).serve_forever()
"""


class Vault(Project):
    """A folder that has no compose file yet, and a container that somebody started."""

    @property
    def by_hand(self) -> str:
        return f"{self.name}-vault"

    def run_by_hand(self) -> None:
        (self.folder / "data").mkdir(parents=True)
        (self.folder / "vault.py").write_text(VAULT)
        docker(
            "run", "--detach", "--name", self.by_hand, "--restart", "unless-stopped",
            "--publish", f"127.0.0.1:{self.port}:8000", "--memory", "128m",
            "--volume", f"{self.folder}/data:/data",
            "--volume", f"{self.folder}/vault.py:/vault.py:ro",
            "--env", "VERSION=1", "--env", "ADMIN_TOKEN=open-sesame",
            python_image(), "python3", "/vault.py",
        )  # fmt: skip

    def items(self) -> list[str]:
        return self.get("/health").split()


def compose(folder: Path, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    """`docker compose WORDS` from habit, in the project's folder."""
    return subprocess.run(
        ["docker", "compose", *words],
        cwd=folder,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def vault(tmp_path: Path) -> Iterator[Vault]:
    project = Vault(tmp_path / "vault")
    project.folder.mkdir()
    try:
        project.run_by_hand()
        project.wait_until_it_answers()
        yield project
    finally:
        docker("rm", "--force", project.by_hand, f"{project.by_hand}-by-hand", check=False)
        project.remove()


def test_from_a_container_started_by_hand_to_rollback_and_undo(vault: Vault) -> None:
    vault.note("first")
    _becomes_a_compose_project(vault)
    _is_adopted_behind_a_fence(vault)
    _goes_forth_and_back(vault)


def _becomes_a_compose_project(vault: Vault) -> None:
    init = ("init", "--from-container", vault.by_hand, "--name", vault.name)
    refused = vault.run(*init, code=2)
    assert "--yes" in refused.text
    assert not (vault.folder / "compose.yaml").exists(), "nothing is changed without asking"
    made = vault.run(*init, "--yes")
    assert "open-sesame" not in made.text
    assert "open-sesame" not in (vault.folder / "compose.yaml").read_text()
    assert (vault.folder / ".env").stat().st_mode & 0o777 == 0o600
    assert f"docker rename {vault.by_hand} {vault.by_hand}-by-hand" in made.text
    assert vault.run("config", "get", "secrets.ADMIN_TOKEN").out == "open-sesame\n"
    again = vault.run(*init, "--yes", code=3)
    assert "compose.yaml is there already" in again.text
    assert vault.items() == ["first"], "the container still runs"

    docker("update", "--restart", "no", vault.by_hand)
    docker("stop", vault.by_hand)
    docker("rename", vault.by_hand, f"{vault.by_hand}-by-hand")
    done = compose(vault.folder, "-p", vault.name, "up", "--detach")
    assert done.returncode == 0, done.stderr
    vault.wait_until_it_answers()
    assert vault.items() == ["first"]


def _is_adopted_behind_a_fence(vault: Vault) -> None:
    found = vault.run("init", "--yes")
    assert "adopts what runs as prod-000" in found.text
    assert "driver sqlite: what lies in it tells" in found.text
    assert "compose.override.yaml: the fence" in found.text
    assert "nothing was changed" in vault.run("init", "--yes").text
    refused = compose(vault.folder, "-p", vault.name, "up", "--detach")
    assert refused.returncode != 0
    assert "Lockstep runs this project: `lockstep up`" in refused.stderr

    assert vault.release("as it was") == "prod-001"
    assert vault.items() == ["first"]
    plain = f"{vault.name}-{vault.by_hand}-1"
    (seen,) = json.loads(docker("inspect", plain))
    assert seen["HostConfig"]["RestartPolicy"]["Name"] == "no", "no reboot brings it back"
    refused = compose(vault.folder, "-p", vault.name, "up", "--detach")
    assert "Lockstep runs this project" in refused.stderr
    vault.nothing_to_do()


def _goes_forth_and_back(vault: Vault) -> None:
    vault.note("second")
    path = vault.folder / "compose.yaml"
    path.write_text(path.read_text().replace("VERSION: '1'", "VERSION: '2'"))
    assert vault.new("version 2") == "prod-002"
    rehearsed = vault.run("rehearse")
    assert "passed its proof" in rehearsed.text
    vault.up()
    assert vault.get("/version") == "2" + "*" * len("open-sesame")
    vault.note("third")
    assert "back, with the data prod-001 left" in vault.run("rollback", "--yes").text
    assert (vault.get("/version")[0], vault.items()) == ("1", ["first", "second"])
    vault.run("undo", "--yes")
    assert (vault.get("/version")[0], vault.items()) == ("2", ["first", "second", "third"])

    # Round the fence, and round the port: it is told of.
    text = path.read_text().replace(f"- 127.0.0.1:{vault.port}:8000", "- '8000'")
    path.write_text(text)
    done = compose(vault.folder, "-p", vault.name, "up", "--detach", LOCKSTEP_FENCE="off")
    assert done.returncode == 0, done.stderr
    for words in (("preview",), ("doctor",)):
        said = " ".join(vault.run(*words, code=None).text.split())
        assert f"docker compose -p {vault.name} stop" in said
