"""An encrypted store outside of a stack, by the command: its passphrase comes by a descriptor."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PASSPHRASE = "correct horse battery"


def run(
    folder: Path, *args: str, passphrase: str | None = PASSPHRASE, code: int = 0
) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "cli.main", "snapshot", *args, "--store", str(folder / "store")]
    memory = os.memfd_create("passphrase")
    os.set_inheritable(memory, True)
    try:
        if passphrase is not None:
            os.write(memory, f"{passphrase}\n".encode())
            words += ["--passphrase-file", f"/dev/fd/{memory}"]
        done = subprocess.run(
            words,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            pass_fds=(memory,),
            timeout=120,
            check=False,
        )
    finally:
        os.close(memory)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


def test_a_store_is_made_and_read_with_a_passphrase(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "file").write_text("canary-5521")
    snapshot = run(tmp_path, "create", "./data").stdout.strip()
    assert not any(
        b"canary-5521" in path.read_bytes()
        for path in (tmp_path / "store").rglob("*")
        if path.is_file()
    )
    assert snapshot[:12] in run(tmp_path, "list").stdout
    assert "no passphrase was given" in run(tmp_path, "list", passphrase=None, code=1).stderr
    assert "not damaged" in run(tmp_path, "list", passphrase="x" * 20, code=1).stderr
    run(tmp_path, "restore", snapshot, "./back", "--yes")
    assert (tmp_path / "back" / "file").read_text() == "canary-5521"
