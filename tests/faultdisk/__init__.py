"""A file system in memory that fails, lies, is slow and loses power when a test says so.

`disk` is the model, `serve` shows it through FUSE in a process of its own, `mount` is what tests
use. It stands for the device-mapper's dm-flakey and dm-log-writes where the kernel has none.
"""
