"""Tests here look at the report in a browser."""

from tests.browser import browser, shown

__all__ = ["browser", "shown"]
