"""demo/shop/.env: the settings that a developer of the shop keeps beside its compose.yaml."""

from __future__ import annotations

from setup.base_images import IMAGES, exists
from setup.steps import ROOT

EXAMPLE = ROOT / "demo" / "shop" / ".env.example"
VARIABLES = {"postgres:15": "POSTGRES_IMAGE", "redis:7": "REDIS_IMAGE",
             "python:3.11-slim": "PYTHON_IMAGE"}  # fmt: skip


def ensure() -> None:
    """Written once; a developer's own changes stay."""
    target = EXAMPLE.with_name(".env")
    if target.exists():
        return
    local = {image.official: image.name for image in IMAGES if not exists(image.official)}
    lines = [
        f"{var}={local[official]}\n" for official, var in VARIABLES.items() if official in local
    ]
    draft = EXAMPLE.with_name(".env.new")
    draft.touch(mode=0o600)
    draft.write_text(EXAMPLE.read_text() + "".join(lines))
    draft.rename(target)
