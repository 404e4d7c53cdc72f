"""The `lockstep` command."""

import atexit
import gc

# A command makes many small objects that live as long as it does: the usual threshold (700) has
# it look again and again for garbage that is not there.
gc.set_threshold(100_000)
# At the end as well: Python looks through all that is left, twice, before it lets the process go.
atexit.register(gc.freeze)
