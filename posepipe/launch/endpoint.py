"""The endpoint of a live studio: GET /metrics for Prometheus, GET /healthz for whatever keeps it running.

It lives in the supervisor's process, where no picture passes, on threads of its own. A question reads figures and asks no worker.
"""

from __future__ import annotations

import errno
import json
import logging
import socket
import sys
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer, ThreadingMixIn
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from posepipe.pipeline.errors import PublishError
from posepipe.pipeline.telemetry import address

from .health import Watched, health
from .metrics import StudioCollector

_SLOW_CLIENT_S = 5.0


class Endpoint:
    """Answers from construction to `close`. Make it after the supervisor, which forks.

    bind: `HOST:PORT`, port 0 takes any free one. PublishError when the address cannot be had.
    """

    def __init__(self, studio: Watched, bind: str) -> None:
        registry = CollectorRegistry()
        registry.register(StudioCollector(studio))
        host, port = address(bind)
        try:
            self._server = _server(host, port, studio, registry)
        except OSError as e:
            raise _refused(bind, e) from None
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="posepipe:endpoint", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        host, port = self._server.server_address[:2]
        return f"http://[{host!s}]:{port}" if ":" in str(host) else f"http://{host!s}:{port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _refused(bind: str, error: OSError) -> PublishError:
    if error.errno == errno.EADDRINUSE:
        what = "the port is taken: another program, or another studio, listens there"
        hint = (
            "stop it (posepipe ps lists the studios of this machine), or choose another port: --metrics HOST:PORT, or metrics: {bind: ...}"
        )
    else:
        what = f"cannot listen there: {error.strerror or error}"
        hint = (
            "127.0.0.1 for this machine only, 0.0.0.0 for all; ports below 1024 need rights: --metrics HOST:PORT, or metrics: {bind: ...}"
        )
    return PublishError(what, where=f"metrics {bind}", hint=hint)


def _server(host: str, port: int, studio: Watched, registry: CollectorRegistry) -> TCPServer:
    family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]

    class Handler(BaseHTTPRequestHandler):
        timeout = _SLOW_CLIENT_S

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/metrics":
                encode, kind = choose_encoder(self.headers.get("Accept", ""))
                self._answer(HTTPStatus.OK, kind, encode(registry))
            elif path == "/healthz":
                now = health(studio)
                status = HTTPStatus.OK if now.ok else HTTPStatus.SERVICE_UNAVAILABLE
                self._answer(status, "application/json", json.dumps(now.as_json()).encode() + b"\n")
            else:
                self._answer(HTTPStatus.NOT_FOUND, "text/plain; charset=utf-8", b"there is /metrics and /healthz\n")

        def _answer(self, status: HTTPStatus, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass  # a scrape every few seconds is no news

    class Server(ThreadingMixIn, TCPServer):  # http.server's own asks the name service who we are, which may take seconds
        address_family = family
        allow_reuse_address = True
        daemon_threads = True
        block_on_close = False

        def handle_error(self, request: Any, client_address: Any) -> None:
            if not isinstance(sys.exception(), ConnectionError | TimeoutError):  # who asked did not wait for the answer
                logging.getLogger("posepipe.endpoint").exception("a question could not be answered")

    return Server((host, port), Handler)
