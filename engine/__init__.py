"""An engine for Pulumi programs of a narrow kind, in one process with the program.

It speaks Pulumi's protocol with the official Python SDK and keeps state, history and config in the
layout of Pulumi's file backend, so the official CLI can go on where it stopped, and the other way
round. What it does not have it refuses by name.

    project = Project.find(Path.cwd())
    stack = Stack(project, "prod")
    result = up(stack, display=make_display(), message="release prod-004")
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .display import Display, PlainDisplay, TreeDisplay, make_display
    from .errors import Cancelled, EngineError, NotInEngine, StackLocked, StackMissing
    from .operations import EXIT_UNEXPECTED_CHANGES, Options, Result, destroy, preview, refresh, up
    from .project import Project
    from .stack import Stack
    from .steps import Step

__all__ = [
    "EXIT_UNEXPECTED_CHANGES",
    "Cancelled",
    "Display",
    "EngineError",
    "NotInEngine",
    "Options",
    "PlainDisplay",
    "Project",
    "Result",
    "Stack",
    "StackLocked",
    "StackMissing",
    "Step",
    "TreeDisplay",
    "destroy",
    "make_display",
    "preview",
    "refresh",
    "up",
]
_WHERE = {
    "display": ("Display", "PlainDisplay", "TreeDisplay", "make_display"),
    "errors": ("Cancelled", "EngineError", "NotInEngine", "StackLocked", "StackMissing"),
    "project": ("Project",),
    "stack": ("Stack",),
    "steps": ("Step",),
}


def __getattr__(name: str) -> Any:
    """Modules are read when they are asked for: a stack derives its key while the rest is."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    where = next((module for module, names in _WHERE.items() if name in names), "operations")
    return getattr(import_module(f".{where}", __name__), name)
