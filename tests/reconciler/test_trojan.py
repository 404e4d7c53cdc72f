"""What a container answers is somebody else's text: it cannot hang, fill, forge or repaint ours."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator

import pytest

from reconciler import masking
from reconciler.docker import Docker, connect
from reconciler.docker.execstream import MOST
from reconciler.reaching.inside import Inside, counted
from snapshots.drivers import driver_for
from snapshots.errors import EngineFailed
from tests.stacks.harness import docker as command
from tests.stacks.harness import python_image

FORGED = "\x1b[2J\u202eevil\r\nlive prod-666"


@pytest.fixture(scope="module")
def trojan() -> Iterator[tuple[Docker, str]]:
    """A container whose image brings tools of its own in place of the engines'."""
    name = f"trojan-{uuid.uuid4().hex[:8]}"
    script = "; ".join(
        f"printf '%s' '#!/bin/sh\nexec cat /answer' > /usr/local/bin/{tool}; "
        f"chmod 755 /usr/local/bin/{tool}"
        for tool in ("redis-cli", "psql", "mariadb", "mysql")
    )
    command(
        "run", "-d", "--init", "--name", name, "--label", "lockstep.test=trojan", "--network",
        "none", python_image(), "sh", "-c", f"{script}; exec sleep 600",
    )  # fmt: skip
    try:
        found = connect()
        yield found, found.inspect(name).id
    finally:
        command("rm", "-f", name)


def answer(trojan: tuple[Docker, str], text: str) -> Inside:
    docker, name = trojan
    done = docker.exec(name, ["sh", "-c", "cat > /answer"], stdin=text)
    assert done.code == 0, done.stderr
    return Inside(docker, docker.inspect(name).id)


def test_fault_60_a_tool_that_prints_without_end_is_cut_off(trojan: tuple[Docker, str]) -> None:
    """psql of the image prints for ever, on both outputs: it is killed after 32 MiB, nothing of it
    is kept but that."""
    docker, name = trojan
    for script in ("exec yes", "exec yes >&2"):
        done = docker.exec(name, ["sh", "-c", script], timeout=60)
        assert done.code == 124
        assert "more than 32 MiB" in done.stderr
        assert len(done.stdout) <= MOST + (1 << 20)
    left = command("exec", name, "sh", "-c", "for f in /proc/[0-9]*/comm; do cat $f; done")
    assert "yes" not in left.split()


def test_fault_60_a_tool_that_hangs_is_killed(trojan: tuple[Docker, str]) -> None:
    """psql of the image never answers: it is killed in the container when its time is over."""
    docker, name = trojan
    done = docker.exec(name, ["sh", "-c", "exec sleep 543"], timeout=1)
    assert done.code == 124
    left = command("exec", name, "sh", "-c", "for f in /proc/[0-9]*/cmdline; do cat $f; echo; done")
    assert "543" not in left


@pytest.mark.parametrize("driver", ["redis", "postgres", "mysql"])
@pytest.mark.parametrize(
    "text",
    [
        "",
        FORGED,
        "x" * (1 << 20),
        "[1]\n[2,[3]]\nnull\n{}\n",
        json.dumps(["postgres", "public", "a; DROP", -1]) + "\n",
        "db0:keys=99999999999999999999999999,expires=0\r\n",
        "$(touch /tmp/pwned)`touch /tmp/pwned`;touch /tmp/pwned\n",
        "../../etc/passwd\n/etc/shadow\n",
        "\0\xff\xfe" * 100,
    ],
)
def test_fault_60_a_tool_that_lies_causes_nothing_but_a_refusal(
    driver: str, text: str, trojan: tuple[Docker, str]
) -> None:
    """The image's own psql, redis-cli and mysql answer with forged, endless, binary or misplaced
    text: what comes of it is a count under a clean name, or an error of ours; nothing runs."""
    run = answer(trojan, text)
    try:
        counts = counted(driver_for(driver).probe(run))
    except EngineFailed as error:
        counts = {str(error)[:200].splitlines()[0]: 0}
    for name, count in counts.items():
        assert masking.masked(name).isprintable()
        assert len(name) <= 200
        assert isinstance(count, int)
    assert run.docker.exec(run.container_id, ["test", "-e", "/tmp/pwned"]).code == 1


def test_fault_60_nothing_that_is_said_repaints_the_terminal() -> None:
    """A log line with escape sequences, carriage returns and right-to-left marks is shown: none of
    them reaches the terminal."""
    shown = masking.masked(f"web ended: {FORGED}\n    second line\ttab")
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert "\r" not in shown
    assert shown.splitlines()[-1] == "    second line\ttab"


def test_names_are_cut_and_not_too_many() -> None:
    assert max(map(len, counted({"x" * 10_000: 1}))) == 200
    with pytest.raises(EngineFailed, match="30000"):
        counted({str(n): n for n in range(30_000)})
