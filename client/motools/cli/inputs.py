"""What `motools run` computes from: files and names, made into a claim.

Layer: motools.cli. Imports options, output and motools.cache.
Invariant: what does not belong to the kind is refused before anything is opened.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple, NoReturn

import typer

from motools.cache.keys import hash_content
from motools.cache.sync import SyncCache
from motools.cache.sync_claims import SyncClaim
from motools.cli.exits import FAILED, NOT_FOUND, USAGE
from motools.cli.options import LeaseKind
from motools.cli.output import say_error


class Inputs(NamedTuple):
    """The options, as they were given."""

    kind: LeaseKind
    dataset: str | None
    config: str | None
    backend: str | None
    model_id: str | None
    task_id: str | None


NEEDED = {
    LeaseKind.DATASET: ("dataset",),
    LeaseKind.MODEL: ("dataset", "config", "backend"),
    LeaseKind.EVAL: ("model_id", "task_id", "backend"),
}
POSSIBLE = {**NEEDED, LeaseKind.EVAL: (*NEEDED[LeaseKind.EVAL], "config")}


@contextmanager
def claim_of(
    inputs: Inputs, directory: str, *, timeout_s: float | None, on_failure: Literal["raise", "take over"]
) -> Iterator[SyncClaim]:
    """The claim that the inputs name, entered.

    Raises:
        typer.Exit: they are not enough, too many, or cannot be read; said already.
        CacheError: the claim cannot be had.
    """
    _check(inputs)
    config = None if inputs.config is None else read_config(inputs.config)
    content = None if inputs.dataset is None else hash_content(_read(inputs.dataset))
    with SyncCache(directory) as cache:
        if inputs.kind is LeaseKind.DATASET:
            claim = cache.claim_dataset(content or "", timeout_s=timeout_s, on_failure=on_failure)
        elif inputs.kind is LeaseKind.MODEL:
            parts = content or "", config or {}, inputs.backend or ""
            claim = cache.claim_model(*parts, timeout_s=timeout_s, on_failure=on_failure)
        else:
            names = inputs.model_id or "", inputs.task_id or "", inputs.backend or ""
            claim = cache.claim_eval(*names, config, timeout_s=timeout_s, on_failure=on_failure)
        with claim:
            yield claim


def read_config(path: str) -> dict[str, Any]:
    """A mapping from a JSON or YAML file.

    Raises:
        typer.Exit: it cannot be read, or is none; said already.
    """
    content = _read(path)
    try:
        if Path(path).suffix in {".yaml", ".yml"}:
            import yaml  # for a YAML file only: it is slow to load

            config = yaml.safe_load(content)
        else:
            config = json.loads(content)
    except Exception as error:  # noqa: BLE001 - yaml.YAMLError is not known where yaml is not loaded
        _fail(FAILED, f"{path} is no valid {'YAML' if Path(path).suffix in {'.yaml', '.yml'} else 'JSON'}: {error}")
    if not isinstance(config, dict):
        _fail(FAILED, f"{path} must hold a mapping of names to values, not {type(config).__name__}")
    return config


def _check(inputs: Inputs) -> None:
    given = [name for name in Inputs._fields[1:] if getattr(inputs, name) is not None]
    if missing := [name for name in NEEDED[inputs.kind] if name not in given]:
        _fail(USAGE, f"--kind {inputs.kind.value} also needs {_spelled(missing)}")
    if extra := [name for name in given if name not in POSSIBLE[inputs.kind]]:
        _fail(USAGE, f"--kind {inputs.kind.value} does not take {_spelled(extra)}")


def _spelled(names: list[str]) -> str:
    return ", ".join(f"--{name.replace('_', '-')}" for name in names)


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        _fail(NOT_FOUND, f"there is no file {path}")
    except OSError as error:
        _fail(FAILED, f"{path} cannot be read: {error.strerror}")


def _fail(code: int, text: str) -> NoReturn:
    say_error(text)
    raise typer.Exit(code)
