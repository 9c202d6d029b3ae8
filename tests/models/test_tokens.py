"""From text to tokens, slots and windows: nothing is cut off, and every place leads back to the
user's text."""

from __future__ import annotations

import json
import os
import shutil
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from residency.core.part import parse
from residency.core.types import Span
from residency.core.units import units
from residency.corpus.load import Data, load
from residency.locale import segment as segmentation
from residency.metrics.spans import Counts, count
from residency.models.artefact import tokeniser
from residency.models.base import load_tokenizer
from residency.models.tokens import Tokeniser, slotted, windows
from residency.tasks.bio import decode, encode

HOSTILE = {
    "empty": "",
    "blanks": " \t\r\n\u3000\n ",
    "NFD": unicodedata.normalize("NFD", "Bệnh nhân được điều trị bằng metformin."),
    "emoji": "đau 😀👩‍⚕️ bụng 🇻🇳",
    "CRLF": "ho\r\nsốt\r\n\r\n咳嗽。\r\n",
    "zero width": "\u200bho\u200b khan\ufeff",
    "marks alone": "\u0301\u0301 \u0300",
    "a word longer than the window": "ho " + "acgt" * 60 + " sốt",
    "Chinese": "患者男性，咳嗽、发热三天，诊断为肺炎。",
    "surrogate halves of other planes": "𠮷野家 𝒳² ①②",
}
BASES = ("electra", "roberta", "bert")
QUICK = settings(max_examples=60)
TEXT = st.text(st.sampled_from("ab é\u0301Đế 患者,.1\u200b\r\n\t😀_"), max_size=60)


@pytest.fixture(scope="module")
def tokenisers(found: dict[str, Any]) -> dict[str, Tokeniser]:
    return {name: tokeniser(base) for name, base in found.items()}


def check(text: str, tokeniser: Tokeniser) -> None:
    """What holds for every text."""
    tokens = tokeniser([text])[0]
    assert len(tokens.firsts) == len(tokens.slots)
    assert tokens.firsts == sorted(set(tokens.firsts))
    edges = [place for slot in tokens.slots for place in slot]
    assert edges == sorted(edges) and all(start < end for start, end in tokens.slots)
    begins, ends = {start for start, _ in units(text)}, {end for _, end in units(text)}
    assert all(start in begins and end in ends for start, end in tokens.slots), (
        "a slot cuts no letter run or mark"
    )
    check_windows(len(tokens.ids), tokens.firsts, tokeniser.room, tokeniser.windows(tokens))


def check_windows(count: int, firsts: list[int], room: int, found: list[Any]) -> None:
    assert all(window.end - window.start <= room for window in found)
    assert {i for window in found for i in range(window.start, window.end)} == set(range(count)), (
        "no token is cut off"
    )
    assert [slot for window in found for slot in window.slots] == list(range(len(firsts)))
    assert all(
        window.start <= firsts[slot] < window.end for window in found for slot in window.slots
    )


@pytest.mark.parametrize("name", BASES)
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_text_keeps_the_rules(
    text: str, name: str, tokenisers: dict[str, Tokeniser]
) -> None:
    check(text, tokenisers[name])
    check(text * 40, tokenisers[name])


@QUICK
@given(text=TEXT, name=st.sampled_from(BASES))
def test_any_text_keeps_the_rules(text: str, name: str, tokenisers: dict[str, Tokeniser]) -> None:
    check(text, tokenisers[name])


@QUICK
@given(text=TEXT)
def test_slots_of_a_byte_level_tokenizer_hold_every_character_but_blanks(
    text: str, tokenisers: dict[str, Tokeniser]
) -> None:
    tokens = tokenisers["electra"]([text])[0]
    inside = {place for start, end in tokens.slots for place in range(start, end)}
    assert {place for place, character in enumerate(text) if not character.isspace()} <= inside


@given(st.data())
def test_windows_hold_every_token_and_share_out_the_slots(data: st.DataObject) -> None:
    count, room = data.draw(st.integers(0, 200)), data.draw(st.integers(2, 40))
    firsts = sorted(data.draw(st.sets(st.integers(0, max(count - 1, 0)), max_size=count)))
    check_windows(count, firsts, room, windows(count, firsts, room))


