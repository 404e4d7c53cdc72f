"""Secrets reach Compose as they are, and by neither its arguments nor its environment."""

from __future__ import annotations

from pathlib import Path

from reconciler.docker import Compose

NASTY = {
    "A": 'we\'ird "q" $HOME ${X:-y} back\\slash `id` $(id) # hash \\n end ',
    "B": "line 1\nline 2\ttab = ; é \u2028",
    "C": "",
    "D": "'single'",
    "E": '{"json": ["$a", "\\u0041"]}',
}
BODY = "".join(f'      {name}: "${{{name}}}"\n' for name in NASTY)
FILE = f"services:\n  web:\n    image: web:1\n    environment:\n{BODY}      OWN: ${{OWN}}\n"


def test_fault_63_68_a_secret_is_the_same_by_a_file_in_memory(tmp_path: Path) -> None:
    """Quotes, dollars, newlines, JSON and backslashes as secrets: Compose understands exactly the
    values, with the project's own .env beside them, as if they stood in its environment."""
    (tmp_path / "compose.yaml").write_text(FILE)
    (tmp_path / ".env").write_text("OWN=from the project\nA=not this one\n")
    compose = Compose()
    by_file = compose.hashes([tmp_path], project="p", env={}, secrets=NASTY)
    by_environment = compose.hashes([tmp_path], project="p", env=NASTY)
    other = compose.hashes([tmp_path], project="p", env={**NASTY, "A": "x"})
    assert by_file == by_environment != other


def test_a_variable_of_the_shell_does_not_win_over_a_secret(tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(FILE)
    compose = Compose()
    wanted = compose.hashes([tmp_path], project="p", env=NASTY)
    compose.environment["D"] = "of the shell"
    assert compose.hashes([tmp_path], project="p", env={}, secrets=NASTY) == wanted
