#!/bin/sh
# Resolves pyproject.toml anew into requirements.lock, and says what that is in docs/sbom.cdx.json
# (needs uv: pip install uv). `--sbom` makes the latter only.
set -eu
cd "$(dirname "$0")/.."
if [ "${1:-}" != --sbom ]; then
    uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 \
        --generate-hashes --no-annotate --upgrade --quiet \
        --custom-compile-command "setup/relock.sh" --output-file requirements.lock
fi
exec uvx --quiet --from cyclonedx-bom==7.2.1 cyclonedx-py requirements requirements.lock \
    --pyproject pyproject.toml --mc-type application --output-reproducible \
    --output-format JSON --spec-version 1.6 --output-file docs/sbom.cdx.json
