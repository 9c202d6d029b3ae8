"""From abstracts to questions with answers: what is kept of a generator's words. All articles are
invented."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from residency.core.errors import DataError, UserError
from residency.core.files import write_jsonl
from residency.corpus.abstracts import abstract
from residency.synth.pairs import Pair, fault, own_words, read_pairs, sieve
from residency.workflows.literature import make_pairs

TITLE = "Does inventedmab help patients with invented fever?"
SECTIONS = [
    ("METHODS", "We treated 120 patients with invented fever."),
    ("CONCLUSIONS", "Inventedmab lowered the temperature in 30% of patients with invented fever."),
]
ONE = abstract("7", TITLE, SECTIONS)


def pair(question: str, answer: str, pmid: str = "7") -> Pair:
    return Pair(question, answer, pmid, "en", "model:m")


GOOD = pair(
    "How often does inventedmab lower the temperature in invented fever?",
    "Inventedmab lowered it in 30% of patients.",
)


def test_a_title_that_asks_is_answered_by_the_conclusion() -> None:
    found = own_words(ONE)
    assert found is not None
    assert (found.question, found.answer, found.origin) == (TITLE, SECTIONS[1][1], "real")
    assert own_words(abstract("8", "Inventedmab in fever.", SECTIONS)) is None
    assert own_words(abstract("9", TITLE, SECTIONS[:1])) is None


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (pair("Inventedmab and fever.", GOOD.answer), "is none"),
        (pair("What did this study show about fever?", GOOD.answer), "without the text"),
        (pair(GOOD.question, "Inventedmab lowered the temperature in 45% of patients."), "figure"),
        (
            pair(GOOD.question, "Surgery under general anaesthesia remains preferable everywhere."),
            "does not",
        ),
        (pair(GOOD.question, "Yes."), "too short"),
    ],
)
def test_what_does_not_stand_on_the_abstract_is_left_out_with_its_reason(
    bad: Pair, why: str
) -> None:
    assert why in fault(bad, ONE.text)
    assert not fault(GOOD, ONE.text)


def test_of_nearly_the_same_questions_the_first_is_kept() -> None:
    again = pair(GOOD.question.replace("?", " ?"), GOOD.answer, "8")
    kept, left = sieve([(GOOD, ONE.text), (GOOD, ONE.text), (again, ONE.text)])
    assert kept == [GOOD]
    assert sum(left.values()) == 2


@pytest.mark.parametrize(
    ("words", "count"),
    [
        ('Here you are: [{"question": "A?", "answer": "B"}] Done.', 1),
        ('[{"question": "A?", "answer": "B"}, {"question": "C?", "answer": "D"', 2),
        ('[{"question": "A?"}, {"answer": "B"}, 7, null]', 0),
        ("I cannot do that.", 0),
        ("", 0),
    ],
)
def test_a_generators_list_is_read_as_far_as_it_is_one(words: str, count: int) -> None:
    assert len(read_pairs(words, ONE, "m")) == count


class Writer(ThreadingHTTPServer):
    """A stand-in for a local model's server; refuses from a given request on."""

    asked = 0
    refuses_from = 10**9


class Answers(BaseHTTPRequestHandler):
    server: Writer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        assert "invented fever" in body["messages"][-1]["content"]
        self.server.asked += 1
        rows = [
            {
                "question": f"How often does inventedmab number {self.server.asked} help?",
                "answer": GOOD.answer,
            },
            {"question": "What did the authors do?", "answer": GOOD.answer},
        ]
        answer = json.dumps({"choices": [{"message": {"content": json.dumps(rows)}}]}).encode()
        self.send_response(400 if self.server.asked >= self.server.refuses_from else 200)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def writer() -> Iterator[Writer]:
    with Writer(("127.0.0.1", 0), Answers) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def abstracts(folder: Path, count: int) -> Path:
    path = folder / "abstracts.jsonl"
    write_jsonl(
        path,
        (
            abstract(str(number), TITLE, [*SECTIONS, ("SITE", f"Ward {number}.")])
            for number in range(count)
        ),
    )
    return path


def test_a_local_server_writes_and_an_interrupted_command_asks_nothing_twice(
    writer: Writer, tmp_path: Path
) -> None:
    source, out = abstracts(tmp_path, 20), tmp_path / "pairs.jsonl"
    where = f"http://127.0.0.1:{writer.server_address[1]}/v1"
    writer.refuses_from = 12
    with pytest.raises(UserError, match="What was answered is kept"):
        make_pairs(source, out, where, "m")
    assert not out.exists()
    asked, writer.refuses_from = writer.asked, 10**9
    made = make_pairs(source, out, where, "m")
    rows = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    assert writer.asked <= asked + 20 - 8  # of the 20, at least the first batch was not asked again
    assert made.left["the question is not understood without the text"] >= 20 - made.pairs
    assert len(rows) == made.pairs > 0
    assert {row["origin"] for row in rows} == {"model:m"}