def test_a_slot_is_read_off_the_window_with_most_context() -> None:
    # 20 tokens, each a slot, windows of 8 that overlap by 2: [0, 8), [6, 14), [12, 20); cuts in the
    # middle of 6-8, 12-14.
    found = windows(20, list(range(20)), 8)
    assert [(w.start, w.end, w.slots) for w in found] == [
        (0, 8, range(7)),
        (6, 14, range(7, 13)),
        (12, 20, range(13, 20)),
    ]


def test_a_window_begins_with_a_word_where_one_begins_in_the_overlap() -> None:
    assert [w.start for w in windows(12, [0, 3, 7, 9], 8)] == [0, 7]


def test_windows_together_read_the_whole_text(tokenisers: dict[str, Tokeniser]) -> None:
    tokeniser = tokenisers["electra"]
    text = "患者男性，咳嗽、发热三天。 Bệnh nhân ho khan.\n" * 12
    tokens = tokeniser([text])[0]
    found = tokeniser.windows(tokens)
    assert len(found) > 3
    merged: dict[int, int] = {}
    for window in found:
        row = tokeniser.inputs(tokens, window)
        assert len(row) <= 64
        merged |= dict(enumerate(row[1:-1], start=window.start))
    whole = load_tokenizer(Path(tokeniser.tokenizer.name_or_path))(text, add_special_tokens=False)[
        "input_ids"
    ]
    assert [merged[i] for i in range(len(merged))] == whole


