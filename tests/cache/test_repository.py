"""What is checked out is read from real repositories; whatever stands there, it ends and does not raise."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from motools.cache import repository as tested
from motools.cache.repository import Head, Repository, find_repository, is_dirty, read_head

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")

COMMIT = "0123456789abcdef0123456789abcdef01234567"
OTHER = "f" * 40


def git(tree: Path, *arguments: str) -> str:
    """Run git, without the configuration of whoever runs the tests."""
    settings = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
    who = ("-c", "user.name=Ann", "-c", "user.email=ann@example.org", "-c", "protocol.file.allow=always")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")} | settings
    command = ["git", *who, *arguments]
    done = subprocess.run(command, cwd=tree, env=environment, check=True, capture_output=True, text=True, timeout=30)
    return done.stdout.strip()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A working tree with one commit on the branch `main`."""
    path = tmp_path / "tree"
    path.mkdir()
    git(path, "init", "-q", "-b", "main")
    (path / "train.py").write_text("1")
    git(path, "add", ".")
    git(path, "commit", "-q", "-m", "first")
    return path


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """The least that counts as a repository, without git."""
    path = tmp_path / "bare"
    (path / ".git").mkdir(parents=True)
    (path / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
    return path


def found(directory: Path) -> Repository:
    """The repository of a directory that has one."""
    repository = find_repository(str(directory))
    assert repository is not None
    return repository


def head(directory: Path) -> Head:
    """What is checked out there."""
    return read_head(found(directory))


# What git makes.


@needs_git
def test_commit_and_branch_are_git_s(tree: Path) -> None:
    """From any directory below."""
    below = tree / "a" / "b"
    below.mkdir(parents=True)
    assert head(below) == Head(git(tree, "rev-parse", "HEAD"), "main")


@needs_git
def test_detached_head_has_no_branch(tree: Path) -> None:
    """As CI checks out."""
    git(tree, "checkout", "-q", "--detach")
    assert head(tree) == Head(git(tree, "rev-parse", "HEAD"), "")


@needs_git
def test_packed_reference_is_found(tree: Path) -> None:
    """Among others; the loose one, where there is one, is the newer."""
    for name in ("mai", "main2", "x/main"):
        git(tree, "branch", name)
    git(tree, "tag", "-a", "-m", "t", "main")
    git(tree, "pack-refs", "--all")
    assert not (tree / ".git" / "refs" / "heads" / "main").exists()
    first = git(tree, "rev-parse", "HEAD")
    assert head(tree) == Head(first, "main")
    git(tree, "commit", "-q", "--allow-empty", "-m", "second")
    assert head(tree) == Head(git(tree, "rev-parse", "HEAD"), "main")
    assert head(tree).commit != first


@needs_git
def test_branch_with_slashes_keeps_its_name(tree: Path) -> None:
    """And one in any script."""
    git(tree, "checkout", "-q", "-b", "ann/größer")
    assert head(tree) == Head(git(tree, "rev-parse", "HEAD"), "ann/größer")


@needs_git
def test_repository_without_a_commit_has_a_branch(tmp_path: Path) -> None:
    """There is nothing to name yet."""
    git(tmp_path, "init", "-q", "-b", "main")
    assert head(tmp_path) == Head("", "main")


@needs_git
@pytest.mark.parametrize("packed", [False, True])
def test_further_working_tree_has_its_own_head(tree: Path, tmp_path: Path, packed: bool) -> None:  # noqa: FBT001
    """Its references lie in the first one's directory."""
    other = tmp_path / "other"
    git(tree, "worktree", "add", "-q", "-b", "side", str(other))
    git(other, "commit", "-q", "--allow-empty", "-m", "second")
    if packed:
        git(tree, "pack-refs", "--all")
    assert head(other) == Head(git(other, "rev-parse", "HEAD"), "side")
    assert head(other).commit != head(tree).commit
    assert is_dirty(found(other)) is False


@needs_git
def test_submodule_is_a_repository_of_its_own(tree: Path, tmp_path: Path) -> None:
    """Its `.git` is a file that points into the outer one's."""
    inner = tmp_path / "inner"
    inner.mkdir()
    git(inner, "init", "-q", "-b", "lib")
    git(inner, "commit", "-q", "--allow-empty", "-m", "inner")
    git(tree, "submodule", "add", "-q", str(inner), "lib")
    git(tree, "commit", "-q", "-m", "with lib")
    assert (tree / "lib" / ".git").is_file()
    assert head(tree / "lib") == Head(git(inner, "rev-parse", "HEAD"), "lib")
    assert head(tree / "lib").commit != head(tree).commit
    assert is_dirty(found(tree / "lib")) is False


# Whether it was changed.


@needs_git
def test_change_of_a_followed_file_makes_it_dirty(tree: Path) -> None:
    """A new file does not: each run leaves some."""
    assert is_dirty(found(tree)) is False
    (tree / "notes.txt").write_text("new")
    assert is_dirty(found(tree)) is False
    (tree / "train.py").write_text("22")
    assert is_dirty(found(tree)) is True
    git(tree, "commit", "-q", "-a", "-m", "second")
    assert is_dirty(found(tree)) is False
    (tree / "train.py").unlink()
    assert is_dirty(found(tree)) is True


@needs_git
def test_looking_changes_nothing(tree: Path) -> None:
    """Not even the index, whose time stamps git would refresh: another git may be at work."""
    os.utime(tree / "train.py", (1, 1))
    index = tree / ".git" / "index"
    before = (index.read_bytes(), index.stat().st_mtime_ns, index.stat().st_ino)
    assert is_dirty(found(tree)) is False
    assert (index.read_bytes(), index.stat().st_mtime_ns, index.stat().st_ino) == before


@needs_git
def test_environment_does_not_lead_elsewhere(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that a git hook started has the variables of another repository."""
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.setenv(name, "/nonexistent")
    assert is_dirty(found(tree)) is False


@needs_git
def test_program_of_the_configuration_is_not_run(tree: Path, tmp_path: Path) -> None:
    """A file monitor is for people who wait for a prompt."""
    trap = tmp_path / "ran"
    git(tree, "config", "core.fsmonitor", f"touch {trap}")
    assert is_dirty(found(tree)) is False
    assert not trap.exists()


@needs_git
def test_repository_of_another_user_is_not_asked(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its configuration may name programs; its commit is read all the same."""
    monkeypatch.setattr(os, "geteuid", lambda: tree.stat().st_uid + 1)
    assert is_dirty(found(tree)) is None
    assert head(tree).commit


@needs_git
def test_damaged_repository_is_neither_clean_nor_dirty(tree: Path) -> None:
    """Git fails, and says nothing on its output."""
    (tree / ".git" / "index").write_bytes(b"no index")
    assert is_dirty(found(tree)) is None


def test_without_git_it_is_not_known(bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a slim container."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert is_dirty(found(bare)) is None


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts a script in git's place."""

    def put(script: str) -> None:
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "git").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "bin" / "git").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")

    return put


@pytest.mark.parametrize(
    ("script", "outcome"),
    [
        ("sleep 100 & sleep 100", None),
        ("exec >&-; sleep 100", None),
        ("echo ' M x'; sleep 100", True),
        ("yes", True),
        ("exit 0", False),
        ("exit 128", None),
        ("echo fatal >&2; exit 1", None),
    ],
)
def test_git_is_never_waited_for(
    bare: Path,
    stand_in: Callable[[str], None],
    script: str,
    outcome: bool | None,  # noqa: FBT001
) -> None:
    """The first byte says it; one that is silent is ended with all that it started."""
    os.mkfifo(bare / "alive")
    alive = os.open(bare / "alive", os.O_RDONLY | os.O_NONBLOCK)
    try:
        stand_in(f"exec 9>{bare}/alive; {script}")
        assert is_dirty(found(bare), timeout_s=0.5) is outcome
        # The pipe breaks when the last process has ended that holds its other end.
        poll = select.poll()
        poll.register(alive, select.POLLHUP)
        assert poll.poll(30_000)
    finally:
        os.close(alive)


def test_git_that_cannot_be_run_is_not_there(bare: Path, stand_in: Callable[[str], None], tmp_path: Path) -> None:
    """Not a program for this machine."""
    stand_in("")
    (tmp_path / "bin" / "git").write_bytes(b"\x7fELF not really")
    assert is_dirty(found(bare)) is None


# What git would not make.


def test_no_repository(tmp_path: Path) -> None:
    """Up to the root, or as far as anybody looks; of a directory that is gone too."""
    if find_repository(str(tmp_path.parent)) is not None:
        pytest.skip("the temporary directory lies in a repository")
    assert find_repository(str(tmp_path)) is None
    assert find_repository(str(tmp_path / "gone")) is None
    assert find_repository(str(tmp_path) + "/\0") is None
    deep = tmp_path.joinpath(*["d"] * (tested.PARENTS_MAX + 1))
    deep.mkdir(parents=True)
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "HEAD").write_text(COMMIT)
    assert find_repository(str(deep)) is None
    assert find_repository(str(deep.parent.parent)) is not None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"gitdir: ",
        b"gitdir: \0",
        b"gitdir: /nonexistent",
        b"gitdir: " + b"x" * 5000,
        b"\xff" * 100,
        b"something: else",
        b"x\ngitdir: here",
    ],
)
def test_dot_git_that_leads_nowhere_is_passed_over(tmp_path: Path, content: bytes) -> None:
    """The repository above is taken."""
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "HEAD").write_text(COMMIT)
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / ".git").write_bytes(content)
    assert found(inner).tree == str(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"ref: /etc/passwd",
        b"ref: ../../secret",
        b"ref: refs/../../secret",
        b"ref: refs/heads/../../../secret",
        b"ref: refs/heads/.invalid",  # what a reftable's HEAD says
        b"ref: refs/heads/a b",
        b"ref: refs/heads/a\0b",
        b"ref: refs/heads/\x1b[31m",
        b"ref: refs/heads//x",
        b"ref: refs/" + b"x" * 2000,
        b"ref: ",
        COMMIT[:39].encode(),
        COMMIT.upper().encode(),
        b"g" * 40,
        b"\xff\xfe",
        b"x" * 5000,
    ],
)
def test_hostile_head_says_nothing(bare: Path, content: bytes) -> None:
    """No file outside is read, and nothing of it comes out."""
    for secret in (bare / "secret", bare.parent / "secret", bare / ".git" / "secret"):
        secret.write_text(COMMIT)
    (bare / ".git" / "HEAD").write_bytes(content)
    repository = find_repository(str(bare))
    assert repository is None or read_head(repository) == Head("", "")


