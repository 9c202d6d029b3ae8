"""Commands in processes of their own that begin warm: forked from one parent of these tests that has
imported torch, transformers and peft, for which each would take six seconds of processor. Not for
tests of how a process starts, or of what it loads."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from multiprocessing import connection
from pathlib import Path

_parent = multiprocessing.get_context("forkserver")
_parent.set_forkserver_preload(
    [
        "peft",
        "residency.train.trainer",
        "residency.workflows.run",
        "residency.workflows.evaluate",
        "residency.workflows.predict",
        "residency.workflows.deidentify",
        "residency.workflows.extract",
        "residency.serve.app",
        "residency.serve.launch",
        "residency.serve.engines.in_process",
        "matplotlib.pyplot",
        "transformers.models.bert.modeling_bert",
        "transformers.models.electra.modeling_electra",
        "transformers.models.llama.modeling_llama",
    ]
)


def of_tree(*sources: Path) -> str:
    """Code after which the package is read anew, from another source tree."""
    return (
        "import sys\n"
        "for name in [one for one in sys.modules if one.partition('.')[0] == 'residency']:\n"
        "    del sys.modules[name]\n"
        f"sys.path[:0] = {[str(source) for source in sources]}"
    )


class Process:
    """``residency WORDS``, or a script with these words, in a process and session of its own; what
    it says goes to the files ``out`` and ``err``, which may be one."""

    def __init__(
        self,
        *words: object,
        out: Path,
        err: Path,
        script: Path | None = None,
        code: str = "",
        cwd: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.args, self.err = [str(word) for word in words], err
        given = (self.args, script, code, cwd or Path.cwd(), out, err)
        self._process = _parent.Process(
            target=_begin, args=(*given, environment or os.environ | {}), daemon=True
        )  # killed at the end of the tests, at the latest
        self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    def poll(self) -> int | None:
        """The exit code; less the signal where one ended it; ``None`` while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, at its end; ``TimeoutExpired`` where that is later."""
        self._process.join(timeout)
        code = self._process.exitcode
        if code is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return code

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it."""
        self.send_signal(signal.SIGKILL)


def _begin(
    words: list[str],
    script: Path | None,
    code: str,
    cwd: Path,
    out: Path,
    err: Path,
    environment: dict[str, str],
) -> None:
    os.setsid()
    multiprocessing.set_start_method(None, force=True)  # that of a process of its own
    multiprocessing.current_process().daemon = False  # it may have children
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    tempfile.tempdir = None  # that of its environment
    for number, path in ((1, out), (2, err)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(file, number)
        os.close(file)
    sys.stdin = os.fdopen(0, closefd=False)  # which is empty
    sys.argv = [str(script) if script else "residency", *words]
    try:
        exec(code, {})
        if script:
            sys.path.insert(0, str(script.parent))
            runpy.run_path(str(script), run_name="__main__")
        else:
            from residency.cli import main

            main()
    except Exception:
        traceback.print_exc()
        raise SystemExit(1) from None
    finally:
        atexit._run_exitfuncs()


def run(
    *words: object,
    script: Path | None = None,
    code: str = "",
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """The same, waited for."""
    return together(1, words, script=script, code=code, cwd=cwd, environment=environment)


def together(
    count: int,
    words: Sequence[object],
    *,
    script: Path | None = None,
    code: str = "",
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """The same in so many processes that find each other by what torchrun sets; where one fails, the
    others are killed, and its code and words are given."""
    meeting = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free())}
    with tempfile.TemporaryDirectory() as folder:
        made = [
            Process(
                *words,
                out=Path(folder, f"out{number}"),
                err=Path(folder, f"err{number}"),
                script=script,
                code=code,
                cwd=cwd,
                environment={
                    **os.environ,
                    **(environment or {}),
                    **(
                        {"RANK": str(number), "LOCAL_RANK": str(number), **meeting}
                        if count > 1
                        else {}
                    ),
                },
            )
            for number in range(count)
        ]
        running, shown = set(range(count)), 0
        while running:
            connection.wait([made[number]._process.sentinel for number in running])
            for number in [number for number in running if made[number].poll() is not None]:
                running.remove(number)
                if made[number].wait() and running:
                    shown = number
                    for one in running:
                        made[one].kill()
        said = [Path(folder, f"{name}{shown}").read_text("utf-8") for name in ("out", "err")]
    return subprocess.CompletedProcess(made[shown].args, made[shown].wait(), *said)


def _free() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
