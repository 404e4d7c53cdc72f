"""The package as others use it: what the README promises, carried out as it stands there."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from snapshots import library
from snapshots.compare import tree_equal

README = Path(__file__).resolve().parent.parent.parent / "README.md"


def example(folder: Path) -> str:
    """The README's Python, in another folder than it says."""
    (found,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.S)
    return re.sub(r'"/(srv|var/backups)/', rf'"{folder}/', str(found))


def test_the_example_does_what_it_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wiki = tmp_path / "wiki"
    (wiki / "pages").mkdir(parents=True)
    (wiki / "pages" / "home").write_text("welcome\n")
    (wiki / "index").write_bytes(os.urandom(200_000))
    code = example(tmp_path)
    assert "/srv" not in code
    exec(compile(code, "README.md", "exec"), {})
    assert tree_equal(wiki, tmp_path / "wiki-again") == []
    assert (tmp_path / "page" / "pages" / "home").read_text() == "welcome\n"
    assert not (tmp_path / "page" / "index").exists()
    assert capsys.readouterr().out.endswith("bytes freed\n")


def test_everything_that_is_offered_is_there() -> None:
    for name in library.__all__:
        assert getattr(library, name).__doc__, name
