"""House style, held by a test: sizes, names, docstrings, and tests that mirror the source."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCE_DIRS = ("motoolsd", "client", "bench", "examples")
LAYERED_DIRS = ("motoolsd", "client")

SOURCE_LINES_MAX = 400
TEST_LINES_MAX = 600
FUNCTION_LINES_MAX = 50
TRIVIAL_INIT_LINES_MAX = 10

VAGUE_NAMES = {"manager", "helper", "helpers", "common", "misc", "util", "utils"}
VAGUE_BUT_PROMISED = {"client/motools/cache/utils.py", "tests/cache/test_utils.py"}  # the older package's module path
EMPTY = {"client/motools/__init__.py"}  # so that motools.cache can stand in for a folder of the older package
# Written so that it does not match itself.
UNFINISHED = re.compile(r"\b(TO[D]O|FIX[M]E|XX[X])\b")

MIRRORED = {
    "adapters": "motoolsd/adapters",
    "cache": "client/motools/cache",
    "cli": "client/motools/cli",
    "core": "motoolsd/core",
    "engine": "motoolsd/engine",
    "examples": "examples",
    "server": "motoolsd/server",
    "store": "motoolsd/store",
    "tasks": "motoolsd/tasks",
    "wire": "motoolsd/wire",
}
"""Folder of tests -> folder of the source whose modules they are named after."""


def files_under(*names: str) -> list[str]:
    """Python files under the given folders, relative to the checkout, in order."""
    return sorted(path.relative_to(ROOT).as_posix() for name in names for path in (ROOT / name).rglob("*.py"))


SOURCES = files_under(*SOURCE_DIRS)
TESTS = files_under("tests")


def text_of(name: str) -> str:
    """The text of a file of the checkout."""
    return (ROOT / name).read_text(encoding="utf-8")


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function's body, its docstring apart: a promise may be as long as it must be."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    if not body:
        return 0
    return (body[-1].end_lineno or body[-1].lineno) - body[0].lineno + 1


def long_functions(tree: ast.Module) -> list[str]:
    """`name (lines)` of every function above the limit, nested ones included."""
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return [f"{f.name} ({body_lines(f)})" for f in functions if body_lines(f) > FUNCTION_LINES_MAX]


def mirrored_source(test: str) -> str | None:
    """The path, without its suffix, of the source that a test file is named after; None where none is asked for."""
    _, folder, *rest = test.split("/")
    if folder not in MIRRORED or not rest or not rest[-1].startswith("test_"):
        return None
    name = rest[-1].removeprefix("test_").removesuffix(".py")
    return "/".join([MIRRORED[folder], *rest[:-1], name])


@pytest.mark.parametrize("name", SOURCES)
def test_source_file_is_short(name: str) -> None:
    """A source file fits into one reading: at most 400 lines."""
    assert len(text_of(name).splitlines()) <= SOURCE_LINES_MAX


@pytest.mark.parametrize("name", TESTS)
def test_test_file_is_short(name: str) -> None:
    """A test file holds at most 600 lines."""
    assert len(text_of(name).splitlines()) <= TEST_LINES_MAX


@pytest.mark.parametrize("name", SOURCES + TESTS)
def test_functions_are_short(name: str) -> None:
    """A function's body holds at most 50 lines."""
    assert long_functions(ast.parse(text_of(name))) == []


@pytest.mark.parametrize("name", SOURCES + TESTS)
def test_module_says_what_it_holds(name: str) -> None:
    """Each module opens with a docstring; in the daemon and the client it names the layer."""
    if name in EMPTY:
        assert not text_of(name)
        return
    docstring = ast.get_docstring(ast.parse(text_of(name)))
    assert docstring
    is_trivial = name.endswith("/__init__.py") and len(text_of(name).splitlines()) <= TRIVIAL_INIT_LINES_MAX
    if name.split("/", maxsplit=1)[0] in LAYERED_DIRS and not is_trivial:
        assert "Layer:" in docstring


@pytest.mark.parametrize("name", SOURCES + TESTS)
def test_nothing_is_left_unfinished(name: str) -> None:
    """What is to be done stands in an issue, not in a comment."""
    assert UNFINISHED.findall(text_of(name)) == []


@pytest.mark.parametrize("name", SOURCES + TESTS)
def test_module_is_a_noun_that_says_something(name: str) -> None:
    """No module or folder is a drawer: manager, helper, common, misc, util."""
    parts = {part.removeprefix("test_") for part in name.removesuffix(".py").split("/")}
    assert not parts & VAGUE_NAMES or name in VAGUE_BUT_PROMISED


@pytest.mark.parametrize("name", [name for name in TESTS if mirrored_source(name) is not None])
def test_tests_mirror_the_source(name: str) -> None:
    """tests/x/test_y.py tests motoolsd/x/y.py (or the client's or the example's module of that name)."""
    source = mirrored_source(name)
    assert (ROOT / f"{source}.py").is_file() or (ROOT / f"{source}" / "__init__.py").is_file()
