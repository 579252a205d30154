"""`motools run`: what is claimed, when the command is run, and what the end of it means."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import pytest

from motools.cache import (
    CacheError,
    CacheRequestError,
    ClaimTimeout,
    ComputationFailed,
    DaemonNotRunning,
    StaleLease,
    StorageFailed,
    hash_content,
)
from motools.cli import execution, inputs
from motools.cli.execution import CannotRun, Outcome
from motools.cli.options import Result
from motools.cli.run import RESULT_SHOWN_MAX
from tests.cli.conftest import Motools

CONTENT = b"one line\xff\n"
GIVEN_UP = (CannotRun("cannot be found", 127), CannotRun("cannot be run", 126))


class FakeClaim:
    """A claim that is owned where there is no value, and remembers how it ended."""

    def __init__(self, value: str | None) -> None:
        """Nothing has happened."""
        self.value = value
        self.claim_id = bytes(16)
        self.stored: list[str] = []
        self.failures: list[str] = []
        self.refusal: CacheError | None = None
        self.is_left = False

    def __enter__(self) -> Self:
        """Have the lease."""
        if isinstance(self.refusal, ComputationFailed | ClaimTimeout):
            raise self.refusal
        self.is_left = False
        return self

    def __exit__(self, *_: object) -> None:
        """Give it up."""
        self.is_left = True

    def fulfil(self, value: str) -> None:
        """Store, or refuse."""
        if self.refusal is not None:
            raise self.refusal
        self.stored.append(value)

    def fail(self, reason: str) -> None:
        """Record, or refuse."""
        if self.refusal is not None:
            raise self.refusal
        self.failures.append(reason)


class FakeCache:
    """Stands in for SyncCache, and for the command: what was asked of both."""

    def __init__(self) -> None:
        """A cache with nothing in it, and a command that succeeds."""
        self.claim = FakeClaim(None)
        self.asked: list[tuple[object, ...]] = []
        self.options: dict[str, Any] = {}
        self.directory = ""
        self.outcome: Outcome | CannotRun = Outcome(0, "value-1", "", was_interrupted=False)
        self.executed: list[tuple[list[str], Result, str, bytes]] = []

    def __call__(self, directory: str) -> Self:
        """Open it."""
        self.directory = directory
        return self

    def __enter__(self) -> Self:
        """Use it."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""

    def claim_dataset(self, dataset_hash: str, **options: object) -> FakeClaim:
        """As SyncCache."""
        return self._claim(("dataset", dataset_hash), options)

    def claim_model(
        self, dataset_hash: str, config: Mapping[str, Any], backend_type: str, **options: object
    ) -> FakeClaim:
        """As SyncCache."""
        return self._claim(("model", dataset_hash, config, backend_type), options)

    def claim_eval(
        self, model_id: str, task_id: str, backend_type: str, kwargs: Mapping[str, Any] | None, **options: object
    ) -> FakeClaim:
        """As SyncCache."""
        return self._claim(("eval", model_id, task_id, backend_type, kwargs), options)

    def execute(self, command: list[str], result: Result, directory: str, claim_id: bytes) -> Outcome:
        """Stands in for `execution.execute`."""
        assert not self.claim.is_left, "the command runs under the lease"
        self.executed.append((command, result, directory, claim_id))
        if isinstance(self.outcome, CannotRun):
            raise self.outcome
        return self.outcome

    def _claim(self, asked: tuple[object, ...], options: dict[str, Any]) -> FakeClaim:
        self.asked.append(asked)
        self.options = options
        return self.claim


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeCache:
    """What `motools run` uses; the working directory holds a dataset and configurations."""
    cache = FakeCache()
    monkeypatch.setattr(inputs, "SyncCache", cache)
    monkeypatch.setattr(execution, "execute", cache.execute)
    monkeypatch.chdir(tmp_path)
    Path("data").write_bytes(CONTENT)
    Path("c.json").write_text('{"lr": 0.1, "layers": [1, 2]}', encoding="utf-8")
    Path("c.yaml").write_text("lr: 0.1\nlayers: [1, 2]\n", encoding="utf-8")
    return cache


