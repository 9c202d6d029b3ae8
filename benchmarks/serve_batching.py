"""Requests a second of `residency serve`, of a plain FastAPI app around a pipeline; what the gateway adds; how long /extract takes.

One tuned encoder, invented notes of one length, the load from a process of its own on the same machine, servers in turn in every round.

  plain      FastAPI, transformers pipeline("token-classification"), one call per request, a def handler, uvicorn; torch's own threads
  plain-1    the same with one thread of torch in each call, which suits requests side by side better
  ours       residency serve, one process, with the key of this machine, audit log and figures; only the rate limit is out of the way

The gateway's part: one client after another over HTTP, minus engine.mark() called directly in a process of the same settings, in turn.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

from _common import parser, report, rotated, run, say
from _serving import centile, free, load, milliseconds, ours, per_second, plain, texts, tuned

SYSTEMS = ("plain", "plain-1", "ours")
OPEN = "limits.per_second=1000000"


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--steps", type=int, default=60, help="steps of tuning (default 60)")
    options.add_argument("--tokens", type=int, default=200, help="tokens of a note (default 200, 10 more or less)")
    options.add_argument("--clients", type=int, nargs="+", default=[16, 32])
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--seconds", type=float, default=4, help="of a system in a round (default 4)")
    options.add_argument("--rates", type=float, nargs="+", default=[20, 40], help="requests/s of the moderate load")
    given = options.parse_args()
    if given.quick:
        given.steps, given.clients, given.rounds, given.seconds, given.rates = 2, [4], 1, 1.0, [10]
    import torch

    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as work:
        measure(given, Path(work))


def measure(given: argparse.Namespace, work: Path) -> None:
    """Tune, start all servers, ask them in turn."""
    from residency.pipeline import artefact_of

    finished = tuned(work / "tuned", given.steps, given.threads)
    artefact = artefact_of(finished)
    save_plain(artefact, work / "plain")
    notes = texts(artefact, given.tokens, 64)
    ports = {name: free() for name in SYSTEMS}
    with ExitStack() as stack:
        stack.enter_context(plain(ports["plain"], work / "plain", given.threads, work / "plain.txt"))
        stack.enter_context(plain(ports["plain-1"], work / "plain", 1, work / "plain-1.txt"))
        stack.enter_context(ours(ports["ours"], finished, given.threads, work / "ours", OPEN))
        key = (work / "ours/serve/key").read_text("ascii").strip()
        plans = {name: {"port": ports[name], "texts": notes} for name in SYSTEMS}
        plans["ours"]["tokens"] = [key]
        rows, measured = batching(given, plans)
        more, gateway = overhead(given, plans["ours"], artefact)
        last, moderate = calm(given, plans["ours"])
    report(
        "serve_batching", given, ("what", "plain", "plain-1", "ours", "ours / plain", "ours / better plain"),
        [*rows, *more, *last], batching=measured, gateway=gateway, moderate=moderate,
    )  # fmt: skip


def save_plain(artefact: Path, folder: Path) -> None:
    """The same weights as plain transformers reads them."""
    from residency.models import artefact as artefacts
    from residency.models.base import load_tokenizer

    _, model, _ = artefacts.load(artefact)
    model.float().save_pretrained(folder)
    load_tokenizer(artefact).save_pretrained(folder)


def batching(given: argparse.Namespace, plans: dict[str, dict[str, Any]]) -> tuple[list[list[str]], list[Any]]:
    """Requests a second with many clients at once."""
    rows, measured = [], []
    for clients in given.clients:
        rates: dict[str, list[float]] = {name: [] for name in SYSTEMS}
        late: dict[str, list[float]] = {name: [] for name in SYSTEMS}
        failed = dict.fromkeys(SYSTEMS, 0)
        for turn in range(-1, given.rounds):
            for name in rotated(SYSTEMS, turn):
                seconds = given.seconds if turn >= 0 else 1.0
                answers = load(kind="closed", clients=clients, seconds=seconds, **plans[name])
                if turn >= 0:
                    rates[name].append(per_second(answers))
                    late[name] += milliseconds(answers)
                    failed[name] += sum(status != 200 for *_, status in answers)
        better = [max(a, b) for a, b in zip(rates["plain"], rates["plain-1"], strict=True)]
        one = median(a / b for a, b in zip(rates["ours"], rates["plain"], strict=True))
        two = median(a / b for a, b in zip(rates["ours"], better, strict=True))
        each = [f"{median(rates[name]):.0f}" for name in SYSTEMS]
        rows.append([f"requests/s, {clients} clients", *each, f"{one:.2f}", f"{two:.2f}"])
        rows.append([f"p95, {clients} clients, ms", *(f"{centile(late[n], 0.95):.0f}" for n in SYSTEMS), "", ""])
        if any(failed.values()):
            rows.append([f"not answered 200, {clients} clients", *(str(failed[n]) for n in SYSTEMS), "", ""])
        measured.append({"clients": clients, "per_second": rates, "ratio": one, "ratio_better": two, "failed": failed})
        say(" | ".join(rows[-1 - any(failed.values()) - 1]))
    return rows, measured


def overhead(given: argparse.Namespace, plan: dict[str, Any], artefact: Path) -> tuple[list[list[str]], Any]:
    """p50 over HTTP with authentication, minus p50 of the engine alone."""
    from residency.serve.engine import load as engine_of
    from residency.serve.settings import Serve

    engine = engine_of(artefact, "notes", Serve())
    http, alone = [], []

    async def direct() -> float:
        took, until, number = [], time.time() + given.seconds, 0
        while time.time() < until:
            begun = time.perf_counter()
            await engine.mark(plan["texts"][number % len(plan["texts"])])
            took.append(1000 * (time.perf_counter() - begun))
            number += 7
        return median(took)

    for turn in range(-1, given.rounds):
        pair = (asyncio.run(direct()), median(milliseconds(load(kind="closed", clients=1, seconds=given.seconds, **plan))))
        if turn >= 0:
            alone.append(pair[0])
            http.append(pair[1])
    asyncio.run(engine.close())
    added = median(a - b for a, b in zip(http, alone, strict=True))
    say(f"gateway: {added:.2f} ms")
    return [
        ["p50 of one client, ms: over HTTP; engine alone", "", "", f"{median(http):.2f}; {median(alone):.2f}", "", ""],
        ["gateway at p50, ms", "", "", f"{added:.2f}", "", ""],
    ], {"http": http, "engine": alone, "added": added}


def calm(given: argparse.Namespace, plan: dict[str, Any]) -> tuple[list[list[str]], list[Any]]:
    """How long answers take at a moderate load."""
    rows, measured = [], []
    for rate in given.rates:
        took, sent = [], []
        for turn in range(given.rounds):
            answers = load(
                kind="open", clients=1, connections=16, rate=rate, seconds=given.seconds, seed=turn, **plan
            )
            took.append(milliseconds(answers))
            sent.append(len(answers))
        p95 = [centile(one, 0.95) for one in took]
        p50 = [median(one) for one in took]
        said = f"{median(p50):.0f}; {median(p95):.0f} ({min(p95):.0f} to {max(p95):.0f})"
        rows.append([f"/extract at {rate:g} requests/s, ms: p50; p95 (range of rounds)", "", "", said, "", ""])
        measured.append({"rate": rate, "sent": sent, "answered": [len(one) for one in took], "p50": p50, "p95": p95})
        say(rows[-1][0] + " " + said)
    return rows, measured


if __name__ == "__main__":
    run(main)
