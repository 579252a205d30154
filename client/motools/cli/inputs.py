"""What `motools run` computes from: files and names, made into a claim.

Layer: motools.cli. Imports options, output and motools.cache.
Invariant: what does not belong to the kind is refused before anything is opened.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import file_digest
from io import BufferedReader
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, NoReturn

import typer

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
CONFIG_SIZE_MAX_BYTES: Final = 16 * 1024 * 1024
"""More than any that can be stored, comments included; somebody named the wrong file."""
ODD_NAMES_SHOWN_MAX: Final = 5


@contextmanager
def claim_of(
    inputs: Inputs, directory: str, *, timeout_s: float | None, on_failure: Literal["raise", "take over"]
) -> Iterator[SyncClaim]:
    """The claim that the inputs name, entered.

    Raises:
        typer.Exit: they are not enough, too many, or cannot be read; said already.
        CacheError: the claim cannot be had.
    """
    check(inputs)
    config = None if inputs.config is None else read_config(inputs.config)
    content = None if inputs.dataset is None else hash_file(inputs.dataset)
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


def hash_file(path: str) -> str:
    """What `motools.cache.hash_content` gives for the file's bytes, in little memory however long it is.

    Raises:
        typer.Exit: it cannot be read; said already.
    """
    with _opened(path) as file:
        return file_digest(file, "sha256").hexdigest()


def read_config(path: str) -> dict[str, Any]:
    """A mapping from a JSON or YAML file.

    Raises:
        typer.Exit: it cannot be read, or is none; said already.
    """
    is_yaml = Path(path).suffix.lower() in {".yaml", ".yml"}
    with _opened(path) as file:
        content = file.read(CONFIG_SIZE_MAX_BYTES + 1)
    if len(content) > CONFIG_SIZE_MAX_BYTES:
        _fail(FAILED, f"{path} is longer than {CONFIG_SIZE_MAX_BYTES} bytes: that is no configuration")
    if not content.strip():
        _fail(FAILED, f"{path} is empty: write {{}} into it if there is nothing to configure")
    try:
        config = _from_yaml(content) if is_yaml else json.loads(content)
    except RecursionError:
        _fail(FAILED, f"{path} is no valid {'YAML' if is_yaml else 'JSON'}: it is nested too deeply")
    except ValueError as error:  # UnicodeDecodeError is one
        _fail(FAILED, f"{path} is no valid {'YAML' if is_yaml else 'JSON'}: {error}")
    if not isinstance(config, dict):
        _fail(FAILED, f"{path} must hold a mapping of names to values, not {type(config).__name__}")
    return config


def _from_yaml(content: bytes) -> object:
    """As `json.loads`, its errors included.

    Raises:
        ValueError: it is no YAML, or JSON would hold other names.
        RecursionError: it is nested too deeply.
    """
    import yaml  # for a YAML file only: it is slow to load

    try:
        value = yaml.safe_load(content)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = "" if mark is None else f" (line {mark.line + 1}, column {mark.column + 1})"
        raise ValueError(f"{error.problem}{place}") from error
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    except (AttributeError, LookupError) as error:
        # `!!bool x`, `!!int ''`, `!!timestamp x`: PyYAML does not look whether the text fits the tag.
        raise ValueError("a value is not of the type that its tag names") from error
    if odd := _odd_names(value):
        shown = ", ".join(odd[:ODD_NAMES_SHOWN_MAX])
        raise ValueError(f"names must be text, and YAML reads {shown} as something else: put them into quotes")
    return value


def _odd_names(value: object) -> list[str]:
    """Names that are no text, such as `1` or `on`, which JSON would hold as others; sorted."""
    odd: list[str] = []
    # Each value once: an alias may stand for what holds it, or for one of many that hold each other.
    seen: dict[int, object] = {}
    left = [value]
    while left:
        value = left.pop()
        if id(value) in seen:
            continue
        seen[id(value)] = value
        if isinstance(value, dict):
            odd += [str(name) for name in value if not isinstance(name, str)]
            left += value.values()
        elif isinstance(value, list | tuple):
            left += value
    return sorted(odd)


def check(inputs: Inputs) -> None:
    """Make sure that the options are those of the kind.

    Raises:
        typer.Exit: they are not; said already.
    """
    given = [name for name in Inputs._fields[1:] if getattr(inputs, name) is not None]
    if empty := [name for name in given if not getattr(inputs, name)]:
        # What an unset variable leaves.
        _fail(USAGE, f"nothing is given to {_spelled(empty)}")
    if missing := [name for name in NEEDED[inputs.kind] if name not in given]:
        _fail(USAGE, f"--kind {inputs.kind.value} also needs {_spelled(missing)}")
    if extra := [name for name in given if name not in POSSIBLE[inputs.kind]]:
        _fail(USAGE, f"--kind {inputs.kind.value} does not take {_spelled(extra)}")


def _spelled(names: list[str]) -> str:
    return ", ".join(f"--{name.replace('_', '-')}" for name in names)


@contextmanager
def _opened(path: str) -> Iterator[BufferedReader]:
    """The file, for the block in which it is read."""
    try:
        with Path(path).open("rb") as file:
            yield file
    except FileNotFoundError:
        _fail(NOT_FOUND, f"there is no file {path}")
    except OSError as error:
        _fail(FAILED, f"{path} cannot be read: {error.strerror}")


def _fail(code: int, text: str) -> NoReturn:
    say_error(text)
    raise typer.Exit(code)
