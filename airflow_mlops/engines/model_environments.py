"""The libraries a model says it needs: compared with those installed here, or installed into an environment of its own.

``uv`` builds the environment where it can be found, because it takes seconds from its cache; else ``venv`` and ``pip``.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airflow_mlops.core.records import VersionDifference
from airflow_mlops.engines.bounded_process import run_bounded
from airflow_mlops.engines.environment import installed
from airflow_mlops.errors import OutageError

REQUIREMENTS = "requirements.txt"
#: Lines of an installer's output that a person is shown.
SHOWN_LINES = 12
_LINE_CHARACTERS = 300

#: What a fresh interpreter gets of this process's environment variables: nothing that could be a login.
_NAMES = frozenset(
    {
        "PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "LD_LIBRARY_PATH", "JAVA_HOME", "SPARK_HOME",
        "HADOOP_HOME", "HF_HOME", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "XDG_CACHE_HOME",
    }
)  # fmt: skip
_PREFIXES = ("LC_", "OMP_", "MKL_", "OPENBLAS_", "NUMEXPR_", "CUDA_", "NVIDIA_", "TORCH_")
#: What an installer gets on top: its own settings, proxies and certificates.
_INSTALLER_NAMES = frozenset({"SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NETRC"})
_INSTALLER_PREFIXES = ("UV_", "PIP_", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY")

#: What uv and pip say when the way to the package index, or the index itself, is what failed. pip says of every try
#: that failed how many are left, and goes on: only the last one is a failure.
_OUTAGE = re.compile(
    r"error sending request for url|client error \(Connect\)|connect(ion)? error|connection (refused|reset|aborted)"
    r"|failed to establish a new connection|(name resolution|dns error|getaddrinfo failed|name or service not known)"
    r"|(connection|operation|read|request) timed out|network timeout|ReadTimeoutError|ConnectTimeout"
    r"|cannot connect to proxy|network is unreachable|no route to host|remote end closed connection"
    r"|HTTP (status )?(server |client )?error:? \(?(429|5\d\d)\b|\b(429 Client|5\d\d Server) Error\b"
    r"|too many (429|5\d\d) error responses",
    re.IGNORECASE,
)
_TRIED_AGAIN = re.compile(r"^.*Retrying \(Retry\(total=[1-9].*$", re.MULTILINE)
#: What says that a library's own code failed, whatever else it printed, or that a setting is wrong: it will fail again.
_NO_OUTAGE = re.compile(
    r"build backend returned an error|failed building wheel|metadata-generation-failed"
    r"|getting requirements to build wheel did not run|invalid peer certificate|CERTIFICATE_VERIFY_FAILED",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Built:
    """What became of an environment: its interpreter in ``python``, or None, and then why and what to do.

    :param output: the last lines that the installer wrote, without logins.
    """

    python: Path | None
    what: str = ""
    why: str = ""
    output: str = ""


def recorded_requirements(folder: Path) -> list[str]:
    """Return the lines of a model's requirements file that are not empty or a comment; none where there is no file."""
    try:
        text = (folder / REQUIREMENTS).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    lines = (re.sub(r"(^|\s)#.*$", "", line).strip() for line in text.splitlines())
    return [line for line in lines if line]


def recorded_python(folder: Path) -> str | None:
    """Return the Python version a model was made with, such as ``3.11.9``, or None where it is not recorded."""
    described = _yaml(folder / "python_env.yaml").get("python")
    if described is None:
        for line in _yaml(folder / "conda.yaml").get("dependencies") or ():
            if isinstance(line, str) and (found := re.fullmatch(r"python\s*=+\s*([\d.]+)", line.strip())):
                described = found[1]
    if described is None:
        flavors = _yaml(folder / "MLmodel").get("flavors")
        pyfunc = flavors.get("python_function") if isinstance(flavors, dict) else None
        described = pyfunc.get("python_version") if isinstance(pyfunc, dict) else None
    return None if described is None else str(described)


def differences(folder: Path, *, libraries: bool = True) -> list[VersionDifference]:
    """Return where this interpreter is not what the model's files say it was made with, Python itself first.

    A requirement that allows the installed version is no difference. Of Python only the first two numbers count.

    :param libraries: False: only Python is compared.
    """
    found = []
    python = recorded_python(folder)
    here = platform.python_version()
    if python is not None and python.split(".")[:2] != here.split(".")[:2]:
        found.append(VersionDifference(name="python", recorded=python, installed=here))
    return found + (_library_differences(folder) if libraries else [])


def _library_differences(folder: Path) -> list[VersionDifference]:
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.utils import canonicalize_name

    here = installed()
    found = {}
    for line in recorded_requirements(folder):
        try:
            requirement = Requirement(line.partition(" --hash=")[0].rstrip(" \\"))
        except InvalidRequirement:
            continue  # an option, a file or an address: nothing to compare by name
        if requirement.marker is not None and not requirement.marker.evaluate():
            continue
        name = canonicalize_name(requirement.name)
        version = here.get(name)
        if version is not None and requirement.specifier.contains(version, prereleases=True):
            continue
        wanted = str(requirement.specifier)
        exact = re.fullmatch(r"={2,3}([^,*]+)", wanted)
        found[name] = VersionDifference(name=name, recorded=exact[1] if exact else wanted or None, installed=version)
    return [found[name] for name in sorted(found)]


