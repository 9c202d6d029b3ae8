"""A department's knowledge base: passages of documents in versions, which answers may quote once a
clinician has accepted them, in one SQLite file.

A passage is a stretch of its document as it was added. What is searched: passages that were
accepted and have not expired; of a document in several versions those of the newest that is decided
on as a whole. Every decision is kept, with who and when and the hash of what was read.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, date, datetime
from itertools import islice
from pathlib import Path
from typing import Literal

from residency.core.errors import DataError, UserError, allowed
from residency.core.files import disk_errors, sha256
from residency.core.types import Value
from residency.knowledge.terms import terms
from residency.locale.tokenise import detect, sentences

Kind = Literal["guideline", "record", "graph"]
State = Literal["waiting", "accepted", "rejected", "replaced"]
SCHEMA = 1
SUFFIX = ".kb"
LONGEST = 600
"""Characters of a passage, but for a sentence that is longer by itself."""
TERMS = 3
POSTINGS = 20_000
"""A query is its rarest terms: at least so many, and more as long as the passages that hold them
are not more than this; the common ones cost most and find least."""
TABLES = """
create table base (department text not null, schema integer not null);
create table documents (
    name text not null, version text not null, kind text not null, lang text not null,
    until text not null, patient text not null, sha text not null, added text not null,
    primary key (name, version));
create table passages (
    number integer primary key, id text not null unique, name text not null, version text not null,
    start integer not null, heading text not null, text text not null, state text not null);
create index by_document on passages (name, version);
create table decisions (
    passage text not null, state text not null, by_whom text not null, at text not null,
    sha text not null);
create virtual table found using fts5 (terms, content='',
    tokenize="unicode61 remove_diacritics 0 tokenchars '_'");
create virtual table spread using fts5vocab (found, row);
"""


class Document(Value, frozen=True):
    """What passages are cut from."""

    name: str
    version: str
    text: str
    kind: Kind = "guideline"
    lang: str = ""
    """Told from the text where not given."""
    until: str = ""
    """The last day on which it may be quoted (ISO 8601); none: no end."""
    patient: str = ""
    """The pseudonym of the patient, for a record."""


class Passage(Value, frozen=True):
    """A stretch of a document."""

    id: str
    document: str
    version: str
    start: int
    """Where it begins in its document, in code points."""
    heading: str
    text: str
    kind: Kind
    lang: str
    until: str
    state: State
    sha: str = ""
    """The hash of what was decided on; empty before."""

    @property
    def as_accepted(self) -> bool:
        """Whether it is word for word what a clinician accepted."""
        return self.state == "accepted" and self.sha == sha256(self.text.encode())

    def may_be_quoted(self, day: date | None = None) -> bool:
        """Whether it may be quoted on a day (today)."""
        return self.as_accepted and not (self.until and self.until < f"{day or date.today()}")


class Standing(Value, frozen=True):
    """A document in one version."""

    name: str
    version: str
    kind: Kind
    until: str
    waiting: int
    accepted: int
    rejected: int
    replaced: int


PASSAGE = """
select p.id, p.name, p.version, p.start, p.heading, p.text, d.kind, d.lang, d.until, p.state,
    coalesce((select sha from decisions where passage = p.id order by rowid desc limit 1), '')
