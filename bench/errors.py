"""What ends a bench."""

from __future__ import annotations


class BenchError(Exception):
    """Something could not be measured; the message says what and what it said itself."""


class TooSlow(BenchError):
    """A command that was ended at its limit; `seconds` it had by then."""

    def __init__(self, message: str, seconds: float) -> None:
        super().__init__(message)
        self.seconds = seconds
