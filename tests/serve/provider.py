"""An identity provider on loopback: a real HTTP server in a thread, with keys that tests rotate,
withdraw, and an answer that they hold back."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

AUDIENCE = "residency"


class Clock:
    """Time that moves when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Provider:
    """``fetches`` counts requests for keys; ``hang`` (an event) holds answers back until it is set;
    ``status`` other than 200 is an outage."""

    def __init__(self) -> None:
        self.private: dict[str, Any] = {}
        self.published: dict[str, dict[str, Any]] = {}
        self.extra: list[Any] = []
        self.status = 200
        self.raw: bytes | None = None
        self.hang: threading.Event | None = None
        self.fetches = 0
        self.discoveries = 0
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if provider.hang is not None:
                    provider.hang.wait(600)
                self.answer(provider.said(self.path))

            def answer(self, body: bytes) -> None:
                self.send_response(provider.status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def handle_one_request(self) -> None:
                try:
                    super().handle_one_request()
                except OSError:
                    self.close_connection = True

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()
        self.issuer = f"http://127.0.0.1:{self.server.server_port}/realms/hospital"
        self.named = self.issuer
        self.jwks = f"{self.issuer}/keys"

    def said(self, path: str) -> bytes:
        if path.endswith("openid-configuration"):
            self.discoveries += 1
            return json.dumps({"issuer": self.named, "jwks_uri": self.jwks}).encode()
        self.fetches += 1
        return (
            self.raw
            if self.raw is not None
            else json.dumps({"keys": [*self.extra, *self.published.values()]}).encode()
        )

    def rsa(self, name: str, bits: int = 2048) -> None:
        self.private[name] = rsa.generate_private_key(public_exponent=65537, key_size=bits)
        self.publish(
            name, RSAAlgorithm.to_jwk(self.private[name].public_key(), as_dict=True), "RS256"
        )

    def ec(self, name: str) -> None:
        self.private[name] = ec.generate_private_key(ec.SECP256R1())
        self.publish(
            name, ECAlgorithm.to_jwk(self.private[name].public_key(), as_dict=True), "ES256"
        )

    def publish(self, name: str, public: dict[str, Any], algorithm: str) -> None:
        self.published[name] = {**public, "kid": name, "use": "sig", "alg": algorithm}

    def withdraw(self, name: str) -> None:
        del self.published[name]

    def pem(self, name: str) -> bytes:
        return (
            self.private[name]
            .public_key()
            .public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
        )

    def token(
        self,
        key: str,
        /,
        kid: str | None = "",
        algorithm: str = "",
        without: str = "",
        **claims: Any,
    ) -> str:
        whole = {
            "iss": self.issuer,
            "aud": AUDIENCE,
            "sub": "nurse-1",
            "exp": time.time() + 600,
            "scope": "chat extract",
        }
        whole |= claims
        whole.pop(without, None)
        headers = {} if kid is None else {"kid": kid or key}
        kind = "RS256" if isinstance(self.private[key], rsa.RSAPrivateKey) else "ES256"
        return jwt.PyJWS().encode(
            json.dumps(whole).encode(), self.private[key], algorithm or kind, headers
        )

    def close(self) -> None:
        if self.hang is not None:
            self.hang.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(600)
