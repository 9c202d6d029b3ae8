"""Logs: nothing but fields of the list reaches any output, whoever logs and whatever goes wrong."""

from __future__ import annotations

import io
import json
import stat
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest

from residency.core.errors import UserError
from residency.serve.records import monitoring
from residency.serve.records.monitoring import Log, Users, log_key, log_keys
from residency.serve.settings import Logs

MARK = "Nguyễn Văn Mười 0912345678"

PLANTED = """
import asyncio, logging, sys, threading, warnings
from residency.serve.records.monitoring import Log, silence, silence_loop

MARK = "Nguyễn Văn Mười 0912345678"
early = logging.getLogger("uvicorn.error")
early.addHandler(logging.StreamHandler(sys.stdout))
ours = Log(routes=("POST /extract",))
silence(ours, logging.DEBUG)

class Sick(Exception):
    def __repr__(self):
        return MARK

def fall(text):
    local = text
    raise Sick(MARK, local)

for name in ("uvicorn.error", "uvicorn.access", "fastapi", "httpx", "asyncio", "transformers", "residency"):
    one = logging.getLogger(name)
    one.error("failed on %s", MARK)
    one.warning(MARK)
    one.debug("a", extra={"body": MARK})
    try:
        fall(MARK)
    except Sick as error:
        one.exception(error)
        one.error("again", exc_info=True, stack_info=True)
        one.critical(error)
late = logging.getLogger("late")
late.addHandler(logging.StreamHandler(sys.stdout))
late.error(MARK, exc_info=True)
logging.error("%d", MARK)
warnings.warn(MARK)
threading.Thread(target=fall, args=(MARK,)).start()

async def main():
    silence_loop(asyncio.get_running_loop(), ours)
    lost = asyncio.ensure_future(asyncio.sleep(0, MARK))
    broken = asyncio.get_running_loop().create_task(later())
    asyncio.get_running_loop().call_soon(fall, MARK)
    await asyncio.sleep(0.05)
    del broken

async def later():
    fall(MARK)

asyncio.run(main())

class Heavy:
    def __del__(self):
        fall(MARK)
Heavy()
ours.write(MARK, "info", route=f"GET /{MARK}", user=MARK, code=MARK, model=MARK, text=MARK, status=MARK, place=MARK, alias=MARK)
ours.write("request", route="GET /nguyen-van-muoi", status=200)
try:
    fall(MARK)
except Sick as error:
    ours.failed("request", error, route="POST /extract")
fall(MARK)
"""


def test_a_planted_mark_reaches_no_output(tmp_path: Path) -> None:
    script = tmp_path / "planted.py"
    script.write_text(PLANTED, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    for part in ("Mười", "0912", "Nguy", "nguyen", "failed on", "again"):
        assert part not in done.stdout + done.stderr
    lines = [json.loads(line) for line in done.stderr.splitlines()]  # nothing but lines of ours
    assert (
        sum(line["event"] == "crash" for line in lines) >= 5
    )  # thread, task, callback, __del__, main
    assert {line["error"] for line in lines if line["event"] == "crash"} == {"__main__.Sick"}
    assert any(line.get("logger") == "uvicorn.access" for line in lines)


def written(**fields: object) -> dict[str, object]:
    stream = io.StringIO()
    Log(stream, routes=["POST /extract"]).write("request", **fields)  # type: ignore[arg-type]
    found: dict[str, object] = json.loads(stream.getvalue())
    return found


def test_fields_of_the_list_are_written_others_are_dropped_and_counted() -> None:
    line = written(
        route="POST /extract", status=200, ms=3.5, user="a" * 64, prompt="ho khan", code="Ho khan"
    )
    assert {**line, "at": ""} == {
        "at": "",
        "level": "info",
        "event": "request",
        "route": "POST /extract",
        "status": 200,
        "ms": 3.5,
        "user": "a" * 64,
        "dropped": 2,
    }


def test_a_path_that_is_none_of_the_servers_is_other() -> None:
    assert written(route="GET /benh-nhan/muoi")["route"] == "other"


def test_every_field_has_a_shape_that_refuses_words() -> None:
    for name in monitoring.FIELDS:
        for text in (MARK, "ho khan va sot", "患者", "a b", ""):
            assert not monitoring.allowed(name, text), name


def test_an_error_is_named_by_class_and_place() -> None:
    stream = io.StringIO()
    try:
        Users(b"").hashed(None)  # type: ignore[arg-type]
    except AttributeError as error:
        Log(stream).failed("request", error)
    line = json.loads(stream.getvalue())
    assert line["error"] == "AttributeError"
    assert line["place"].startswith("serve/records/monitoring.py:")


def test_hashes_of_users() -> None:
    """The keyed form against the definition, by hand: HMAC-SHA-256 under a key derived from the log
    key."""
    import hmac

    derived = hmac.new(b"k" * 32, b"residency users 1", sha256).digest()
    assert (
        Users(b"k" * 32).hashed("bs.mười")
        == hmac.new(derived, "bs.mười".encode(), sha256).hexdigest()
    )
    assert (
        Users(b"k" * 32, "plain").hashed("alice")
        == "2bd806c97f0e00af1a1fc3328fa763a9269723c8db8fac4f93af71db186d6e90"
    )


def test_a_key_is_made_once_for_its_owner_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RESIDENCY_LOG_KEY", raising=False)
    logs = Logs(folder=str(tmp_path / "serve"))
    made = log_key(logs)
    assert log_key(logs) == made
    assert len(made) == 32
    assert stat.S_IMODE((tmp_path / "serve/log.key").stat().st_mode) == 0o600
    assert [path.name for path in (tmp_path / "serve").iterdir()] == ["log.key"]
    monkeypatch.setenv("RESIDENCY_LOG_KEY", "ab" * 32)
    assert log_key(logs) == b"\xab" * 32
    assert log_keys(logs, tmp_path / "serve") == [b"\xab" * 32, made]


def test_a_key_of_another_shape_is_said_without_showing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESIDENCY_LOG_KEY", "hunter2")
    with pytest.raises(
        UserError, match="RESIDENCY_LOG_KEY: is no key of 64 hexadecimal digits"
    ) as caught:
        log_key(Logs(folder=str(tmp_path)))
    assert "hunter2" not in str(caught.value)
