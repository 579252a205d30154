"""The runner of examples itself: what is broken on a page is found, and named with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs import pages
from tests.docs.pages import BrokenExampleError, blocks_of, fits, run_page

FENCE = "```"


def run(directory: Path, *lines: str) -> list[pages.Block]:
    """Run a page of these lines."""
    page = directory / "page.md"
    page.write_text("\n".join((*lines, "")))
    return run_page(page, directory)


def test_blocks_of_a_page_share_directory_and_names(short_dir: Path) -> None:
    """A later block goes on where an earlier one ended, in whatever language."""
    left_out = run(
        short_dir,
        "<!-- file: name.json -->",
        f'{FENCE}json\n{{"name": "ann"}}\n{FENCE}',
        f"{FENCE}python\nimport json\nname = json.load(open('name.json'))['name']\n{FENCE}",
        f"{FENCE}python\nopen('greeting', 'w').write(f'hello {{name}}')\nprint(name, 17)\n{FENCE}",
        f"{FENCE}text\nann ...\n{FENCE}",
        "<!-- invisible-code-block: bash\nprintf 'unseen\\n' >> greeting\n-->\n",
        f"{FENCE}console\n$ cat greeting\nhello annunseen\n$ cat nothing\n...No such file...\n$ echo $?\n1\n{FENCE}",
    )
    assert left_out == []


@pytest.mark.parametrize(
    ("line", "lines"),
    [
        (2, [f"{FENCE}python\n1 / 0\n{FENCE}"]),
        (2, [f"{FENCE}sh\nfalse\ntrue\n{FENCE}"]),
        (3, [f"{FENCE}console\n$ true\n$ false\n{FENCE}"]),
        (2, [f"{FENCE}console\n$ echo one\ntwo\n{FENCE}"]),
        (2, [f"{FENCE}console\n$ echo one; echo two\none\n{FENCE}"]),
        (2, [f"{FENCE}console\n$ echo one; echo two\n{FENCE}"]),
        (2, [f"{FENCE}console\n$ exit 0\n$ echo two\ntwo\n{FENCE}"]),
        (2, [f"{FENCE}python\nprint(1)\n{FENCE}", "", f"{FENCE}text\n2\n{FENCE}"]),
        (2, [f"{FENCE}json\n{{1}}\n{FENCE}"]),
        (2, [f"{FENCE}ruby\nputs 1\n{FENCE}"]),
        (2, [f"{FENCE}python title=x\n1\n{FENCE}"]),
        (2, [f"{FENCE}\n$ true\n{FENCE}"]),
        (1, ["<!-- not run: -->", f"{FENCE}sh\nfalse\n{FENCE}"]),
        (1, ["<!-- not run: because -->", "words", f"{FENCE}sh\nfalse\n{FENCE}"]),
    ],
)
def test_broken_example_is_found_at_its_line(short_dir: Path, line: int, lines: list[str]) -> None:
    """Neither a failure, nor other output, nor a block that nobody runs goes by unseen."""
    with pytest.raises(BrokenExampleError, match=rf"page\.md:{line}: "):
        run(short_dir, *lines)


def test_page_that_takes_too_long_ends(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The block that hangs is named, and nothing of it stays behind."""
    monkeypatch.setattr(pages, "PAGE_TIMEOUT_S", 0.5)
    with pytest.raises(BrokenExampleError, match="not done after"):
        run(short_dir, f"{FENCE}sh\nsleep 1000\n{FENCE}")


def test_block_left_out_says_why(short_dir: Path) -> None:
    """It is not run, and handed back with its reason."""
    left_out = run(short_dir, "<!-- not run: it would end the world -->", f"{FENCE}sh\nfalse\n{FENCE}")
    assert [block.not_run for block in left_out] == ["it would end the world"]


def test_environment_is_not_the_developers(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a setting nor the home directory of whoever runs the tests reaches an example."""
    monkeypatch.setenv("MOTOOLS_LABELS", "experiment=mine")
    run(short_dir, f"{FENCE}console\n$ echo $MOTOOLS_LABELS $HOME\n{short_dir}/h\n{FENCE}")


def test_only_what_is_directly_below_is_what_a_block_prints(tmp_path: Path) -> None:
    """A word in between makes it something that is only shown."""
    page = tmp_path / "page.md"
    page.write_text(f"{FENCE}sh\ntrue\n{FENCE}\n\nWords.\n\n{FENCE}text\nshown\n{FENCE}\n")
    assert [block.printed for block in blocks_of(page)] == [None, None]


@pytest.mark.parametrize(
    ("expected", "printed", "does_fit"),
    [
        ("a ... c", "a b c", True),
        ("a ... c", "a b\nc", False),
        ("a\n...\nc", "a\nb\nb\nc", True),
        ("a\n...\nc", "a\nb", False),
        ("a   b", "a b\n", True),
        ("a.b", "a-b", False),
        ("", "a", False),
        ("...", "", True),
    ],
)
def test_dots_stand_for_what_differs(expected: str, printed: str, *, does_fit: bool) -> None:
    """Within a line, or for whole lines; all else is compared to the letter."""
    assert fits(expected, printed) is does_fit
