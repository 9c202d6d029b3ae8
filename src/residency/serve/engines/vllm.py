"""The engine that computes in a vLLM server on loopback, which is started here: for generative
models, on a GPU. A server that dies is not started again here: this process ends too, and what
starts services on the machine starts both."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import importlib.util
import json
import math
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from residency.core.errors import UserError
from residency.core.files import file_digest, locked, process_alive
from residency.core.types import Example, Prediction, Turn
from residency.models import artefact as artefacts
from residency.models.adapters import Full, Lora
from residency.models.artefact import Artefact
from residency.models.base import Base
from residency.models.chat_template import ChatTokeniser
from residency.models.predictors import kind_of
from residency.serve.engines import ChatReader, Piece, Served, TokenScores, WritingRequest
from residency.serve.refusals import Refusal
from residency.serve.settings import Serve
from residency.tasks.codec import conversation, read

COMPLETIONS = "/v1/completions"
"""The route that is asked, and the only one: others answer without the key, or echo what they are
given."""
BASE = "base"
"""Name under which vLLM answers with the base alone."""
PROBE = (Turn(role="user", text="Q 问题 câu hỏi 1."),)
"""The fixed question."""
APPLIED = 1e-5
"""Least that a log-probability of the fixed question must move for an adapter to be at work."""
SAME = 1e-2
"""Most that it may move between two times that the same model is asked: batches are added up in
another order."""
DEAF = 3
"""Times in a row that a running process may fail the fixed question before it counts as gone."""
DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
RANKS = (8, 16, 32, 64, 128, 256, 320, 512, 1 << 30)
"""Ranks of LoRA that vLLM takes."""
QUIET = {
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_DO_NOT_TRACK": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
}
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
AGAIN = 5.0
"""Seconds after which a client may come back."""
ASK = "import importlib.util, sys; sys.exit(importlib.util.find_spec('vllm') is None)"
ASK_SECONDS = 60


def refused(folder: Path, settings: Serve) -> str | None:
    """Why an artefact is not served by vLLM; none where it is. Raises ``UserError`` where vLLM is
    demanded and is not installed."""
    from residency.models import onnx_encoder

    if settings.engine not in ("auto", "vllm"):
        return f"engine: {settings.engine}"
    if (folder / onnx_encoder.FILE).is_file():
        return "it is an export, which has a runtime of its own"
    if why := VllmEngine.can_serve(artefacts.read(folder)):
        return why
    if not installed(settings.vllm_python):
        if settings.engine == "vllm":
            raise UserError(
                "vllm_python: vLLM is not installed there; name the interpreter of the environment "
                "that holds it, or set engine: process."
            )
        return "vLLM is not installed"
    return None if settings.engine == "vllm" or gpu() else "there is no GPU"


def gpu() -> bool:
    """Whether there is a GPU."""
    import torch

    return bool(torch.cuda.is_available())


def installed(python: str) -> bool:
    """Whether vLLM is installed where an interpreter looks; without one, where this one does."""
    if not python:
        return importlib.util.find_spec("vllm") is not None
    try:
        asked = subprocess.run(
            [python, "-c", ASK], capture_output=True, check=False, timeout=ASK_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return asked.returncode == 0


def started(folder: Path, name: str, settings: Serve, shared: Path | None = None) -> VllmEngine:
    """A vLLM process of its own, for an event loop that is yet to begin."""

    async def start() -> VllmEngine:
        python = settings.vllm_python or sys.executable
        engine = await VllmEngine.launch(folder, name, python, shared=shared)
        await engine.process.let_go()
        return engine

    return asyncio.run(start())


class VllmEngine:
    """One artefact in a vLLM process. It is given token ids that this project made, so template and
    tokenizer are ours."""

    def __init__(
        self,
        served: Served,
        artefact: Artefact,
        chat: ChatTokeniser,
        process: VllmProcess,
        adapted: bool,
    ) -> None:
        self.served, self.reader = served, ChatReader(chat)
        self.process, self.adapted, self.own = process, adapted, artefact.generation()
        self.stops = (*self.own.stop, *chat.stop)
        self.ends = sorted({*chat.ends, *_own_ends(Path(artefact.base.path))})
        self._expected: list[float] = []
        self._failed = 0

    @staticmethod
    def can_serve(artefact: Artefact) -> str:
        """Why vLLM cannot serve an artefact as it was trained; nothing where it can."""
        base, kinds, method = artefact.base, artefact.kinds, artefact.tuning()
        if base.quantise != "none":
            others = "vLLM would load it with other numbers than it was trained on"
            return f"its base is quantised ({base.quantise}), and {others}"
        if why := kind_of(artefact).cannot.get("vllm"):
            return why
        if "prefix" in kinds.split(", "):
            return "vLLM no longer serves trained prefixes"
        if artefact.earlier:
            return f"it was trained in several stages ({kinds}), of which vLLM takes one adapter"
        if isinstance(method, Lora):
            return "vLLM does not serve DoRA adapters" if method.dora else ""
        whole = isinstance(method, Full)
        return "" if whole else f"vLLM takes LoRA adapters and whole models, not {kinds}"

    @classmethod
    async def launch(
        cls,
        folder: Path,
        name: str,
        python: Path | str,
        *,
        dtype: str | None = None,
        arguments: Sequence[str] = (),
        log: Path | None = None,
        command: Sequence[str] | None = None,
        seconds: float = 600,
        shared: Path | None = None,
    ) -> VllmEngine:
        """Start vLLM with an artefact, and wait until the fixed question is answered.

        ``python``: the interpreter of the environment that vLLM is installed in; ``command`` takes
        its place. ``arguments`` go to vLLM, e.g. ``--gpu-memory-utilization=0.8``. ``shared``: a
        folder of several workers, of whom the first starts the process and all use it. Raises
        ``UserError`` where the artefact cannot be served, vLLM ends or does not answer in
        ``seconds``, or the adapter is not at work.
        """
        artefact = artefacts.read(folder)
        if why := cls.can_serve(artefact):
            raise UserError(f"{folder}: {why}; serve it in process (serve.engine: process).")
        adapted = isinstance(artefact.tuning(), Lora)
        base = artefacts.same_base(artefact.base, folder) if adapted else artefact.base
        artefact = msgspec.structs.replace(artefact, base=base)
        number = dtype or _numbers(base)
        given = [
            *(command or (str(python), "-m", "vllm.entrypoints.openai.api_server")),
            *options(artefact, folder, name, number),
            *arguments,
        ]
        served = Served(
            name=name,
            digest=file_digest(folder / artefacts.FILE),
            base=base.id,
            method=artefact.kinds,
            output="text",
            card=artefact.task(),
            kind="vllm",
            dtype=number,
            window=base.window,
        )
        place = shared / f"{name}-{served.digest}" if shared is not None else None
        process = VllmProcess(given, log, shared=place)
        made = cls(served, artefact, artefacts.chat_of(artefact, folder), process, adapted)
        try:
            made.process.start()
            await made._until_it_answers(seconds)
        except BaseException:
            await made.close()
            raise
        return made

    async def _until_it_answers(self, seconds: float) -> None:
        name, until = self.served.name, time.monotonic() + seconds
        while time.monotonic() < until:
            if not self.process.alive:
                raise UserError(
                    f"vLLM ended while it loaded {name}; its own words are in the log, if one was "
                    "named."
                )
            try:
                self._expected = await self._probe(name)
                base = await self._probe(BASE) if self.adapted else []
            except Refusal:
                await asyncio.sleep(0.25)
                continue
            if self.adapted and _apart(self._expected, base) < APPLIED:
                raise UserError(
                    f"vLLM answers as the base where {name} was asked: the adapter is not at work "
                    "(misnamed tensors, or nothing learned); serve it in process (serve.engine: "
                    "process), or train again."
                )
            return
        raise UserError(f"vLLM did not answer within {seconds:.0f} s as {name}.")

    async def _probe(self, model: str) -> list[float]:
        """Log-probabilities of a fixed conversation's tokens."""
        prompt = self.reader.prompt(WritingRequest(turns=PROBE, max_tokens=1), self.served.window)
        scored = await self._scores(prompt, 1, model)
        return [one for one in scored.log_probabilities if one is not None]

    # Answers

    async def classify(self, text: str) -> Prediction:
        """What is written about a text, read back; as many tokens as the artefact's own setting, or
        a quarter of its window."""
        card = self.served.card
        example = Example(id="0", task=card.name, input=text, profile="pseudonymised")
        began, words, tokens = time.perf_counter(), "", 0
        request = WritingRequest(conversation(example, card), self.served.window // 4)
        async for piece in self.write(request):
            words, tokens = words + piece.text, piece.tokens
        words = words.strip()
        answer, failure = read(words, example, card)
        return Prediction(
            id="0",
            answer=answer,
            text=words,
            failure=failure,
            latency_ms=(time.perf_counter() - began) * 1000,
            tokens=tokens,
        )

    async def write(self, request: WritingRequest) -> AsyncGenerator[Piece, None]:
        """As of ``ModelEngine``."""
        ids = self.reader.prompt(request, self.served.window)
        request = msgspec.structs.replace(request, stop=(*request.stop, *self.stops))
        async with contextlib.aclosing(self.continue_(ids, request)) as pieces:
            async for piece in pieces:
                yield piece

    async def continue_(
        self, ids: Sequence[int], request: WritingRequest
    ) -> AsyncGenerator[Piece, None]:
        """As of ``ModelEngine``."""
        self.reader.check_room(ids, request.max_tokens, self.served.window)
        body = {
            "model": self.served.name,
            "prompt": list(ids),
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "seed": request.seed,
            "presence_penalty": request.presence_penalty,
            "frequency_penalty": request.frequency_penalty,
            "repetition_penalty": self.own.repetition_penalty,
            "stop": list(request.stop),
            "stop_token_ids": self.ends,
            "logprobs": 1,
            "return_token_ids": True,
            "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        }
        if (form := request.form) is not None:
            held = {"choice": list(form.choices)} if form.schema is None else {"json": form.schema}
            body["structured_outputs"] = held
        tokens, end, last = 0, None, ""
        total, ids, known = 0.0, tuple[int, ...](), 0
        async with contextlib.aclosing(self.process.stream(body)) as events:
            async for event in events:
                if "error" in event:
                    raise down()
                tokens = int((event.get("usage") or {}).get("completion_tokens") or tokens)
                for choice in event.get("choices", ()):
                    reason = choice.get("finish_reason")
                    if reason not in (None, "stop", "length"):
                        raise down()
                    end = reason or end
                    logs = (choice.get("logprobs") or {}).get("token_logprobs") or ()
                    total, known = total + sum(logs), known + len(logs)
                    named = choice.get("token_ids") or ()
                    ids += tuple(one for one in named if one not in self.ends)
                    text = choice.get("text") or ""
                    if reason:
                        last = text
                    elif text:
                        yield Piece(text, tokens, None, ids, total)
                        ids = ()
        if end is None:
            raise down()
        # where vLLM did not say how likely a token was, nothing is sure
        yield Piece(last, tokens, end, ids, total if known >= tokens else -math.inf)

    async def score(self, ids: Sequence[int], top: int = 1) -> TokenScores:
        """As of ``ModelEngine``."""
        return await self._scores(ids, top, self.served.name)

    async def _scores(self, ids: Sequence[int], top: int, model: str) -> TokenScores:
        given = list(ids)
        self.reader.check_room(given, 1, self.served.window)  # vLLM writes a token at the least
        asked = {"model": model, "prompt": given, "max_tokens": 1, "temperature": 0}
        found = await self.process.ask(asked | {"echo": True, "logprobs": top})
        try:
            logs = found["choices"][0]["logprobs"]
            values, tops = logs["token_logprobs"][: len(given)], logs["top_logprobs"][: len(given)]
            if len(values) != len(given) or any(value is None for value in values[1:]):
                raise down()  # echo was not honoured: whatever it says is about other tokens
        except (KeyError, IndexError, TypeError):
            raise down() from None
        named = [{k: float(v) for k, v in one.items()} if one else None for one in tops[1:]]
        return self.reader.scores(given, (None, *map(float, values[1:])), (None, *named))

    # Health

    async def probe(self) -> bool:
        """As of ``ModelEngine``."""
        try:
            good = _apart(await self._probe(self.served.name), self._expected) <= SAME
        except Refusal:
            good = False
        self._failed = 0 if good else self._failed + 1
        return good

    def fault(self) -> str:
        """As of ``ModelEngine``: its process has ended, or fails again and again."""
        if not self.process.alive:
            return f"the vLLM process of {self.served.name} has ended"
        if self._failed >= DEAF:
            return f"the vLLM process of {self.served.name} failed {DEAF} fixed questions in a row"
        return ""

    async def close(self) -> None:
        """As of ``ModelEngine``."""
        await self.process.close()


def options(artefact: Artefact, folder: Path, name: str, dtype: str) -> list[str]:
    """What vLLM is told of an artefact."""
    method = artefact.tuning()
    common = [
        "--dtype",
        dtype,
        "--max-model-len",
        str(artefact.base.window),
        "--disable-uvicorn-access-log",
    ]
    if not isinstance(method, Lora):
        return ["--model", str(folder.resolve()), "--served-model-name", name, *common]
    rank = next(size for size in RANKS if size >= _rank(folder, method))
    more = ["--enable-lora", "--max-loras", "1", "--max-lora-rank", str(rank)]
    adapter = ["--lora-modules", f"{name}={folder.resolve()}"]
    return ["--model", artefact.base.path, "--served-model-name", BASE, *common, *more, *adapter]


def _rank(folder: Path, method: Lora) -> int:
    config = msgspec.json.decode((folder / "adapter_config.json").read_bytes(), type=dict[str, Any])
    return int(config.get("r") or method.r)


def _numbers(base: Base) -> str:
    """The numbers that a base is computed in: never vLLM's own choice, which is another one than
    that of training."""
    if base.dtype != "auto":
        return DTYPES[base.dtype]
    config = _json(Path(base.path) / "config.json")
    kind = str(config.get("dtype") or config.get("torch_dtype") or "float32")
    return kind if kind in DTYPES.values() else "float32"


def _own_ends(path: Path) -> list[int]:
    """Tokens at which the base itself ends."""
    own = _json(path / "generation_config.json").get("eos_token_id")
    return [own] if isinstance(own, int) else list(own or [])


def _json(path: Path) -> dict[str, Any]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.DecodeError):
        return {}


def _apart(a: Sequence[float], b: Sequence[float]) -> float:
    return max((abs(x - y) for x, y in zip(a, b, strict=True)), default=0.0)


# The process


def down() -> Refusal:
    """What a request gets while vLLM cannot answer."""
    said = "The model is not available at the moment; try again."
    return Refusal(503, "engine_unavailable", said, AGAIN)


class Address(msgspec.Struct, frozen=True):
    """Where a shared vLLM process answers; in a file that only the server's user reads."""

    port: int
    key: str
    pid: int


class VllmProcess:
    """A vLLM server that only this server can use: loopback, a random port, a random key that
    never is an argument.

    Its output goes nowhere unless ``log`` names a file: on a crash vLLM prints the requests that it
    was working on. ``shared``: a folder through which several workers use one process. Whoever
    comes first starts it, and whoever leaves last ends it; each holds a lock meanwhile, which the
    system releases where a worker is killed.
    """

    def __init__(
        self,
        command: Sequence[str],
        log: Path | None = None,
        seconds: float = 120,
        shared: Path | None = None,
    ) -> None:
        self.command, self.log, self.seconds, self.shared = tuple(command), log, seconds, shared
        self.key, self.port, self.pid = secrets.token_urlsafe(32), 0, 0
        self._child: subprocess.Popen[bytes] | None = None
        self._using = -1
        self._client: Any = None

    @property
    def alive(self) -> bool:
        """Whether the process runs; it may still be deaf, which only a question shows."""
        if self._child is not None:
            return self._child.poll() is None
        return self.pid > 0 and process_alive(self.pid)

    def start(self) -> None:
        """Start it, or find it started by another worker."""
        if self.shared is None:
            self._start()
            return
        self.shared.mkdir(parents=True, exist_ok=True, mode=0o700)
        with locked(self.shared):
            if not self._find(self.shared / "address.json"):
                self._start()
                address = msgspec.json.encode(Address(self.port, self.key, self.pid))
                made = os.open(self.shared / "address.json", os.O_WRONLY | os.O_CREAT, 0o600)
                with os.fdopen(made, "wb") as file:
                    file.truncate()
                    file.write(address)
            self._using = os.open(self.shared / "users", os.O_WRONLY | os.O_CREAT, 0o600)
            fcntl.flock(self._using, fcntl.LOCK_SH)

    def _find(self, path: Path) -> bool:
        try:
            found = msgspec.json.decode(path.read_bytes(), type=Address)
        except (OSError, msgspec.DecodeError):
            return False
        before = self.port, self.key, self.pid
        self.port, self.key, self.pid = found.port, found.key, found.pid
        if not self.alive:
            self.port, self.key, self.pid = before
        return self.alive

    def _start(self) -> None:
        self.port = free_port()
        environment = {**os.environ, **QUIET, **OFFLINE, "VLLM_API_KEY": self.key}
        environment.pop("PYTHONPATH", None)  # it has an environment of its own
        with contextlib.ExitStack() as stack:
            out: Any = stack.enter_context(self.log.open("ab")) if self.log else subprocess.DEVNULL
            self._child = subprocess.Popen(
                [*self.command, "--host", "127.0.0.1", "--port", str(self.port)],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.pid = self._child.pid

    def end(self) -> None:
        """End it and its children, by the group that it was started in; a shared one where no
        other worker uses it any more."""
        if not self.pid:
            return
        with locked(self.shared) if self.shared is not None else contextlib.nullcontext():
            if self.shared is None or self._last(self.shared):
                for sign in (signal.SIGTERM, signal.SIGKILL):  # its children may outlive it
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        os.killpg(self.pid, sign)
                    until = time.monotonic() + 10
                    while self.alive and time.monotonic() < until:
                        time.sleep(0.05)
            elif self._child is not None:  # others end it; that it is gone is noticed here
                threading.Thread(target=self._child.wait, name="vllm", daemon=True).start()
        self.pid, self._child = 0, None

    def _last(self, shared: Path) -> bool:
        """Let go of a shared process; whether nobody else uses it."""
        try:
            fcntl.flock(self._using, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            os.close(self._using)
        (shared / "address.json").unlink(missing_ok=True)
        return True

    async def let_go(self) -> None:
        """Close the connections to it: they are those of one event loop."""
        if self._client is not None:
            with contextlib.suppress(RuntimeError):  # that loop has ended, and they with it
                await self._client.aclose()
            self._client = None

    async def close(self) -> None:
        """End it, and the connections to it."""
        await self.let_go()
        await asyncio.to_thread(self.end)

    def _request(self, body: dict[str, Any]) -> Any:
        """A request, and the client that sends it."""
        import httpx2

        if not self.alive:
            raise down()
        if self._client is None:
            timeout = httpx2.Timeout(self.seconds, connect=2)
            self._client = httpx2.AsyncClient(trust_env=False, timeout=timeout)
        address = f"http://127.0.0.1:{self.port}{COMPLETIONS}"
        headers = {"Authorization": f"Bearer {self.key}"}
        return self._client.build_request("POST", address, json=body, headers=headers)

    async def ask(self, body: dict[str, Any]) -> dict[str, Any]:
        """Its answer; raises ``Refusal`` (503) where it gives none."""
        import httpx2

        request = self._request(body)
        try:
            answer = await self._client.send(request)
            if answer.status_code == 200:
                found: dict[str, Any] = answer.json()
                return found
        except (httpx2.HTTPError, ValueError, OSError):
            pass
        raise down()

    async def stream(self, body: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """The events of a streamed answer; closing the iterator ends the request, and with it the
        writing."""
        import httpx2

        request = self._request({**body, "stream": True})
        answer, done = None, False
        try:
            answer = await self._client.send(request, stream=True)
            if answer.status_code != 200:
                raise down()
            async for line in answer.aiter_lines():
                data = line.removeprefix("data:").strip() if line.startswith("data:") else ""
                if data == "[DONE]":
                    done = True
                    break
                if data:
                    yield json.loads(data)
        except (httpx2.HTTPError, ValueError, OSError):
            raise down() from None
        finally:
            if answer is not None:
                await answer.aclose()
        if not done:
            raise down()


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def end_shared(folder: Path) -> None:
    """End what workers that are gone have left behind."""
    for path in folder.glob("*/address.json"):
        with contextlib.suppress(OSError, msgspec.DecodeError):
            os.killpg(msgspec.json.decode(path.read_bytes(), type=Address).pid, signal.SIGKILL)
