"""The options that choose entries, the same on every command that takes some.

Layer: motools.cli. Imports typer, and when a command runs inputs and motools.cache.
Invariant: each filter is spelled and explained here, and nowhere else.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

PANEL = "Filters"


def _option(*names: str, metavar: str, help: str) -> Any:  # noqa: A002, ANN401 - as typer has it
    return typer.Option(*names, metavar=metavar, help=help, rich_help_panel=PANEL)


_FILTERS: dict[str, tuple[Any, str]] = {
    "model_id": (list[str], "model_ids"),
    "task_id": (list[str], "task_ids"),
    "dataset": (list[str], "datasets"),
    "backend": (list[str], "backends"),
    "label": (list[str], "labels"),
    "created_after": (str, "created_after"),
    "created_before": (str, "created_before"),
    "used_after": (str, "used_after"),
    "used_before": (str, "used_before"),
    "older_than": (str, "older_than"),
    "unused_for": (str, "unused_for"),
    "version": (str, "version"),
    "key": (str, "key_prefix"),
    "where": (list[str], "where"),
    "larger_than": (str, "larger_than"),
}
"""Of each option its type, and the API's name for it."""
_SPELLED: dict[str, Any] = {
    "model_id": _option("--model-id", metavar="ID", help="Of this model (models, evals). Repeatable."),
    "task_id": _option("--task-id", metavar="ID", help="Of this task (evals). Repeatable."),
    "dataset": _option("--dataset", "--dataset-hash", metavar="HASH|FILE", help="Of this dataset. Repeatable."),
    "backend": _option("--backend", metavar="NAME", help="Of this backend (models, evals). Repeatable."),
    "label": _option("--label", metavar="NAME=VALUE", help="With this label. Repeatable."),
    "created_after": _option("--created-after", metavar="TIME", help="Stored then or later: 2026-11-20."),
    "created_before": _option("--created-before", metavar="TIME", help="Stored before then."),
    "used_after": _option("--used-after", metavar="TIME", help="Stored or used then or later."),
    "used_before": _option("--used-before", metavar="TIME", help="Neither stored nor used since then."),
    "older_than": _option("--older-than", metavar="AGE", help="Stored so long ago, as in 30d."),
    "unused_for": _option("--unused-for", metavar="AGE", help="Not used for so long, as in 14d."),
    "version": _option("--version", metavar="TEXT", help="Stored under this version."),
    "key": _option("--key", metavar="PREFIX", help="With a key that begins so."),
    "where": _option("--where", metavar="CONDITION", help="'config.lr>0.1', say. Repeatable."),
    "larger_than": _option("--larger-than", metavar="SIZE", help="Whose files take more, as in 1GB."),
}


NAMES = tuple(_FILTERS)


def takes_filters(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the filter options in place of its parameter `filters`, which gets those of the API."""
    own = inspect.signature(command)
    hints = get_type_hints(command, include_extras=True)
    parameters: list[inspect.Parameter] = []
    for name, parameter in own.parameters.items():
        if name != "filters":
            parameters.append(parameter.replace(annotation=hints[name]))
            continue
        parameters += [
            inspect.Parameter(
                option,
                inspect.Parameter.KEYWORD_ONLY,
                default=None,
                annotation=Annotated[kind | None, _SPELLED[option]],
            )
            for option, (kind, _) in _FILTERS.items()
        ]

    @wraps(command)
    def with_filters(**values: Any) -> None:  # noqa: ANN401 - whatever the command takes
        given = {name: values.pop(name) for name in _FILTERS}
        command(**values, filters=filters_of(given))

    del with_filters.__wrapped__
    with_filters.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    with_filters.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return with_filters


def filters_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """Options as the API takes them; without those that were not given.

    Raises:
        typer.BadParameter: a label is none.
        typer.Exit: a dataset's file cannot be read; said already.
    """
    options = {_FILTERS[name][1]: list(value) if isinstance(value, tuple) else value for name, value in given.items()}
    chosen = {name: value for name, value in options.items() if value not in (None, [])}
    if "labels" in chosen:
        chosen["labels"] = labels_of(chosen["labels"])
    if "datasets" in chosen:
        chosen["datasets"] = [_hash_of(name) for name in chosen["datasets"]]
    return chosen


def labels_of(texts: list[str]) -> dict[str, str]:
    """Labels as they are written, `name=value`.

    Raises:
        typer.BadParameter: one is not; or one name has two values.
    """
    labels: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise typer.BadParameter(f"{text!r} is no label: write it as experiment=e1", param_hint="--label")
        if labels.setdefault(name, value) != value:
            raise typer.BadParameter(f"no entry has two values of {name!r}", param_hint="--label")
    return labels


def _is_path(name: str) -> bool:
    """Whether a name can only be meant as that of a file: one that is not there is a mistake."""
    return "/" in name or Path(name).suffix in {".json", ".jsonl", ".csv", ".parquet", ".txt", ".yaml", ".zip"}


def _hash_of(name: str) -> str:
    """A dataset's hash, from itself or from the file that it is of."""
    if not Path(name).is_file() and not _is_path(name):
        return name
    from motools.cli.inputs import hash_file

    return hash_file(name)
