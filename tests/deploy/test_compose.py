"""docker/compose.yaml holds together: health, order, secrets, pins. No engine is needed."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "docker" / "compose.yaml"
TEXT = FILE.read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
SECRET = re.compile(r"PASSWORD|SECRET|KEY|TOKEN|FERNET|_CONN|_URI")
each_service = pytest.mark.parametrize("name", SERVICES)


def variables(text: str) -> dict[str, str]:
    """Return ``{variable: what follows its name}`` of every ``${...}``; ``$$`` is not one."""
    return dict(re.findall(r"(?<!\$)\$\{(\w+)([^}]*)\}", text))


def test_the_file_has_what_a_whole_deployment_needs() -> None:
    airflow = {"airflow-init", "api-server", "scheduler", "dag-processor", "triggerer"}

    assert set(SERVICES) == {"postgres", "s3", "s3-init", "mlflow"} | airflow


@each_service
def test_a_service_has_a_health_check_or_a_reason_and_an_order(name: str) -> None:
    service = SERVICES[name]
    once = service.get("restart") == "no"

    assert ("healthcheck" in service) != ("x-no-healthcheck" in service)
    assert once == ("x-no-healthcheck" in service), "only what runs once and ends goes without"
    if not once:
        assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")
        assert service["restart"] == "unless-stopped"
    for other, how in service.get("depends_on", {}).items():
        ends = SERVICES[other].get("restart") == "no"
        assert how["condition"] == ("service_completed_successfully" if ends else "service_healthy"), (name, other)


@each_service
def test_a_health_check_costs_little_and_tells_in_five_minutes(name: str) -> None:
    check = SERVICES[name].get("healthcheck")
    if check is None:
        return
    interval, timeout, start = (int(check[key].removesuffix("s")) for key in ("interval", "timeout", "start_period"))

    assert start + check["retries"] * interval <= 300
    # Measured by scripts/compose-without-docker: Airflow's command line takes some 4 s, of which 3 s are a core's.
    asks_airflow = any(word.startswith("airflow ") for word in check["test"])
    assert (interval, timeout) == ((60, 30) if asks_airflow else (15, 10))


def test_the_run_without_an_engine_knows_every_image() -> None:
    script = (ROOT / "scripts" / "compose-without-docker.py").read_text()
    images = {service["image"].rsplit(":", 1)[0] for service in SERVICES.values()}

    assert {image for image in images if f'kind == "{image}"' not in script} == set()


@pytest.mark.parametrize("name", ["api-server", "scheduler", "dag-processor", "triggerer"])
def test_airflow_starts_after_its_database_and_mlflow(name: str) -> None:
    def before(service: str) -> set[str]:
        direct = set(SERVICES[service].get("depends_on", {}))
        return direct.union(*(before(other) for other in direct))

    assert before(name) == {"airflow-init", "mlflow", "postgres", "s3-init", "s3"}


@each_service
def test_an_image_has_a_version_and_what_is_built_here_is_built_with_it(name: str) -> None:
    image, tag = SERVICES[name]["image"].rsplit(":", 1)
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]

    assert re.search(r"\d+\.\d+", tag), "a tag that moves is no version"
    assert ("build" in SERVICES[name]) == image.startswith("airflow-mlops-")
    if "build" in SERVICES[name]:
        assert tag == version
        assert (FILE.parent / SERVICES[name]["build"]["context"] / SERVICES[name]["build"]["dockerfile"]).is_file()


@each_service
def test_every_secret_is_a_required_variable(name: str) -> None:
    for key, value in SERVICES[name]["environment"].items():
        if SECRET.search(key) and key not in ("AWS_ENDPOINT_URL_S3", "MLFLOW_S3_ENDPOINT_URL"):
            found = variables(value)
            assert found, f"{name}: {key} is written in the clear"
            assert all(rest.startswith(":?") for rest in found.values()), f"{name}: {key} may be empty or has a default"
    for found in re.findall(r"(?i)(?:password|secret)[\"']?\s*[:=]\s*[\"']([^\"'$]{3,})", str(SERVICES[name])):
        pytest.fail(f"{name}: {found!r} looks like a password")


def test_make_secrets_writes_every_required_variable() -> None:
    required = {name for name, rest in variables(TEXT).items() if rest.startswith(":?")}
    written = set(re.findall(r"^add (\w+) ", (ROOT / "docker" / "make-secrets").read_text(), re.M))

    assert required | {"POSTGRES_PASSWORD"} == written


def test_pages_are_published_to_this_machine_only() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]

    assert len(ports) == 2
    assert [port for port in ports if not port.startswith("127.0.0.1:")] == []


def test_volumes_are_named_and_mounted_files_are_there() -> None:
    used = set()
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            source = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", volume).split(":")[0]
            if source.startswith("."):
                assert (FILE.parent / source).exists(), source
                assert volume.endswith(":ro"), f"{volume} could be changed from inside"
            else:
                used.add(source)
    assert used == set(COMPOSE["volumes"])


def test_the_login_of_mlflow_is_the_one_that_airflow_uses() -> None:
    connection = SERVICES["scheduler"]["environment"]["AIRFLOW_CONN_MLFLOW_DEFAULT"]

    assert '"login": "admin"' in connection
    assert "${MLFLOW_ADMIN_PASSWORD:" in connection
    assert "${MLFLOW_ADMIN_PASSWORD:" in SERVICES["mlflow"]["environment"]["MLFLOW_ADMIN_PASSWORD"]
    host = re.search(r'"host": "http://([^"]+)"', connection)
    assert host is not None
    assert host[1] in SERVICES["mlflow"]["environment"]["MLFLOW_ALLOWED_HOSTS"].split(",")
    assert '"admin"' in (ROOT / "docker" / "steps" / "serve-mlflow").read_text()


def test_every_database_address_names_its_driver() -> None:
    # Without one, SQLAlchemy 2.1 looks for psycopg 3, which no image has.
    addresses = re.findall(r"postgresql[^:]*://", TEXT)

    assert len(addresses) == 3
    assert set(addresses) == {"postgresql+psycopg2://"}
