"""The API reference of `motools.cache`, from its docstrings. Griffe reads the source; nothing is imported.

Looked at first: griffe2md, which makes links that lead nowhere and knows no fields of structures; pydoc-markdown and
lazydocs, which show overloads one by one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from griffe import (
    Alias,
    AliasResolutionError,
    Attribute,
    Class,
    Docstring,
    DocstringSectionKind,
    Expr,
    ExprName,
    Function,
    GriffeLoader,
    Module,
    Object,
    Parameters,
    Parser,
)

ROOT: Final = Path(__file__).resolve().parents[2]
PACKAGE: Final = "motools.cache"
OURS: Final = (f"{PACKAGE}.", "motoolsd.wire.")
LINE_MAX: Final = 100
HEAD: Final = """\
# API reference

Everything that `from motools.cache import ...` gives. Made by `make docs` from the docstrings: change these, not this
page. Methods that one class has like another are explained once, at `SyncCache`. What its methods take and give is
explained below it, also where it is not imported by that name.
"""
TWIN_OF: Final = {
    "AsyncClaim": "SyncClaim",
    "Cache": "SyncCache",
    "CacheBackend": "SyncCache",
    "CacheUtils": "SyncCache",
    "InMemoryCache": "SyncCache",
}
"""Class -> the one whose methods of the same name are explained."""
HANDED_OUT: Final = {
    "async_claims": ("AsyncClaim",),
    "clearing_options": ("ClearOptions", "FilteredClearOptions", "PruneOptions"),
    "sync_claims": ("SyncClaim",),
}
"""What nobody imports, but methods take or give."""
FIRST: Final = (
    "sync",
    "cache",
    "utils",
    "memory",
    "base",
    "sync_claims",
    "async_claims",
    "recording",
    "filtering",
    "clearing_options",
    "entries",
    "explanations",
    "origins",
    "cleaning",
    "backups",
)
"""Modules in the order in which a reader wants them; the others follow as they stand."""
SPELLED_OUT: Final = ("Annotated[", "Literal[")
LIMITS: Final = re.compile(r"Annotated\[([^,\[\]]+(?:\[[^\[\]]*\])?), Meta\([^)]*\)\]")
LISTED: Final = {
    DocstringSectionKind.parameters: "Arguments",
    DocstringSectionKind.other_parameters: "Arguments",
    DocstringSectionKind.attributes: "Fields",
    DocstringSectionKind.raises: "Raises",
    DocstringSectionKind.returns: "Returns",
    DocstringSectionKind.yields: "Yields",
}


def api_page() -> str:
    """The page, as Markdown."""
    loader = GriffeLoader(search_paths=[ROOT / "client", ROOT], docstring_parser=Parser.google, allow_inspection=False)
    package = loader.load(PACKAGE)
    assert isinstance(package, Module)
    public = _public(package)
    loader.load("motoolsd.wire")
    loader.resolve_aliases(external=False)
    parts = [HEAD]
    for path in sorted(public, key=_place):
        module = package.modules_collection[path]
        parts.append(f"## {_heading(module)}\n")
        parts += [_entry(name, package, _target(module[name])) for name in sorted(public[path])]
    return "\n".join(parts)


def _public(package: Module) -> dict[str, list[str]]:
    """What the package exports, by the path of the module that it comes from; as long as no alias is followed."""
    found = {f"{PACKAGE}.{module}": list(names) for module, names in HANDED_OUT.items()}
    for name, member in package.members.items():
        # `from x import A as A`: what is exported under its own name.
        if isinstance(member, Alias) and not name.startswith("_") and member.target_path.startswith(OURS):
            found.setdefault(member.target_path.rpartition(".")[0], []).append(name)
    return found


def _place(path: str) -> int:
    name = path.rpartition(".")[2]
    return FIRST.index(name) if name in FIRST else len(FIRST)


def _heading(module: Object | Alias) -> str:
    docstring = module.docstring
    assert docstring is not None, "a test asks for it"
    first = docstring.value.splitlines()[0].rstrip(".")
    name, colon, rest = first.partition(": ")
    return f"`{name}`: {rest}" if colon and " " not in name else first


def _entry(name: str, package: Module, found: Object) -> str:
    lines = [f"### `{name}`", ""]
    if isinstance(found, Class):
        lines += _class(name, package, found)
    elif isinstance(found, Function):
        lines += [*_code(_signature(name, found)), *_text(found.docstring)]
    else:
        assert isinstance(found, Attribute)
        lines += [*_code(f"{name} = {found.value}"), *_text(found.docstring)]
    return "\n".join(lines)


def _class(name: str, package: Module, found: Class) -> Iterator[str]:
    members = {member: _target(one) for member, one in found.all_members.items()}
    bases = f"({', '.join(str(base).rpartition('.')[2] for base in found.bases)})" if _is_error(found) else ""
    fields = [_field(one) for one in members.values() if isinstance(one, Attribute) and _is_field(one)]
    maker = members.get("__init__")
    is_handed_out = any(name in names for names in HANDED_OUT.values())
    if _is_error(found):
        yield from _code(f"class {name}{bases}")
    elif isinstance(maker, Function) and not is_handed_out:
        yield from _code(_signature(name, maker))
    elif fields:
        yield from _code("\n".join([f"class {name}:", *(f"    {field}" for field in fields)]))
    yield from _text(found.docstring)
    if isinstance(maker, Function) and not is_handed_out and not _is_error(found):
        yield from _text(maker.docstring)
    yield from _own_words(members)
    methods = {
        member: one
        for member, one in sorted(members.items())
        if isinstance(one, Function) and not member.startswith("_") and one.docstring is not None
    }
    if name in TWIN_OF:
        module = package["sync" if TWIN_OF[name] == "SyncCache" else "sync_claims"]
        known = _target(module[TWIN_OF[name]]).all_members.keys()
        yield from _twins(TWIN_OF[name], {member: methods.pop(member) for member in list(methods) if member in known})
    for member, method in methods.items():
        yield from (f"#### `{name}.{member}`", "")
        yield from _code(_signature(member, method))
        yield from _text(method.docstring)


def _own_words(members: dict[str, Object]) -> Iterator[str]:
    """Fields and properties that have a docstring of their own."""
    items = [
        f"- `{name}`: {' '.join(one.docstring.value.split())}"
        for name, one in members.items()
        if isinstance(one, Attribute) and not name.startswith("_") and one.docstring is not None
    ]
    if items:
        yield from (*items, "")


def _twins(twin: str, methods: dict[str, Function]) -> Iterator[str]:
    awaited = [name for name, one in methods.items() if "async" in one.labels]
    for which, names in (("With `await`, as", awaited), ("As", [name for name in methods if name not in awaited])):
        if names:
            yield f"{which} in `{twin}`: {', '.join(f'`{name}`' for name in names)}."
            yield ""


def _target(member: Object | Alias) -> Object:
    target = member.final_target if isinstance(member, Alias) else member
    assert isinstance(target, Object)
    return target


def _is_error(found: Class) -> bool:
    return found.path.startswith(f"{PACKAGE}.errors.")


def _is_field(found: Attribute) -> bool:
    """Whether it is a field of a structure, and no constant of a class."""
    return found.annotation is not None and not found.name.startswith("_")


def _field(found: Attribute) -> str:
    default = "" if found.value is None else f" = {_default(found.value)}"
    return f"{found.name}: {_annotation(found.annotation)}{default}"


def _code(text: str) -> Iterator[str]:
    yield from ("```python", text, "```", "")


def _signature(name: str, function: Function) -> str:
    """On one line, or, if that is too long, one parameter a line."""
    parameters = list(_parameters(function.parameters))
    returns = f" -> {_annotation(function.returns)}" if function.returns is not None and name[0].islower() else ""
    start = f"{'async ' if 'async' in function.labels else ''}{name}("
    line = f"{start}{', '.join(parameters)}){returns}"
    if len(line) <= LINE_MAX:
        return line
    return "\n".join([start, *(f"    {parameter}," for parameter in parameters), f"){returns}"])


def _parameters(parameters: Parameters) -> Iterator[str]:
    is_marked = False
    for parameter in parameters:
        kind = parameter.kind.value if parameter.kind is not None else ""
        if parameter.name in ("self", "cls"):
            continue
        if kind == "keyword-only" and not is_marked:
            is_marked = True
            yield "*"
        stars = {"variadic positional": "*", "variadic keyword": "**"}.get(kind, "")
        annotation = "" if parameter.annotation is None else f": {_annotation(parameter.annotation)}"
        default = "" if parameter.default is None or stars else f" = {_default(parameter.default)}"
        yield f"{stars}{parameter.name}{annotation}{default}"


def _default(default: str | Expr) -> str:
    """A default value as we write it; that of a constant of ours, not its name."""
    constant = _constant(default)
    text = str(default if constant is None else constant.value)
    is_plain = text.startswith("'") and '"' not in text and "\\" not in text
    return f'"{text[1:-1]}"' if is_plain else text


def _annotation(annotation: str | Expr | None) -> str:
    """A type, with the words that it stands for, and without the limits that only the wire knows."""
    text = str(annotation)
    names = annotation.iterate(flat=True) if isinstance(annotation, Expr) else ()
    for name in names:
        constant = _constant(name)
        if constant is not None and str(constant.value).startswith(SPELLED_OUT):
            text = re.sub(rf"\b{name}\b", lambda _: str(constant.value).replace("'", '"'), text)  # noqa: B023 - used now
    while (bare := LIMITS.sub(r"\1", text)) != text:  # from the innermost outwards
        text = bare
    return text


def _constant(name: str | Expr) -> Attribute | None:
    """What a name stands for, if it is an attribute of one of our modules."""
    if not isinstance(name, ExprName) or not isinstance(name.parent, Object):
        return None
    try:
        found = _target(name.parent.modules_collection[name.canonical_path])
    except (KeyError, AliasResolutionError):
        return None
    return found if isinstance(found, Attribute) else None


def _text(docstring: Docstring | None) -> Iterator[str]:
    """A docstring's sections."""
    for section in [] if docstring is None else docstring.parsed:
        if section.kind not in LISTED:
            yield from (str(section.value), "")
            continue
        yield from (f"{LISTED[section.kind]}:", "")
        for item in section.value:
            yield _item(section.kind, item)
        yield ""


def _item(kind: DocstringSectionKind, item: object) -> str:
    text = " ".join(str(getattr(item, "description", "")).split())
    if kind in (DocstringSectionKind.returns, DocstringSectionKind.yields):
        return f"- {text}"
    name = str(getattr(item, "annotation", "") if kind is DocstringSectionKind.raises else getattr(item, "name", ""))
    if name.endswith(","):
        # `cached, asked: the two values`: griffe takes the second name for a type.
        name += f" {getattr(item, 'annotation', '')}"
    return f"- `{name}`: {text}"
