"""What this needs of the machine: processes and locks."""
