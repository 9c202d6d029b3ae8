"""The server: requests a second beside a plain app, users over several workers, what its guard costs,
and a model in 4 bits on a GPU."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import sys
import threading
import time
from argparse import Namespace
from collections import Counter, defaultdict, deque
from collections.abc import Awaitable, Callable, Iterable
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from statistics import mean, median
from typing import Any
from urllib.request import Request, urlopen

import _common as common
from _common import ROOT, Subject, Table, report
from _serving import (
    Answer,
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
from residency.core.errors import UserError

SUBJECT = Subject(__doc__)
measure = SUBJECT.measure
sys.path.insert(0, str(ROOT / "tests" / "serve"))

SYSTEMS = ("plain", "plain-1", "ours", "ours-export")


@measure(
    "--steps 60 --tokens 200 --clients 16 32 --rounds 5 --seconds 4.0 --rates 20.0 40.0",
    quick="--steps 2 --clients 4 --rounds 1 --seconds 1 --rates 10",
)
def batching(given: Namespace) -> None:
    """Requests a second of `residency serve` and of a plain FastAPI app; what the gateway adds.

      plain        FastAPI, a pipeline, one call per request (_plain.app); torch's own threads
      plain-1      the same with one thread of torch in each call
      ours         residency serve, one process, with key, audit log and figures
      ours-export  the same with the run's export (residency export onnx)

    One tuned encoder, invented notes of one length, servers in turn in every round. The gateway's
    part: one client after another over HTTP, minus the engine called directly, in turn.
    """
    table = Table(
        f"what | {' | '.join(SYSTEMS)} | ours / plain, ours-export / plain | the same, of the better "
        "plain"
    )
    with common.folder() as work, ExitStack() as stack:
        run = tuned(work / "tuned", given.steps, given.threads)
        export = exported(run, work / "export")
        save_plain(run, work / "plain")
        notes, ports = texts(run, given.tokens, 64), {name: free() for name in SYSTEMS}
        for name in ("plain", "plain-1"):
            threads = given.threads if name == "plain" else 1
            out = work / f"{name}.txt"
            stack.enter_context(plain(ports[name], work / "plain", threads, out))
        for name, model in (("ours", run), ("ours-export", export)):
            settings = (work / "ours", "limits.per_second=1000000")
            stack.enter_context(ours(ports[name], model, given, *settings))
        key = (work / "ours/serve/key").read_text("ascii").strip()
        plans: dict[str, Any] = {name: {"port": ports[name], "texts": notes} for name in SYSTEMS}
        for name in ("ours", "ours-export"):
            plans[name]["tokens"] = [key]
        closed = [crowd(given, plans, table, clients) for clients in given.clients]
        gateway = overhead(given, plans["ours"], run, table)
        moderate = [calm(given, plans, table, rate) for rate in given.rates]
        found = [entities(plans[name], key) for name in ("ours", "ours-export")]
        f1 = 2 * len(found[0] & found[1]) / max(len(found[0]) + len(found[1]), 1)
        count = f"entities of {len(notes)} notes, F1 against ours"
        table.add(f"{count} |  |  | {len(found[0])} | {f1:.4f} |  | ")
    report(given, table, batching=closed, gateway=gateway, moderate=moderate)


def save_plain(run: Path, folder: Path) -> None:
    """The same weights as plain transformers reads them."""
    from residency.models.artefact import load as load_artefact
    from residency.models.base import load_tokenizer

    path = common.artefact(run)
    load_artefact(path)[1].float().save_pretrained(folder)
    load_tokenizer(path).save_pretrained(folder)


def crowd(given: Namespace, plans: dict[str, Any], table: Table, clients: int) -> dict[str, Any]:
    """Requests a second with many clients at once."""
    found: dict[str, list[list[Answer]]] = defaultdict(list)
    for turn, name in common.in_turn(SYSTEMS, given.rounds, warm=1):
        seconds = given.seconds if turn >= 0 else 1.0
        answers = load(kind="closed", clients=clients, seconds=seconds, **plans[name])
        found[name] += [answers] if turn >= 0 else []
    rates = {name: [per_second(one) for one in found[name]] for name in SYSTEMS}
    better = [max(pair) for pair in zip(rates["plain"], rates["plain-1"], strict=True)]
    cells = []
    for other in (rates["plain"], better):
        times = [[a / b for a, b in zip(rates[n], other, strict=True)] for n in SYSTEMS[2:]]
        cells.append(", ".join(f"{median(one):.2f}" for one in times))
    each = [f"{median(rates[name]):.0f}" for name in SYSTEMS]
    table.add(f"requests/s, {clients} clients | {' | '.join([*each, *cells])}")
    late = {name: [ms for one in found[name] for ms in milliseconds(one)] for name in SYSTEMS}
    each = [f"{centile(late[name], 0.95):.0f}" for name in SYSTEMS]
    table.add(f"p95, {clients} clients, ms | {' | '.join(each)} |  | ")
    failed = {n: sum(a[3] != 200 for one in found[n] for a in one) for n in SYSTEMS}
    if any(failed.values()):
        each = [str(count) for count in failed.values()]
        table.add(f"not answered 200, {clients} clients | {' | '.join(each)} |  | ")
    return {"clients": clients, "per_second": rates, "failed": failed}


def overhead(given: Namespace, plan: dict[str, Any], run: Path, table: Table) -> dict[str, Any]:
    """p50 over HTTP with authentication, minus p50 of the engine alone."""
    from residency.serve.engines.in_process import load as load_engine
    from residency.serve.settings import Serve

    engine = load_engine(common.artefact(run), "notes", Serve())

    async def direct() -> float:
        took, until, number = [], time.time() + given.seconds, 0
        while time.time() < until:
            begun = time.perf_counter()
            await engine.classify(plan["texts"][number % len(plan["texts"])])
            took.append(1000 * (time.perf_counter() - begun))
            number += 7
        return median(took)

    alone, http = [], []
    for _ in range(given.rounds + 1):
        alone.append(asyncio.run(direct()))
        answers = load(kind="closed", clients=1, seconds=given.seconds, **plan)
        http.append(median(milliseconds(answers)))
    asyncio.run(engine.close())
    added = median(a - b for a, b in zip(http[1:], alone[1:], strict=True))
    both = f"{median(http[1:]):.2f}; {median(alone[1:]):.2f}"
    table.add(f"p50 of one client, ms: over HTTP; engine alone |  |  | {both} |  |  | ")
    table.add(f"gateway at p50, ms |  |  | {added:.2f} |  |  | ")
    return {"http": http[1:], "engine": alone[1:], "added": added}


def calm(given: Namespace, plans: dict[str, Any], table: Table, rate: float) -> dict[str, Any]:
    """How long answers take at a moderate load."""
    cells, found = [], {}
    for name in SYSTEMS[2:]:
        rounds = []
        for turn in range(given.rounds):
            plan = {"kind": "open", "clients": 1, "connections": 16, "rate": rate, "seed": turn}
            rounds.append(milliseconds(load(seconds=given.seconds, **plan, **plans[name])))
        p50, p95 = [median(one) for one in rounds], [centile(one, 0.95) for one in rounds]
        cells.append(f"{median(p50):.0f}; {common.spread(p95, '.0f')}")
        found[name] = {"answered": [len(one) for one in rounds], "p50": p50, "p95": p95}
    what = f"/extract at {rate:g} requests/s, ms: p50; p95 (range of rounds)"
    table.add(f"{what} |  |  | {' | '.join(cells)} |  | ")
    return {"rate": rate, **found}


def entities(plan: dict[str, Any], key: str) -> set[tuple[Any, ...]]:
    """The entities that a server finds in the notes."""
    head = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    found = set()
    for number, text in enumerate(plan["texts"]):
        url, body = f"http://127.0.0.1:{plan['port']}/extract", json.dumps({"text": text})
        with urlopen(Request(url, body.encode(), head)) as answer:
            rows = json.loads(answer.read())["entities"]
        found |= {(number, one["start"], one["end"], one["label"]) for one in rows}
    return found


LIMIT, WINDOW = 5, 1.0


@measure(
    "--steps 60 --run '' --tokens 200 --users 20 --rate 6.0 --seconds 25.0 --rounds 2 --workers 2 "
    "--onnx --settings [] --out ''",
    quick="--steps 2 --seconds 4 --rounds 1",
)
def users(given: Namespace) -> None:
    """Twenty users at six requests a second each, over two workers with Redis and OIDC tokens.

    Who was accepted when is read from Redis: the times of each user's last five accepted requests,
    which the server's own window compares, every 0.1 s, so that none is missed. Beside them stands
    what a window of five in a second would accept of requests that came exactly when they were
    sent. paced and clock: as in _load.py. Needs a Redis:
    python scripts/services.py run redis -- make bench-serve ARGS=users
    """
    from provider import AUDIENCE, Provider

    address = os.environ.get("RESIDENCY_TEST_REDIS")
    if not address:
        raise UserError("there is no Redis; --help says how to have one.")
    columns = "asked/s, each | accepted/s, each: mean (least) | a perfect window"
    table = Table(
        f"users | {columns} | most accepted in 1 s | 200, 429, other | /extract, ms: p50; p95 (rounds)"
    )
    provider, measured = Provider(), list[dict[str, Any]]()
    provider.rsa("hospital")
    with common.folder() as work, ExitStack() as stack:
        stack.callback(provider.close)
        run = Path(given.run) if given.run else tuned(work / "tuned", given.steps, given.threads)
        served = exported(run, work / "export") if given.onnx else run
        more = {"scope": "extract", "exp": time.time() + 3600}
        names = [f"nurse-{user}" for user in range(given.users)]
        tokens, port = [provider.token("hospital", sub=name, **more) for name in names], free()
        oidc = {"kind": "oidc", "issuer": provider.issuer, "audience": AUDIENCE}
        oidc["jwks"] = provider.jwks
        settings = [f"auth.{key}={value}" for key, value in oidc.items()]
        settings += [f"workers={given.workers}", f"limits.redis={address}", *given.settings]
        stack.enter_context(ours(port, served, given, work / "ours", *settings))
        plan = {"port": port, "texts": texts(run, given.tokens, 64), "tokens": tokens}
        plan |= {"clients": given.users, "connections": 3}
        load(**plan | {"kind": "clock", "rate": 2, "seconds": 2})
        for kind in ("paced", "clock"):
            found = [once(given, kind, plan, address, turn) for turn in range(given.rounds)]
            measured += found
            keys = ("asked", "accepted", "perfect", "p50", "p95")
            middle = {key: median(one[key] for one in found) for key in keys}
            codes = sum((one["statuses"] for one in found), Counter[int]())
            others = codes.total() - codes[200] - codes[429]
            table.add(
                f"{kind} | {middle['asked']:.2f} | {middle['accepted']:.2f} "
                f"({min(one['least'] for one in found):.2f}) | {middle['perfect']:.2f} | "
                f"{max(one['most'] for one in found)} of {sum(one['counted'] for one in found)} | "
                f"{codes[200]}, {codes[429]}, {others} | {middle['p50']:.0f}; {middle['p95']:.0f} "
                f"({', '.join(f'{p:.0f}' for p in [one['p95'] for one in found])})"
            )
    report(given, table, given.out, measured=measured)


def once(
    given: Namespace, kind: str, plan: dict[str, Any], address: str, turn: int
) -> dict[str, Any]:
    """One round of all users."""
    time.sleep(2 * WINDOW)
    accepted: dict[str, set[float]] = defaultdict(set)
    over = threading.Event()
    watch = threading.Thread(target=read_times, args=(address, accepted, over))
    watch.start()
    answers = load(kind=kind, rate=given.rate, seconds=given.seconds, seed=turn, **plan)
    over.set()
    watch.join()
    each = Counter(user for user, _, _, status in answers if status == 200)
    took = milliseconds(answers)
    sent: dict[int, list[float]] = defaultdict(list)
    for user, at, _, _ in answers:
        sent[user].append(at)
    rates = [each[user] / given.seconds for user in sent]
    return {
        "asked": len(answers) / given.users / given.seconds,
        "accepted": mean(rates),
        "least": min(rates),
        "perfect": mean(perfect(times) / given.seconds for times in sent.values()),
        "most": max(map(crowded, accepted.values()), default=0),
        "counted": sum(map(len, accepted.values())),
        "statuses": Counter(status for *_, status in answers),
        "p50": median(took),
        "p95": centile(took, 0.95),
    }


def read_times(address: str, found: dict[str, set[float]], over: threading.Event) -> None:
    """The times of accepted requests, read from Redis while the users ask."""
    import redis

    store = redis.Redis.from_url(address)
    while not over.wait(0.1):
        keys = [*store.scan_iter("residency*", count=1000, _type="LIST")]
        asked = store.pipeline(transaction=False)
        for key in keys:
            asked.lrange(key, 0, -1)
        for key, values in zip(keys, asked.execute(), strict=True):
            found[str(key)] |= set(map(float, values))
    store.close()


def crowded(times: Iterable[float]) -> int:
    """Most that lie within one second, both ends included."""
    most, inside = 0, deque[float]()
    for at in sorted(times):
        inside.append(at)
        while at - inside[0] > WINDOW:
            inside.popleft()
        most = max(most, len(inside))
    return most


def perfect(sent: Iterable[float]) -> int:
    """How many a window of five in a second accepts, were each request there when it was sent."""
    inside, taken = deque[float](maxlen=LIMIT), 0
    for at in sorted(sent):
        if len(inside) < LIMIT or at - inside[0] > WINDOW:
            inside.append(at)
            taken += 1
    return taken


@measure("--requests 2000 --rounds 9", quick="--requests 50 --rounds 2")
def guard(given: Namespace) -> None:
    """What tokens, rates, sizes and the layer of limits cost per request.

    Processor time (of Redis, RESIDENCY_TEST_REDIS: time that passes), medians over --rounds of one
    caller after another; of the layer of limits the time of the bare application is taken off. How
    a provider is treated that rotates keys, is flooded, hangs or fails: tests/serve/test_jwks.py.
    """
    table = Table("what | measured")
    asyncio.run(costs(given, table))
    report(given, table)


async def costs(given: Namespace, table: Table) -> None:
    """Microseconds of each check."""
    from provider import AUDIENCE, Provider

    from residency.serve.auth import OidcTokens, local_key, make_tokens
    from residency.serve.auth.rate import Rate
    from residency.serve.limits import Limited, fit
    from residency.serve.settings import LocalKey, Oidc, RequestLimits

    async def timed(each: Callable[[int], Awaitable[Any]], clock: Any = time.process_time) -> float:
        marks = [clock()]
        for _ in range(given.rounds):
            for number in range(given.requests):
                await each(number)
            marks.append(clock())
        return median(b - a for a, b in pairwise(marks)) / given.requests * 1e6

    with ExitStack() as stack:
        provider, work = Provider(), stack.enter_context(common.folder())
        stack.callback(provider.close)
        for name, kind in (("rsa", "RS256, 2,048 bits"), ("ec", "ES256")):
            getattr(provider, name)(name)
            tokens: Any = OidcTokens(Oidc(kind="oidc", issuer=provider.issuer, audience=AUDIENCE))
            said = f"Bearer {provider.token(name)}"
            took = await timed(lambda _, t=tokens, said=said: t.caller(said))
            await tokens.close()
            table.add(f"token checked ({kind}) | {took:,.0f} µs")
        tokens, said = make_tokens(LocalKey(), work), f"Bearer {local_key(work)}"
        took = await timed(lambda _: tokens.caller(said))
        table.add(f"key of this machine checked | {took:,.1f} µs")
    address, salt = os.environ.get("RESIDENCY_TEST_REDIS"), secrets.token_hex(4)
    for where, more in (("memory", {}), *([("Redis", {"redis": address})] if address else [])):
        rate = Rate(RequestLimits(per_second=1_000_000, **more))
        clock = time.perf_counter if more else time.process_time
        took = await timed(lambda n, rate=rate: rate.take(f"{salt}-{n % 200}"), clock)
        await rate.close()
        table.add(f"request counted in {where}, 200 users | {took:,.0f} µs")

    async def sized(_: int) -> None:
        fit(RequestLimits(), 400, 1200, 256, 4096)

    table.add(f"sizes checked | {await timed(sized):,.1f} µs")
    scope = {"type": "http", "path": "/extract", "headers": [(b"content-length", b"1000")]}
    around = await timed(lambda _: Limited(answering, RequestLimits())(scope, receiver(), ignore))
    bare = await timed(lambda _: answering(scope, receiver(), ignore))
    table.add(f"layer of limits around an application | {around - bare:,.0f} µs")


def receiver() -> Callable[[], Awaitable[dict[str, Any]]]:
    """One request's messages: its body, and then a client that stays."""
    messages = [{"type": "http.request", "body": b"x" * 1000}]

    async def receive() -> dict[str, Any]:
        if not messages:
            await asyncio.Event().wait()
        return messages.pop()

    return receive


