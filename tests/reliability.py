"""`python -m tests.reliability`: which faults and attacks are tried by which tests, and which not.

Tests are found by their names, `test_fault_<number>[_<number>...]_...` and
`test_attack_<subject>_...`, and told by their docstrings; the faults stand in `faults.toml`.
Exits 1 when a fault has neither a test nor a reason, or a test no docstring. `--write` makes
docs/reliability.md of it, with what the kills hit (tests/hits.py).
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests import hits

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PAGE = ROOT / "docs" / "reliability.md"
WANTED_AT_RANDOM = 200
SUBJECTS = ("data", "ledger", "lock", "names", "secrets", "habits")
_FAULT = re.compile(r"test_fault_((?:\d+_)+)")
_ATTACK = re.compile(r"test_attack_([a-z]+)_")


@dataclass(frozen=True)
class Trial:
    """A test of faults or of an attack. `long`: in `make chaos` alone."""

    path: str
    name: str
    says: str
    faults: tuple[int, ...]
    attack: str | None
    long: bool


@dataclass(frozen=True)
class Plan:
    """faults.toml: fault -> what must be observed, why it is not covered, what is done instead."""

    faults: dict[int, str]
    reasons: dict[int, str]
    remarks: dict[int, str]


def plan() -> Plan:
    """The faults, as they are written down."""
    with (HERE / "faults.toml").open("rb") as file:
        tables = tomllib.load(file)
    return Plan(
        *({int(n): t for n, t in tables[k].items()} for k in ("faults", "reasons", "remarks"))
    )


def trials() -> list[Trial]:
    """Every test of a fault or an attack, in the order of files and lines."""
    return [t for path in sorted(HERE.rglob("test_*.py")) for t in _trials_of(path)]


def _trials_of(path: Path) -> Iterator[Trial]:
    tree = ast.parse(path.read_text())
    whole = any(
        isinstance(node, ast.Assign)
        and ast.unparse(node.targets[0]) == "pytestmark"
        and "mark.chaos" in ast.unparse(node.value)
        for node in tree.body
    )
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef):
            continue
        fault, attack = _FAULT.match(node.name), _ATTACK.match(node.name)
        if fault or attack:
            numbers = fault.group(1).strip("_").split("_") if fault else []
            yield Trial(
                path=str(path.relative_to(ROOT)),
                name=node.name,
                says=" ".join((ast.get_docstring(node) or "").split()),
                faults=tuple(int(n) for n in numbers),
                attack=attack.group(1) if attack else None,
                long=whole or any("mark.chaos" in ast.unparse(d) for d in node.decorator_list),
            )


def failpoints() -> dict[str, str]:
    """Name of every failpoint of the product -> the module it is in."""
    found = {}
    for path in sorted(p for room in hits.PRODUCT for p in (ROOT / room).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id == "failpoint"
                and isinstance(node.args[0], ast.Constant)
            ):
                found[str(node.args[0].value)] = str(path.relative_to(ROOT))
    return found


def complaints(plan: Plan, found: list[Trial]) -> list[str]:
    """What is not as it should be, one line each."""
    covered = {n for t in found for n in t.faults}
    known = plan.faults.keys()
    return [
        *(f"fault {n} has no test and no reason" for n in known - covered - plan.reasons.keys()),
        *(
            f"fault {n} has tests and a reason for having none"
            for n in covered & plan.reasons.keys()
        ),
        *(f"fault {n} is not in faults.toml" for n in sorted(covered - known)),
        *(f"{t.path}: {t.name} has no docstring" for t in found if not t.says),
        *(
            f"{t.path}: {t.name}: attacks are on {', '.join(SUBJECTS)}"
            for t in found
            if t.attack and t.attack not in SUBJECTS
        ),
        *(
            f"{t.path}: {t.name}: the docstring is not `attack: outcome`"
            for t in found
            if t.attack and t.says and ": " not in t.says
        ),
    ]


def page(plan: Plan, found: list[Trial]) -> str:
    """docs/reliability.md."""
    return "\n".join(
        [
            "# Reliability: what was tried, and what happened",
            "",
            "Made from the tests by `python -m tests.reliability --write`. `make test` runs all "
            "that is not marked *long*, `make chaos` everything here in its long form.",
            "",
            *_faults_table(plan, found),
            "",
            *_attacks_table(found),
            "",
            *_hits_table(),
            "",
        ]
    )


def _faults_table(plan: Plan, found: list[Trial]) -> Iterator[str]:
    covered = {n for t in found for n in t.faults}
    yield "## Faults"
    yield ""
    yield f"{len(covered & plan.faults.keys())} of {len(plan.faults)} are tried."
    yield ""
    yield "| | fault, and what must be observed | tried by |"
    yield "| --- | --- | --- |"
    for number, what in sorted(plan.faults.items()):
        tried = [f"{t.says} {_place(t)}" for t in found if number in t.faults]
        remark = plan.remarks.get(number, "")
        reason = plan.reasons.get(number, "nothing says why not")
        cell = "<br>".join(_escaped(line) for line in [*tried, remark] if line)
        yield f"| {number} | {_escaped(what)} | {cell or f'*not covered:* {_escaped(reason)}'} |"


def _attacks_table(found: list[Trial]) -> Iterator[str]:
    attacks = [t for t in found if t.attack]
    yield "## Attacks"
    yield ""
    yield f"{len(attacks)} named attacks, tried against the finished product."
    yield ""
    yield "| on | attack | outcome | |"
    yield "| --- | --- | --- | --- |"
    for trial in sorted(attacks, key=lambda t: (SUBJECTS.index(t.attack or ""), t.path)):
        what, _, outcome = trial.says.partition(": ")
        yield f"| {trial.attack} | {_escaped(what)} | {_escaped(outcome)} | {_place(trial)} |"


def _hits_table() -> Iterator[str]:
    runs, total = hits.by_code(), hits.Hits()
    yield "## Kills at every step"
    yield ""
    yield (
        "Moves of every kind of a stack under its writer's load are killed at a failpoint or at a "
        "random time, or get an I/O error or a full disk there; after every round all of "
        "tests/chaos/host.py and model.py held. The runs, by the code that they were on "
        "(a digest of the statements in engine, failpoints, reconciler and snapshots):"
    )
    yield ""
    yield "| code | days | kills at failpoints | at random times | errors at failpoints | rounds |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for code, run in runs.items():
        total.add(run)
        counts = " | ".join(str(c.total()) for c in (run.at, run.after, run.failed))
        rounds = ", ".join(f"{count} {kind}" for kind, count in sorted(run.rounds.items()))
        yield f"| `{code}` | {', '.join(run.dates)} | {counts} | {rounds} |"
    yield ""
    newest = [run for run in runs.values() if run.dates == next(reversed(runs.values())).dates]
    if max((run.after.total() for run in newest), default=0) < WANTED_AT_RANDOM:
        yield (
            f"A whole `make chaos` kills {WANTED_AT_RANDOM} times at random and five times at each "
            "failpoint. The newest runs were cut short; run again on the same code, they go on."
        )
        yield ""
    yield "All runs together:"
    yield ""
    yield "| failpoint | in | killed there | killed at a random time after it | errors there |"
    yield "| --- | --- | --- | --- | --- |"
    for name, module in sorted(failpoints().items()):
        counts = " | ".join(str(c[name]) for c in (total.at, total.after, total.failed))
        yield f"| `{name}` | {module} | {counts} |"


def _place(trial: Trial) -> str:
    return f"(`{trial.path}`{', *long*' if trial.long else ''})"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


def main() -> None:
    known, found = plan(), trials()
    covered = {n for t in found for n in t.faults}
    for number, what in sorted(known.faults.items()):
        tests = [t for t in found if number in t.faults]
        state = f"tests: {len(tests)}" if tests else known.reasons.get(number, "NOT COVERED")
        print(f"{number:3} {state:12} {what}")
    points, total = failpoints(), hits.Hits()
    for run in hits.by_code().values():
        total.add(run)
    print(f"\nfailpoints ({len(points)}) and the kills at each:")
    for name in sorted(points):
        print(f"{total.at[name]:5} {name}")
    attacks = [t for t in found if t.attack]
    print(f"\n{len(covered)} of {len(known.faults)} faults are tried, {len(attacks)} attacks")
    if "--write" in sys.argv[1:]:
        PAGE.write_text(page(known, found))
        print(f"{PAGE.relative_to(ROOT)} is written")
    wrong = complaints(known, found)
    for line in wrong:
        print(f"! {line}")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
