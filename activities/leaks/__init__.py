"""The leak worker: polls sources, judges suspects against our signatures, and tells releases what it saw.

It holds the monitor's key, which opens weight signatures and nothing else: no weights, no keys of artifacts. It reads strangers'
files, so it is a process of its own.
"""
