"""The script that starts Label Studio: what it keeps, and what it takes for its own."""

from __future__ import annotations

import importlib.util
import os
import stat
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def script() -> ModuleType:
    path = Path(__file__).resolve().parents[2] / "scripts" / "label_studio.py"
    spec = importlib.util.spec_from_file_location("scripts_label_studio", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_accounts_are_readable_by_their_owner_alone(script: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "accounts.env").write_text("OLD=1\n", "utf-8")
    script.write_accounts(tmp_path, {"A_TOKEN": "x=y"})
    assert stat.S_IMODE((tmp_path / "accounts.env").stat().st_mode) == 0o600
    assert script.read_accounts(tmp_path) == {"A_TOKEN": "x=y"}


def test_a_process_that_is_no_server_is_never_taken_for_one(
    script: ModuleType, tmp_path: Path
) -> None:
    (tmp_path / "a1").mkdir()
    for pid in (str(os.getpid()), "999999999", "not a number"):
        (tmp_path / "a1" / "pid").write_text(pid, "utf-8")
        assert script.running(tmp_path, "a1") is None
    script.stop(tmp_path)
    assert not (tmp_path / "a1" / "pid").exists(), "and this process still runs"


def test_each_server_has_a_secret_key_database_and_account_of_its_own_and_no_telemetry(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[tuple[list[str], dict[str, str]]] = []

    class Started:
        pid = 1

    def popen(command: list[str], env: dict[str, str], **_: object) -> Started:
        started.append((command, env))
        return Started()

    monkeypatch.setattr(script.subprocess, "Popen", popen)
    monkeypatch.setattr(script, "installed", lambda: Path("label-studio"))
    monkeypatch.setattr(script, "wait", lambda *_: None)
    monkeypatch.setattr(script, "answers", lambda url: False)
    script.start(tmp_path, ["a1", "a2", "adjudicator"], 9100)
    keys = (
        "SECRET_KEY",
        "LABEL_STUDIO_USER_TOKEN",
        "LABEL_STUDIO_PASSWORD",
        "LABEL_STUDIO_BASE_DATA_DIR",
    )
    assert all(len({env[key] for _, env in started}) == 3 for key in keys)
    for command, env in started:
        assert command[command.index("--internal-host") + 1] == "127.0.0.1"
        assert (env["SENTRY_DSN"], env["FRONTEND_SENTRY_DSN"]) == ("", "")
        assert {env["COLLECT_ANALYTICS"], env["LATEST_VERSION_CHECK"]} == {"false"}
        assert not any(env[key] in command for key in keys[:3]), (
            "secrets do not show in the list of processes"
        )


def test_a_port_that_is_taken_is_named_at_once(script: ModuleType) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SystemExit, match=rf"the port of http://127.0.0.1:{port} cannot be had"):
            script.check_free(f"http://127.0.0.1:{port}")
    script.check_free(f"http://127.0.0.1:{port}")
