"""Showing an operation: plain lines, or a live tree on a terminal."""

from __future__ import annotations

import json
import sys
import threading
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.operations import Result
    from engine.steps import Display, Step

# Kind of step -> sign, what it would do, does, did, and its colour.
WORDS = {
    "same": ("  ", "", "", "", "dim"),
    "create": ("+ ", "create", "creating", "created", "green"),
    "update": ("~ ", "update", "updating", "updated", "yellow"),
    "delete": ("- ", "delete", "deleting", "deleted", "red"),
    "replace": ("+-", "replace", "replacing", "replaced", "magenta"),
    "create-replacement": (
        "++", "create replacement", "creating replacement", "created replacement", "green",
    ),
    "delete-replaced": (
        "--", "delete original", "deleting original", "deleted original", "red",
    ),
    "remove-pending-replace": (
        "~ ", "forget original", "forgetting original", "forgot original", "",
    ),
    "refresh": ("~ ", "refresh", "refreshing", "refreshed", ""),
}  # fmt: skip
PARTS = ("create-replacement", "delete-replaced")
LONG = 72
"""Characters of a value that are shown in one line."""


class PlainDisplay:
    """One line for each event, as the official CLI prints without a terminal."""

    def __init__(self, stream: IO[str] | None = None) -> None:
        self._out = stream or sys.stdout
        self._lock = threading.RLock()  # also taken by a signal handler
        self._messages: dict[str, list[tuple[str, str]]] = {}
        self._root = ""  # the name of the stack's own resource; the stack's until that is met
        self._diff = False

    def begin(self, title: str, stack: str, _dry_run: bool, diff: bool, /) -> None:
        self._root, self._diff, self._messages = stack, diff, {}
        self._print(f"{title} ({stack}):\n")

    def step(self, phase: str, step: Step, dry_run: bool) -> None:
        self._note_root(step)
        if step.op == "same" or (dry_run and phase == "pre") or step.target.is_default_provider:
            return
        state = state_of(phase, step, dry_run)
        line = f" {WORDS[step.op][0]} {_short(step.type)} {step.name} {state}"
        shown = changed_keys(step)
        self._print(line + (f" [diff: {shown}]" if shown else ""))
        if self._diff and phase == "outputs":
            for row in property_lines(step):
                self._print(f"      {row}")

    def diagnostic(self, urn: str, severity: str, text: str, ephemeral: bool = False) -> None:
        if ephemeral:
            self._print(f"    {_subject(urn)}{text.rstrip()}")
            return
        with self._lock:
            self._messages.setdefault(urn, []).append((severity, text.rstrip()))

    def outputs(self, old: dict[str, Any], new: dict[str, Any], _dry_run: bool, /) -> None:
        self._diagnostics()
        self._print("Outputs:")
        for line in output_lines(old, new):
            self._print(f"  {line}")
        self._print("")

    def summary(
        self, changes: dict[str, int], seconds: float, dry_run: bool, _failed: bool, /
    ) -> None:
        self._diagnostics()
        self._print("Resources:")
        for line in summary_lines(changes, dry_run):
            self._print(f"    {line}")
        if not dry_run:
            self._print(f"\nDuration: {max(1, round(seconds))}s")
        self._print("")

    def end(self) -> None:
        self._diagnostics()
        self._out.flush()

    def _note_root(self, step: Step) -> None:
        if step.type == "pulumi:pulumi:Stack":
            self._root = step.name

    def _diagnostics(self) -> None:
        if not self._messages:
            return
        messages, self._messages = self._messages, {}
        self._print("Diagnostics:")
        for urn, rows in messages.items():
            self._print(f"  {describe(urn, self._root)}:")
            for severity, text in rows:
                mark = "" if severity.startswith("info") else f"{severity}: "
                self._print("    " + f"{mark}{text}".replace("\n", "\n    "))
            self._print("")

    def _print(self, line: str) -> None:
        with self._lock:
            print(line, file=self._out, flush=True)


