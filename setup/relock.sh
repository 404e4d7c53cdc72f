#!/bin/sh
# Resolves pyproject.toml anew into requirements.lock (needs uv: pip install uv).
set -eu
cd "$(dirname "$0")/.."
exec uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 \
    --generate-hashes --no-annotate --upgrade --quiet \
    --custom-compile-command "setup/relock.sh" --output-file requirements.lock
