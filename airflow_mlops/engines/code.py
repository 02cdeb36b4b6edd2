"""The team's own code, imported so that two models never get each other's modules.

Names such as ``train`` or ``features`` are used by every team, and Python has one table of modules per process.
:func:`team_code` therefore puts a team's modules into that table only while it is open, hides whatever else goes by
their names, and takes them out again. It holds a lock for as long, so threads of one process take turns; Airflow gives
every task its own process.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import inspect
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from airflow_mlops.engines.source import PROTECTED, find_root, split_function
from airflow_mlops.errors import InvalidSpecError, UnknownNameError

_LOCK = threading.RLock()


class _Uncached(importlib.machinery.SourceFileLoader):
    """Compiles the source every time: byte code of an older text with the same second and size would be run instead.

    It also leaves no ``__pycache__`` in folders that may be shared or read-only.
    """

    def path_stats(self, path: Any) -> Mapping[str, Any]:
        raise OSError(f"no cached byte code for {path}")


class _Finder(importlib.abc.MetaPathFinder):
    """Finds modules below one folder, before every other finder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.found: dict[str, Path] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname.partition(".")[0] in PROTECTED:
            return None
        for folder in [str(self.root)] if path is None else path:
            if path is not None and not Path(folder).is_relative_to(self.root):
                continue
            finder = importlib.machinery.FileFinder(folder, (_Uncached, importlib.machinery.SOURCE_SUFFIXES))
            spec = finder.find_spec(fullname)
            if spec is not None and spec.loader is not None and spec.origin is not None:
                self.found[fullname] = Path(spec.origin)
                return spec
        return None


@dataclass(frozen=True)
class TeamCode:
    """A team's modules while they may be used."""

    root: Path
    _finder: _Finder

    def function(self, function: str) -> Callable[..., Any]:
        """Import and return ``module:function``.

        :raises InvalidSpecError: the module is not found or fails while it is imported (file and line are named).
        :raises UnknownNameError: it has no such function; the nearest name is given.
        """
        module_name, name = split_function(function)
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as exc:
            if exc.name is not None and (module_name == exc.name or module_name.startswith(f"{exc.name}.")):
                find_root(module_name, self.root)
            raise InvalidSpecError(
                f"{place_of(exc, self.root)}: importing {module_name!r} failed: {exc}. Install what is missing in "
                f"the environment of this task, or put the module below {self.root}."
            ) from exc
        except Exception as exc:
            raise InvalidSpecError(
                f"{place_of(exc, self.root)}: importing {module_name!r} failed: {type(exc).__name__}: {exc}"
            ) from exc
        found = getattr(module, name, None)
        if found is None:
            functions = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
            error = UnknownNameError.of("function", name, functions)
            raise UnknownNameError(f"In {module.__file__}: {error}")
        if not callable(found):
            raise InvalidSpecError(f"{function} in {module.__file__} is a {type(found).__name__}, not a function.")
        return found  # type: ignore[no-any-return]  # callable() narrows Any to Any

    def files(self) -> dict[str, Path]:
        """Return the modules that were imported from the code path so far, with their files."""
        return dict(self._finder.found)


@contextmanager
def team_code(code_path: Path) -> Iterator[TeamCode]:
    """Make the modules below ``code_path`` importable, and these only, under the names they have there.

    Inside the block they come before every other module of the same name, the standard library and this package
    excepted, are always read from source, and cloudpickle stores what they define by value, so that a model loads in
    an interpreter that does not have them. Afterwards ``sys.modules``, ``sys.path`` and cloudpickle are as before.
    Blocks in other threads wait; a block inside a block of the same thread is allowed.
    """
    root = code_path.resolve()
    if not root.is_dir():
        raise InvalidSpecError(f"The code path {code_path} is not a folder. Set train.code_path to one that exists.")
    names = _top_level_names(root)
    finder = _Finder(root)
    with _apart(names, finder):
        sys.path.insert(0, str(root))
        importlib.invalidate_caches()
        try:
            with _pickled_by_value(names):
                yield TeamCode(root=root, _finder=finder)
        finally:
            if str(root) in sys.path:
                sys.path.remove(str(root))