def test_pairs_are_read_as_instruction_data(tmp_path: Path) -> None:
    from residency.core.part import parse
    from residency.corpus.load import Data, load

    out = tmp_path / "pairs.jsonl"
    made = make_pairs(abstracts(tmp_path, 3), out)
    assert (made.abstracts, made.asked, made.pairs) == (3, 3, 1)  # three times the same title
    data = parse(
        Data, {"format": "alpaca", "train": "pairs.jsonl", "stop": 0, "profile": "public"}, "data"
    )
    (note,) = load(data, "pairs", tmp_path, 0).part("train")
    assert [turn.text for turn in note.turns] == [TITLE, SECTIONS[1][1]]


def test_faults_are_one_sentence(tmp_path: Path) -> None:
    wrong = tmp_path / "notes.jsonl"
    wrong.write_text('{"id": "1", "text": "a"}\n', "utf-8")
    with pytest.raises(DataError, match=r"notes\.jsonl:1"):
        make_pairs(wrong, tmp_path / "out.jsonl")
    with pytest.raises(UserError, match="--model"):
        make_pairs(abstracts(tmp_path, 1), tmp_path / "out.jsonl", "http://127.0.0.1:9/v1")
    with pytest.raises(UserError, match="does not write"):
        make_pairs(abstracts(tmp_path, 1), tmp_path / "out.jsonl", "bundled:tiny-encoder")
    with pytest.raises(UserError, match="encrypted"):
        make_pairs(abstracts(tmp_path, 1), tmp_path / "out.jsonl", "http://example.org/v1", "m")


def test_the_bundled_model_writes_on_this_machine(tmp_path: Path) -> None:
    made = make_pairs(abstracts(tmp_path, 1), tmp_path / "out.jsonl", "bundled:tiny-lm", pairs=1)
    assert (
        made.asked == 1
        # far too small a model to write anything that stands on an abstract: what it wrote was read and
        # judged
    )
    assert (tmp_path / "out.jsonl").exists()


FEVER = (
    "Inventedmab in invented fever.\nMETHODS: We treated 120 patients.\nRESULTS: The rate of "
    "relapse was lowered from 30 % to 18 %. Mortality did not differ between the groups. "
    "Haemoglobin increased from 9.1 to 11.4 g/dl in treated patients."
)


@pytest.mark.parametrize(
    ("answer", "stands"),
    [
        ("Inventedmab lowered the rate of relapse from 30 % to 18 %.", True),
        ("The relapse rate fell from 30 % to 18 %.", True),
        ("Inventedmab raised the rate of relapse from 18 % to 30 %.", False),
        ("The rate of relapse was lowered from 18 % to 30 %.", False),
        ("The rate of relapse changed from 18 % to 30 %.", False),
        ("Mortality did not differ between the groups.", True),
        ("Mortality differed between the groups.", False),
        ("The rate of relapse was not lowered.", False),
        ("Haemoglobin increased from 9.1 to 11.4 g/dl in treated patients.", True),
        ("Haemoglobin decreased in treated patients.", False),
    ],
)
def test_an_answer_does_not_say_the_opposite_of_its_abstract(answer: str, stands: bool) -> None:
    found = fault(pair("What became of patients with invented fever?", answer), FEVER)
    assert (found == "") == stands, found


@pytest.mark.parametrize(
    ("text", "same", "other"),
    [
        (
            "Thuốc làm giảm tỷ lệ tái phát từ 30% xuống 18% ở bệnh nhân.",
            "Tỷ lệ tái phát giảm từ 30% xuống 18%.",
            "Thuốc làm tăng tỷ lệ tái phát ở bệnh nhân.",
        ),
        ("治疗组复发率从30%降至18%，明显降低。", "复发率降低。", "治疗组复发率明显升高。"),
        ("两组死亡率无差异。", "两组死亡率没有差异。", "两组死亡率有差异。"),
    ],
)
def test_the_opposite_is_known_in_other_languages(text: str, same: str, other: str) -> None:
    from residency.synth.polarity import opposite

    assert not opposite(same, text)
    assert opposite(other, text)
