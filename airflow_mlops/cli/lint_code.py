"""Functions and classes that a specification names, found in their source without running any of it."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from airflow_mlops.engines.source import find_root, split_function
from airflow_mlops.errors import InvalidSpecError

_DYNAMIC = "*"


class NotThereError(InvalidSpecError):
    """The module is there, and what was asked of it is not."""


class NotCallableSoError(InvalidSpecError):
    """The function is there, and cannot be called as it must be."""


@dataclass(frozen=True)
class Call:
    """How a function will be called, and how its definition should look."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    expected: str


TRAIN = Call(
    (None, None),
    {"weights": None, "parameters": None, "seed": None},
    "def train(data, target, *, weights, parameters, seed): ...",
)
METRIC = Call((None, None), {}, "def metric(y_true, y_pred): return a number")


def check_function(function: str, folder: Path, call: Call) -> None:
    """Check that ``module:function`` is written below ``folder``, or in an installed package, and can be called so.

    What cannot be told without running the code passes: a function that is imported, assigned or decorated, a module
    that imports ``*`` or has a ``__getattr__``.

    :raises InvalidSpecError: the module is not there, or is no Python.
    :raises NotThereError: the module has no such function.
    :raises NotCallableSoError: it cannot be called with these arguments.
    """
    module, name = split_function(function)
    file = module_file(module, find_root(module, folder))
    if file is None:
        return
    names = _bound(file, state_of(file))
    if name not in names:
        if _DYNAMIC in names:
            return
        raise NotThereError(_absent("function", name, file, names))
    node = names[name]
    if isinstance(node, ast.ClassDef) or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return
    place = f"{function} in {file.name}, line {node.lineno}"
    if isinstance(node, ast.AsyncFunctionDef) or _yields(node):
        raise NotCallableSoError(f"{place} is a coroutine or a generator. It must be a plain function.")
    if node.decorator_list:
        return
    signature = _signature(node.args)
    try:
        signature.bind(*call.args, **call.kwargs)
    except TypeError as exc:
        raise NotCallableSoError(
            f"{place} cannot be called as it must be: {exc}. It is {name}{signature}; write {call.expected}"
        ) from None


def check_class(path: str, folder: Path) -> None:
    """Check that ``module:Class`` is written below ``folder`` or in an installed package.

    :raises InvalidSpecError: the module is not there.
    :raises NotThereError: it has no such class.
    """
    module, _, name = path.partition(":")
    file = module_file(module, find_root(module, folder))
    names = _bound(file, state_of(file)) if file is not None else {}
    if file is not None and name not in names and _DYNAMIC not in names:
        raise NotThereError(_absent("class", name, file, names))


def module_file(module: str, root: Path) -> Path | None:
    """Return the module's source below ``root``; None where it has none, such as a compiled module."""
    place = root.joinpath(*module.split("."))
    return next((file for file in (place / "__init__.py", place.with_suffix(".py")) if file.is_file()), None)


def state_of(file: Path) -> tuple[int, int]:
    """Return what changes with a file's content: its size and time; zeros where it cannot be looked at."""
    try:
        status = file.stat()
    except OSError:
        return (0, 0)
    return (status.st_size, status.st_mtime_ns)


@cache
def _bound(file: Path, state: tuple[int, int]) -> Mapping[str, ast.AST]:  # noqa: ARG001  # part of the key
    """Return what a module binds at its top, by name; a star where it binds more than can be read."""
    try:
        tree = ast.parse(file.read_bytes(), str(file))
    except SyntaxError as exc:
        raise InvalidSpecError(f"{file}, line {exc.lineno}: this is not valid Python: {exc.msg}.") from None
    except (OSError, ValueError) as exc:
        raise InvalidSpecError(f"{file} cannot be read: {exc}.") from None
    return dict(_bindings(tree.body))


def _bindings(body: Sequence[ast.stmt]) -> Iterator[tuple[str, ast.AST]]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield (_DYNAMIC if node.name == "__getattr__" else node.name), node
        elif isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                yield (alias.asname or alias.name.partition(".")[0]), node
        else:
            # `if`, `try`, `with` and loops at the top bind names of the module, too.
            for field in ("body", "orelse", "finalbody", "handlers", "cases"):
                for inner in getattr(node, field, ()):
                    yield from _bindings(inner.body if hasattr(inner, "body") and not _is_statement(inner) else [inner])
            for target in ast.walk(node):
                if isinstance(target, ast.Name) and isinstance(target.ctx, ast.Store):
                    yield target.id, node


def _is_statement(node: ast.AST) -> bool:
    return isinstance(node, ast.stmt)


def _yields(node: ast.FunctionDef) -> bool:
    todo: list[ast.AST] = list(node.body)
    while todo:
        one = todo.pop()
        if isinstance(one, ast.Yield | ast.YieldFrom):
            return True
        if not isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
            todo.extend(ast.iter_child_nodes(one))
    return False


def _signature(args: ast.arguments) -> inspect.Signature:
    """Return the signature as the source has it, with ``...`` for every default."""
    kind = inspect.Parameter
    positional: list[tuple[ast.arg, Any]] = [(one, kind.POSITIONAL_ONLY) for one in args.posonlyargs]
    positional += [(one, kind.POSITIONAL_OR_KEYWORD) for one in args.args]
    without = len(positional) - len(args.defaults)
    made = [
        kind(one.arg, how, default=... if number >= without else kind.empty)
        for number, (one, how) in enumerate(positional)
    ]
    if args.vararg:
        made.append(kind(args.vararg.arg, kind.VAR_POSITIONAL))
    made += [
        kind(one.arg, kind.KEYWORD_ONLY, default=kind.empty if default is None else ...)
        for one, default in zip(args.kwonlyargs, args.kw_defaults, strict=True)
    ]
    if args.kwarg:
        made.append(kind(args.kwarg.arg, kind.VAR_KEYWORD))
    return inspect.Signature(made)


def _absent(kind: str, name: str, file: Path, names: Mapping[str, ast.AST]) -> str:
    wanted = ast.ClassDef if kind == "class" else ast.FunctionDef
    known = sorted(one for one, node in names.items() if isinstance(node, wanted) and not one.startswith("_"))
    close = get_close_matches(name, known, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"{file.name} has no {kind} {name!r}.{hint} There are: {', '.join(known) or 'none'}."
