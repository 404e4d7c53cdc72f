"""Rules that hold in all of the product's source, read as syntax trees."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PRODUCT = ("cli", "engine", "failpoints", "reconciler", "snapshots")
STARTS = {"run", "call", "check_call", "check_output"}
PRINTS = {"get_completion_script"}
"""What prints a script for the named shell, and runs nothing."""
SHELLS = {
    "os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput",
    "asyncio.create_subprocess_shell", "pty.spawn",
}  # fmt: skip
EVALUATES = {"eval", "exec", "compile", "__import__"}

# What may run for as long as it takes, and why.
UNLIMITED = {
    (
        "cli/backend.py",
        "_show",
    ): "an update on the person's own terminal; the switch has a deadline",
    ("reconciler/docker/composeplugin.py", "passthrough"): "`compose logs -f` is the person's",
}
# Children that outlive a call: whoever starts one waits for it with a limit, or may not wait.
CHILDREN = {
    "reconciler/switching/detached.py": "the switch: it has a deadline, and nobody may cut it off",
    "reconciler/docker/frozen.py": "the watchdog ends by itself, by the time that it is given",
    "reconciler/docker/composeplugin.py": "a build: killed when its time is over",
    "reconciler/reaching/helper.py": "a helper container: ended with what is asked of it",
    "reconciler/host/hostcommand.py": "a user's hook: killed when its time is over, with its group",
    "reconciler/notifications/notifications.py": "ends by itself, with a limit for each",
    "reconciler/docker/sshtunnel.py": "ssh: given 30 s to connect, ends with this process",
    "engine/plugin_provider.py": "a plugin, which is ended with the engine",
}


@cache
def modules() -> tuple[tuple[str, ast.Module], ...]:
    return tuple(_modules())


def _modules() -> Iterator[tuple[str, ast.Module]]:
    for package in PRODUCT:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield str(path.relative_to(ROOT)), ast.parse(path.read_text())
    yield "__main__.py", ast.parse((ROOT / "__main__.py").read_text())


def name_of(node: ast.expr) -> str:
    """`subprocess.run` of what is called, as it is written."""
    if isinstance(node, ast.Attribute):
        return f"{name_of(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    """Each call with the function that it stands in."""

    def visit(node: ast.AST, inside: str) -> Iterator[tuple[str, ast.Call]]:
        for child in ast.iter_child_nodes(node):
            here = (
                child.name if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) else inside
            )
            if isinstance(child, ast.Call):
                yield inside, child
            yield from visit(child, here)

    yield from visit(tree, "")


def said(call: ast.Call, keyword: str) -> bool:
    return any(k.arg == keyword for k in call.keywords)


def test_fault_62_no_command_is_given_to_a_shell() -> None:
    """The whole product is read: no shell=True, no os.system, no text that is run as code, and
    every command is a list that begins with a fixed word, so $(...) and ; stay what they are."""
    seen = 0
    for path, tree in modules():
        for _, call in calls(tree):
            called = name_of(call.func)
            assert called not in SHELLS, f"{path}:{call.lineno} {called}"
            assert called not in EVALUATES, f"{path}:{call.lineno} {called}"
            assert called in PRINTS or not said(call, "shell"), f"{path}:{call.lineno} shell"
            if called.startswith("subprocess.") and called.split(".")[1] in {*STARTS, "Popen"}:
                seen += 1
                assert not isinstance(call.args[0], ast.JoinedStr | ast.Constant), path
    assert seen > 5


def test_no_text_is_put_together_for_a_shell_in_a_container() -> None:
    """What runs as `sh -c` in a container is a constant, or the user's own command as it is."""
    for path, tree in modules():
        for node in ast.walk(tree):
            if not isinstance(node, ast.List | ast.Tuple):
                continue
            words = [e.value if isinstance(e, ast.Constant) else None for e in node.elts]
            for at, word in enumerate(words[:-2]):
                if word in ("sh", "/bin/sh", "bash", "/bin/bash") and words[at + 1] in (
                    "-c",
                    "-ec",
                ):
                    script = node.elts[at + 2]
                    assert not isinstance(script, ast.JoinedStr | ast.BinOp), (
                        f"{path}:{node.lineno}: a script that is put together"
                    )


def test_every_command_has_a_time_limit() -> None:
    """A command that hangs must not hang Lockstep: each has `timeout`, or a reason above."""
    unused = {*UNLIMITED}
    for path, tree in modules():
        for function, call in calls(tree):
            called = name_of(call.func)
            if called in {f"subprocess.{start}" for start in STARTS} and not said(call, "timeout"):
                assert (path, function) in UNLIMITED, f"{path}:{call.lineno} in {function}"
                unused.discard((path, function))
            if called == "subprocess.Popen":
                assert path in CHILDREN, f"{path}:{call.lineno}"
    assert unused == set()


@pytest.mark.parametrize(
    ("called", "limit"),
    [
        ("socket.create_connection", "timeout"),
        ("urllib.request.urlopen", "timeout"),
        ("http.client.HTTPConnection", "timeout"),
        ("http.client.HTTPSConnection", "timeout"),
        ("docker.DockerClient", "timeout"),
        ("docker.from_env", "timeout"),
        ("requests.get", "timeout"),
        ("requests.post", "timeout"),
    ],
)
def test_every_connection_has_a_time_limit(called: str, limit: str) -> None:
    for path, tree in modules():
        for _, call in calls(tree):
            if name_of(call.func) == called:
                assert said(call, limit), f"{path}:{call.lineno} {called}"


def test_nothing_is_unpickled_but_the_program_itself() -> None:
    """Pulumi's dynamic providers are pickled programs of the user; nothing else is taken so."""
    found = {
        path
        for path, tree in modules()
        for _, call in calls(tree)
        if name_of(call.func) in {"pickle.load", "pickle.loads", "dill.loads", "marshal.loads"}
    }
    # A plan spills into a temporary file without a name, which only its own process can open.
    assert found <= {"engine/dynamic_provider.py", "snapshots/plan.py"}
    for path, tree in modules():
        for _, call in calls(tree):
            if name_of(call.func) in {"yaml.load", "yaml.load_all"}:
                loader = next((k.value for k in call.keywords if k.arg == "Loader"), None)
                made = loader.func if isinstance(loader, ast.Call) else loader
                ours = made is not None and name_of(made).startswith("_")  # a safe one, extended
                round_trip = path == "cli/yamledit.py" and len(call.args) == 1
                assert ours or round_trip, f"{path}:{call.lineno}"


def test_the_threat_model_names_tests_that_exist() -> None:
    """Each `test_...` of docs/security.md is a test (with `...` the beginning of one), each file
    that it names is there."""
    page = (ROOT / "docs" / "security.md").read_text()
    tests = {
        node.name
        for path in (ROOT / "tests").rglob("test_*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef)
    }
    named = re.findall(r"`(test_\w+)(\.\.\.)?`", page)
    assert len(named) > 12
    for name, more in named:
        assert any(t == name or (more and t.startswith(name)) for t in tests), name
    for file in re.findall(r"`(tests/[\w/]+\.py)`", page):
        assert (ROOT / file).is_file(), file
