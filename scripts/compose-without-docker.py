"""Start the services of docker/compose.yaml as processes, in its order and with its values, and use them.

``scripts/compose-without-docker`` makes the environments and calls this in a network, mounts and processes of its own.
"""
# ruff: noqa: S603, S607, T201  # it runs this repository's own programs, and talks to a person

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import httpx
import yaml

from airflow_mlops.cli.demo.airflow_api import AirflowAPI
from airflow_mlops.errors import MLOpsError

ROOT = Path(__file__).resolve().parents[1]
DOCKER = ROOT / "docker"
PLACE, WORK, POSTGRES = map(Path, sys.argv[1:4])
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
MODEL, TRAIN = "small", "train_small"
AIRFLOW, MLFLOW = "http://localhost:8080", "http://localhost:5000"

#: As the entry point of the image does with an empty volume: the start scripts, over the socket, and then the server.
START_POSTGRES = """set -e
initdb --pgdata "$PGDATA" --username postgres --pwfile <(printf '%s\\n' "$POSTGRES_PASSWORD")
echo 'host all all all scram-sha-256' >>"$PGDATA/pg_hba.conf"
pg_ctl --wait --options "-c listen_addresses=''" start
POSTGRES_USER=postgres "$0"
pg_ctl --wait --mode fast stop
exec postgres -c listen_addresses='*'
"""


class Failed(Exception):
    """A service did not become healthy, or did not do what it is there for."""


def fill(text: str, variables: Mapping[str, str]) -> str:
    """Put variables into the file's text, as compose does into its values; ``$$`` is a dollar sign."""

    def one(found: re.Match[str]) -> str:
        name, kind, rest = found.groups()
        if kind == "?" and not variables.get(name):
            raise Failed(f"{name} is not set: {rest}")
        return (variables.get(name) or rest) if name else "$"

    return re.sub(r"\$(?:\$|\{(\w+):([?-])([^}]*)\})", one, text)


def set_by(dockerfile: str) -> dict[str, str]:
    """Return what the instructions ENV of a Dockerfile set."""
    found = dict(re.findall(r"^(?:ENV|   ) (\w+)=(\S+)", (DOCKER / dockerfile).read_text(), re.M))
    return {name: value.replace("$PATH", SYSTEM_PATH) for name, value in found.items()}


def image(name: str) -> dict[str, Any]:
    """Return what stands for an image: user, entry point, environment; of a stand-in what is its own."""
    kind = name.split(":")[0]
    if kind == "airflow-mlops-airflow":
        places = {
            "PATH": f"{PLACE}/airflow/bin:{SYSTEM_PATH}",
            "HOME": "/opt/home/airflow",
            "AIRFLOW_HOME": "/opt/airflow",
        }
        return {
            "user": "50000:0",
            "entrypoint": ["airflow"],  # the official one puts it before a command of Airflow
            "folder": "/opt/airflow",
            "environment": {**places, **set_by("airflow/Dockerfile")},
        }
    if kind == "airflow-mlops-mlflow":
        return {
            "user": "10001:10001",
            "entrypoint": ["/opt/serve-mlflow"],
            "folder": "/opt/home/steps",
            "environment": {"HOME": "/opt/home/steps", **set_by("steps/Dockerfile")},
        }
    if kind == "postgres":
        return {
            "user": "999:999",
            "entrypoint": ["bash", "-c", START_POSTGRES, f"{DOCKER}/postgres/create-databases.sh"],
            "environment": {"PATH": f"{POSTGRES}:{SYSTEM_PATH}", "HOME": "/", "PGDATA": f"{WORK}/postgres/data"},
            "stand-in": f"Debian's PostgreSQL {POSTGRES.parent.name}, create-databases.sh",
        }
    if kind == "versity/versitygw":
        return {
            "user": "50000:0",
            "entrypoint": [f"{ROOT}/.venv/bin/moto_server", "--host", "0.0.0.0", "--port", "7070"],  # noqa: S104  # in a network of its own
            "command": [],
            "environment": {"PATH": SYSTEM_PATH, "HOME": "/"},
            "check": ["CMD", "curl", "--fail", "--silent", "http://127.0.0.1:7070/moto-api/"],
            "stand-in": "moto, with a health address of its own",
        }
    raise Failed(f"Nothing stands for the image {name}; add it to {Path(__file__).name}")


