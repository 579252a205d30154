"""What the client's tests share: the async ones run under asyncio, uvloop and trio."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture(
    scope="session",
    params=[("asyncio", {"use_uvloop": False}), ("asyncio", {"use_uvloop": True}), ("trio", {})],
    ids=["asyncio", "uvloop", "trio"],
)
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Each async test is run under each event loop that the client promises."""
    backend: tuple[str, dict[str, Any]] = request.param
    return backend
