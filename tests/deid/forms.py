"""A generator of the ways in which people write identifiers, for tests: it knows nothing of the finder.

Names of forty peoples (all persons invented), addresses, numbers and e-mail addresses; of each a form,
some noise, and a sentence, a cell or a list around it.
"""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Callable, Iterator
from typing import NamedTuple

LATIN: dict[str, str] = {
    "Kinh": "Nguyễn Thị Phương Hoài|Trần Văn Đạt|Lê Quốc Khánh|Phạm Thuỳ Dung|Đỗ Hữu Nghĩa|Võ Thị Sáu Em",
    "Tày": "Nông Văn Tịnh|Hoàng Thị Mới|Lý Đức Thảnh",
    "Hmong": "Giàng A Páo|Sùng Thị Mỷ|Vàng Seo Chúng",
    "Ede": "H'Nuê Êban|Y Bhiông Niê|H’Linh Mlô",
    "Jarai": "Rơ Châm H'Yéo|Ksor Phước|Siu H’Wơn",
    "Khmer Krom": "Thạch Sô Phal|Kim Thị Sà Rươl|Danh Út Chanh",
    "English": "Margaret Holloway|Jonathan Whitcombe|Rebecca Ashdown|Philip Garside|Harriet Lockwood",
    "Irish": "Mark O'Brien|Siobhán O'Shaughnessy|Ciarán Ó Dálaigh|Aoife Ní Bhriain",
    "Scottish": "Hamish McAllister|Eilidh MacLeod|Fraser Mac Donald",
    "Welsh": "Llewelyn ap Rhys|Angharad Prydderch",
    "French": "Jean-Luc d'Aubigné|Françoise L'Hôpital|Étienne Lefèvre|Maëlle Besançon",
    "German": "Jürgen Weiß|Annemarie von der Mühlen|Günther Schäfer-Groß|Sören Krüger",
    "Dutch": "Pieter van 't Hoff|Anneke van der Berg|Joris ter Haar",
    "Spanish": "José María García López|Íñigo Núñez-Peña|Begoña Etxeberria",
    "Portuguese": "João da Conceição|Inês Magalhães|Conceição D'Souza",
    "Italian": "Niccolò D'Angelo|Pierluigi Dell'Acqua|Ornella Zampetti",
    "Danish": "Søren Kjærgaard|Bjørn Ødegaard|Åse Nørgaard",
    "Swedish": "Åke Sjöström|Göran Björkqvist",
    "Icelandic": "Þórdís Guðmundsdóttir|Sigurður Þórhallsson",
    "Finnish": "Väinö Hämäläinen|Tuulikki Yrjölä",
    "Polish": "Łukasz Wójcik|Małgorzata Żółkiewska|Zdzisław Brzęczyszczykiewicz",
    "Czech": "Jiří Dvořák|Růžena Hřebíčková",
    "Hungarian": "Győző Szűcs|Erzsébet Kövér-Nagy",
    "Romanian": "Ștefan Țurcanu|Ionuț Brâncoveanu",
    "Croatian": "Željko Đorđević|Snježana Šarić",
    "Turkish": "İbrahim Işık|Gülşen Çağlayan|Yiğit Öztürk",
    "Albanian": "Gjergj Kastrioti-Çela|Ardita Xhaferi",
    "Arabic": "Abd al-Rahman al-Khalidi|Fatima bint Yusuf|Omar Ba'ashir",
    "Hebrew": "Ya'akov Ben-Ami|Shlomit Bar-Lev",
    "Persian": "Shirin Ebrahimzadeh|Dariush Golpaygani",
    "Hindi": "Rajeshwari Venkataraman|Md. Shafiqul Islam|Amitabh Chattopadhyay",
    "Indonesian": "Sukarnoputri Wulandari|Bambang Widjojanto",
    "Filipino": "Maria dela Cruz-Reyes|Benigno Magsaysay",
    "Hawaiian": "Kaʻahumanu Kealoha|Leilani Kauʻi",
    "Maori": "Ngāhuia Te Awekōtuku|Tāmati Parāone",
    "Yoruba": "Ọlábísí Adébáyọ̀|Folákẹ́ Ṣóyínká",
    "Zulu": "Nokuthula Mkhwanazi|Sibusiso Dlamini-Nxumalo",
    "Thai": "Somchai Rattanakosin|Siriporn Wongsawat",
    "Burmese": "Thiri Aung Zaw|Khin Htwe Myint",
}
HAN = {
    "刘洋": ("劉洋", "Liu Yang"),
    "陈秀兰": ("陳秀蘭", "Chen Xiulan"),
    "张伟国": ("張偉國", "Zhang Weiguo"),
    "郑丽华": ("鄭麗華", "Zheng Lihua"),
    "欧阳志强": ("歐陽志強", "Ouyang Zhiqiang"),
    "黄晓红": ("黃曉紅", "Huang Xiaohong"),
    "赵云龙": ("趙雲龍", "Zhao Yunlong"),
    "孙梦妍": ("孫夢妍", "Sun Mengyan"),
    "单国庆": ("單國慶", "Shan Guoqing"),
    "吕凤仙": ("呂鳳仙", "Lyu Fengxian"),
    "邓卫东": ("鄧衛東", "Deng Weidong"),
    "萧乐怡": ("蕭樂怡", "Xiao Leyi"),
    "阿依古丽·买买提": ("阿依古麗·買買提", ""),
    "扎西顿珠": ("扎西頓珠", ""),
}
"""Name -> in traditional signs, in pinyin."""
ADDRESSES = {
    "en": (
        "12 Oak St, Dayton, OH 45402",
        "48 Birchwood Avenue, Tuscaloosa, AL 35401",
        "7 Kestrel Road, Chipping Sodbury, BS37 6AG",
    ),
    "vi": (
        "thôn 3, xã Di Linh, tỉnh Lâm Đồng",
        "125 đường Nguyễn Thiện Thuật, phường Vĩnh Ninh, TP. Quy Nhơn",
    ),
    "zh": ("浙江省绍兴市柯桥镇梧桐路88号", "云南省普洱市澜沧县拉巴乡"),
}
PLACES = {
    "en": {
        ADDRESSES["en"][0]: ("Dayton", "45402", "12 Oak Street"),
        ADDRESSES["en"][1]: ("Tuscaloosa", "48 Birchwood Ave", "35401"),
        ADDRESSES["en"][2]: ("Chipping Sodbury", "BS37 6AG", "7 Kestrel Rd"),
    },
    "vi": {
        ADDRESSES["vi"][0]: ("Di Linh", "Lâm Đồng"),
        ADDRESSES["vi"][1]: ("Vĩnh Ninh", "Quy Nhơn", "125 Nguyễn Thiện Thuật"),
    },
    "zh": {
        ADDRESSES["zh"][0]: ("绍兴市", "柯桥镇", "梧桐路88号"),
        ADDRESSES["zh"][1]: ("普洱市", "澜沧县", "拉巴乡"),
    },
}
AROUND = {
    "vi": (
        "hôm nay {} đỡ mệt hơn",
        "| giường 4 | {} | ổn |",
        "- {}\n- theo dõi tiếp",
        "Đã giải thích cho {}, đồng ý mổ.",
        "BN {} sốt cao",
        "({})",
        "{}\nmạch đều",
    ),
    "zh": (
        "今日{}病情平稳",
        "| 4床 | {} | 平稳 |",
        "- {}\n- 继续观察",
        "已向{}交代病情。",
        "患者{}，诉头痛",
        "（{}）",
        "{}\n脉搏齐",
    ),
    "en": (
        "so {} is seen again today",
        "| bed 4 | {} | stable |",
        "- {}\n- continue",
        "The plan was explained to {}, who agrees.",
        "Pt {} afebrile",
        "({})",
        "{}\npulse regular",
    ),
}
GIVEN_ALONE = {
    "en": ("so {} is a 61-year-old male", "spoke with {} about diet", "{} was seen today"),
    "vi": ("so với hôm qua {} ăn được hơn",),
}
TITLED = {"en": ("Mr {} walks with a stick", "mrs {} slept well"), "vi": ("ông {} ngủ được",)}
CLINICAL = {
    "vi": (
        "Khám: tim đều, phổi trong, bụng mềm.",
        "Huyết áp 130/80 mmHg, mạch 82 lần/phút.",
        "Xử trí: truyền dịch, giảm đau.",
    ),
    "zh": ("查体：心肺未见异常，腹软。", "血压130/80mmHg，脉搏82次/分。", "处理：补液，止痛。"),
    "en": (
        "On examination heart sounds normal, abdomen soft.",
        "Blood pressure 130/80 mmHg, pulse 82.",
        "Plan: fluids and analgesia.",
    ),
}


