"""The engine's side of Pulumi's protocol, called directly by the Python SDK in this process."""

# ruff: noqa: N802 (methods have the protocol's names)

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any, NoReturn

import grpc
from google.protobuf import empty_pb2
from pulumi.runtime._callbacks import _CallbackServicer
from pulumi.runtime.proto import engine_pb2, resource_pb2

from .deployment import Deployment
from .errors import EngineError, NotInEngine
from .snapshot import Resource
from .steps import Terminated
from .values import Props, decode, encode, is_secret, secret

FEATURES = [
    getattr(resource_pb2, f"RESOURCE_MONITOR_FEATURE_{name}")
    for name in (
        "SECRETS",
        "RESOURCE_HOOKS",
        # Announced so that the SDK sends them and the refusal is ours, with the name of the option.
        "ALIAS_SPECS",
        "DELETED_WITH",
        "REPLACE_WITH",
        "REPLACEMENT_TRIGGER",
        "TRANSFORMS",
        "INVOKE_TRANSFORMS",
        "PARAMETERIZATION",
        "ERROR_HOOKS",
    )
]
# Fields of a registration whose use is refused, by the name people know them by.
REFUSED = {
    "aliases": "the option aliases",
    "aliasURNs": "the option aliases",
    "aliasSpecs": "the option aliases",
    "importId": "the option import_",
    "deletedWith": "the option deleted_with",
    "replace_with": "the option replace_with",
    "replacement_trigger": "the option replacement_trigger",
    "transforms": "the option transforms",
    "remote": "a remote component",
    "pluginDownloadURL": "the option plugin_download_url",
    "packageRef": "a parameterized package",
    "envVarMappings": "the option env_var_mappings",
    "state_migrations": "a state migration",
}
# Calls of the protocol that are refused: what the program asked for, from the request.
REFUSED_CALLS: dict[str, Callable[[Any], str]] = {
    "ReadResource": lambda r: f"reading a resource by its id (get, {r.type})",
    "Call": lambda r: f"the method {r.tok}",
    "RegisterStackTransform": lambda _: "a stack transform",
    "RegisterStackInvokeTransform": lambda _: "an invoke transform",
    "RegisterErrorHook": lambda r: f"the error hook {r.name}",
    "RegisterPackage": lambda r: f"the parameterized package {r.name}",
}
OUTPUTS = "pulumi:pulumi:readStackOutputs"
"""What stack references are made of. A program may ask for its own stack's last outputs by it."""
HOOKS = {
    f"{when}_{what}": f"{when}_{what}".title().replace("_", "")
    for when in ("before", "after")
    for what in ("create", "update", "delete")
}


class _Ended(grpc.RpcError):
    """What the SDK takes for an engine that is gone: it ends the program with a RunError."""

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.UNAVAILABLE

    def details(self) -> str:
        return "the operation has ended"


class Callbacks(_CallbackServicer):
    """The SDK's table of callbacks, without the server it would start for an engine elsewhere."""

    def __init__(self, monitor: Monitor, loop: asyncio.AbstractEventLoop) -> None:
        self._callbacks, self._transforms = {}, {}
        self._monitor: Any = monitor
        self._target = "in-process"
        self._loop = loop

    def invoke(self, token: str, request: bytes) -> Any:
        """Run a callback on the program's loop and wait; never called on the loop's own thread."""
        return asyncio.run_coroutine_threadsafe(self._run(token, request), self._loop).result()

    async def _run(self, token: str, request: bytes) -> Any:
        try:
            return await self._callbacks[token](request)
        except SystemExit as error:  # would end the loop that everybody waits on
            return resource_pb2.ResourceHookResponse(error=f"the hook called exit({error.code})")


