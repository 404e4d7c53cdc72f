"""What docker-py and its transport raise becomes one of our errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from reconciler.docker.dockervalues import (
    failed,
)
from reconciler.errors import DockerFailed, Unavailable

_START_DOCKER = "docker info   says whether the daemon answers; start it, then run this again"


class PortTaken(DockerFailed):
    """A container could not start because a port that it publishes is held by another."""


@contextmanager
def mapped(what: str) -> Iterator[None]:
    """Turn every error of docker-py and its transport into one of ours; `what` begins it."""
    import requests
    import urllib3
    from docker.errors import APIError, DockerException

    try:
        yield
    except APIError as error:
        said = error.explanation or str(error)
        raise failed(what, _as_text(said)) from None
    except (DockerException, requests.RequestException, urllib3.exceptions.HTTPError) as error:
        reason = _shortest(error)
        raise Unavailable(
            f"Docker does not answer ({what}): {reason}", next_step=_START_DOCKER
        ) from None


@contextmanager
def suppress_conflict(api_error: type[Exception]) -> Iterator[None]:
    """Swallow Docker's answer 409: the container is already in the state that was asked for."""
    try:
        yield
    except api_error as error:
        if getattr(error, "status_code", None) != 409:
            raise


@contextmanager
def suppress_there(api_error: type[Exception]) -> Iterator[None]:
    """Swallow Docker's answer that a container is in a network already."""
    try:
        yield
    except api_error as error:
        if "already exists in network" not in str(error):
            raise


def _as_text(said: object) -> str:
    return said.decode(errors="replace") if isinstance(said, bytes) else str(said)


def _shortest(error: BaseException) -> str:
    """The operating system's reason at the bottom of a chain of library errors."""
    cause: BaseException | None = error
    while cause is not None:
        for value in (cause, *cause.args, getattr(cause, "reason", None)):
            if isinstance(value, OSError) and value.strerror:
                return f"{value.strerror} ({value.filename})" if value.filename else value.strerror
            for inner in getattr(value, "args", ()):
                if isinstance(inner, OSError) and inner.strerror:
                    return inner.strerror
        cause = cause.__cause__ or cause.__context__
    return str(error)
