"""Every document has its schema, every schema is one, and `lockstep schema` prints them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from cli import documents, main, schemas, stackschema
from tests.documents import command, insist, with_json
from tests.reconciler.hostmodel import Host
from tests.stacks.harness import ROOT


def test_every_command_that_prints_json_has_a_schema() -> None:
    assert with_json() == set(schemas.DOCUMENTS), "mend cli/schemas.py"


@pytest.mark.parametrize("name", schemas.names())
def test_every_schema_is_one_and_is_printed(
    name: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)  # in a project, `settings` has its name
    jsonschema.Draft202012Validator.check_schema(schemas.of(name))
    assert main.main(["schema", *name.split()]) == 0
    assert json.loads(capsys.readouterr().out) == schemas.of(name)


def test_the_schemas_are_listed_and_the_nearest_is_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main.main(["schema"]) == 0
    assert capsys.readouterr().out.splitlines() == schemas.names()
    assert main.main(["schema", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    insist(["schema"], document)
    assert document["names"] == schemas.names()
    assert main.main(["schema", "prevew"]) == 2
    assert "the nearest are preview" in capsys.readouterr().err


@pytest.mark.parametrize("name", schemas.DOCUMENTS)
def test_a_schema_says_what_is_in_every_part(name: str) -> None:
    """No object of which nothing is said but that it is one; users' own values are theirs."""
    theirs = {"config", "value", "outputs", "model", "old", "new"}

    def vague(said: Any, place: str) -> Iterator[str]:
        if place.rpartition(".")[2] in theirs:
            return
        if said in ({}, True) or (
            said.get("type") == "object" and not {"properties", "additionalProperties"} & {*said}
        ):
            yield place
        for key, below in said.get("properties", {}).items():
            yield from vague(below, f"{place}.{key}")
        for key in ("items", "additionalProperties"):
            if isinstance(said.get(key), dict):
                yield from vague(said[key], f"{place}.{key}")
        for below in (*said.get("anyOf", ()), *said.get("oneOf", ())):
            yield from vague(below, place)
        for key, below in said.get("$defs", {}).items():
            yield from vague(below, key)

    assert list(vague(schemas.of(name), "")) == []


def test_the_page_names_every_member_of_a_moves_document() -> None:
    page = (ROOT / "docs" / "json.md").read_text()
    said = schemas.of("up")
    members = {*said["properties"], *said["$defs"]["MovedDataset"]["properties"]}
    results = said["properties"]["result"]["enum"]
    assert [name for name in (*members, *results) if f"`{name}`" not in page] == []


def test_the_settings_are_what_init_writes_for_editors() -> None:
    assert json.loads(stackschema.text("shop")) == schemas.of("settings", "shop")


def test_a_document_that_lacks_something_is_not_valid() -> None:
    host = Host()
    host.new()
    document = documents.preview(host.plan(), host.state)
    jsonschema.validate(document, schemas.of("preview"))
    del document["refusals"]
    with pytest.raises(jsonschema.ValidationError, match="refusals"):
        jsonschema.validate(document, schemas.of("preview"))


def test_a_member_that_no_schema_has_is_found_by_our_tests_and_borne_by_readers() -> None:
    document = {"schema": 1, "url": "http://127.0.0.1:8642", "more": 1}
    jsonschema.validate(document, schemas.of("serve"))
    with pytest.raises(AssertionError, match="more"):
        insist(["serve", "--json"], document)


def test_the_command_of_an_argument_list() -> None:
    assert command(["-C", "/x", "list", "--json"]) == "list"
    assert command(["snapshot", "--json", "notes"]) == "snapshot live"
    assert command(["config", "get", "release", "--json"]) == "config get"
