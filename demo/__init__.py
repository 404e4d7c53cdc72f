"""The demo: a small shop, load for it, and the story that `make demo` tells."""
