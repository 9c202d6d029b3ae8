"""Who asks: tokens of an identity provider (JSON Web Tokens, RFC 7519, checked as RFC 8725
advises), or the key of this machine."""

from __future__ import annotations

import hmac
import os
import secrets
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, cast

from residency.core.errors import UserError
from residency.core.files import write_once
from residency.core.types import Value
from residency.serve import Refusal
from residency.serve.auth.jwks import ProviderKeys, Told, safe
from residency.serve.settings import SCOPES, Auth, LocalKey, Oidc, Scope

LONGEST = 16_384
"""Characters of an ``Authorization`` header."""
LONGEST_ID = 256
"""Characters of a key id or subject."""
REQUIRED = ("exp", "iss", "aud", "sub")
KEY_FILE = "key"


class Caller(Value, frozen=True):
    """Who asks. ``subject`` is the provider's name for a person: it lives in memory only, and is
    logged as a keyed hash."""

    subject: str
    scopes: frozenset[str] = frozenset()


class TokenChecker(Protocol):
    """Knows callers by what they show."""

    async def caller(self, authorization: str | None) -> Caller:
        """The caller of an ``Authorization`` header; raises ``Refusal`` 401, or 503 where nobody
        can be told."""
        ...

    async def start(self) -> None:
        """Get ready before the first request; without it the first request does this."""
        ...

    async def close(self) -> None:
        """End what runs in the background."""
        ...

    def trouble(self) -> str:
        """Why tokens cannot be checked at the moment, or only with old keys, in a sentence; empty
        where all is well."""
        ...


def make_tokens(
    settings: Auth,
    folder: Path,
    clock: Callable[[], float] = time.monotonic,
    told: Told | None = None,
) -> TokenChecker:
    """What the settings ask for; ``folder`` holds the key of this machine, ``told`` hears how each
    fetch of keys ended. Raises ``UserError`` where settings contradict each other."""
    if isinstance(settings, LocalKey):
        return LocalTokens(local_key(folder))
    return OidcTokens(settings, clock, told)


def require(caller: Caller, scope: Scope) -> None:
    """Raises ``Refusal`` 403 where a caller may not do this."""
    if scope not in caller.scopes:
        asks = "ask whoever runs the identity provider for it"
        raise Refusal(403, "missing_scope", f"The token does not hold the scope {scope}; {asks}.")


def bearer(authorization: str | None) -> str:
    """The token of an ``Authorization: Bearer`` header (RFC 6750); raises ``Refusal`` 401."""
    if not authorization:
        said = "No token was given; send it as: Authorization: Bearer TOKEN."
        raise Refusal(401, "no_token", said)
    kind, _, token = authorization.strip().partition(" ")
    token = token.strip()
    readable = 0 < len(token) <= LONGEST and token.isascii() and " " not in token
    if kind.lower() != "bearer" or not readable:
        raise invalid("The Authorization header is not of the form: Bearer TOKEN.")
    return token


def invalid(sentence: str, code: str = "invalid_token") -> Refusal:
    """401 with a sentence that holds nothing of the token."""
    return Refusal(401, code, sentence)


class LocalTokens:
    """The key of this machine: whoever reads its file may do everything."""

    def __init__(self, key: str) -> None:
        self._key = key.encode()

    async def caller(self, authorization: str | None) -> Caller:
        """The person at this machine."""
        if not hmac.compare_digest(bearer(authorization).encode(), self._key):
            said = "The key is not this machine's; it was printed when the server was started."
            raise invalid(said)
        return Caller("local", frozenset(SCOPES))

    async def start(self) -> None:
        """Nothing to do."""

    async def close(self) -> None:
        """Nothing runs."""

    def trouble(self) -> str:
        """Nothing can go wrong."""
        return ""


