"""Keys of a provider over real HTTP, with a clock that the tests move: what is accepted when, and
how often the provider is asked."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from provider import AUDIENCE, Clock, Provider

from residency.serve import Refusal
from residency.serve.auth import OidcTokens
from residency.serve.auth.jwks import WAITING, ProviderKeys, Unanswered, usable
from residency.serve.settings import Oidc

FRESH, STALE, COOLDOWN, TIMEOUT = 300.0, 3600.0, 10.0, 60.0


@pytest.fixture(scope="module")
def keys() -> dict[str, Any]:
    """Key pairs, made once: the tests publish and withdraw them."""
    made = Provider()
    for name in ("old", "new", "third"):
        made.rsa(name)
    made.close()
    return {name: (made.private[name], made.published[name]) for name in made.private}


@pytest.fixture
def provider(keys: dict[str, Any]) -> Iterator[Provider]:
    made = Provider()
    made.private = {name: private for name, (private, _) in keys.items()}
    made.published = {"old": keys["old"][1]}
    made.ready = {name: public for name, (_, public) in keys.items()}  # type: ignore[attr-defined]
    yield made
    made.close()


class Case:
    """Tokens of a provider under a moved clock."""

    def __init__(self, provider: Provider, **settings: Any) -> None:
        self.provider, self.clock = provider, Clock()
        given = {
            "issuer": provider.issuer,
            "audience": AUDIENCE,
            "keys_fresh": FRESH,
            "keys_stale": STALE,
        }
        given |= {"cooldown": COOLDOWN, "timeout": TIMEOUT} | settings
        self.tokens = OidcTokens(Oidc(kind="oidc", **given), self.clock)

    def rotate(self, name: str) -> None:
        self.provider.published[name] = self.provider.ready[name]  # type: ignore[attr-defined]

    async def status(self, key: str, **named: Any) -> int:
        """200, or the status of the refusal."""
        try:
            caller = await self.tokens.caller(f"Bearer {self.provider.token(key, **named)}")
        except Refusal as refusal:
            return refusal.status
        assert caller.subject == "nurse-1"
        return 200

    async def settled(self) -> None:
        """Let a fetch in the background end."""
        self.tokens.keys.look()
        if self.tokens.keys._fetch is not None:
            await asyncio.wait({self.tokens.keys._fetch}, timeout=600)

    async def wait(self, seconds: float, step: float = 5.0) -> None:
        """Time passes, and the server looks at its keys as it does by itself."""
        for _ in range(round(seconds / step)):
            self.clock.now += step
            await self.settled()


def run(provider: Provider, play: Callable[[Case], Awaitable[None]], **settings: Any) -> None:
    async def whole() -> None:
        case = Case(provider, **settings)
        try:
            await play(case)
        finally:
            await case.tokens.close()

    asyncio.run(whole())


@pytest.mark.parametrize("found", ["discovery", "given"])
def test_a_token_of_a_published_key_is_accepted_and_the_key_fetched_once(
    provider: Provider, found: str
) -> None:
    async def play(case: Case) -> None:
        assert [await case.status("old") for _ in range(20)] == [200] * 20

    run(provider, play, jwks=provider.jwks if found == "given" else "")
    assert (provider.fetches, provider.discoveries) == (1, int(found == "discovery"))


def test_requests_that_come_together_share_the_first_fetch(provider: Provider) -> None:
    async def play(case: Case) -> None:
        assert (
            await asyncio.gather(*(case.status("old") for _ in range(WAITING))) == [200] * WAITING
        )

    run(provider, play)
    assert provider.fetches == 1


def test_a_rotated_key_is_accepted_at_once(provider: Provider) -> None:
    async def play(case: Case) -> None:
        assert await case.status("old") == 200
        case.rotate("new")
        assert (
            await asyncio.gather(*(case.status("new") for _ in range(WAITING))) == [200] * WAITING
        )
        await case.wait(COOLDOWN)
        case.rotate("third")
        assert await case.status("third") == 200

    run(provider, play)
    assert provider.fetches == 3


def test_ten_thousand_invented_ids_cause_at_most_one_fetch_a_cooldown(provider: Provider) -> None:
    async def play(case: Case) -> None:
        assert await case.status("old") == 200
        token = provider.token("old")
        begun = provider.fetches

        async def invented() -> int:
            try:
                await case.tokens.keys.find(secrets.token_hex(8))
            except Refusal as refusal:
                return refusal.status
            return 200

        for round_ in range(1, 11):  # ten cooldowns
            for _ in range(10):
                statuses = await asyncio.gather(*(invented() for _ in range(100)))
                assert set(statuses) <= {401, 503}
                await case.tokens.caller(f"Bearer {token}")
            assert provider.fetches - begun <= round_
            case.clock.now += COOLDOWN
        assert len(case.tokens.keys._unknown) <= 1024

    run(provider, play)
    assert provider.fetches >= 2  # the flood did cause fetches


def test_a_key_rotated_during_a_flood_is_accepted_within_one_cooldown(provider: Provider) -> None:
    async def play(case: Case) -> None:
        assert await case.status("old") == 200
        assert await case.status("old", kid="invented") == 401
        case.rotate("new")
        accepted, begun = None, case.clock.now
        for tenth in range(0, int(COOLDOWN * 10) + 1):
            assert await case.status("old", kid=f"invented-{tenth}") == 401
            if await case.status("new") == 200:
                accepted = tenth / 10
                break
            case.clock.now = begun + (tenth + 1) / 10
        assert accepted is not None
        assert accepted <= COOLDOWN

    run(provider, play)


def test_an_id_that_was_not_found_causes_no_second_fetch(provider: Provider) -> None:
    async def play(case: Case) -> None:
        assert await case.status("old") == 200
        assert await case.status("old", kid="gone") == 401
        after = provider.fetches
        for _ in range(5):
            case.clock.now += COOLDOWN
            assert await case.status("old", kid="gone") == 401
        assert provider.fetches == after
        case.rotate("new")  # and leaves the way free for a key that is new
        assert await case.status("new") == 200

    run(provider, play)


def test_a_token_that_could_not_be_accepted_causes_no_fetch(provider: Provider) -> None:
    async def play(case: Case) -> None:
        assert await case.status("old") == 200
        after = provider.fetches
        assert await case.status("old", kid="invented", algorithm="RS512") == 401
        assert await case.status("old", kid="i" * 300) == 401
        assert provider.fetches == after

    run(provider, play)


def test_an_id_that_appears_later_is_found_when_keys_are_due(provider: Provider) -> None:
    async def play(case: Case) -> None:
        assert await case.status("old") == 200
        assert await case.status("new") == 401  # the provider is late
        case.rotate("new")
        await case.wait(FRESH / 2)
        assert await case.status("new") == 200

    run(provider, play)


def test_a_withdrawn_key_is_refused_within_its_deadline(provider: Provider) -> None:
    async def play(case: Case) -> None:
        assert await case.status("old") == 200
        provider.withdraw("old")
        assert await case.status("old") == 200
        await case.wait(FRESH)
        assert await case.status("old") == 401

    run(provider, play)


def test_a_withdrawn_key_is_refused_by_the_first_request_after_a_standstill(
    provider: Provider,
) -> None:
    async def play(case: Case) -> None:
        assert await case.status("old") == 200
        provider.withdraw("old")
        case.clock.now += FRESH + 1
        assert await case.status("old") == 401

    run(provider, play)


@pytest.mark.parametrize("how", ["status", "closed", "not json", "huge", "hangs"])
def test_an_outage_is_survived_and_not_beyond_keys_stale(provider: Provider, how: str) -> None:
    async def play(case: Case) -> None:
        assert await case.status("old") == 200
        before = provider.fetches
        outage(provider, how)
        if how == "hangs":
            case.tokens.keys.settings = case.tokens.settings.model_copy(update={"timeout": 0.02})
        for _ in range(60):  # ten minutes
            await case.wait(10.0, 10.0)
            assert await case.status("old") == 200
        assert case.tokens.trouble()
        await case.wait(STALE - 600.0, 100.0)
        assert await case.status("old") == 200
        case.clock.now += 1
        assert await case.status("old") == 503
        if how == "status":
            assert provider.fetches - before <= (STALE + 1) / COOLDOWN + 1
        back(provider, how)
        case.tokens.keys.settings = case.tokens.settings
        case.clock.now += COOLDOWN
        assert await case.status("old") == 200
        assert not case.tokens.trouble()

    run(provider, play)


def outage(provider: Provider, how: str) -> None:
    match how:
        case "status":
            provider.status = 503
        case "not json":
            provider.raw = b"<html>maintenance</html>"
        case "huge":
            provider.raw = b" " * 2_000_000
        case "hangs":
            provider.hang = threading.Event()
        case "closed":
            provider.server.shutdown()
            provider.server.server_close()


def back(provider: Provider, how: str) -> None:
    if how == "closed":
        provider.server = type(provider.server)(
            provider.server.server_address, provider.server.RequestHandlerClass
        )
        provider.server.daemon_threads = True
        provider.thread = threading.Thread(
            target=provider.server.serve_forever, args=(0.01,), daemon=True
        )
        provider.thread.start()
    provider.status, provider.raw = 200, None
    if provider.hang is not None:
        provider.hang.set()
        provider.hang = None


def test_a_hanging_endpoint_delays_nobody_whose_key_is_known(provider: Provider) -> None:
    async def play(case: Case) -> None:
        assert await case.status("old") == 200
        provider.hang = threading.Event()
        case.tokens.keys.settings = case.tokens.settings.model_copy(update={"timeout": 3.0})
        case.clock.now += FRESH / 2
        case.tokens.keys.look()  # as the server does by itself
        strangers = [
            asyncio.create_task(case.status("old", kid=f"invented-{n}")) for n in range(50)
        ]
        token = f"Bearer {provider.token('old')}"
        delays = []
        for _ in range(200):
            begun = time.thread_time()
            await case.tokens.caller(token)
            delays.append(time.thread_time() - begun)
            await asyncio.sleep(0)
        assert case.tokens.keys._fetch is not None  # it hangs to this moment
        assert sorted(delays)[len(delays) // 2] < 0.005
        assert set(await asyncio.gather(*strangers)) == {
            503
        }  # and those who wait are told within the time-out

    run(provider, play)


def test_a_server_that_never_saw_keys_says_503_and_asks_once_a_cooldown(provider: Provider) -> None:
    async def play(case: Case) -> None:
        assert await asyncio.gather(*(case.status("old") for _ in range(50))) == [503] * 50
        assert provider.discoveries == 1
        with pytest.raises(Refusal) as refusal:
            await case.tokens.caller(f"Bearer {provider.token('old')}")
        assert refusal.value.retry_after == COOLDOWN
        provider.status = 200
        case.clock.now += COOLDOWN
        assert await case.status("old") == 200

    provider.status = 500
    run(provider, play)


def test_an_unknown_id_during_an_outage_is_not_called_invalid(provider: Provider) -> None:
    async def play(case: Case) -> None:
        assert await case.status("old") == 200
        provider.status = 500
        case.rotate("new")
        assert await case.status("new") == 503
        provider.status = 200
        case.clock.now += COOLDOWN
        assert await case.status("new") == 200

    run(provider, play)


def test_discovery_that_names_another_issuer_is_not_believed(provider: Provider) -> None:
    async def play(case: Case) -> None:
        assert await case.status("old") == 503
        assert "issuer" in case.tokens.trouble()

    provider.named = "https://elsewhere.example"
    run(provider, play)
    assert provider.fetches == 0


def test_discovery_that_points_to_plain_http_elsewhere_is_not_followed(provider: Provider) -> None:
    async def play(case: Case) -> None:
        assert await case.status("old") == 503
        assert "https" in case.tokens.trouble()

    provider.jwks = "http://192.0.2.7/keys"
    run(provider, play)


def test_an_empty_set_withdraws_every_key(provider: Provider) -> None:
    async def play(case: Case) -> None:
        assert await case.status("old") == 200
        provider.published.clear()
        await case.wait(FRESH)
        assert await case.status("old") == 401

    run(provider, play)


def test_only_keys_that_verify_signatures_are_taken(provider: Provider) -> None:
    good = provider.published["old"]
    weak = Provider()
    weak.rsa("weak", 1024)
    weak.close()
    entries = [
        {**good, "kid": "for-encryption", "use": "enc"},
        {**good, "kid": "other-kind", "alg": "RSA-OAEP"},
        {name: value for name, value in good.items() if name != "kid"},
        {"kty": "oct", "kid": "symmetric", "k": "c2VjcmV0", "alg": "HS256"},
        {"kty": "RSA", "kid": "broken", "n": "!", "e": "AQAB"},
        {"kty": "EC", "kid": "curve", "crv": "P-384", "x": "AA", "y": "AA"},
        weak.published["weak"],
        "text",
        good,
        {**weak.published["weak"], "kid": "old"},
    ]
    found = usable({"keys": entries}, ("RS256", "ES256"))
    assert list(found) == ["old"]
    assert found["old"].key.key_size == 2048
    assert usable({"keys": [good]}, ("ES256",)) == {}
    with pytest.raises(Unanswered):
        usable(json.loads('{"keys": 5}'), ("RS256",))


def test_keys_end_what_they_began(provider: Provider) -> None:
    async def play() -> None:
        keys = ProviderKeys(Oidc(kind="oidc", issuer=provider.issuer, audience=AUDIENCE))
        provider.hang = threading.Event()
        keys.start()
        keys.look()
        await asyncio.sleep(0.05)
        await keys.close()
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(play())


def test_whoever_asks_hears_how_each_fetch_ended(provider: Provider) -> None:
    heard: list[str] = []

    async def whole() -> None:
        settings = Oidc(kind="oidc", issuer=provider.issuer, audience=AUDIENCE, jwks=provider.jwks)
        for address in (provider.jwks, "http://127.0.0.1:9/nobody-listens"):
            keys = ProviderKeys(settings.model_copy(update={"jwks": address}), told=heard.append)
            with contextlib.suppress(Refusal):
                await keys.find("old")
            await keys.close()

    asyncio.run(whole())
    assert heard == ["ok", "failed"]
