"""Which tokens are accepted, and the key of this machine."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import stat
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jwt
import pytest
from provider import AUDIENCE, Provider

from residency.core.errors import UserError
from residency.serve import Refusal
from residency.serve.auth import Caller, bearer, local_key, make_tokens, require, scopes
from residency.serve.settings import LocalKey, Oidc


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    made = Provider()
    made.rsa("rsa")
    made.ec("ec")
    yield made
    made.close()


def asked(provider: Provider, *headers: str | None, **settings: Any) -> list[Caller | Refusal]:
    """What each header gets."""

    async def whole() -> list[Caller | Refusal]:
        given = {"issuer": provider.issuer, "audience": AUDIENCE} | settings
        tokens = make_tokens(Oidc(kind="oidc", **given), Path())
        found: list[Caller | Refusal] = []
        try:
            for header in headers:
                try:
                    found.append(await tokens.caller(header))
                except Refusal as refusal:
                    found.append(refusal)
        finally:
            await tokens.close()
        return found

    return asyncio.run(whole())


def refused(provider: Provider, token: str, **settings: Any) -> Refusal:
    good = f"Bearer {provider.token('rsa')}"
    accepted, answer = asked(provider, good, f"Bearer {token}", **settings)
    assert isinstance(accepted, Caller) or settings
    assert isinstance(answer, Refusal), "accepted"
    assert answer.status == 401
    assert token not in answer.sentence
    assert "nurse" not in answer.sentence
    return answer


@pytest.mark.parametrize("key", ["rsa", "ec"])
def test_a_good_token_names_its_person_and_scopes(provider: Provider, key: str) -> None:
    [caller] = asked(provider, f"bearer {provider.token(key, scope='openid chat other')}")
    assert caller == Caller("nurse-1", frozenset({"chat"}))


@pytest.mark.parametrize("claim", ["exp", "sub", "iss", "aud"])
def test_a_token_without_a_required_claim_is_refused(provider: Provider, claim: str) -> None:
    refused(provider, provider.token("rsa", without=claim))


WRONG: dict[str, dict[str, Any]] = {
    "expired": {"exp": time.time() - 3600},
    "expired beyond the leeway": {"exp": time.time() - 120},
    "endless": {"exp": 1e400},
    "exp is a word": {"exp": "tomorrow"},
    "exp is null": {"exp": None},
    "not yet": {"nbf": time.time() + 3600},
    "issued in the future": {"iat": time.time() + 3600},
    "other audience": {"aud": "billing"},
    "other audiences": {"aud": ["billing", "radiology"]},
    "no audience": {"aud": []},
    "audience is a number": {"aud": 7},
    "other issuer": {"iss": "https://elsewhere.example"},
    "issuer is a list": {"iss": ["https://elsewhere.example"]},
    "empty subject": {"sub": ""},
    "subject is a number": {"sub": 12},
    "subject is long": {"sub": "n" * 5000},
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_token_with_a_wrong_claim_is_refused(provider: Provider, wrong: str) -> None:
    refused(provider, provider.token("rsa", **WRONG[wrong]))


def test_clocks_may_differ_by_the_leeway(provider: Provider) -> None:
    late = provider.token("rsa", exp=time.time() - 20)
    [caller] = asked(provider, f"Bearer {late}")
    assert isinstance(caller, Caller)
    refused(provider, late, leeway=5)


def test_an_expired_token_is_named_as_such(provider: Provider) -> None:
    assert refused(provider, provider.token("rsa", exp=time.time() - 3600)).code == "expired_token"


def encoded(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def made(header: dict[str, Any], claims: dict[str, Any], secret: bytes | None = None) -> str:
    """A token by hand: unsigned, or with HMAC-SHA-256."""
    said = f"{encoded(header)}.{encoded(claims)}"
    signature = b"" if secret is None else hmac.digest(secret, said.encode(), hashlib.sha256)
    return f"{said}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


def claims(provider: Provider) -> dict[str, Any]:
    return {"iss": provider.issuer, "aud": AUDIENCE, "sub": "nurse-1", "exp": time.time() + 600}


@pytest.mark.parametrize("algorithm", ["none", "None", "nOnE", "", None, "RS256", "ES256"])
def test_an_unsigned_token_is_refused(provider: Provider, algorithm: str | None) -> None:
    refused(provider, made({"alg": algorithm, "kid": "rsa"}, claims(provider)))


@pytest.mark.parametrize("algorithm", ["HS256", "HS512", "RS256"])
def test_a_token_signed_with_the_public_key_as_a_secret_is_refused(
    provider: Provider, algorithm: str
) -> None:
    refused(provider, made({"alg": algorithm, "kid": "rsa"}, claims(provider), provider.pem("rsa")))


@pytest.mark.parametrize("algorithm", ["RS384", "RS512", "PS256"])
def test_an_algorithm_that_was_not_configured_is_refused(
    provider: Provider, algorithm: str
) -> None:
    refused(provider, provider.token("rsa", algorithm=algorithm))


def test_a_configured_algorithm_is_the_only_one(provider: Provider) -> None:
    refused(provider, provider.token("ec"), algorithms=("RS256",))


def test_a_key_is_bound_to_its_algorithm(provider: Provider) -> None:
    refused(provider, provider.token("ec", kid="rsa"))
    refused(provider, provider.token("rsa", kid="ec"))


def test_a_changed_token_is_refused(provider: Provider) -> None:
    head, _, signature = provider.token("rsa").split(".")
    refused(provider, f"{head}.{encoded({**claims(provider), 'sub': 'chief'})}.{signature}")


@pytest.mark.parametrize("kid", [None, "k" * 300])
def test_a_token_without_a_usable_key_id_is_refused(provider: Provider, kid: str | None) -> None:
    refused(provider, provider.token("rsa", kid=kid))


def test_a_token_with_a_key_of_its_own_is_refused(provider: Provider) -> None:
    stranger = Provider()
    stranger.rsa("own")
    stranger.close()
    header = {"kid": "rsa", "jwk": stranger.published["own"], "jku": stranger.jwks}
    refused(
        provider,
        jwt.encode(claims(provider), stranger.private["own"], algorithm="RS256", headers=header),
    )


def test_a_token_with_critical_extensions_is_refused(provider: Provider) -> None:
    token = jwt.encode(
        claims(provider), provider.private["rsa"], "RS256", headers={"kid": "rsa", "crit": ["exp"]}
    )
    refused(provider, token)


@pytest.mark.parametrize(
    "token",
    [
        "x",
        "a.b.c",
        "....",
        encoded([1]) + ".e30.x",
        made({"alg": "RS256", "kid": 5}, {}),
        base64.urlsafe_b64encode(b"[" * 6000).decode().rstrip("=") + ".e30.x",
        "é.é.é",
        "x" * 100_000,
        "two words",
    ],
)
def test_what_is_no_token_is_refused(provider: Provider, token: str) -> None:
    refused(provider, token)


def test_deeply_nested_claims_are_refused(provider: Provider) -> None:
    signer = jwt.PyJWS()
    refused(
        provider,
        signer.encode(
            b'{"sub":' + b"[" * 5000, provider.private["rsa"], "RS256", headers={"kid": "rsa"}
        ),
    )


def test_no_token_is_asked_for_as_rfc_6750_says(provider: Provider) -> None:
    for header in (None, ""):
        [answer] = asked(provider, header)
        assert isinstance(answer, Refusal)
        assert (answer.status, answer.code) == (401, "no_token")
        assert answer.headers()["www-authenticate"] == 'Bearer realm="residency"'
    for header in ("Basic bnVyc2U6MTIz", "Bearer", "Bearer  ", "Token x"):
        [answer] = asked(provider, header)
        assert isinstance(answer, Refusal)
        assert answer.status == 401
        assert 'error="invalid_token"' in answer.headers()["www-authenticate"]


def test_a_missing_scope_is_403() -> None:
    caller = Caller("nurse-1", frozenset({"chat"}))
    require(caller, "chat")
    with pytest.raises(Refusal) as refusal:
        require(caller, "admin")
    assert refusal.value.status == 403
    assert 'error="insufficient_scope"' in refusal.value.headers()["www-authenticate"]


@pytest.mark.parametrize(
    ("claim", "prefix", "expected"),
    [
        ("chat extract", "", {"chat", "extract"}),
        (["chat", "admin", 5, None], "", {"chat", "admin"}),
        ("residency:chat chat residency:admin", "residency:", {"chat", "admin"}),
        ("admin", "residency:", set()),
        ("chat,extract", "", set()),
        ("", "", set()),
        (None, "", set()),
        ({"chat": True}, "", set()),
        (True, "", set()),
    ],
)
def test_scopes_are_words_or_a_list(claim: object, prefix: str, expected: set[str]) -> None:
    assert scopes(claim, prefix) == expected


def test_scopes_come_from_the_configured_claim(provider: Provider) -> None:
    token = provider.token("rsa", scope="admin", roles=["Residency.chat"])
    [caller] = asked(provider, f"Bearer {token}", scope_claim="roles", scope_prefix="Residency.")
    assert isinstance(caller, Caller)
    assert caller.scopes == {"chat"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"issuer": "http://login.hospital.example"},
        {"issuer": "login.hospital.example"},
        {"issuer": "https://login.example", "jwks": "http://10.0.0.5/keys"},
        {"issuer": "https://login.example", "jwks": "file:///etc/keys"},
        {"issuer": "https://login.example", "jwks": "http://localhost.evil.example/keys"},
        {"issuer": "https://login.example", "audience": ""},
        {"issuer": "https://login.example", "algorithms": ()},
        {"issuer": "https://login.example", "keys_fresh": 600, "keys_stale": 300},
        {"issuer": "https://login.example", "keys_fresh": 5, "cooldown": 1},
        {"issuer": "https://login.example", "keys_fresh": 12},
    ],
)
def test_settings_that_are_not_safe_are_refused(wrong: dict[str, Any]) -> None:
    settings = Oidc(kind="oidc", **({"audience": AUDIENCE} | wrong))
    with pytest.raises(UserError) as problem:
        make_tokens(settings, Path())
    assert str(problem.value).startswith("auth")


@pytest.mark.parametrize(
    "address",
    ["http://127.0.0.1:8080/r", "http://[::1]:1/r", "http://localhost/r", "https://a.example/r"],
)
def test_tls_or_this_machine(address: str) -> None:
    make_tokens(Oidc(kind="oidc", issuer=address, audience=AUDIENCE), Path())


def test_the_key_of_this_machine_opens_everything(tmp_path: Path) -> None:
    async def play() -> None:
        tokens = make_tokens(LocalKey(), tmp_path / "serve")
        key = local_key(tmp_path / "serve")
        caller = await tokens.caller(f"Bearer {key}")
        assert caller.scopes == {"chat", "extract", "diagnose", "deidentify", "admin"}
        for wrong in (key[:-1], key + "x", key.upper(), "x"):
            with pytest.raises(Refusal) as refusal:
                await tokens.caller(f"Bearer {wrong}")
            assert refusal.value.status == 401

    asyncio.run(play())


def test_the_key_is_made_once_and_for_its_owner_only(tmp_path: Path) -> None:
    folder = tmp_path / "serve"
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: local_key(folder), range(64)))
    assert len(found) == 1
    assert len(next(iter(found))) >= 43  # 256 bits in base64
    assert [path.name for path in folder.iterdir()] == ["key"]
    assert stat.S_IMODE((folder / "key").stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert local_key(tmp_path / "other") not in found


def test_a_key_that_others_read_is_not_used(tmp_path: Path) -> None:
    local_key(tmp_path)
    (tmp_path / "key").chmod(0o640)
    with pytest.raises(UserError, match="600"):
        local_key(tmp_path)


def test_a_broken_key_is_not_used(tmp_path: Path) -> None:
    local_key(tmp_path)
    (tmp_path / "key").write_text("\n")
    with pytest.raises(UserError, match="not a key"):
        local_key(tmp_path)


def test_bearer_reads_the_scheme_in_any_case() -> None:
    assert bearer("BEARER abc") == bearer("Bearer  abc ") == "abc"
