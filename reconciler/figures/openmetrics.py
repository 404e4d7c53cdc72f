"""The figures of a stack as OpenMetrics text, for Prometheus and its like. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime

from reconciler.figures.metrics import Figures, Metrics, Spread
from reconciler.records.ledger import State

CONTENT_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"
Labels = Mapping[str, str]


def text(metrics: Metrics, state: State, *, project: str, stack: str) -> str:
    """The whole exposition, its end mark included. Times are in seconds."""
    own = {"project": project, "stack": stack}
    moves = {move: {**own, "move": move} for move in metrics.moves}
    lines: list[str] = []

    def family(name: str, kind: str, told: str, samples: Iterator[str], unit: str = "") -> None:
        found = list(samples)
        if found:
            lines.append(f"# TYPE {name} {kind}")
            lines.extend([f"# UNIT {name} {unit}"] if unit else [])
            lines.append(f"# HELP {name} {told}")
            lines.extend(found)

    def per_move(name: str, value: str) -> Iterator[str]:
        for move, figures in metrics.moves.items():
            yield _sample(name, moves[move], getattr(figures, value))

    def spread(name: str, value: str) -> Iterator[str]:
        for move, figures in metrics.moves.items():
            yield from _summary(name, moves[move], getattr(figures, value))

    family("lockstep_switches", "counter", "Switches by their end.", _results(metrics, moves))
    family(
        "lockstep_success_ratio",
        "gauge",
        "Committed switches, of those committed or reverted.",
        (
            _sample("lockstep_success_ratio", moves[move], figures.success_rate)
            for move, figures in metrics.moves.items()
            if figures.success_rate is not None
        ),
    )
    for name, value, told in (
        ("lockstep_switch_seconds", "seconds", "From the plan to the end, of what ended well."),
        ("lockstep_downtime_seconds", "downtime", "Without an answer, at each switch."),
        ("lockstep_missed_estimate_seconds", "missed_estimate", "Downtime against its estimate."),
    ):
        family(name, "summary", told, spread(name, value), unit="seconds")
    family(
        "lockstep_repeats",
        "counter",
        "Switches that tried again what the switch before failed to do.",
        per_move("lockstep_repeats_total", "repeats"),
    )
    family(
        "lockstep_set_aside_switches",
        "counter",
        "Switches that set data aside.",
        per_move("lockstep_set_aside_switches_total", "set_aside_switches"),
    )
    family(
        "lockstep_set_aside_items",
        "counter",
        "What was set aside, as counted by the datasets' drivers.",
        _items("lockstep_set_aside_items_total", own, metrics.all),
    )
    singles: dict[str, tuple[str, float]] = {
        "lockstep_captures_owed": (
            "Sealed generations that are not in the store yet.",
            len(state.debts()),
        ),
        "lockstep_quarantined_releases": (
            "Releases whose failure nobody answered.",
            len(state.quarantined),
        ),
        "lockstep_stopped": ("1 while the stack is stopped by hand.", int(state.stopped)),
    }
    for name, (told, number) in singles.items():
        family(name, "gauge", told, iter([_sample(name, own, number)]))
    name = "lockstep_interrupted_switches"
    told = "Switches that a crash left unfinished."
    family(name, "counter", told, iter([_sample(f"{name}_total", own, metrics.interrupted)]))
    if metrics.until is not None:
        name = "lockstep_last_switch_timestamp_seconds"
        at = datetime.fromisoformat(metrics.until).timestamp()
        family(
            name, "gauge", "When a switch last ended.", iter([_sample(name, own, at)]), "seconds"
        )
    if state.standing is not None:
        # Not of the type info, which only OpenMetrics knows: older readers take the text, too.
        live = {**own, "release": str(state.live_release), "world": state.standing}
        name = "lockstep_live_release"
        family(name, "gauge", "1 for what is live.", iter([_sample(name, live, 1)]))
    return "\n".join([*lines, "# EOF"]) + "\n"


def _results(metrics: Metrics, moves: Mapping[str, Labels]) -> Iterator[str]:
    for move, figures in metrics.moves.items():
        for result in ("committed", "reverted", "recovered"):
            labels = {**moves[move], "result": result}
            yield _sample("lockstep_switches_total", labels, getattr(figures, result))


def _summary(name: str, labels: Labels, spread: Spread | None) -> Iterator[str]:
    if spread is None:
        return
    yield _sample(name, {**labels, "quantile": "0.5"}, spread.median)
    yield _sample(name, {**labels, "quantile": "1.0"}, spread.worst)
    yield _sample(f"{name}_count", labels, spread.count)
    yield _sample(f"{name}_sum", labels, spread.total)


def _items(name: str, labels: Labels, figures: Figures) -> Iterator[str]:
    for dataset, counts in sorted(figures.set_aside.items()):
        for what, count in sorted(counts.items()):
            yield _sample(name, {**labels, "dataset": dataset, "what": what}, count)


def _sample(name: str, labels: Labels, value: float) -> str:
    said = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
    return f"{name}{{{said}}} {value}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