class Form(NamedTuple):
    """A note with one identifier, written in some form."""

    lang: str
    kind: str
    value: str
    """As the row has it."""
    text: str
    start: int
    end: int
    """Where the identifier stands in the text."""
    noise: str
    """How it was written: for the reader of a failure, who need not see the value."""


Noise = Callable[[str, random.Random], str]
APOSTROPHES, HYPHENS = "'’‘ʼ`´′＇ʻ", "-‐‑–−­"


def swap(old: str, new: str) -> Noise:
    return lambda s, r: "".join(r.choice(new) if c in old else c for c in s)


def bare(s: str, r: random.Random) -> str:
    """Without marks, as typed on a keyboard without them."""
    s = s.translate({ord(a): b for a, b in zip("đĐłŁøØıð", "dDlLoOid", strict=True)})
    return "".join(c for c in unicodedata.normalize("NFD", s) if not unicodedata.combining(c))


def wide(s: str, r: random.Random) -> str:
    return "".join(chr(ord(c) - 0x20 + 0xFF00) if 0x21 <= ord(c) <= 0x7E else c for c in s)


def looks(s: str, r: random.Random) -> str:
    twins = dict(zip("aeopcyx", "аеорсух", strict=True))
    return "".join(twins.get(c, c) if r.random() < 0.5 else c for c in s)


