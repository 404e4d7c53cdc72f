"""What the product is built of: pinned by hash, listed, and under licences that allow it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
PINNED = re.compile(r"^([A-Za-z0-9_.-]+)==([^ ;\\]+)", re.MULTILINE)

ALLOWED = {
    "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "ISC", "MIT", "MIT-0", "PSF-2.0",
    "MPL-2.0",  # of files that we do not change
}  # fmt: skip
# Used by tests alone, and not passed on.
TESTS_ONLY = {"psycopg": "LGPL-3.0-only", "psycopg-binary": "LGPL-3.0-only"}
SPELLINGS = {
    "Apache 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "3-Clause BSD License": "BSD-3-Clause",
    "BSD 2-Clause License": "BSD-2-Clause",
    "BSD License": "BSD-3-Clause",
    "ISC License": "ISC",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
}


def locked() -> dict[str, str]:
    text = (ROOT / "requirements.lock").read_text()
    return {normal(name): version for name, version in PINNED.findall(text)}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def licence_of(package: metadata.PackageMetadata) -> str:
    """An SPDX expression, from whichever field has it."""
    fields = dict(package.json)
    said = str(fields.get("license_expression") or fields.get("license") or "")
    if not said or "\n" in said:
        found = [c for c in package.get_all("Classifier") or [] if c.startswith("License ::")]
        said = found[-1].split(" :: ")[-1] if found else ""
    return SPELLINGS.get(said, said)


def is_allowed(expression: str) -> bool:
    choices = [choice.strip("() ") for choice in expression.split(" OR ")]
    return any(all(p in ALLOWED for p in choice.split(" AND ")) for choice in choices)


def test_every_dependency_is_pinned_with_its_hash() -> None:
    """Each line of the lock names one version and a hash, and set-up insists on the hashes."""
    text = (ROOT / "requirements.lock").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert len(lines) > 40
    for line in lines:
        assert PINNED.match(line), line
        assert "--hash=sha256:" in line, line
    installing = (ROOT / "setup" / "virtualenv.py").read_text()
    assert '"--require-hashes", "--requirement", str(LOCK)' in installing


def test_the_list_of_parts_is_current() -> None:
    """docs/sbom.cdx.json has every locked package with its version and hashes, and no other."""
    bom: dict[str, Any] = json.loads((ROOT / "docs" / "sbom.cdx.json").read_text())
    assert bom["bomFormat"] == "CycloneDX"
    parts = {normal(part["name"]): part["version"] for part in bom["components"]}
    assert parts == locked(), "sh setup/relock.sh --sbom   makes it anew"
    hashes = {
        digest["content"]
        for part in bom["components"]
        for reference in part["externalReferences"]
        for digest in reference.get("hashes", ())
    }
    lock = (ROOT / "requirements.lock").read_text()
    assert hashes == set(re.findall(r"--hash=sha256:([0-9a-f]{64})", lock))


@pytest.mark.parametrize("name", sorted(locked()))
def test_its_licence_is_allowed(name: str) -> None:
    try:
        package = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        pytest.skip("of another platform or Python version")
    licence = licence_of(package)
    assert is_allowed(licence) or TESTS_ONLY.get(name) == licence, f"{name}: {licence!r}"


def test_what_tests_alone_use_is_no_dependency_of_the_product() -> None:
    needed = {normal(re.split(r"[^A-Za-z0-9_.-]", need)[0]) for need in _product_needs()}
    assert needed.isdisjoint(TESTS_ONLY)


def _product_needs() -> list[str]:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return list(project["dependencies"])


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_the_scripts_of_ci_and_setup_are_sound() -> None:
    scripts = [ROOT / ".ci" / "run", *sorted((ROOT / "setup").glob("*.sh"))]
    done = subprocess.run(
        ["shellcheck", *map(str, scripts)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout


def test_ci_runs_what_the_readme_says() -> None:
    """The one file that CI runs is a strict shell script without anything fetched or secret."""
    text = (ROOT / ".ci" / "run").read_text()
    assert text.startswith("#!/bin/sh\n")
    assert "set -eu" in text
    assert not re.search(r"curl|wget|\$\{?[A-Z_]*(TOKEN|SECRET|PASSWORD)", text)
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111
