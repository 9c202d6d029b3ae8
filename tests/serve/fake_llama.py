"""What llama.cpp answers on the route that is asked, as a process: stands in for it in tests. A token
that must come next has the log-probability that is in FAKE_LLAMA."""

from __future__ import annotations

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

SAID = float(os.environ["FAKE_LLAMA"])
SEEN = Path(os.environ["FAKE_LLAMA_SEEN"])
WORDS = ((11, "Gan"), (12, " nhiễm"), (13, ""), (14, " mỡ"))
"""13 begins a character: nothing is said of it."""


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with SEEN.open("a") as file:
            file.write(json.dumps({"path": self.path, "body": body, "argv": sys.argv}) + "\n")
        if self.headers["Authorization"] != f"Bearer {os.environ['LLAMA_API_KEY']}":
            self.send_error(401)
            return
        self.send_response(200)
        self.end_headers()
        if body.get("stream"):
            words = WORDS if body["n_predict"] > 3 else WORDS[:2]
            for number, (token, text) in enumerate(words, start=1):
                if text:
                    event = {"content": text, "tokens": [token], "tokens_predicted": number}
                    self.event(event | {"completion_probabilities": [self.likely(token)]})
            last = {"content": "", "stop": True, "stop_type": "eos"}
            self.event(last | {"tokens_predicted": len(words)})
        else:
            forced = body.get("logit_bias", [[21, 0]])[0][0]
            found = {"tokens": [forced], "completion_probabilities": [self.likely(forced)]}
            self.wfile.write(json.dumps(found).encode())

    def likely(self, token: int) -> dict[str, Any]:
        one = {"id": token, "logprob": SAID}
        return one | {"top_logprobs": [one]}

    def event(self, value: dict[str, Any]) -> None:
        self.wfile.write(f"data: {json.dumps(value)}\n\n".encode())
        self.wfile.flush()


if __name__ == "__main__":
    host, port = sys.argv[sys.argv.index("--host") + 1], int(sys.argv[sys.argv.index("--port") + 1])
    ThreadingHTTPServer((host, port), Handler).serve_forever()
