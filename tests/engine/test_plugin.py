"""An official plugin as a process of its own, driven over the protocol.

The provider process that the SDK brings for dynamic resources is one, and it is everywhere.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from engine.errors import NotInEngine
from engine.plugin_provider import PluginProvider
from engine.providers import Known, ProviderFailed, find_plugin, package_of

URN = "urn:pulumi:dev::shop::pulumi-python:dynamic:Resource::a"
PROVIDER = """
import base64, dill
from pulumi.dynamic import CheckResult, CreateResult, DiffResult, ReadResult, ResourceProvider
from pulumi.dynamic import UpdateResult

class P(ResourceProvider):
    def diff(self, id, olds, news):
        changed = [k for k in ("value", "force") if olds.get(k) != news.get(k)]
        return DiffResult(bool(changed), [k for k in changed if k == "force"])
    def create(self, props):
        if props["value"] == "bad":
            raise Exception("bad refused")
        return CreateResult("a-1", {**props, "made": True})
    def read(self, id, props):
        return ReadResult(id if props["value"] != "gone" else "", props)
    def update(self, id, olds, news):
        return UpdateResult({**news, "made": True})

dill.settings["recurse"] = True
print(base64.b64encode(dill.dumps(P())).decode(), end="")
"""


def executable(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture(scope="module")
def provider_text() -> str:
    import subprocess

    return subprocess.run(
        [sys.executable, "-c", PROVIDER], capture_output=True, text=True, check=True
    ).stdout


def test_a_plugin_is_asked_over_the_protocol(tmp_path: Path, provider_text: str) -> None:
    run = f'#!/bin/sh\nexec {sys.executable} -m pulumi.dynamic "$@"\n'
    plugin = PluginProvider(executable(tmp_path / "pulumi-resource-pulumi-python", run), {})
    given = {"value": "1", "force": "1", "__provider": provider_text}
    inputs, failures = plugin.check(URN, {}, given)
    assert (inputs, failures) == (given, [])
    id_, outputs = plugin.create(URN, inputs, False)
    known = Known(URN, id_, outputs, inputs)
    assert (id_, outputs["made"], outputs["value"]) == ("a-1", True, "1")
    assert not plugin.diff(known, inputs).changed
    change = plugin.diff(known, {**inputs, "force": "2"})
    assert (change.changed, change.replaces) == (True, ("force",))
    assert plugin.update(known, {**inputs, "value": "2"}, False)["value"] == "2"
    assert plugin.read(known) is not None
    assert plugin.read(replace(known, outputs={**outputs, "value": "gone"})) is None
    plugin.delete(known)
    with pytest.raises(ProviderFailed, match="bad refused"):
        plugin.create(URN, {**given, "value": "bad"}, False)


def test_a_plugin_that_does_not_start_is_a_sentence(tmp_path: Path) -> None:
    plugin = PluginProvider(executable(tmp_path / "p", "#!/bin/sh\necho no\n"), {})
    with pytest.raises(ProviderFailed, match="did not start"):
        plugin.check(URN, {}, {})


def test_other_docker_types_need_the_installed_plugin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PULUMI_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    volume = "docker:index/volume:Volume"
    with pytest.raises(NotInEngine, match="docker:index/volume:Volume"):
        package_of(volume, "5.2.0")
    folder = tmp_path / "plugins" / "resource-docker-v5.2.0"
    made = executable(folder / "pulumi-resource-docker", "#!/bin/sh\n")
    assert find_plugin("docker", "5.2.0") == made
    assert package_of(volume, "v5.2.0") == "docker"
    with pytest.raises(NotInEngine, match="random"):
        package_of("random:index/pet:Pet", "1.0.0")
