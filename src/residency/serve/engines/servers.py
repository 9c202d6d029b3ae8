"""Engines that are servers of their own on loopback, started here: vLLM, for models that write, on
a GPU; llama.cpp, for files in GGUF. One adapter, and what each of them does in another way. A
Triton, which others start, is asked by ``triton``.

A server that dies is not started again here: this process ends too, and what starts
services on the machine starts both.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import msgspec

from residency.core.errors import UserError
from residency.core.files import file_digest
from residency.core.own_server import OwnServer
from residency.core.part import parse
from residency.core.types import Example, Prediction, Turn, Value
from residency.models import artefact as artefacts
from residency.models import fingerprint
from residency.models.adapters import Full, Lora
from residency.models.artefact import Artefact
from residency.models.base import Base, load_tokenizer
from residency.models.chat_template import ChatTokeniser
from residency.models.generation import Generation, TokenLimits
from residency.models.predictors import kind_of
from residency.models.sampling import FormError
from residency.serve import Refusal
from residency.serve.engines import (
    ChatReader,
    Piece,
    Served,
    TokenScores,
    WritingRequest,
    bad_form,
)
from residency.serve.settings import Serve
from residency.tasks.card import Card
from residency.tasks.codec import conversation, read

BASE = "base"
"""Name under which vLLM answers with the base alone."""
PROBE = (Turn(role="user", text="Q 问题 câu hỏi 1."),)
"""The fixed question."""
APPLIED = 1e-5
"""Least that a log-probability of the fixed question must move for an adapter to be at work."""
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
ASK = "import importlib.util, sys; sys.exit(importlib.util.find_spec({!r}) is None)"
ASK_SECONDS = 60
ROWS = 4
"""Most answers that llama.cpp writes side by side: each takes memory for all tokens that it may
have."""
TOP = 8
"""Likeliest words after the fixed question that llama.cpp is asked for."""


def refused(folder: Path, settings: Serve) -> str | None:
    """Why a model is not served by a server of its own; none where it is. Raises ``UserError``
    where that is demanded and is not installed."""
    from residency.models import onnx_encoder

    if in_triton(folder, settings):
        return None
    if exported(folder):
        if not installed(settings.llama_python, "xllamacpp"):
            raise UserError(
                f"llama_python: {folder} is in GGUF, and llama.cpp is not installed there; name "
                "the interpreter of an environment that holds it (pip install xllamacpp)."
            )
        return None
    if settings.engine not in ("auto", "vllm"):
        return f"engine: {settings.engine}"
    if (folder / onnx_encoder.FILE).is_file():
        return "it is an export, which has a runtime of its own"
    if why := VllmEngine.can_serve(artefacts.read(folder)):
        return why
    if not installed(settings.vllm_python, "vllm"):
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


def in_triton(folder: Path, settings: Serve) -> bool:
    """Whether a model is one of a model repository, and there is a Triton that serves it."""
    from residency.export import triton

    return bool(settings.triton) and triton.exported(folder) is not None


def exported(folder: Path) -> bool:
    """Whether a folder holds a model in GGUF."""
    from residency.export import gguf

    return (folder / gguf.FILE).is_file()


def installed(python: str, module: str) -> bool:
    """Whether a module is installed where an interpreter looks; without one, where this one
    does."""
    try:
        asked = subprocess.run(
            [python or sys.executable, "-c", ASK.format(module)],
            capture_output=True,
            check=False,
            timeout=ASK_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return asked.returncode == 0


def started(
    folder: Path, name: str, settings: Serve, shared: Path | None = None
) -> VllmEngine | LlamaEngine:
    """A process of its own for a model, for an event loop that is yet to begin."""

    async def start() -> VllmEngine | LlamaEngine:
        engine: VllmEngine | LlamaEngine
        if exported(folder):
            engine = await LlamaEngine.launch(folder, name, settings, shared=shared)
        else:
            python = settings.vllm_python or sys.executable
            engine = await VllmEngine.launch(folder, name, python, shared=shared)
        await engine.process.let_go()
        return engine

    return asyncio.run(start())


class Part(Value, frozen=True):
    """What an event of a streamed answer holds."""

    text: str = ""
    tokens: int = 0
    """Written so far; 0 where it does not say."""
    end: Literal["stop", "length"] | None = None
    likelihoods: tuple[float, ...] = ()
    ids: tuple[int, ...] = ()


class ServerEngine:
    """One model in a process of its own. It is given token ids that this project made, so template
    and tokenizer are ours; one route of it is ever asked, since others answer without the key, or
    echo what they are given."""

    title: ClassVar[str]
    route: ClassVar[str]
    same: ClassVar[float]
    """Most that a likelihood of the fixed question may move between two times that the same model
    is asked: batches are added up in another order."""

    def __init__(
        self,
        served: Served,
        own: Generation,
        chat: ChatTokeniser,
        process: EngineProcess,
        ends: Sequence[int] = (),
    ) -> None:
        self.served, self.reader, self.own, self.process = served, ChatReader(chat), own, process
        self.stops = (*own.stop, *chat.stop)
        self.ends = sorted({*chat.ends, *ends})
        self._expected: list[float] = []
        self._failed = 0

    # What each does in its own way

    def body(self, ids: Sequence[int], request: WritingRequest) -> dict[str, Any]:
        """What it is sent for an answer."""
        raise NotImplementedError

    def part(self, event: dict[str, Any]) -> Part:
        """What one of its events says."""
        raise NotImplementedError

    async def likelihoods(self) -> list[float]:
        """Log-probabilities around the fixed question."""
        raise NotImplementedError

    async def score(self, ids: Sequence[int], top: int = 1) -> TokenScores:
        """As of ``ModelEngine``."""
        raise NotImplementedError

    async def prove(self) -> None:
        """Raise ``UserError`` where what answers is not the model; ``Refusal`` while it loads."""
        raise NotImplementedError

    def fixed(self) -> list[int]:
        """Tokens of the fixed question."""
        return self.reader.prompt(WritingRequest(turns=PROBE, max_tokens=1), self.served.window)

    # Start

    async def ready(self, seconds: float) -> Self:
        """Start it, and wait until it answers as the model. Raises ``UserError`` where it ends,
        does not answer in ``seconds``, or is another."""
        name, until = self.served.name, time.monotonic() + seconds
        try:
            self.process.start()
            while time.monotonic() < until:
                if not self.process.alive:
                    raise UserError(
                        f"{self.title} ended while it loaded {name}; its own words are in the log, "
                        "if one was named."
                    )
                try:
                    await self.prove()
                    self._expected = await self.likelihoods()
                    return self
                except Refusal:
                    await asyncio.sleep(0.25)
            raise UserError(f"{self.title} did not answer within {seconds:.0f} s as {name}.")
        except BaseException:
            await self.close()
            raise

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
        tokens, last = 0, ""
        end: Literal["stop", "length"] | None = None
        total, ids_told, known = 0.0, tuple[int, ...](), 0
        body = self.body(ids, request)
        async with contextlib.aclosing(self.process.stream(self.route, body)) as events:
            async for event in events:
                if "error" in event:
                    raise down()
                part = self.part(event)
                tokens, end = part.tokens or tokens, part.end or end
                total, known = total + sum(part.likelihoods), known + len(part.likelihoods)
                ids_told += part.ids
                if part.end:
                    last = part.text
                elif part.text:
                    yield Piece(part.text, tokens, None, ids_told, total)
                    ids_told = ()
        if end is None:
            raise down()
        # where it did not say how likely a token was, nothing is sure
        yield Piece(last, tokens, end, ids_told, total if known >= tokens else -math.inf)

    # Health

    async def probe(self) -> bool:
        """As of ``ModelEngine``."""
        try:
            good = _apart(await self.likelihoods(), self._expected) <= self.same
        except Refusal:
            good = False
        self._failed = 0 if good else self._failed + 1
        return good

    def fault(self) -> str:
        """As of ``ModelEngine``: its process has ended, or fails again and again."""
        if not self.process.alive:
            return f"the {self.title} process of {self.served.name} has ended"
        if self._failed >= DEAF:
            said = f"failed {DEAF} fixed questions in a row"
            return f"the {self.title} process of {self.served.name} {said}"
        return ""

    async def close(self) -> None:
        """As of ``ModelEngine``."""
        await self.process.close()


class VllmEngine(ServerEngine):
    """One artefact in a vLLM process, beside its base."""

    title, route, same = "vLLM", "/v1/completions", 1e-2

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
        if isinstance(artefact.tuning(), Lora):
            base = artefacts.same_base(artefact.base, folder)
            artefact = msgspec.structs.replace(artefact, base=base)
        base = artefact.base
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
        process = EngineProcess(given, "VLLM_API_KEY", {**QUIET, **OFFLINE}, log, place)
        chat = artefacts.chat_of(artefact, folder)
        made = cls(served, artefact.generation(), chat, process, _own_ends(Path(base.path)))
        made.adapted = isinstance(artefact.tuning(), Lora)
        return await made.ready(seconds)

    adapted = False
    """Whether it is an adapter beside its base."""

    async def prove(self) -> None:
        """As of ``ServerEngine``: vLLM loads misnamed tensors without a word, and the base
        answers."""
        said = await self.likelihoods()
        if self.adapted and _apart(said, await self._probe(BASE)) < APPLIED:
            raise UserError(
                f"vLLM answers as the base where {self.served.name} was asked: the adapter is not "
                "at work (misnamed tensors, or nothing learned); serve it in process "
                "(serve.engine: process), or train again."
            )

    async def likelihoods(self) -> list[float]:
        """As of ``ServerEngine``: those of its own tokens."""
        return await self._probe(self.served.name)

    async def _probe(self, model: str) -> list[float]:
        scored = await self._scores(self.fixed(), 1, model)
        return [one for one in scored.log_probabilities if one is not None]

    def body(self, ids: Sequence[int], request: WritingRequest) -> dict[str, Any]:
        """As of ``ServerEngine``."""
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
        return body

    def part(self, event: dict[str, Any]) -> Part:
        """As of ``ServerEngine``."""
        tokens = int((event.get("usage") or {}).get("completion_tokens") or 0)
        for choice in event.get("choices", ()):
            if (end := choice.get("finish_reason")) not in (None, "stop", "length"):
                raise down()
            return Part(
                text=choice.get("text") or "",
                tokens=tokens,
                end=end,
                likelihoods=tuple((choice.get("logprobs") or {}).get("token_logprobs") or ()),
                ids=tuple(one for one in choice.get("token_ids") or () if one not in self.ends),
            )
        return Part(tokens=tokens)

    async def score(self, ids: Sequence[int], top: int = 1) -> TokenScores:
        """As of ``ModelEngine``."""
        return await self._scores(ids, top, self.served.name)

    async def _scores(self, ids: Sequence[int], top: int, model: str) -> TokenScores:
        given = list(ids)
        self.reader.check_room(given, 1, self.served.window)  # vLLM writes a token at the least
        asked = {"model": model, "prompt": given, "max_tokens": 1, "temperature": 0}
        more = {"echo": True, "logprobs": top}
        found = await self.process.ask(self.route, asked | more)
        try:
            logs = found["choices"][0]["logprobs"]
            values, tops = logs["token_logprobs"][: len(given)], logs["top_logprobs"][: len(given)]
            if len(values) != len(given) or any(value is None for value in values[1:]):
                raise down()  # echo was not honoured: whatever it says is about other tokens
        except (KeyError, IndexError, TypeError):
            raise down() from None
        named = [{k: float(v) for k, v in one.items()} if one else None for one in tops[1:]]
        return self.reader.scores(given, (None, *map(float, values[1:])), (None, *named))


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
    if len(a) != len(b):
        return math.inf
    if len(a) != len(b):
        return math.inf
    return max((abs(x - y) for x, y in zip(a, b, strict=True)), default=0.0)


class LlamaEngine(ServerEngine):
    """One file in GGUF in a llama.cpp process."""

    title, route, same = "llama.cpp", "/completion", 5e-2
    fingerprint: fingerprint.Fingerprint

    @classmethod
    async def launch(
        cls,
        folder: Path,
        name: str,
        settings: Serve,
        *,
        log: Path | None = None,
        command: Sequence[str] | None = None,
        seconds: float = 600,
        shared: Path | None = None,
    ) -> LlamaEngine:
        """Start llama.cpp with an exported model, and wait until it says of the fixed texts what it
        said at export. ``command`` takes the place of what starts it. Raises ``UserError`` as
        ``ready``, and where the export is none, or was changed."""
        from residency.export import gguf, llama_server

        found, served = gguf.read(folder), described(folder, name, settings)
        assert found.fingerprint is not None
        chat = ChatTokeniser(
            load_tokenizer(folder / gguf.TOKENIZER),
            served.window,
            parse(TokenLimits, found.limits, gguf.FILE),
            where=str(folder),
        )
        script = str(Path(llama_server.__file__).resolve())
        given = [
            *(command or (settings.llama_python or sys.executable, script)),
            *("--model", str((folder / gguf.MODEL).resolve())),
            *("--window", str(served.window), "--rows", str(rows(settings))),
        ]
        place = shared / f"{name}-{served.digest}" if shared is not None else None
        process = EngineProcess(given, llama_server.KEY, OFFLINE, log, place)
        made = cls(served, parse(Generation, found.generate, gguf.FILE), chat, process)
        made.fingerprint = found.fingerprint
        if fingerprint.rows(chat) != found.fingerprint.ids:
            raise UserError(
                f"{folder}: its tokenizer reads the fixed texts in other tokens than at export; "
                "export it again."
            )
        return await made.ready(seconds)

    async def prove(self) -> None:
        """As of ``ServerEngine``: what it says of the fixed texts is what it said at export."""
        known = self.fingerprint
        scores = [(await self.score(ids)).log_probabilities for ids in known.ids]
        found = [[one for one in each if one is not None] for each in scores]
        gap, most = fingerprint.furthest(known.values, found), known.tolerances[known.dtype]
        if not gap <= most:
            raise UserError(
                f"llama.cpp does not say of the fixed texts what it said when {self.served.name} "
                f"was exported (largest difference {gap:.3g}, allowed {most:g}); its file or "
                "llama.cpp was changed: export it again."
            )

    async def likelihoods(self) -> list[float]:
        """As of ``ServerEngine``: those of the likeliest words behind it, which takes one step."""
        asked = {"prompt": self.fixed(), "n_predict": 1, "temperature": 0, "n_probs": TOP}
        said = (await self.process.ask(self.route, asked)).get("completion_probabilities")
        best = said[0].get("top_logprobs", ()) if said else ()
        return sorted((float(one["logprob"]) for one in best), reverse=True)

    def body(self, ids: Sequence[int], request: WritingRequest) -> dict[str, Any]:
        """As of ``ServerEngine``; raises ``Refusal`` 400 for a form that cannot be held to, which
        llama.cpp would leave out without a word."""
        seed = -1 if request.seed is None else request.seed % (2**32 - 1)
        body = {
            "prompt": list(ids),
            "n_predict": request.max_tokens,
            "samplers": ["penalties", "temperature", "top_p"],
            "temperature": request.temperature,
            "top_p": request.top_p,
            "seed": seed,
            "repeat_penalty": self.own.repetition_penalty,
            "repeat_last_n": self.served.window,
            "stop": list(request.stop),
            "n_probs": 1,
            "return_tokens": True,
        }
        if (form := request.form) is not None:
            try:
                body["grammar"] = form.grammar()
            except FormError:
                raise bad_form() from None
        return body

    def part(self, event: dict[str, Any]) -> Part:
        """As of ``ServerEngine``."""
        last = set(event.get("tokens") or ()) & set(self.ends)
        end = ENDS.get(event.get("stop_type", "")) if event.get("stop") else None
        if event.get("stop") and end is None:
            raise down()
        likely = [
            float(one["logprob"])
            for one in event.get("completion_probabilities") or ()
            if one["id"] not in self.ends
        ]
        return Part(
            text=event.get("content") or "",
            tokens=int(event.get("tokens_predicted") or 0) - len(last),
            end="stop" if last else end,
            likelihoods=tuple(likely),
        )

    async def score(self, ids: Sequence[int], top: int = 1) -> TokenScores:
        """As of ``ModelEngine``, one step for each token: llama.cpp says how likely a token is only
        when it has written it. Of one that begins a character and does not end it, it says
        nothing."""
        from residency.export import gguf

        given = list(ids)
        self.reader.check_room(given, 1, self.served.window)
        values, tops = list[float | None]([None]), list[dict[str, float] | None]([None])
        for place, token in enumerate(given[1:], start=1):
            asked = gguf.likelihood(given, place, max(1, top))
            said = await self.process.ask(self.route, asked)
            if said.get("tokens") != [token]:
                raise down()  # whatever it says is about another token
            found = said.get("completion_probabilities")
            values.append(float(found[0]["logprob"]) if found else None)
            best = found[0].get("top_logprobs", ()) if found else ()
            tops.append({self.reader.word(one["id"]): float(one["logprob"]) for one in best})
        return self.reader.scores(given, values, tops)


ENDS: dict[str, Literal["stop", "length"]] = {"eos": "stop", "word": "stop", "limit": "length"}
"""Why llama.cpp ended, and what that is called."""


def rows(settings: Serve) -> int:
    """Answers that llama.cpp writes side by side."""
    return min(settings.batch_rows, ROWS)


def described(folder: Path, name: str, settings: Serve) -> Served:
    """What is known of an exported model. Its window is what a request may have, since llama.cpp
    takes memory for all of it at once. Raises ``UserError`` as ``gguf.read``."""
    from residency.export import gguf

    found, limits = gguf.read(folder), settings.limits
    asked = limits.input_tokens + limits.context_tokens + limits.output_tokens
    return Served(
        name=name,
        digest=found.artefact,
        base=found.base,
        method=found.method,
        output="text",
        card=parse(Card, found.card, gguf.FILE),
        kind="llama",
        dtype=found.numbers,
        window=min(found.window, asked),
    )


def planned(folder: Path, settings: Serve) -> tuple[float, float]:
    """Bytes that llama.cpp takes for an exported model: weights, and all else (keys and values of
    every answer's tokens in 16 bits, what it computes with)."""
    from residency.export import gguf

    found, served = gguf.read(folder), described(folder, "model", settings)
    return gguf.memory(found, folder, served.window, rows(settings))


# The process


def down() -> Refusal:
    """What a request gets while an engine of its own cannot answer."""
    said = "The model is not available at the moment; try again."
    return Refusal(503, "engine_unavailable", said, AGAIN)


class Client:
    """What asks a server over HTTP."""

    seconds: float = 120
    """Longest wait for a part of an answer."""
    key: str = ""
    _client: Any = None

    def __init__(self, address: str) -> None:
        self._address = address

    @property
    def address(self) -> str:
        """Where the server answers."""
        return self._address

    @property
    def alive(self) -> bool:
        """Whether it may be asked; of one that others run only a question shows it."""
        return True

    async def close(self) -> None:
        """Close the connections to it: they are those of one event loop."""
        if self._client is not None:
            with contextlib.suppress(RuntimeError):  # that loop has ended, and they with it
                await self._client.aclose()
            self._client = None

    def _request(self, route: str, body: dict[str, Any]) -> Any:
        """A request, and the client that sends it."""
        import httpx2

        if not self.alive:
            raise down()
        if self._client is None:
            timeout = httpx2.Timeout(self.seconds, connect=2)
            self._client = httpx2.AsyncClient(trust_env=False, timeout=timeout)
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        return self._client.build_request(
            "POST", f"{self.address}{route}", json=body, headers=headers
        )

    async def ask(self, route: str, body: dict[str, Any]) -> dict[str, Any]:
        """Its answer; raises ``Refusal`` (503) where it gives none."""
        import httpx2

        request = self._request(route, body)
        try:
            answer = await self._client.send(request)
            if answer.status_code == 200:
                found: dict[str, Any] = answer.json()
                return found
        except (httpx2.HTTPError, ValueError, OSError):
            pass
        raise down()

    async def stream(
        self, route: str, body: dict[str, Any]
    ) -> AsyncGenerator[dict[str, Any], None]:
        """The events of a streamed answer, up to one that says that it is the last; closing the
        iterator ends the request, and with it the writing."""
        import httpx2

        request = self._request(route, {**body, "stream": True})
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
                    event = json.loads(data)
                    yield event
                    if event.get("stop") is True:  # llama.cpp's last word
                        done = True
                        break
        except (httpx2.HTTPError, ValueError, OSError):
            raise down() from None
        finally:
            if answer is not None:
                await answer.aclose()
        if not done:
            raise down()


class EngineProcess(OwnServer, Client):
    """A server that is started here, and what asks it."""

    @property
    def address(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    async def let_go(self) -> None:
        """Close the connections to it, and leave it as it is."""
        await Client.close(self)

    async def close(self) -> None:
        """End it, and the connections to it."""
        await self.let_go()
        await asyncio.to_thread(self.end)
