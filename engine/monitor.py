"""The engine's side of Pulumi's protocol, called directly by the Python SDK in this process."""

from __future__ import annotations

import asyncio
from typing import Any, NoReturn

import grpc
from google.protobuf import empty_pb2
from pulumi.runtime._callbacks import _CallbackServicer
from pulumi.runtime.proto import engine_pb2, resource_pb2

from .deployment import Deployment, Listener, Terminated
from .errors import EngineError, NotInEngine
from .planner import Goal
from .values import decode, encode, is_secret, secret

FEATURES = (
    resource_pb2.RESOURCE_MONITOR_FEATURE_SECRETS,
    resource_pb2.RESOURCE_MONITOR_FEATURE_RESOURCE_HOOKS,
    # Announced so that the SDK sends them and the refusal is ours, with the name of the option.
    resource_pb2.RESOURCE_MONITOR_FEATURE_ALIAS_SPECS,
    resource_pb2.RESOURCE_MONITOR_FEATURE_DELETED_WITH,
    resource_pb2.RESOURCE_MONITOR_FEATURE_REPLACE_WITH,
    resource_pb2.RESOURCE_MONITOR_FEATURE_REPLACEMENT_TRIGGER,
    resource_pb2.RESOURCE_MONITOR_FEATURE_TRANSFORMS,
    resource_pb2.RESOURCE_MONITOR_FEATURE_INVOKE_TRANSFORMS,
    resource_pb2.RESOURCE_MONITOR_FEATURE_PARAMETERIZATION,
    resource_pb2.RESOURCE_MONITOR_FEATURE_ERROR_HOOKS,
)
# Fields of a registration whose use is refused, by the name people know them by.
_REFUSED = {
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
_HOOKS = {
    "before_create": "BeforeCreate",
    "after_create": "AfterCreate",
    "before_update": "BeforeUpdate",
    "after_update": "AfterUpdate",
    "before_delete": "BeforeDelete",
    "after_delete": "AfterDelete",
}
# The protocol's names of our methods.
_METHODS = {
    "GetDeploymentInfo": "get_deployment_info",
    "RegisterResource": "register_resource",
    "RegisterResourceOutputs": "register_resource_outputs",
    "RegisterResourceHook": "register_resource_hook",
    "SignalAndWaitForShutdown": "signal_and_wait_for_shutdown",
    "ReadResource": "read_resource",
    "Invoke": "invoke",
    "Call": "call",
    "RegisterStackTransform": "register_stack_transform",
    "RegisterStackInvokeTransform": "register_stack_invoke_transform",
    "RegisterErrorHook": "register_error_hook",
    "RegisterPackage": "register_package",
    "Log": "log",
    "RequirePulumiVersion": "require_pulumi_version",
}
_SEVERITIES = {
    engine_pb2.DEBUG: "debug",
    engine_pb2.INFO: "info",
    engine_pb2.WARNING: "warning",
    engine_pb2.ERROR: "error",
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
    """Both services of the protocol (ResourceMonitor and Engine), and the program's hooks."""

    def __init__(self, deployment: Deployment, listener: Listener, root: str) -> None:
        self._deployment, self._tell, self._root = deployment, listener, root
        self._hooks: dict[str, tuple[str, bool, bool]] = {}
        self.callbacks: Callbacks | None = None
        deployment.hooks = self

    def __getattr__(self, name: str) -> Any:
        if name in _METHODS:
            return getattr(self, _METHODS[name])
        raise AttributeError(name)

    # ---- ResourceMonitor -----------------------------------------------------------------------

    def get_deployment_info(self, _: Any) -> Any:
        of = self._deployment
        return resource_pb2.DeploymentInfo(
            project=of.project,
            stack=of.stack,
            organization="organization",
            parallel=of.parallel,
            supportedFeatures=FEATURES,
        )

    def register_resource(self, request: Any) -> Any:
        urn = self._deployment.urn(request.type, request.name, request.parent)
        try:
            new, unknown = self._deployment.register(self._goal(urn, request))
        except Terminated:
            raise _Ended from None
        except EngineError as error:
            self._end(urn, error)
        response = resource_pb2.RegisterResourceResponse(
            urn=urn, id=new.id, object=encode(new.outputs), unknown=unknown
        )
        for key, urns in new.property_dependencies.items():
            response.propertyDependencies[key].urns.extend(urns)
        return response

    def register_resource_outputs(self, request: Any) -> Any:
        try:
            self._deployment.register_outputs(request.urn, decode(request.outputs))
        except Terminated:
            raise _Ended from None
        except EngineError as error:
            self._end(request.urn, error)
        return empty_pb2.Empty()

    def register_resource_hook(self, request: Any) -> Any:
        # Called on the loop's thread, where a hook may be what somebody with a lock waits for:
        # no lock may be taken here.
        self._hooks[request.name] = (
            request.callback.token,
            request.on_dry_run,
            request.ignore_errors,
        )
        return empty_pb2.Empty()

    def signal_and_wait_for_shutdown(self, _: Any) -> Any:
        try:
            self._deployment.finish()
        except Terminated:
            raise _Ended from None
        return empty_pb2.Empty()

    def read_resource(self, request: Any) -> Any:
        urn = self._deployment.urn(request.type, request.name, request.parent)
        self._end(urn, NotInEngine("reading a resource by its id (get)", urn))

    def invoke(self, request: Any) -> Any:
        self._end("", NotInEngine(f"the function {request.tok}"))

    def call(self, request: Any) -> Any:
        self._end("", NotInEngine(f"the method {request.tok}"))

    def register_stack_transform(self, _: Any) -> Any:
        self._end("", NotInEngine("a stack transform"))

    def register_stack_invoke_transform(self, _: Any) -> Any:
        self._end("", NotInEngine("an invoke transform"))

    def register_error_hook(self, request: Any) -> Any:
        self._end("", NotInEngine(f"the error hook {request.name}"))

    def register_package(self, request: Any) -> Any:
        self._end("", NotInEngine(f"the parameterized package {request.name}"))

    # ---- Engine --------------------------------------------------------------------------------

    def log(self, request: Any) -> Any:
        severity = _SEVERITIES.get(request.severity, "info")
        if severity != "debug":
            self._tell.diagnostic(request.urn, severity, request.message, request.ephemeral)
        if severity == "error":
            self._deployment.program_failed = True
        return empty_pb2.Empty()

    def require_pulumi_version(self, _: Any) -> Any:
        return engine_pb2.RequirePulumiVersionResponse()

    # ---- hooks ---------------------------------------------------------------------------------

    def hook_options(self, name: str) -> tuple[bool, bool] | None:
        found = self._hooks.get(name)
        return found and (found[1], found[2])

    def call_hook(self, name: str, arguments: dict[str, Any]) -> str:
        assert self.callbacks is not None
        request = resource_pb2.ResourceHookRequest(**arguments)
        answer = self.callbacks.invoke(self._hooks[name][0], request.SerializeToString())
        error: str = answer.error
        return error

    # ---- words for each other ------------------------------------------------------------------

    def _end(self, urn: str, error: EngineError) -> NoReturn:
        self._deployment.fail(urn, str(error))
        raise _Ended

    def _goal(self, urn: str, request: Any) -> Goal:
        for name, what in _REFUSED.items():
            value = getattr(request, name)
            set_ = request.HasField(name) if name == "replacement_trigger" else bool(value)
            if set_:
                raise NotInEngine(what, urn)
        inputs = {
            key: secret(value) if isinstance(value, list) and is_secret(value) else value
            for key, value in decode(request.object).items()
        }
        first = request.deleteBeforeReplace if request.deleteBeforeReplaceDefined else None
        return Goal(
            urn=urn,
            type=request.type,
            name=request.name,
            custom=request.custom,
            inputs=inputs,
            parent=request.parent,
            dependencies=tuple(request.dependencies),
            property_dependencies={
                key: tuple(found.urns) for key, found in request.propertyDependencies.items()
            },
            provider=request.provider,
            version=request.version,
            protect=request.protect,
            retain_on_delete=request.retainOnDelete,
            delete_before_replace=first,
            ignore_changes=tuple(request.ignoreChanges),
            secret_outputs=tuple(request.additionalSecretOutputs),
            hooks={
                kept: tuple(getattr(request.hooks, sent))
                for sent, kept in _HOOKS.items()
                if getattr(request.hooks, sent)
            },
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
    found = {k: _seconds(getattr(given, k)) for k in ("create", "update", "delete")}
    return {"customTimeouts": found} if any(found.values()) else {}


def _seconds(text: str) -> int:
    units = {"h": 3600.0, "m": 60.0, "s": 1.0}
    total, number = 0.0, ""
    for letter in text:
        if letter in units:
            total, number = total + float(number) * units[letter], ""
        else:
            number += letter
    return int(total)
