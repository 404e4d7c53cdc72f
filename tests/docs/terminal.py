"""A command on a terminal, with answers typed as its questions come; prints what a person saw.

python -m tests.docs.terminal '["", "y"]' lockstep init
"""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys

_QUESTION = re.compile(r"\[[^\]\n]*\]: \Z")


def see(command: list[str], answers: list[str]) -> tuple[int, str]:
    """(exit code, all that was on the terminal, the answers included)."""
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    )
    os.close(theirs)
    waiting, shown, asked = list(answers), "", 0
    while piece := _read(ours):
        shown += piece
        if waiting and _QUESTION.search(shown[asked:]):
            asked = len(shown)
            os.write(ours, f"{waiting.pop(0)}\n".encode())
    os.close(ours)
    return child.wait(timeout=60), shown.replace("\r\n", "\n")


def _read(descriptor: int) -> str:
    try:
        return os.read(descriptor, 4096).decode(errors="replace")
    except OSError:  # nobody has the other end any more
        return ""


if __name__ == "__main__":
    code, seen = see(sys.argv[2:], json.loads(sys.argv[1]))
    sys.stdout.write(seen)
    sys.exit(code)
