"""A model behind a server of this machine: it answers with its own name among the words, after as
long as it is told, or not at all."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread


class StandIn(ThreadingHTTPServer):
    """``waits``: seconds by the name of a model; ``fails``: names of models that answer with 500."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.waits: dict[str, float] = {}
        self.fails: set[str] = set()
        self.asked: list[dict[str, object]] = []

    def system(self, name: str) -> str:
        """As it is given to ``study new``; the model is called as the system."""
        return f"{name}=http://127.0.0.1:{self.server_address[1]}/v1#{name}"


class Handler(BaseHTTPRequestHandler):
    server: StandIn

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.asked.append(body)
        name = body["model"]
        time.sleep(self.server.waits.get(name, 0.0))
        failing = name in self.server.fails
        turn = len(body["messages"])
        text = f"As {name.upper()}, I advise rest ({turn}: {body['messages'][-1]['content'][:20]})."
        said = json.dumps({"choices": [{"message": {"content": text}}]}).encode()
        self.send_response(500 if failing else 200)
        self.send_header("content-length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@contextmanager
def started() -> Iterator[StandIn]:
    with StandIn() as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()
