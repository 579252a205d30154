"""Commands whose options are read without pydantic.

typer (since 0.29) reads every value by pydantic, and loading that takes longer than all the rest of `motools cache
stats`. The values here are texts, choices and flags, for which little is needed.

Layer: motools.cli. Imports typer.
Invariant: only how texts become values is replaced; parsing, help, completion and messages stay typer's. With a typer
that reads values in another way, nothing is replaced.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import TYPE_CHECKING

import typer
from typer.core import TyperCommand, TyperGroup

if TYPE_CHECKING:
    from typer._click.core import Context, Parameter


class Command(TyperCommand):
    """A command, for `@app.command(cls=Command)`."""

    def parse_args(self, ctx: Context, args: list[str]) -> list[str]:
        """As typer does."""
        read_plainly(self.get_params(ctx))
        return super().parse_args(ctx, args)


class Group(TyperGroup):
    """A group of commands, for `typer.Typer(cls=Group)`."""

    def parse_args(self, ctx: Context, args: list[str]) -> list[str]:
        """As typer does."""
        # Not in the constructor: typer adds the options for completion and help to a finished group.
        read_plainly(self.get_params(ctx))
        return super().parse_args(ctx, args)


class Reader:
    """Makes a parameter's value from text; stands in for typer's own `RuntimeParam`."""

    def __init__(self, read: Callable[[str], object], *, is_list: bool = False) -> None:
        """Read one text by `read`, which raises ValueError with what is wrong."""
        self._read = read
        self._is_list = is_list

    def coerce(self, value: str | Iterable[str] | None, param: Parameter, ctx: Context) -> object:
        """The value; texts come from the command line or the environment, other values are defaults.

        Raises:
            typer.BadParameter: it is none.
        """
        if value is None:
            return () if self._is_list else None
        try:
            return tuple(map(self._read, value)) if self._is_list else self._read(value)  # type: ignore[arg-type]
        except ValueError as error:
            raise typer.BadParameter(str(error), ctx=ctx, param=param) from error  # type: ignore[arg-type]


def read_plainly(parameters: Iterable[Parameter]) -> None:
    """Have parameters of the types below read by a `Reader`, as far as this typer asks for one."""
    for parameter in parameters:
        descriptor = getattr(parameter, "type_descriptor", None)
        reader = None if descriptor is None else reader_of(descriptor.annotation)
        if reader is not None:
            parameter._runtime_param = reader  # type: ignore[attr-defined] # noqa: SLF001 - as the module says


def reader_of(annotation: object) -> Reader | None:
    """How values of a type are read; None where typer's way is taken."""
    if annotation is bool:
        # A flag: given or not. None of ours can be set by the environment, which would be a text.
        return Reader(lambda flag: flag)
    if annotation is str:
        return Reader(str)
    if annotation == list[str]:
        return Reader(str, is_list=True)
    if isinstance(annotation, type) and issubclass(annotation, StrEnum):
        return Reader(lambda text: read_choice(annotation, text))
    return None


def read_choice(choices: type[StrEnum], text: str) -> StrEnum:
    """One of several words.

    Raises:
        ValueError: it is none of them; the text names them.
    """
    if text not in list(choices):
        *others, last = choices
        raise ValueError(f"{text!r} is not {', '.join(others)} or {last}")
    return choices(text)