async def ignore(_: Any) -> None:
    """Takes a message."""


async def answering(scope: Any, receive: Any, send: Any) -> None:
    """An application that only answers."""
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"{}"})


PACKED = 0.516
"""Bytes of a 4-bit weight with its scales."""


@measure(
    "--base '' --prompt 512 --written 512 --card-gb 6.0 --rounds 3",
    quick="--prompt 16 --written 16 --rounds 1",
)
def four_bits(given: Namespace) -> None:
    """Memory and speed of a model (--base) that writes, loaded in 4 bits (NF4), on the GPU at hand.

    What arithmetic says (0.516 bytes a weight of linear layers, 2 for the rest, keys and values of
    the cache) beside what was measured, and the time per 100 written tokens.
    """
    import torch

    if not torch.cuda.is_available():
        raise UserError("this measures a GPU, and there is none here; run it where there is one.")
    from residency.models.weights import load_weights
    from residency.tasks.card import Card
    from residency.tasks.heads import WORDS

    base, card = common.base_of(given.base, quantise="nf4"), Card(name="qa", family="answers")
    model = load_weights(base, WORDS, card, whole=["lm_head"]).eval()
    planned = estimate(model, given.prompt + given.written) / 2**30
    ids = torch.randint(10, model.config.vocab_size, (1, given.prompt), device="cuda")
    how = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "do_sample": False}
    how |= {"max_new_tokens": given.written, "min_new_tokens": given.written}
    torch.cuda.reset_peak_memory_stats()
    took = []
    with torch.inference_mode():
        for _ in range(given.rounds + 1):
            begun = time.perf_counter()
            model.generate(**how)
            torch.cuda.synchronize()
            took.append(time.perf_counter() - begun)
    peak = torch.cuda.max_memory_allocated() / 2**30
    usable = given.card_gb * 1e9 / 2**30 * 0.94 - 0.5
    table = Table("what | value")
    table.add(f"weights and cache, estimated | {planned:.2f} GiB")
    table.add(f"peak, measured | {peak:.2f} GiB")
    fits = f"fits {given.card_gb:g} GB ({usable:.2f} GiB usable)"
    table.add(f"{fits} | {'yes' if peak <= usable else 'no'}")
    table.add(f"ms per 100 written tokens | {1e5 * median(took[1:]) / given.written:.0f}")
    report(given, table, planned_gib=planned, peak_gib=peak, seconds=took[1:])


def estimate(model: Any, tokens: int) -> float:
    """Bytes of weights and cache."""
    config, weights = model.config, list(model.parameters())
    states = [getattr(weight, "quant_state", None) for weight in weights]
    packed = sum(state.shape.numel() for state in states if state is not None)
    pairs = zip(weights, states, strict=True)
    rest = sum(one.numel() * one.element_size() for one, state in pairs if state is None)
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return PACKED * packed + rest + 2 * 2 * config.num_hidden_layers * heads * width * tokens


if __name__ == "__main__":
    SUBJECT.main()