@contextmanager
def without_team_code(code_path: Path) -> Iterator[None]:
    """Make the modules below ``code_path`` impossible to import, as they are where the model will be used."""
    names = _top_level_names(code_path.resolve())
    with _apart(names, _Refusing(names)):
        yield


class _Refusing(importlib.abc.MetaPathFinder):
    """Finds nothing for some names, and lets no later finder look."""

    def __init__(self, names: frozenset[str]) -> None:
        self.names = names

    def find_spec(self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> None:
        if fullname.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)


@contextmanager
def _apart(names: frozenset[str], finder: importlib.abc.MetaPathFinder) -> Iterator[None]:
    """Hide the loaded modules of these names while the finder answers for them; then put everything back."""
    with _LOCK:
        hidden = {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] in names}
        sys.meta_path.insert(0, finder)
        try:
            yield
        finally:
            sys.meta_path.remove(finder)
            for name in [name for name in sys.modules if name.partition(".")[0] in names]:
                del sys.modules[name]
            sys.modules.update(hidden)


def _top_level_names(root: Path) -> frozenset[str]:
    names = {path.stem for path in root.glob("*.py")} | {path.parent.name for path in root.glob("*/__init__.py")}
    for path in root.glob("*/*.py"):
        # A folder without __init__.py is a package only where nothing installed has its name: python's own order.
        folder = path.parent.name
        if folder not in names and folder.isidentifier() and not _installed(folder):
            names.add(folder)
    return frozenset(name for name in names if name.isidentifier()) - PROTECTED


def _installed(name: str) -> bool:
    spec = importlib.machinery.PathFinder.find_spec(name)
    return spec is not None and spec.loader is not None and spec.origin is not None


@contextmanager
def _pickled_by_value(names: frozenset[str]) -> Iterator[None]:
    if importlib.util.find_spec("cloudpickle") is None:
        yield
        return
    import cloudpickle

    # By name: cloudpickle asks for a module object, but looks only at what it is called, and checks the parents too.
    stand_ins = [ModuleType(name) for name in sorted(names)]
    known = set(cloudpickle.list_registry_pickle_by_value())
    added = [module for module in stand_ins if module.__name__ not in known]
    for module in added:
        sys.modules.setdefault(module.__name__, module)  # cloudpickle registers only what is in the table
        cloudpickle.register_pickle_by_value(module)
        if sys.modules.get(module.__name__) is module:
            del sys.modules[module.__name__]
    try:
        yield
    finally:
        for module in added:
            cloudpickle.unregister_pickle_by_value(module)


def place_of(error: BaseException, root: Path) -> str:
    """Return ``file:line`` of the innermost line of the team's code that ``error`` passed through.

    Falls back to the innermost line of all, and to ``root`` where the error holds no traceback.
    """
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if Path(frame.filename).is_relative_to(root)]
    chosen = ours or frames
    return f"{chosen[-1].filename}:{chosen[-1].lineno}" if chosen else str(root)


def check_signature(function: Callable[..., Any], name: str, expected: str, *args: Any, **kwargs: Any) -> None:
    """Check that ``function`` can be called with these arguments, without calling it.

    :param name: how the specification calls the function.
    :param expected: the signature to print where it cannot.
    :raises InvalidSpecError: it cannot, or it is a coroutine or generator function.
    """
    code = getattr(inspect.unwrap(function), "__code__", None)
    place = f"{code.co_filename}:{code.co_firstlineno}: " if code else ""
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        raise InvalidSpecError(f"{place}{name} must be a plain function; this one is a coroutine or a generator.")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return  # built-ins without a readable signature: the call itself will tell
    try:
        signature.bind(*args, **kwargs)
    except TypeError as exc:
        own = getattr(function, "__name__", name)
        raise InvalidSpecError(
            f"{place}{name} cannot be called as it must be: {exc}. It is {own}{signature}; write {expected}"
        ) from exc
