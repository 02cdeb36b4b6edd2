"""A small HTTP server for tests that answers as told and remembers what it was asked."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Request:
    """One request as it arrived. Header names are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Answer:
    """What to send back; ``stall`` waits for the event first, and sends nothing once it is set."""

    status: int = 200
    body: str = "{}"
    headers: Mapping[str, str] = field(default_factory=dict)
    stall: bool = False


@dataclass(frozen=True)
class ScriptedServer:
    """The server's address and the requests so far."""

    uri: str
    requests: list[Request]


@contextmanager
def scripted_server(
    answer: Callable[[Request], Answer] = lambda request: Answer(), *, certificate: Path | None = None, port: int = 0
) -> Iterator[ScriptedServer]:
    """Serve on a free port of 127.0.0.1 what ``answer`` makes of each request; by default an empty JSON object.

    :param port: a port to take, for a server that comes back at its old address.
    :param certificate: a PEM file with key and certificate: serve HTTPS, at the name localhost.
    """
    requests: list[Request] = []
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            self.rfile.read(length)
            request = Request(self.command, self.path, {k.lower(): v for k, v in self.headers.items()})
            requests.append(request)
            reply = answer(request)
            if reply.stall:
                over.wait()
                self.close_connection = True
                return
            payload = reply.body.encode()
            self.send_response(reply.status)
            for name, value in {"Content-Type": "application/json", **reply.headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        def log_message(self, *args: Any) -> None:
            """Say nothing."""

    for verb in ("GET", "POST", "PUT", "PATCH", "DELETE"):
        setattr(Handler, f"do_{verb}", Handler.handle_one)
    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        server.daemon_threads = True
        scheme, host = "http", "127.0.0.1"
        if certificate is not None:
            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            tls.load_cert_chain(certificate)
            server.socket = tls.wrap_socket(server.socket, server_side=True)
            scheme, host = "https", "localhost"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield ScriptedServer(f"{scheme}://{host}:{server.server_port}", requests)
        finally:
            over.set()
            server.shutdown()
            thread.join(5)


def mlflow_error(status: int, code: str, message: str = "told so by the test") -> Answer:
    """Answer as MLflow's REST API does when it refuses."""
    return Answer(status, json.dumps({"error_code": code, "message": message}))


def self_signed(folder: Path) -> tuple[Path, Path]:
    """Make a certificate for localhost; return the server's PEM file and the one that a client trusts."""
    from datetime import UTC, datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    trusted, server = folder / "trusted.pem", folder / "server.pem"
    trusted.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    server.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + trusted.read_bytes()
    )
    return server, trusted
