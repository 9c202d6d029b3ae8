"""What breaks around a server: its answers are right or 503, readiness says so, it comes back by
itself. (Redis: test_redis_killed; an engine: test_vllm, test_llama; a worker: test_launch.)"""

from __future__ import annotations

import shutil
import struct
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest
from serve_tools import LONG, NEEDS_REDIS, NOTE, Redis, Started, Threads
from test_redis_killed import RATE, Load

from residency.serve.records.audit_chain import AuditFault, verify
from residency.serve.records.monitoring import log_keys
from residency.serve.settings import Logs

HOUR = 3600
SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
static volatile long *moved;
__attribute__((constructor)) static void begin(void) {
    int file = open(getenv("CLOCK_MOVED"), O_RDONLY);
    moved = mmap(0, sizeof(long), PROT_READ, MAP_SHARED, file, 0);
}
int clock_gettime(clockid_t clock, struct timespec *at) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int said = real(clock, at);
    if (moved && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) at->tv_sec += *moved;
    return said;
}
int gettimeofday(struct timeval *restrict at, void *restrict zone) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    at->tv_sec = now.tv_sec, at->tv_usec = now.tv_nsec / 1000;
    return 0;
}
time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}
"""
pytestmark = pytest.mark.server


@pytest.fixture
def move(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Sets the clock of processes that begin from here on so many seconds off, by a library that is
    loaded before theirs and adds what a file says."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    (tmp_path / "clock.c").write_text(SOURCE)
    made, moved = tmp_path / "clock.so", tmp_path / "moved"
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-o", made, tmp_path / "clock.c", "-ldl"], check=True
    )
    moved.write_bytes(bytes(8))
    monkeypatch.setenv("CLOCK_MOVED", str(moved))
    monkeypatch.setenv("LD_PRELOAD", str(made))

    def moves(seconds: int) -> None:
        with moved.open("r+b") as file:
            file.write(struct.pack("l", seconds))

    return moves


@NEEDS_REDIS
def test_the_clock_an_hour_back_and_forth(
    move: Callable[[int], None],
    redis: Redis,
    start: Callable[..., Started],
    artefacts: dict[str, Path],
    tmp_path: Path,
) -> None:
    redis.kill()  # that one began in the time of all
    redis.begin()
    redis.up()
    limits = [f"limits.redis=redis://127.0.0.1:{redis.port}", f"limits.per_second={RATE}"]
    server = start(str(artefacts["ner"]), "workers=2", *limits, cold=True)
    moved: list[tuple[float, int]] = []
    with Load(server, threads=3) as load:

        def answered(status: int, since: float) -> bool:
            return any(row.status == status and row.asked > since for row in load.rows)

        server.until(lambda: answered(429, 0))
        for seconds in (-HOUR, 0, HOUR, 0):
            move(seconds)
            moved.append((time.monotonic(), seconds))
            server.until(lambda: answered(200, moved[-1][0]), 30)
            server.until(lambda: answered(429, moved[-1][0]))
            assert httpx2.get(f"{server.address}/readyz").status_code == 200
    assert {row.status for row in load.rows} == {200, 429}
    right: list[Any] = [row.body for row in load.rows if row.status == 200]
    assert all(one == right[0] for one in right)
    for since, seconds in moved:
        first = min(r.answered for r in load.rows if r.status == 200 and r.asked > since) - since
        print(f"clock {seconds:+d} s: the next accepted request after {first:.2f} s")
    assert server.end() == 0
    assert faults(tmp_path / "serve") == ()


def faults(folder: Path) -> tuple[AuditFault, ...]:
    return verify([folder], log_keys(Logs(), folder)).faults


def test_a_full_disk_and_room_again(small_disk: Path, artefacts: dict[str, Path]) -> None:
    server = Started(small_disk, str(artefacts["ner"]), "limits.per_second=100000")

    def asked() -> httpx2.Response:
        return server.client.post("/extract", json={"text": NOTE})

    right = asked().json()
    ballast = small_disk / "ballast"
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        while file.write(bytes(1024)):
            pass
    found = [asked() for _ in range(100)]  # the last piece of the log's file has room for a few
    assert {one.status_code for one in found} == {200, 503}
    assert all(one.json() == right for one in found if one.status_code == 200)
    refused = [one for one in found if one.status_code == 503]
    assert {one.json()["error"]["code"] for one in refused} == {"audit"}
    ready = server.client.get("/readyz")
    assert (ready.status_code, ready.json()["recording"]) == (503, False)
    ballast.unlink()
    server.until(lambda: server.ready() == 200, 30)
    assert asked().json() == right
    server.client.close()
    assert server.end() == 0
    assert faults(small_disk / "serve") == ()
    lines = "".join(path.read_text() for path in (small_disk / "serve").glob("audit-*.jsonl"))
    assert lines.count('"status":200') == 2 + len(found) - len(refused)


@NEEDS_REDIS
def test_a_replica_is_killed_and_begun_again(
    redis: Redis, artefacts: dict[str, Path], tmp_path: Path
) -> None:
    """Whoever is sent on to the other, as a proxy does it, misses no answer."""
    limits = [f"limits.redis=redis://127.0.0.1:{redis.port}", "limits.per_second=100000"]

    def replica(name: str) -> Started:
        (tmp_path / name).mkdir(exist_ok=True)
        return Started(tmp_path / name, str(artefacts["ner"]), *limits)

    replicas, rows = [replica("one"), replica("two")], list[tuple[bool, Any]]()
    right = replicas[1].client.post("/extract", json={"text": NOTE}).json()

    class Proxied(Threads):
        def ask(self) -> None:
            while not self.stop.is_set():
                for number, one in enumerate(replicas):
                    try:
                        found = httpx2.post(
                            f"{one.address}/extract",
                            json={"text": NOTE},
                            headers=dict(one.client.headers),
                            timeout=LONG,
                            trust_env=False,
                        )
                    except httpx2.HTTPError:
                        continue
                    rows.append((number > 0, found.json() if found.status_code == 200 else None))
                    break
                else:
                    rows.append((True, None))

    def one_answers(wanted: bool) -> Callable[[], bool]:
        since = len(rows)
        return lambda: any(other is not wanted for other, _ in rows[since:])

    with Proxied(4):
        replicas[1].until(one_answers(True))
        replicas[0].process.kill()
        replicas[0].process.wait()
        assert replicas[0].ready() == 0
        replicas[1].until(one_answers(False))
        assert replicas[1].ready() == 200
        replicas[0] = replica("one")
        replicas[1].until(one_answers(True))
    assert all(found == right for _, found in rows)
    for one in replicas:
        one.client.close()
        assert one.end() == 0
    assert faults(tmp_path / "one" / "serve") == faults(tmp_path / "two" / "serve") == ()