CONFIG = {"lr": 0.1, "layers": [1, 2]}
DATASET = ("run", "--kind", "dataset", "--dataset", "data")
MODEL = ("run", "--kind", "model", "--dataset", "data", "--backend", "mine")
EVAL = ("run", "--kind", "eval", "--model-id", "m", "--task-id", "t", "--backend", "inspect")


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        (DATASET, ("dataset", hash_content(CONTENT))),
        ((*MODEL, "--config", "c.json"), ("model", hash_content(CONTENT), CONFIG, "mine")),
        ((*MODEL, "--config", "c.yaml"), ("model", hash_content(CONTENT), CONFIG, "mine")),
        (EVAL, ("eval", "m", "t", "inspect", None)),
        ((*EVAL, "--config", "c.json"), ("eval", "m", "t", "inspect", CONFIG)),
    ],
)
def test_key_is_made_of_what_is_in_the_files(
    cache: FakeCache, motools: Motools, words: tuple[str, ...], asked: tuple[object, ...]
) -> None:
    """The dataset by its content, whatever its name; JSON and YAML that say the same are the same."""
    assert motools(*words, "-d", "/cache", "--", "train", "--lr", "3") == (0, "value-1\n", "")
    assert cache.asked == [asked]
    assert cache.executed == [(["train", "--lr", "3"], Result.FILE, "/cache", bytes(16))]
    assert (cache.directory, cache.claim.stored, cache.claim.failures) == ("/cache", ["value-1"], [])


def test_hit_is_printed_and_nothing_is_run(cache: FakeCache, motools: Motools) -> None:
    """What is cached costs one lookup."""
    cache.claim.value = "value-0"
    assert motools(*DATASET, "--", "train") == (0, "value-0\n", "")
    assert (cache.executed, cache.claim.stored) == ([], [])


def test_options_of_the_wait_reach_the_claim(cache: FakeCache, motools: Motools) -> None:
    """Without them it waits for as long as it takes, and hears of failures."""
    motools(*DATASET, "--", "train")
    assert cache.options == {"timeout_s": None, "on_failure": "raise"}
    motools(*DATASET, "--timeout", "2.5", "--on-failure", "take-over", "--result", "stdout", "--", "train")
    assert cache.options == {"timeout_s": 2.5, "on_failure": "take over"}
    assert cache.executed[-1][1] is Result.STDOUT


def test_options_behind_the_command_are_its_own(cache: FakeCache, motools: Motools) -> None:
    """With `--` and without it."""
    assert motools(*DATASET, "train", "--kind", "x", "-h").code == 0
    assert motools(*DATASET, "--", "train", "--", "--kind").code == 0
    assert [command for command, *_ in cache.executed] == [["train", "--kind", "x", "-h"], ["train", "--", "--kind"]]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("run",), "--kind"),
        (("run", "--", "train"), "--kind"),
        (DATASET, "no command to run"),
        ((*DATASET, "--"), "no command to run"),
        (("run", "--kind", "dataset", "--", "train"), "--kind dataset also needs --dataset"),
        ((*MODEL, "--", "train"), "--kind model also needs --config"),
        (("run", "--kind", "model", "--", "train"), "--kind model also needs --dataset, --config, --backend"),
        (("run", "--kind", "eval", "--", "train"), "--kind eval also needs --model-id, --task-id, --backend"),
        ((*DATASET, "--backend", "b", "--task-id", "t", "--", "train"), "does not take --backend, --task-id"),
        ((*MODEL, "--config", "c.json", "--model-id", "m", "--", "train"), "--kind model does not take --model-id"),
        ((*EVAL, "--dataset", "data", "--", "train"), "--kind eval does not take --dataset"),
        (("run", "--kind", "song", "--", "train"), "'song' is not dataset, model or eval"),
        ((*DATASET, "--result", "stderr", "--", "train"), "'stderr' is not file or stdout"),
        ((*DATASET, "--on-failure", "cry", "--", "train"), "'cry' is not raise or take-over"),
        ((*DATASET, "--timeout", "soon", "--", "train"), "--timeout takes a number of seconds, not 'soon'"),
        ((*DATASET, "--timout", "3", "--", "train"), "No such option: --timout"),
    ],
)
def test_mistake_in_the_options_is_named(
    cache: FakeCache, motools: Motools, words: tuple[str, ...], complaint: str
) -> None:
    """Exit code 2, before anything is claimed or run; a misspelled option is not taken for the command."""
    done = motools(*words)
    assert (done.code, done.out) == (2, "")
    assert complaint in done.err
    assert (cache.asked, cache.executed) == ([], [])


