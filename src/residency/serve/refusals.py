"""A refusal as it leaves the server: OpenAI's shape under ``/v1/``, a shorter one elsewhere; never
a word of the request."""

from __future__ import annotations

import json
from math import ceil

from residency.serve.types import Refusal

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


def content(path: str, refusal: Refusal) -> dict[str, object]:
    """The error body that belongs to a path."""
    if path == "/v1" or path.startswith("/v1/"):
        kind = TYPES.get(
            refusal.status, "server_error" if refusal.status >= 500 else "invalid_request_error"
        )
        return {
            "error": {
                "message": refusal.sentence,
                "type": kind,
                "code": refusal.code,
                "param": None,
            }
        }
    return {"error": {"code": refusal.code, "message": refusal.sentence}}


def body(path: str, refusal: Refusal) -> bytes:
    """The error body in bytes."""
    return json.dumps(content(path, refusal), ensure_ascii=False, separators=(",", ":")).encode()


def headers(refusal: Refusal) -> dict[str, str]:
    """``WWW-Authenticate`` (RFC 6750) with 401 and 403, ``Retry-After`` in whole seconds where a
    later try may succeed."""
    made = {"content-type": "application/json", "cache-control": "no-store"}
    if refusal.status in (401, 403):
        made["www-authenticate"] = _challenge(refusal)
    if refusal.retry_after is not None:
        made["retry-after"] = str(max(1, ceil(refusal.retry_after)))
    return made


def _challenge(refusal: Refusal) -> str:
    if refusal.code == "no_token":  # RFC 6750, 3.1: no error code where no credentials came
        return 'Bearer realm="residency"'
    error = "insufficient_scope" if refusal.status == 403 else "invalid_token"
    said = refusal.sentence.replace('"', "'").encode("ascii", "replace").decode()
    return f'Bearer realm="residency", error="{error}", error_description="{said}"'
