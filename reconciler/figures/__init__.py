"""How switches went, in figures."""
