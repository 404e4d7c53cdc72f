"""The images that the bench runs; `make setup` has made or pulled them."""

from __future__ import annotations

POSTGRES = "lockstep-base/postgres:15"
PYTHON = "lockstep-base/python:3"
LABEL = "io.lockstep.bench=yes"
USER = "bench"
PASSWORD = "bench-password"
