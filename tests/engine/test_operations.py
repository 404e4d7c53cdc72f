"""preview, up, refresh and destroy of small programs, and what interrupts them."""

from __future__ import annotations

import io
import itertools
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from cli import stackconfig, stackstate
from cli.display import PlainDisplay, TreeDisplay
from engine.errors import EngineError, StackLocked
from engine.operations import Result, destroy, preview, refresh, up
from engine.options import Options
from engine.project import Project
from tests.engine.conftest import PASSPHRASE, Ground
from tests.failing import failing


def run_up(ground: Ground, skip_preview: bool = False) -> tuple[Result, str]:
    shown = io.StringIO()
    result = up(ground.stack(), PlainDisplay(shown), Options(skip_preview=skip_preview))
    return result, shown.getvalue()


def world(ground: Ground) -> dict[str, object]:
    found: dict[str, object] = json.loads(ground.world.read_text())
    return found


def test_create_same_update_replace_delete(ground: Ground) -> None:
    ground.program("Thing('a', value='1', force='1')\nThing('b', value='x')\n")
    assert run_up(ground)[0].changes == {"create": 3}
    assert run_up(ground)[0].changes == {"same": 3}
    ground.program("Thing('a', value='2', force='1')\nThing('b', value='x')\n")
    assert run_up(ground)[0].changes == {"same": 2, "update": 1}
    ground.program("Thing('a', value='2', force='2')\n")
    assert run_up(ground)[0].changes == {"delete": 1, "replace": 1, "same": 1}
    # One name is one thing in this world, so deleting the original takes the new one along.
    assert world(ground) == {}


def test_a_preview_changes_nothing_and_knows_that_it_is_one(ground: Ground) -> None:
    ground.program("Thing('a', value='1')\npulumi.export('dry', pulumi.runtime.is_dry_run())\n")
    before = ground.state_text()
    result = preview(ground.stack(), PlainDisplay(io.StringIO()))
    assert (result.exit_code, result.changes) == (0, {"create": 2})
    assert result.outputs["dry"] is True
    assert ground.state_text() == before
    assert not ground.world.exists()
    assert run_up(ground)[0].outputs["dry"] is False


def test_a_declined_update_changes_nothing(ground: Ground) -> None:
    ground.program("Thing('a', value='1')\n")
    asked: list[Result] = []

    def no(planned: Result) -> bool:
        asked.append(planned)
        return False

    result = up(ground.stack(), PlainDisplay(io.StringIO()), Options(confirm=no))
    assert asked == [result]
    assert not ground.world.exists()


def test_a_failing_hook_is_one_line_and_leaves_the_old_state(ground: Ground) -> None:
    hooked = """
def fail(args): raise Exception("prod-004 did not pass its proof")
Thing('live', value='{}', opts=O(hooks=B(before_update=[H('switch', fail)])))
{}
"""
    ground.program(hooked.format("1", "Thing('kept', value='k')"))
    assert run_up(ground)[0].exit_code == 0
    ground.program(hooked.format("2", ""))
    result, shown = run_up(ground)
    assert result.exit_code == 1
    assert 'error: before hook "switch" failed: prod-004 did not pass its proof\n' in shown
    assert "Traceback" not in shown
    # Nothing is deleted after a failure, and the next run tries the hook again.
    assert world(ground) == {"live": "1", "kept": "k"}
    assert run_up(ground)[0].exit_code == 1
    ground.program(hooked.format("1", ""))
    assert run_up(ground)[0].changes == {"delete": 1, "same": 2}


def test_progress_of_a_hook_is_shown_while_it_runs(ground: Ground) -> None:
    ground.program("""
import sys
def slow(args):
    pulumi.log.info("copying 40 %", ephemeral=True)
    seen.append("copying 40 %" in sys.modules["things"].shown.getvalue())
seen = sys.modules["things"].seen = []
Thing('a', value='1', opts=O(hooks=B(before_create=[H('copy', slow)])))
""")
    import sys

    shown = io.StringIO()
    sys.path.insert(0, str(ground.root))
    try:
        import things  # type: ignore[import-not-found]
    finally:
        sys.path.remove(str(ground.root))
    things.shown = shown
    assert up(ground.stack(), PlainDisplay(shown), Options(skip_preview=True)).exit_code == 0
    assert things.seen == [True]


