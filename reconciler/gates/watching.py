"""Questions that Docker answers about a container: its log, its health, what it uses."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime

from reconciler.docker import ContainerDetails, Docker
from reconciler.gates.judging import Answer, failed, passed, unsure
from reconciler.gates.model import LogGate, ResourceGate

MOST_LINES = 20_000
_NANOSECONDS = re.compile(r"(\.\d{6})\d*")


def ask_log(docker: Docker, container: ContainerDetails, gate: LogGate) -> Answer:
    """Read what it said since its start, at most its newest MOST_LINES lines."""
    log = docker.logs(container.id, tail=MOST_LINES, since=_begin(container))
    return judge_log(gate, log.splitlines())


def judge_log(gate: LogGate, lines: Sequence[str]) -> Answer:
    """What must never be said is final; what must be said may come yet."""
    for pattern in gate.never:
        found = next((line for line in lines if re.search(pattern, line)), None)
        if found is not None:
            return failed(f"says what it must never say, /{pattern}/", found.strip(), final=True)
    excerpt = []
    for pattern in gate.must:
        found = next((line for line in lines if re.search(pattern, line)), None)
        if found is None:
            return failed(f"does not say /{pattern}/", f"{len(lines)} lines")
        excerpt.append(found.strip())
    return passed("\n".join(excerpt) or f"{len(lines)} lines")


def ask_health(container: ContainerDetails) -> Answer:
    """Docker's own verdict."""
    if container.health is None:
        return unsure("has no health check")
    status = container.health_status
    if status == "healthy":
        return passed(status)
    return failed(f"is {status or 'not checked yet'}", status)


def ask_resources(
    docker: Docker, container: ContainerDetails, gate: ResourceGate, restarts: int
) -> Answer:
    """Compare what it uses with the limits; `restarts`: by us, beside Docker's own."""
    restarts = max(restarts, container.restarts)
    told = [f"restarts {restarts}"] if gate.restarts is not None else []
    wrong = []
    if gate.restarts is not None and restarts > gate.restarts:
        wrong.append(f"was started again {restarts} times, more than {gate.restarts}")
    if any(x is not None for x in (gate.memory, gate.memory_percent, gate.cpu_percent)):
        usage = docker.usage(container.id, cpu=gate.cpu_percent is not None)
        if usage is None:
            return unsure("what it uses is not known", final=False)
        percent = 100 * usage.memory / (usage.memory_limit or 1)
        told.append(f"memory {_mib(usage.memory)}, {percent:.1f}%")
        if gate.memory is not None and usage.memory > gate.memory:
            wrong.append(f"uses {_mib(usage.memory)} of memory, more than {_mib(gate.memory)}")
        if gate.memory_percent is not None and percent > gate.memory_percent:
            wrong.append(
                f"uses {percent:.1f}% of its memory limit, more than {gate.memory_percent:g}%"
            )
        if usage.cpu_percent is not None and gate.cpu_percent is not None:
            told.append(f"processor {usage.cpu_percent:.0f}%")
            if usage.cpu_percent > gate.cpu_percent:
                wrong.append(
                    f"uses {usage.cpu_percent:.0f}% of a core, more than {gate.cpu_percent:g}%"
                )
        elif gate.cpu_percent is not None and not wrong:
            return unsure("how busy it is is not known yet", ", ".join(told), final=False)
    excerpt = ", ".join(told)
    return failed("; ".join(wrong), excerpt) if wrong else passed(excerpt)


def _begin(container: ContainerDetails) -> float | None:
    """When its log begins to be that of its present run; None: with its first word.

    A process may speak before Docker has written down that it runs, and what it said last may be
    read after its end: between both lies the point. Of one that has ended again the end is its own,
    also where Docker has noted it a moment before its start.
    """
    if container.state == "exited":
        return None
    finished, started = _seconds(container.finished), _seconds(container.started)
    return (finished + started) / 2 if 0 < finished < started else None


def _seconds(docker_time: str) -> float:
    """`2026-11-21T23:59:01.123456789Z` as seconds since 1970; 0 for no such time."""
    try:
        at = datetime.fromisoformat(_NANOSECONDS.sub(r"\1", docker_time).replace("Z", "+00:00"))
        return at.timestamp()
    except (ValueError, OverflowError):
        return 0.0


def _mib(count: int) -> str:
    return f"{count / (1 << 20):.1f} MiB"
