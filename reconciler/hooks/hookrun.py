"""Running one hook: in a container, in a one-off container, on the host, or by HTTP."""

from __future__ import annotations

import os
import string
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from reconciler import masking
from reconciler.docker import ONE_OFF, PROJECT, SERVICE, Compose, ContainerDetails
from reconciler.errors import LockstepError
from reconciler.hooks.hookscene import Declared, Scene
from reconciler.hooks.hooksettings import Call
from reconciler.hooks.hooktable import At
from reconciler.host import hostcommand
from reconciler.records.ledger import World

LABEL = "lockstep.hook"
_BODY = 64 << 10


@dataclass(frozen=True)
class Ran:
    """What became of it; `output` is masked and bounded."""

    result: Literal["passed", "failed", "timed-out"]
    seconds: float
    output: str = ""
    why: str = ""

    @property
    def last_words(self) -> str:
        """Why it failed, with the last line that it said."""
        lines = [line.strip() for line in self.output.splitlines() if line.strip()]
        return ": ".join(filter(None, (self.why, lines[-1] if lines else "")))


def run(scene: Scene, declared: Declared, at: At, facts: str, limit: float) -> Ran:
    """Run it to its end, or for `limit` seconds; nothing is raised for what it does."""
    began = time.monotonic()
    try:
        ran = _run(scene, declared, at, facts, limit)
    except (LockstepError, OSError) as error:
        why = getattr(error, "message", None) or str(error)
        ran = Ran("failed", time.monotonic() - began, why=why)
    return Ran(
        ran.result,
        round(ran.seconds, 3),
        _masked(scene, ran.output)[-hostcommand.KEPT :],
        _masked(scene, ran.why),
    )


def clear(scene: Scene, *worlds: World | None) -> None:
    """Remove one-off containers of hooks that a killed process left in these worlds."""
    for world in filter(None, worlds):
        for listed in scene.docker.listing(labels=[f"{PROJECT}={world.name}", LABEL]):
            scene.docker.remove_container(listed.id, force=True)


def _masked(scene: Scene, text: str) -> str:
    own = masking.forms(scene.stack.secret_values.values())
    return masking.masked(masking.without(text, own))


def _run(scene: Scene, declared: Declared, at: At, facts: str, limit: float) -> Ran:
    hook = declared.hook
    if hook.incomplete:
        return Ran("failed", 0.0, why=f"it does not say {hook.incomplete}")
    if hook.command is not None:
        root = scene.stack.root
        done = hostcommand.run(hook.command, stdin=facts, timeout=limit, cwd=root, env=_host_env())
        return _ended(done.code, done.output, done.seconds, limit)
    if hook.http is not None and hook.http.url:
        return _call(scene, hook.http, hook.http.url, facts, limit)
    world = scene.world(hook.side(at))
    if world is None:
        return Ran("failed", 0.0, why="there is no such world")
    service = hook.container_of(declared.service)
    if hook.run is not None:
        return _one_off(scene, declared, at, world, service, facts, limit)
    container = _container(scene, world, service)
    if hook.http is not None:
        host = next((a for a in container.addresses.values() if a), "127.0.0.1")
        shown = f"[{host}]" if ":" in host else host
        return _call(
            scene, hook.http, f"http://{shown}:{hook.http.port}{hook.http.path}", facts, limit
        )
    assert hook.exec is not None
    began = time.monotonic()
    said = scene.docker.exec(
        container.id, hook.exec.command, stdin=facts, timeout=limit, user=hook.exec.user or None
    )
    seconds = time.monotonic() - began
    code = None if said.code == 124 and seconds >= limit else said.code
    return _ended(code, said.stdout + said.stderr, seconds, limit)


def _host_env() -> dict[str, str]:
    """What this process has, without Pulumi's: its passphrase opens every secret."""
    return {k: v for k, v in os.environ.items() if not k.startswith("PULUMI_")}


def _ended(code: int | None, output: str, seconds: float, limit: float) -> Ran:
    if code is None:
        return Ran("timed-out", seconds, output, f"not finished after {limit:g} s")
    if code != 0:
        return Ran("failed", seconds, output, f"ended with exit code {code}")
    return Ran("passed", seconds, output)


def _container(scene: Scene, world: World, service: str) -> ContainerDetails:
    """A running container of the service. Raises LockstepError."""
    labels = [f"{PROJECT}={world.name}", f"{SERVICE}={service}"]
    for listed in scene.docker.listing(running=True, labels=labels):
        if listed.labels.get(ONE_OFF) != "True":
            return scene.docker.inspect(listed.id)
    raise LockstepError(f"no container of {service} runs in {world.name}")


def _one_off(
    scene: Scene,
    declared: Declared,
    at: At,
    world: World,
    service: str,
    facts: str,
    limit: float,
) -> Ran:
    """`docker compose run` in the world, with its image, generations and networks."""
    one_off, record = declared.hook.run, scene.record(declared.hook.side(at))
    assert one_off is not None
    if world.adopted or record is None:
        why = "was adopted" if world.adopted else "has no record that can be read"
        return Ran("failed", 0.0, why=f"{world.name} {why}: no one-off container can be run in it")
    if scene.rehearsed is not None:
        model = scene.rehearsed()
    else:
        from reconciler import worlds

        model = worlds.one_off_model(scene.stack, scene.catalog, scene.docker, record, world)
    try:
        done = Compose(scene.stack.root).run_once(
            world.name,
            model,
            service,
            one_off.command,
            entrypoint=one_off.entrypoint,
            label=f"{LABEL}={declared.name}",
            stdin=facts,
            timeout=limit,
        )
    finally:
        # Compose removes it, but not where Compose itself was killed.
        clear(scene, world)
    return _ended(done.code, done.output, done.seconds, limit)


def _call(scene: Scene, call: Call, url: str, facts: str, limit: float) -> Ran:
    """The request; a server that sends its answer in drops is given up as well."""
    began = time.monotonic()
    request = urllib.request.Request(
        url,
        data=None if call.method == "GET" else facts.encode(),
        method=call.method,
        headers={"Content-Type": "application/json", **_headers(call, scene.stack.secret_values)},
    )
    answer: list[tuple[int, str] | str] = []

    def ask() -> None:
        try:
            with urllib.request.urlopen(request, timeout=limit) as got:
                answer.append((got.status, got.read(_BODY).decode(errors="replace")))
        except urllib.error.HTTPError as error:
            answer.append((error.code, error.read(_BODY).decode(errors="replace")))
        except (OSError, ValueError) as error:
            answer.append(f"no answer: {getattr(error, 'reason', None) or error}")

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(limit)
    seconds = time.monotonic() - began
    if not answer:
        return Ran("timed-out", seconds, why=f"no answer within {limit:g} s")
    if isinstance(answer[0], str):
        timed_out = "timed out" in answer[0]
        return Ran("timed-out" if timed_out else "failed", seconds, why=answer[0])
    status, body = answer[0]
    passed = status in call.status if call.status else 200 <= status < 300
    return Ran("passed" if passed else "failed", seconds, body, "" if passed else f"HTTP {status}")


def _headers(call: Call, secrets: Mapping[str, str]) -> dict[str, str]:
    return {n: string.Template(v).safe_substitute(secrets) for n, v in call.headers.items()}