def test_a_tokenizer_file_that_cuts_and_pads_is_not_obeyed(
    bases: dict[str, Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(bases["electra"], tmp_path / "base")
    saved = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    saved["truncation"] = {
        "direction": "Right",
        "max_length": 8,
        "strategy": "LongestFirst",
        "stride": 0,
    }
    saved["padding"] = {
        "strategy": {"Fixed": 8},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "[PAD]",
    }
    (folder / "tokenizer.json").write_text(json.dumps(saved), "utf-8")
    tokeniser = Tokeniser(load_tokenizer(folder), "", 64)
    short, long = tokeniser(["ho", "ho khan " * 30])
    assert len(short.slots) == 1 and 0 not in short.ids
    assert len(long.slots) == 60


def test_the_model_never_reads_nothing() -> None:
    class Bare:
        is_fast, pad_token_id, bos_token_id, eos_token_id, unk_token_id = False, 3, *[None] * 3
        all_special_tokens: tuple[str, ...] = ()
        added_tokens_decoder: dict[int, Any] = {}

        def build_inputs_with_special_tokens(self, ids: list[int]) -> list[int]:
            return ids

        def tokenize(self, word: str) -> list[str]:
            return []

    tokeniser = Tokeniser(Bare(), "", 16)
    tokens = tokeniser([""])[0]
    assert [tokeniser.inputs(tokens, window) for window in tokeniser.windows(tokens)] == [[3]]


@pytest.mark.parametrize("base", BASES)
def test_decomposed_text_has_the_tokens_of_composed_text_and_its_own_places(
    tokenisers: dict[str, Tokeniser], base: str
) -> None:
    text = "Bệnh nhân sốt cao, đau bụng."
    taken_apart = unicodedata.normalize("NFD", text)
    composed, decomposed = tokenisers[base]([text, taken_apart])
    assert decomposed.ids == composed.ids and decomposed.firsts == composed.firsts
    words = [unicodedata.normalize("NFC", taken_apart[a:b]) for a, b in decomposed.slots]
    assert words == [text[a:b] for a, b in composed.slots]


@pytest.mark.parametrize("base", BASES)
def test_no_special_token_can_be_spoken_in_a_text(
    found: dict[str, Any], tokenisers: dict[str, Tokeniser], base: str
) -> None:
    from transformers import AddedToken

    tokenizer = load_tokenizer(Path(found[base].path))
    tokenizer.add_tokens(AddedToken("<|start|>", special=True), special_tokens=False)
    tokeniser = Tokeniser(tokenizer, "", 64)
    spoken = {*tokenizer.all_special_tokens, "<|start|>"}
    ids = set(tokenizer.convert_tokens_to_ids(sorted(spoken))) - {tokenizer.unk_token_id}
    assert len(ids) >= 4
    text = "ho " + " sốt".join(sorted(spoken)) + "<<|start|><|start|>|start|>"
    tokens = tokeniser([text])[0]
    assert not ids & set(tokens.ids)
    assert [text[a:b] for a, b in tokens.slots] == [text[a:b] for a, b in units(text)], (
        "places are those of the user's text"
    )


# Tokenizers without offsets


class Slow:
    """A tokenizer of the old kind: three letters a piece, no offsets."""

    is_fast, pad_token_id, bos_token_id, eos_token_id, unk_token_id = False, 0, 1, 2, None
    all_special_tokens = ("<s>", "</s>")
    added_tokens_decoder: dict[int, Any] = {}

    def build_inputs_with_special_tokens(self, ids: list[int]) -> list[int]:
        return [1, *ids, 2]

    def tokenize(self, word: str) -> list[str]:
        return [word[i : i + 3] for i in range(0, len(word), 3)]

    def convert_tokens_to_ids(self, pieces: list[str]) -> list[int]:
        return [9] * len(pieces)


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_tokenizer_without_offsets_keeps_the_rules(text: str) -> None:
    check(text, Tokeniser(Slow(), "", 24))
    check(text * 10, Tokeniser(Slow(), "", 24))


def test_a_tokenizer_without_offsets_gives_each_word_its_place() -> None:
    tokens = Tokeniser(Slow(), "", 24)(["ho ho  khan"])[0]
    assert tokens.slots == [(0, 2), (3, 5), (7, 11)]
    assert tokens.firsts == [0, 1, 2] and len(tokens.ids) == 4


def test_a_tokenizer_without_special_tokens_in_front_is_understood() -> None:
    class Behind(Slow):
        def build_inputs_with_special_tokens(self, ids: list[int]) -> list[int]:
            return [*ids, 2]

    class Front(Slow):
        def build_inputs_with_special_tokens(self, ids: list[int]) -> list[int]:
            return [1, *ids]

    behind, front = Tokeniser(Behind(), "", 24), Tokeniser(Front(), "", 24)
    assert (behind.prefix, behind.suffix, behind.room) == ([], [2], 23)
    assert (front.prefix, front.suffix) == ([1], [])


def pho_bert(folder: Path) -> Any:
    """PhoBERT's own tokenizer, which gives no offsets, with an invented vocabulary."""
    import transformers

    words = ["bệnh_nhân", "ho", "sốt", "b@@", "a@@", "c@@", "a", "b", "c", ",", "."]
    (folder / "vocab.txt").write_text("".join(f"{word} 1\n" for word in words), "utf-8")
    steps = [
        "b ệ",
        "bệ n",
        "bện h",
        "bệnh _",
        "bệnh_ n",
        "bệnh_n h",
        "bệnh_nh â",
        "bệnh_nhâ n</w>",
        "h o</w>",
    ]
    (folder / "bpe.codes").write_text("".join(f"{step} 1\n" for step in steps), "utf-8")
    return transformers.PhobertTokenizer(
        vocab_file=str(folder / "vocab.txt"), merges_file=str(folder / "bpe.codes")
    )


@pytest.fixture
def canned(monkeypatch: pytest.MonkeyPatch) -> str:
    """A segmenter that knows two words of two syllables."""

    def split(sentence: str) -> list[str]:
        joined = (
            sentence.replace("bệnh nhân", "bệnh_nhân")
            .replace("đau bụng", "đau_bụng")
            .replace(",", " ,")
        )
        return [word.replace("_", " ") for word in joined.split()]

    monkeypatch.setitem(segmentation._SEGMENTERS, "canned", lambda: split)
    return "canned"


def test_a_joined_word_is_one_token_and_one_slot_of_the_users_text(
    tmp_path: Path, canned: str
) -> None:
    tokeniser = Tokeniser(pho_bert(tmp_path), canned, 64)
    text = "bệnh nhân  ho, ho"
    tokens = tokeniser([text])[0]
    assert [text[start:end] for start, end in tokens.slots] == ["bệnh nhân", "ho", ",", "ho"]
    known = tokeniser.tokenizer.convert_tokens_to_ids(["bệnh_nhân", "ho", ",", "ho"])
    assert tokens.ids == known and tokeniser.tokenizer.unk_token_id not in known


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_segmented_text_keeps_the_rules(
    text: str, bases: dict[str, Path], tmp_path: Path, canned: str, found: dict[str, Any]
) -> None:
    for tokenizer in (load_tokenizer(bases["electra"]), pho_bert(tmp_path)):
        check(text, Tokeniser(tokenizer, canned, 64))
        check(f"bệnh nhân đau bụng, {text} đau bụng", Tokeniser(tokenizer, canned, 64))


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_spans_over_segmented_text_come_back_in_the_users_offsets(
    form: str, bases: dict[str, Path], canned: str
) -> None:
    text = unicodedata.normalize(
        form, "Bệnh nhân đau bụng,sốt cao.\r\nNgười bệnh nhân hậu đau  bụng."
    )
    tokens = Tokeniser(load_tokenizer(bases["electra"]), canned, 64)([text])[0]
    quotes = [unicodedata.normalize(form, quote) for quote in ("đau bụng", "sốt", "hậu")]
    spans = [
        Span(start=text.index(quote), end=text.index(quote) + len(quote), label="X", quote=quote)
        for quote in quotes
    ]
    tags, changed = encode(spans, tokens.slots, ("X",))
    assert changed == {}
    assert decode(text, tags, tokens.slots, ("X",)) == tuple(spans)


def test_real_word_segmentation_leads_back_to_the_users_text(bases: dict[str, Path]) -> None:
    pytest.importorskip("underthesea", reason="needs the package underthesea")
    text = "Bệnh nhân nam,62 tuổi đau bụng\r\nvùng thượng vị."
    check(text, Tokeniser(load_tokenizer(bases["electra"]), "underthesea", 64))


@pytest.mark.data
def test_a_joined_word_hides_borders_of_labels_and_a_syllable_none(tmp_path: Path) -> None:
    pytest.importorskip("underthesea", reason="needs the package underthesea")
    folder = Path(os.environ.get("RESIDENCY_SHARED_DATA", "../shared/data")) / "vi/vietbioner"
    if not folder.is_dir():
        pytest.skip("VietBioNER is not on this machine (RESIDENCY_SHARED_DATA)")
    settings = {"format": "conll", "train": "train.txt", "lang": "vi", "stop": 0}
    data = parse(Data, settings | {"profile": "public"}, "data.vietbioner")
    notes = load(data, "vietbioner", folder, 0).part("train")
    labels = sorted({span.label for note in notes for span in note.spans})
    f1 = {}
    for segmenter in ("underthesea", "syllables"):
        tokens_of = Tokeniser(pho_bert(tmp_path), segmenter, 256)([note.text for note in notes])
        counts = []
        for note, tokens in zip(notes, tokens_of, strict=True):
            tags, _ = encode(note.spans, tokens.slots, labels)
            back = decode(note.text, tags, tokens.slots, labels)
            counts += count(note.spans, back).values()
        f1[segmenter] = sum(counts, Counts()).f1
    assert f1["syllables"] == 1 and 0.93 < f1["underthesea"] < 0.95


def test_a_token_over_several_units_makes_one_slot() -> None:
    tokens = slotted("500mg x", [1, 2], [(0, 5), (6, 7)])
    assert tokens.slots == [(0, 5), (6, 7)] and tokens.firsts == [0, 1]


def test_pieces_of_one_letter_make_one_slot_read_off_the_first() -> None:
    tokens = slotted("患者", [1, 2, 3, 4], [(0, 1), (0, 1), (0, 1), (1, 2)])
    assert tokens.slots == [(0, 1), (1, 2)] and tokens.firsts == [0, 3]
