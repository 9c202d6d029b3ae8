"""The HTTP server. What all of its rooms know is a request that is not answered, and how it leaves
the server: OpenAI's shape under ``/v1/``, a shorter one elsewhere; never a word of the request."""

from __future__ import annotations

import json
from math import ceil

TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
}
"""OpenAI's families of errors by status; what is not here is the server's fault."""


class Refusal(Exception):
    """A request that is not answered: the status, a code for programs, one sentence for people that
    holds nothing of the request."""

    def __init__(
        self, status: int, code: str, sentence: str, retry_after: float | None = None
    ) -> None:
        super().__init__(code)
        self.status, self.code, self.sentence = status, code, sentence
        self.retry_after = retry_after

    def content(self, path: str) -> dict[str, object]:
        """The error body that belongs to a path."""
        if path == "/v1" or path.startswith("/v1/"):
            other = "server_error" if self.status >= 500 else "invalid_request_error"
            kind = TYPES.get(self.status, other)
            said = {"message": self.sentence, "type": kind, "code": self.code, "param": None}
            return {"error": said}
        return {"error": {"code": self.code, "message": self.sentence}}

    def body(self, path: str) -> bytes:
        """The error body in bytes."""
        made = json.dumps(self.content(path), ensure_ascii=False, separators=(",", ":"))
        return made.encode()

    def headers(self) -> dict[str, str]:
        """``WWW-Authenticate`` (RFC 6750) with 401 and 403, ``Retry-After`` in whole seconds where
        a later try may succeed."""
        made = {"content-type": "application/json", "cache-control": "no-store"}
        if self.status in (401, 403):
            made["www-authenticate"] = self._challenge()
        if self.retry_after is not None:
            made["retry-after"] = str(max(1, ceil(self.retry_after)))
        return made

    def _challenge(self) -> str:
        if self.code == "no_token":  # RFC 6750, 3.1: no error code where no credentials came
            return 'Bearer realm="residency"'
        error = "insufficient_scope" if self.status == 403 else "invalid_token"
        said = self.sentence.replace('"', "'").encode("ascii", "replace").decode()
        return f'Bearer realm="residency", error="{error}", error_description="{said}"'


def not_ready() -> Refusal:
    """503: the model cannot answer at the moment."""
    return Refusal(503, "not_ready", "The model is not ready; try again shortly.", 1.0)


def server_failed() -> Refusal:
    """500."""
    return Refusal(500, "internal", "The server failed; the request was not answered.")
