"""`motools run`: any program, run only if nobody has computed its value, and by one of all that ask.

Layer: motools.cli. Imports execution, inputs, options, output and motools.cache.
Invariant: what is not computed is not cached, and the lease never outlives the command.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from motools.cli.exits import FAILED, USAGE
from motools.cli.options import DEFAULT_DIR, CacheDir, LeaseKind, OnFailureChoice, Result
from motools.cli.output import say_error, write

if TYPE_CHECKING:
    from motools.cache.sync_claims import SyncClaim
    from motools.cli.execution import Outcome


def run(  # noqa: PLR0913 - each is an option of the command line
    command: Annotated[
        list[str] | None, typer.Argument(metavar="COMMAND...", help="The program and its arguments, after `--`.")
    ] = None,
    *,
    kind: Annotated[LeaseKind, typer.Option("--kind", metavar="KIND", help="dataset, model or eval.")],
    dataset: Annotated[
        str | None, typer.Option("--dataset", metavar="FILE", help="The dataset's file (dataset, model).")
    ] = None,
    config: Annotated[
        str | None,
        typer.Option("--config", metavar="FILE", help="JSON or YAML: training config (model), arguments (eval)."),
    ] = None,
    backend: Annotated[
        str | None, typer.Option("--backend", metavar="NAME", help="Training or evaluation backend (model, eval).")
    ] = None,
    model_id: Annotated[str | None, typer.Option("--model-id", metavar="ID", help="The model (eval).")] = None,
    task_id: Annotated[str | None, typer.Option("--task-id", metavar="ID", help="The task (eval).")] = None,
    result: Annotated[
        Result, typer.Option("--result", metavar="WHERE", help="file: $MOTOOLS_RESULT; stdout: its last line.")
    ] = Result.FILE,
    timeout: Annotated[
        str | None, typer.Option("--timeout", metavar="SECONDS", help="Wait at most so long for another's result.")
    ] = None,
    on_failure: Annotated[
        OnFailureChoice,
        typer.Option("--on-failure", metavar="WHAT", help="When another's run has failed: raise, or take-over."),
    ] = OnFailureChoice.RAISE,
    cache_dir: CacheDir = DEFAULT_DIR,
) -> None:
    """Run a command unless its result is cached, and print the result either way.

    Of all that ask for the same at the same time, one runs the command, and the others wait for its result. The command
    writes it into the file that $MOTOOLS_RESULT names: a file id, a model id or the path of a log.

    The exit code is the command's; 126 and 127 mean that it cannot be run or found. A failed command leaves nothing
    cached.

    Example: motools run --kind model --dataset train.jsonl --config lr.yaml --backend mine -- python train.py
    """
    if not command:
        example = "motools run --kind dataset --dataset FILE -- ./upload"
        say_error(f"no command to run: put it behind `--`, as in `{example}`")
        raise typer.Exit(USAGE)
    from motools.cli.inputs import Inputs, claim_of  # these load the client, which no other command's help needs

    inputs = Inputs(kind, dataset, config, backend, model_id, task_id)
    mode: Literal["raise", "take over"] = "take over" if on_failure is OnFailureChoice.TAKE_OVER else "raise"
    with claim_of(inputs, cache_dir, timeout_s=_seconds(timeout), on_failure=mode) as claim:
        value = _compute(claim, command, result, cache_dir) if claim.value is None else claim.value
    write(f"{value}\n")


def _compute(claim: SyncClaim, command: list[str], result: Result, directory: str) -> str:
    """Run the command and store its result.

    Raises:
        typer.Exit: there is none; said already.
    """
    from motools.cache.errors import StaleLease
    from motools.cli.execution import CannotRun, execute

    try:
        outcome = execute(command, result, directory, claim.claim_id)
    except CannotRun as error:
        say_error(str(error))
        raise typer.Exit(error.exit_code) from error
    value = _checked(outcome, command)
    if value is None:
        if not outcome.was_interrupted:
            claim.fail(f"{command[0]} ended with {outcome.exit_code}")
        raise typer.Exit(outcome.exit_code or FAILED)
    try:
        claim.fulfil(value)
    except StaleLease as error:
        say_error(str(error))
        if error.value is not None:
            write(f"{error.value}\n")
        raise typer.Exit(FAILED) from error
    return value


def _checked(outcome: Outcome, command: list[str]) -> str | None:
    """The value, if there is one; what is wrong with a command that succeeded is said."""
    if outcome.exit_code == 0 and not outcome.value:
        say_error(f"{command[0]} ended well but {outcome.reason}: nothing was cached")
        return None
    return outcome.value if outcome.exit_code == 0 else None


def _seconds(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        return float(text)
    except ValueError as error:
        message = f"--timeout takes a number of seconds, not {text!r}"
        raise typer.BadParameter(message) from error