def test_references_that_go_round_end(bare: Path) -> None:
    """A symbolic reference may name another, not itself."""
    heads = bare / ".git" / "refs" / "heads"
    heads.mkdir(parents=True)
    (heads / "main").write_text("ref: refs/heads/main\n")
    assert head(bare) == Head("", "main")
    (heads / "main").write_text("ref: refs/heads/other\n")
    (heads / "other").write_text(COMMIT)
    assert head(bare) == Head(COMMIT, "other")


def test_sha_256_is_a_commit(bare: Path) -> None:
    """Newer repositories have longer names."""
    (bare / ".git" / "HEAD").write_text("ab" * 32)
    assert head(bare) == Head("ab" * 32, "")


@pytest.mark.parametrize("name", [".git/HEAD", ".git/refs/heads/main", ".git/packed-refs", ".git"])
def test_pipe_is_not_waited_for(tmp_path: Path, name: str) -> None:
    """Opening one that nobody writes to would last for ever."""
    (tmp_path / ".git" / "refs" / "heads").mkdir(parents=True)
    (tmp_path / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
    path = tmp_path / name
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    repository = find_repository(str(tmp_path))
    assert repository is None or read_head(repository) == Head("", "main")


@pytest.mark.parametrize("name", ["HEAD", "refs/heads/main", "packed-refs"])
def test_what_cannot_be_read_is_not_known(bare: Path, name: str) -> None:
    """A directory in a file's place stands for all that cannot be read: root may read any file."""
    path = bare / ".git" / name
    path.unlink(missing_ok=True)
    path.mkdir(parents=True)
    repository = find_repository(str(bare))
    assert repository is None or read_head(repository) == Head("", "main")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read any file")
def test_closed_repository_is_none(bare: Path) -> None:
    """Another user's."""
    (bare / ".git").chmod(0)
    try:
        assert find_repository(str(bare)) is None
    finally:
        (bare / ".git").chmod(0o700)


def packed_refs(bare: Path, before_bytes: int, *, line: str = f"{COMMIT} refs/heads/main") -> None:
    """Write packed-refs with a line behind so many bytes of others."""
    other = f"{OTHER} refs/heads/main-not\n".encode()
    with (bare / ".git" / "packed-refs").open("wb") as file:
        file.write(b"# pack-refs with: peeled fully-peeled sorted \n")
        file.write(other * (before_bytes // len(other)))
        file.write(line.encode())


@pytest.mark.parametrize("before_bytes", [0, 1_048_500, 1_048_576, 5_000_000])
def test_reference_is_found_deep_in_packed_refs(bare: Path, before_bytes: int) -> None:
    """Between two blocks too, and in the last line without an end."""
    packed_refs(bare, before_bytes)
    assert head(bare) == Head(COMMIT, "main")


@pytest.mark.parametrize("shift", range(0, 64, 7))
def test_line_across_two_blocks_is_read(bare: Path, monkeypatch: pytest.MonkeyPatch, shift: int) -> None:
    """Wherever the block ends in it."""
    monkeypatch.setattr(tested, "_PACKED_BLOCK_SIZE", 512)
    packed_refs(bare, 512 + shift, line="^" + "0" * shift + f"\n{COMMIT} refs/heads/main\n")
    assert head(bare) == Head(COMMIT, "main")


def test_huge_packed_refs_is_read_no_further_than_its_limit(bare: Path) -> None:
    """A gigabyte that is one hole: the commit is not known, the branch is."""
    packed_refs(bare, 0, line="")
    os.truncate(bare / ".git" / "packed-refs", 1024**3)
    assert head(bare) == Head("", "main")


@pytest.mark.parametrize(
    "line",
    [f"{COMMIT}  refs/heads/main", f"x{COMMIT} refs/heads/main", f"{COMMIT} refs/heads/main x", f"^{COMMIT}", "\xff"],
)
def test_line_that_is_none_is_passed_over(bare: Path, line: str) -> None:
    """Only a whole line counts."""
    packed_refs(bare, 100, line=line)
    assert head(bare) == Head("", "main")
