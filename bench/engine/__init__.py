"""How long the embedded engine takes: `python -m bench.engine`."""
