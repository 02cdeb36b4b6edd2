"""A throw-away Postgres for tests. Its programs are Debian's (apt-get install postgresql)."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.processes import free_port, running


@dataclass(frozen=True)
class Postgres:
    """A running server with the superuser ``tests`` and no password, on 127.0.0.1 only."""

    port: int

    def uri(self, database: str = "postgres") -> str:
        """Return the SQLAlchemy address of a database."""
        return f"postgresql+psycopg2://tests@127.0.0.1:{self.port}/{database}"

    def create(self, database: str) -> str:
        """Create a database and return its address."""
        import psycopg2

        connection = psycopg2.connect(host="127.0.0.1", port=self.port, user="tests", dbname="postgres")
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(f'CREATE DATABASE "{database}"')
        connection.close()
        return self.uri(database)


def find_program(name: str) -> str:
    """Return the path of one of Postgres's programs.

    :raises RuntimeError: none is installed; the message holds the line that installs it.
    """
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: -float(p.parent.name))
    for folder in [*folders, Path("/usr/local/bin")]:
        if (folder / name).is_file():
            return str(folder / name)
    if found := shutil.which(name):
        return found
    raise RuntimeError(f"{name} is not installed. Run: apt-get update && apt-get install -y postgresql")


@contextmanager
def postgres() -> Iterator[Postgres]:
    """Run a server in a folder of its own, which goes with it. Started by root it runs as another user, as it must."""
    initdb, server = find_program("initdb"), find_program("postgres")
    # Not pytest's folder: the other user may not enter that.
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    data, log, port = folder / "data", folder / "postgres.log", free_port()
    prefix: list[str] = []
    if os.geteuid() == 0:
        user = _unprivileged_user()
        prefix = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
        os.chown(folder, user.pw_uid, user.pw_gid)
    env = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "HOME": str(folder)}
    try:
        make = [*prefix, initdb, "-D", str(data), "-U", "tests", "--auth=trust", "--no-sync", "-E", "UTF8"]
        made = subprocess.run(make, env=env, cwd=folder, capture_output=True, text=True, check=False)
        if made.returncode:
            raise RuntimeError(f"initdb failed: {made.stderr[-2000:]}")
        options = {"listen_addresses": "127.0.0.1", "unix_socket_directories": str(folder), "max_connections": "200"}
        options |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
        command = [*prefix, server, "-D", str(data), "-p", str(port)]
        for name, value in options.items():
            command += ["-c", f"{name}={value}"]
        with running(
            command, log=log, ready=lambda: _accepts(port), env=env, cwd=folder, seconds=60, stop_signal=signal.SIGINT
        ):
            yield Postgres(port)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _unprivileged_user() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise RuntimeError("Postgres does not run as root, and there is no user postgres or nobody to run it as.")


def _accepts(port: int) -> bool:
    import psycopg2

    with socket.socket() as sock:
        if sock.connect_ex(("127.0.0.1", port)):
            return False
    try:
        psycopg2.connect(host="127.0.0.1", port=port, user="tests", dbname="postgres").close()
    except psycopg2.OperationalError:
        return False
    return True