class TreeDisplay(PlainDisplay):
    """A tree of the resources that is redrawn while the operation goes on; then the rest as plain
    lines. Needs a terminal."""

    def __init__(self, console: Any = None) -> None:
        from rich.console import Console

        self._console: Any = console or Console(highlight=False)
        super().__init__(self._console.file)
        self._live: Any = None
        self._dry_run = self._ended = False
        self._rows: dict[str, tuple[Step, str, bool]] = {}
        self._replaced: dict[str, Step] = {}
        self._progress: dict[str, str] = {}

    def begin(self, title: str, stack: str, dry_run: bool, diff: bool, /) -> None:
        from rich.live import Live

        self._root, self._dry_run, self._diff, self._messages = stack, dry_run, diff, {}
        self._rows, self._replaced, self._progress, self._ended = {}, {}, {}, False
        self._console.print(f"[bold magenta]{title} ({stack})[/]\n")
        self._live = Live(console=self._console, refresh_per_second=8, get_renderable=self._tree)
        self._live.start()

    def step(self, phase: str, step: Step, dry_run: bool) -> None:
        self._note_root(step)
        if step.target.is_default_provider:
            return
        with self._lock:
            if step.op == "replace":
                self._replaced[step.urn] = step
            # A replacement has several steps: each while it is done, then what they are together.
            if phase == "outputs" and step.op in PARTS:
                step = self._replaced.get(step.urn, step)
            if step.op != "same" or step.urn not in self._rows:
                self._rows[step.urn] = (step, phase, dry_run)
            if phase != "pre":
                self._progress.pop(step.urn, None)

    def diagnostic(self, urn: str, severity: str, text: str, ephemeral: bool = False) -> None:
        if ephemeral:
            with self._lock:
                self._progress[urn] = text.strip().splitlines()[-1] if text.strip() else ""
        else:
            super().diagnostic(urn, severity, text, ephemeral)

    def _print(self, line: str) -> None:
        self.end_tree()
        super()._print(line)

    def end(self) -> None:
        self.end_tree()
        super().end()

    def end_tree(self) -> None:
        """The rest is plain lines."""
        if self._live is not None:
            self._progress, self._ended = {}, True
            live, self._live = self._live, None
            live.stop()
            self._console.print()

    def _tree(self) -> Any:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, header_style="bold")
        for title in ("     Type", "Name", "Plan" if self._dry_run else "Status", "Info"):
            table.add_column(title, no_wrap=title != "Info")
        with self._lock:
            rows, progress = dict(self._rows), dict(self._progress)
        parents = {urn: _parent(step) for urn, (step, _, _) in rows.items()}
        changing = [
            urn
            for urn, (step, _, _) in rows.items()
            if step.op != "same" or step.refreshes or urn in self._messages
        ]
        # What stays as it is would push what happens out of a small terminal.
        told = _with_ancestors(changing, parents)
        for urn, branch in _branches(parents, told):
            step, phase, dry_run = rows[urn]
            color = WORDS[step.op][4]
            status = state_of(phase, step, dry_run)
            if self._ended and phase == "pre" and not (dry_run or step.target.custom):
                status = WORDS[step.op][3]  # few components ever say that they are complete
            info = f"[diff: {keys}]" if (keys := changed_keys(step)) else ""
            problems = [s for s, _ in self._messages.get(urn, []) if s != "info"]
            if problems:
                info += f" {len(problems)} {problems[0]}{'s' if len(problems) > 1 else ''}"
            table.add_row(
                Text.assemble((f" {WORDS[step.op][0]}  ", color), branch + _short(step.type)),
                step.name,
                Text(status, "red" if phase == "failed" else color),
                Text(info.strip()),
            )
        # Below and not in the table: a narrow terminal leaves its last column no room.
        doing = [Text(f"   {_subject(urn)}{text}", "cyan") for urn, text in progress.items()]
        return Group(table, *doing)


def make_display(interactive: bool | None = None, stream: IO[str] | None = None) -> Display:
    """The display for standard output, or another stream: a live tree on a terminal, else lines."""
    live = sys.stdout.isatty() if interactive is None else interactive
    return TreeDisplay() if live else PlainDisplay(stream)


def state_of(phase: str, step: Step, dry_run: bool) -> str:
    """`creating`, `created (3s)`, `**creating failed**`; in a preview `create`."""
    _, would, does, did, _ = WORDS[step.op]
    if phase == "failed":
        return f"**{does} failed**"
    if dry_run or phase == "pre":
        return would if dry_run else does
    return f"{did} ({step.seconds:.1f}s)" if did else ""


def changed_keys(step: Step) -> str:
    """`+new-gone~changed,and,more`: inputs that differ, without the engine's own."""
    if step.old is None or step.new is None or step.op in ("same", "refresh"):
        return ""
    old, new = step.old.inputs, step.new.inputs
    found: dict[str, list[str]] = {"+": [], "-": [], "~": []}
    for key in sorted({*old, *new}):
        if not key.startswith("__") and old.get(key) != new.get(key):
            found["+" if key not in old else "-" if key not in new else "~"].append(key)
    return "".join(f"{sign}{','.join(keys)}" for sign, keys in found.items() if keys)


def property_lines(step: Step) -> list[str]:
    """The inputs of a step that changed, with their values; none of what is deleted."""
    old, new = step.shown
    if step.op in ("delete", "delete-replaced"):
        return []
    rows = []
    for key in [k for k in sorted({*old, *new}) if not k.startswith("__")]:
        before, after = old.get(key), new.get(key)
        if key not in old:
            rows.append(f"+ {key}: {_text(after)}")
        elif key not in new:
            rows.append(f"- {key}: {_text(before)}")
        elif before != after:
            rows.append(f"~ {key}: {_text(before)} => {_text(after)}")
    return rows


