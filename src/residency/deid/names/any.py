"""Names of people, by the words around them and by lists of names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache

from residency.deid.find import Finding
from residency.deid.names.en import English
from residency.deid.names.lists import name_data, ordinary
from residency.deid.names.vi import Vietnamese
from residency.deid.names.zh import Chinese
from residency.deid.view import View


@cache
def _finder(lang: str) -> Vietnamese | Chinese | English:
    kinds: dict[str, type[Vietnamese | Chinese | English]] = {
        "vi": Vietnamese,
        "zh": Chinese,
        "en": English,
    }
    return kinds[lang](name_data(lang))


def find_names(view: View, lang: str) -> list[Finding]:
    """Names as one language writes them: findings of kinds name, relative and clinician. A name
    that was found once is found wherever it stands again."""
    if lang == "zh" and view.shown.isascii():
        return []
    finder = _finder(lang)
    found = list(finder.search(view))
    found += finder.again(view, found)
    return [*found, *_again(view.shown, found, lang)]


def _again(text: str, found: Iterable[Finding], lang: str) -> Iterator[Finding]:
    """The same names elsewhere in the text, where nothing says that they are names: written alike,
    as whole words."""
    seen = {text[one.start : one.end]: one.kind for one in found}
    places, words = {one.start for one in found}, ordinary(lang)
    for name, kind in seen.items():
        if len(name) < (2 if lang == "zh" else 5) or text.count(name) < 2 or name in words:
            continue
        at = text.find(name)
        while at >= 0:
            end = at + len(name)
            within = text[at - 1 : at].isalpha() or text[end : end + 1].isalpha()
            if at not in places and (lang == "zh" or not within):
                yield Finding(at, end, kind, f"rule:{lang}/name-again")
            at = text.find(name, end)