class Monitor:
    """Both services of the protocol (ResourceMonitor and Engine), and the program's hooks. The
    methods have the protocol's names, and what is not here is refused by its own."""

    def __init__(self, deployment: Deployment, root: str) -> None:
        self._deployment, self._root = deployment, root
        self._hooks: dict[str, Any] = {}
        self.callbacks: Callbacks | None = None
        deployment.hooks = self

    def __getattr__(self, name: str) -> Any:
        if name not in REFUSED_CALLS:
            raise AttributeError(name)

        def refuse(request: Any) -> NoReturn:
            named = name == "ReadResource"
            urn = self._urn(request) if named else ""
            self._end(urn, NotInEngine(REFUSED_CALLS[name](request), urn))

        return refuse

    # ---- ResourceMonitor -----------------------------------------------------------------------

    def GetDeploymentInfo(self, _: Any) -> Any:
        of = self._deployment
        return resource_pb2.DeploymentInfo(
            project=of.project,
            stack=of.stack,
            organization="organization",
            parallel=of.parallel,
            supportedFeatures=FEATURES,
        )

    def RegisterResource(self, request: Any) -> Any:
        urn = self._urn(request)
        try:
            new, unknown = self._deployment.register(self._wanted(urn, request))
        except Terminated:
            if self._deployment.continue_on_error and not self._deployment.cancelled:
                return resource_pb2.RegisterResourceResponse(urn=urn, result=resource_pb2.FAIL)
            raise _Ended from None
        except EngineError as error:
            self._end(urn, error)
        return resource_pb2.RegisterResourceResponse(
            urn=urn, id=new.id, object=encode(new.outputs), unknown=unknown
        )

    def RegisterResourceOutputs(self, request: Any) -> Any:
        try:
            self._deployment.register_outputs(request.urn, decode(request.outputs))
        except Terminated:
            raise _Ended from None
        except EngineError as error:
            self._end(request.urn, error)
        return empty_pb2.Empty()

    def RegisterResourceHook(self, request: Any) -> Any:
        # Called on the loop's thread, where a hook may be what somebody with a lock waits for:
        # no lock may be taken here.
        self._hooks[request.name] = request
        return empty_pb2.Empty()

    def Invoke(self, request: Any) -> Any:
        of = self._deployment
        name = request.args["name"] if request.tok == OUTPUTS else ""
        if name not in (of.stack, f"organization/{of.project}/{of.stack}"):
            self._end("", NotInEngine(f"the function {request.tok}"))
        found: Props = {"name": name, "outputs": of.outputs_before, "secretOutputNames": []}
        response = resource_pb2.ResourceInvokeResponse()
        getattr(response, "return").CopyFrom(encode(found))
        return response

    def SignalAndWaitForShutdown(self, _: Any) -> Any:
        try:
            self._deployment.finish()
        except Terminated:
            raise _Ended from None
        return empty_pb2.Empty()

    # ---- Engine --------------------------------------------------------------------------------

    def Log(self, request: Any) -> Any:
        severity = engine_pb2.LogSeverity.Name(request.severity).lower()
        if severity != "debug":
            tell = self._deployment.tell
            tell.diagnostic(request.urn, severity, request.message, request.ephemeral)
        return empty_pb2.Empty()

    def RequirePulumiVersion(self, _: Any) -> Any:
        return engine_pb2.RequirePulumiVersionResponse()

    # ---- hooks ---------------------------------------------------------------------------------

    def hook_options(self, name: str) -> tuple[bool, bool] | None:
        """(on_dry_run, ignore_errors) of a registered hook, None if there is none of the name."""
        found = self._hooks.get(name)
        return found and (found.on_dry_run, found.ignore_errors)

    def call_hook(self, name: str, arguments: dict[str, Any]) -> str:
        """Runs the hook; the text of its failure, empty if there was none."""
        assert self.callbacks is not None
        request = resource_pb2.ResourceHookRequest(**arguments)
        token = self._hooks[name].callback.token
        error: str = self.callbacks.invoke(token, request.SerializeToString()).error
        return error

    # ---- words for each other ------------------------------------------------------------------

    def _end(self, urn: str, error: EngineError) -> NoReturn:
        if isinstance(error, NotInEngine):
            self._deployment.refusal = error
        self._deployment.fail(urn, str(error))
        raise _Ended

    def _urn(self, request: Any) -> str:
        return self._deployment.urn(request.type, request.name, request.parent)

    def _wanted(self, urn: str, request: Any) -> Resource:
        for name, what in REFUSED.items():
            message = name == "replacement_trigger"
            if request.HasField(name) if message else getattr(request, name):
                raise NotInEngine(what, urn)
        inputs = {
            key: secret(value) if isinstance(value, list) and is_secret(value) else value
            for key, value in decode(request.object).items()
        }
        first = request.deleteBeforeReplace if request.deleteBeforeReplaceDefined else None
        above = self._deployment.declared(request.parent)

        def inherited(sent: str, kept: str) -> bool:
            own = request.HasField(sent) or above is None
            return bool(getattr(request, sent) if own else getattr(above, kept))

        hooks = {kept: list(getattr(request.hooks, sent)) for sent, kept in HOOKS.items()}
        return Resource(
            urn=urn,
            type=request.type,
            custom=request.custom,
            inputs=inputs,
            parent=request.parent,
            dependencies=list(request.dependencies),
            property_dependencies={
                key: list(found.urns) for key, found in request.propertyDependencies.items()
            },
            provider=request.provider,
            version=request.version,
            protect=inherited("protect", "protect"),
            retain_on_delete=inherited("retainOnDelete", "retain_on_delete"),
            delete_before_replace=first,
            ignore_changes=list(request.ignoreChanges),
            replace_on_changes=list(request.replaceOnChanges),
            hide_diffs=list(request.hideDiffs),
            secret_outputs=list(request.additionalSecretOutputs),
            hooks={kept: names for kept, names in sorted(hooks.items()) if names},
            source_position=self._position(request.sourcePosition),
            rest=_timeouts(request.customTimeouts),
        )

    def _position(self, position: Any) -> str:
        inside = f"file://{self._root}/"
        if not position.uri.startswith(inside):
            return ""
        return f"project:///{position.uri.removeprefix(inside)}#{position.line}"


def _timeouts(given: Any) -> dict[str, Any]:
    """Kept in the state for the official engine; here a provider takes the time it takes."""
    found = {k: s for k in ("create", "update", "delete") if (s := _seconds(getattr(given, k)))}
    return {"customTimeouts": found} if found else {}


def _seconds(text: str) -> int:
    """`1h30m` in seconds."""
    units = {"h": 3600.0, "m": 60.0, "s": 1.0}
    return int(sum(float(n) * units[u] for n, u in re.findall(r"([\d.]+)([hms])(?![a-z])", text)))
