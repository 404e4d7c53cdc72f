"""Three texts from the facts of one happening: for the team, for stakeholders, for afterwards.

A text's template is a file whose names (`$what`) stand for facts; its first line is the subject. A
line, or a paragraph, all of whose names are empty is left out.
"""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from reconciler.errors import BadInput
from reconciler.notifications.notifysettings import Text

_OURS = Path(__file__).parent / "texts"
_LONGEST = 8000
"""Characters of a text."""


@dataclass(frozen=True)
class Story:
    """The facts of one happening: each is a name that a template may use, "" where it says
    nothing."""

    event: str
    """started, committed, reverted ..."""
    title: str
    """All of it in one short line."""
    plain: str
    """The same for people who do not know the machine."""
    what: str = ""
    """What was done, and what runs now."""
    why: str = ""
    """The release's description, the operator's reason, or what failed."""
    who: str = ""
    since: str = ""
    """When it began, UTC."""
    until: str = ""
    """When it ended, UTC."""
    expected: str = ""
    """How long nobody would be served, foreseen: `about 1.2 s`."""
    measured: str = ""
    """How long nobody was served."""
    data: str = ""
    """What was set aside."""
    back: str = ""
    """How it is got back."""
    next: str = ""
    """What is to be done now."""
    incident: str = ""
    """The folder with the evidence."""
    release: str = ""
    before: str = ""
    """The release that is left, or that is live again."""
    project: str = ""
    stack: str = ""
    host: str = ""


NAMES = tuple(field.name for field in fields(Story))


def check(root: Path, texts: Mapping[Text, str]) -> None:
    """Raises BadInput for a template that cannot be read, or that uses a name nobody knows."""
    for text, file in texts.items():
        template = _template(root, texts, text)
        where = f"the template {file} (config texts.{text})"
        if not template.is_valid():
            raise BadInput(
                f"{where} has a $ that begins no name", next_step="a dollar sign itself is $$"
            )
        unknown = sorted(set(template.get_identifiers()) - set(NAMES))
        if unknown:
            raise BadInput(
                f"{where} uses ${unknown[0]}, which nobody knows",
                next_step=f"it may use: {', '.join('$' + name for name in NAMES)}",
            )


def written(root: Path, texts: Mapping[Text, str], text: Text, story: Story) -> tuple[str, str]:
    """(subject, body) of one text."""
    facts = asdict(story)
    paragraphs = _template(root, texts, text).template.strip().split("\n\n")
    whole = "\n\n".join(filter(None, (_paragraph(p, facts) for p in paragraphs)))
    subject, _, body = whole.partition("\n")
    return subject.strip(), body.strip()[:_LONGEST]


def _paragraph(template: str, facts: Mapping[str, str]) -> str:
    if _says_nothing(template, facts):
        return ""
    lines = [line for line in template.split("\n") if not _says_nothing(line, facts)]
    return string.Template("\n".join(lines)).substitute(facts)


def _says_nothing(template: str, facts: Mapping[str, str]) -> bool:
    """Whether it has names, and all of them are empty."""
    names = _identifiers(template)
    return bool(names) and not any(facts[name] for name in names)


def _identifiers(template: str) -> list[str]:
    return string.Template(template).get_identifiers()


def _template(root: Path, texts: Mapping[Text, str], text: Text) -> string.Template:
    path = root / texts[text] if text in texts else _OURS / f"{text}.txt"
    try:
        return string.Template(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        raise BadInput(
            f"the template {path} (config texts.{text}) cannot be read: {why}",
            next_step=f"lockstep config rm --path texts.{text}   takes the built-in one",
        ) from None
