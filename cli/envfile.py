"""The .env file beside a compose file: what `init` reads of it."""

from __future__ import annotations

import re
from pathlib import Path

LOOKS_SECRET = re.compile(r"PASSWORD|PASSWD|SECRET|TOKEN|(^|_)KEY($|_)|APIKEY|CREDENTIAL", re.I)


def secrets_in(path: Path) -> dict[str, str]:
    """The variables whose names look like secrets."""
    found = read_env(path)
    return {name: value for name, value in found.items() if value and LOOKS_SECRET.search(name)}


def read_env(path: Path) -> dict[str, str]:
    """The plain assignments of a .env file; values with `$` are left to Compose."""
    found: dict[str, str] = {}
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return found
    for line in lines:
        match = re.fullmatch(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*?)\s*", line)
        if match is None:
            continue
        name, raw = match.groups()
        quoted = re.match(r"'([^']*)'|\"([^\"\\]*)\"", raw)
        if quoted is not None:
            value = quoted[1] if quoted[1] is not None else quoted[2]
            literal = quoted[1] is not None
        else:
            value, literal = re.sub(r"\s+#.*", "", raw), False
        if literal or "$" not in value:
            found[name] = value
    return found
