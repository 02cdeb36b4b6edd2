"""The Dockerfiles and scripts: they copy what exists, run what is sound, and agree with the lanes and the lock."""

from __future__ import annotations

import ast
import re
import shutil
import stat
import subprocess
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from scripts.check_constraints import floor, read_lanes, read_requirements

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"
DOCKERFILES = sorted(DOCKER.glob("*/Dockerfile"))
SCRIPTS = sorted(path for path in DOCKER.rglob("*") if path.is_file() and path.read_bytes().startswith(b"#!"))
each_file = pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.parent.name)
each_script = pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: str(path.relative_to(DOCKER)))


def instructions(path: Path) -> list[tuple[str, str]]:
    """Return ``(INSTRUCTION, rest)`` with continued lines joined and arguments' defaults filled in."""
    text = re.sub(r"\\\n\s*", " ", path.read_text())
    lines = [line.split(maxsplit=1) for line in text.splitlines() if line.strip() and not line.startswith("#")]
    defaults = dict(rest.split("=", 1) for word, rest in lines if word == "ARG" and "=" in rest)
    return [
        (word, re.sub(r"\$\{(\w+)\}", lambda found: defaults.get(found[1], found[0]), rest)) for word, rest in lines
    ]


def test_the_files_are_found() -> None:
    assert [path.parent.name for path in DOCKERFILES] == ["airflow", "steps"]
    assert len(SCRIPTS) >= 9


@each_file
def test_every_base_has_a_version(path: Path) -> None:
    stages = {rest.split(" AS ")[1] for word, rest in instructions(path) if word == "FROM" and " AS " in rest}
    bases = {rest.split(" AS ")[0] for word, rest in instructions(path) if word == "FROM"} - stages

    assert bases
    assert [base for base in bases if not re.search(r":\d+\.\d+\.\d+-", base)] == []


@each_file
def test_what_is_copied_exists_and_reaches_the_builder(path: Path) -> None:
    ignore = path.with_name("Dockerfile.dockerignore").read_text().splitlines()
    assert ignore[0] == "*", "a checkout has virtual environments of gigabytes beside the source"
    let_through = [line[1:] for line in ignore if line.startswith("!")]
    copied = [
        source
        for word, rest in instructions(path)
        if word == "COPY" and "--from=" not in rest
        for source in [part for part in rest.split() if not part.startswith("--")][:-1]
    ]

    assert copied
    assert [source for source in copied if not (ROOT / source).exists()] == []
    outside = [
        source
        for source in copied
        if not any(fnmatch(source, each) or source.startswith(f"{each}/") for each in let_through)
    ]
    assert outside == []


@each_file
def test_the_last_user_is_a_number_and_not_root(path: Path) -> None:
    users = [rest for word, rest in instructions(path) if word == "USER"]

    assert users[-1].isdigit(), "Kubernetes' runAsNonRoot reads only numbers"
    assert int(users[-1]) > 0


def test_the_airflow_image_agrees_with_its_lane() -> None:
    (image,) = re.findall(r"apache/airflow:(\S+)", (DOCKER / "airflow" / "Dockerfile").read_text())
    version, python = image.split("-python")
    lane = read_lanes()[f"mwaa-{version}"]
    asked = {each.name: each for each in read_requirements(DOCKER / "airflow" / "requirements.txt")}
    of_lane = {each.name: each for each in read_requirements(lane.requirements)}

    assert python == lane.python, "the lane's constraints are those that the image was made with"
    assert {name: str(each) for name, each in asked.items()} == {name: str(of_lane[name]) for name in asked}
    assert floor(asked["mlflow"].specifier) is not None


def test_the_mlflow_image_takes_its_versions_from_the_lock() -> None:
    lock = {line.removesuffix(" \\") for line in (ROOT / "requirements" / "dev.lock").read_text().splitlines()}
    lines = (DOCKER / "steps" / "mlflow_requirements.txt").read_text().splitlines()
    stale = [line for line in lines if not line.startswith("#") and line.removesuffix(" \\") not in lock]

    assert stale == [], "copy these packages' lines from requirements/dev.lock"
    assert {canonicalize_name(line.split("==")[0]) for line in lines if "==" in line} == {
        "flask-wtf",
        "psycopg2-binary",
        "wtforms",
    }


def test_the_steps_image_installs_the_packages_own_list() -> None:
    copied = [rest.split() for word, rest in instructions(DOCKER / "steps" / "Dockerfile") if word == "COPY"]

    assert ["airflow_mlops/step_requirements.txt", "/opt/step_requirements.txt"] in copied
    runs = [rest for word, rest in instructions(DOCKER / "steps" / "Dockerfile") if word == "RUN"]
    assert any("/opt/install /opt/wheels /opt/step_requirements.txt" in run for run in runs)
    assert "--require-hashes" in (DOCKER / "steps" / "install").read_text()


