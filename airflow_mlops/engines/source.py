"""What the team's code is, read without running any of it: its files, their digest, and their git commit."""

from __future__ import annotations

import ast
import hashlib
import importlib.machinery
import logging
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from airflow_mlops.core.keys import digest_of
from airflow_mlops.core.lineage import COMMIT_VARIABLE, FILES_PREFIX, is_blank
from airflow_mlops.errors import DataChangedError, InvalidSpecError

log = logging.getLogger(__name__)

UNKNOWN_COMMIT = "unknown"
#: Never taken from a team's folder: a file called ``random.py`` must not replace the standard library's module.
PROTECTED = frozenset(sys.stdlib_module_names) | {"airflow", "airflow_mlops"}
_GIT_SECONDS = 10.0
#: Bytes of source that training keeps beside the model. Code that is larger has data among its modules.
MAX_ARCHIVE_BYTES = 20_000_000
#: Characters of a commit that an environment variable may name.
MAX_COMMIT = 200


@dataclass(frozen=True)
class CodeVersion:
    """What a function is made of, read without running any of it.

    :param digest: SHA-256 over the path, relative to its root, and the bytes of every file in ``files``.
    :param files: the function's module and every module below ``root`` that it imports, directly or not, sorted.
    :param imports: top-level names that these files import from elsewhere, sorted, the standard library left out.
    :param root: the folder the files were found in: the code path, or the installed package's parent.
    :param commit: what names the code to a person; :func:`code_identity` says how.
    """

    digest: str
    files: tuple[str, ...]
    imports: tuple[str, ...]
    root: Path
    commit: str


def split_function(function: str) -> tuple[str, str]:
    """Return module and attribute of ``module:function``.

    :raises InvalidSpecError: the text has another form.
    """
    module, colon, name = function.partition(":")
    if not (colon and name.isidentifier() and all(part.isidentifier() for part in module.split("."))):
        raise InvalidSpecError(f"{function!r} names no function; write module:function, such as train:train.")
    return module, name


def code_version(function: str, code_path: Path) -> CodeVersion:
    """Return what the function's code is, without importing it.

    Followed are the ``import`` statements of the function's module and of every module below the code path that these
    name, wherever in the file they stand. Modules imported by a computed name are not seen.

    :raises InvalidSpecError: the module is not found, or a file is not valid Python; the message gives file and line.
    """
    module, _ = split_function(function)
    folder = code_path.resolve()
    root = find_root(module, folder)
    only = None if root == folder else module.partition(".")[0]
    todo, seen, files = [module], set[str](), dict[Path, ast.Module]()
    ours, imports = set[str](), set[str]()
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        top = name.partition(".")[0]
        found = _files_of(name, root) if only in (None, top) and top not in PROTECTED else []
        (ours if found else imports).add(top)
        for file in found:
            if file not in files:
                files[file] = _parsed(file)
                todo.extend(_imported(files[file], list(file.relative_to(root).parent.parts)))
    relative = {file.relative_to(root).as_posix(): file for file in files}
    digest = digest_of({name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in relative.items()})
    return CodeVersion(
        digest=digest,
        files=tuple(sorted(relative)),
        imports=tuple(sorted(imports - ours - set(sys.stdlib_module_names))),
        root=root,
        commit=code_identity(root, sorted(relative), digest),
    )


def code_identity(root: Path, files: Sequence[str], digest: str) -> str:
    """Return what names the code, the first of these that there is.

    1. The environment variable ``AIRFLOW_MLOPS_GIT_COMMIT``: a deploy pipeline sets it where no ``.git`` is shipped.
    2. The commit checked out at ``root``, with ``+dirty`` where one of the files differs from it.
    3. ``files:`` and the first 12 digits of the code digest. That is no commit; the very files are the archive that
       training stores.

    :raises InvalidSpecError: the variable holds something that cannot name a commit.
    """
    told = os.environ.get(COMMIT_VARIABLE, "").strip()
    if not is_blank(told):
        if len(told) > MAX_COMMIT or any(char.isspace() or not char.isprintable() for char in told):
            raise InvalidSpecError(
                f"The environment variable {COMMIT_VARIABLE} is {told[:80]!r}; it must name the deployed commit: one "
                f"word of at most {MAX_COMMIT} characters."
            )
        return told
    found = git_commit(root, files)
    return f"{FILES_PREFIX}{digest[:12]}" if found == UNKNOWN_COMMIT else found