def said(difference: VersionDifference) -> str:
    """Return a difference in words, such as ``scikit-learn (trained with 1.5.0, here 1.9.1)``."""
    recorded = difference.recorded or "any version"
    return f"{difference.name} (trained with {recorded}, here {difference.installed or 'not installed'})"


def plain_environment(scratch: Path, *, installing: bool = False) -> dict[str, str]:
    """Return the environment variables of an interpreter that runs a model's code: no login, scratch files aside.

    :param scratch: an existing folder for temporary files.
    :param installing: add what an installer is told by its own variables, which may hold a login for its index.
    """
    env = {name: value for name, value in os.environ.items() if name in _NAMES or name.startswith(_PREFIXES)}
    if installing:
        env |= {
            name: value
            for name, value in os.environ.items()
            if name in _INSTALLER_NAMES or name.upper().startswith(_INSTALLER_PREFIXES)
        }
    return {**env, "TMPDIR": str(scratch), "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}


def build_environment(model: Path, folder: Path, *, timeout_seconds: float) -> Built:
    """Make an environment in ``folder`` from the model's requirements, with this interpreter's Python.

    :param model: the model's folder.
    :param folder: must not exist; it is made.
    :param timeout_seconds: for making and filling it, together.
    :raises OutageError: the package index cannot be reached or does not work, so nothing is known about the model.
    """
    if not recorded_requirements(model):
        return Built(
            None, f"its {REQUIREMENTS} is missing or empty, so nobody knows what to install.", "Train it again."
        )
    folder.mkdir(parents=True)
    env = plain_environment(folder, installing=True)
    until = time.monotonic() + timeout_seconds
    python = folder / "environment" / "bin" / "python"
    tool, commands = _commands(folder / "environment", python, model / REQUIREMENTS)
    for command in commands:
        ended = run_bounded(command, folder=folder, env=env, timeout_seconds=max(0.1, until - time.monotonic()))
        output = last_lines(hide_logins(ended.output, env)) if ended.output.strip() else ""
        if ended.reason == "timed_out":
            return Built(
                None,
                f"building its environment took longer than the {timeout_seconds:g} s that "
                f"serving.build_timeout_seconds allows.",
                "Raise it, or compare with the installed libraries only (serving.env: installed).",
                output,
            )
        if ended.code and is_outage(ended.output):
            raise OutageError(
                f"No environment could be built from the model's {REQUIREMENTS}, because {tool} cannot reach its "
                f"package index or the index fails. Check the network, the index and {tool}'s own settings; the task "
                f"may be retried. Its output ended:\n{output}"
            )
        if ended.code:
            return Built(
                None,
                f"no environment could be built from its {REQUIREMENTS} ({tool} ended with code {ended.code}).",
                f"Mend train.requirements, or {tool}'s way to its package index; pip's settings are not read by uv.",
                output,
            )
    return Built(python)


def _commands(target: Path, python: Path, needs: Path) -> tuple[str, list[list[str]]]:
    """Return the installer's name and the commands that make and fill the environment."""
    uv = find_uv()
    if uv is None:
        install = [str(python), "-m", "pip", "install", "--no-input", "--progress-bar", "off", "-r", str(needs)]
        return "pip", [[sys.executable, "-m", "venv", str(target)], install]
    make = [*uv, "venv", "--no-python-downloads", "--python", sys.executable, str(target)]
    return "uv", [make, [*uv, "pip", "install", "--no-progress", "--python", str(python), "-r", str(needs)]]


def is_outage(output: str) -> bool:
    """Say whether an installer that failed tells of the network or its index, not of what it was to install."""
    return not _NO_OUTAGE.search(output) and bool(_OUTAGE.search(_TRIED_AGAIN.sub("", output)))


def find_uv() -> list[str] | None:
    """Return the words that start uv: beside this interpreter, on the path, or as a module; None: it is not here."""
    beside = Path(sys.executable).with_name("uv")
    if beside.is_file():
        return [str(beside)]
    on_path = shutil.which("uv")
    if on_path:
        return [on_path]
    return [sys.executable, "-m", "uv"] if importlib.util.find_spec("uv") else None


def hide_logins(text: str, env: Mapping[str, str]) -> str:
    """Return ``text`` without the logins of addresses, and without the values of variables that hold a secret."""
    for name, value in env.items():
        if re.search(r"PASSWORD|TOKEN|SECRET", name.upper()) and len(value) > 3:
            text = text.replace(value, "***")
    return re.sub(r"://[^\s/]*@", "://***@", text)


def last_lines(text: str, most: int = SHOWN_LINES) -> str:
    """Return the last lines that say something, or ``(nothing)``."""
    lines = [line.rstrip()[:_LINE_CHARACTERS] for line in text.replace("\r", "\n").splitlines() if line.strip()]
    return "\n".join(lines[-most:]) or "(nothing)"


def _yaml(file: Path) -> dict[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}
