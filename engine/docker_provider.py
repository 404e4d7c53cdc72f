"""RemoteImage and Tag with the ids, inputs and outputs of pulumi-docker 5.2."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from .errors import NotInEngine
from .planner import Change
from .providers import Failures, Found, Known, ProviderFailed
from .values import UNKNOWN, Props, is_unknown

IMAGE = "docker:index/remoteImage:RemoteImage"
TAG = "docker:index/tag:Tag"

_REQUIRED = {IMAGE: ("name",), TAG: ("sourceImage", "targetImage")}
_OPTIONAL = {
    IMAGE: ("build", "forceRemove", "keepLocally", "platform", "pullTriggers", "triggers"),
    TAG: ("tagTriggers",),
}
_IN_PLACE = {"forceRemove", "keepLocally"}  # a change of any other makes a new resource
_META_KEY = '"e2bfb730-ecaa-11e6-8f88-34363bc7c4c0"'
_TIMEOUTS = '{"create":1200000000000,"delete":1200000000000,"update":1200000000000}'
_META = "{" + f"{_META_KEY}:{_TIMEOUTS}" + "}"
_PREVIEW_META = '{"_new_extra_shim":{},' + _META[1:]


class DockerProvider:
    """Talks to the daemon only to make, read and remove; a diff needs nothing but the state."""

    def __init__(self, config: Props) -> None:
        unknown = set(config) - {"version", "__internal", "host"}
        if unknown:
            raise NotInEngine(f"the docker provider's option {sorted(unknown)[0]}")
        self._host: str | None = config.get("host")
        self._lock = threading.Lock()
        self._made: Any = None

    @property
    def _client(self) -> Any:
        import docker

        with self._lock:
            if self._made is None:
                environ = {**os.environ, **({"DOCKER_HOST": self._host} if self._host else {})}
                self._made = docker.from_env(version="auto", timeout=600, environment=environ)
            return self._made

    def check(self, urn: str, _olds: Props, news: Props, /) -> tuple[Props, Failures]:
        type_ = _type(urn)
        known = (*_REQUIRED[type_], *_OPTIONAL[type_], "__defaults")
        failures = [(k, "an argument of this name is not known") for k in news if k not in known]
        failures += [(k, "a value is required") for k in _REQUIRED[type_] if not news.get(k)]
        if news.get("build") is not None:
            raise NotInEngine("building an image with RemoteImage(build=...)")
        inputs = {k: v for k, v in news.items() if v is not None}
        return {"__defaults": [], **inputs}, failures

    def diff(self, old: Known, news: Props, /) -> Change:
        type_, outputs = _type(old.urn), old.outputs
        keys = [
            k
            for k in (*_REQUIRED[type_], *_OPTIONAL[type_])
            if _meant(outputs.get(k)) != _meant(news.get(k)) or is_unknown(news.get(k))
        ]
        replaces = tuple(k for k in keys if k not in _IN_PLACE)
        detailed: Props = {}
        for k in keys:
            detailed |= _details(k, outputs.get(k), news.get(k), k in replaces)
        return Change(bool(keys), replaces, False, tuple(sorted(keys)), detailed)

    def create(self, urn: str, news: Props, preview: bool, /) -> tuple[str, Props]:
        if _type(urn) == IMAGE:
            if preview:
                unknown = dict.fromkeys(("id", "imageId", "repoDigest"), UNKNOWN)
                return "", {**_image(news, "", "", ""), **unknown, "__meta": _PREVIEW_META}
            return self._make_image(news)
        if preview:
            return "", {**_tag(news, "", ""), "id": UNKNOWN, "sourceImageId": UNKNOWN}
        return self._make_tag(news)

    def read(self, old: Known, /) -> Found | None:
        if _type(old.urn) == TAG:
            return old.outputs, None  # the official plugin does not look either
        name = old.outputs["name"]
        found = self._inspect(name)
        if found is None:
            return None
        id_, digest = found["Id"], _digest(name, found)
        return {**old.outputs, "id": id_ + name, "imageId": id_, "repoDigest": digest}, None

    def update(self, old: Known, news: Props, _preview: bool, /) -> Props:
        # Only forceRemove and keepLocally reach this; both are notes for a later delete.
        return {**old.outputs, **{k: news.get(k) for k in _OPTIONAL[_type(old.urn)]}}

    def delete(self, old: Known, /) -> None:
        """A tag stays in Docker, as with the official plugin; an image goes unless kept."""
        if _type(old.urn) == TAG or old.outputs.get("keepLocally"):
            return
        import docker

        name, force = old.outputs["name"], bool(old.outputs.get("forceRemove"))
        with _sentences(f"removing the image {name}"), suppress(docker.errors.ImageNotFound):
            self._client.api.remove_image(name, force=force)

    def _make_image(self, news: Props) -> tuple[str, Props]:
        name = news["name"]
        found = self._inspect(name)
        if found is None:
            with _sentences(f"pulling the image {name}"):
                self._pull(name, news.get("platform"))
            found = self._inspect(name)
        if found is None:
            raise ProviderFailed(f"the image {name} was pulled, but Docker does not show it")
        id_ = found["Id"] + name
        return id_, _image(news, id_, found["Id"], _digest(name, found))

    def _pull(self, name: str, platform: str | None) -> None:
        repository, tag = _split(name)
        lines = self._client.api.pull(
            repository, tag=tag or "latest", platform=platform, stream=True, decode=True
        )
        for line in lines:
            if "error" in line:
                raise ProviderFailed(f"pulling the image {name} failed: {line['error']}")

    def _make_tag(self, news: Props) -> tuple[str, Props]:
        source, target = news["sourceImage"], news["targetImage"]
        found = self._inspect(source)
        if found is None:
            raise ProviderFailed(f"there is no image {source} to tag as {target}")
        repository, tag = _split(target)
        with _sentences(f"tagging {source} as {target}"):
            self._client.api.tag(found["Id"], repository, tag=tag or "latest")
        id_ = f"{source}.{target}"
        return id_, _tag(news, id_, found["Id"])

    def _inspect(self, name: str) -> dict[str, Any] | None:
        import docker

        found: dict[str, Any] | None = None
        with _sentences(f"looking at the image {name}"), suppress(docker.errors.ImageNotFound):
            found = self._client.api.inspect_image(name)
        return found


def _type(urn: str) -> str:
    return urn.split("::")[2].rpartition("$")[2]


@contextmanager
def _sentences(doing: str) -> Iterator[None]:
    """Docker's and the registry's errors as one sentence that says what was being done."""
    import docker
    import requests

    try:
        yield
    except docker.errors.APIError as error:
        reason = str(error.explanation or error).strip()
        raise ProviderFailed(f"{doing} failed: {reason}") from error
    except (docker.errors.DockerException, requests.RequestException, OSError) as error:
        reason = f"the Docker daemon does not answer ({_reason(error)}); check `docker info`"
        raise ProviderFailed(f"{doing} failed: {reason}") from error


def _reason(error: BaseException) -> str:
    """The system's own words, without what the libraries put around them."""
    below: BaseException | None = error
    while below is not None:
        if isinstance(below, OSError) and below.strerror:
            return below.strerror
        below = below.__cause__ or below.__context__
    return str(error)


