"""SQLite: schema, migration, reads and writes. The only room that knows SQL.

Layer: store. Imports core and wire; never engine or server.
Invariant: one connection writes and checkpoints, all others are read-only.
"""
