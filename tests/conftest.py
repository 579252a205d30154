"""Fixtures that every test may use: the event loop, a short cache directory, a clean environment."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from blockbuster import BlockBuster, blockbuster_ctx
from hypothesis import settings

if TYPE_CHECKING:
    from collections.abc import Iterator

# Said before anything imports numpy: OpenBLAS starts a thread on import, and a thread takes signals that tests send us.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# A failing example is printed with the line that reproduces it; a slow machine is no failure.
settings.register_profile("motoolsd", deadline=None, print_blob=True)
settings.load_profile("motoolsd")


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """The daemon runs on asyncio with uvloop, so its tests do; a module that promises more overrides this."""
    return "asyncio", {"use_uvloop": True}


@pytest.fixture(scope="session", autouse=True)
def clean_environment() -> Iterator[None]:
    """No setting of the developer's machine reaches a test: neither MOTOOLS_* nor a user's config.toml."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(prefix="mt-xdg-") as config_home:
        for name in [name for name in os.environ if name.startswith("MOTOOLS_")]:
            patch.delenv(name)
        patch.setenv("XDG_CONFIG_HOME", config_home)
        yield


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> Iterator[None]:
    """Whoever runs the suite in the background hands SIGINT down as ignored: tests that send it need it as it is."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def short_dir() -> Iterator[Path]:
    """A temporary directory whose path leaves room for a socket's name (107 bytes in all); removed afterwards."""
    path = Path(tempfile.mkdtemp(prefix="mt-"))
    yield path
    # A daemon that is still stopping may write into what is being removed; it goes when its directory is gone.
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def cache_dir(short_dir: Path) -> Path:
    """Where a cache directory may be made: not there yet, in a short temporary directory."""
    return short_dir / ".motools"


@pytest.fixture
def no_blocking() -> Iterator[BlockBuster]:
    """Fails a test whose event loop makes a blocking call; ask for it by name."""
    with blockbuster_ctx() as blockbuster:
        yield blockbuster
