"""The keys of an identity provider, kept so that nobody who shows a known key waits for the
network.

- Keys are fetched again, behind the requests' back, at half of ``keys_fresh``: a key that the
  provider withdrew is refused within ``keys_fresh`` while the provider answers.
- A key id that is not known causes one fetch that all such requests share, at most one in a
  ``cooldown``: a new key is accepted at once, and within one cooldown while somebody floods the
  server with invented ids. An id that a fetch did not find causes no other for ``keys_fresh``.
- While the provider does not answer, known keys are accepted for ``keys_stale``, and it is asked
  again once in a cooldown.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import time
import warnings
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from residency.core.errors import UserError
from residency.serve import Refusal
from residency.serve.settings import Oidc

if TYPE_CHECKING:
    import httpx2
    from jwt import PyJWK

LARGEST = 1_048_576
"""Bytes of a document of the provider; more is not read."""
REMEMBERED = 1024
"""Key ids kept that a fetch did not find; the oldest is forgotten."""
WAITING = 32
"""Requests that wait for a fetch to its end; others wait ``GRACE``."""
GRACE = 0.25
"""Seconds that requests wait for a fetch where they must not wait longer."""
TICK = 1.0
"""Seconds between looks whether keys are due."""


Told = Callable[[Literal["ok", "failed"]], None]
"""Hears how a fetch of keys ended."""


class Unanswered(Exception):
    """A fetch brought no keys; says why, without an address."""


class ProviderKeys:
    """The provider's keys by their id. ``trouble`` says in a sentence why the last fetch failed
    (empty: it did not)."""

    def __init__(
        self, settings: Oidc, clock: Callable[[], float] = time.monotonic, told: Told | None = None
    ) -> None:
        self.settings, self.clock, self.told = settings, clock, told
        self.keys: dict[str, PyJWK] = {}
        self.fetched: float | None = None
        self.tried: float | None = None
        self.caused: float | None = None
        self.fetches = 0
        self.trouble = ""
        self.address = settings.jwks
        self._unknown: OrderedDict[str, float] = OrderedDict()
        self._waiting = 0
        self._fetch: asyncio.Task[None] | None = None
        self._ticker: asyncio.Task[None] | None = None
        self._client: httpx2.AsyncClient | None = None

    async def find(self, name: str) -> PyJWK:
        """The key of an id. Raises ``Refusal``: 401 where the provider does not know it, 503 where
        it cannot be asked."""
        self.start()
        self.look()
        await self._overdue()
        if (key := self._known(name)) is not None:
            return key
        await self._ask(name)
        if (key := self._known(name)) is not None:
            return key
        if self.fetched is None or self.trouble or not self._accepted():
            raise self._unavailable()
        raise unknown_key()

    def look(self) -> None:
        """Start a fetch where keys are due; nobody waits for it."""
        if self._fetch is None and self._due() and self._rested(self.tried):
            self._begin()

    async def close(self) -> None:
        """End what runs, and connections."""
        for task in (self._ticker, self._fetch):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        self._ticker = self._fetch = None
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    def _known(self, name: str) -> PyJWK | None:
        return self.keys.get(name) if self._accepted() else None

    def _age(self) -> float:
        return float("inf") if self.fetched is None else self.clock() - self.fetched

    def _accepted(self) -> bool:
        return self._age() <= (
            self.settings.keys_stale if self.trouble or self._fetch else self.settings.keys_fresh
        )

    def _due(self) -> bool:
        return self._age() >= self.settings.keys_fresh / 2

    def _rested(self, since: float | None) -> bool:
        return since is None or self.clock() - since >= self.settings.cooldown

    def _unavailable(self) -> Refusal:
        wait = (
            self.settings.cooldown - (self.clock() - self.tried)
            if self.tried is not None
            else self.settings.cooldown
        )
        return Refusal(
            503,
            "keys_unavailable",
            "The identity provider's keys cannot be read at the moment; try again.",
            max(1.0, wait),
        )

    async def _overdue(self) -> None:
        """After this process stood still, give a provider that answers quickly the chance to
        withdraw keys first."""
        if (
            self.fetched is not None
            and self._fetch is not None
            and self._age() > self.settings.keys_fresh
            and not self.trouble
        ):
            left = GRACE - (self.clock() - self.tried if self.tried is not None else 0)
            if left > 0:
                await asyncio.wait({self._fetch}, timeout=left)

    async def _ask(self, name: str) -> None:
        """Wait for the shared fetch that may bring a key; start one where that is allowed."""
        for _ in range(2):  # one that began before the key was made may run: then once more
            running = self._fetch
            fetch = running or self._cause(name)
            if fetch is None:
                return
            await self._wait(fetch)
            if name in self.keys:
                return
            if (
                running is None and not self.trouble
            ):  # began after the token was shown, and did not find its key
                self._remember(name)
                return

    async def _wait(self, fetch: asyncio.Task[None]) -> None:
        """Few wait to the end, the others briefly: a flood of invented ids must not fill the server
        while the provider hangs."""
        self._waiting += 1
        try:
            await asyncio.wait({fetch}, timeout=None if self._waiting <= WAITING else GRACE)
        finally:
            self._waiting -= 1
        if not fetch.done():
            raise self._unavailable()

    def _cause(self, name: str) -> asyncio.Task[None] | None:
        """A fetch because of an unknown id, where none was within the cooldown and the id is not
        known to be unknown."""
        if self.fetched is None or self.trouble:
            return self._begin() if self._rested(self.tried) else None
        gone = self._unknown.get(name)
        if gone is not None and self.clock() - gone < self.settings.keys_fresh:
            return None
        if not self._rested(self.caused):
            return None
        self.caused = self.clock()
        return self._begin()

    def _remember(self, name: str) -> None:
        self._unknown[name] = self.clock()
        self._unknown.move_to_end(name)
        while len(self._unknown) > REMEMBERED:
            self._unknown.popitem(last=False)

    def _begin(self) -> asyncio.Task[None]:
        self.tried = self.clock()
        self.fetches += 1
        self._fetch = asyncio.get_running_loop().create_task(
            self._run(), name="keys of the identity provider"
        )
        return self._fetch

    async def _run(self) -> None:
        begun = self.clock()
        try:
            async with asyncio.timeout(self.settings.timeout):
                found = await self._read()
            self.keys, self.fetched, self.trouble = found, begun, ""
            for name in found:
                self._unknown.pop(name, None)
        except TimeoutError:
            self._failed(f"no answer within {self.settings.timeout:g} s")
        except Unanswered as problem:
            self._failed(str(problem))
        except Exception as problem:  # whatever it is, known keys go on being accepted
            self._failed(type(problem).__name__)
        finally:
            self._fetch = None
        if self.told is not None:
            self.told("failed" if self.trouble else "ok")

    def _failed(self, why: str) -> None:
        self.trouble, self.address = (
            f"The identity provider's keys could not be fetched: {why}.",
            self.settings.jwks,
        )

    async def _read(self) -> dict[str, PyJWK]:
        if not self.address:
            self.address = await self._discover()
        return usable(await self._get(self.address), self.settings.algorithms)

    async def _discover(self) -> str:
        """The address of the keys, as OpenID Connect Discovery 1.0, section 4, says where to find
        it."""
        said = await self._get(
            f"{self.settings.issuer.rstrip('/')}/.well-known/openid-configuration"
        )
        if said.get("issuer") != self.settings.issuer:
            raise Unanswered("its openid-configuration names another issuer than auth.issuer")
        address = said.get("jwks_uri")
        if not isinstance(address, str):
            raise Unanswered("its openid-configuration has no jwks_uri")
        try:
            return safe(address, "jwks_uri")
        except UserError:
            raise Unanswered("its jwks_uri is not https") from None

    async def _get(self, address: str) -> dict[str, Any]:
        import httpx2

        if self._client is None:
            self._client = httpx2.AsyncClient(
                timeout=self.settings.timeout,
                follow_redirects=False,
                trust_env=not loopback(
                    urlsplit(address).hostname or ""
                ),  # proxies and certificates of the environment
            )
        read = bytearray()
        try:
            async with self._client.stream(
                "GET", address, headers={"accept": "application/json"}
            ) as answer:
                if answer.status_code != 200:
                    raise Unanswered(f"HTTP {answer.status_code}")
                async for part in answer.aiter_bytes():
                    read += part
                    if len(read) > LARGEST:
                        raise Unanswered(f"more than {LARGEST} bytes")
            said = json.loads(read)
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as problem:
            raise Unanswered(type(problem).__name__) from None
        except (ValueError, RecursionError):
            raise Unanswered("not JSON") from None
        if not isinstance(said, dict):
            raise Unanswered("not a JSON object")
        return said

    def start(self) -> None:
        """Keep the keys fresh from now on; the first request does this too."""
        if self._ticker is None:
            self._ticker = asyncio.get_running_loop().create_task(
                self._tick(), name="age of the identity provider's keys"
            )

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(min(TICK, self.settings.keys_fresh / 8))
            self.look()


def unknown_key() -> Refusal:
    """401: the token is signed by a key that the provider does not name."""
    return Refusal(
        401,
        "unknown_key",
        "The token is signed with a key that the identity provider does not name; get a new token.",
    )


def usable(said: dict[str, Any], algorithms: tuple[str, ...]) -> dict[str, PyJWK]:
    """The keys of a JWK set (RFC 7517) that verify signatures of the allowed kinds, each bound to
    one algorithm by its id.

    What is meant for encryption, symmetric, of another curve, or RSA below 2,048 bits is left out.
    Raises ``Unanswered`` where it is no set.
    """
    listed = said.get("keys")
    if not isinstance(listed, list):
        raise Unanswered("not a set of keys")
    found: dict[str, PyJWK] = {}
    for entry in listed:
        key = _usable(entry, algorithms) if isinstance(entry, dict) else None
        if key is not None and key.key_id not in found:
            found[str(key.key_id)] = key
    return found


def _usable(entry: dict[str, Any], algorithms: tuple[str, ...]) -> PyJWK | None:
    from jwt import PyJWK
    from jwt.exceptions import PyJWTError

    kind = {"RSA": "RS256", "EC": "ES256"}.get(str(entry.get("kty")))
    if (
        kind not in algorithms
        or not isinstance(entry.get("kid"), str)
        or entry.get("use", "sig") != "sig"
    ):
        return None
    if entry.get("alg", kind) != kind or (kind == "ES256" and entry.get("crv") != "P-256"):
        return None
    public = {
        name: value
        for name, value in entry.items()
        if name in ("kty", "kid", "use", "alg", "crv", "x", "y", "n", "e")
    }
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            key = PyJWK(public, algorithm=kind)
    except (PyJWTError, ValueError, TypeError):
        return None
    return key if kind == "ES256" or key.key.key_size >= 2048 else None


# Addresses that a secret may travel to, or keys come from


def loopback(host: str) -> bool:
    """Whether a host is this machine, by its name or number alone (no look-up)."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def safe(address: str, where: str) -> str:
    """An address with TLS, or of this machine; raises ``UserError`` otherwise."""
    try:
        parts = urlsplit(address)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        host, port = "", None
        parts = urlsplit("")
    if (
        host
        and port != 0
        and (parts.scheme == "https" or (parts.scheme == "http" and loopback(host)))
    ):
        return address
    raise UserError(
        f"{where}: not a safe address; allowed: https://HOST/..., or http:// on this machine "
        "(127.0.0.1, ::1, localhost)."
    )
