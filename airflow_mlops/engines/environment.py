"""What an interpreter consists of: versions, a digest over those that matter to a model, and pinned requirements."""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
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
