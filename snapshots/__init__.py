"""Snapshots and forks of folders that hold data: captured, verified, restored to the last byte.

Knows volumes (paths) and engines, never releases, and is useful alone:

    from snapshots.library import Store, capture, restore

    store = Store.open(Path("/var/backups/store"))
    record = capture(Path("/srv/data"), store, dataset="data")
    restore(store, record.id, Path("/srv/data-again"))
"""
