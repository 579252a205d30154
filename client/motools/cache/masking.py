"""Taking credentials out of what is recorded: command lines, labels, metadata.

Layer: motools.cache. Imports credentials.
Invariant: what comes out holds no value that stands under a credential's name, and none that looks like a well-known
credential. Work is linear in the size, and the size is bounded: what is too large or too deep is masked or cut.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from motools.cache.credentials import (
    SCHEME_VALUE,
    SCHEMES,
    SHAPES,
    Verdict,
    is_secret,
    judge_name,
    looks_random,
)

MASK: Final = "***"
TEXT_SIZE_MAX: Final = 16 * 1024
"""Characters of one argument that are looked at; the rest is cut."""
MAPPING_TEXT_SIZE_MAX: Final = 1024 * 1024
"""The same of one text in metadata. One that is longer is masked as a whole: it is no word of a person."""
DOUBTFUL_SIZE_MAX: Final = 64
"""Characters by which a value in a text is judged that may be none."""
DEPTH_MAX: Final = 32
NODES_MAX: Final = 100_000

_PASSWORD_FLAGS: Final[Mapping[str, str]] = {
    "sshpass": "-p",
    "mysql": "-p",
    "mysqldump": "-p",
    "mariadb": "-p",
    "redis-cli": "-a",
    "login": "-p",  # docker login, az login
}
"""Programs whose password has a short name, which elsewhere means something else."""
_USER_FLAGS: Final = frozenset({"-u", "-U", "--user", "--proxy-user", "--username"})
"""Some take `user:password`."""

_BARE_NAME: Final = re.compile(r"(-{0,2})([\w.-]++)(\s*[:=])?\s*")
_HEAD: Final = re.compile(r"(?<![\w.-])([\w.-]++)([\"']?)[\])]?\s*+(:=|=>|={1,2}|:|,)\s*+")
_OPTION: Final = re.compile(r"(?<![\w-])(-{1,2}[\w.-]++)(\s++)(?!--)(\"[^\"]*+\"?|'[^']*+'?|[^\s\"']++)")
_USER_PASSWORD: Final = re.compile(r"(?<!\S)((?:-[uU]|--user|--proxy-user|--username)[ =]?[^\s:=]*:)(?!//)(\S+)")
_QUOTED: Final = re.compile(r"[rbfuRBFU]{0,2}([\"'`])((?:\\.|(?!\1)[^\\])*+)(\1?)", re.DOTALL)
_JSON_START: Final = re.compile(r"\s*+(?:[\w.+-]++=)?(?=[{\[])")
_TO_LINE_END: Final = re.compile(r"[^\r\n]*+")
_TO_JSON_END: Final = re.compile(r"[^,}\]\r\n]*+")
_TO_SPACE: Final = re.compile(r"[^\s&]*+")
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z\d+.-]{0,30}://")
_USER: Final = re.compile(r"[^/?#@:]*+(:)?")
_WORD: Final = re.compile(r"[^\s\"']+")


def mask_command(argv: Iterable[str]) -> list[str]:
    """A command line without its credentials, argument by argument.

    Masks what stands under a credential's name (`--api-key X`, `--api-key=X`, `TOKEN=X`, `Authorization: Bearer X`, in
    JSON too), passwords in URLs, and what has the shape of a well-known credential. Says nothing of files it names.

    Args:
        argv: the arguments. Of one, the first `TEXT_SIZE_MAX` characters are kept.
    """
    reader = _ArgumentReader()
    return [reader.read(argument) for argument in argv]


class _ArgumentReader:
    """Reads a command line from left to right; knows what the argument before lets expect."""

    def __init__(self) -> None:
        self._expected = Verdict.ORDINARY
        self._expects_user = False
        self._flags: set[str] = set()

    def read(self, argument: str) -> str:
        """The argument, masked."""
        if len(argument) > TEXT_SIZE_MAX:
            argument = argument[:TEXT_SIZE_MAX] + "…"
        expected, expects_user = self._expected, self._expects_user
        self._expected, self._expects_user = Verdict.ORDINARY, argument in _USER_FLAGS
        if expected is not Verdict.ORDINARY and not argument.startswith("--"):
            if argument.lower() in SCHEMES:
                self._expected = Verdict.CREDENTIAL
                return argument
            if is_secret(argument, expected):
                return MASK
        if expects_user and ":" in argument and "://" not in argument:
            return f"{argument.partition(':')[0]}:{MASK}"
        for flag in self._flags:
            if argument.startswith(flag) and argument != flag:
                return flag + MASK
        self._expect(argument)
        masked = mask_text(argument)
        if masked != argument and re.split(r"[\s:=]", argument)[-1].lower() in SCHEMES:
            self._expected = Verdict.CREDENTIAL  # Authorization:Basic X
        return masked

    def _expect(self, argument: str) -> None:
        """Learn from one argument what the next may be."""
        program = argument.rpartition("/")[2]
        if (flag := _PASSWORD_FLAGS.get(program)) is not None:
            self._flags.add(flag)
        if program == "login":
            self._expected = Verdict.DOUBTFUL  # wandb login KEY
        elif argument in self._flags or argument.lower() == "bearer":
            self._expected = Verdict.CREDENTIAL
        elif (name := _BARE_NAME.fullmatch(argument)) is not None and (
            name[1] or name[3] or ("." not in name[2] and not SHAPES.fullmatch(argument))
        ):
            self._expected = judge_name(name[2])


def mask_text(text: str) -> str:
    """A text without the credentials that it names or shows.

    Args:
        text: an argument, a note, a JSON document. Not bounded here.
    """
    start = _JSON_START.match(text)
    if start is not None and (parsed := _parsed(text[start.end() :])) is not None:
        masked = mask_mapping(parsed)
        if masked != parsed:
            return _mask_named(start[0] + json.dumps(masked, ensure_ascii=False))
        # Not done: where a name stands twice, only the last was looked at.
    text = _mask_named(text)
    if any(one.isspace() for one in text):
        text = _OPTION.sub(_masked_option, text)
        text = SCHEME_VALUE.sub(rf"\1{MASK}", text)
    text = _USER_PASSWORD.sub(rf"\1{MASK}", text)
    if "://" in text and "@" in text:
        text = _WORD.sub(_masked_url, text)
    return SHAPES.sub(MASK, text)


def _parsed(text: str) -> Any | None:  # noqa: ANN401 - any JSON
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _masked_option(found: re.Match[str]) -> str:
    option, space, value = found.groups()
    if value.startswith("-") or not is_secret(value.strip("\"'"), judge_name(option)):
        return found[0]
    return f"{option}{space}{MASK}"


def _masked_url(found: re.Match[str]) -> str:
    """A word without the user and the password of the first URL in it that has them.

    Up to the last `@`: whoever writes a password does not always quote what is special in it.
    """
    word = found[0]
    last = word.rfind("@")
    for scheme in _SCHEME.finditer(word, 0, max(last, 0)):
        user = _USER.match(word, scheme.end(), last)
        assert user is not None, "it matches the empty text"
        if user[1] or (user.end() == last and scheme[0] in ("http://", "https://")):
            return f"{word[: scheme.end()]}{MASK}{word[last:]}"
    return word


def _mask_named(text: str) -> str:
    """Mask the values of all `name=value`, `name: value` and `"name": value` whose name is a credential's."""
    pieces: list[str] = []
    begin = len(text) - len(text.lstrip("-+"))
    position = done = 0
    while (head := _HEAD.search(text, position)) is not None:
        name, quote, separator = head.groups()
        position = head.end()
        verdict = judge_name(name)
        if verdict is Verdict.ORDINARY or (separator == "," and not quote):
            continue
        if verdict is Verdict.DOUBTFUL and not looks_random(_first_word(text, position)):
            continue
        if head.start() <= begin and head[0].endswith("=") and not quote:
            start, end = position, len(text)  # the shell took the quotes away: all of the argument is the value
        else:
            start, end = _value_span(text, position, separator, is_quoted=bool(quote), is_spaced=head[0][-1:].isspace())
        if is_secret(text[start:end].strip(), Verdict.CREDENTIAL):
            pieces += [text[done:start], MASK]
            position = done = end
    return text if not pieces else "".join(pieces) + text[done:]


