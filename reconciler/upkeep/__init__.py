"""The data that nothing runs on now: brought into the store, proved whole, mended."""