def _image(news: Props, id_: str, image_id: str, digest: str) -> Props:
    out = {"__meta": _META, "id": id_, "imageId": image_id, "name": news["name"]}
    out.update({k: news.get(k) for k in _OPTIONAL[IMAGE]}, repoDigest=digest)
    # The delta tells the plugin's bridge how Terraform's state looks; without one it works it out.
    if id_ and not news.get("pullTriggers"):
        members: Props = {"build": {"plu": {"i": {}}}}
        members |= {"triggers": {"map": {}}} if news.get("triggers") else {}
        out["__pulumi_raw_state_delta"] = {"obj": {"ps": members}}
    return out


def _tag(news: Props, id_: str, image_id: str) -> Props:
    out = {"id": id_, "sourceImageId": image_id, **{k: news[k] for k in _REQUIRED[TAG]}}
    out["tagTriggers"] = news.get("tagTriggers")
    if id_ and not out["tagTriggers"]:
        out["__pulumi_raw_state_delta"] = {"obj": {}}
    return out


def _meant(value: Any) -> Any:
    """Terraform does not tell an absent value from an empty one."""
    return None if value in (False, "", [], {}) else value


def _details(path: str, old: Any, new: Any, replaces: bool) -> Props:
    """How a value differs; of an object, each member that does."""
    if isinstance(old, dict) and isinstance(new, dict) and old and new:
        found: Props = {}
        for key in sorted({*old, *new}):
            if old.get(key) != new.get(key):
                found |= _details(f"{path}.{key}", old.get(key), new.get(key), replaces)
        return found
    kind = "add" if old in (None, {}, []) else "delete" if new in (None, {}, []) else "update"
    return {path: {"diffKind": f"{kind}-replace" if replaces else kind, "inputDiff": False}}


def _digest(name: str, found: dict[str, Any]) -> str:
    repository = _split(name)[0]
    digests: list[str] = found.get("RepoDigests") or []
    return next((d for d in digests if d.startswith(f"{repository}@")), "")


def _split(name: str) -> tuple[str, str]:
    """repository and tag or digest; a colon before the last slash belongs to a port."""
    name, _, digest = name.partition("@")
    head, slash, last = name.rpartition("/")
    repository, _, tag = last.partition(":")
    return f"{head}{slash}{repository}", digest or tag
