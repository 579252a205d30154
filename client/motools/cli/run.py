"""`motools run`: any program, run only if nobody has computed its value, and by one of all that ask.

Layer: motools.cli. Imports execution, inputs, options, output and motools.cache.
Invariant: what is not computed is not cached, and no command outlives its lease.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer

from motools.cache.errors import CacheError, CacheRequestError, StaleLease
from motools.cli.exits import FAILED, USAGE, exit_code
from motools.cli.options import DEFAULT_DIR, CacheDir, LeaseKind, OnFailureChoice, Result
from motools.cli.output import say_error, write

if TYPE_CHECKING:
    from motools.cache.sync_claims import SyncClaim
    from motools.cli.execution import Outcome

RESULT_SHOWN_MAX: Final = 4_096
"""Characters of a result that could not be stored, in the message that hands it over."""


def run(  # noqa: PLR0913 - each is an option of the command line
    command: Annotated[
        list[str] | None, typer.Argument(metavar="COMMAND", hidden=True)  # described above: help is to fit a screen
    ] = None,
    *,
    kind: Annotated[LeaseKind, typer.Option("--kind", metavar="KIND", help="dataset, model or eval.")],
    dataset: Annotated[
        str | None, typer.Option("--dataset", metavar="FILE", help="The dataset's file (dataset, model).")
    ] = None,
    config: Annotated[
        str | None,
        typer.Option("--config", metavar="FILE", help="JSON or YAML: training (model), arguments (eval)."),
    ] = None,
    backend: Annotated[
        str | None, typer.Option("--backend", metavar="NAME", help="Training or evaluation backend (model, eval).")
    ] = None,
    model_id: Annotated[str | None, typer.Option("--model-id", metavar="ID", help="The model (eval).")] = None,
    task_id: Annotated[str | None, typer.Option("--task-id", metavar="ID", help="The task (eval).")] = None,
    result: Annotated[
        Result, typer.Option("--result", metavar="WHERE", help="file, or stdout: its last line.")
    ] = Result.FILE,
    timeout: Annotated[
        str | None, typer.Option("--timeout", metavar="SECONDS", help="Wait at most so long for another's result.")
    ] = None,
    on_failure: Annotated[
        OnFailureChoice,
        typer.Option("--on-failure", metavar="WHAT", help="If another fails: raise or take-over."),
    ] = OnFailureChoice.RAISE,
    cache_dir: CacheDir = DEFAULT_DIR,
) -> None:
    """Run a command unless its result is cached, and print the result either way.

    Of all that ask at once, one runs it. It writes a file id, a model id or a log's path into the file
    $MOTOOLS_RESULT; its exit code is ours.

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
    from motools.cli.execution import CannotRun, execute

    try:
        outcome = execute(command, result, directory, claim.claim_id)
    except CannotRun as error:
        say_error(str(error))
        raise typer.Exit(error.exit_code) from error
    complaint = _complaint(outcome, command[0])
    if complaint is not None:
        if outcome.exit_code == 0:
            say_error(f"{complaint}: nothing was cached")
        if not outcome.was_interrupted:
            _record_failure(claim, complaint)
        raise typer.Exit(outcome.exit_code or FAILED)
    _store(claim, outcome.value)
    return outcome.value


def _complaint(outcome: Outcome, program: str) -> str | None:
    """Why there is nothing to store; None if there is something."""
    if outcome.exit_code:
        return f"{program} ended with {outcome.exit_code}"
    return None if outcome.value else f"{program} ended well but {outcome.reason}"


def _record_failure(claim: SyncClaim, reason: str) -> None:
    """Tell those that wait, if the lease is still ours; the exit code stays the command's either way."""
    try:
        claim.fail(reason)
    except CacheError as error:
        say_error(str(error))


def _store(claim: SyncClaim, value: str) -> None:
    """Store the result, or hand it over on stderr: hours may have gone into it, and its file is gone.

    Raises:
        typer.Exit: it was not stored; said already.
    """
    try:
        claim.fulfil(value)
    except CacheError as error:
        say_error(f"{error}\nThe result that was not stored: {value[:RESULT_SHOWN_MAX]}")
        if isinstance(error, StaleLease) and error.value is not None:
            write(f"{error.value}\n")
        # A result that breaks a rule is the command's fault, and none of our command line.
        code = FAILED if isinstance(error, CacheRequestError) else exit_code(error)
        raise typer.Exit(code) from error


def _seconds(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        return float(text)
    except ValueError as error:
        message = f"--timeout takes a number of seconds, not {text!r}"
        raise typer.BadParameter(message) from error
