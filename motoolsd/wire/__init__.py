"""What the daemon and its clients must agree on: names, keys, messages, frames, sessions.

Layer: wire, the lowest. Imports nothing of motoolsd above itself, and no asyncio, anyio, sqlite3, socket or time.
Invariant: no I/O and no clock, so that clients under any event loop, or none, share it.
"""
