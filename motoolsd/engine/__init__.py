"""What the daemon does with a request: look up in memory, write through one writer, list from SQLite.

Layer: engine. Imports store, core and wire; never server or adapters.
Invariant: an acknowledged write is committed, indexed and its slot bumped, in that order.
"""
