"""Requests a second of `residency serve`, of a plain FastAPI app around a pipeline; what the
gateway adds; how long /extract takes.

One tuned encoder, invented notes of one length, the load from a process of its own on the same
machine, servers in turn in every round.

  plain        FastAPI, transformers pipeline("token-classification"), one call per request, a def handler, uvicorn; torch's own threads
  plain-1      the same with one thread of torch in each call, which suits requests side by side better
  ours         residency serve, one process, with the key of this machine, audit log and figures; only the rate limit is out of the way
  ours-export  the same with the run's export (residency export onnx): bfloat16 on OpenVINO where the processor computes in it and the score on
               the run's held-out part holds; its entities are compared with those of ours

The gateway's part: one client after another over HTTP, minus engine.classify() called directly in a
process of the same settings, in turn.
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
from _serving import (
    centile,
    exported,
    free,
    load,
    milliseconds,
    ours,
    per_second,
    plain,
    texts,
    tuned,
)

SYSTEMS = ("plain", "plain-1", "ours", "ours-export")
OPEN = "limits.per_second=1000000"


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--steps", type=int, default=60, help="steps of tuning (default 60)")
    options.add_argument(
        "--tokens", type=int, default=200, help="tokens of a note (default 200, 10 more or less)"
    )
    options.add_argument("--clients", type=int, nargs="+", default=[16, 32])
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument(
        "--seconds", type=float, default=4, help="of a system in a round (default 4)"
    )
    options.add_argument(
        "--rates", type=float, nargs="+", default=[20, 40], help="requests/s of the moderate load"
    )
    given = options.parse_args()
    if given.quick:
        given.steps, given.clients, given.rounds, given.seconds, given.rates = 2, [4], 1, 1.0, [10]
    import torch

    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as work:
        measure(given, Path(work))


def measure(given: argparse.Namespace, work: Path) -> None:
    """Tune, start all servers, ask them in turn."""
    from residency.workflows.evaluate import examples_of_run
    from residency.workflows.finished import artefact_of

    finished = tuned(work / "tuned", given.steps, given.threads)
    artefact = artefact_of(finished)
    save_plain(artefact, work / "plain")
    notes = texts(artefact, given.tokens, 64)
    ports = {name: free() for name in SYSTEMS}
    with ExitStack() as stack:
        stack.enter_context(
            plain(ports["plain"], work / "plain", given.threads, work / "plain.txt")
        )
        stack.enter_context(plain(ports["plain-1"], work / "plain", 1, work / "plain-1.txt"))
        stack.enter_context(ours(ports["ours"], finished, given.threads, work / "ours", OPEN))
        export = exported(artefact, examples_of_run(finished, "test"), work / "export")
        stack.enter_context(ours(ports["ours-export"], export, given.threads, work / "ours", OPEN))
        key = (work / "ours/serve/key").read_text("ascii").strip()
        plans = {name: {"port": ports[name], "texts": notes} for name in SYSTEMS}
        plans["ours"]["tokens"] = plans["ours-export"]["tokens"] = [key]
        rows, measured = batching(given, plans)
        more, gateway = overhead(given, plans["ours"], artefact)
        last, moderate = calm(given, plans)
    report(
        "serve_batching",
        given,
        ("what", *SYSTEMS, "ours / plain, ours-export / plain", "the same, of the better plain"),
        [*rows, *more, *last, alike(artefact, export, notes)],
        batching=measured,
        gateway=gateway,
        moderate=moderate,
    )


def save_plain(artefact: Path, folder: Path) -> None:
    """The same weights as plain transformers reads them."""
    from residency.models import artefact as artefacts
    from residency.models.base import load_tokenizer

    _, model, _ = artefacts.load(artefact)
    model.float().save_pretrained(folder)
    load_tokenizer(artefact).save_pretrained(folder)


def batching(
    given: argparse.Namespace, plans: dict[str, dict[str, Any]]
) -> tuple[list[list[str]], list[Any]]:
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
        ratios = {
            name: [
                median(a / b for a, b in zip(rates[name], base, strict=True))
                for base in (rates["plain"], better)
            ]
            for name in ("ours", "ours-export")
        }
        said = [", ".join(f"{ratio[at]:.2f}" for ratio in ratios.values()) for at in (0, 1)]
        each = [f"{median(rates[name]):.0f}" for name in SYSTEMS]
        rows.append([f"requests/s, {clients} clients", *each, *said])
        rows.append(
            [
                f"p95, {clients} clients, ms",
                *(f"{centile(late[n], 0.95):.0f}" for n in SYSTEMS),
                "",
                "",
            ]
        )
        if any(failed.values()):
            rows.append(
                [f"not answered 200, {clients} clients", *(str(failed[n]) for n in SYSTEMS), "", ""]
            )
        measured.append(
            {"clients": clients, "per_second": rates, "ratios": ratios, "failed": failed}
        )
        say(" | ".join(rows[-1 - any(failed.values()) - 1]))
    return rows, measured


def overhead(
    given: argparse.Namespace, plan: dict[str, Any], artefact: Path
) -> tuple[list[list[str]], Any]:
    """p50 over HTTP with authentication, minus p50 of the engine alone."""
    from residency.serve.engines.in_process import load as engine_of
    from residency.serve.settings import Serve

    engine = engine_of(artefact, "notes", Serve())
    http, alone = [], []

    async def direct() -> float:
        took, until, number = [], time.time() + given.seconds, 0
        while time.time() < until:
            begun = time.perf_counter()
            await engine.classify(plan["texts"][number % len(plan["texts"])])
            took.append(1000 * (time.perf_counter() - begun))
            number += 7
        return median(took)

    for turn in range(-1, given.rounds):
        pair = (
            asyncio.run(direct()),
            median(milliseconds(load(kind="closed", clients=1, seconds=given.seconds, **plan))),
        )
        if turn >= 0:
            alone.append(pair[0])
            http.append(pair[1])
    asyncio.run(engine.close())
    added = median(a - b for a, b in zip(http, alone, strict=True))
    say(f"gateway: {added:.2f} ms")
    return [
        [
            "p50 of one client, ms: over HTTP; engine alone",
            "",
            "",
            f"{median(http):.2f}; {median(alone):.2f}",
            "",
            "",
            "",
        ],
        ["gateway at p50, ms", "", "", f"{added:.2f}", "", "", ""],
    ], {"http": http, "engine": alone, "added": added}


def calm(
    given: argparse.Namespace, plans: dict[str, dict[str, Any]]
) -> tuple[list[list[str]], list[Any]]:
    """How long answers take at a moderate load."""
    rows, measured = [], []
    for rate in given.rates:
        said = {}
        for name in ("ours", "ours-export"):
            took, sent = [], []
            for turn in range(given.rounds):
                plan = {
                    "kind": "open",
                    "clients": 1,
                    "connections": 16,
                    "rate": rate,
                    "seconds": given.seconds,
                    "seed": turn,
                }
                answers = load(**plan | plans[name])
                took.append(milliseconds(answers))
                sent.append(len(answers))
            p50, p95 = [median(one) for one in took], [centile(one, 0.95) for one in took]
            said[name] = f"{median(p50):.0f}; {median(p95):.0f} ({min(p95):.0f} to {max(p95):.0f})"
            answered = [len(one) for one in took]
            measured.append(
                {
                    "system": name,
                    "rate": rate,
                    "sent": sent,
                    "answered": answered,
                    "p50": p50,
                    "p95": p95,
                }
            )
        rows.append(
            [
                f"/extract at {rate:g} requests/s, ms: p50; p95 (range of rounds)",
                "",
                "",
                *said.values(),
                "",
                "",
            ]
        )
        say(" | ".join(rows[-1]))
    return rows, measured


def alike(artefact: Path, export: Path, notes: list[str]) -> list[str]:
    """F1 of the export's entities against those of the artefact."""
    from residency.serve.engines.in_process import load as engine_of
    from residency.serve.settings import Serve

    found = []
    for folder in (artefact, export):
        engine: Any = engine_of(folder, "notes", Serve())
        answers = engine.predictor.classify(notes)
        found.append(
            {(n, s.start, s.end, s.label) for n, (a, _) in enumerate(answers) for s in a.spans}
        )
        asyncio.run(engine.close())
    whole, short = found
    f1 = (
        f"{2 * len(whole & short) / (len(whole) + len(short)):.4f}"
        if whole or short
        else "none found"
    )
    return [f"entities of {len(notes)} notes, F1 against ours", "", "", str(len(whole)), f1, "", ""]


if __name__ == "__main__":
    run(main)
