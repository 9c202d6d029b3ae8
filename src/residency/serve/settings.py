"""Settings of the server: a section of the recipe, a file of its own, or the command line."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from residency.core.part import Part, renamed

Scope = Literal["chat", "extract", "diagnose", "deidentify", "admin"]
SCOPES: tuple[Scope, ...] = ("chat", "extract", "diagnose", "deidentify", "admin")


class LocalKey(Part):
    """A key for this machine, made at the first start: for one person at one computer. Never
    outside loopback."""

    kind: Literal["local"] = "local"


class Oidc(Part):
    """Tokens of an identity provider (Keycloak, Auth0, Entra ID, ...)."""

    kind: Literal["oidc"]
    issuer: str
    """``iss``, exactly as the provider writes it."""
    audience: str
    """``aud``: what the provider calls this server."""
    jwks: str = ""
    """Address of the provider's keys; read from the issuer's ``/.well-known/openid-configuration``
    where not given."""
    algorithms: tuple[Literal["RS256", "ES256"], ...] = ("RS256", "ES256")
    scope_claim: str = "scope"
    """The claim that holds scopes: words in a string, or a list."""
    scope_prefix: str = ""
    """What the provider writes before each scope, e.g. ``residency:``."""
    leeway: float = Field(default=30, ge=0, le=300)
    """Seconds that clocks may differ."""
    keys_fresh: float = Field(default=300, gt=0)
    """Seconds after which keys are fetched again, behind the requests' back: a revoked key is
    refused after at most this, while the provider answers."""
    keys_stale: float = Field(default=3600, gt=0)
    """Seconds that known keys go on being accepted while the provider does not answer."""
    cooldown: float = Field(default=10, gt=0)
    """At most one fetch in so many seconds, however many unknown keys are named."""
    timeout: float = Field(default=3, gt=0)
    """Seconds that a fetch may take."""


Auth = Annotated[LocalKey | Oidc, Field(discriminator="kind")]


class RequestLimits(Part):
    """What one request, and one user, may ask for."""

    per_second: int = Field(default=5, ge=1)
    """Requests of a user in any second."""
    input_tokens: int = Field(default=512, ge=1)
    """Most tokens of what the user says, by the served tokenizer: all of his words in the request,
    whatever the route."""
    output_tokens: int = Field(default=512, ge=1)
    """Most tokens of an answer."""
    context_tokens: int = Field(default=2048, ge=0)
    """Most tokens of what is not the user's: template, system text, earlier answers, retrieved
    passages."""
    system_tokens: int = Field(default=1024, ge=0)
    """Most tokens of the system text that a conversation brings; they count among those around the
    user's words too."""
    work_tokens: int = Field(default=8192, ge=1)
    """Most tokens that one request may have read and written: all prompts, and for each prompt and
    choice the longest answer that was asked for."""
    user_tokens: int = Field(default=65_536, ge=1)
    """The same of all requests of a user that a worker has under way."""
    minute_tokens: int = Field(default=300_000, ge=1)
    """The same of a user's requests in any fixed minute from his first."""
    body_bytes: int = Field(default=262_144, ge=1024)
    """Largest request body."""
    seconds: float = Field(default=60, gt=0)
    """Longest that a request may take."""
    at_once: int = Field(default=64, ge=1)
    """Requests of a worker under way; more get 503 with Retry-After."""
    drain: float = Field(default=30, ge=0)
    """Seconds that running requests get to end after SIGTERM."""
    redis: str = ""
    """``redis://...``: where several workers count together; without it one worker counts in
    memory."""


class Logs(Part):
    """What is written down, and where."""

    folder: str = "serve"
    """Folder of audit chains and of the local key, from where the server starts; mode 0700."""
    user: Literal["keyed", "plain"] = "keyed"
    """``keyed``: HMAC-SHA-256 of the user id, which cannot be guessed by trying names; ``plain``:
    SHA-256, for sites whose rule wants it."""
    key: str = Field(default="RESIDENCY_LOG_KEY", pattern=r"^[A-Z][A-Z0-9_]*$")
    """Environment variable with the key of the hashes (64 hexadecimal digits); without it one is
    made in the folder."""


class Serve(Part):
    """How runs are served."""

    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=1, le=65535)
    workers: int = Field(default=1, ge=1, le=64)
    """Processes, each with engines (and memory for weights) of its own; a vLLM or llama.cpp server
    is shared."""
    engine: Literal["auto", "process", "onnx", "vllm"] = "auto"
    """``auto``: vLLM where there is a GPU, it is installed and the method can be served by it; else
    this process. ``vllm``: it must be installed; what it cannot serve is still served by this
    process."""
    vllm_python: str = ""
    """Interpreter of the environment that vLLM is installed in; without it this process's own is
    asked."""
    llama_python: str = ""
    """The same of llama.cpp (``xllamacpp``), which serves models in GGUF."""
    triton: str = Field(default="", pattern=r"^(https?://[^/\s]+)?$")
    """Address of a Triton (``http://127.0.0.1:8000``) that serves the models of a repository which
    ``residency export triton`` wrote; without it they are served in process."""
    dtype: Literal["auto", "bf16"] = "auto"
    """Numbers of encoders in this process: as they were trained, or 16 bits, which processors that
    know them compute about twice as fast."""
    batch_ms: float = Field(default=2, ge=0, le=100)
    """Longest that a request waits for others to be computed with it, unless the last one came
    alone."""
    batch_rows: int = Field(default=32, ge=1)
    """Most requests computed together; by llama.cpp 4 at most."""
    cors: tuple[Annotated[str, Field(pattern=r"^https?://[^/*\s]+$")], ...] = ()
    """Origins (``https://app.hospital.example``) whose pages in a browser may ask this server; none
    where not given."""
    fingerprint_seconds: float = Field(default=10, gt=0)
    """How often readiness asks the model its fixed question."""
    auth: Auth = LocalKey()
    limits: RequestLimits = RequestLimits()
    logs: Logs = Logs()
    deidentify_answers: bool = False
    """Whether answers pass through de-identification before they leave: rules and, where it is
    installed, the packaged tagger; a header says which."""
    erased: Literal["refuse", "announce"] = "refuse"
    """What becomes of a model that learned from notes which were erased since: it is not loaded, or
    says so in ``/v1/models``, the log and the header of each answer."""
    threshold: float = Field(default=0.5, ge=0, le=1)
    """``/diagnose`` abstains where the model's confidence is below it."""

    _old_keys = renamed(canary_seconds="fingerprint_seconds")