class OidcTokens:
    """Tokens of an OpenID Connect provider."""

    def __init__(
        self, settings: Oidc, clock: Callable[[], float] = time.monotonic, told: Told | None = None
    ) -> None:
        _check(settings)
        self.settings = settings
        self.keys = ProviderKeys(settings, clock, told)

    async def caller(self, authorization: str | None) -> Caller:
        """The person that a token names, and what he may do."""
        token = bearer(authorization)
        name, algorithm = self._header(token)
        key = await self.keys.find(name)
        if key.algorithm_name != algorithm:
            raise invalid("The token's algorithm is not that of its key.")
        claims = self._claims(token, key, algorithm)
        subject = claims["sub"]
        if not subject or len(subject) > LONGEST_ID:
            raise invalid("The token's sub is empty or too long.")
        return Caller(
            subject, scopes(claims.get(self.settings.scope_claim), self.settings.scope_prefix)
        )

    async def start(self) -> None:
        """Fetch the keys, behind the requests' back."""
        self.keys.start()
        self.keys.look()

    async def close(self) -> None:
        """End fetches."""
        await self.keys.close()

    def trouble(self) -> str:
        """Why the last fetch of keys failed."""
        return self.keys.trouble

    def _header(self, token: str) -> tuple[str, str]:
        """Key id and algorithm. Nothing is fetched for a token that could not be accepted whatever
        its key."""
        import jwt

        try:
            header = jwt.get_unverified_header(token)
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
            raise invalid("The token cannot be read.") from None
        name, algorithm = header.get("kid"), header.get("alg")
        if algorithm not in self.settings.algorithms:
            raise invalid(
                "The token's algorithm is not taken; allowed: "
                f"{', '.join(self.settings.algorithms)}."
            )
        if "crit" in header:
            raise invalid("The token asks for extensions that are not known here.")
        if not isinstance(name, str) or not 0 < len(name) <= LONGEST_ID:
            raise invalid("The token names no key (kid).")
        return name, cast(str, algorithm)

    def _claims(self, token: str, key: Any, algorithm: str) -> dict[str, Any]:
        import jwt

        try:
            return jwt.decode(
                token,
                key.key,
                algorithms=[algorithm],
                issuer=self.settings.issuer,
                audience=self.settings.audience,
                leeway=self.settings.leeway,
                options={"require": list(REQUIRED)},
            )
        except jwt.ExpiredSignatureError:
            raise invalid("The token has expired; get a new one.", "expired_token") from None
        except jwt.InvalidAudienceError:
            raise invalid("The token is meant for another server (aud).") from None
        except jwt.InvalidIssuerError:
            raise invalid("The token comes from another provider (iss).") from None
        except jwt.ImmatureSignatureError:
            raise invalid("The token is not valid yet (nbf, iat).") from None
        except jwt.MissingRequiredClaimError:
            raise invalid(f"The token lacks a claim; required: {', '.join(REQUIRED)}.") from None
        except (jwt.PyJWTError, ValueError, TypeError, ArithmeticError, RecursionError):
            raise invalid("The token's signature or claims are not valid.") from None


def _check(settings: Oidc) -> None:
    """Raises ``UserError`` where settings contradict each other."""
    safe(settings.issuer, "auth.issuer")
    if settings.jwks:
        safe(settings.jwks, "auth.jwks")
    fresh = settings.keys_fresh
    for wrong, said in (
        (
            not settings.audience or not settings.algorithms,
            "auth: audience and algorithms must not be empty; give what the provider calls this "
            "server, and RS256 or ES256.",
        ),
        (
            settings.keys_stale < fresh,
            "auth.keys_stale: shorter than auth.keys_fresh; keys cannot go stale before they are "
            "due.",
        ),
        (
            fresh < 2 * settings.timeout,
            "auth.keys_fresh: shorter than twice auth.timeout, so a withdrawn key could not be "
            "refused in time.",
        ),
        (
            fresh < 2 * settings.cooldown,
            "auth.cooldown: longer than half of auth.keys_fresh, so keys could not be fetched when "
            "they are due.",
        ),
    ):
        if wrong:
            raise UserError(said)


def scopes(claim: object, prefix: str = "") -> frozenset[str]:
    """The scopes known here that a claim holds: words in a string, or a list of strings, each after
    ``prefix``."""
    words = claim.split() if isinstance(claim, str) else claim if isinstance(claim, list) else []
    named = {
        word.removeprefix(prefix)
        for word in words
        if isinstance(word, str) and word.startswith(prefix)
    }
    return frozenset(scope for scope in SCOPES if scope in named)


def local_key(folder: Path) -> str:
    """The key of this machine, made at the first start (256 random bits), in a file that only its
    owner reads.

    Raises ``UserError`` where others may read it.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / KEY_FILE
    if not path.exists():
        write_once(path, f"residency-{secrets.token_urlsafe(32)}\n".encode())
    return _read_key(path)


def _read_key(path: Path) -> str:
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    with os.fdopen(descriptor) as file:
        if os.name == "posix" and stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
            raise UserError(
                f"{path}: others may read this key; remove the file (a new key is made), or set "
                "its mode to 600."
            )
        key = file.read().strip()
    if len(key) < 32:
        raise UserError(f"{path}: not a key; remove the file and a new one is made.")
    return key
