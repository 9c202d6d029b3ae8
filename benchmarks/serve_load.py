"""Twenty users at six requests a second each, over two workers with Redis and tokens of an identity
provider; load from the same machine.

Who was accepted when is read from Redis, where the server keeps the times of each user's last five
accepted requests: the times that its own moving window compares, a worker's wall clock. The lists
are read every 0.1 s, so that none is missed, and must be as many as answers 200. Beside them stands
what a window of five in a second would accept of requests that came exactly when they were sent.

  paced    each user asks, waits 1/6 s, asks again, whatever the answers do
  clock    each user asks at the ticks of a clock, six a second, late or not: after five accepted the seventh stands exactly one second after the
           first, on the window's edge, so that even a perfect window of five accepts 30 in 7
           seconds

Run it with a Redis: python scripts/services.py run redis -- python benchmarks/serve_load.py
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterable
from pathlib import Path
from statistics import mean, median
from typing import Any

from _common import ROOT, parser, report, run, say
from _serving import Answer, centile, exported, free, load, milliseconds, ours, texts, tuned
from residency.core.errors import UserError
from residency.workflows.evaluate import examples_of_run
from residency.workflows.finished import artefact_of

sys.path.insert(0, str(ROOT / "tests" / "serve"))
from provider import AUDIENCE, Provider

LIMIT, WINDOW = 5, 1.0
KINDS = ("paced", "clock")
Times = dict[str, set[float]]


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--steps", type=int, default=60, help="steps of tuning (default 60)")
    options.add_argument(
        "--run", type=Path, help="a finished run of an encoder (default: one is made)"
    )
    options.add_argument(
        "--tokens", type=int, default=200, help="tokens of a note (default 200, 10 more or less)"
    )
    options.add_argument("--users", type=int, default=20)
    options.add_argument("--rate", type=float, default=6, help="requests/s of a user (default 6)")
    options.add_argument("--seconds", type=float, default=25)
    options.add_argument("--rounds", type=int, default=2)
    options.add_argument("--workers", type=int, default=2)
    options.add_argument(
        "--onnx",
        action="store_true",
        help="serve the run's export (bfloat16 or 8 bits where F1 holds)",
    )
    options.add_argument(
        "--settings", nargs="*", default=[], help="more settings of the server, e.g. dtype=bf16"
    )
    options.add_argument("--out", default="", help="more of the result's name")
    given = options.parse_args()
    if given.quick:
        given.steps, given.seconds, given.rounds = 2, 4.0, 1
    address = os.environ.get("RESIDENCY_TEST_REDIS")
    if not address:
        raise UserError(
            "there is no Redis; python scripts/services.py run redis -- python "
            "benchmarks/serve_load.py."
        )
    provider = Provider()
    try:
        provider.rsa("hospital")
        with tempfile.TemporaryDirectory() as work:
            measure(given, Path(work), provider, address)
    finally:
        provider.close()


def measure(given: argparse.Namespace, work: Path, provider: Provider, address: str) -> None:
    """Tune, start the server, let the users ask."""
    finished = given.run or tuned(work / "tuned", given.steps, given.threads)
    artefact, served = artefact_of(finished), finished
    notes = texts(artefact, given.tokens, 64)
    if given.onnx:
        served = exported(artefact, examples_of_run(finished, "test"), work / "export")
    tokens = [
        provider.token("hospital", sub=f"nurse-{user}", scope="extract", exp=time.time() + 3600)
        for user in range(given.users)
    ]
    port = free()
    settings = (
        f"workers={given.workers}",
        f"limits.redis={address}",
        "auth.kind=oidc",
        f"auth.issuer={provider.issuer}",
        f"auth.audience={AUDIENCE}",
        f"auth.jwks={provider.jwks}",
        *given.settings,
    )
    rows, measured = [], []
    with ours(port, served, given.threads, work / "ours", *settings):
        plan = {
            "port": port,
            "texts": notes,
            "tokens": tokens,
            "clients": given.users,
            "connections": 3,
        }
        load(**plan | {"kind": "clock", "rate": 2, "seconds": 2})
        for kind in KINDS:
            found = [once(given, kind, plan, address, turn) for turn in range(given.rounds)]
            measured += found
            rows.append(row(kind, found))
            say(" | ".join(rows[-1]))
    columns = (
        "users",
        "asked/s, each",
        "accepted/s, each: mean (least)",
        "a perfect window",
        "most accepted in 1 s",
        "200, 429, other",
        "/extract, ms: p50; p95 (rounds)",
    )
    report(f"serve_load{given.out}", given, columns, rows, measured=measured)


def once(
    given: argparse.Namespace, kind: str, plan: dict[str, Any], address: str, turn: int
) -> dict[str, Any]:
    """One round of all users."""
    time.sleep(2 * WINDOW)
    watch = Watch(address)
    answers = load(kind=kind, rate=given.rate, seconds=given.seconds, seed=turn, **plan)
    accepted = watch.end()
    statuses = Counter(status for *_, status in answers)
    took = milliseconds(answers)
    sent: dict[int, list[float]] = defaultdict(list)
    for user, at, _, _ in answers:
        sent[user].append(at)
    each = Counter(user for user, _, _, status in answers if status == 200)
    most = max((crowded(times) for times in accepted.values()), default=0)
    return {
        "kind": kind,
        "asked": len(answers) / given.users / given.seconds,
        "accepted": mean(each[user] / given.seconds for user in sent),
        "least": min(each[user] / given.seconds for user in sent),
        "perfect": mean(perfect(times) / given.seconds for times in sent.values()),
        "most": most,
        "edge_ms": 1000 * (min(closest(times) for times in accepted.values()) - WINDOW),
        "counted": sum(map(len, accepted.values())),
        "bounds_broken": broken(answers),
        "statuses": dict(statuses),
        "p50": median(took),
        "p95": centile(took, 0.95),
    }


class Watch:
    """Reads the times of accepted requests while the users ask."""

    def __init__(self, address: str) -> None:
        import redis

        self.redis, self.found = redis.Redis.from_url(address), defaultdict[str, set[float]](set)
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.read)
        self.thread.start()

    def read(self) -> None:
        while not self.over.wait(0.1):
            keys = [*self.redis.scan_iter("residency*", count=1000, _type="LIST")]
            asked = self.redis.pipeline(transaction=False)
            for key in keys:
                asked.lrange(key, 0, -1)
            for key, values in zip(keys, asked.execute(), strict=True):
                self.found[str(key)] |= set(map(float, values))

    def end(self) -> Times:
        """The times of each user."""
        self.over.set()
        self.thread.join()
        self.redis.close()
        return dict(self.found)


def crowded(times: Iterable[float]) -> int:
    """Most that lie within one second, both ends included."""
    most, inside = 0, deque[float]()
    for at in sorted(times):
        inside.append(at)
        while at - inside[0] > WINDOW:
            inside.popleft()
        most = max(most, len(inside))
    return most


def closest(times: Iterable[float]) -> float:
    """Shortest time from an accepted request to the fifth after it."""
    ordered = sorted(times)
    return min(
        (sixth - first for first, sixth in zip(ordered, ordered[LIMIT:], strict=False)),
        default=float("inf"),
    )


def perfect(sent: Iterable[float]) -> int:
    """How many a window of five in a second accepts, were each request there when it was sent."""
    inside, taken = deque[float](maxlen=LIMIT), 0
    for at in sorted(sent):
        if len(inside) < LIMIT or at - inside[0] > WINDOW:
            inside.append(at)
            taken += 1
    return taken


def broken(answers: Iterable[Answer]) -> int:
    """Six accepted of one user whose sending and answer all lie within a second: what a client
    alone could prove."""
    each: dict[int, list[Answer]] = defaultdict(list)
    for answer in answers:
        if answer[3] == 200:
            each[answer[0]].append(answer)
    count = 0
    for taken in each.values():
        taken.sort(key=lambda answer: answer[1])
        count += sum(
            max(one[2] for one in taken[at : at + LIMIT + 1]) - taken[at][1] <= WINDOW
            for at in range(len(taken) - LIMIT)
        )
    return count


def row(kind: str, found: list[dict[str, Any]]) -> list[str]:
    """The rounds of one kind of user: medians; the most and the least of all."""

    def middle(name: str) -> float:
        return median(one[name] for one in found)

    statuses = sum((Counter(one["statuses"]) for one in found), Counter[int]())
    others = sum(n for status, n in statuses.items() if status not in (200, 429))
    rounds = ", ".join(f"{one['p95']:.0f}" for one in found)
    return [
        kind,
        f"{middle('asked'):.2f}",
        f"{middle('accepted'):.2f} ({min(one['least'] for one in found):.2f})",
        f"{middle('perfect'):.2f}",
        f"{max(one['most'] for one in found)} of {sum(one['counted'] for one in found)}",
        f"{statuses[200]}, {statuses[429]}, {others}",
        f"{middle('p50'):.0f}; {middle('p95'):.0f} ({rounds})",
    ]


if __name__ == "__main__":
    run(main)
