"""Entries: what rows of the daemon become for users."""

from __future__ import annotations

import os

from motools.cache.entries import dataset_entry, eval_entry, model_entry, text_of
from motoolsd.wire.entries import DatasetRow, EvalRow, ModelRow


def test_dataset_has_the_older_fields_and_the_newer_ones() -> None:
    """Hash and file id as ever, and what is kept beside them."""
    row = DatasetRow(
        dataset_hash="d", value=b"file", hits=3, labels={"run": "7"}, created_at="2026-01-31T00:00:00.000Z"
    )
    entry = dataset_entry(row)
    assert (entry.dataset_hash, entry.file_id, entry.hits, entry.labels) == ("d", "file", 3, {"run": "7"})
    assert entry.created_at == "2026-01-31T00:00:00.000Z"
    assert entry.size_bytes is None


def test_model_has_its_real_config() -> None:
    """The older package lost what a model was trained from; it is there now."""
    row = ModelRow(cache_key="k", value=b"model", dataset_hash="d", config=b'{"lr": [0.1]}', backend_type="openai")
    entry = model_entry(row)
    assert (entry.model_id, entry.dataset_hash, entry.config, entry.backend_type) == (
        "model",
        "d",
        {"lr": [0.1]},
        "openai",
    )


def test_model_of_the_older_package_has_no_config() -> None:
    """What was never stored is None."""
    entry = model_entry(ModelRow(cache_key="k", value=b"model"))
    assert (entry.dataset_hash, entry.config, entry.backend_type) == (None, None, None)


def test_entry_says_why_it_misses_and_what_else_is_known() -> None:
    """What was stored with it, and what happened to it since."""
    row = ModelRow(
        cache_key="k",
        value=b"model",
        void_since="2026-01-31T00:00:00.000Z",
        void_reason="invalidated",
        void_detail="wrong tokenizer",
        seconds=1.5,
        metadata=b'{"cost": 2}',
    )
    entry = model_entry(row)
    assert (entry.void_since, entry.void_reason, entry.void_detail, entry.seconds, entry.metadata) == (
        "2026-01-31T00:00:00.000Z",
        "invalidated",
        "wrong tokenizer",
        1.5,
        {"cost": 2},
    )
    plain = model_entry(ModelRow(cache_key="k", value=b"model"))
    assert (plain.void_since, plain.void_reason, plain.void_detail, plain.seconds, plain.metadata) == (None,) * 5


def test_text_that_somebody_wrote_by_hand_is_no_error() -> None:
    """A column that holds no JSON reads as None, and the listing goes on."""
    assert model_entry(ModelRow(cache_key="k", value=b"m", config=b"{oops")).config is None
    assert model_entry(ModelRow(cache_key="k", value=b"m", config=b"\xff")).config is None
    assert model_entry(ModelRow(cache_key="k", value=b"m", config=b"[" * 100_000)).config is None


def test_eval_has_the_older_fields() -> None:
    """Its number, its identity and its log."""
    row = EvalRow(
        id=7, model_id="m", task_id="t", backend_type="inspect", value=b"/log", kwargs_hash="h", kwargs=b'{"a": 1}'
    )
    entry = eval_entry(row)
    assert (entry.id, entry.log_file_path, entry.inspect_kwargs_hash, entry.inspect_kwargs) == (
        7,
        "/log",
        "h",
        {"a": 1},
    )


def test_file_name_that_is_no_utf8_survives() -> None:
    """A path reads back as the operating system's functions take it."""
    name = b"/logs/caf\xe9.json"
    assert text_of(name).encode("utf-8", "surrogateescape") == name
    assert os.fsencode(text_of(name)) == name
