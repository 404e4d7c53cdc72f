"""What hooks may be, how each kind is run, and that the page says what the code does."""

from __future__ import annotations

import http.server
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from reconciler import config
from reconciler.catalog import Catalog
from reconciler.docker import Docker
from reconciler.errors import BadInput
from reconciler.hooks import hookrun, hooks, hookscene, hooktable
from reconciler.hooks.hookscene import Declared, Scene
from reconciler.hooks.hooksettings import Hook
from reconciler.hooks.hooktable import PLACES, Abort, At
from reconciler.host import hostcommand
from reconciler.host.process import is_alive
from reconciler.records.ledger import World
from reconciler.records.release import Image, Release
from tests.reconciler.receivers import hanging, refusing

COMMAND = {"command": ["true"]}
EXEC = {"exec": {"command": ["true"]}}
RUN = {"run": {"command": ["true"]}}


def read(folder: Path, **hooks: Any) -> config.Stack:
    values = {"hooks": hooks, "secrets": {"TOKEN": "hush-hush-token"}}
    return config.read("shop", "prod", folder, values)


# the table ------------------------------------------------------------------------------------


def test_the_page_has_the_table_of_the_code() -> None:
    page = (Path(__file__).parents[2] / "docs" / "hooks.md").read_text()
    shown = page.split("<!-- table -->\n")[1].split("\n<!-- /table -->")[0]
    assert shown == hooktable.table()


def test_the_page_names_every_fact(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "hooks.md").read_text()
    known = json.loads(hookscene.facts(scene(tmp_path), declared(at="pre-stop"), At.PRE_STOP))
    assert [key for key in known if f"`{key}`" not in page] == []


def test_the_table_keeps_the_promises() -> None:
    """Every place is there, in order; nothing after the commit or on the way back can abort;
    nobody writes what is being sealed."""
    assert list(PLACES) == list(At)
    never = {at for at, place in PLACES.items() if place.abort is Abort.NEVER}
    assert never == {At.POST_COMMIT, At.PRE_REVERT, At.POST_REVERT, At.POST_PRUNE}
    for at in (At.POST_STOP, At.PRE_SEAL, At.POST_SEAL):
        assert not PLACES[at].one_off
        assert not PLACES[at].runs
    for place in PLACES.values():
        assert place.failure in place.allowed
        assert place.one_off <= place.runs


# what can be said -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "refusal"),
    [
        ({"at": "pre-stop", **COMMAND, **EXEC}, "one of exec, run, http and command"),
        ({"at": "pre-lunch", **COMMAND}, "'pre-prepare', 'post-prepare'"),
        ({"at": "post-commit", "on_failure": "abort", **COMMAND}, "is warn or ignore"),
        ({"at": "pre-revert", "on_failure": "abort", **COMMAND}, "is warn or ignore"),
        ({"at": "post-stop", **EXEC}, "no container of the old world runs"),
        ({"at": "pre-seal", **RUN}, "nobody may write the old world's data"),
        ({"at": "pre-start", "world": "old", **RUN}, "a hook is for the new world"),
        ({"at": "pre-start", "preview": True, **EXEC}, "a preview has no world to ask"),
        ({"at": "pre-stop", "preview": True, **RUN}, "a preview has no world to ask"),
        ({"at": "pre-stop", "http": {"url": "http://h", "port": 1}}, "has either a url, or a port"),
        ({"at": "pre-stop", "http": {"url": "file:///etc/passwd"}}, "pattern"),
        ({"at": "pre-stop", "service": "web", "dataset": "db", **COMMAND}, "not of both"),
        ({"at": "pre-stop", "timeout": 0, **COMMAND}, "greater than 0"),
        ({"at": "pre-stop", "moves": ["sideways"], **COMMAND}, "'stay', 'first'"),
        ({"at": "pre-stop", "comand": ["true"], **COMMAND}, "Extra inputs"),
    ],
)
def test_a_hook_that_cannot_be_is_refused(
    tmp_path: Path, said: dict[str, Any], refusal: str
) -> None:
    with pytest.raises(BadInput) as raised:
        read(tmp_path, mine=said)
    assert refusal in str(raised.value)
    assert "hooks.mine" in str(raised.value)


@pytest.mark.parametrize(
    ("said", "missing"),
    [
        ({"at": "pre-stop"}, "one of exec, run, http and command"),
        (COMMAND, "at: when it runs"),
        ({"at": "pre-stop", "http": {"path": "/x"}}, "http.url, or http.port of a service"),
    ],
)
def test_what_is_set_after_the_other_is_missed_by_the_preview(
    tmp_path: Path, said: dict[str, Any], missing: str
) -> None:
    found = hookscene.declared(read(tmp_path, mine=said).settings, None)
    problems = list(hookscene.problems(found, record({"services": {}}), {}))
    assert problems == [f"hook mine does not say {missing}"]


