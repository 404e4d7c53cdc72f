"""Much that is read at once, and stays: the search for garbage leaves it alone."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_MUCH = 1000


@contextmanager
def lasting(parts: int) -> Iterator[None]:
    """What is made within is never looked through for cycles: it is kept until nobody has it any
    more. Only where there are many parts does that save time."""
    if parts < _MUCH or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
