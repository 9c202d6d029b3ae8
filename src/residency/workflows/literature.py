"""From PubMed to instruction data: fetch abstracts, have a local model (or none) write questions
and answers, keep what stands on them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from residency.core.errors import DataError, UserError
from residency.core.files import digest, disk_errors, read_jsonl, read_unfinished, write_jsonl
from residency.core.progress import Silent, Tracker
from residency.core.types import Example, Turn, Value
from residency.corpus.abstracts import Abstract
from residency.ingest import pubmed
from residency.synth.pairs import Pair, own_words, read_pairs, sieve

if TYPE_CHECKING:
    from residency.core.types import Predictor

CHUNK = 8
"""Abstracts asked about before the answers are written down."""
OWN = "conclusions"
"""The generator that is none."""


class KeptWords(Value, frozen=True):
    """What a generator wrote about an abstract, kept so that an interrupted command asks nothing
    twice."""

    key: str
    text: str


class PairCounts(Value, frozen=True):
    """What became of abstracts."""

    abstracts: int
    asked: int
    """Those that a question could be made of: all, or those whose titles ask one."""
    pairs: int
    left: dict[str, int]
    """Pairs that were not taken, by reason."""


def fetch(
    query: str, out: Path, email: str, most: int = 1000, tracker: Tracker | None = None
) -> int:
    """Write the abstracts that a search finds, most relevant first; returns how many. An
    interrupted command goes on.

    Raises ``UserError`` where PubMed does not answer: what was fetched is kept beside ``out``.
    """
    tracker = tracker or Silent()
    if not 1 <= most <= pubmed.MOST:
        raise UserError(
            f"--most: PubMed gives 1 to {pubmed.MOST:,} of one search; split it, for example by "
            "year."
        )
    if "@" not in email:
        raise UserError(
            "--email: NCBI wants the address of who is answerable for the requests; give one."
        )
    partial = out.with_name(out.name + ".partial")
    known: dict[str, Abstract] = {row.id: row for row in read_unfinished(partial, Abstract)}
    ids = pubmed.search(query, email, most)
    if not ids:
        raise UserError(
            "PubMed finds nothing for this query; try it at pubmed.ncbi.nlm.nih.gov first."
        )
    tracker.start("fetching", len(ids))
    encoder = msgspec.json.Encoder()
    with disk_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("ab") as file:
            for batch in pubmed.fetch([one for one in ids if one not in known], email):
                for abstract in batch:
                    known[abstract.id] = abstract
                    file.write(encoder.encode(abstract) + b"\n")
                file.flush()
                tracker.update(len(known))
    order = {pmid: number for number, pmid in enumerate(ids)}
    rows = [row for row in known.values() if row.pmid in order]
    rows.sort(key=lambda row: order[row.pmid])
    count = write_jsonl(out, rows)
    partial.unlink(missing_ok=True)
    tracker.end(f"{count} abstracts")
    return count


def convert(source: Path, out: Path, left: Counter[str] | None = None) -> int:
    """Write the abstracts of a PubMed XML file, each PMID once (what the file says last of it);
    returns how many. ``left``: counts articles that are left out, by reason."""
    found: dict[str, Abstract] = {}
    for one in pubmed.read_xml(source, left):
        if one.id in found and left is not None:
            left["the same PMID again"] += 1
        found[one.id] = one
    return write_jsonl(out, found.values())


def make_pairs(
    source: Path,
    out: Path,
    by: str = OWN,
    model: str = "",
    key: str = "",
    pairs: int = 3,
    tracker: Tracker | None = None,
) -> PairCounts:
    """Write questions with answers about the abstracts of a file, in the Alpaca format.

    ``by``: ``conclusions`` (questions that titles ask, answered by the authors' conclusions), a
    base or a run's folder, which writes on this machine, or the address of a server with OpenAI's
    chat completions, ``model`` there, and the environment variable ``key`` that holds its key.
    Raises ``DataError`` for a file that ``residency pubmed`` did not write, ``UserError`` for a
    generator that cannot be used.
    """
    tracker = tracker or Silent()
    abstracts = list(read_jsonl(source, Abstract))
    if not abstracts:
        raise DataError(f"{source}: holds no abstracts; write them with residency pubmed.")
    if by == OWN:
        found = [(pair, abstract.text) for abstract in abstracts if (pair := own_words(abstract))]
        asked = len(found)
    else:
        generator = _generator(by, model, key, out)
        found, asked = list(_written(generator, abstracts, pairs, out, tracker)), len(abstracts)
    taken, left = sieve(found)
    write_jsonl(out, (_row(pair) for pair in taken))
    return PairCounts(len(abstracts), asked, len(taken), dict(Counter(left).most_common()))


def _row(pair: Pair) -> dict[str, str]:
    return {
        "instruction": pair.question,
        "input": "",
        "output": pair.answer,
        "id": f"{pair.pmid}-{digest(pair.question)[:8]}",
        "group": pair.pmid,
        "lang": pair.lang,
        "origin": pair.origin,
        "profile": "public",
    }


def _generator(by: str, model: str, key: str, out: Path) -> Predictor:
    """What writes: a server, a run's model, or a base."""
    from residency.core.part import parse
    from residency.models.base import BaseModelSettings, resolve
    from residency.models.causal import CausalPredictor
    from residency.models.generation import Generation, TokenLimits
    from residency.models.remote import Api, RemotePredictor
    from residency.tasks.card import load_card

    card = load_card("literature")
    if by.startswith(("http://", "https://")):
        if not model:
            raise UserError("--model: name the model that the server is to answer with.")
        api: Api = parse(Api, {"url": by, "model": model, "budget": 1_000_000, "key": key}, "--by")
        return RemotePredictor(api, model, card, out.with_name(out.name + ".answers"))
    if (Path(by) / "manifest.json").is_file():
        from residency.workflows.finished import artefact_of

        return CausalPredictor.from_artefact(artefact_of(Path(by)), card=card).for_card(card)
    base = resolve(BaseModelSettings(id=by), Path.cwd())
    if base.architecture != "causal":
        raise UserError(
            f"--by: {by} does not write; give a causal model, a server's address, or {OWN}."
        )
    return CausalPredictor.untuned(base, card, TokenLimits(), Generation())


def _written(
    generator: Predictor, abstracts: list[Abstract], pairs: int, out: Path, tracker: Tracker
) -> Iterator[tuple[Pair, str]]:
    """Pairs that a generator writes, each with its abstract's text; its words are kept until all
    are there."""
    kept = out.with_name(out.name + ".partial-words")
    known = {one.key: one.text for one in read_unfinished(kept, KeptWords)}
    tracker.start("writing questions", len(abstracts))
    source, done, info = iter(abstracts), 0, generator.info
    with disk_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        with kept.open("ab") as file:
            while chunk := list(islice(source, CHUNK)):
                asked = [(one, _example(one, pairs)) for one in chunk]
                keys = [digest([info.name, info.digest, example.input]) for _, example in asked]
                both = zip(keys, asked, strict=True)
                new = {key: example for key, (_, example) in both if key not in known}
                answers = generator.predict(list(new.values()))
                for key, answer in zip(new, answers, strict=True):
                    known[key] = answer.text
                    file.write(msgspec.json.encode(KeptWords(key=key, text=answer.text)) + b"\n")
                file.flush()
                done += len(chunk)
                tracker.update(done)
                for key, (abstract, _) in zip(keys, asked, strict=True):
                    for pair in read_pairs(known[key], abstract, info.base or info.name):
                        yield pair, abstract.text
    kept.unlink(missing_ok=True)
    tracker.end(f"{done} abstracts")


def _example(abstract: Abstract, pairs: int) -> Example:
    """What a generator is asked of an abstract."""
    from residency.tasks.card import load_card
    from residency.tasks.prompts import fill

    card = load_card("literature")
    words = fill(
        card.prompt, {"text": abstract.text, "pairs": str(pairs)}, f"card {card.name}: prompt"
    )
    return Example(
        id=abstract.id,
        task=card.name,
        input=words,
        turns=(Turn(role="user", text=words),),
        lang=abstract.lang,
        profile="public",
    )