def between(*signs: str) -> Noise:
    return lambda s, r: "".join(r.choice(signs) if c == " " else c for c in s)


def shy(s: str, r: random.Random) -> str:
    at = r.randrange(1, len(s)) if len(s) > 2 else 1
    return s[:at] + r.choice("\u200b\u200c\u00ad\u2060\ufeff") + s[at:]


NAME_NOISE: dict[str, Noise] = {
    "as it is": lambda s, r: s,
    "small": lambda s, r: s.lower(),
    "capitals": lambda s, r: s.upper(),
    "no marks": bare,
    "no marks, small": lambda s, r: bare(s, r).lower(),
    "decomposed": lambda s, r: unicodedata.normalize("NFD", s),
    "full width": wide,
    "look-alikes": looks,
    "apostrophes": swap(APOSTROPHES, APOSTROPHES),
    "hyphens": swap("-", HYPHENS),
    "blank for apostrophe and hyphen": swap(APOSTROPHES + "-", " "),
    "no apostrophe, no hyphen": lambda s, r: "".join(c for c in s if c not in APOSTROPHES + "-"),
    "line break": between("\n", "\r\n", " \n "),
    "tab": between("\t", " \t"),
    "wide blanks": between("  ", "\u00a0", "\u3000", "   "),
    "joined": between(""),
    "parted by signs": between("-", "_", ".", "·", "/"),
    "signs without width": shy,
    "spaced": lambda s, r: " ".join(s.replace(" ", "")),
}


def orders(name: str, r: random.Random) -> tuple[str, str]:
    """A name in some order, whole or with initials; and what was done."""
    words = name.split()
    if len(words) < 2:
        return name, "whole"
    first, *middle, last = words
    letter = [next(c for c in w if c.isalpha()).upper() for w in words]
    chosen = r.randrange(8)
    if chosen < 3:
        return name, "whole"
    if chosen == 3:
        return f"{last}, {' '.join([first, *middle])}", "last first"
    if chosen == 4:
        return " ".join([*middle, last, first]), "first last"
    if chosen == 5:
        return r.choice(["{}. {}", "{} {}"]).format(". ".join(letter[:-1]), last), "initials before"
    if chosen == 6:
        return r.choice(["{} {}.", "{} {}"]).format(last, ".".join(letter[:-1])), "initials behind"
    return (f"{first} {' '.join(letter[1:-1])} {last}" if middle else name), "initials within"


def _name(r: random.Random) -> tuple[str, str, str, str, str]:
    """(lang, value, form, around, noise)"""
    people = r.choice([*LATIN, "Han"])
    if people == "Han":
        value = r.choice([*HAN])
        complex_, sounds = HAN[value]
        forms = [
            (value, "as it is"),
            (complex_, "traditional"),
            (" ".join(value), "spaced"),
            (f"{value[:1]}\n{value[1:]}", "line break"),
        ]
        if sounds:
            family, given = sounds.split()
            forms += [
                (s, "pinyin")
                for s in (
                    sounds,
                    sounds.upper(),
                    f"{given} {family}",
                    f"{family}, {given}",
                    sounds.replace(" ", ""),
                )
            ]
        form, noise = r.choice(forms)
        return "zh", value, form, r.choice(AROUND["zh"]), f"Han, {noise}"
    value = r.choice(LATIN[people].split("|"))
    local = people in ("Kinh", "Tày", "Hmong", "Ede", "Jarai", "Khmer Krom")
    lang = "vi" if local else r.choice(("en", "en", "vi", "zh"))
    form, order = orders(value, r)
    noises = [*NAME_NOISE]
    if "initials" in order:
        noises = ["as it is", "apostrophes", "hyphens", "decomposed", "wide blanks", "full width"]
    noise = r.choice(noises)
    around = r.choice(AROUND[lang])
    words = [w for w in value.replace("-", " ").split() if len(bare(w, r)) > 5]
    if not local and lang == "en" and words and r.random() < 0.2:
        order, form = "a part", r.choice(words)
        around = r.choice(GIVEN_ALONE["en"] + TITLED["en"])
        noise = r.choice(["as it is", "small", "capitals", "no marks", "apostrophes"])
    return lang, value, NAME_NOISE[noise](form, r), around, f"{people}, {order}, {noise}"


