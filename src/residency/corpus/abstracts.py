"""An abstract of a medical article, as a public note with its parts."""

from __future__ import annotations

from collections.abc import Sequence

from residency.core.types import Profile, Value


class Abstract(Value, frozen=True):
    """What PubMed holds of an article; its row is also one that ``format: jsonl`` reads."""

    id: str
    """Its PMID; with the language behind it where PubMed has it in another one too."""
    text: str
    """Title and abstract as they are read."""
    title: str
    sections: tuple[tuple[str, str], ...]
    """(label, text); one with an empty label where the abstract has no parts."""
    lang: str = "en"
    """PubMed's abstracts are English, whatever the article's language, save those beside them."""
    group: str = ""
    """The PMID of an abstract in another language: it stays with the English one."""
    journal: str = ""
    year: str = ""
    profile: Profile = "public"

    @property
    def pmid(self) -> str:
        """The article's number at PubMed."""
        return self.group or self.id

    def section(self, *labels: str) -> str:
        """The text of the first section whose label begins with one of several words; empty where
        there is none."""
        return next((text for name, text in self.sections if name.upper().startswith(labels)), "")


def abstract(
    id: str,
    title: str,
    sections: Sequence[tuple[str, str]],
    journal: str = "",
    year: str = "",
    lang: str = "en",
) -> Abstract:
    """An abstract of its parts."""
    parts = [f"{label}: {text}" if label else text for label, text in sections]
    return Abstract(
        id=id if lang == "en" else f"{id}-{lang}",
        lang=lang,
        group="" if lang == "en" else id,
        text="\n".join([title, *parts]),
        title=title,
        sections=tuple(sections),
        journal=journal,
        year=year,
    )