@pytest.mark.parametrize(
    ("name", "content", "code", "complaint"),
    [
        ("missing.json", None, 3, "there is no file missing.json"),
        ("bad.json", b"{", 1, "bad.json is no valid JSON"),
        ("bytes.json", b"\xff", 1, "bytes.json is no valid JSON"),
        ("deep.json", b"[" * 100_000, 1, "deep.json is no valid JSON"),
        ("list.json", b"[1]", 1, "list.json must hold a mapping of names to values, not list"),
        ("bad.yaml", b"a: [", 1, "bad.yaml is no valid YAML"),
        ("empty.yml", b"", 1, "empty.yml is empty"),
        ("names.yml", b"on: 1", 1, "names.yml is no valid YAML: names must be text"),
        ("object.yaml", b"a: !!python/object:os.system {}", 1, "object.yaml is no valid YAML"),
    ],
)
def test_file_that_is_no_configuration_is_named(
    cache: FakeCache, motools: Motools, name: str, content: bytes | None, code: int, complaint: str
) -> None:
    """By its name and what is wrong, without a traceback; nothing is claimed or run."""
    if content is not None:
        Path(name).write_bytes(content)
    done = motools(*MODEL, "--config", name, "--", "train")
    assert (done.code, done.out) == (code, "")
    assert complaint in done.err
    assert (cache.asked, cache.executed) == ([], [])


def test_failed_command_is_recorded_and_its_exit_code_ours(cache: FakeCache, motools: Motools) -> None:
    """Nothing is stored, even if it left a result before; those that wait are told why."""
    cache.outcome = Outcome(7, "half", "", was_interrupted=False)
    assert motools(*DATASET, "--", "train") == (7, "", "")
    assert (cache.claim.stored, cache.claim.failures, cache.claim.is_left) == ([], ["train ended with 7"], True)


def test_command_without_a_result_is_an_error(cache: FakeCache, motools: Motools) -> None:
    """It is said, recorded with its reason, and nothing is stored."""
    cache.outcome = Outcome(0, "", "left nothing in $MOTOOLS_RESULT", was_interrupted=False)
    reason = "train ended well but left nothing in $MOTOOLS_RESULT"
    assert motools(*DATASET, "--", "train") == (1, "", f"motools: error: {reason}: nothing was cached\n")
    assert (cache.claim.stored, cache.claim.failures) == ([], [reason])


def test_interrupted_command_is_no_failure(cache: FakeCache, motools: Motools) -> None:
    """Ctrl-C at one job does not fail the others: the next who waits has the lease."""
    cache.outcome = Outcome(130, "", "", was_interrupted=True)
    assert motools(*DATASET, "--", "train").code == 130
    assert (cache.claim.failures, cache.claim.is_left) == ([], True)


