"""Who is told what happened, and in which words."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reconciler.catalog import Catalog
    from reconciler.config import Stack


def look_at_disk(stack: Stack, catalog: Catalog) -> None:
    """Tell whoever wants to know of a file system with little room, once a day while it has."""
    if stack.settings.notify:
        from reconciler.notifications import notifications

        notifications.tell_of_disk(stack, catalog)
