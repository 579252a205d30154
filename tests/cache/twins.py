"""One test body for the blocking and the async client: what either gives can be awaited."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import anyio

from motools.cache import Cache, SyncCache

TIMEOUT_S = 30.0
TWINS = [("SyncCache", "asyncio"), ("Cache", "asyncio"), ("Cache", "trio")]
Body = Callable[[Any], Awaitable[None]]


class Awaiting:
    """A SyncCache in the shape of a Cache."""

    def __init__(self, cache: SyncCache) -> None:
        self.blocking = cache

    def __getattr__(self, name: str) -> Callable[..., Coroutine[Any, Any, Any]]:
        """A method, so that it is called when it is awaited."""
        method = getattr(self.blocking, name)

        async def call(*args: object, **kwargs: object) -> Any:  # noqa: ANN401 - whatever it gives
            return method(*args, **kwargs)

        return call

    @contextlib.asynccontextmanager
    async def using(self, *entries: Any) -> AsyncIterator[None]:  # noqa: ANN401 - entries
        """As `Cache.using`."""
        with self.blocking.using(*entries):
            yield

    def __getattribute__(self, name: str) -> Any:  # noqa: ANN401 - as above
        """Claims are no coroutines, but blocks."""
        if not name.startswith("claim_"):
            return super().__getattribute__(name)
        make = getattr(self.blocking, name)

        @contextlib.asynccontextmanager
        async def claim(*args: object, **kwargs: object) -> AsyncIterator[Awaiting]:
            with make(*args, **kwargs) as held:
                yield Awaiting(held)

        return claim


def run_twin(twin: tuple[str, str], directory: Path, body: Body, **options: Any) -> None:  # noqa: ANN401 - the client's
    """Run a test's body with an open client."""
    name, loop = twin

    async def whole() -> None:
        with anyio.fail_after(TIMEOUT_S):
            if name == "SyncCache":
                with SyncCache(directory, **options) as blocking:
                    await body(Awaiting(blocking))
            else:
                async with Cache(directory, **options) as cache:
                    await body(cache)

    anyio.run(whole, backend=loop)