def test_a_narrow_terminal_shows_what_is_done_to_each_and_what_a_hook_does(ground: Ground) -> None:
    ground.program("""
import time
def slow(args):
    pulumi.log.info("copying 40 %", ephemeral=True)
    time.sleep(0.5)
Thing('a-name-that-needs-room', value='1', opts=O(hooks=B(before_create=[H('copy', slow)])))
""")
    shown = io.StringIO()
    display = TreeDisplay(Console(file=shown, width=30, force_terminal=True, color_system=None))
    assert up(ground.stack(), display, Options(skip_preview=True)).exit_code == 0
    text = re.sub(r"\x1b\[[?\d;]*[A-Za-z]", "", shown.getvalue())
    lines = [line.strip("\r ") for line in text.splitlines()]
    assert any(line.endswith("copying 40 %") for line in lines)
    assert any(line.startswith("+ ") for line in lines)
    again = io.StringIO()
    display = TreeDisplay(Console(file=again, width=100, force_terminal=True, color_system=None))
    assert up(ground.stack(), display, Options(skip_preview=True)).exit_code == 0
    assert "a-name-that-needs-room" not in again.getvalue()
    assert "2 unchanged" in again.getvalue()


def test_a_terminal_shows_the_tree_as_the_official_cli_draws_it(ground: Ground) -> None:
    program = """
class Box(pulumi.ComponentResource):
    def __init__(self, name):
        super().__init__("shop:index/box:Box", name)
box = Box('box')
a = Thing('a', {}, opts=O(parent=box))
Thing('b', opts=O(parent=box, depends_on=[a]))
"""

    def tree() -> list[str]:
        shown = io.StringIO()
        console = Console(file=shown, width=100, force_terminal=True, color_system=None)
        assert up(ground.stack(), TreeDisplay(console), Options(skip_preview=True)).exit_code == 0
        text = re.sub(r"\x1b\[[?\d;]*[A-Za-z]|\r", "", shown.getvalue())
        last = text[text.rindex("     Type") :].split("\n\n")[0]
        return [re.sub(r" \(\d\S+\)|  +$", "", line) for line in last.splitlines()[1:]]

    ground.program(program.replace("{}", "force='1', x='1', y='1'"))
    assert tree() == [
        " +   pulumi:pulumi:Stack                   shop-dev  created",
        " +   └─ shop:index:Box                     box       created",
        " +      ├─ pulumi-python:dynamic:Resource  a         created",
        " +      └─ pulumi-python:dynamic:Resource  b         created",
    ]
    ground.program(program.replace("{}", "force='2', y='2', z='2'"))
    assert tree() == [
        "     pulumi:pulumi:Stack                   shop-dev",
        "     └─ shop:index:Box                     box",
        " +-     └─ pulumi-python:dynamic:Resource  a         replaced  [diff: +z-x~force,y]",
    ]


def test_delete_hooks_of_undeclared_resources_run_and_can_refuse(ground: Ground) -> None:
    ground.program("""
def guard(args):
    if world().get("guarded"): raise Exception(f"{args.name} is live: not removed")
g = H('guard', guard)
if not pulumi.Config().get_bool("gone"):
    Thing('world', value='1', opts=O(hooks=B(before_delete=[g])))
Thing('guarded', value=pulumi.Config().get("guarded") or "")
""")
    stackconfig.put(ground.stack(), "guarded", "yes")
    assert run_up(ground)[0].exit_code == 0
    stackconfig.put(ground.stack(), "gone", "true")
    result, shown = run_up(ground)
    assert result.exit_code == 1
    assert 'before hook "guard" failed: world is live: not removed' in shown
    assert "world" in world(ground)
    without = destroy(ground.stack(), PlainDisplay(io.StringIO()))
    assert without.exit_code == 1
    assert "--run-program" in str(without.error)
    stackconfig.put(ground.stack(), "guarded", "")
    assert run_up(ground)[0].changes == {"delete": 1, "same": 1, "update": 1}
    done = destroy(ground.stack(), PlainDisplay(io.StringIO()), Options(run_program=True))
    assert done.exit_code == 0
    assert world(ground) == {}


