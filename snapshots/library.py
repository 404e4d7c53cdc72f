"""All that others need of this package, by one import.

Apart from `snapshots` itself, whose modules cost what they import: a command pays for what it uses.
"""

from snapshots.capture import capture
from snapshots.compare import tree_equal
from snapshots.drivers import detect, driver_for
from snapshots.errors import Damaged, SnapshotError
from snapshots.fork import Fork
from snapshots.livecapture import capture_live
from snapshots.repair import Repaired, repair
from snapshots.report import Finding, Report
from snapshots.restore import RestoreStats, restore
from snapshots.store import SnapshotRecord, Store
from snapshots.verify import verify, verify_all

__all__ = [
    "Damaged",
    "Finding",
    "Fork",
    "Repaired",
    "Report",
    "RestoreStats",
    "SnapshotError",
    "SnapshotRecord",
    "Store",
    "capture",
    "capture_live",
    "detect",
    "driver_for",
    "repair",
    "restore",
    "tree_equal",
    "verify",
    "verify_all",
]
