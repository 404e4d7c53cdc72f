"""An official provider plugin, started and driven by the engine itself over Pulumi's protocol."""

from __future__ import annotations

import atexit
import os
import subprocess
import threading
from pathlib import Path
from typing import Any

import grpc
from pulumi.runtime.proto import provider_pb2, provider_pb2_grpc

from .planner import Change
from .providers import Failures, Found, Known, ProviderFailed
from .values import Props, decode, encode

_KINDS = ("add", "add-replace", "delete", "delete-replace", "update", "update-replace")
_SIZE = 400 * 1024 * 1024
STOP_SECONDS = 5


class PluginProvider:
    """One plugin process: started at the first question, ended with this process."""

    def __init__(self, binary: Path, config: Props) -> None:
        self._binary, self._lock = binary, threading.Lock()
        self._package = binary.name.removeprefix("pulumi-resource-")
        self._config = {k: v for k, v in config.items() if k not in ("version", "__internal")}
        self._made: Any = None

    def check(self, urn: str, olds: Props, news: Props, /) -> tuple[Props, Failures]:
        seed = os.urandom(32)
        answer = self._ask("Check", urn=urn, olds=encode(olds), news=encode(news), randomSeed=seed)
        return decode(answer.inputs), [(f.property, f.reason) for f in answer.failures]

    def diff(self, old: Known, news: Props, /) -> Change:
        answer = self._ask("Diff", **_told(old), news=encode(news))
        some = answer.changes == provider_pb2.DiffResponse.DIFF_SOME
        if answer.changes == provider_pb2.DiffResponse.DIFF_UNKNOWN:
            some = bool(answer.replaces) or old.inputs != news
        detailed = {
            path: {"diffKind": _KINDS[found.kind], "inputDiff": found.inputDiff}
            for path, found in answer.detailedDiff.items()
        }
        first, keys = answer.deleteBeforeReplace, tuple(answer.diffs)
        told = detailed if answer.hasDetailedDiff else None
        return Change(some, tuple(answer.replaces), first, keys, told)

    def create(self, urn: str, news: Props, preview: bool, /) -> tuple[str, Props]:
        answer = self._ask("Create", urn=urn, properties=encode(news), preview=preview)
        return answer.id, decode(answer.properties)

    def read(self, old: Known, /) -> Found | None:
        known = {"properties": encode(old.outputs), "inputs": encode(old.inputs)}
        answer = self._ask("Read", urn=old.urn, id=old.id, **known)
        if not answer.id:
            return None
        return decode(answer.properties), decode(answer.inputs) or None

    def update(self, old: Known, news: Props, preview: bool, /) -> Props:
        answer = self._ask("Update", **_told(old), news=encode(news), preview=preview)
        return decode(answer.properties)

    def delete(self, old: Known, /) -> None:
        self._ask("Delete", urn=old.urn, id=old.id, properties=encode(old.outputs))

    def _ask(self, method: str, **fields: Any) -> Any:
        request = getattr(provider_pb2, f"{method}Request")(**fields)
        try:
            return getattr(self._plugin(), method)(request)
        except grpc.RpcError as error:
            details = getattr(error, "details", lambda: None)() or str(error)
            raise ProviderFailed(str(details).strip()) from error

    def _plugin(self) -> Any:
        with self._lock:
            if self._made is None:
                self._made = self._start()
            return self._made

    def _start(self) -> Any:
        process = subprocess.Popen(
            [self._binary], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
        )
        atexit.register(_end, process)
        assert process.stdout is not None
        port = process.stdout.readline().strip()
        if not port.isdigit():
            raise ProviderFailed(f"the plugin {self._binary} did not start: it gave no port")
        sizes = [
            ("grpc.max_receive_message_length", _SIZE),
            ("grpc.max_send_message_length", _SIZE),
        ]
        channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=sizes)
        stub = provider_pb2_grpc.ResourceProviderStub(channel)
        stub.Configure(
            provider_pb2.ConfigureRequest(
                args=encode(self._config),
                variables={f"{self._package}:config:{k}": str(v) for k, v in self._config.items()},
                sends_old_inputs=True,
            ),
            wait_for_ready=True,
        )
        return stub


def _told(old: Known) -> dict[str, Any]:
    outputs, inputs = encode(old.outputs), encode(old.inputs)
    return {"urn": old.urn, "id": old.id, "olds": outputs, "old_inputs": inputs}


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(timeout=STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