@pytest.mark.parametrize("place", ["service", "volume", "top"])
def test_a_compose_file_commands_no_host(place: str) -> None:
    note = {"x-lockstep": {"hooks": {"mine": {"at": "pre-stop", **COMMAND}}}}
    model: dict[str, Any] = {"services": {"web": {}}, "volumes": {"db": {}}}
    {"service": model["services"]["web"], "volume": model["volumes"]["db"], "top": model}[
        place
    ].update(note)
    with pytest.raises(BadInput, match="mine: a command on the host belongs into the stack's"):
        hookscene.declared(config.Settings(), record(model))


def test_who_is_declared_where(tmp_path: Path) -> None:
    """In order; the config's word counts where both name one; notes are read as Compose means."""
    model = {
        "services": {"web": {"x-lockstep": {"hooks": {"b": {"at": "pre-start", **RUN}}}}},
        "volumes": {"db": {"x-lockstep": {"hooks": {"b": {"at": "pre-seal", "http": {
            "url": "http://h/", "headers": {"K": "$${TOKEN}"}}}}}}},
        "x-lockstep": {"hooks": {"b": {"at": "pre-stop", **EXEC}}},
    }  # fmt: skip
    made = read(
        tmp_path,
        b={"at": "post-start", "service": "web", **COMMAND},
        a={"at": "pre-stop", "order": 1, **COMMAND},
    )
    found = hookscene.declared(made.settings, record(model))
    assert [(d.name, d.of, d.hook.at[0]) for d in found] == [
        ("b", "", "pre-stop"),
        ("b", "db", "pre-seal"),
        ("b", "web", "post-start"),
        ("a", "", "pre-stop"),
    ]
    problems = list(hookscene.problems(found, record(model), made.secret_values))
    assert problems == [
        "hook b does not say in a container of which service it works",
        "hook b is of dataset db, which prod-001 does not have",
    ]
    lost = list(hookscene.problems(found, record({"services": {"x": {}}}), {}))
    assert "hook b is of service web, which prod-001 does not have" in lost
    assert "hook b needs secret TOKEN, which is not in the stack's config" in lost


def test_moves_and_actions_say_when_a_hook_is_meant(tmp_path: Path) -> None:
    def runs(planned: dict[str, str], move: str = "back", **said: Any) -> bool:
        here = scene(tmp_path, move=move, actions=planned)
        return bool(hookscene.due(here, [declared(at="pre-stop", **said)], At.PRE_STOP))

    both = {"db": "in-place", "files": "attach"}
    assert runs(both)
    assert runs(both, moves=["back"])
    assert not runs(both, "forward", moves=["back", "first"])
    assert runs(both, actions=["in-place"])
    assert runs(both, actions=["in-place"], dataset="db")
    assert not runs(both, actions=["in-place"], dataset="files")
    assert not runs({}, actions=["in-place"])


# running --------------------------------------------------------------------------------------


def on_host(folder: Path, script: str, limit: float = 20) -> hookrun.Ran:
    said = declared(at="pre-stop", command=["sh", "-c", script])
    here = scene(folder)
    return hookrun.run(here, said, At.PRE_STOP, hookscene.facts(here, said, At.PRE_STOP), limit)


def test_a_command_on_the_host(tmp_path: Path) -> None:
    """In the project's folder; both its streams, masked; its exit code; facts as its input."""
    done = on_host(tmp_path, "pwd; cat > facts; echo hush-hush-token >&2; exit 3")
    assert (done.result, done.why) == ("failed", "ended with exit code 3")
    assert done.output.splitlines() == [str(tmp_path), "***"]
    assert done.last_words == "ended with exit code 3: ***"
    assert json.loads((tmp_path / "facts").read_text())["at"] == "pre-stop"
    assert on_host(tmp_path, "exit 0").result == "passed"
    absent = declared(at="pre-stop", command=["./not-there"])
    said = hookrun.run(scene(tmp_path), absent, At.PRE_STOP, "{}", 20)
    assert said.last_words == "ended with exit code 127: ./not-there: No such file or directory"


def test_a_command_that_hangs_is_killed_with_all_it_started(tmp_path: Path) -> None:
    done = on_host(tmp_path, "sleep 300 & echo $! > child; wait", limit=1)
    assert done.result == "timed-out"
    insist_on_death(tmp_path / "child")


def test_a_command_that_leaves_something_running_has_ended(tmp_path: Path) -> None:
    """It holds the output open, and is not waited for; nor is its output read for ever."""
    done = on_host(tmp_path, "sleep 300 & echo $! > child; echo done")
    assert (done.result, done.output) == ("passed", "done\n")
    insist_on_death(tmp_path / "child")


def test_what_a_command_says_is_bounded_and_may_be_anything(tmp_path: Path) -> None:
    done = on_host(tmp_path, "head -c 3000000 /dev/zero; printf '\\377\\033[2J'; echo; echo last")
    assert len(done.output) <= hostcommand.KEPT
    assert done.output.endswith("last\n")
    assert "\033" not in done.output


