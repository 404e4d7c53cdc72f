"""A user of this host who is not root, but in the docker group; made for a test, gone after it."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.stacks.harness import ROOT

# The Python of the tests may lie where only root gets, such as /root: in a mount namespace of its
# own the person sees it there all the same, and nothing else of that folder.
_WITH_PYTHON = """
set -e
top=/$(echo "$1" | cut -d/ -f2)
if [ "$top" = /root ]; then
  aside=$(mktemp -d /var/tmp/lockstep-python-XXXXXX)
  mount --bind "$1" "$aside"
  mount -t tmpfs -o mode=0755 none /root
  mkdir -p "$1"
  mount --move "$aside" "$1"
  rmdir "$aside"
fi
shift
exec "$@"
"""


@dataclass(frozen=True)
class Person:
    """Who runs a command: `words` before it make it theirs."""

    name: str
    uid: int
    gid: int
    home: Path

    @property
    def words(self) -> tuple[str, ...]:
        return (
            "unshare", "--mount", "--propagation", "private", "sh", "-c", _WITH_PYTHON, "sh",
            sys.base_prefix,
            "setpriv", f"--reuid={self.uid}", f"--regid={self.gid}", "--init-groups",
            "--inh-caps=-all", "--bounding-set=-all",
            "env", f"HOME={self.home}", f"USER={self.name}",
        )  # fmt: skip

    def give(self, folder: Path) -> None:
        """Everything in a folder becomes theirs."""
        for root, folders, files in os.walk(folder):
            for each in (".", *folders, *files):
                os.chown(os.path.join(root, each), self.uid, self.gid, follow_symlinks=False)

    def run(self, *words: str, env: dict[str, str] | None = None) -> str:
        """What a command of theirs prints, which has to succeed."""
        done = subprocess.run(
            [*self.words, *words],
            cwd=self.home,
            env={**os.environ, "PYTHONPATH": str(ROOT), **(env or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout


@contextmanager
def person(*groups: str) -> Iterator[Person]:
    """A new user in these groups; whoever has no others."""
    name = f"ls{uuid.uuid4().hex[:8]}"
    room = Path(tempfile.mkdtemp(prefix="lockstep-person-", dir="/var/tmp"))
    room.chmod(0o755)
    more = ["--groups", ",".join(groups)] if groups else []
    subprocess.run(
        ["useradd", "--create-home", "--home-dir", str(room / name), "--user-group", *more, name],
        check=True,
        capture_output=True,
        timeout=60,
    )
    try:
        found = pwd.getpwnam(name)
        home = Path(found.pw_dir)
        home.chmod(0o700)
        yield Person(name, found.pw_uid, found.pw_gid, home)
    finally:
        subprocess.run(["userdel", name], check=False, capture_output=True, timeout=60)
        shutil.rmtree(room, ignore_errors=True)
