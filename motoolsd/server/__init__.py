"""Connections: bytes to requests, requests to the engine, replies to bytes.

Layer: server. Imports engine, core and wire; never app.
Invariant: the hot path (frame in, index, frame out) runs inside `data_received`, without a task or a stream.
"""