def archive_source(code: CodeVersion, target: Path, *, most: int = MAX_ARCHIVE_BYTES) -> str:
    """Write the files of ``code`` to the zip file ``target``, and return an empty text, or why they were left out.

    The same files give the same bytes: sorted, with one fixed time and mode. Unpacked, the folder serves as code path.

    :param most: bytes of source that are kept.
    :raises DataChangedError: a file is not what it was when ``code`` was read.
    """
    contents: dict[str, bytes] = {}
    try:
        size = sum((code.root / name).stat().st_size for name in code.files)
        if size > most:
            return (
                f"The training code has {size:,} bytes in {len(code.files)} files, more than the {most:,} that are "
                f"kept beside a model. Move data out of the modules."
            )
        for name in code.files:
            contents[name] = (code.root / name).read_bytes()
    except OSError as exc:
        raise DataChangedError(f"The training code changed while it was read: {exc}. Clear the train task.") from exc
    if digest_of({name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}) != code.digest:
        raise DataChangedError(
            f"The training code at {code.root} changed while it was read, so nobody could say which of it trained the "
            f"model. Clear the train task when the deployment is finished."
        )
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(contents):
            about = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            about.create_system, about.external_attr = 3, 0o644 << 16
            about.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(about, contents[name])
    return ""


def git_commit(folder: Path, files: Sequence[str] = (".",)) -> str:
    """Return the commit that is checked out at ``folder``, with ``+dirty`` where one of ``files`` differs from it.

    An untracked file counts as a difference. ``unknown`` where there is no git, no repository, or no answer in 10 s.
    """
    head = _git(folder, "rev-parse", "--verify", "HEAD")
    if head is None:
        return UNKNOWN_COMMIT
    status = _git(folder, "status", "--porcelain", "--untracked-files=all", "--ignored", "--", *files)
    return head.strip() + ("+dirty" if status is None or status.strip() else "")


def _git(folder: Path, *arguments: str) -> str | None:
    # Optional locks off: reading the state must not write the index of a repository that others work in.
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    try:
        done = subprocess.run(  # noqa: S603 (a fixed program; arguments are paths after `--`)
            ["git", "-C", str(folder), *arguments],  # noqa: S607 (git's place differs between images)
            capture_output=True,
            text=True,
            timeout=_GIT_SECONDS,
            env=environment,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        log.info("The git commit of %s is unknown: %s", folder, exc)
        return None
    if done.returncode:
        log.info("The git commit of %s is unknown: %s", folder, done.stderr.strip())
        return None
    return done.stdout


def find_root(module: str, code_path: Path) -> Path:
    """Return the folder that the module is found in: the code path, or the place of an installed package.

    :raises InvalidSpecError: it is in neither; the message says where was looked.
    """
    if _files_of(module, code_path):
        return code_path
    top = module.partition(".")[0]
    spec = None if top in sys.builtin_module_names else importlib.machinery.PathFinder.find_spec(top)
    for location in [spec.origin] if spec and spec.origin else []:
        file = Path(location)
        root = file.parent.parent if file.name == "__init__.py" else file.parent
        if _files_of(module, root):
            return root
    nearby = sorted(path.stem for path in code_path.glob("*.py")) if code_path.is_dir() else []
    known = f"Modules there: {', '.join(nearby) or 'none'}." if code_path.is_dir() else "That folder does not exist."
    raise InvalidSpecError(
        f"The module {module!r} was not found: neither as {module.replace('.', '/')}.py below the code path "
        f"{code_path} nor among the installed packages. {known} Set train.code_path to the folder that holds it, "
        f"relative to the specification's folder."
    )


def _files_of(module: str, root: Path) -> list[Path]:
    """Return the module's file below ``root``, after the ``__init__`` files on the way to it; empty: not there."""
    files, folder = [], root
    *parents, last = module.split(".")
    for part in parents:
        folder = folder / part
        if (folder / "__init__.py").is_file():
            files.append(folder / "__init__.py")
    for candidate in (folder / last / "__init__.py", folder / f"{last}.py"):
        if last and candidate.is_file():
            return [*files, candidate]
    return files if last and (folder / last).is_dir() else []


def _parsed(file: Path) -> ast.Module:
    try:
        return ast.parse(file.read_bytes(), str(file))
    except SyntaxError as exc:
        raise InvalidSpecError(f"{file}:{exc.lineno}: this is not valid Python: {exc.msg}.") from exc


def _imported(tree: ast.Module, package: list[str]) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            up = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*up, *([node.module] if node.module else [])])
            if base:
                yield base
            # `from a import b` may mean the module a.b; where it does not, no file is found and nothing is added.
            yield from (f"{base}.{alias.name}" if base else alias.name for alias in node.names if alias.name != "*")
