"""`python -m tests.conformance`: docs/compose.md, made from the tables; `--write` writes it.

Exits 1 when the page is not what the tables say.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from tests.conformance.case import cases
from tests.conformance.meant import BESIDE, MEANT
from tests.conformance.refused import REFUSED

PAGE = Path(__file__).resolve().parents[2] / "docs" / "compose.md"

_HEAD = """# Your compose file in Lockstep

Compose itself makes the containers of a release: `docker compose create` gets your model, as \
`docker compose config` resolves it, in a project of its own. So what Compose can do holds in a \
release as well: profiles, `extends`, `include`, several files, anchors, `env_file`, `configs`, \
`secrets`, replicas, links, namespaces of other services, static addresses, external networks and \
volumes, limits, devices. The projects below are made both ways on real Docker and compared field \
by field, as `docker inspect` shows them; what differs stands in these two tables and nowhere else.
"""

_JOBS = """## Jobs

A service that others wait for with `service_completed_successfully`, or that says \
`x-lockstep: {job: true}`, is a job: exit code 0 proves it. It runs once in each world: `up` of a \
release that is live already does not run it again, nor does going back to a release whose own \
world is still there, for its data has that work in it. `x-lockstep: {job: again}` runs it each \
time that its release goes live. A new world of the same release (after a restore, or with a \
changed secret) is new to its jobs as well.
"""

_NOTES = """## What `x-lockstep` may say

| where | key | meaning |
| --- | --- | --- |
| service | `job: true`, `job: again` | it ends by itself; `again`: see above |
| service | `start: after-commit` | it starts only when the release is proved: mail, payments |
| service | `gate: {http: {port, path, status, contains}}`, `{tcp: port}`, `{command: [...]}` | \
how it is proved, beside or instead of its health check |
| service, volume | `driver` | how its data is counted and snapshotted, where image and path do \
not tell |
| volume | `strategy: fork`, `in-place` | each release has a copy of its own, or all work on one |
| volume | `shared: true` | others use it too: left alone, unless a restore names it |
| volume | `was: old-name` | it is that one under another name |
| top | `dropped: [name]` | this data is no longer wanted |
"""


def page() -> str:
    """The text of docs/compose.md."""
    return "\n".join(
        [
            _HEAD,
            "## What is meant to differ\n",
            _table(
                ("what", "why"),
                ((row.what, row.why) for row in MEANT if row.why),
            ),
            "Done otherwise, with the same result:\n",
            _table(("what", "how", "why"), BESIDE),
            "## What is refused\n",
            "By name and line of the compose file, before anything is built or stopped:\n",
            _table(("what", "what it says to do"), ((row.what, f"{row.do}") for row in REFUSED)),
            _JOBS,
            _NOTES,
            "## The projects that are compared\n",
            _table(("project", "what it has"), ((case.name, case.says) for case in cases())),
            "They lie in `tests/conformance/projects`; the tables are made from "
            "`tests/conformance/meant.py` and `refused.py` by "
            "`.venv/bin/python -m tests.conformance --write`.\n",
        ]
    )


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return (
        "\n".join(f"| {' | '.join(c.replace('|', chr(92) + '|') for c in r)} |" for r in lines)
        + "\n"
    )


def main() -> int:
    """The exit code."""
    if "--write" in sys.argv:
        PAGE.write_text(page())
    elif not PAGE.is_file() or PAGE.read_text() != page():
        print(f"{PAGE} is not what the tables say: python -m tests.conformance --write")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
