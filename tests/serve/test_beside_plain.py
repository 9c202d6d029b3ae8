"""Tokens a second of a chat beside a plain app: FastAPI, a handler that calls
``transformers.generate``, the same weights. In turn, each server in a process of its own; the ratio
is the median of the rounds'. Measured figures: benchmarks/results/serve-batching.md."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from urllib.error import URLError
from urllib.request import Request, urlopen

import pytest

TOKENS = 32
ASK = ("What is asthma?", "肺炎有什么症状？", "Tăng huyết áp là gì?", "Fever and cough: why?")
PLAIN = """
import sys, torch, transformers, uvicorn
from fastapi import Body, FastAPI
path, port = sys.argv[1:]
tokenizer = transformers.AutoTokenizer.from_pretrained(path)
model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
app = FastAPI()
@app.get("/readyz")
def ready(): return {}
@app.post("/v1/chat/completions")
def chat(messages: list = Body(), max_tokens: int = Body()):
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt")
    with torch.inference_mode():
        out = model.generate(**ids, max_new_tokens=max_tokens, do_sample=False, pad_token_id=0)
    new = out[0, ids["input_ids"].shape[1]:]
    return {"text": tokenizer.decode(new), "usage": {"completion_tokens": len(new)}}
uvicorn.run(app, host="127.0.0.1", port=int(port), log_level="error")
"""


@contextmanager
def server(command: list[str], port: int) -> Iterator[None]:
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": os.environ.get("THREADS", "1"),
        "PYTHONWARNINGS": "ignore",
    }
    one = subprocess.Popen([sys.executable, *command], env=environment, stdout=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 200
        while True:
            try:
                urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5).close()
                break
            except (URLError, OSError):
                assert time.monotonic() < until and one.poll() is None
                time.sleep(0.3)
        yield
    finally:
        one.terminate()
        one.wait(60)


def free() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def tokens_per_second(port: int, key: str, clients: int, each: int) -> float:
    """So many clients, so many questions each."""
    written = [0] * clients

    def ask(number: int) -> None:
        for turn in range(each):
            words = {"role": "user", "content": ASK[(number + turn) % len(ASK)]}
            body = {"model": "words", "messages": [words], "max_tokens": TOKENS}
            head = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
            url = f"http://127.0.0.1:{port}/v1/chat/completions"
            with urlopen(Request(url, json.dumps(body).encode(), head), timeout=300) as answer:
                written[number] += json.loads(answer.read())["usage"]["completion_tokens"]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(clients)]
    begun = time.perf_counter()
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    return sum(written) / (time.perf_counter() - begun)


@pytest.mark.sample
@pytest.mark.skipif("ROUNDS" not in os.environ, reason="a measurement: ROUNDS=5 at rest")
def test_chat_beside_generate_behind_a_plain_app(
    artefacts: dict[str, Path], tmp_path: Path
) -> None:
    from residency.models.artefact import load_chat

    _, model, chat = load_chat(artefacts["words"])
    model.float().save_pretrained(tmp_path / "plain")
    chat.tokenizer.save_pretrained(tmp_path / "plain")
    script = tmp_path / "plain.py"
    script.write_text(PLAIN)
    ports = [free(), free()]
    limits = ["limits.per_second=100000", "limits.minute_tokens=100000000", "limits.seconds=300"]
    served = ["-m", "residency.cli", "serve", f"words={artefacts['words']}", f"port={ports[1]}"]
    served += [f"logs.folder={tmp_path / 'serve'}", "limits.user_tokens=100000000", *limits]
    rounds = int(os.environ["ROUNDS"])
    with (
        server([str(script), str(tmp_path / "plain"), str(ports[0])], ports[0]),
        server(served, ports[1]),
    ):
        key = (tmp_path / "serve/key").read_text().strip()
        ratios: dict[int, float] = {}
        for clients, each in ((1, 6), (8, 6), (32, 2)):
            rates = [
                [tokens_per_second(port, key, clients, each) for port in ports]
                for _ in range(rounds + 1)  # the first one warms
            ]
            ratios[clients] = median(ours / plain for plain, ours in rates[1:])
            middle = [median(pair) for pair in zip(*rates[1:], strict=True)]
            print(
                f"{clients} clients: plain {middle[0]:.0f}, ours {middle[1]:.0f} tokens/s, {ratios[clients]:.2f}"
            )
    assert ratios[1] >= 1 and ratios[8] >= 3
