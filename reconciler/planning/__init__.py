"""What `decide` reckons with, and what its plan says to readers. No I/O unless a module says so."""
