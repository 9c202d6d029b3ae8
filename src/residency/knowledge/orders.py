"""Whether a text speaks to a model instead of to a reader.

Words alone cannot tell all such texts; so this is one guard of several: what is quoted was read and
accepted by a clinician, and a claim may say nothing that its source does not.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from pathlib import Path

from residency.locale.tokenise import sentences

DATA = Path(__file__).parent / "data"
FORMS = re.compile(
    r"<[|/]?\s*(?:im_start|im_end|system|user|assistant|s|inst|sys)\b[^>]{0,20}>|"
    r"\[/?(?:inst|sys|system)\]|<</?sys>>|(?:^|[.!?。？！])\W*(?:system|assistant|user|human|ai|bot|[qa]|"
    r"question|answer|trợ lý|người dùng|hỏi|đáp|câu hỏi|trả lời|助手|用户|问|答|问题|回答)\s*[:：]|"
    r"#{2,}\s*(?:instruction|response|system)|begin[_ ]of[_ ]text|<\|",
    re.M,
)
"""How chats and their templates mark who speaks."""
CODE = re.compile(
    r"<!--|-->|</?[a-z][\w-]*(?:\s[^<>\n]{0,80})?/?>|\{\s*[\"']|[\"']\s*:\s*[\"'{\[]|^\s*(?://|/\*|#!|---\s*$)|\*/|!?\[[^\]]*\]\(|"
    r"\b(?:https?|data|javascript)\s*:|\{\{|\}\}|\$\{|^\s*\w+:\s*(?:true|false|null)\s*$",
    re.M | re.I,
)
"""Markup, code and addresses: what a reader of the page does not see, or a machine follows."""
SPACED = re.compile(r"(?<!\w)(?:[^\W\d_][ ._\-*]){4,}[^\W\d_](?!\w)")
"""Letters that are spaced out."""
PICTURES = re.compile("[\U0001f300-\U0001faff\u2b00-\u2bff\u2700-\u2712\u2715-\u27bf]")
"""Pictures that say something in a text of words; ticks and crosses do not count."""
KEPT = {"\u00ad", "\ufeff", "\n", "\r", "\t", "\f"}
"""Signs that show nothing and that files of honest texts hold."""
WORD = re.compile(r"[A-Za-z\u0370-\u03ff\u0400-\u052f\u0531-\u058f\uff21-\uff5a]{4,}")


def gives_orders(text: str) -> bool:
    """Whether a passage speaks to a model, in whatever language, or hides something: holds code,
    addresses, signs that show nothing, letters spaced out or of another script in a word."""
    plain = unicodedata.normalize("NFKC", text).lower()
    if _hides(text) or CODE.search(plain) or FORMS.search(plain):
        return True
    always, to, do = (_words(kind) for kind in ("always", "to", "do"))
    return any(
        always.search(said) or (to.search(said) and do.search(said))
        for start, end in sentences(plain)
        for said in [plain[start:end]]
    )


def _hides(text: str) -> bool:
    """Whether a text shows a reader something else than it gives a model."""
    return (
        any(unicodedata.category(one) in ("Cf", "Co", "Cn", "Cc") for one in set(text) - KEPT)
        or SPACED.search(text) is not None
        or PICTURES.search(text) is not None
        or any(len({_script(one) for one in word}) > 1 for word in WORD.findall(text))
    )


def _script(letter: str) -> str:
    """The script of a letter, for those that look alike."""
    return unicodedata.name(letter, "").split()[0]


@cache
def _words(kind: str) -> re.Pattern[str]:
    import yaml

    known = yaml.safe_load((DATA / "orders.yaml").read_text("utf-8"))[kind]
    return re.compile("|".join(one.replace("\n", "") for one in known.values()))