def details(planned: Result) -> str:
    """Everything that changes, with its values."""
    lines: list[str] = []
    for step in planned.steps:
        if step.op not in ("same", "refresh"):
            lines += [f"{step.op} {step.type} {step.name}"]
            lines += [f"  {row}" for row in property_lines(step)]
    return "\n".join(lines)


def output_lines(old: dict[str, Any], new: dict[str, Any], *, unchanged: bool = True) -> list[str]:
    """Each output with + new, - gone, ~ old => new; names padded to one width. Of an object that
    changed, only the members that did are shown, each in a line of its own; what was before, and is
    long, by its beginning."""
    width = max((len(k) for k in {*old, *new}), default=0)
    lines = []
    for key in sorted({*old, *new}):
        before, after = old.get(key), new.get(key)
        if key not in new:
            lines.append(f"- {key:<{width}}: {_text(before)}")
        elif key not in old:
            lines += _new_output(f"{key:<{width}}", after)
        elif before == after:
            lines += [f"  {key:<{width}}: {_shortened(_text(after))}"] if unchanged else []
        elif isinstance(before, dict) and isinstance(after, dict):
            members = output_lines(before, after, unchanged=False)
            lines += [f"~ {key:<{width}}: {{", *(f"    {m}" for m in members), "  }"]
        else:
            lines.append(f"~ {key:<{width}}: {_shortened(_text(before))} => {_text(after)}")
    return lines


def _new_output(name: str, value: Any) -> list[str]:
    if not isinstance(value, dict) or len(_text(value)) <= LONG:
        return [f"+ {name}: {_text(value)}"]
    return [f"+ {name}: {{", *(f"    {line}" for line in output_lines({}, value)), "  }"]


def _shortened(text: str) -> str:
    """What did not change, or is no more, and is long is told by its beginning."""
    return text if len(text) <= LONG else f"{text[:LONG]}…"


def summary_lines(changes: dict[str, int], dry_run: bool) -> list[str]:
    """`+ 2 to create` or `+ 2 created`, then `3 unchanged`."""
    kinds = [kind for kind in ("create", "update", "delete", "replace") if changes.get(kind)]
    lines = []
    for kind in kinds:
        sign, would, _, did, _ = WORDS[kind]
        lines.append(f"{sign}{changes[kind]} {f'to {would}' if dry_run else did}")
    same = f"{changes.get('same', 0)} unchanged"
    if len(kinds) > 1:
        lines.append(f"{sum(changes[kind] for kind in kinds)} changes. {same}")
    elif changes.get("same"):
        lines.append(same)
    return lines


def describe(urn: str, root: str) -> str:
    """`TYPE (NAME)` of a resource; the stack, named `root`, for an empty URN."""
    if not urn:
        return f"pulumi:pulumi:Stack ({root})"
    parts = urn.split("::")
    return f"{_short(parts[2].rpartition('$')[2])} ({parts[-1]})"


def _subject(urn: str) -> str:
    return f"{urn.rpartition('::')[2]}: " if urn else ""


def _text(value: Any) -> str:
    if isinstance(value, str) and value in ("[secret]", "[unknown]"):
        return value
    return json.dumps(value, ensure_ascii=False)


def _short(type_: str) -> str:
    """`docker:index:Tag` of `docker:index/tag:Tag`, as the official CLI shows types."""
    module, _, name = type_.rpartition(":")
    camel = f"/{name[:1].lower()}{name[1:]}"
    return f"{module.removesuffix(camel)}:{name}" if module.endswith(camel) else type_


def _parent(step: Step) -> str:
    resource = step.new or step.old
    return resource.parent if resource else ""


def _with_ancestors(urns: list[str], parents: dict[str, str]) -> set[str]:
    found: set[str] = set()
    for start in urns:
        urn = start
        while urn in parents and urn not in found:
            found.add(urn)
            urn = parents[urn]
    return found


def _branches(parents: dict[str, str], told: set[str]) -> list[tuple[str, str]]:
    """(urn, the lines drawn before it), every resource after its parent; those without a known one
    are roots. Below the roots only what is `told`."""
    below: dict[str, list[str]] = {}
    for urn, parent in parents.items():
        if parent not in parents or urn in told:
            below.setdefault(parent if parent in parents else "", []).append(urn)
    found: list[tuple[str, str]] = []

    def walk(urn: str, own: str, before: str) -> None:
        found.append((urn, own))
        *others, last = below.get(urn) or [""]
        for child in others:
            walk(child, f"{before}├─ ", f"{before}│  ")
        if last:
            walk(last, f"{before}└─ ", f"{before}   ")

    for root in below.get("", []):
        walk(root, "", "")
    return found
