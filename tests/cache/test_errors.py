"""Errors: one class for each code of the wire, and each can leave its process."""

from __future__ import annotations

import multiprocessing
import pickle

import pytest

from motools.cache import errors
from motools.cache.errors import (
    CLASS_OF_CODE,
    AmbiguousName,
    CacheDirectoryMissing,
    CacheError,
    CacheProtocolError,
    CacheUnavailable,
    ConnectionLost,
    StorageFailed,
    UncacheableConfigError,
    error_from,
)
from motools.cache.explanations import EntryName
from motoolsd.wire.errors import ErrorCode
from motoolsd.wire.messages import Failure

POOL_TIMEOUT_S = 60.0
CLASSES = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, CacheError) and kind.__module__ == errors.__name__
]


def sample(kind: type[CacheError]) -> CacheError:
    """An error as the package raises it."""
    if kind is UncacheableConfigError:
        return UncacheableConfigError("config.lr", "is nan")
    if kind is AmbiguousName:
        return AmbiguousName("run", [EntryName(kind="model", key=f"run-{number}", value="m") for number in range(7)])
    if issubclass(kind, CacheUnavailable | StorageFailed):
        return kind("what went wrong", False)
    return kind("what went wrong")


def raise_sample(name: str) -> None:
    """Raise it, in another process."""
    raise sample(getattr(errors, name))


def same(one: CacheError, other: object) -> bool:
    """Whether a copy says all that the error says."""
    return type(one) is type(other) and str(one) == str(other) and vars(one) == vars(other)


def test_each_code_is_one_class_and_each_class_one_code() -> None:
    """The daemon's codes and the client's classes are the same list."""
    assert set(CLASS_OF_CODE) == {code.value for code in ErrorCode}
    assert len(set(CLASS_OF_CODE.values())) == len(ErrorCode)
    assert all(kind.code == code for code, kind in CLASS_OF_CODE.items())


@pytest.mark.parametrize("kind", CLASSES)
def test_error_survives_pickling(kind: type[CacheError]) -> None:
    """A copy has the same class, text and attributes."""
    error = sample(kind)
    error.is_final = True
    assert same(error, pickle.loads(pickle.dumps(error)))


@pytest.mark.slow
def test_errors_cross_processes() -> None:
    """Whatever a worker of a pool raises arrives as it was raised."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        for kind in CLASSES:
            with pytest.raises(kind) as caught:
                pool.apply_async(raise_sample, (kind.__name__,)).get(POOL_TIMEOUT_S)
            assert same(sample(kind), caught.value)


@pytest.mark.parametrize("code", list(ErrorCode))
def test_failure_becomes_its_class_with_its_text(code: ErrorCode) -> None:
    """A failure of the wire is raised as the class of its code."""
    error = error_from(Failure(code=code.value, message="do this next"))
    assert type(error) is CLASS_OF_CODE[code.value]
    assert str(error) == "do this next"


def test_code_of_a_newer_daemon_is_a_protocol_error() -> None:
    """A code that this version does not know keeps its text."""
    error = error_from(Failure(code="from_the_future", message="text"))
    assert type(error) is CacheProtocolError
    assert str(error) == "text"


def test_unknown_outcome_travels_with_a_storage_failure() -> None:
    """Whether the write may have been applied is told as the daemon told it."""
    failure = Failure(code=ErrorCode.STORAGE_FAILED, message="disk full", detail={"outcome_known": False})
    error = error_from(failure)
    assert isinstance(error, StorageFailed)
    assert not error.outcome_known


def test_missing_directory_is_the_built_in_error_too() -> None:
    """Code that catches FileNotFoundError goes on working, and the text reads as written."""
    error = CacheDirectoryMissing("no cache in /x")
    assert isinstance(error, FileNotFoundError)
    assert str(error) == "no cache in /x"


def test_uncacheable_config_says_what_to_use_instead() -> None:
    """The text names the place, the reason and the way out."""
    assert str(UncacheableConfigError("config.lr", "is nan")).startswith("config.lr is nan; use text, finite numbers")


def test_unavailable_prints_its_text_alone() -> None:
    """The outcome is an attribute, not part of the text."""
    assert str(ConnectionLost("gone", False)) == "gone"


def test_ambiguous_name_says_what_it_may_mean() -> None:
    """The first five; all that the daemon named are an attribute."""
    error = sample(AmbiguousName)
    assert isinstance(error, AmbiguousName)
    assert str(error).startswith("run means several entries: model run-0, model run-1,")
    assert "model run-4 ...; give more of the name, or its kind" in str(error)
    assert len(error.candidates) == 7
