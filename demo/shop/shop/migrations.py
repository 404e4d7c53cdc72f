"""Which schema each version of the shop has, and the way there from any older one."""

from __future__ import annotations

from pathlib import Path

from shop.backends import Database

VERSIONS = Path(__file__).resolve().parent.parent / "versions"

# v3 was never shipped, so v4 continues from v2.
STEPS = {
    "v1": ["v1"],
    "v2": ["v1", "v2"],
    "v3": ["v1", "v2", "v3"],
    "v4": ["v1", "v2", "v4"],
    "v5": ["v1", "v2", "v4", "v5"],
}


def migrate(database: Database, version: str) -> None:
    """Apply the steps that are missing, each in one transaction together with its note."""
    database.rows("CREATE TABLE IF NOT EXISTS migrations (step text PRIMARY KEY)")
    for step in STEPS[version]:
        if not database.rows("SELECT 1 FROM migrations WHERE step = %s", (step,)):
            print(f"migration {step} ...")
            script = (VERSIONS / step / "migration.sql").read_text()
            database.rows(f"BEGIN; {script}; INSERT INTO migrations VALUES ('{step}'); COMMIT")
