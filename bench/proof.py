"""Proving that a peer's answers are right before it is timed."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any, Final

from bench.cells import WrongAnswer
from bench.keys import MISSING_FIRST, key_of, value_of
from bench.peers import AsyncSession, Peer, Session
from bench.processes import Worker, WorkerFailed, open_worker

ANSWER_TIMEOUT_S: Final = 60.0

Ask = Callable[..., Any]


def prove_right(peer: Peer) -> bool:
    """Ask two processes that use one peer at the same time: a hit, a miss, and each other's writes.

    Returns:
        Whether it takes many questions at once.

    Raises:
        WrongAnswer: an answer is not right; names the peer.
        WorkerFailed: a process failed; names the peer.
    """
    with _open_remote(peer) as one, _open_remote(peer) as other:
        hit, miss, new = key_of(0), key_of(MISSING_FIRST), f"proof-{secrets.token_hex(16)}"
        # Twice: the second time a client with a memory answers by itself.
        for _ in range(2):
            _check(peer, one("get", hit), value_of(0), "does not find what is there")
            _check(peer, one("get", miss), None, "finds what is not there")
            _check(peer, one("get", new), None, "finds what was never stored")
        other("put", new, "first")
        _check(peer, one("get", new), "first", "does not show what another process stored")
        other("put", new, "second")
        _check(peer, one("get", new), "second", "shows an old value")
        one("put", new, "third")
        _check(peer, one("get", new), "third", "does not show its own write")
        _check(peer, other("get", new), "third", "does not show what another process stored")
        many = one("get_many", [hit, miss, new])
        if many is None:
            return False
        _check(peer, list(many), [value_of(0), None, "third"], "gives wrong answers to many questions")
        return True


def _check(peer: Peer, given: object, right: object, what: str) -> None:
    if given != right:
        raise WrongAnswer(peer.name, f"{what}: {given!r} instead of {right!r}")


@contextmanager
def _open_remote(peer: Peer) -> Iterator[Ask]:
    """A session in a process of its own, to be asked from here."""
    with open_worker(f"{peer.name}, proof", lambda connection: _serve(peer, connection)) as worker:
        yield _asking(worker)


def _asking(worker: Worker[None]) -> Ask:
    def ask(*message: Any) -> Any:  # noqa: ANN401 - what the session's methods take and give
        try:
            worker.connection.send(message)
        except OSError as error:
            # It says why, if it could.
            worker.receive(0.0)
            raise WorkerFailed("a worker of the proof is gone") from error
        return worker.receive(ANSWER_TIMEOUT_S)

    return ask


def _serve(peer: Peer, connection: Connection) -> None:
    with asyncio.Runner() as runner:
        session = peer.connect()
        while connection.poll(ANSWER_TIMEOUT_S):
            try:
                method, *arguments = connection.recv()
            except EOFError:
                break
            connection.send(_answer(session, runner, method, arguments))
        _close(session, runner)


def _answer(session: Session | AsyncSession, runner: asyncio.Runner, method: str, arguments: list[Any]) -> Any:  # noqa: ANN401 - as above
    if method == "get_many" and getattr(session, "get_many", None) is None:
        return None
    answer = getattr(session, method)(*arguments)
    if isinstance(session, AsyncSession):
        answer = runner.run(_await(answer))
    return None if method == "put" else answer


def _close(session: Session | AsyncSession, runner: asyncio.Runner) -> None:
    closing = session.close()
    if isinstance(session, AsyncSession):
        assert isinstance(closing, Awaitable), "an async session's"
        runner.run(_await(closing))


async def _await(awaitable: Awaitable[Any]) -> Any:  # noqa: ANN401 - as above
    return await awaitable
