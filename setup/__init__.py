"""Set-up of a fresh machine: Python 3.11 and the standard library are all it needs."""
