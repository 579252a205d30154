"""Decisions without side effects: settings, slots, checksums, sizes, and the errors that requests end in.

Layer: core. Imports wire; never store, adapters or anything that does I/O.
Invariant: the same input gives the same answer, always; no clock, no event loop, no file.
"""
