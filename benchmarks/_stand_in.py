"""A server on this machine that stands in for somebody else's model: a dictionary behind OpenAI's
chat completions.

It knows the training part and nothing else. Entities: the words that were marked there at least as
often as not, longest first. Questions: the answer of the training question with the most words in
common. No model is behind it, and it says nothing about any product; it shows what a system takes
part with that is only asked over the network.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from residency.core.types import Note

Answerer = Callable[[str], str]
NOTE = re.compile(r"(?:Note|Ghi chép|病历)[:：]\n")
"""What stands before the note in the packaged prompts for entities (``tasks/prompts.yaml``)."""


def marker(notes: Sequence[Note]) -> Answerer:
    """Answers with the entities that training notes mark, as the JSON list that the prompt asks
    for."""
    marked: dict[str, Counter[str]] = {}
    for note in notes:
        for span in note.spans:
            marked.setdefault(span.quote, Counter())[span.label] += 1
    texts = [note.text for note in notes]
    known: dict[str, str] = {}
    for quote, labels in marked.items():
        seen = sum(len(pattern(quote).findall(text)) for text in texts)
        if len(quote) > 1 and 2 * labels.total() >= seen:
            known[quote] = labels.most_common(1)[0][0]
    ordered = sorted(known, key=lambda quote: (-len(quote), quote))
    found = re.compile("|".join(pattern(quote).pattern for quote in ordered)) if known else None

    def answer(prompt: str) -> str:
        text = NOTE.split(prompt, maxsplit=1)[-1]
        rows = []
        for match in found.finditer(text) if found else ():
            earlier = sum(text.startswith(match[0], at) for at in range(match.start()))
            number = {"n": earlier + 1} if earlier else {}
            rows.append({"label": known[match[0]], "text": match[0], **number})
        return json.dumps(rows, ensure_ascii=False)

    return answer


def pattern(quote: str) -> re.Pattern[str]:
    """A quote where it stands as words of its own; Chinese has no such borders."""
    start = r"(?<![^\W\u4e00-\u9fff])" if re.match(r"[^\W\u4e00-\u9fff]", quote) else ""
    end = r"(?![^\W\u4e00-\u9fff])" if re.search(r"[^\W\u4e00-\u9fff]$", quote) else ""
    return re.compile(start + re.escape(quote) + end)


def neighbour(items: Mapping[str, Mapping[str, str]]) -> Answerer:
    """Answers a question of PubMedQA as the nearest training question was answered (BM25)."""
    from residency.tasks.retrieval import Index, Term

    pairs = {one["QUESTION"].strip(): one["final_decision"] for one in items.values()}
    index = Index([Term(code=decision, name=question) for question, decision in pairs.items()])
    most = Counter(pairs.values()).most_common(1)[0][0]

    def answer(prompt: str) -> str:
        asked = re.search(r"^Question: (.*)$", prompt, re.M)
        found = index.find(asked[1] if asked else prompt, 1)
        return found[0].term.code if found else most

    return answer


@contextmanager
def served(answer: Answerer) -> Iterator[str]:
    """The address of a server on loopback that answers with ``answer``, for as long as the context
    lasts."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            text = answer(asked["messages"][-1]["content"])
            # words, and Chinese characters: a count as servers give it, without a tokenizer
            tokens = max(1, len(re.findall(r"[\u4e00-\u9fff]|[^\W\u4e00-\u9fff]+|[^\w\s]", text)))
            body = {"choices": [{"message": {"content": text}}]}
            said = json.dumps({**body, "usage": {"completion_tokens": tokens}}).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/v1"
        finally:
            server.shutdown()
            thread.join()