@pytest.mark.parametrize("error", GIVEN_UP)
def test_command_that_cannot_be_started_leaves_the_lease(cache: FakeCache, motools: Motools, error: CannotRun) -> None:
    """The exit code is a shell's; that is no failure of the computation, which another may be able to run."""
    cache.outcome = error
    assert motools(*DATASET, "--", "train") == (error.exit_code, "", f"motools: error: {error}\n")
    assert (cache.claim.stored, cache.claim.failures, cache.claim.is_left) == ([], [], True)


@pytest.mark.parametrize("refusal", [StaleLease("lost"), DaemonNotRunning("gone")])
def test_exit_code_stays_the_commands_where_its_failure_cannot_be_recorded(
    cache: FakeCache, motools: Motools, refusal: CacheError
) -> None:
    """Scripts look at it, whatever has become of the lease or the daemon meanwhile."""
    cache.outcome = Outcome(7, "", "", was_interrupted=False)
    cache.claim.refusal = refusal
    assert motools(*DATASET, "--", "train") == (7, "", f"motools: error: {refusal}\n")


@pytest.mark.parametrize(("stands", "printed"), [("value-0", "value-0\n"), (None, "")])
def test_lost_lease_prints_the_value_that_stands(
    cache: FakeCache, motools: Motools, stands: str | None, printed: str
) -> None:
    """On stdout what is cached, if anything is; on stderr what was computed in vain."""
    cache.claim.refusal = StaleLease("the lease is no longer yours", stands)
    done = motools(*DATASET, "--", "train")
    assert (done.code, done.out) == (1, printed)
    assert "the lease is no longer yours" in done.err
    assert "value-1" in done.err


@pytest.mark.parametrize(
    ("refusal", "code"),
    [(DaemonNotRunning("no daemon"), 69), (StorageFailed("disk full"), 1), (CacheRequestError("too long"), 1)],
)
def test_result_that_cannot_be_stored_is_not_lost(
    cache: FakeCache, motools: Motools, refusal: CacheError, code: int
) -> None:
    """Hours may have gone into it: it stands on stderr, and not on stdout, where it would pass for cached."""
    cache.claim.refusal = refusal
    done = motools(*DATASET, "--", "train")
    assert (done.code, done.out) == (code, "")
    assert done.err.splitlines() == [f"motools: error: {refusal}", "The result that was not stored: value-1"]


def test_endless_result_is_not_said_whole(cache: FakeCache, motools: Motools) -> None:
    """What is too long to be cached is too long for a message."""
    cache.outcome = Outcome(0, "x" * 1_000_000, "", was_interrupted=False)
    cache.claim.refusal = CacheRequestError("too long")
    assert len(motools(*DATASET, "--", "train").err) < RESULT_SHOWN_MAX + 200


@pytest.mark.parametrize(
    ("refusal", "code"), [(ClaimTimeout("pid 1 still computes"), 75), (ComputationFailed("out of memory"), 1)]
)
def test_wait_that_ends_without_a_value_runs_nothing(
    cache: FakeCache, motools: Motools, refusal: CacheError, code: int
) -> None:
    """The time is over, or whoever computed has failed."""
    cache.claim.refusal = refusal
    assert motools(*DATASET, "--", "train") == (code, "", f"motools: error: {refusal}\n")
    assert cache.executed == []


def test_value_that_is_no_utf_8_leaves_as_its_bytes(cache: FakeCache, motools: Motools) -> None:
    """The path of a log may be any bytes."""
    cache.outcome = Outcome(0, "evals/\udcff.eval", "", was_interrupted=False)
    assert motools(*EVAL, "--", "train").out == "evals/\udcff.eval\n"


def test_help_names_kinds_and_the_variable(motools: Motools) -> None:
    """Somebody new sees which options go with which kind, and where the result is to be written."""
    done = motools("run", "--help")
    assert done.code == 0
    assert "Example: motools run --kind model --dataset train.jsonl" in done.out
    assert "(dataset, model)" in done.out
    assert "$MOTOOLS_RESULT" in done.out
