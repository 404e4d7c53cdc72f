"""Lockstep's reconciler: decides and carries out which release a host runs, with its data."""