def test_secrets_are_in_no_file_and_no_displayed_text(ground: Ground) -> None:
    stackconfig.put(ground.stack(), "pw", "s3cret-word", secret=True)
    ground.program("""
pw = pulumi.Config().require_secret("pw")
Thing('a', value=pw)
pulumi.log.warn("the password is " + pulumi.Config().require("pw"))
pulumi.export("pw", pw)
pulumi.export("opened", pulumi.Output.unsecret(pw))
""")
    result, shown = run_up(ground)
    assert result.exit_code == 0
    assert "s3cret-word" not in shown
    assert "the password is [secret]" in shown
    assert world(ground)["a"] == "s3cret-word"
    # `opened` is the program's own wish and in the state; everything else is sealed.
    state = json.loads((ground.root / "state/.pulumi/stacks/shop/dev.json").read_text())
    resources = state["checkpoint"]["latest"]["resources"]
    assert resources[0]["outputs"].pop("opened") == "s3cret-word"
    assert "s3cret-word" not in json.dumps(resources)
    assert "s3cret-word" not in ground.stack().path.read_text()
    assert ground.stack().outputs()["pw"] == "[secret]"
    assert ground.stack().outputs(show_secrets=True)["pw"] == "s3cret-word"
    for path in (ground.root / "state").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path


def test_a_wrong_passphrase_is_refused_before_anything(ground: Ground) -> None:
    stackconfig.put(ground.stack(), "pw", "x", secret=True)
    ground.program("Thing('a', value='1')\n")
    with pytest.raises(EngineError, match="incorrect passphrase"):
        up(ground.stack("wrong"), PlainDisplay(io.StringIO()))
    assert not ground.world.exists()


def test_an_exported_state_comes_back_by_import(ground: Ground) -> None:
    ground.program("Thing('a', value='1')\npulumi.export('v', pulumi.Output.secret('x'))\n")
    run_up(ground)
    exported = stackstate.export(ground.stack())
    stackstate.replace(ground.stack(), exported)
    assert stackstate.export(ground.stack())["deployment"]["resources"][0]["urn"].endswith(
        "shop-dev"
    )
    assert ground.stack().outputs(show_secrets=True) == {"v": "x"}
    assert run_up(ground)[0].changes == {"same": 2}


def test_what_is_not_here_is_refused_by_name_before_anything_changes(ground: Ground) -> None:
    for option, name in [
        ("aliases=[pulumi.Alias(name='b')]", "aliases"),
        ("deleted_with=first", "deleted_with"),
        ("import_='x'", "import_"),
        ("id='x'", "reading a resource"),
    ]:
        ground.program(f"first = Thing('first', value='1')\nThing('a', opts=O({option}))\n")
        result, shown = run_up(ground)
        assert result.exit_code == 1
        assert name in shown
        assert "use the Pulumi CLI" in shown
        assert not ground.world.exists()


def test_errors_of_the_program_are_said_as_pulumi_says_them(ground: Ground) -> None:
    ground.program("raise pulumi.RunError('a plain message')\n")
    _, shown = run_up(ground)
    assert "error: a plain message\n" in shown
    assert "Traceback" not in shown
    ground.program("def f():\n    raise ValueError('of the user')\nf()\n")
    _, shown = run_up(ground)
    assert "Program failed with an unhandled exception:" in shown
    assert "ValueError: of the user" in shown
    assert "engine/program.py" not in shown


