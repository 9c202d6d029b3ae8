"""Names of people, by the words around them and by lists of names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from residency.deid.find import Finding, View
from residency.deid.names.en import English
from residency.deid.names.lists import name_data
from residency.deid.names.vi import Vietnamese
from residency.deid.names.zh import Chinese


class Names:
    """Finds the names of one language."""

    def __init__(self, lang: str) -> None:
        self.lang = lang
        kinds: dict[str, type[Vietnamese | Chinese | English]] = {
            "vi": Vietnamese,
            "zh": Chinese,
            "en": English,
        }
        self.own = kinds[lang](name_data(lang))

    def search(self, view: View) -> list[Finding]:
        """Findings of kinds name, relative and clinician; a name that was found once is found
        wherever it stands again."""
        if self.lang == "zh" and view.shown.isascii():
            return []
        found = list(self.own.search(view))
        found += self.own.again(view, found)
        return [*found, *_again(view.shown, found, self.lang)]


def _again(text: str, found: Iterable[Finding], lang: str) -> Iterator[Finding]:
    """The same names elsewhere in the text, where nothing says that they are names: written alike,
    as whole words."""
    seen = {text[one.start : one.end]: one.kind for one in found}
    places = {one.start for one in found}
    for name, kind in seen.items():
        if len(name) < (2 if lang == "zh" else 5) or text.count(name) < 2:
            continue
        at = text.find(name)
        while at >= 0:
            end = at + len(name)
            if at not in places and not (
                lang != "zh" and (text[at - 1 : at].isalpha() or text[end : end + 1].isalpha())
            ):
                yield Finding(at, end, kind, f"rule:{lang}/name-again")
            at = text.find(name, end)
