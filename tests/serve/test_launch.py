"""The server as it is started: refused where it would be open, silent, ended in order; what dies
comes back."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from serve_tools import LONG, NEEDS_REDIS, Redis, Started, free

from residency.cli.serving import read_arguments
from residency.core.errors import GateRefused, UserError
from residency.serve.launch import check, greeting
from residency.serve.settings import Serve


def test_other_machines_need_real_authentication() -> None:
    with pytest.raises(GateRefused, match=r"^host: 0\.0\.0\.0 .* auth\.kind: oidc .*\.$"):
        check(Serve(host="0.0.0.0"))
    with pytest.raises(UserError, match=r"limits\.redis: 2 workers"):
        check(Serve(workers=2))
    check(Serve(host="::1"))


def test_runs_settings_and_names_are_told_apart(artefacts: dict[str, Path], tmp_path: Path) -> None:
    config = tmp_path / "serve.yaml"
    old_key = "canary_seconds: 7"
    config.write_text(f"port: 9001\nlimits: {{per_second: 2}}\n{old_key}\n")
    models, settings = read_arguments(
        [str(artefacts["ner"]), f"cardiology={artefacts['words']}", "limits.per_second=3"], config
    )
    assert models == {"ner": artefacts["ner"], "cardiology": artefacts["words"]}
    assert (settings.port, settings.limits.per_second) == (9001, 3)
    assert settings.fingerprint_seconds == 7
    with pytest.raises(UserError, match="named ner is served already"):
        read_arguments([str(artefacts["ner"]), str(artefacts["ner"])], None)
    with pytest.raises(UserError, match="is no name of a model"):
        read_arguments([f"a b={artefacts['ner']}"], None)
    with pytest.raises(UserError, match="no run is given"):
        read_arguments(["port=9000"], None)


NOTE = {"text": "Zyxwvutsrq ho khan, metformin 500mg", "model": "ner"}


@pytest.mark.server
def test_the_printed_commands_work_and_nothing_accepted_is_lost_at_the_end(
    start: Callable[..., Started], artefacts: dict[str, Path]
) -> None:
    server = start(
        *(str(artefacts["ner"]), str(artefacts["words"])),
        *("limits.per_second=1000", f"limits.drain={LONG}"),
        cold=True,
    )
    commands = [line for line in server.out.read_text().splitlines() if line.startswith("curl")]
    assert len(commands) == 2 and server.key() not in server.out.read_text()
    if shutil.which("curl"):
        for command in commands:
            said = subprocess.run(
                ["sh", "-c", command], capture_output=True, text=True, check=True
            ).stdout
            assert '"digest"' in said or '"chat.completion"' in said
    answers: list[Any] = []

    def ask() -> None:
        with httpx2.Client(
            base_url=server.address, headers=dict(server.client.headers), timeout=LONG
        ) as client:
            while True:
                try:
                    answers.append(client.post("/extract", json=NOTE).status_code)
                except httpx2.ConnectError:
                    return  # the port is closed: not accepted
                except httpx2.HTTPError as error:
                    answers.append(type(error).__name__)
                    return
                if answers[-1] != 200:
                    return

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    server.until(lambda: len(answers) > 60)
    assert server.end() == 0
    for thread in threads:
        thread.join(LONG)
    assert set(answers) <= {200, 503} and answers.count(200) > 60
    assert "Zyxwvutsrq" not in server.out.read_text()
    lines = "".join(path.read_text() for path in (server.folder / "serve").glob("audit-*.jsonl"))
    assert len(re.findall(r'"route":"/extract","status":200', lines)) >= answers.count(200)
    assert "Zyxwvutsrq" not in lines


@pytest.mark.server
@NEEDS_REDIS
def test_a_worker_that_is_killed_comes_back(
    start: Callable[..., Started], artefacts: dict[str, Path], redis: Redis
) -> None:
    server = start(
        str(artefacts["ner"]),
        str(artefacts["words"]),
        "workers=2",
        f"limits.redis=redis://127.0.0.1:{redis.port}",
        "limits.per_second=1000",
        "fingerprint_seconds=0.5",
    )
    said = server.out.read_text()
    assert re.search(
        r"2 workers, each with engines of its own: about 0\.0[1-9] GB of weights", said
    )
    assert "redis://" not in said
    right = server.client.post("/extract", json=NOTE).json()
    server.until(lambda: len(server.workers()) == 2)
    before = server.workers()
    os.kill(before[0], signal.SIGKILL)
    server.until(lambda: len(set(server.workers()) - {before[0]}) == 2)
    server.until(lambda: server.ready() == 200)
    with httpx2.Client(
        base_url=server.address, headers=dict(server.client.headers), timeout=LONG
    ) as client:
        assert client.post("/extract", json=NOTE).json() == right
        asked = {
            "model": "words",
            "messages": [{"role": "user", "content": "a?"}],
            "max_tokens": 4,
            "stream": True,
        }
        assert client.post("/v1/chat/completions", json=asked).text.endswith("data: [DONE]\n\n")
    children = server.workers()
    assert server.end() == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in children)


@pytest.mark.server
@NEEDS_REDIS
def test_a_worker_that_cannot_start_ends_the_server_with_a_sentence(
    artefacts: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(artefacts["ner"], folder)
    weights = next(folder.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-8])
    done = subprocess.run(
        [
            *(sys.executable, "-m", "residency.cli", "serve", str(folder), f"port={free()}"),
            *("workers=2", "limits.redis=redis://127.0.0.1:1", f"logs.folder={tmp_path / 'serve'}"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


def test_the_greeting_names_each_kind_once(engines: dict[str, Any]) -> None:
    lines = greeting({name: engine.served for name, engine in engines.items()}, Serve(port=9000))
    assert [line.split()[2] for line in lines[1:]] == [
        f"http://127.0.0.1:9000{path}" for path in ("/extract", "/diagnose", "/v1/chat/completions")
    ]


def test_a_name_of_the_model_ledger_is_served(artefacts: dict[str, Path], tmp_path: Path) -> None:
    from residency.core.files import file_digest
    from residency.ops.model_ledger import ModelLedger

    ledger = ModelLedger(tmp_path / "models")
    ledger.promote("cardiology", ledger.add(artefacts["words"]).digest)
    models, _ = read_arguments(["cardiology"], None, tmp_path / "models")
    assert file_digest(models["cardiology"] / "artefact.json") == file_digest(
        artefacts["words"] / "artefact.json"
    )


ASKED = {"model": "words", "messages": [{"role": "user", "content": "a?"}], "max_tokens": 12}
KINDS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("/extract", NOTE),
    ("/v1/chat/completions", ASKED),
    ("/v1/chat/completions", {**ASKED, "stream": True}),
)


@pytest.mark.server
@pytest.mark.parametrize(("workers", "answered"), [(1, 0), (1, 60), (1, 150), (2, 30)])
def test_of_200_requests_under_way_none_that_was_accepted_is_lost(
    workers: int,
    answered: int,
    start: Callable[..., Started],
    artefacts: dict[str, Path],
    request: pytest.FixtureRequest,
) -> None:
    """Told to end when so many of them have been answered. Accepted is what the audit log has: each
    such request has its whole answer."""
    more = list[str]()
    if workers > 1:
        if shutil.which("redis-server") is None:
            pytest.skip("redis-server is not installed")
        redis = request.getfixturevalue("redis")
        more = ["workers=2", f"limits.redis=redis://127.0.0.1:{redis.port}"]
    server = start(
        str(artefacts["ner"]),
        str(artefacts["words"]),
        "limits.per_second=100000",
        "limits.at_once=256",
        f"limits.seconds={LONG}",
        f"limits.drain={LONG}",
        *more,
    )
    whole, refused, unheard, broken = list[str](), list[str](), list[str](), list[str]()
    headers = dict(server.client.headers)

    def ask(number: int) -> None:
        path, body = KINDS[number % len(KINDS)]
        try:
            with httpx2.Client(
                base_url=server.address, headers=headers, timeout=LONG, trust_env=False
            ) as client:
                found = client.post(path, json=body)
        except httpx2.HTTPError as error:
            unheard.append(type(error).__name__)
            return
        complete = (
            found.text.endswith("data: [DONE]\n\n") if body.get("stream") else bool(found.json())
        )
        if found.status_code == 503:
            refused.append(found.headers["retry-after"])
        else:
            (whole if found.status_code == 200 and complete else broken).append(found.text)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(200)]
    for thread in threads:
        thread.start()
    server.until(lambda: len(whole) >= answered)
    assert server.end() == 0
    for thread in threads:
        thread.join(LONG)
    assert len(whole) + len(refused) + len(unheard) == 200 and not broken
    lines = "".join(path.read_text() for path in (server.folder / "serve").glob("audit-*.jsonl"))
    assert len(re.findall(r'"status":200', lines)) == len(whole) >= answered
    assert '"cancelled"' not in lines and '"failed"' not in lines
