"""Every document has its schema, every schema is one, and `lockstep schema` prints them."""

from __future__ import annotations

import json

import jsonschema
import pytest

from cli import documents, main, schemas
from tests.documents import command, with_json
from tests.reconciler.hostmodel import Host


def test_every_command_that_prints_json_has_a_schema() -> None:
    assert with_json() == set(schemas.DOCUMENTS), "mend cli/schemas.py"


@pytest.mark.parametrize("name", schemas.names())
def test_every_schema_is_one_and_is_printed(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    jsonschema.Draft202012Validator.check_schema(schemas.of(name))
    assert main.main(["schema", *name.split()]) == 0
    assert json.loads(capsys.readouterr().out) == schemas.of(name)


def test_the_schemas_are_listed_and_the_nearest_is_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main.main(["schema"]) == 0
    assert capsys.readouterr().out.splitlines() == schemas.names()
    assert main.main(["schema", "prevew"]) == 2
    assert "the nearest are preview" in capsys.readouterr().err


def test_a_document_that_lacks_something_is_not_valid() -> None:
    host = Host()
    host.new()
    document = documents.preview(host.plan(), host.state)
    jsonschema.validate(document, schemas.of("preview"))
    del document["refusals"]
    with pytest.raises(jsonschema.ValidationError, match="refusals"):
        jsonschema.validate(document, schemas.of("preview"))


def test_the_command_of_an_argument_list() -> None:
    assert command(["-C", "/x", "list", "--json"]) == "list"
    assert command(["snapshot", "--json", "notes"]) == "snapshot live"
    assert command(["config", "get", "release", "--json"]) == "config get"
