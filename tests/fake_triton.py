"""A stand-in for Triton over HTTP, in front of the very backend that is exported; the server itself is
in tests/services_all."""

from __future__ import annotations

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

KINDS: dict[str, Any] = {"BYTES": np.object_, "INT32": np.int32, "BOOL": np.bool_}


class Tensor:
    def __init__(self, name: str, rows: Any) -> None:
        self.name, self.rows = name, rows

    def as_numpy(self) -> Any:
        return self.rows


UTILITIES = SimpleNamespace(
    Tensor=Tensor,
    TritonError=str,
    InferenceResponse=lambda tensors=(), error=None: SimpleNamespace(
        tensors=list(tensors), error=error
    ),
    get_input_tensor_by_name=lambda request, name: request.get(name),
)
"""As much of Triton's own module as a backend uses."""


def started(repository: Path, name: str) -> Any:
    """A model as Triton starts it, its settings read from the file."""
    from residency.export.triton_backend import TritonPythonModel

    settings = (repository / name / "config.pbtxt").read_text("utf-8")
    digest = settings.rpartition("string_value: ")[2].split('"')[1]
    config = {"parameters": {"artefact": {"string_value": digest}}}
    made = TritonPythonModel()
    made.initialize(
        {
            "model_config": json.dumps(config),
            "model_repository": str(repository / name),
            "model_version": "1",
        }
    )
    return made


class FakeTriton:
    """Models of a repository, and whether they live. Between ``with``."""

    def __init__(self, repository: Path) -> None:
        self.models = {one.name: started(repository, one.name) for one in repository.iterdir()}
        self.dead = False
        self.idle = threading.Event()
        """Cleared while it loads a model: who asks waits."""
        self.idle.set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: Any) -> None:
                pass

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                name = self.path.removeprefix("/v2/models/").removesuffix("/infer")
                said = outer.answer(name, body)
                self.send_response(500 if said is None else 200)
                self.end_headers()
                self.wfile.write(json.dumps(said).encode())

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, name: str, body: dict[str, Any]) -> Any:
        self.idle.wait(100)
        if self.dead:
            return None
        asked = {}
        for one in body["inputs"]:
            rows = [
                [value.encode() if one["datatype"] == "BYTES" else value] for value in one["data"]
            ]
            asked[one["name"]] = Tensor(one["name"], np.array(rows, dtype=KINDS[one["datatype"]]))
        (made,) = self.models[name].execute([asked])
        if made.error is not None:
            return None
        rows = [row[0].decode() for row in made.tensors[0].rows]
        return {"outputs": [{"name": "ANSWER", "shape": [len(rows), 1], "data": rows}]}

    def __enter__(self) -> FakeTriton:
        self.before = sys.modules.get("triton_python_backend_utils")
        sys.modules["triton_python_backend_utils"] = UTILITIES  # type: ignore[assignment]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.idle.set()
        self.server.shutdown()
        self.server.server_close()
        del sys.modules["triton_python_backend_utils"]
