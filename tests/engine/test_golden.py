"""The same programs and calls as on the official CLI give the same steps, calls, state, outputs,
history, messages and exit codes; what is not here is refused by name, and nothing is changed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.engine.differences import AFTER_REFUSED, DIFFERENCES, REFUSED, entries
from tests.engine.replay import GOLDEN, NAMES, Scenario, View

# Those with waits and kills in them.
LONG = {"s22", "s23"}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.chaos) if n in LONG else n for n in NAMES]
)
def test_a_recorded_scenario_goes_as_on_the_official_cli(name: str, tmp_path: Path) -> None:
    expected: dict[str, View] = json.loads((GOLDEN / name / "expected.json").read_text())
    # Each scenario has its own copy of the module that its providers are classes of.
    sys.modules.pop("gold", None)
    refused, skipped = entries(dict(REFUSED), name), entries(dict(AFTER_REFUSED), name)
    allowed: dict[int, Any] = entries(dict(DIFFERENCES), name)
    compared, wrong = 0, []
    for number, operation, view in Scenario(name, tmp_path).run():
        compared += 1
        if number in refused:
            check_refusal(view, str(refused[number]))
            continue
        parts = allowed[number][0].split(", ") if number in allowed else []
        for part, recorded in expected[str(number)].items():
            if number not in skipped and part not in parts and view[part] != recorded:
                difference = (
                    f"recorded {only(recorded, view[part])}\nnow {only(view[part], recorded)}"
                )
                wrong.append(f"{name}/{number} {operation['op']} {part}\n{difference}")
    assert not wrong, "\n".join(wrong)
    assert compared == len(expected)


def check_refusal(view: View, named: str) -> None:
    text = view["said"] + json.dumps(view.get("errors", ""))
    assert view["exit_code"] == 1
    assert any(name in text for name in named.split(", "))
    assert "is not in the embedded engine" in text
    assert "use the Pulumi CLI" in text
    assert view["state"] == {}
    assert not any('"create"' in call for call in view["calls"])


def only(one: Any, other: Any) -> Any:
    """What `one` has and `other` has not."""
    if isinstance(one, dict) and isinstance(other, dict):
        return {key: value for key, value in one.items() if other.get(key) != value}
    return one
