"""What an interpreter consists of: versions, a digest over those that matter to a model, and pinned requirements."""

from __future__ import annotations

import hashlib
import json
import platform
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from airflow_mlops.core.keys import digest_of

#: What schedules and records the work. It does not shape a model, and neither does what only it depends on.
_ORCHESTRATION = frozenset({"airflow-mlops", "apache-airflow", "apache-airflow-core", "apache-airflow-task-sdk"})


@dataclass(frozen=True)
class Environment:
    """The part of an interpreter that a model depends on.

    :param python: such as ``CPython 3.11.9``.
    :param platform: operating system and processor, such as ``Linux x86_64``: floating point differs between them.
    :param libraries: version by normalised distribution name: the libraries a model uses, and what these depend on.
    :param direct: names of those it uses itself.
    """

    python: str
    platform: str
    libraries: Mapping[str, str]
    direct: tuple[str, ...]

    @property
    def digest(self) -> str:
        """Return the SHA-256 over interpreter, platform and libraries."""
        return digest_of({"python": self.python, "platform": self.platform, "libraries": dict(self.libraries)})

    @property
    def requirements(self) -> tuple[str, ...]:
        """Return the directly used libraries, pinned as pip requirements and sorted."""
        return tuple(f"{name}=={self.libraries[name]}" for name in self.direct if name in self.libraries)

    def to_dict(self) -> dict[str, Any]:
        """Return the whole record: the part the digest covers, and every installed distribution for the reader."""
        return {
            "digest": self.digest,
            "python": self.python,
            "platform": self.platform,
            "libraries": dict(self.libraries),
            "requirements": list(self.requirements),
            "installed": installed(),
        }


def describe_environment(*, distributions: Iterable[str] = (), modules: Iterable[str] = ()) -> Environment:
    """Describe this interpreter as far as a model depends on it.

    :param distributions: names of distributions it uses, such as those of its flavour; unknown ones are left out.
    :param modules: top-level module names that the team's code imports; each counts through the distributions that
        provide it. Airflow and this package are left out, with what only they need.
    """
    providers = _providers()
    names = {_normal(name) for name in distributions}
    names |= {_normal(name) for module in modules for name in providers.get(module, ())}
    names -= _ORCHESTRATION
    names = {name for name in names if not name.startswith("apache-airflow-") and _version(name) is not None}
    return Environment(
        python=f"{platform.python_implementation()} {platform.python_version()}",
        platform=f"{platform.system()} {platform.machine()}",
        libraries=_with_dependencies(names),
        direct=tuple(sorted(names)),
    )


def loose_modules(modules: Iterable[str]) -> dict[str, str]:
    """Return, for modules whose version says nothing of their content, a digest over their Python files.

    Those are modules on the import path that no distribution brought (Airflow puts its DAG and plug-in folders there),
    and editable installs, whose files change under one version.

    :param modules: top-level names; what is not found, comes with Python or is compiled has no entry.
    """
    providers = _providers()
    found: dict[str, str] = {}
    for name in sorted({module.partition(".")[0] for module in modules} - {"airflow", "airflow_mlops"}):
        if providers.get(name) and not any(_is_editable(distribution) for distribution in providers[name]):
            continue
        spec = PathFinder.find_spec(name)
        if spec is None:
            continue
        folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
        files = [file for folder in folders for file in sorted(folder.rglob("*.py"))]
        if not files and spec.origin is not None and spec.origin.endswith(".py"):
            files = [Path(spec.origin)]
        if files:
            found[name] = digest_of([[file.name, hashlib.sha256(file.read_bytes()).hexdigest()] for file in files])
    return found


def _is_editable(distribution: str) -> bool:
    try:
        written = metadata.distribution(distribution).read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        return False
    return bool(written and json.loads(written).get("dir_info", {}).get("editable"))


def versions_of(*names: str) -> dict[str, str | None]:
    """Return the installed version of each distribution, None where it is not installed."""
    return {name: _version(name) for name in names}


def installed() -> dict[str, str]:
    """Return the version of every installed distribution, by normalised name, sorted."""
    found: dict[str, str] = {}
    for distribution in metadata.distributions():
        about = distribution.metadata  # parsed anew on every access
        if about["Name"]:
            found.setdefault(_normal(about["Name"]), about["Version"])  # the first on the path is the one imported
    return dict(sorted(found.items()))


def _with_dependencies(names: Iterable[str]) -> dict[str, str]:
    from packaging.requirements import InvalidRequirement, Requirement

    versions: dict[str, str] = {}
    todo = sorted(names)
    while todo:
        name = todo.pop()
        version = _version(name)
        if name in versions or version is None:
            continue
        versions[name] = version
        for line in metadata.requires(name) or ():
            try:
                requirement = Requirement(line)
            except InvalidRequirement:
                continue  # an old package's malformed line: its dependency is unknown, its own version still counts
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                todo.append(_normal(requirement.name))
    return dict(sorted(versions.items()))


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _providers() -> Mapping[str, list[str]]:
    return _providers_on(tuple(sys.path))


@lru_cache(maxsize=4)
def _providers_on(_path: tuple[str, ...]) -> Mapping[str, list[str]]:
    """Map top-level modules to distributions. It reads every file list (about 1 s), so once per import path."""
    return metadata.packages_distributions()


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
