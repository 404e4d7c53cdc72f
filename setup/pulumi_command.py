"""A `pulumi` in .venv/bin, where PATH has no official one: the embedded engine by that name."""

from __future__ import annotations

import os
import shutil

from setup.steps import ROOT, say

BIN = ROOT / ".venv" / "bin"
COMMAND = BIN / "pulumi"
SCRIPT = f"""\
#!{BIN / "python"}
# Lockstep's embedded engine; it steps aside when PATH has the official Pulumi CLI.
import sys
from cli.pulumi import main
sys.exit(main())
"""


def ensure() -> None:
    """Put the command there, or take it away where the official CLI has come."""
    elsewhere = [p for p in os.get_exec_path() if os.path.realpath(p) != os.path.realpath(BIN)]
    official = shutil.which("pulumi", path=os.pathsep.join(elsewhere))
    if COMMAND.exists() and COMMAND.read_text() != SCRIPT:
        return  # somebody else's
    if official:
        COMMAND.unlink(missing_ok=True)
    elif not COMMAND.exists():
        COMMAND.write_text(SCRIPT)
        COMMAND.chmod(0o755)
        say("PATH has no pulumi: .venv/bin/pulumi runs the embedded engine")
