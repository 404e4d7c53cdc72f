"""Commands in containers, and containers that stand still."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from reconciler.docker.containers import Containers
from reconciler.docker.execstream import Conversation, converse
from reconciler.docker.frozen import Freezer
from reconciler.errors import LockstepError, Unavailable
from snapshots.drivers.base import ExecResult

_SESSION_ENDS = 1.0


class Inside(Containers):
    """What is done in containers."""

    def exec(
        self,
        container_id: str,
        argv: Sequence[str],
        *,
        stdin: str | None = None,
        timeout: float = 30,
        user: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> ExecResult:
        """Run a command in a running container; one that takes longer than `timeout` is killed
        and has code 124."""
        api = self._api
        deadline = time.monotonic() + timeout
        with self._mapped_container("exec in", container_id):
            made = api.exec_create(
                container_id,
                list(argv),
                stdin=stdin is not None,
                user=user or "",
                environment=dict(environment or {}),
            )
            stream = api.exec_start(made["Id"], socket=True)
            ended, out, err = converse(stream, stdin, deadline)
            state = api.exec_inspect(made["Id"])
            if not ended:
                _kill_in_container(int(state.get("Pid") or 0), container_id)
                return ExecResult(124, out, f"{err}not finished after {timeout:g} s")
        code = state.get("ExitCode")
        return ExecResult(-1 if code is None else int(code), out, err)

    @contextmanager
    def session(
        self,
        container_id: str,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
    ) -> Iterator[Conversation]:
        """Start a command in a running container and talk to it; it is ended on exit, and loses
        its standard input when this process dies."""
        api = self._api
        with self._mapped_container("exec in", container_id):
            made = api.exec_create(
                container_id, list(argv), stdin=True, environment=dict(environment or {})
            )
            stream = api.exec_start(made["Id"], socket=True)
        talk = Conversation(stream, f"{argv[0]} in container {self._name(container_id)}")
        try:
            yield talk
        finally:
            talk.close()
            with suppress(LockstepError), self._mapped_container("exec in", container_id):
                self._end_exec(made["Id"], container_id)

    def _end_exec(self, exec_id: str, container_id: str) -> None:
        """A command that does not end with its input is killed."""
        give_up = time.monotonic() + _SESSION_ENDS
        while (state := self._api.exec_inspect(exec_id)).get("Running"):
            if time.monotonic() > give_up:
                _kill_in_container(int(state.get("Pid") or 0), container_id)
                return
            time.sleep(0.02)

    @contextmanager
    def frozen(self, container_ids: Sequence[str], seconds: float) -> Iterator[None]:
        """Running containers stand still inside the context, for at most `seconds`; see
        `frozen.Freezer`."""
        with Freezer(self, container_ids, seconds) as freezer, freezer.frozen(container_ids):
            yield

    def ask(self, image_id: str, argv: Sequence[str], *, timeout: float = 60) -> ExecResult:
        """Run a command in a throw-away container of an image, without network and volumes; the
        daemon removes it, whatever becomes of us. Code 124 when it takes longer than `timeout`."""
        options = ["--rm", "--pull", "never", "--network", "none", "--entrypoint", argv[0]]
        try:
            done = subprocess.run(
                ["docker", "run", *options, image_id, *argv[1:]],
                env=self.cli_environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return ExecResult(124, "", f"not finished after {timeout:g} s")
        except OSError as error:
            raise Unavailable(f"docker run cannot be run: {error.strerror}") from None
        return ExecResult(done.returncode, done.stdout, done.stderr)


def _kill_in_container(pid: int, container_id: str) -> None:
    """Docker cannot end an exec; the process is killed here when it is surely that container's."""
    with suppress(OSError):
        if pid > 1 and container_id[:12] in Path(f"/proc/{pid}/cgroup").read_text():
            os.kill(pid, signal.SIGKILL)
