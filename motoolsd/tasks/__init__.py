"""What runs beside the requests: watching the directory, checkpoints, usage counts, idle exit.

Layer: tasks. Imports engine, core and wire; never server.
Invariant: each task is one loop that pauses through the clock and runs until cancelled.
"""
