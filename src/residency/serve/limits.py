"""What a request may ask for. The outermost layer of the server (plain ASGI): size of a body, time,
how many at once, a client that left, and an orderly end; and how many tokens.

The body is read here to its end, within its limits, before the application runs: so it can be
measured, and what comes from the client after it can only be that he left, which cancels the
request whether it is streamed or not.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from residency.core.types import Value
from residency.serve import Refusal, server_failed
from residency.serve.settings import RequestLimits

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Record = Callable[[MutableMapping[str, Any], float, int, str], None]
"""Keeps what is kept of an answer, once: the request, when it began, the status and the code of a
refusal. What a route behind the guard has kept, or will, stays as it is; status 499, told when all
is over, is for what nobody kept. Raises ``Refusal`` where it cannot."""
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

PROBES = ("/healthz", "/readyz", "/metrics")
"""Answered whatever is under way, and while the server drains."""
ADMIN, ADMIN_SECONDS = "/admin/", 3600.0
"""Changes of models take as long as it takes to load one."""
BODY_SECONDS = 10.0
"""Longest that a body may take to arrive."""
HEADER_SECONDS = 10.0
"""Longest that the head of a request may take to arrive, from the connection or from its first
byte."""
READING = 4
"""Bodies that may be arriving at once, as a multiple of ``at_once``."""
CUT_SECONDS = 1.0
"""What cut requests get to say so."""
DISCARDED = 8_388_608
"""Bytes of too large a body that are read away, so that its sender sees the answer and not a broken
connection."""


class HeadInTime(HttpToolsProtocol):
    """uvicorn's protocol, which waits for the head of a request for ever; here no connection is
    held by one that does not come."""

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The first head is due."""
        super().connection_made(transport)
        self._due()

    def on_message_begin(self) -> None:
        """A head has begun."""
        super().on_message_begin()
        self._due()

    def on_headers_complete(self) -> None:
        """It is here."""
        self._stop()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """None is due any more."""
        self._stop()
        super().connection_lost(exc)

    def _due(self) -> None:
        self._stop()
        self._late = self.loop.call_later(HEADER_SECONDS, self.transport.close)

    def _stop(self) -> None:
        if self._late is not None:
            self._late.cancel()


class ClientGone(Exception):
    """The client is gone."""


