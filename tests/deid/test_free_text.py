"""What is found, and what is left, in texts of which no patient is known: every kind that went wrong
once, with variants."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from residency.deid.loose import replace_identifiers

ROWS = [
    pytest.param(lang, text, id=f"{kind}-{lang}-{number}")
    for kind, languages in yaml.safe_load(
        Path(__file__).with_name("free_text.yaml").read_text("utf-8")
    ).items()
    for lang, texts in languages.items()
    for number, text in enumerate(texts)
]


@pytest.mark.parametrize(("lang", "text"), ROWS)
def test_what_identifies_goes_and_the_rest_stays(lang: str, text: str) -> None:
    plain, places, position = "", list[tuple[str, int, int]](), 0
    for match in re.finditer("[⟦⟪](.+?)[⟧⟫]", text):
        plain += text[position : match.start()]
        places.append((match[0][0], len(plain), len(plain) + len(match[1])))
        plain, position = plain + match[1], match.end()
    plain += text[position:]
    replaced = replace_identifiers(plain, lang).replacements
    touched = {i for one in replaced for i in range(one.start, one.end) if plain[i].isalnum()}
    for mark, start, end in places:
        own = {i for i in range(start, end) if plain[i].isalnum()}
        assert (own <= touched) if mark == "⟦" else own.isdisjoint(touched), plain[start:end]