def _first_word(text: str, start: int) -> str:
    found = _WORD.search(text, start, start + DOUBTFUL_SIZE_MAX)
    return "" if found is None else found[0].rstrip(",;)}]")


def _value_span(text: str, start: int, separator: str, *, is_quoted: bool, is_spaced: bool) -> tuple[int, int]:
    """From where to where a value reaches, at the most; a space in front lets it have more than one word."""
    if (quoted := _QUOTED.match(text, start)) is not None:
        return quoted.span(2)
    if separator == ",":
        return start, start
    if text[start : start + 1] in ("{", "[", "("):
        return start, len(text)
    pattern = _TO_LINE_END if separator == ":" or is_spaced else _TO_SPACE
    found = (_TO_JSON_END if is_quoted else pattern).match(text, start)
    assert found is not None, "each of these matches the empty text"
    return found.span()


def mask_mapping(value: Any) -> Any:  # noqa: ANN401 - any JSON
    """Metadata or labels without credentials: a copy, whose own lists and mappings are new.

    Masks whatever stands under a credential's name, at any depth, and what `mask_text` finds in texts. None and truth
    values stay. Deeper than `DEPTH_MAX`, and behind the first `NODES_MAX` values, everything is masked.

    Args:
        value: what JSON can hold; anything else is handed on as it is.
    """
    return _MappingReader().read(value, Verdict.ORDINARY, 0)


class _MappingReader:
    def __init__(self) -> None:
        self._nodes = 0

    def read(self, value: Any, verdict: Verdict, depth: int) -> Any:  # noqa: ANN401 - any JSON
        """The value, masked, that stands under a name of a verdict."""
        self._nodes += 1
        if value is None or isinstance(value, bool):
            return value
        if depth > DEPTH_MAX or self._nodes > NODES_MAX:
            return MASK
        if isinstance(value, str):
            return self._text(value, verdict)
        if isinstance(value, int | float):
            return MASK if verdict is Verdict.CREDENTIAL else value
        if isinstance(value, Mapping | list | tuple):
            if verdict is Verdict.CREDENTIAL and value:
                return MASK
            return self._container(value, verdict, depth + 1)
        return value

    def _text(self, text: str, verdict: Verdict) -> str:
        if is_secret(text, verdict) or len(text) > MAPPING_TEXT_SIZE_MAX:
            return MASK
        return mask_text(text)

    def _container(self, value: Any, verdict: Verdict, depth: int) -> Any:  # noqa: ANN401 - any JSON
        if not isinstance(value, Mapping):
            return [self.read(one, verdict, depth) for one in value]
        return {
            SHAPES.sub(MASK, name) if isinstance(name, str) else name: self.read(one, judge_name(str(name)), depth)
            for name, one in value.items()
        }
