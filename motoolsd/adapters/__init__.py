"""The outside world: clock, directory, lock, file tree, socket, readiness pipe.

Layer: adapters. Imports core and wire; never engine or server.
Invariant: each adapter fulfils a port of core or is used by the composition root alone.
"""