def _number(r: random.Random) -> tuple[str, str, str, str, str, str]:
    lang, kind = (
        r.choice(("vi", "zh", "en")),
        r.choice(("phone", "national_id", "record", "insurance")),
    )
    d = "".join(r.choice("0123456789") for _ in range(12))
    if kind == "phone":
        value = {
            "vi": "09" + d[:8],
            "zh": "13" + d[:9],
            "en": f"({2 + int(d[0]) % 8}{d[1:3]}) 555-{d[3:7]}",
        }[lang]
        plain = "".join(filter(str.isdigit, value))
        lead = {"vi": "+84 " + plain[1:], "zh": "+86 " + plain, "en": "+1 " + plain}[lang]
        form = r.choice([value, plain, lead, lead.replace("+", "00")])
    else:
        value = {"national_id": d, "record": f"BN-{d[:7]}", "insurance": f"DN4{d}"}[kind]
        form = r.choice([value, value.lower(), value.replace("-", "")])
    signs = form
    noise = r.choice(
        ["as it is", "spaced", "dots", "dashes", "full width", "line break", "O for 0"]
    )
    if noise == "spaced":
        form = " ".join(signs.replace(" ", ""))
    elif noise in ("dots", "dashes", "line break"):
        sign, at = {"dots": ".", "dashes": "–", "line break": "\n"}[noise], len(signs) // 2
        form = f"{signs[:at]}{sign}{signs[at:]}"
    elif noise == "full width":
        form = wide(signs, r)
    elif noise == "O for 0" and kind != "phone":
        form = signs.replace("0", "O")
    return (
        lang,
        kind,
        value,
        form,
        r.choice(("({})", "| 4 | {} | x |", "- {}\n- x", "ref: {};")),
        noise,
    )


def _mail(r: random.Random) -> tuple[str, str, str, str, str, str]:
    login, host = (
        r.choice(("b.odell", "lan.phamthi", "zw_liu88")),
        r.choice(("example.org", "mail.example.com")),
    )
    at = r.choice(("@", " @ ", " (at) ", "[at]", " at ", "＠"))
    dot = r.choice((".", " dot ", "[dot]", "(dot)", "."))
    host_form = host.replace(".", dot)
    login_form = login.replace(".", dot) if r.random() < 0.3 else login
    return (
        "en",
        "email",
        f"{login}@{host}",
        login_form + at + host_form,
        "write to {} today",
        "spoken",
    )


def _address(r: random.Random) -> tuple[str, str, str, str, str, str]:
    lang = r.choice(("en", "vi", "zh"))
    value = r.choice(ADDRESSES[lang])
    part = r.random() < 0.6
    form = r.choice(PLACES[lang][value]) if part else value
    noises = ["as it is", "capitals", "full width", "line break", "wide blanks"] + (
        [] if lang == "zh" else ["small", "no marks"]
    )
    noise = r.choice(noises)
    around = {"en": "She comes from {} originally.", "vi": "quê {} lên", "zh": "来自{}，务农"}[lang]
    return (
        lang,
        "address",
        value,
        NAME_NOISE[noise](form, r),
        around,
        f"{'part' if part else 'whole'}, {noise}",
    )


def forms(count: int, seed: int) -> Iterator[Form]:
    """So many forms, the same for the same seed."""
    r = random.Random(seed)
    for _ in range(count):
        kind = r.choices(("name", "number", "email", "address"), (6, 2, 1, 1))[0]
        if kind == "name":
            lang, value, form, around, noise = _name(r)
        else:
            make = {"number": _number, "email": _mail, "address": _address}[kind]
            lang, kind, value, form, around, noise = make(r)
        before, after = around.split("{}")
        lines = r.sample(CLINICAL[lang], 2)
        head = f"{lines[0]}\n{before}"
        yield Form(
            lang,
            kind,
            value,
            f"{head}{form}{after}\n{lines[1]}",
            len(head),
            len(head) + len(form),
            f"{kind}: {noise}",
        )
