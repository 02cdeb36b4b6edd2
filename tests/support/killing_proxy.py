"""A proxy before an MLflow server that kills the asking process at a chosen request, after the server has done it.

So the work is done, the answer is lost, and nothing in the killed process could prepare for it: what a worker's sudden
death right after a registration looks like.
"""

from __future__ import annotations

import http.client
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import psutil

HOP_BY_HOP = {"connection", "transfer-encoding", "content-length", "keep-alive"}


@dataclass
class KillingProxy:
    """The address to ask, and what happened. ``arm`` names the end of a path; the next such request kills its asker."""

    uri: str
    upstream_port: int
    target: str = ""
    killed: list[int] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def arm(self, target: str) -> None:
        """Kill the process behind the next request whose path ends so."""
        self.target = target


@contextmanager
def killing_proxy(upstream: str) -> Iterator[KillingProxy]:
    """Serve on a free port, forwarding everything to ``upstream``."""
    server = urlsplit(upstream)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            connection = http.client.HTTPConnection(server.hostname or "127.0.0.1", server.port, timeout=120)
            connection.request(self.command, self.path, body, dict(self.headers))
            answer = connection.getresponse()
            content = answer.read()
            connection.close()
            with proxy.lock:
                hit = bool(proxy.target) and self.path.partition("?")[0].endswith(proxy.target)
                if hit:
                    proxy.target = ""
            if hit:
                pid = asker(self.client_address[1])
                os.kill(pid, signal.SIGKILL)
                proxy.killed.append(pid)
                self.close_connection = True
                return
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in HOP_BY_HOP:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = forward  # noqa: N815  # the base class's names

        def log_message(self, *args: object) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    proxy = KillingProxy(uri=f"http://127.0.0.1:{httpd.server_address[1]}", upstream_port=server.port or 80)
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        httpd.shutdown()
        httpd.server_close()
        thread.join(10)


def asker(port: int) -> int:
    """Return the process that has this local port open."""
    for connection in psutil.net_connections("tcp"):
        if connection.laddr and connection.laddr.port == port and connection.pid and connection.pid != os.getpid():
            return connection.pid
    raise LookupError(f"no process has port {port} open")
