"""A tagger beside rules: what wins where both find something, what never is one finding, and who
decides on a place of doubt."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from residency.core.errors import UserError
from residency.core.types import RawNote
from residency.deid import loose, tagger
from residency.deid.engine import DeidentifiedNote, Deidentifier
from residency.deid.find import Finding
from residency.deid.names.zh import before_act
from residency.deid.options import Deid
from residency.deid.tagger import (
    FILE,
    GRAPH,
    LABELS,
    PACKAGED,
    TOKENIZER,
    IdentifierTagger,
    ReviewedTagger,
    Tagged,
    TaggerCard,
    beside,
    cells,
    finder,
    read_card,
)
from residency.deid.terms import is_term
from residency.deid.vault import Vault
from residency.workflows.deidentify_texts import deidentify_texts


class Marker:
    """Marks every word of a list, each as likely as the list says."""

    card = TaggerCard(
        schema=1,
        labels=LABELS,
        window=64,
        mask=0.5,
        review=0.2,
        files={},
        layers=1,
        pieces=1,
        steps=1,
        seed=0,
    )

    def __init__(self, words: dict[str, tuple[str, float]]) -> None:
        self.words = words

    def tag(self, text: str, least: float) -> list[Tagged]:
        found = re.finditer("|".join(map(re.escape, self.words)), text)
        places = [Tagged(one.start(), one.end(), *self.words[one[0]]) for one in found]
        return [one for one in places if one.probability >= least]


def reviewed(words: dict[str, tuple[str, float]], **given: object) -> ReviewedTagger:
    return ReviewedTagger(Marker(words), Deid.model_validate(given))  # type: ignore[arg-type]


def quotes(text: str, rules: list[Finding], *tagged: Tagged) -> list[str]:
    return [text[one.start : one.end] for one in beside(rules, tagged, text)]


def test_what_is_tagged_ends_at_tabs_bars_and_line_ends() -> None:
    text = "Le Van Minh\tTang huyet ap|Hoa\n, Binh."
    found = [text[a:b] for a, b in cells(text, 0, len(text))]
    assert found == ["Le Van Minh", "Tang huyet ap", "Hoa", "Binh."]


def test_signs_alone_are_no_finding() -> None:
    assert list(cells(" - \n/ ", 0, 6)) == []


def test_people_of_the_rules_and_of_the_tagger_become_one() -> None:
    text = "BN Le Van Minh"
    rules = [Finding(3, 9, "name", "rule")]
    assert quotes(text, rules, Tagged(3, 14, "clinician", 0.9)) == ["Le Van Minh"]


def test_rules_win_over_a_number_and_keep_theirs_in_a_longer_place() -> None:
    text = "12 Elm St, 3/4/2020 Ashby"
    date = [Finding(11, 19, "date", "rule")]
    assert quotes(text, date, Tagged(0, 25, "address", 0.9)) == ["12 Elm St", "Ashby"]
    assert quotes(text, date, Tagged(9, 19, "record", 0.9)) == []  # a date stays one
    assert quotes(text, date, Tagged(11, 15, "date", 0.9)) == []


def test_a_number_that_rules_found_in_part_is_found_whole() -> None:
    text = "file P.2300/ 88-1 sent"
    rules = [Finding(5, 11, "address", "rule")]
    assert quotes(text, rules, Tagged(5, 17, "record", 0.9)) == ["P.2300/ 88-1"]
    assert quotes(text, rules, Tagged(7, 17, "record", 0.9)) == []


def test_the_weekday_that_rules_leave_of_a_date_stays() -> None:
    text = "Review Tues 4 Nov, stavros 4 Nov"
    first, second = Finding(12, 17, "date", "rule"), Finding(27, 32, "date", "rule")
    assert quotes(text, [first], Tagged(7, 17, "date", 0.9)) == []
    assert quotes(text, [second], Tagged(19, 32, "date", 0.9)) == ["stavros"]


def test_a_sure_place_is_masked_and_a_doubtful_one_waits() -> None:
    text = "seen with Rosie by Knox at home"
    tagger = reviewed(
        {"Rosie": ("relative", 0.9), "Knox": ("clinician", 0.3), "home": ("name", 0.1)}
    )
    found, doubts = tagger.add("n", text, [])
    assert [text[one.start : one.end] for one in found] == ["Rosie"]
    assert [text[one.start : one.end] for one in doubts] == ["Knox"]


def test_codes_of_public_systems_and_diseases_called_by_a_name_stay() -> None:
    words = {"LOINC": ("name", 0.9), "2345-7": ("record", 0.9), "Grave": ("relative", 0.9)}
    text = "LOINC 2345-7. Sister Grave's disease; file 2345-7, sister Grave came."
    found, doubts = reviewed(words).add("n", text, [])
    assert [text[one.start : one.end + 5] for one in found] == ["2345-7, sis", "Grave came"]
    assert not doubts


@pytest.mark.parametrize(
    ("text", "quote", "kind", "stays"),
    [
        ("GCS 14/15 on arrival", "14/15", "date", True),
        ("sức cơ 3/5 hai chân", "3/5", "date", True),
        ("seen on 14/5 again", "14/5", "date", False),
        ("PSA 18,4 ng", "18,4", "date", True),
        ("a 12-lead tracing", "12-lead", "date", True),
        ("born 12-Dec", "12-Dec", "date", False),
        ("stent 2.75x23", "2.75x23", "record", True),
        ("APC c.1234del", "c.1234del", "record", True),
        ("chart KM 22", "KM 22", "record", False),
        ("予甲强龙静滴", "龙", "name", True),
        ("今由老龙陪同", "龙", "name", False),
        ("找龙主任看", "龙", "clinician", False),
        ("penicillin (hives)", "hives", "clinician", True),
        ("told to call priya", "priya", "clinician", False),
    ],
)
def test_scores_sizes_and_words_that_are_tagged_stay(
    text: str, quote: str, kind: str, stays: bool
) -> None:
    start = text.index(quote)
    assert is_term(text, start, start + len(quote), kind) is stays


def test_what_a_person_decided_is_done() -> None:
    text = "Rosie, Knox"
    tagger = reviewed({"Rosie": ("relative", 0.9), "Knox": ("clinician", 0.3)})
    tagger.decided = lambda note, start, end, quote: quote == "Knox"
    found, doubts = tagger.add("n", text, [])
    assert [text[one.start : one.end] for one in found] == ["Knox"] and not doubts


def test_thresholds_that_cross_are_one_sentence() -> None:
    with pytest.raises(UserError, match=r"deid.review: 0.6 is above deid.mask, which is 0.5"):
        reviewed({}, mask=0.5, review=0.6)


def test_a_note_is_replaced_at_what_is_tagged_and_says_what_it_left(tmp_path: Path) -> None:
    vault = Vault.open(tmp_path, bytes(32))
    tagger = reviewed({"Zyxwa": ("relative", 0.9), "Qrsta": ("name", 0.3)})
    raw = RawNote(id="n", patient="p", text="zo is Zyxwa, not Qrsta.", lang="en")
    done = Deidentifier(Deid(), vault, tagger=tagger).process(raw)
    assert isinstance(done, DeidentifiedNote)
    assert "Zyxwa" not in done.note.text and "Qrsta" in done.note.text
    assert [raw.text[one.start : one.end] for one in done.doubts] == ["Qrsta"]


def places(
    shares: list[list[float]], text: str, least: float, labels: tuple[str, str] = ("a", "b")
) -> list[tuple[str, str, float]]:
    """What a tagger of two labels reads off the shares (O, B-a, I-a, B-b, I-b) of words."""
    tagger = object.__new__(IdentifierTagger)
    tagger.card = TaggerCard(1, labels, 8, 0.5, 0.2, {}, 1, 1, 1, 0)
    slots = [match.span() for match in re.finditer(r"\w+", text)]
    found = tagger._places(text, slots, np.log(np.array(shares, np.float32)), least)
    return [(text[one.start : one.end], one.kind, round(one.probability, 2)) for one in found]


def test_a_run_of_slots_is_one_place_as_likely_as_its_likeliest() -> None:
    shares = [
        [0.96, 0.01, 0.01, 0.01, 0.01],
        [0.1, 0.6, 0.1, 0.1, 0.1],
        [0.7, 0.05, 0.2, 0.03, 0.02],
        [0.2, 0.02, 0.02, 0.7, 0.06],
    ]
    assert places(shares, "BN Minh Hoa Ashby", 0.2) == [("Minh Hoa", "a", 0.9), ("Ashby", "b", 0.8)]


def test_a_new_beginning_is_a_new_place() -> None:
    both = [[0.1, 0.8, 0.04, 0.03, 0.03]] * 2
    assert places(both, "Minh Hoa", 0.5) == [("Minh", "a", 0.9), ("Hoa", "a", 0.9)]


def test_words_between_which_the_kind_changes_are_one_place() -> None:
    shares = [
        [0.05, 0.6, 0.2, 0.1, 0.05],
        [0.1, 0.05, 0.1, 0.05, 0.7],
        [0.05, 0.02, 0.7, 0.01, 0.22],
    ]
    both = ("clinician", "organisation")
    found = places(shares, "Mesa Verde Ortho", 0.5, both)
    assert found == [("Mesa Verde Ortho", "clinician", 0.95)]
    apart = places(shares, "Mesa Verde Ortho", 0.5, ("clinician", "record"))
    assert [quote for quote, _, _ in apart] == ["Mesa", "Verde", "Ortho"]


def test_a_place_grows_over_slots_that_are_less_likely_and_none_begins_at_one() -> None:
    begun, less = [0.05, 0.88, 0.05, 0.01, 0.01], [0.7, 0.04, 0.24, 0.01, 0.01]
    assert places([begun, less], "Minh Hoa", 0.5) == [("Minh Hoa", "a", 0.95)]
    assert places([less, less], "Minh Hoa", 0.5) == []


def test_a_part_in_another_line_is_as_likely_as_itself() -> None:
    begun, less = [0.05, 0.88, 0.05, 0.01, 0.01], [0.7, 0.04, 0.24, 0.01, 0.01]
    assert places([begun, less], "Ashby\nSon", 0.5) == [("Ashby", "a", 0.95)]


def test_missing_weights_are_one_sentence_with_the_command(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"residency tagger --out .*deid.tagger: off"):
        read_card(tmp_path)


@pytest.mark.skipif(not PACKAGED.is_dir(), reason="the package carries no weights")
@pytest.mark.parametrize("name", [FILE, GRAPH, TOKENIZER])
def test_a_tagger_of_which_a_bit_is_flipped_or_a_file_is_gone_is_refused_and_never_left_out(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    for kept in (FILE, GRAPH, TOKENIZER):
        (tmp_path / kept).write_bytes((PACKAGED / kept).read_bytes())
    monkeypatch.setattr(loose, "PACKAGED", tmp_path)
    find = loose.unreviewed.__wrapped__
    assert find() is not None
    whole = bytearray((tmp_path / name).read_bytes())
    for place in {len(whole) // 3, len(whole) // 2, len(whole) - 9}:
        harmed = bytearray(whole)
        harmed[place] ^= 1
        (tmp_path / name).write_bytes(harmed)
        with pytest.raises(UserError, match=name):
            find()
    (tmp_path / name).unlink()
    with pytest.raises(UserError, match=r"deid\.tagger"):
        find()


def test_texts_are_not_released_by_rules_alone_where_the_weights_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tagger, "PACKAGED", tmp_path / "nowhere")
    (tmp_path / "a.txt").write_text("No fever.", "utf-8")
    with pytest.raises(UserError, match=r"no weights.*deid.tagger: off"):
        deidentify_texts(tmp_path / "a.txt", "en", tmp_path / "out", Deid())
    assert not (tmp_path / "out").exists()
    deidentify_texts(tmp_path / "a.txt", "en", tmp_path / "out", Deid(tagger="off"))
    assert (tmp_path / "out" / "a.txt").read_text("utf-8") == "No fever."


def test_without_the_tagger_the_recall_of_rules_alone_is_said() -> None:
    assert "measured recall of rules alone" in finder(Deid(tagger="off"))


def test_a_chinese_name_ends_before_what_its_bearer_does() -> None:
    text = "其子王强陪同入院"
    assert [before_act(text, 2, end) for end in (4, 5, 6, 7)] == [4, 4, 4, 4]
    assert before_act("王陪同", 0, 1) == 1


PACKAGED_NOTES = [
    ("vi", "Chuyển từ thôn Vạn Phúc, con gái Lò Thị Xoan chăm, BS Khuất Duy ký.", "Lò Thị Xoan"),
    ("zh", "家属符桂兰来电，谢主任查房后同意。", "符桂兰"),
    ("en", "d/w Ottoline Farquhar (daughter), lives in Merrow. S/N Quill.", "Ottoline Farquhar"),
]


@pytest.mark.skipif(not PACKAGED.is_dir(), reason="the package carries no weights")
def test_the_packaged_tagger_finds_names_that_are_in_no_list() -> None:
    pytest.importorskip("onnxruntime")
    tagger = IdentifierTagger()
    for lang, text, name in PACKAGED_NOTES:
        found = tagger.tag(text, 0.5)
        covered = {i for one in found for i in range(one.start, one.end)}
        assert covered >= set(range(text.index(name), text.index(name) + len(name))), lang


@pytest.mark.skipif(not PACKAGED.is_dir(), reason="the package carries no weights")
def test_a_long_note_is_read_to_its_end() -> None:
    pytest.importorskip("onnxruntime")
    long = "The wound is dry and clean. " * 120 + "Daughter: Ottoline Farquhar rang."
    found = [long[one.start : one.end] for one in IdentifierTagger().tag(long, 0.3)]
    assert any("Farquhar" in quote for quote in found)
