"""The values of a release's secrets as they are now: read at every up, never recorded."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from reconciler import masking
from reconciler.catalog import Catalog
from reconciler.config import Stack
from reconciler.errors import BadInput
from reconciler.project import compose
from reconciler.records.release import Release


def values(stack: Stack, release: Release) -> dict[str, str]:
    """Secret -> value, of all that the release uses. Raises BadInput naming the one missing."""
    found = {}
    for name in release.secrets:
        path = compose.secret_file(name)
        if path is not None:
            found[name] = _read(Path(path), release.name)
        elif name in stack.secret_values:
            found[name] = stack.secret_values[name]
        else:
            raise BadInput(
                f"secret {name}, which {release.name} needs, is not in the config of stack "
                f"{stack.name}",
                next_step=f"lockstep config set --secret --path secrets.{name}",
            )
    masking.hide(found.values())
    return found


def fingerprint(stack: Stack, catalog: Catalog, release: Release) -> str:
    """Keyed hash of the release's secrets as they are now; "" when it cannot be known."""
    with suppress(BadInput):
        return catalog.fingerprint(values(stack, release))
    return ""


def _read(path: Path, release: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise BadInput(f"the secret file {path} of {release} cannot be read: {reason}") from None