def test_a_failing_provider_is_one_sentence_with_its_place(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAIL", "b")
    ground.program("Thing('a', value='1')\nThing('b', value='1')\n")
    result, shown = run_up(ground, skip_preview=True)
    assert result.exit_code == 1
    assert "error: b refused (things.py:" in shown
    assert "Traceback" not in shown
    monkeypatch.delenv("FAIL")
    assert run_up(ground)[0].exit_code == 0
    assert set(world(ground)) == {"a", "b"}


def test_a_programs_own_sigint_handler_does_not_replace_the_engines(ground: Ground) -> None:
    ground.program("import os, signal\nsignal.signal(signal.SIGINT, lambda *a: os._exit(130))\n")
    before = signal.getsignal(signal.SIGINT)
    assert run_up(ground)[0].exit_code == 0
    assert signal.getsignal(signal.SIGINT) is before


def test_an_update_is_in_the_history_newest_first(ground: Ground) -> None:
    ground.program("Thing('a', value=pulumi.Config().get('v'))\n")
    stack = ground.stack()
    stackconfig.put(stack, "v", "1")
    up(stack, PlainDisplay(io.StringIO()), Options(message="first"))
    refresh(ground.stack(), PlainDisplay(io.StringIO()))
    newest, first = stackstate.history(ground.stack())
    assert (newest["kind"], first["kind"], first["message"]) == ("refresh", "update", "first")
    assert first["resourceChanges"] == {"create": 2}
    assert first["config"] == {"shop:v": {"value": "1", "secret": False}}


def held(ground: Ground) -> subprocess.Popen[str]:
    """An update that is in the middle of creating `slow`."""
    ground.program("a = Thing('slow', value='1')\nThing('after', value=a.made)\n")
    process = ground.start(SLOW_slow="3")
    marker = Path(f"{ground.world}.begun")
    deadline = time.monotonic() + 30
    while not marker.exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    marker.unlink()
    return process


def test_kill_leaves_the_lock_and_cancel_clears_it(ground: Ground) -> None:
    process = held(ground)
    process.kill()
    process.communicate()
    with pytest.raises(StackLocked) as refused:
        run_up(ground, skip_preview=True)
    assert f"pid {process.pid}, which is gone" in str(refused.value)
    assert "lockstep cancel" in str(refused.value)
    ground.stack().backend.unlock_all()
    pending = stackstate.export(ground.stack())["deployment"]["pending_operations"]
    assert [p["type"] for p in pending] == ["creating"]
    result, shown = run_up(ground)
    assert result.exit_code == 0
    assert "interrupted while creating" in shown
    assert set(world(ground)) == {"slow", "after"}


def test_a_full_disk_at_any_write_of_the_state_is_one_sentence(ground: Ground) -> None:
    command = [sys.executable, "-m", "cli.pulumi", "up", "--yes", "--skip-preview", "-s", "dev"]
    for nth in itertools.count(1):
        ground.program(f"a = Thing('a', value='{nth}')\nThing('b', value=a.value)\n")
        with failing(f"engine.state full {nth}") as points:
            process = ground.start(command)
            said, _ = process.communicate(timeout=60)
            full = points.happened
        if not full:
            break
        assert process.returncode == 1, said
        assert "cannot be written: No space left on device; mend that" in said
        assert "Traceback" not in said
        assert run_up(ground)[0].exit_code == 0
    assert nth > 4
    assert process.returncode == 0, said


def test_one_interrupt_ends_after_the_running_step(ground: Ground) -> None:
    process = held(ground)
    with pytest.raises(StackLocked):
        run_up(ground, skip_preview=True)
    process.send_signal(signal.SIGINT)
    shown, _ = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "update canceled" in shown
    assert set(world(ground)) == {"slow"}
    assert run_up(ground)[0].changes == {"create": 1, "same": 2}


def test_a_second_interrupt_ends_at_once_and_unlocks(ground: Ground) -> None:
    process = held(ground)
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=2)
    assert process.returncode == 8
    assert not ground.world.exists()
    assert run_up(ground)[0].exit_code == 0


def test_the_passphrase_comes_from_the_environment_or_a_file(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    from engine.stack import Stack

    stackconfig.put(ground.stack(), "pw", "word", secret=True)
    project = Project.find(ground.root)
    monkeypatch.delenv("PULUMI_CONFIG_PASSPHRASE", raising=False)
    with pytest.raises(EngineError, match="PULUMI_CONFIG_PASSPHRASE_FILE"):
        Stack(project, "dev").config()
    (ground.root / "phrase").write_text(PASSPHRASE + "\n")
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE_FILE", str(ground.root / "phrase"))
    assert Stack(project, "dev").config() == {"shop:pw": "word"}
