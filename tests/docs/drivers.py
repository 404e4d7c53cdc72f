"""The table of docs/drivers.md: what each driver has of its own, read off its class.

python -m tests.docs.drivers --write     writes it into the page
"""

from __future__ import annotations

import re
import sys

from snapshots.drivers import DRIVERS
from snapshots.drivers.base import DirectoryDriver
from tests.stacks.harness import ROOT

PAGE = ROOT / "docs" / "drivers.md"
ABILITIES = {
    "shorter stop": ("before_stop",),
    "live snapshot": ("live",),
    "point of a group": ("still",),
    "counts": ("probe", "probe_path"),
    "sums": ("data_sums",),
    "password follows": ("align",),
    "versions, misfits": ("unfit", "check_path"),
    "damage": ("check", "examine"),
    "stored as a difference": ("is_stream",),
}
"""Column -> methods, any of which a driver has of its own when it can that."""
_MARK = re.compile(r"(<!-- made from the code by [^\n]* -->\n)(.*?)(?=\n## )", re.DOTALL)


def table() -> str:
    rows = [["driver", *ABILITIES], ["---"] * (len(ABILITIES) + 1)]
    for name, driver in DRIVERS.items():
        own = [_has(type(driver), methods) for methods in ABILITIES.values()]
        rows.append([name, *("yes" if able else "" for able in own)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def _has(kind: type, methods: tuple[str, ...]) -> bool:
    return any(getattr(kind, m) is not getattr(DirectoryDriver, m) for m in methods)


def written(page: str) -> str:
    """The page with today's table. Raises ValueError where the page has no place for it."""
    done, times = _MARK.subn(lambda found: f"{found[1]}\n{table()}", page)
    if times != 1:
        raise ValueError(f"{PAGE} has no place for the table")
    return done


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit(__doc__)
    PAGE.write_text(written(PAGE.read_text()))
