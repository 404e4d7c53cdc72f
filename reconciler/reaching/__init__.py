"""Folders and engines that this process may not get at by itself."""