def test_a_command_has_its_signals_as_usual(tmp_path: Path) -> None:
    """The process that runs a switch ignores them, and a shell could not undo that."""
    import signal

    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        done = on_host(tmp_path, "trap 'echo told; exit 0' TERM; kill -TERM $$; echo deaf")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert done.output == "told\n"


def test_a_full_input_that_nobody_reads_blocks_nothing(tmp_path: Path) -> None:
    argv = ["sh", "-c", "exec true"]
    text = "x" * (8 << 20)
    done = hostcommand.run(argv, stdin=text, timeout=20, cwd=tmp_path, env=dict(os.environ))
    assert done.code == 0


@contextmanager
def answering() -> Iterator[tuple[int, list[tuple[str, str, str | None]]]]:
    """Answers the status that the path names; keeps method, body and a header."""
    got: list[tuple[str, str, str | None]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            got.append((self.command, body, self.headers.get("Authorization")))
            self.send_response(int(self.path.strip("/")))
            self.end_headers()
            self.wfile.write(b"because hush-hush-token")

        do_GET = do_POST  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1], got
    finally:
        server.shutdown()
        server.server_close()


def test_an_http_call(tmp_path: Path) -> None:
    def call(url: str, limit: float = 10, **more: Any) -> hookrun.Ran:
        said = declared(at="pre-stop", http={"url": url, **more})
        return hookrun.run(scene(tmp_path), said, At.PRE_STOP, '{"schema": 1}', limit)

    with answering() as (port, got), hanging() as deaf:
        base = f"http://127.0.0.1:{port}"
        assert call(f"{base}/204", headers={"Authorization": "Bearer ${TOKEN}"}).result == "passed"
        assert got[-1] == ("POST", '{"schema": 1}', "Bearer hush-hush-token")
        failed = call(f"{base}/503")
        assert (failed.result, failed.last_words) == ("failed", "HTTP 503: because ***")
        assert call(f"{base}/503", status=[503], method="GET").result == "passed"
        assert got[-1][:2] == ("GET", "")
        assert call(f"{base}/204", status=[200]).result == "failed"
        assert call(f"http://127.0.0.1:{deaf}/", limit=1).result == "timed-out"
        refused = call(f"http://127.0.0.1:{refusing()}/")
        assert refused.result == "failed"
        assert "no answer: [Errno 111] Connection refused" in refused.why


def insist_on_death(file: Path) -> None:
    """A killed process is gone when the kernel comes to it."""
    child = int(file.read_text())
    until = time.monotonic() + 10
    while is_alive(child) and time.monotonic() < until:
        time.sleep(0.02)
    assert not is_alive(child)


# small things ---------------------------------------------------------------------------------


def declared(**said: Any) -> Declared:
    kinds = {"command", "exec", "run", "http"}
    hook = Hook.model_validate(said if kinds & said.keys() else {**COMMAND, **said})
    return Declared("mine", hook, hook.service or "", hook.dataset or "")


def record(model: dict[str, Any]) -> Release:
    return Release(
        name="prod-001",
        parent=None,
        created="2026-01-01T00:00:00+00:00",
        model={"services": {}, **model},
        images={s: Image(service=s, tag=f"{s}:1", id="sha256:0") for s in model["services"]},
        datasets={},
    )


class _NoContainers:
    def listing(self, **_: Any) -> tuple[()]:
        return ()


def scene(folder: Path, *, move: str = "forward", actions: dict[str, str] | None = None) -> Scene:
    made = read(folder)
    world = World("shop-prod-001", "prod-001", {}, "")
    # Commands on the host and calls need no Docker but for the list of addresses.
    docker = cast(Docker, _NoContainers())
    return Scene(made, Catalog(made), docker, move, "now", world, world, None, None, actions or {})


def test_the_schema_of_the_settings_describes_a_hook() -> None:
    """Wherever hooks are read from: an editor knows what they may be."""
    described = config.Settings.model_json_schema()["properties"]["hooks"]["additionalProperties"]
    assert described["properties"]["at"]["items"]["enum"] == [*At]
    assert described["additionalProperties"] is False
    assert "$ref" not in json.dumps(described)


def test_what_a_hook_said_is_kept_privately_and_it_runs_once(tmp_path: Path) -> None:
    said = {"at": "pre-stop", "command": ["sh", "-c", "echo first; echo last hush-hush-token"]}
    here = replace(scene(tmp_path), stack=read(tmp_path, mine=said))
    noted: list[dict[str, Any]] = []
    made = hooks.Hooks(here, lambda _: None, note=lambda ran: noted.append(ran))
    made.boundary(At.PRE_STOP)
    made.boundary(At.PRE_STOP)
    assert [[run.result for run in ran.values()] for ran in noted] == [["begun"], ["passed"]]
    path = hooks.log_path(here)
    assert path.stat().st_mode & 0o777 == 0o600
    (line,) = [json.loads(text) for text in path.read_text().splitlines()]
    assert (line["at"], line["output"], line["said"]) == (
        "pre-stop",
        "first\nlast ***\n",
        "last ***",
    )
    assert line["ended"].startswith("20")