@each_script
def test_a_script_can_be_run_and_stops_at_the_first_error(path: Path) -> None:
    text = path.read_text()
    assert path.stat().st_mode & stat.S_IXUSR or path.name == "startup.sh"
    if path.name != "startup.sh":  # what MWAA runs must never stop a worker from starting
        assert "set -euo pipefail" in text
    checked = subprocess.run(["bash", "-n", str(path)], capture_output=True, text=True, check=False)
    assert checked.stderr == ""
    if linter := shutil.which("shellcheck"):
        linted = subprocess.run([linter, str(path)], capture_output=True, text=True, check=False)
        assert linted.stdout == ""


@pytest.mark.parametrize("path", sorted(DOCKER.rglob("*.py")), ids=lambda path: path.name)
def test_python_beside_the_images_compiles(path: Path) -> None:
    ast.parse(path.read_text())


def test_the_wheel_of_the_images_is_named_as_the_package_is() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    tags = re.findall(r"airflow-mlops-\w+:(\S+)", "".join(path.read_text() for path in DOCKERFILES))

    assert tags
    assert {tag.rstrip(".") for tag in tags} == {version}


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words, capture_output=True, text=True, check=False, env={"PATH": "/usr/local/bin:/usr/bin:/bin", **environment}
    )


def test_secrets_are_random_private_and_kept(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for file in (first, second):
        assert run(str(DOCKER / "make-secrets"), str(file)).returncode == 0
    values = dict(line.split("=", 1) for line in first.read_text().splitlines())
    others = dict(line.split("=", 1) for line in second.read_text().splitlines())

    assert stat.S_IMODE(first.stat().st_mode) == 0o600
    assert {name for name in values if values[name] == others[name]} == set()
    assert min(len(value) for value in values.values()) >= 20
    # A variable that a later version adds comes in; what is there stays.
    first.write_text("\n".join(f"{name}={value}" for name, value in values.items() if name != "S3_SECRET_KEY") + "\n")
    assert "1 secrets added" in run(str(DOCKER / "make-secrets"), str(first)).stdout
    after = dict(line.split("=", 1) for line in first.read_text().splitlines())
    assert {name for name in values if values[name] != after[name]} == {"S3_SECRET_KEY"}


def test_the_fernet_key_is_one(tmp_path: Path) -> None:
    from cryptography.fernet import Fernet

    run(str(DOCKER / "make-secrets"), str(tmp_path / "env"))
    key = dict(line.split("=", 1) for line in (tmp_path / "env").read_text().splitlines())["AIRFLOW_FERNET_KEY"]

    assert Fernet(key.encode()).decrypt(Fernet(key.encode()).encrypt(b"secret")) == b"secret"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        pytest.param(["make-secrets", "."], "is a folder", id="secrets into a folder"),
        pytest.param(["build-wheel", "/usr"], "/usr has no pyproject.toml", id="a wheel of nothing"),
        pytest.param(
            ["airflow/install", "only-one"],
            "docker/airflow/install WHEELS REQUIREMENTS CONSTRAINTS",
            id="too few words",
        ),
        pytest.param(["steps/install", "/usr", "/nowhere"], "no wheel of airflow_mlops", id="no wheel"),
        pytest.param(["mwaa/build-wheelhouse", "1.10"], "there are: 2.11.2 3.2.1 3.3.1", id="an MWAA nobody has"),
        pytest.param(
            ["composer/update-environment", "e", "l", "9"], "there are: 2.11.1 3.3.1", id="a Composer nobody has"
        ),
        pytest.param(["steps/serve-mlflow"], "MLFLOW_BACKEND_STORE_URI is not set", id="a server without a store"),
        pytest.param(["airflow/init"], "AIRFLOW_ADMIN_PASSWORD: set it", id="a first user without a password"),
    ],
)
def test_a_script_called_wrongly_says_what_to_do(words: list[str], told: str) -> None:
    ended = run("bash", str(DOCKER / words[0]), *words[1:])

    assert ended.returncode != 0
    assert told in ended.stderr


def test_composers_commands_name_the_environment_and_pass_packages_only(tmp_path: Path) -> None:
    ended = run(str(DOCKER / "composer" / "update-environment"), "prod", "europe-west1", "3.3.1", TMPDIR=str(tmp_path))

    assert ended.returncode == 0
    first, second = ended.stdout.splitlines()
    assert first.startswith(
        "gcloud composer environments update prod --location europe-west1 --update-pypi-packages-from-file "
    )
    assert "--update-env-variables" in second
    packages = Path(first.split()[-1]).read_text().splitlines()
    assert [line for line in packages if line.startswith(("#", "-")) or not line] == []
    assert packages[0].startswith("airflow-mlops[")
