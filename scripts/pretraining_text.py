"""The text that the bundled models are pre-trained on: named by source, hash and licence, held-out
records left out.

    python scripts/pretraining_text.py --heldout     writes benchmarks/heldout/*.sha256 (once, before any pre-training)
    python scripts/pretraining_text.py               prints the sources with their sizes

Held out are the parts that the authors of a corpus set aside (dev, test); elsewhere the records for
whose key ``int(sha256(key), 16) % 10`` is 8 or 9. A text is also left out where its own hash stands
in any of the lists, so that a sentence that occurs in two parts does not come in by the back door.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
import sys
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("RESIDENCY_SHARED_DATA", ROOT.parent / "shared" / "data"))
HELDOUT = ROOT / "benchmarks" / "heldout"

Texts = Iterator[tuple[str, str]]
"""(key, text) pairs; an empty key means that the text itself is the key."""


@dataclass(frozen=True)
class Source:
    """One public corpus: which file, under which licence, and how to get its texts."""

    name: str
    file: str
    licence: str
    read: Callable[[Path], Texts]
    heldout_files: tuple[str, ...] = ()
    """The authors' own dev and test files; empty: held out by the hash of the key."""


def bucket(key: str) -> int:
    """The tenth that a key falls into."""
    return int(hashlib.sha256(key.encode()).hexdigest(), 16) % 10


def text_hash(text: str) -> str:
    """Hash of a text, indifferent to Unicode form and white space."""
    return hashlib.sha256(" ".join(unicodedata.normalize("NFC", text).split()).encode()).hexdigest()


def conll(path: Path) -> Texts:
    words: list[str] = []
    for line in [*path.read_text("utf-8").splitlines(), ""]:
        if line.strip():
            words.append(line.split()[0])
        elif words:
            yield "", " ".join(words)
            words = []


def cmedqaner(path: Path) -> Texts:
    for line in path.read_text("utf-8").splitlines():
        yield "", json.loads(line)["text"]


def acrdraid(path: Path) -> Texts:
    for row in json.loads(path.read_text("utf-8")):
        yield "", row["text"]


def icd10(path: Path) -> Texts:
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            yield row["code_with_dots"], f"{row['code_with_dots']} {row['vietnamese_name']}"


def huatuo_general(path: Path) -> Texts:
    for line in path.read_text("utf-8").splitlines():
        row = json.loads(line)
        yield row["instruction"], f"{row['instruction']}\n{row['output']}"


def huatuo_liver(path: Path) -> Texts:
    text = path.read_text("utf-8")
    rows = (
        json.loads(text)
        if text.lstrip().startswith("[")
        else [json.loads(line) for line in text.splitlines()]
    )
    for row in rows:
        turns = re.sub(
            r"\s*<(?:user|bot)>:\s*", "\n", f"{row['instruction']}\n{row['output']}"
        ).strip()
        yield row["instruction"], turns


def pubmedqa(path: Path) -> Texts:
    for pmid, row in json.loads(path.read_text("utf-8")).items():
        yield pmid, "\n".join([row["QUESTION"], *row["CONTEXTS"], row["LONG_ANSWER"]])


def mts_dialog(path: Path) -> Texts:
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            yield "", f"{row['section_text']}\n{row['dialogue']}"


SOURCES = (
    Source("vietbioner", "vi/vietbioner/train.txt", "CC BY 4.0", conll, ("vi/vietbioner/dev.txt",)),
    Source("acrdraid", "vi/acrdraid/train.json", "MIT", acrdraid, ("vi/acrdraid/dev.json",)),
    Source("icd10-vi", "vi/icd10/icd10_diseases_simple.csv", "MIT", icd10),
    Source(
        "cmedqaner", "zh/cmedqaner/train.json", "Apache-2.0", cmedqaner, ("zh/cmedqaner/dev.json",)
    ),
    Source("huatuo-general", "zh/huatuo/general_qa.jsonl", "Apache-2.0", huatuo_general),
    Source("huatuo-liver", "zh/huatuo/liver_cancer.json", "Apache-2.0", huatuo_liver),
    Source(
        "ncbi-disease",
        "en/ncbi_disease/train.tsv",
        "public domain",
        conll,
        ("en/ncbi_disease/devel.tsv",),
    ),
    Source("pubmedqa", "en/pubmedqa/ori_pqal_train500.json", "MIT", pubmedqa),
    Source(
        "mts-dialog",
        "en/mts_dialog/MTS-Dialog-TrainingSet.csv",
        "CC BY 4.0",
        mts_dialog,
        ("en/mts_dialog/MTS-Dialog-ValidationSet.csv",),
    ),
)


def heldout_lines(source: Source) -> list[str]:
    """Hashes of the held-out records of a source: of their key where there is one, and of their
    text."""
    hashes = set()
    if source.heldout_files:
        for file in source.heldout_files:
            hashes.update(text_hash(text) for _, text in source.read(SHARED / file))
    else:
        for key, text in source.read(SHARED / source.file):
            if bucket(key) >= 8:
                hashes.update((text_hash(key), text_hash(text)))
    return sorted(hashes)


def write_heldout() -> None:
    """Fix what is held out. Run once; the lists are committed before the first pre-training and do
    not change."""
    HELDOUT.mkdir(parents=True, exist_ok=True)
    for source in SOURCES:
        lines = heldout_lines(source)
        (HELDOUT / f"{source.name}.sha256").write_text("\n".join(lines) + "\n", "utf-8")
        print(f"{source.name}: {len(lines)} hashes")


def load_heldout() -> frozenset[str]:
    """All committed held-out hashes."""
    return frozenset(
        line
        for path in sorted(HELDOUT.glob("*.sha256"))
        for line in path.read_text("utf-8").split()
    )


def texts(source: Source, heldout: frozenset[str]) -> list[str]:
    """The texts of a source that may be trained on, each once."""
    kept: dict[str, None] = {}
    for key, text in source.read(SHARED / source.file):
        if (key and text_hash(key) in heldout) or text_hash(text) in heldout:
            continue
        kept[unicodedata.normalize("NFC", text).strip()] = None
    return list(kept)


def manifest(source: Source, kept: list[str]) -> dict[str, object]:
    """What the model card says of a source."""
    digest = hashlib.sha256((SHARED / source.file).read_bytes()).hexdigest()
    characters = sum(map(len, kept))
    return {
        "name": source.name,
        "file": source.file,
        "sha256": digest,
        "licence": source.licence,
        "texts": len(kept),
        "characters": characters,
    }


if __name__ == "__main__":
    if "--heldout" in sys.argv:
        write_heldout()
    else:
        known = load_heldout()
        for item in SOURCES:
            print(json.dumps(manifest(item, texts(item, known))))