class Limited:
    """An application within limits. ``crashed`` is told of exceptions that it let through, which go
    no further: no server logs their text."""

    def __init__(
        self,
        app: App,
        limits: RequestLimits,
        crashed: Callable[[BaseException], None] | None = None,
        record: Record | None = None,
    ) -> None:
        self.app, self.limits, self.crashed, self.record = app, limits, crashed, record
        self.draining = False
        self.running: set[asyncio.Task[None]] = set()
        self.reading = 0
        self._under_way = 0
        self._idle = asyncio.Event()

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """One request, or the application's start and end."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        note = self._note(scope, time.monotonic())
        answer = Answer(send, scope["path"], note)
        self._under_way += 1
        try:
            await self._request(scope, receive, answer)
        except Refusal as refusal:
            await answer.refuse(refusal, close=refusal.status in (408, 413) or self.draining)
        except ClientGone:
            answer.closed = True
        finally:
            with contextlib.suppress(Refusal):
                note(499, "")
            self._under_way -= 1
            if not self._under_way:
                self._idle.set()

    def _note(self, scope: MutableMapping[str, Any], started: float) -> Callable[[int, str], None]:
        """Keeps the answers of one request; of a probe nothing is kept."""
        scope.setdefault("state", {})

        def note(status: int, code: str) -> None:
            if self.record is not None and scope["path"] not in PROBES:
                self.record(scope, started, status, code)

        return note

    async def drain(self) -> int:
        """Take no more requests, let those that were taken end, for at most ``limits.drain``
        seconds; how many had to be cut."""
        self.draining = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.limits.drain):
                await self._still()
        cut = set(self.running)
        for task in cut:
            task.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CUT_SECONDS):
                await self._still()
        return len(cut)

    async def _still(self) -> None:
        while self._under_way:
            self._idle.clear()
            await self._idle.wait()

    async def _request(
        self, scope: MutableMapping[str, Any], receive: Receive, answer: Answer
    ) -> None:
        probe = scope["path"] in PROBES
        if self.draining and not probe:
            raise shutting_down()
        until = asyncio.get_running_loop().time() + self._seconds(scope["path"])
        body = b"" if probe else await self._body(scope, receive)
        if len(self.running) >= self.limits.at_once and not probe:
            raise busy()
        gone = asyncio.Event()
        work = asyncio.create_task(self._work(scope, _replayed(body, gone), answer))
        watch = asyncio.create_task(_disconnect(receive, gone))
        if not probe:
            self.running.add(work)
            work.add_done_callback(self.running.discard)
        try:
            await self._watched(scope["path"], work, watch, answer, until)
        finally:
            watch.cancel()
            work.cancel()  # it keeps its place among those at once until it has truly ended
            await asyncio.wait({work, watch})
            self._report(work)

    def _seconds(self, path: str) -> float:
        return ADMIN_SECONDS if path.startswith(ADMIN) else self.limits.seconds

    async def _work(
        self, scope: MutableMapping[str, Any], receive: Receive, answer: Answer
    ) -> None:
        await self.app(scope, receive, answer.send)

    async def _watched(
        self,
        path: str,
        work: asyncio.Task[None],
        watch: asyncio.Task[None],
        answer: Answer,
        until: float,
    ) -> None:
        """Wait for the application; not for one whose client left, nor beyond its time."""
        loop = asyncio.get_running_loop()
        await asyncio.wait(
            {work, watch}, timeout=until - loop.time(), return_when=asyncio.FIRST_COMPLETED
        )
        if (
            not work.done() and watch.done() and answer.complete
        ):  # a server says so too once the answer is out
            await asyncio.wait({work}, timeout=until - loop.time())
        if work.done():
            await self._ended(work, answer)
        elif watch.done():
            answer.closed = True
        else:
            await answer.refuse(
                Refusal(504, "timeout", f"No answer within {self._seconds(path):g} s.")
            )

    async def _ended(self, work: asyncio.Task[None], answer: Answer) -> None:
        """An application that returned, was cut by the end of the server, or failed."""
        problem = None if work.cancelled() else work.exception()
        if work.cancelled() and self.draining:
            await answer.refuse(shutting_down(), close=True)
        elif isinstance(problem, Refusal):
            await answer.refuse(problem)
        elif problem is not None or not answer.complete:
            await answer.refuse(server_failed())

    def _report(self, work: asyncio.Task[None]) -> None:
        problem = None if work.cancelled() else work.exception()
        if problem is not None and not isinstance(problem, Refusal) and self.crashed is not None:
            self.crashed(problem)

    async def _body(self, scope: MutableMapping[str, Any], receive: Receive) -> bytes:
        """The whole body. Raises ``Refusal`` 408, 413 or 503, and ``ClientGone``."""
        declared = _declared(scope)
        most = self.limits.body_bytes
        if self.reading >= READING * self.limits.at_once:
            raise busy()
        self.reading += 1
        try:
            async with asyncio.timeout(min(BODY_SECONDS, self.limits.seconds)):
                if declared > DISCARDED:
                    raise too_large(most)
                return await _read(receive, most)
        except TimeoutError:
            raise Refusal(408, "slow_body", "The request's body did not arrive in time.") from None
        finally:
            self.reading -= 1


class Answer:
    """What goes out for one request, kept (``note``: status and code) before it begins; nothing
    more once it is closed."""

    def __init__(self, send: Send, path: str, note: Callable[[int, str], None]) -> None:
        self._send, self._path, self._note = send, path, note
        self.status = 0
        self.stream = False
        self.complete = False
        self.closed = False

    async def send(self, message: Message) -> None:
        """Pass a message of the application on."""
        if self.closed:
            return
        if message["type"] == "http.response.start":
            try:
                self._note(message["status"], "")
            except Refusal as refusal:
                await self.refuse(refusal)
                return
            self.status = message["status"]
            self.stream = any(
                name.lower() == b"content-type" and value.startswith(b"text/event-stream")
                for name, value in message.get("headers", ())
            )
        elif message["type"] == "http.response.body" and not message.get("more_body", False):
            self.complete = True
        await self._send(message)

    async def refuse(self, refusal: Refusal, close: bool = False) -> None:
        """Answer with a refusal. Where a stream has begun it ends with the error as its last event;
        any other begun answer is cut."""
        begun, over, self.closed = self.status != 0, self.complete or self.closed, True
        if over or (begun and not self.stream):
            return
        with contextlib.suppress(OSError):  # the client may be gone
            await self._refuse(refusal, begun, close)

    async def _refuse(self, refusal: Refusal, begun: bool, close: bool) -> None:
        if not begun:
            try:
                self._note(refusal.status, refusal.code)
            except Refusal as other:
                refusal = other
        body = refusal.body(self._path)
        if begun:
            last = b"data: " + body + b"\n\n"
            await self._send({"type": "http.response.body", "body": last, "more_body": False})
            return
        self.status = refusal.status
        headers = refusal.headers() | {"content-length": str(len(body))}
        if close:
            headers["connection"] = "close"
        pairs = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        await self._send({"type": "http.response.start", "status": self.status, "headers": pairs})
        await self._send({"type": "http.response.body", "body": body})


def busy() -> Refusal:
    """503: too many at once."""
    return Refusal(503, "busy", "Too many requests are under way; try again shortly.", 1.0)


def shutting_down() -> Refusal:
    """503: the server takes no more requests."""
    return Refusal(503, "shutting_down", "The server is shutting down; ask again.", 1.0)


def too_large(most: int) -> Refusal:
    """413: more bytes than a body may have."""
    said = f"The request's body is larger than {most} bytes, the most that is read."
    return Refusal(413, "body_too_large", said)


def _declared(scope: MutableMapping[str, Any]) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value[:20])
    return 0


async def _read(receive: Receive, most: int) -> bytes:
    """A body of at most so many bytes; of a larger one the rest is read away, up to ``DISCARDED``,
    before it is refused."""
    parts, size, more = bytearray(), 0, True
    while more and size <= DISCARDED:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        piece = message.get("body", b"")
        size += len(piece)
        if size <= most:
            parts += piece
        more = message.get("more_body", False)
    if size > most:
        raise too_large(most)
    return bytes(parts)


def _replayed(body: bytes, gone: asyncio.Event) -> Receive:
    """What the application receives: the body once, then that the client left, when he does."""
    given = False

    async def receive() -> Message:
        nonlocal given
        if not given:
            given = True
            return {"type": "http.request", "body": body, "more_body": False}
        await gone.wait()
        return {"type": "http.disconnect"}

    return receive


async def _disconnect(receive: Receive, gone: asyncio.Event) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    gone.set()


# How much may be asked: counts are the served tokenizer's, the same on every route; nothing is cut


class Sizes(Value, frozen=True):
    """Tokens of a request that was found to fit."""

    input: int
    """What the user says: all of his words."""
    context: int
    """What is around them: template, system text, earlier answers, passages."""
    answer: int
    """Most tokens of the answer."""


def user_tokens(count: Callable[[str], int], texts: Iterable[str]) -> int:
    """Tokens of all that the user says in a request, each text by itself."""
    return sum(count(text) for text in texts)


def fit(
    limits: RequestLimits,
    user: int,
    prompt: int | None = None,
    answer: int | None = None,
    window: int = 0,
) -> Sizes:
    """Check a request: ``user`` tokens of the user's, ``prompt`` in all (``user`` and what is
    around it; ``None``: nothing is), ``answer`` that he asks for (``None``: as many as there may
    be), ``window`` of the model (0: it reads any length).

    Raises ``Refusal`` 400 ``too_long``.
    """
    whole = user if prompt is None else max(prompt, user)
    check_text(limits, user)
    if whole - user > limits.context_tokens:
        raise too_long(
            f"The request holds {whole - user} tokens around the user's words (template, system "
            f"text, earlier answers, passages); at most {limits.context_tokens} are taken. Send "
            "fewer earlier turns or passages."
        )
    wanted = _answer(limits, answer)
    return Sizes(user, whole - user, _window(whole, wanted, window, exact=answer is not None))


def check_text(limits: RequestLimits, user: int) -> None:
    """All words of the user. Raises ``Refusal`` 400."""
    if user > limits.input_tokens:
        raise too_long(
            f"The request holds {user} tokens of user input; at most {limits.input_tokens} are "
            "taken. Shorten it: nothing is cut here."
        )


def _answer(limits: RequestLimits, answer: int | None) -> int:
    """The length of answer that is asked for; the most there may be where none is."""
    most = limits.output_tokens
    if answer is None:
        return most
    if answer < 1:
        raise Refusal(400, "bad_max_tokens", f"max_tokens is {answer}; allowed: 1 to {most}.")
    if answer > most:
        said = f"max_tokens is {answer}; at most {most} tokens are written. Ask for fewer."
        raise too_long(said)
    return answer


def _window(prompt: int, answer: int, window: int, exact: bool) -> int:
    """Prompt and answer together must fit what the model reads. Where no length was asked for
    (``exact`` is off), the answer gets what is left."""
    if not window:
        return answer
    if prompt >= window or (exact and prompt + answer > window):
        wanted = f" and {answer} of answer" if exact else ""
        raise too_long(
            f"The prompt has {prompt} tokens{wanted}; this model reads {window} in all. Shorten "
            "one of them."
        )
    return min(answer, window - prompt)


def check_work(limits: RequestLimits, tokens: int) -> None:
    """All tokens that a request reads and may write, over its prompts and choices. Raises
    ``Refusal`` 400."""
    if tokens > limits.work_tokens:
        raise too_long(
            f"The request asks for {tokens} tokens of work (what is read, and for each prompt and "
            f"choice the longest answer); at most {limits.work_tokens} are done in one. Send fewer "
            "prompts, or a smaller max_tokens."
        )


def check_system(limits: RequestLimits, tokens: int) -> None:
    """The system text that a request brings. Raises ``Refusal`` 400."""
    if tokens > limits.system_tokens:
        raise too_long(
            f"The system text has {tokens} tokens; at most {limits.system_tokens} are taken. "
            "Shorten it."
        )


def too_long(sentence: str) -> Refusal:
    """400, with counts and limits in its sentence."""
    return Refusal(400, "too_long", sentence)
