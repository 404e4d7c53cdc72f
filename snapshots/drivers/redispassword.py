"""The password of a Redis server that no environment says: in its command, or in the config file
that the command names."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import pairwise

_SHELL = re.compile(r"(.*/)?(sh|bash|ash|dash)")
_SERVER = re.compile(r"(.*/)?(redis|valkey|keydb)-server")
_ENTRY = re.compile(r"(.*/)?docker-entrypoint\.sh")
_WORD = re.compile(r""" "((?:[^"\\]|\\.)*)" | '((?:[^'\\]|\\.)*)' | (\S+) """, re.X)
_ESCAPED = re.compile(r"\\(x[0-9a-fA-F]{2}|.)")
_SIGNS = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "a": "\a"}
_MOST_INCLUDES = 5


def way_in(command: Sequence[str], read: Callable[[str], str]) -> dict[str, str]:
    """Variables for a client in a container that was started with this command: the password of
    its server, or none. `read` gives a file's text as the container sees it, "" where it cannot;
    it is asked for nothing but the config of a Redis server and what that includes."""
    words = _words(command)
    said = dict(pairwise(words)).get("--requirepass", "")
    found = "" if said.startswith("$") else said
    if not found and (config := _config(words)):
        found = _password(_lines(read, config))
    return {"REDISCLI_AUTH": found} if found else {}


def _words(command: Sequence[str]) -> list[str]:
    """Of the command, or of what it gives to a shell."""
    words = list(command)
    for at, (word, flag) in enumerate(pairwise(words[:-1])):
        if _SHELL.fullmatch(word) and re.fullmatch(r"-\w*c", flag):
            with suppress(ValueError):  # quotes that never end
                return shlex.split(words[at + 2])
    return words


def _config(words: Sequence[str]) -> str | None:
    """The server's first argument; the image's entrypoint starts the server for *.conf alone."""
    for word, named in pairwise(words):
        if _SERVER.fullmatch(word) or (_ENTRY.fullmatch(word) and named.endswith(".conf")):
            return named if not named.startswith("-") else None
    return None


def _lines(
    read: Callable[[str], str], path: str, depth: int = _MOST_INCLUDES
) -> Iterator[list[str]]:
    """Each line as a lower-case keyword and its arguments, with the lines of what it includes."""
    for line in read(path).splitlines():
        keyword, *arguments = _split(line) or [""]
        if keyword.lower() in ("include", "aclfile") and arguments and depth:
            yield from _lines(read, arguments[0], depth - 1)
        else:
            yield [keyword.lower(), *arguments]


def _password(lines: Iterator[list[str]]) -> str:
    """The default user's; "" for none, or where only its hash is there."""
    required, of_user = "", None
    for line in lines:
        if line[0] == "requirepass" and len(line) > 1:
            required = line[1]
        elif line[:2] == ["user", "default"]:
            of_user = next((rule[1:] for rule in reversed(line[2:]) if rule.startswith(">")), "")
    return required if of_user is None else of_user


def _split(line: str) -> list[str]:
    """The words of a line, quoted as Redis quotes them."""
    if line.lstrip().startswith("#"):
        return []
    found = []
    for double, single, bare in _WORD.findall(line):
        if bare:
            found.append(bare)
        else:
            found.append(_ESCAPED.sub(_sign, double) if double else single.replace("\\'", "'"))
    return found


def _sign(escaped: re.Match[str]) -> str:
    said = escaped[1]
    return chr(int(said[1:], 16)) if len(said) > 1 else _SIGNS.get(said, said)
