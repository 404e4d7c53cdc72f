"""What every command's `--json` prints, as models from which the published schemas are made."""
