"""Dynamic providers: classes of the user's program, pickled into the property `__provider`."""

from __future__ import annotations

import asyncio
import base64
import contextvars
import importlib
import threading
import traceback
from collections.abc import Callable
from typing import Any, TypeVar, cast

from .planner import Change
from .providers import Failures, Found, Known, ProviderFailed
from .values import Props, decode, encode

KEY = "__provider"
Method = TypeVar("Method", bound=Callable[..., Any])


def alone(method: Method) -> Method:
    """A method that runs in a context of its own, without the program's settings. What the user's
    code raises becomes ProviderFailed."""

    def call(self: DynamicProvider, *given: Any) -> Any:
        from pulumi.runtime.settings import Settings, configure

        def inside() -> Any:
            configure(Settings(self.project, "stack", organization="organization"))
            return method(self, *given)

        try:
            return contextvars.Context().run(inside)
        except ProviderFailed:
            raise
        except (Exception, SystemExit) as error:
            raise ProviderFailed(sentence(error)) from error

    return cast("Method", call)


class DynamicProvider:
    """Calls the user's providers as Pulumi's provider process does: plain values, a context of its
    own, the SDK's own conversion in both directions."""

    def __init__(self, project: str, config: Props) -> None:
        self.project, self._config = project, config
        self._known: dict[str, Any] = {}
        self._lock = threading.Lock()

    @alone
    def check(self, _urn: str, olds: Props, news: Props, /) -> tuple[Props, Failures]:
        given = _to_user(news, True)
        answer = self._provider(given, olds).check(_to_user(olds, True), given)
        failures = [(f.property, f.reason) for f in answer.failures or []]
        return _from_user(answer.inputs, given), failures

    @alone
    def diff(self, old: Known, news: Props, /) -> Change:
        given = _to_user(news, True)
        provider = self._provider(given, old.outputs)
        answer = provider.diff(old.id, _to_user(old.outputs, True), given)
        replaces = tuple(answer.replaces or ())
        changed = answer.changes
        if changed is None:
            changed = bool(replaces) or old.inputs != news
        return Change(bool(changed), replaces, bool(answer.delete_before_replace))

    @alone
    def create(self, _urn: str, news: Props, preview: bool, /) -> tuple[str, Props]:
        if preview:
            return "", dict(news)
        given = _to_user(news)
        answer = self._provider(given).create(given)
        return str(answer.id), _from_user(answer.outs, given)

    @alone
    def read(self, old: Known, /) -> Found | None:
        given = _to_user(old.outputs)
        answer = self._provider(given).read(old.id, given)
        if not answer.id:
            return None
        inputs = None if answer.inputs is None else _from_user(answer.inputs, given)
        return _from_user(answer.outs, given), inputs

    @alone
    def update(self, old: Known, news: Props, preview: bool, /) -> Props:
        if preview:
            return dict(news)
        given = _to_user(news)
        answer = self._provider(given).update(old.id, _to_user(old.outputs), given)
        return _from_user(answer.outs, given)

    @alone
    def delete(self, old: Known, /) -> None:
        given = _to_user(old.outputs)
        self._provider(given).delete(old.id, given)

    def _provider(self, props: Props, olds: Props | None = None) -> Any:
        dill: Any = importlib.import_module("dill")
        from pulumi.dynamic import Config, ConfigureRequest
        from pulumi.runtime import rpc
        from pulumi.runtime._serialization import _deserialize

        text = props.get(KEY)
        if text == rpc.UNKNOWN and olds:
            text = olds.get(KEY)
        if not isinstance(text, str):
            raise ProviderFailed("the state holds no provider for this dynamic resource")
        with self._lock:
            if text not in self._known:
                provider = _deserialize(lambda: dill.loads(base64.b64decode(text)))
                provider.configure(ConfigureRequest(Config(self._config, self.project)))
                self._known[text] = provider
            return self._known[text]


def _to_user(props: Props, keep_unknowns: bool = False) -> Any:
    from pulumi.runtime import rpc

    return rpc.deserialize_properties(encode(props), keep_unknowns)


def _from_user(props: dict[str, Any] | None, given: dict[str, Any]) -> Props:
    """What a provider answered, and the provider itself, which it need not give back."""
    from pulumi.runtime import rpc

    answered = {**(props or {}), KEY: given[KEY]}

    loop = asyncio.new_event_loop()
    try:
        return decode(loop.run_until_complete(rpc.serialize_properties(answered, {})))
    finally:
        loop.close()


def sentence(error: BaseException) -> str:
    """An exception of user code as one line: its text, for other than plain exceptions also its
    class, and where in the program it was raised."""
    text = str(error).strip()
    if type(error) is not Exception and not hasattr(error, "exit_code"):
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "site-packages" not in f[0]]
    frames = [f for f in frames if f.filename != __file__]
    if hasattr(error, "exit_code") or not frames:
        return text or type(error).__name__
    place = f"{frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno}"
    return f"{text or type(error).__name__} ({place})"