class Service:
    """One service of the file, as one process with a host name of its own."""

    def __init__(self, name: str, definition: Mapping[str, Any]) -> None:
        self.name, self.image = name, image(definition["image"])
        self.after = list(definition.get("depends_on", {}))
        command = self.image.get("command", definition.get("command", []))
        self.command = [*definition.get("entrypoint", self.image["entrypoint"]), *command]
        place = {"LANG": "C.UTF-8", "TMPDIR": str(WORK / "tmp")}
        self.environment = {**place, **self.image["environment"], **definition.get("environment", {})}
        self.health: Mapping[str, Any] = definition.get("healthcheck", {})
        #: After so many seconds Docker would call it unhealthy; what runs once and ends may take ten minutes.
        self.patience = 600.0
        if self.health:
            self.patience = self._seconds("start_period") + self.health["retries"] * self._seconds("interval")
        self.log = PLACE / "logs" / f"{name}.log"
        self.log.write_bytes(b"")
        self.process: subprocess.Popen[bytes] | None = None
        self.started = self.took = self.check_took = 0.0

    def _seconds(self, name: str) -> float:
        return float(self.health[name].removesuffix("s"))

    def _call(self, words: list[str]) -> dict[str, Any]:
        uid, gid = self.image["user"].split(":")
        # The one privilege it gets is to read: a Python below /root is out of the reach of every other user.
        read = ["--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search", "--no-new-privs"]
        user = ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups", *read]
        named = ["unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', self.name, *user, *words]
        return {"args": named, "env": self.environment, "cwd": self.image.get("folder", WORK)}

    def start(self) -> None:
        """Start it; what it prints goes to its log."""
        self.started = time.monotonic()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                **self._call(self.command), stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
            )

    def kill(self) -> None:
        """End it, and all that it started, at once."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def run(self, *words: str, timeout: float = 300.0) -> subprocess.CompletedProcess[str]:
        """Run something where it runs, as ``docker compose exec`` does."""
        return subprocess.run(**self._call(list(words)), capture_output=True, text=True, check=False, timeout=timeout)

    def healthy(self) -> bool:
        """Run the file's health check once, within the file's timeout."""
        kind, *words = self.image.get("check", self.health["test"])
        words = ["sh", "-c", *words] if kind == "CMD-SHELL" else words
        begun = time.monotonic()
        try:
            return self.run(*words, timeout=self._seconds("timeout")).returncode == 0
        except subprocess.TimeoutExpired:
            return False
        finally:
            self.check_took = time.monotonic() - begun

    def ready(self) -> bool:
        """Say whether others may start: it is healthy, or it has run once and ended well."""
        code = self.process.poll() if self.process else 1
        if (code is None and self.healthy()) if self.health else code == 0:
            self.took = time.monotonic() - self.started
            return True
        if code is not None or time.monotonic() - self.started > self.patience:
            how = "is not healthy" if code is None else f"ended with {code}"
            raise Failed(f"{self.name} {how}; the end of {self.log}:\n{self.log.read_text()[-3000:]}")
        return False


def mount(*words: str | Path) -> None:
    """Mount among the private mounts."""
    subprocess.run(["mount", *map(str, words)], check=True)


def furnish(compose: Mapping[str, Any]) -> None:
    """Put the network, names, users, folders and volumes where the images have them; only these processes see it."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    hosts = "".join(f"127.0.0.{number} {name}\n" for number, name in enumerate(compose["services"], 2))
    ids = {"root": "0:0", "postgres": "999:999", "airflow": "50000:0", "steps": "10001:10001"}
    users = "".join(f"{name}:x:{numbers}::/:/bin/sh\n" for name, numbers in ids.items())
    for file, lines in (("/etc/hosts", f"127.0.0.1 localhost\n{hosts}"), ("/etc/passwd", users)):
        (WORK / Path(file).name).write_text(lines)
        mount("--bind", WORK / Path(file).name, file)
    (WORK / "tmp").mkdir()
    (WORK / "tmp").chmod(0o1777)
    (WORK / "postgres").mkdir()
    os.chown(WORK / "postgres", 999, 999)
    mount("-t", "tmpfs", "-o", "mode=1777", "tmpfs", "/var/run/postgresql")
    # What is in /opt stays to be seen; what is added is gone with the namespace.
    (WORK / "opt").mkdir()
    mount("-t", "tmpfs", "tmpfs", WORK / "opt")
    for name in ("added", "overlay"):
        (WORK / "opt" / name).mkdir()
    layers = f"lowerdir=/opt,upperdir={WORK}/opt/added,workdir={WORK}/opt/overlay"
    mount("-t", "overlay", "-o", layers, "overlay", "/opt")
    owners = {"airflow": 50000, "home/airflow": 50000, "home/steps": 10001, "steps": 0, "airflow-mlops": 0}
    for name, uid in owners.items():
        Path("/opt", name).mkdir(parents=True)
        os.chown(Path("/opt", name), uid, 0)
    mount("--bind", PLACE / "steps", "/opt/steps")
    shutil.copy(DOCKER / "airflow" / "init", "/opt/airflow-mlops/init")
    shutil.copy(DOCKER / "steps" / "serve-mlflow", "/opt/serve-mlflow")
    volumes = {each for one in compose["services"].values() for each in one.get("volumes", [])}
    for source, target, *mode in sorted(volume.split(":") for volume in volumes):
        if not target.startswith("/opt/"):
            continue  # of the stand-ins
        if source in compose["volumes"]:
            path = WORK / source
            path.mkdir()
            os.chown(path, 50000, 0)  # a new volume takes the owner of the image's folder
            Path(target).mkdir()
        else:
            path = DOCKER / source
            Path(target).mkdir() if path.is_dir() else Path(target).touch()
        mount("--bind", path, target)
        if mode == ["ro"]:
            mount("-o", "remount,bind,ro", target)


