"""What `motools run` computes from: the dataset's hash, configurations as JSON or YAML, and what is wrong with them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import typer

from motools.cache import hash_content
from motools.cli import inputs
from motools.cli.inputs import Inputs, claim_of, hash_file, read_config
from motools.cli.options import LeaseKind

CONFIG = {"lr": 0.1, "layers": [1, 2], "on": {"text": "é"}}
JSON = '{"lr": 0.1, "layers": [1, 2], "on": {"text": "é"}}'
YAML = "# of the sweep\nlr: 0.1\nlayers: [1, 2]\n'on':\n  text: é\n"
ALIASES = "\n".join(["a0: &a0 [1]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)), "2: x"])


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files are named as a user names them."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refusal(path: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """How reading a configuration ends: the exit code, and the one line that is said."""
    with pytest.raises(typer.Exit) as end:
        read_config(path)
    said = capsys.readouterr().err
    assert said.startswith("motools: error: ")
    assert said.count("\n") == 1
    return end.value.exit_code, said


@pytest.mark.parametrize("content", [b"", b"one line\n", b"\xff\x00\r\n", bytes(3_000_001)])
def test_dataset_is_hashed_as_by_the_client(content: bytes) -> None:
    """The key is that of `hash_content`, which a program calls with the bytes."""
    Path("data").write_bytes(content)
    assert hash_file("data") == hash_content(content)


def test_dataset_may_come_out_of_a_pipe() -> None:
    """As the shell's `<(zcat data.gz)` hands it over."""
    reading, writing = os.pipe()
    os.write(writing, b"unpacked\n")
    os.close(writing)
    try:
        assert hash_file(f"/dev/fd/{reading}") == hash_content(b"unpacked\n")
    finally:
        os.close(reading)


@pytest.mark.parametrize(("name", "text"), [("c.json", JSON), ("c", JSON), ("c.yaml", YAML), ("c.YML", YAML)])
def test_configuration_is_the_same_in_json_and_yaml(name: str, text: str) -> None:
    """The suffix tells which it is; without one it is JSON."""
    Path(name).write_text(text, encoding="utf-8")
    assert read_config(name) == CONFIG


