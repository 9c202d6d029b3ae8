"""A marked patient in every string of every request, through every end that a request may have:
found in answers alone."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from marks import FORMS, PATIENTS, TEXTS, leaks, marked, said
from provider import AUDIENCE, Provider
from serve_tools import LONG, Started

import residency

FAULTS = Path(__file__).parent / "faults"
SCOPES = "chat extract diagnose deidentify"
LANGS = {text: lang for lang in PATIENTS for text in (said(lang, "NFC"), said(lang, "NFD"))}
NAMES = (
    "text",
    "patient_info",
    "symptoms",
    "test_results",
    "content",
    "prompt",
    "user",
    "lang",
    "role",
    "model",
    "department",
)


def valid(words: str, lang: str = "vi") -> list[tuple[str, dict[str, Any]]]:
    """A good request of each route, with the patient wherever words may stand."""
    turns = [{"role": "system", "content": words}, {"role": "user", "content": words}]
    common = {"model": "words", "max_tokens": 3, "user": words, "stop": [words]}
    return [
        ("/extract", {"text": words, "model": "ner", "lang": lang}),
        (
            "/diagnose",
            {
                "patient_info": words,
                "symptoms": words,
                "test_results": words,
                "model": "triage",
                "lang": lang,
            },
        ),
        ("/deidentify", {"text": words, "lang": lang}),
        ("/v1/chat/completions", {"messages": turns, **common}),
        ("/v1/chat/completions", {"messages": turns, **common, "stream": True}),
        ("/v1/completions", {"prompt": words, **common}),
        ("/v1/completions", {"prompt": [words], **common, "echo": True, "logprobs": 1}),
        ("/v1/completions", {"prompt": words, **common, "stream": True}),
    ]


def wrong(words: str) -> Iterator[tuple[str, bytes, dict[str, str]]]:
    """Bodies that are refused, of each route: what is no JSON, other kinds, unknown fields and
    values, too long."""
    for path, body in valid(words):
        whole = json.dumps(body, ensure_ascii=False)
        kinds = {"content-type": "application/json"}
        for text in (
            whole[:-2],
            f'{{"text": "{words}',
            words,
            f'"{words}"',
            f'["{words}"]',
            f'{{"{words}": 1}}',
            "null",
        ):
            yield path, text.encode(), kinds
        yield path, whole.encode("utf-16"), kinds
        yield path, whole.encode() + b"\xff\xfe", kinds
        yield path, whole.encode(), {"content-type": f"text/plain; name={quoted(words)}"}
        yield (
            path,
            (
                "--b\r\ncontent-disposition: form-data; name=file; "
                f"filename={words}\r\n\r\n{words}\r\n--b--"
            ).encode(),
            {"content-type": "multipart/form-data; boundary=b"},
        )
        for field in body:
            for value in (
                {words: words},
                [[words]],
                [{"type": words, "text": words}],
                {"role": words, "content": words},
            ):
                yield path, json.dumps(body | {field: value}).encode(), kinds
        for extra in (
            {words: words},
            {"unknown": words},
            {"lang": words},
            {"role": words},
            {"max_tokens": words},
        ):
            yield path, json.dumps(body | extra).encode(), kinds
        yield path, json.dumps(body | {"model": words}).encode(), kinds
        if path[1] != "v":
            yield (
                path,
                json.dumps(
                    {k: v for k, v in body.items() if k != "model"} | {"department": words}
                ).encode(),
                kinds,
            )
        if "messages" in body:
            for turn in (
                {"role": words, "content": words},
                {"role": "user", "content": words, words: words},
                words,
                {"role": "user"},
            ):
                yield (
                    path,
                    json.dumps(body | {"messages": [turn]}, ensure_ascii=False).encode(),
                    kinds,
                )
        long = {name: words * 200 for name in body if name in ("text", "symptoms", "prompt")}
        yield (
            path,
            json.dumps(
                body | (long or {"messages": [{"role": "user", "content": words * 200}]})
            ).encode(),
            kinds,
        )


def quoted(words: str) -> str:
    """Words as a header can carry them."""
    return words.encode().decode("latin-1")


class Asking:
    """Asks a started server, with a token of its own for each request; looks for the patient in
    whatever is no success."""

    def __init__(self, server: Started, provider: Provider) -> None:
        self.server, self.provider, self.number = server, provider, 0
        self.client = httpx2.Client(base_url=server.address, timeout=LONG, trust_env=False)
        self.seen: Counter[int] = Counter()
        self.found: list[str] = []
        self.lock = threading.Lock()

    def token(self, words: str, **claims: Any) -> str:
        with self.lock:
            self.number += 1
            number = self.number
        return self.provider.token(
            "ec", **({"sub": f"{words} {number}", "name": words, "scope": SCOPES} | claims)
        )

    def __call__(
        self, method: str, path: str, words: str, token: str | None = None, **more: Any
    ) -> int:
        given = {
            "authorization": f"Bearer {self.token(words) if token is None else token}"
        } | more.pop("headers", {})
        pairs = [(name.encode(), value.encode("latin-1")) for name, value in given.items()]
        answer = self.client.request(method, path, headers=pairs, **more)
        self.look(
            answer.status_code,
            f"{method} {path[:20]}",
            answer.content,
            b"".join(name + value for name, value in answer.headers.raw),
        )
        return answer.status_code

    def look(self, status: int, what: str, content: bytes, headers: bytes) -> None:
        with self.lock:
            self.seen[status] += 1
            if (status != 200 and marked(content)) or marked(headers):
                self.found.append(f"{status} {what}: {content[:200]!r} {headers[:300]!r}")

    def post(self, path: str, body: Any, words: str, **more: Any) -> int:
        return self("POST", path, words, json=body, **more)

    def raw(self, request: bytes) -> None:
        """Bytes on the wire, as no client sends them."""
        with socket.create_connection(("127.0.0.1", self.server.port), 20) as wire:
            wire.sendall(request)
            wire.shutdown(socket.SHUT_WR)
            said = b""
            while piece := wire.recv(65536):
                said += piece
        status = int(said.split()[1]) if said.startswith(b"HTTP") else 0
        self.look(status, "raw", said, b"")


def test_the_search_finds_every_form() -> None:
    name = PATIENTS["vi"][1]
    for made in (name, name.upper(), json.dumps(name), ascii(name.lower()), repr(name.encode())):
        assert marked(f"x {made} y".encode())
    for shift in range(3):
        assert marked(base64.b64encode(b"." * shift + f"{name} of".encode()))
        assert marked(base64.b64encode(b"." * shift + PATIENTS["zh"][0].encode() + b"!"))
    assert not marked(Path(__file__).read_bytes())
    assert len(FORMS) > 200


def good(ask: Asking) -> None:
    for words in TEXTS:
        for path, body in valid(f"{words}, metformin.", LANGS[words]):
            assert ask.post(path, body, words) == 200, (path, body)
        assert ask("GET", "/v1/models", words) == 200


def bad(ask: Asking) -> None:
    for number, words in enumerate(TEXTS):
        for place, (path, body, headers) in enumerate(wrong(words)):
            if (
                place % len(TEXTS) == number or number < 1
            ):  # each kind once whole, then a sixth of them for each patient
                status = ask("POST", path, words, content=body, headers=headers)
                assert status in (200, 400, 404, 413, 415, 422), (status, path)
        large = {"text": words * 20_000}
        assert ask.post("/extract", large, words) == 413
        assert (
            ask.post("/v1/completions", {"model": "words", "prompt": words * 20_000}, words) == 413
        )


def strangers(ask: Asking, other: Provider) -> None:
    for words in TEXTS:
        path, body = valid(words)[0]
        for token in (
            words,
            f"{words}.{words}.{words}",
            other.token("ec", kid=words, sub=words),
            f"eyJ.{quoted(words)}",
        ):
            assert ask.post(path, body, words, token=quoted(token)) == 401
        for claims in (
            {"aud": words},
            {"iss": words},
            {"exp": 1},
            {"exp": words},
            {"sub": [words]},
        ):
            assert ask.post(path, body, words, token=ask.token(words, **claims)) == 401
        assert (
            ask.post(
                "/v1/completions", body, words, headers={"authorization": f"Basic {quoted(words)}"}
            )
            == 401
        )
        assert ask.post(path, body, words, token=ask.token(words, scope=words)) == 403
        token = ask.token(words)
        assert 429 in [ask.post(path, body, words, token=token) for _ in range(12)]


def elsewhere(ask: Asking) -> None:
    """In addresses, headers, methods, upgrades."""
    for words in TEXTS:
        raw = httpx2.URL("http://x/").copy_with(path=f"/{words}").raw_path.decode()
        for path in (
            raw,
            f"/extract{raw}",
            f"/v1{raw}",
            f"/v1/models{raw}",
            f"/v1/models{raw}/",
            f"/static/..{raw}",
        ):
            for method in ("GET", "POST", "DELETE", "OPTIONS"):
                assert ask(method, f"{path}?patient={words}&{words}=1", words) in (404, 405), path
        for method, path in (
            ("GET", "/extract"),
            ("GET", "/extract/"),
            ("POST", "/extract/"),
            ("PUT", "/v1/models"),
            ("GET", "/docs/"),
        ):
            assert ask(method, f"{path}?patient={words}", words) in (404, 405)
        for path in ("/healthz", "/readyz", "/metrics", "/docs", "/openapi.json"):
            ask("GET", f"{path}?patient={words}", words)
        named = (
            "user-agent",
            "referer",
            "cookie",
            "x-request-id",
            "x-forwarded-for",
            "traceparent",
            "accept",
            "accept-language",
            "x-patient",
            "host",
            "origin",
        )
        everywhere = {name: quoted(words) for name in named}
        path, body = valid(words)[0]
        assert ask.post(f"{path}?patient={words}", body, words, headers=everywhere) == 200
        assert ask.post(path, {"text": 1}, words, headers=everywhere) == 400
        data = words.encode()
        for line in (
            data + b" / HTTP/1.1",
            b"GET /" + data + b" HTTP/1.1",
            b"GET / " + data,
            b"POST /extract HTTP/1.1\r\ncontent-length: " + data,
        ):
            ask.raw(line + b"\r\nhost: " + data + b"\r\n" + data + b"\r\n\r\n" + data)
        up = (
            b"upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: "
            b"13\r\nsec-websocket-key: eHh4eHh4eHh4eHh4eHh4eA==\r\n"
        )
        ask.raw(b"GET " + raw.encode() + b" HTTP/1.1\r\nhost: x\r\n" + up + b"\r\n")
        ask.raw(
            b"POST /extract HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
            + data
            + b"\r\n"
            + data
        )


def failing(ask: Asking) -> None:
    for words in TEXTS:
        for path, body in valid(f"zzhandler {words}"):
            assert (
                ask.post(path, body, words) == (200 if path == "/v1/completions" else 500)
                or path == "/v1/completions"
            ), path
        for path, body in valid(f"zzboom {words}"):
            assert ask.post(path, body, words) in (500, 503), path


def slow(ask: Asking) -> None:
    def late(path: str, body: Any, words: str) -> None:
        assert ask.post(path, body, words) in (503, 504)

    def leaving(path: str, body: Any, words: str) -> None:
        headers = {"authorization": f"Bearer {ask.token(words)}"}
        with pytest.raises(httpx2.HTTPError):
            httpx2.post(
                f"{ask.server.address}{path}",
                json=body,
                headers=headers,
                timeout=0.7,
                trust_env=False,
            )

    for what in (late, leaving):
        work = [
            threading.Thread(target=what, args=(path, body, words))
            for words in TEXTS
            for path, body in valid(f"zzslow {words}")
            if path in ("/extract", "/v1/chat/completions")
        ]
        for thread in work:
            thread.start()
        for thread in work:
            thread.join(LONG)


def dying(ask: Asking) -> None:
    """The process that answers dies with a request in hand; what is late before it may still hold
    it up."""
    path, body = valid(f"zzexit {TEXTS[0]}")[0]
    for _ in range(10):
        try:
            status = ask.post(path, body, TEXTS[0])
        except httpx2.HTTPError:
            return
        assert status in (503, 504), status
    pytest.fail("it did not die")


@pytest.fixture
def provider() -> Iterator[Provider]:
    made = Provider()
    made.ec("ec")
    yield made
    made.close()


def settled(server: Started) -> None:
    server.until(lambda: server.ready() == 200)


def limit_of_cores(pid: int) -> str:
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
    return next(line for line in lines if line.startswith("Max core file size")).split()[4]


@pytest.mark.server
@pytest.mark.parametrize("workers", [1, 2])
def test_the_patient_is_found_in_answers_alone(
    workers: int,
    start: Callable[..., Started],
    artefacts: dict[str, Path],
    provider: Provider,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    if workers > 1 and shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    for name in ("work", "temporary"):
        (tmp_path / name).mkdir()
    source = Path(residency.__file__).parents[1]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, (FAULTS, source))))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    more = (
        ["workers=2", f"limits.redis=redis://127.0.0.1:{request.getfixturevalue('redis').port}"]
        if workers > 1
        else []
    )
    server = start(
        *(str(artefacts[name]) for name in ("ner", "triage", "words")),
        "auth.kind=oidc",
        f"auth.issuer={provider.issuer}",
        f"auth.audience={AUDIENCE}",
        "limits.seconds=6",
        "fingerprint_seconds=1",
        *more,
        cwd=tmp_path / "work",
        cold=True,  # the faults are planted at its start
    )
    ask, other = Asking(server, provider), Provider()
    try:
        other.ec("ec")
        good(ask)
        bad(ask)
        strangers(ask, other)
        elsewhere(ask)
        failing(ask)
        settled(server)
        slow(ask)
        settled(server)
        assert not marked(
            httpx2.get(f"{server.address}/metrics", trust_env=False, timeout=LONG).content
        )
        if sys.platform == "linux":
            pids = [*server.workers(), server.process.pid]
            assert {limit_of_cores(pid) for pid in pids} == {"0"}
        assert leaks([tmp_path]) == []
        dying(ask)
        if workers > 1:
            settled(server)
            assert leaks([tmp_path]) == [] and server.end() == 0
        else:
            assert server.process.wait(LONG) == -signal.SIGSEGV
    finally:
        other.close()
        ask.client.close()
    assert ask.found == []
    assert leaks([tmp_path]) == []
    assert {200, 400, 401, 403, 404, 405, 413, 429, 500, 504} <= set(ask.seen), ask.seen
    out = server.out.read_text()
    assert '"event":"crash"' in out and '"logger":"library"' in out, "the faults did not happen"
    assert '"outcome":"cancelled"' in out


@pytest.mark.server
@pytest.mark.parametrize("how", ["status", "event", "garbage"])
def test_what_a_failing_vllm_repeats_goes_nowhere(
    how: str, artefacts: dict[str, Path], tmp_path: Path
) -> None:
    for name in ("work", "temporary", "audit"):
        (tmp_path / name).mkdir()
    seen = tmp_path.with_name(f"{tmp_path.name}-seen")
    source = Path(residency.__file__).parents[1]
    told = {
        "FAKE_VLLM": f"fails: {how}",
        "FAKE_VLLM_SEEN": str(seen),
        "TMPDIR": str(tmp_path / "temporary"),
        "PYTHONPATH": str(source),
    }
    done = subprocess.run(
        [
            sys.executable,
            str(Path(__file__).with_name("upstream_asked.py")),
            str(artefacts["words"]),
            str(tmp_path / "audit"),
        ],
        env={**os.environ, **told},
        cwd=tmp_path / "work",
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    answers = json.loads(done.stdout)
    assert {one["status"] for one in answers} == {503, 0} and len(answers) == 2 * len(TEXTS) + 1
    assert marked(seen.read_text("utf-8").encode()), "vLLM was not asked"
    assert (
        marked(json.dumps(answers, ensure_ascii=False).encode())
        == marked(done.stdout)
        == marked(done.stderr)
        == []
    )
    assert leaks([tmp_path]) == []