def start(services: Iterable[Service], ready: Iterable[str] = ()) -> None:
    """Start each service when those that it waits for are ready, as ``docker compose up`` does, until all are."""
    ended, waiting, running = set(ready), list(services), list[Service]()
    while waiting or running:
        for service in [each for each in waiting if ended.issuperset(each.after)]:
            service.start()
            waiting.remove(service)
            running.append(service)
        for service in [each for each in running if each.ready()]:
            running.remove(service)
            ended.add(service.name)
            how = "healthy" if service.health else "ended with 0"
            print(f"{service.name}: {how} after {service.took:.0f} s", flush=True)
        time.sleep(0.5)


def write_dags(folder: Path) -> list[str]:
    """Copy the repository's DAGs, add a small model whose rows are in the bucket; return the DAG files' names."""
    from tests.support.small_model import write_small_model

    shutil.copytree(ROOT / "dags", folder, ignore=shutil.ignore_patterns("__pycache__"))
    path = write_small_model(folder, MODEL)
    (folder / "rows.parquet").rename(WORK / "rows.parquet")
    path.write_text(path.read_text().replace("uri: rows.parquet", "uri: s3://lake/rows.parquet, conn_id: aws_default"))
    template = (ROOT / "airflow_mlops/templates/new_model/dag.py.tmpl").read_text()
    (folder / f"{MODEL}_dag.py").write_text(template.replace("$name", MODEL))
    return sorted(file.name for file in folder.glob("*_dag.py"))


def expect(what: str, found: Any, wanted: Any = True) -> None:
    """Say that something is so, or stop."""
    if found != wanted:
        raise Failed(f"{what}: expected {wanted!r}, found {found!r}")
    print(f"ok: {what}", flush=True)


