"""Whether one folder's files can share their content with another's."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from snapshots import fs
from snapshots.errors import naming


def can_reflink(source: Path, target: Path) -> bool:
    """Whether files of the folder `source` can be cloned into the folder `target`.

    Tries it with a file of the source into one without a name. False if the source has no file
    with content: then there is nothing that would be worth it.
    """
    with (
        naming("try a clone in", os.fsencode(target)),
        fs.opened_root(source) as src,
        fs.opened_root(target) as dst,
    ):
        return _clone_first(src, dst) or False


def _clone_first(src: int, dst: int) -> bool | None:
    """Clone the first file with content below `src`; None if there is none."""
    for name in fs.names_in(src):
        try:
            st = fs.lstat(src, name)
            if stat.S_ISDIR(st.st_mode):
                with fs.opened(src, name, fs.DIRECTORY) as inner:
                    if (found := _clone_first(inner, dst)) is not None:
                        return found
            elif stat.S_ISREG(st.st_mode) and st.st_size:
                with (
                    fs.opened(src, name, fs.READ) as src_fd,
                    fs.opened(dst, b".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC) as dst_fd,
                ):
                    return fs.clone_file(src_fd, dst_fd)
        except OSError as error:
            if error.errno not in fs.EXCHANGED:
                raise
    return None