from passages p join documents d on d.name = p.name and d.version = p.version"""


class KnowledgeBase:
    """The base of one department."""

    def __init__(self, path: Path, department: str = "") -> None:
        """Opens a base, or begins one for a department.

        Raises ``UserError`` where there is none and no department is named, where it is another
        department's, and where the file is no base.
        """
        self.path = path
        if path.suffix != SUFFIX:
            raise UserError(f"{path}: name the file of a knowledge base NAME{SUFFIX}.")
        new = not path.is_file()
        if new and not department:
            raise UserError(f"{path}: there is no knowledge base; begin one with residency kb add.")
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            if new:
                path.touch(0o600)
        self.db = sqlite3.connect(path, check_same_thread=False)
        try:
            if new:
                with self.db:
                    self.db.executescript(TABLES)
                    self.db.execute("insert into base values (?, ?)", (department, SCHEMA))
            self.department, schema = self.db.execute("select * from base").fetchone()
        except (sqlite3.DatabaseError, TypeError):
            self.db.close()
            raise UserError(
                f"{path}: is no knowledge base; name a file that residency kb add has made."
            ) from None
        if schema > SCHEMA:
            raise UserError(f"{path}: was written by a newer version; use that one.")
        if department and department != self.department:
            raise UserError(
                f"{path}: is the base of {self.department}, not of {department}; each department "
                "has a file of its own."
            )

    def __enter__(self) -> KnowledgeBase:
        return self

    def __exit__(self, *_: object) -> None:
        self.db.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            with disk_errors(self.path), self.db:
                yield
        except sqlite3.OperationalError as error:
            raise UserError(
                f"{self.path}: cannot be written ({error}); free space, or wait for who else "
                "writes, then run again."
            ) from None

    def add(self, documents: Iterable[Document]) -> list[int]:
        """Add documents, all or none; their passages wait for a decision. How many of each are new:
        none where it was added before.

        Raises ``DataError`` for another text under the same name and version, and for one without
        words; ``UserError`` for a day that is none.
        """
        with self._writing():
            return [self._add(one) for one in documents]

    def _add(self, one: Document) -> int:
        _day(one.until, one.name)
        sha, key = sha256(one.text.encode()), (one.name, one.version)
        before = self.db.execute(
            "select sha from documents where name = ? and version = ?", key
        ).fetchone()
        if before and before[0] != sha:
            raise DataError(
                f"{one.name}: version {one.version} is there with another text; give the changed "
                "one a version of its own."
            )
        if before:
            return 0
        cut = list(passages_of(one.text, one.lang))
        if not cut:
            raise DataError(f"{one.name}: holds no words; leave it out.")
        lang = one.lang or detect(one.text)
        self.db.execute(
            "insert into documents values (?, ?, ?, ?, ?, ?, ?, ?)",
            (*key, one.kind, lang, one.until, one.patient, sha, _now()),
        )
        for start, end, heading in cut:
            text = one.text[start:end]
            id = sha256("\0".join((*key, str(start), text)).encode())[:16]
            number = self.db.execute(
                "insert into passages values (null, ?, ?, ?, ?, ?, ?, 'waiting')",
                (id, *key, start, heading, text),
            ).lastrowid
            words = " ".join(terms(f"{heading}\n{text}", lang))
            self.db.execute("insert into found (rowid, terms) values (?, ?)", (number, words))
        return len(cut)

    def passage(self, id: str) -> Passage:
        """A passage by its id; raises ``UserError`` where there is none."""
        row = self.db.execute(f"{PASSAGE} where p.id = ?", (id,)).fetchone()
        if row is None:
            raise UserError(f"{id}: is no passage of {self.path}; residency kb review lists them.")
        return Passage(*row)

    def waiting(self, document: str = "") -> list[Passage]:
        """The passages that wait for a decision, of all documents or one, as they stand there."""
        asked = f"{PASSAGE} where p.state = 'waiting' and ? in ('', p.name) order by p.number"
        return [Passage(*row) for row in self.db.execute(asked, (document,))]

    def decide(self, decisions: Iterable[tuple[str, bool]], by: str) -> int:
        """Accept (true) or reject passages; how many changed. Where with it a version is decided on
        as a whole, and something of it is accepted, the others of its document are replaced."""
        if not by.strip():
            raise UserError("--by: say who decides; answers show it beside their source.")
        changed = 0
        with self._writing():
            touched = set()
            for id, accept in decisions:
                one, state = self.passage(id), "accepted" if accept else "rejected"
                if one.state == state and one.as_accepted == accept:
                    continue
                self._put(one, state, by)
                touched.add((one.document, one.version))
                changed += 1
            for name, version in sorted(touched):
                self._replace_others(name, version, by)
        return changed

    def accepted(self, id: str) -> tuple[str, str]:
        """Who accepted a passage, and on which day."""
        asked = "select by_whom, substr(at, 1, 10) from decisions where passage = ?"
        by, day = self.db.execute(f"{asked} order by rowid desc limit 1", (id,)).fetchone()
        return by, day

    def states(self, document: str) -> dict[str, str]:
        """How each passage of a document stands, in all its versions."""
        return dict(self.db.execute("select id, state from passages where name = ?", (document,)))

    def restore(self, states: Mapping[str, str], by: str) -> None:
        """Let passages stand again as they did, which is a decision too."""
        with self._writing():
            for id, state in states.items():
                if (one := self.passage(id)).state != state:
                    self._put(one, state, by)

    def _put(self, one: Passage, state: str, by: str) -> None:
        self.db.execute("update passages set state = ? where id = ?", (state, one.id))
        self.db.execute(
            "insert into decisions values (?, ?, ?, ?, ?)",
            (one.id, state, by, _now(), sha256(one.text.encode())),
        )

    def _replace_others(self, name: str, version: str, by: str) -> None:
        states = [
            state
            for (state,) in self.db.execute(
                "select state from passages where name = ? and version = ?", (name, version)
            )
        ]
        if "waiting" in states or "accepted" not in states:
            return
        others = self.db.execute(
            f"{PASSAGE} where p.name = ? and p.version != ? and p.state in ('accepted', 'waiting')",
            (name, version),
        ).fetchall()
        for row in others:
            self._put(Passage(*row), "replaced", by)

    def withdraw(self, document: str, by: str) -> int:
        """Take a document out of all answers; how many passages that were. Raises ``UserError`` for
        one that is not there."""
        rows = self.db.execute(f"{PASSAGE} where p.name = ?", (document,)).fetchall()
        if not rows:
            names = (one.name for one in self.standing())
            raise UserError(f"{document}: is not in {self.path}; {allowed(names, document)}.")
        return self.decide([(Passage(*row).id, False) for row in rows], by)

    def records(self, patients: Iterable[str]) -> list[str]:
        """The documents that are records of these patients."""
        return [
            name
            for patient in sorted(set(patients) - {""})
            for (name,) in self.db.execute(
                "select name from documents where patient = ? order by name", (patient,)
            )
        ]

    def forget(self, patients: Iterable[str]) -> int:
        """Remove the records of patients, their passages and what was decided on them; how many
        passages that were."""
        count = 0
        with self._writing():
            for patient in sorted(set(patients) - {""}):
                rows = self.db.execute(
                    "select p.number, p.id, p.heading, p.text, d.lang from passages p join "
                    "documents d on d.name = p.name and d.version = p.version where d.patient = ?",
                    (patient,),
                ).fetchall()
                for number, id, heading, text, lang in rows:
                    words = " ".join(terms(f"{heading}\n{text}", lang))
                    self.db.execute(
                        "insert into found (found, rowid, terms) values ('delete', ?, ?)",
                        (number, words),
                    )
                    self.db.execute("delete from passages where number = ?", (number,))
                    self.db.execute("delete from decisions where passage = ?", (id,))
                self.db.execute("delete from documents where patient = ?", (patient,))
                count += len(rows)
        if count:  # nothing of it may stand in the index or in free pages
            self.db.execute("insert into found (found) values ('optimize')")
            self.db.commit()
            self.db.execute("vacuum")
        return count

    def standing(self) -> list[Standing]:
        """The documents, and how their passages stand."""
        states = ("waiting", "accepted", "rejected", "replaced")
        sums = ", ".join(f"sum(p.state = '{state}')" for state in states)
        rows = self.db.execute(
            f"select d.name, d.version, d.kind, d.until, {sums} from documents d join passages p "
            "on p.name = d.name and p.version = d.version group by d.name, d.version "
            "order by d.name, d.added, d.version"
        )
        return [Standing(*row) for row in rows]

    def search(self, query: str, most: int = 5, day: date | None = None) -> list[Passage]:
        """The passages that may be quoted on a day (today), best first (BM25)."""
        known = self._rarest(list(dict.fromkeys(terms(query, detect(query)))))
        if not known:
            return []
        words = " OR ".join(f'"{one}"' for one in known)
        wanted = 10 * most  # some of what is found may not be quoted
        while True:
            ranked = self.db.execute(
                "select rowid from found where found match ? order by rank limit ?", (words, wanted)
            ).fetchall()
            found = (self.db.execute(f"{PASSAGE} where p.number = ?", row) for row in ranked)
            good = (one for row in found if (one := Passage(*row.fetchone())).may_be_quoted(day))
            best = list(islice(good, most))
            if len(best) == most or len(ranked) < wanted:
                return best
            wanted *= 10

    def _rarest(self, asked: list[str]) -> list[str]:
        """The terms of a query that are searched for."""
        places = ", ".join("?" * len(asked))
        spread = self.db.execute(
            f"select doc, term from spread where term in ({places}) order by doc, term", asked
        )
        kept: list[str] = []
        total = 0
        for count, term in spread:
            total += count
            if total > POSTINGS and len(kept) >= TERMS:
                break
            kept.append(term)
        return kept


def passages_of(text: str, lang: str = "") -> Iterator[tuple[int, int, str]]:
    """Where the passages of a text begin and end, each with the heading that it stands under: as
    many whole sentences of a paragraph as fit."""
    heading, begun, last = "", -1, -1
    for start, end in sentences(text, lang):
        title = _heading(text, start, end)
        apart = begun >= 0 and (
            title or "\n\n" in text[last:start].replace("\r\n", "\n") or end - begun > LONGEST
        )
        if apart:
            yield begun, last, heading
            begun = -1
        if title:
            heading = title
            continue
        begun, last = (start if begun < 0 else begun), end
    if begun >= 0:
        yield begun, last, heading


def _heading(text: str, start: int, end: int) -> str:
    """The words of a heading of Markdown; empty where a sentence is none."""
    said = text[start:end]
    level = said[: len(said) - len(said.lstrip("#"))]
    return said[len(level) :].strip() if 0 < len(level) <= 6 else ""


def _day(until: str, name: str) -> None:
    try:
        if until:
            date.fromisoformat(until)
    except ValueError:
        raise UserError(f"{name}: --until {until}: give a day as 2027-12-31.") from None


def _now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
