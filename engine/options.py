"""How an operation is to go."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .operations import Result


@dataclass(frozen=True)
class Options:
    """What may be said of an operation; each is off unless said."""

    message: str | None = None  # for the history; else the subject of the git commit
    confirm: Callable[[Result], bool] | None = None  # gets the preview, says yes or no; else yes
    skip_preview: bool = False
    preview_only: bool = False
    refresh: bool = False  # read every resource anew before the program runs
    run_program: bool = False  # destroy: run the program, for its delete hooks
    diff: bool = False  # show properties with their values
    expect_no_changes: bool = False
    clear_pending_creates: bool = False
    validate: bool = True  # the config must fit what the project declares
    parallel: int = 16
    targets: tuple[str, ...] = ()  # URNs: all other resources stay as they are
    replacing: tuple[str, ...] = ()  # URNs: replaced whatever their providers say
    continue_on_error: bool = False  # what does not depend on a failed resource goes on
