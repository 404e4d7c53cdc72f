"""What the long tests of kills did, kept by the code that they ran on (tests/chaos/hits).

A test that was cut short goes on with what is missing when it runs again on the same code.
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "tests" / "chaos" / "hits"
"""A file for each test: digest of the code -> what its runs on that code did together."""
PRODUCT = ("engine", "failpoints", "reconciler", "snapshots")
"""Where all that changes a host stands, and every failpoint; `cli` asks and shows."""
COUNTED = ("rounds", "victims", "at", "after", "failed")


@dataclass
class Hits:
    """What was killed, and where."""

    dates: list[str] = field(default_factory=list)
    rounds: Counter[str] = field(default_factory=Counter)
    """kind of move -> how many."""
    victims: Counter[str] = field(default_factory=Counter)
    at: Counter[str] = field(default_factory=Counter)
    """failpoint -> kills there."""
    after: Counter[str] = field(default_factory=Counter)
    """failpoint -> kills at a random time when it was the last that was passed."""
    failed: Counter[str] = field(default_factory=Counter)
    """failpoint -> I/O errors and full disks there."""

    def add(self, other: Hits) -> None:
        """Count what another did as well."""
        self.dates = sorted({*self.dates, *other.dates})
        for name in COUNTED:
            getattr(self, name).update(getattr(other, name))


def code() -> str:
    """Which code this is: a digest of the product's statements, without comments and docstrings."""
    digest = hashlib.sha256()
    for path in sorted(p for room in PRODUCT for p in (ROOT / room).rglob("*.py")):
        digest.update(f"{path.relative_to(ROOT)}\n{_statements(path)}\n".encode())
    return digest.hexdigest()[:12]


def _statements(path: Path) -> str:
    tree = ast.parse(path.read_bytes())
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [part for part in node.body if not _is_text(part)]
    return ast.dump(tree)


def _is_text(part: ast.stmt) -> bool:
    return (
        isinstance(part, ast.Expr)
        and isinstance(part.value, ast.Constant)
        and isinstance(part.value.value, str)
    )


def of(test: str) -> dict[str, Hits]:
    """code -> what the runs of a test on it did, oldest first."""
    path = FOLDER / f"{test}.json"
    if not path.exists():
        return {}
    return {
        code: Hits(run["dates"], *(Counter(run.get(name, {})) for name in COUNTED))
        for code, run in json.loads(path.read_text()).items()
    }


def keep(test: str, code: str, hits: Hits) -> None:
    """Write down what the runs of a test on this code did."""
    kept = of(test)
    kept.pop(code, None)
    kept[code] = hits
    FOLDER.mkdir(exist_ok=True)
    content = {
        code: {"dates": run.dates} | {n: dict(sorted(getattr(run, n).items())) for n in COUNTED}
        for code, run in kept.items()
    }
    (FOLDER / f"{test}.json").write_text(json.dumps(content, indent=1) + "\n")


def tests() -> Iterator[str]:
    """The tests that have written anything down."""
    yield from sorted(path.stem for path in FOLDER.glob("*.json"))


def by_code() -> dict[str, Hits]:
    """code -> what all the tests did on it together, oldest first."""
    found: dict[str, Hits] = {}
    for test in tests():
        for code, hits in of(test).items():
            found.setdefault(code, Hits()).add(hits)
    return dict(sorted(found.items(), key=lambda item: item[1].dates))
