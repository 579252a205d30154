"""Claims that could not be released are, with the next connection: their keys can be claimed again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from motools.cache import Cache, SyncCache
from motools.cache.unreleased import UNRELEASED_MAX, forget_all, remember, settle, unreleased
from tests.daemons import DaemonProcess, running

pytestmark = pytest.mark.slow  # a daemon is killed


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """No test leaves claims to another."""
    yield
    forget_all()


def test_claims_of_a_directory_are_kept_until_they_are_settled() -> None:
    """The latest of them."""
    remember("/a", b"1")
    remember("/a", b"2")
    remember("/b", b"3")
    settle("/a", b"1")
    settle("/a", b"unknown")
    assert (unreleased("/a"), unreleased("/b"), unreleased("/c")) == ([b"2"], [b"3"], [])
    for number in range(UNRELEASED_MAX):
        remember("/a", number.to_bytes(2))
    assert len(unreleased("/a")) == UNRELEASED_MAX
    assert b"2" not in unreleased("/a")


def test_key_can_be_claimed_again_after_its_release_found_no_daemon(
    cache_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """By the very same thread, through another client too; it would be a deadlock of its own making otherwise."""
    cache_dir.mkdir()
    daemon = DaemonProcess(cache_dir)
    with SyncCache(cache_dir, autostart=False, timeout_s=0.2) as cache, cache.claim_dataset("d") as claim:
        assert claim.is_owner
        daemon.kill()
    assert "could not be released yet" in caplog.text
    with running(cache_dir):
        with SyncCache(cache_dir, autostart=False, timeout_s=0.2) as cache, cache.claim_dataset("d") as claim:
            assert claim.is_owner
            claim.fulfil("file")
        assert unreleased(os.fspath(cache_dir)) == []


@pytest.fixture
def made_dir(cache_dir: Path) -> Path:
    """An empty cache directory."""
    cache_dir.mkdir()
    return cache_dir


async def test_key_can_be_claimed_again_by_the_same_task(made_dir: Path) -> None:
    """As the blocking client's."""
    cache_dir = made_dir
    daemon = DaemonProcess(cache_dir)
    async with Cache(cache_dir, autostart=False, timeout_s=0.2) as cache:
        async with cache.claim_dataset("d") as claim:
            assert claim.is_owner
            daemon.kill()
        with running(cache_dir):
            async with cache.claim_dataset("d") as claim:
                assert claim.is_owner
                await claim.fulfil("file")
            assert unreleased(os.fspath(cache_dir)) == []


def test_forked_child_releases_nothing_of_its_parents() -> None:
    """The lease is the parent's still."""
    remember("/a", b"1")
    child = os.fork()
    if child == 0:
        os._exit(len(unreleased("/a")))
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert unreleased("/a") == [b"1"]
