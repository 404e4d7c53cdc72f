"""Dynamic providers: classes of the user's program, pickled into the property `__provider`."""

from __future__ import annotations

import asyncio
import base64
import contextvars
import importlib
import threading
import traceback
from collections.abc import Callable
from typing import Any, TypeVar

from .planner import Change
from .providers import Failures, ProviderFailed
from .values import Props, decode, encode

KEY = "__provider"
T = TypeVar("T")


class DynamicProvider:
    """Calls the user's providers as Pulumi's provider process does: plain values, a context of its
    own (no program settings), the SDK's own conversion in both directions."""

    def __init__(self, project: str, config: Props) -> None:
        self._project, self._config = project, config
        self._known: dict[str, Any] = {}
        self._lock = threading.Lock()

    def check(self, _type: str, olds: Props, news: Props, /) -> tuple[Props, Failures]:
        def ask() -> tuple[Props, Failures]:
            given = _to_user(news, True)
            answer = self._provider(given, olds).check(_to_user(olds, True), given)
            inputs = {**answer.inputs, KEY: given[KEY]}
            return _from_user(inputs), [(f.property, f.reason) for f in answer.failures or []]

        return self._run(ask)

    def diff(self, _type: str, id_: str, outputs: Props, inputs: Props, news: Props, /) -> Change:
        def ask() -> Change:
            given = _to_user(news, True)
            answer = self._provider(given, outputs).diff(id_, _to_user(outputs, True), given)
            replaces = tuple(answer.replaces or ())
            changed = answer.changes
            if changed is None:
                changed = bool(replaces) or inputs != news
            return Change(bool(changed), replaces, bool(answer.delete_before_replace))

        return self._run(ask)

    def create(self, _type: str, news: Props, preview: bool, /) -> tuple[str, Props]:
        if preview:
            return "", dict(news)

        def ask() -> tuple[str, Props]:
            given = _to_user(news)
            answer = self._provider(given).create(given)
            return str(answer.id), _from_user({**(answer.outs or {}), KEY: given[KEY]})

        return self._run(ask)

    def read(
        self, _type: str, id_: str, outputs: Props, _inputs: Props, /
    ) -> tuple[Props, Props | None] | None:
        def ask() -> tuple[Props, Props | None] | None:
            given = _to_user(outputs)
            answer = self._provider(given).read(id_, given)
            if not answer.id:
                return None
            inputs = answer.inputs
            return _from_user({**(answer.outs or {}), KEY: given[KEY]}), (
                None if inputs is None else _from_user({**inputs, KEY: given[KEY]})
            )

        return self._run(ask)

    def update(
        self, _type: str, id_: str, outputs: Props, _inputs: Props, news: Props, preview: bool, /
    ) -> Props:
        if preview:
            return dict(news)

        def ask() -> Props:
            given = _to_user(news)
            answer = self._provider(given).update(id_, _to_user(outputs), given)
            return _from_user({**(answer.outs or {}), KEY: given[KEY]})

        return self._run(ask)

    def delete(self, _type: str, id_: str, outputs: Props, /) -> None:
        def ask() -> None:
            given = _to_user(outputs)
            self._provider(given).delete(id_, given)

        self._run(ask)

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
                provider.configure(ConfigureRequest(Config(self._config, self._project)))
                self._known[text] = provider
            return self._known[text]

    def _run(self, ask: Callable[[], T]) -> T:
        from pulumi.runtime.settings import Settings, configure

        def alone() -> T:
            configure(Settings(self._project, "stack", organization="organization"))
            return ask()

        try:
            return contextvars.Context().run(alone)
        except ProviderFailed:
            raise
        except (Exception, SystemExit) as error:
            raise ProviderFailed(sentence(error)) from error


def _to_user(props: Props, keep_unknowns: bool = False) -> Any:
    from pulumi.runtime import rpc

    return rpc.deserialize_properties(encode(props), keep_unknowns)


def _from_user(props: dict[str, Any]) -> Props:
    from pulumi.runtime import rpc

    loop = asyncio.new_event_loop()
    try:
        return decode(loop.run_until_complete(rpc.serialize_properties(props, {})))
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