def use(services: Mapping[str, Service], secrets: Mapping[str, str], files: list[str]) -> None:
    """Do what a team does first: sign in, train a model on rows in the store, find it in MLflow."""
    import boto3

    login = {"aws_access_key_id": secrets["S3_ACCESS_KEY"], "aws_secret_access_key": secrets["S3_SECRET_KEY"]}
    s3 = boto3.client("s3", endpoint_url="http://s3:7070", region_name="us-east-1", **login)
    expect("the buckets are there", sorted(each["Name"] for each in s3.list_buckets()["Buckets"]), ["lake", "mlflow"])
    s3.upload_file(str(WORK / "rows.parquet"), "lake", "rows.parquet")

    wrong = {"username": "admin", "password": "wrong"}
    expect("Airflow refuses a wrong password", httpx.post(f"{AIRFLOW}/auth/token", json=wrong).status_code, 401)
    with AirflowAPI(AIRFLOW, "admin", secrets["AIRFLOW_ADMIN_PASSWORD"]) as api:
        api.wait_for_dag(TRAIN)
        found = {dag["relative_fileloc"] for dag in api._get("/api/v2/dags", limit=100)["dags"]}
        expect(f"admin sees DAGs of all {len(files)} DAG files", sorted(found), files)
        expect("none has an import error", api.import_errors(), {})
        api.unpause(TRAIN)
        started = time.monotonic()
        run = api.trigger(TRAIN, {"window_start": "2024-02-01", "window_end": "2024-03-01"})
        state = api.wait_for_run(TRAIN, run, seconds=900)["state"]
        tasks = api.task_states(TRAIN, run)
        expect(f"a training run, {len(tasks)} tasks, {time.monotonic() - started:.0f} s: {state}", state, "success")
        expect("it promoted a first champion", api.xcom(TRAIN, run, "promote")["outcome"], "promoted")
        expect("the API shows a task's log", "promote" in api.log(TRAIN, run, "promote"))

    address = f"{MLFLOW}/api/2.0/mlflow/registered-models/alias?name={MODEL}&alias=champion"
    expect("MLflow refuses a request without a login", httpx.get(address).status_code, 401)
    answer = httpx.get(address, auth=("admin", secrets["MLFLOW_ADMIN_PASSWORD"])).json()
    expect("MLflow's admin sees version 1 as champion", answer["model_version"]["version"], "1")
    keys = [each["Key"] for each in s3.list_objects_v2(Bucket="mlflow", Prefix="artifacts/").get("Contents", [])]
    expect("the model's files are in the bucket", any(key.endswith("/MLmodel") for key in keys))
    doctor = services["scheduler"].run("airflow-mlops", "doctor", "--mlflow-conn-id", "mlflow_default")
    expect("the doctor finds nothing wrong beside the scheduler", doctor.returncode, 0)


def disturb(services: Mapping[str, Service]) -> None:
    """Run the preparation again, and kill what Docker would start again."""
    start([services["airflow-init"]], services)
    for service in (services["scheduler"], services["dag-processor"]):
        service.kill()
        killed = time.monotonic()
        while service.healthy():
            if time.monotonic() - killed > 60:
                raise Failed(f"the killed {service.name} still passes its health check after a minute")
            time.sleep(0.5)
        print(f"ok: the killed {service.name} fails its health check after {time.monotonic() - killed:.0f} s")
        start([service], services)


def main() -> int:
    """Start, use, disturb; print what was found."""
    subprocess.run([DOCKER / "make-secrets", WORK / "env"], check=True, stdout=subprocess.DEVNULL)
    secrets = dict(line.split("=", 1) for line in (WORK / "env").read_text().splitlines())
    files = write_dags(WORK / "dags")
    variables = {**secrets, "DAGS_FOLDER": str(WORK / "dags")}
    compose = yaml.safe_load(fill((DOCKER / "compose.yaml").read_text(), variables))
    furnish(compose)
    services = {name: Service(name, definition) for name, definition in compose["services"].items()}
    table: list[str] = []
    try:
        start(services.values())
        for name, one in services.items():
            ran = one.image.get("stand-in") or f"its own: {shlex.join(one.command)}"
            table.append(f"{name:<14} {one.took:>5.0f} s {one.check_took:>5.1f} s  {ran}")
        use(services, secrets, files)
        disturb(services)
    except (Failed, MLOpsError, httpx.HTTPError) as error:
        print(f"FAILED: {error}\nEvery service's output is in {PLACE}/logs", file=sys.stderr)
        return 1
    finally:
        print("\nService, until it was healthy or had ended, its last health check, what ran", *table, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
