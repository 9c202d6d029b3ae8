"""What vLLM answers on the routes that are asked, as a process: stands in for it in tests. Modes:
FAKE_VLLM."""

from __future__ import annotations

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

MODE = os.environ.get("FAKE_VLLM", "")
SEEN = Path(os.environ["FAKE_VLLM_SEEN"])


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with SEEN.open("a") as file:
            file.write(
                json.dumps({"path": self.path, "body": body, "argv": sys.argv, "quiet": quiet()})
                + "\n"
            )
        if self.headers["Authorization"] != f"Bearer {os.environ['VLLM_API_KEY']}":
            self.send_error(401)
        elif MODE.startswith("fails") and not body.get("echo"):
            self.fail(json.dumps(body, ensure_ascii=False))
        elif body.get("echo"):
            moved = 0.5 if body["model"] != "base" and MODE != "misnamed" else 0.0
            logs = [None, *(-1.0 - moved - i for i in range(len(body["prompt"])))]
            self.answer(
                {
                    "choices": [
                        {
                            "logprobs": {
                                "token_logprobs": logs,
                                "top_logprobs": [None, *({"a": v} for v in logs[1:])],
                            }
                        }
                    ]
                }
            )
        else:
            self.stream(["Gan", " nhiễm", " mỡ"])

    def fail(self, heard: str) -> None:
        """Fails as servers do that repeat what they were asked: in a status, in a stream, in what
        is no JSON, in their own log."""
        print(heard, flush=True)
        print(heard, file=sys.stderr, flush=True)
        kind = MODE.removeprefix("fails: ")
        self.send_response(
            500 if kind == "status" else 200, heard.encode("ascii", "ignore").decode()
        )
        self.send_header("X-Heard", quote(heard))
        self.end_headers()
        said = {
            "status": heard,
            "event": "data: " + json.dumps({"error": {"message": heard}}) + "\n\n",
            "garbage": f"data: {heard[1:]}\n\n",
        }
        self.wfile.write(said[kind].encode())

    def answer(self, value: dict[str, Any]) -> None:
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def stream(self, words: list[str]) -> None:
        self.send_response(200)
        self.end_headers()
        for number, word in enumerate(words, start=1):
            end = "stop" if number == len(words) and MODE != "cut" else None
            choice: dict[str, Any] = {"text": word, "finish_reason": end}
            if MODE != "unsure":
                choice |= {"logprobs": {"token_logprobs": [-0.5]}, "token_ids": [10 + number]}
            event = {"choices": [choice], "usage": {"completion_tokens": number}}
            self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())
            self.wfile.flush()
        if MODE != "cut":
            self.wfile.write(b"data: [DONE]\n\n")


def quiet() -> bool:
    return os.environ.get("VLLM_NO_USAGE_STATS") == os.environ.get("DO_NOT_TRACK") == "1"


if __name__ == "__main__":
    host, port = sys.argv[sys.argv.index("--host") + 1], int(sys.argv[sys.argv.index("--port") + 1])
    ThreadingHTTPServer((host, port), Handler).serve_forever()