def test_json_loads_no_yaml(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which is slow to load."""
    monkeypatch.setitem(sys.modules, "yaml", None)
    Path("c.json").write_text(JSON, encoding="utf-8")
    assert read_config("c.json") == CONFIG


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("bad.json", b"{", "bad.json is no valid JSON: Expecting property name"),
        ("bytes.json", b"\xff", "bytes.json is no valid JSON: 'utf-8' codec can't decode byte 0xff"),
        ("deep.json", b"[" * 100_000, "deep.json is no valid JSON: it is nested too deeply"),
        ("digits.json", b'{"seed": %s}' % (b"9" * 5_000), "digits.json is no valid JSON: Exceeds the limit"),
        ("list.json", b"[1]", "list.json must hold a mapping of names to values, not list"),
        (
            "bad.yaml",
            b"a: 1\nb: [",
            "bad.yaml is no valid YAML: expected the node content, but found '<stream end>' (line",
        ),
        ("bytes.yaml", b"\xff", "bytes.yaml is no valid YAML: unacceptable character #x00ff: invalid start byte in"),
        ("deep.yaml", b"[" * 10_000, "deep.yaml is no valid YAML: it is nested too deeply"),
        ("day.yaml", b"day: 2026-13-45", "day.yaml is no valid YAML: month must be in 1..12"),
        ("two.yaml", b"--- {a: 1}\n--- {b: 2}\n", "two.yaml is no valid YAML: but found another document (line 2"),
        ("object.yaml", b"a: !!python/object:os.system {}", "object.yaml is no valid YAML: could not determine"),
        ("none.yaml", b"# all of it is commented out\n", "must hold a mapping of names to values, not NoneType"),
    ],
)
def test_what_is_no_configuration_is_told_in_one_line(
    capsys: pytest.CaptureFixture[str], name: str, content: bytes, complaint: str
) -> None:
    """Its name, what is wrong and where; exit code 1."""
    Path(name).write_bytes(content)
    code, said = refusal(name, capsys)
    assert code == 1
    assert complaint in said


@pytest.mark.parametrize("text", ["a: !!bool x", "a: !!int ''", "a: !!timestamp x"])
def test_yaml_tag_that_does_not_fit_is_told(capsys: pytest.CaptureFixture[str], text: str) -> None:
    """PyYAML itself fails on it with whatever its code happens to raise."""
    Path("c.yaml").write_text(text)
    code, said = refusal("c.yaml", capsys)
    assert (code, "a value is not of the type that its tag names" in said) == (1, True)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("1: x", "1"),
        ("on: x", "True"),
        ("layers: [a, {b: {2026-01-31: x}}]", "2026-01-31"),
        ("? !!binary aGk=\n: x", "b'hi'"),
        ("null: {2: x, 3: x, 'a': x}", "2, 3, None"),
        ("{1: x, 2: x, 3: x, 4: x, 5: x, 6: x}", "1, 2, 3, 4, 5"),
        ("a: &a [*a, {1: x}]", "1"),
        (ALIASES, "2"),
    ],
)
def test_yaml_name_that_is_no_text_is_refused(capsys: pytest.CaptureFixture[str], text: str, named: str) -> None:
    """JSON holds texts only: another name would stand in the key than in the file; `on` would become `true`."""
    Path("c.yaml").write_text(text)
    code, said = refusal("c.yaml", capsys)
    assert code == 1
    assert f"names must be text, and YAML reads {named} as something else" in said


@pytest.mark.parametrize("name", ["c.json", "c.yaml"])
@pytest.mark.parametrize("content", [b"", b" \n\t\n"])
def test_empty_configuration_is_a_mistake(capsys: pytest.CaptureFixture[str], name: str, content: bytes) -> None:
    """Most often the program that was to write it has failed; what to write for none is said."""
    Path(name).write_bytes(content)
    assert refusal(name, capsys) == (
        1,
        f"motools: error: {name} is empty: write {{}} into it if there is nothing to configure\n",
    )


def test_wrong_file_is_not_read_to_its_end(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A dataset or a device, for example, given as the configuration."""
    monkeypatch.setattr(inputs, "CONFIG_SIZE_MAX_BYTES", 1_000)
    code, said = refusal("/dev/zero", capsys)
    assert (code, "/dev/zero is longer than 1000 bytes" in said) == (1, True)


@pytest.mark.parametrize(
    ("path", "code", "complaint"),
    [
        ("missing", 3, "there is no file missing"),
        (".", 1, ". cannot be read: Is a directory"),
        ("x" * 300, 1, "cannot be read: File name too long"),
        ("loop", 1, "loop cannot be read: Too many levels of symbolic links"),
    ],
)
def test_file_that_cannot_be_read_is_told(
    capsys: pytest.CaptureFixture[str], path: str, code: int, complaint: str
) -> None:
    """Dataset and configuration alike."""
    Path("loop").symlink_to("loop")
    assert refusal(path, capsys)[0] == code
    with pytest.raises(typer.Exit) as end:
        hash_file(path)
    assert end.value.exit_code == code
    assert complaint in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        (Inputs(LeaseKind.MODEL, "missing", None, None, None, None), "also needs --config, --backend"),
        (Inputs(LeaseKind.DATASET, "missing", None, "b", None, None), "does not take --backend"),
        (Inputs(LeaseKind.DATASET, "", None, None, None, None), "nothing is given to --dataset"),
        (Inputs(LeaseKind.EVAL, None, None, "b", "", ""), "nothing is given to --model-id, --task-id"),
    ],
)
def test_options_are_checked_before_anything_is_opened(
    capsys: pytest.CaptureFixture[str], given: Inputs, complaint: str
) -> None:
    """Exit code 2; an empty value, as an unset variable leaves it, is none."""
    with pytest.raises(typer.Exit) as end, claim_of(given, "/nowhere", timeout_s=None, on_failure="raise"):
        pass
    assert end.value.exit_code == 2
    assert complaint in capsys.readouterr().err
