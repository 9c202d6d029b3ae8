"""A second generator of the ways in which people write identifiers, for tests: its signs come from
Unicode's own tables, its forms from the customs by which peoples name themselves and from what
keyboards, scanners and exports do. It shares nothing with the finder, nor with ``forms``.

All persons are invented.
"""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Callable, Iterator

from forms import Form

EVERY = [chr(code) for code in range(0x20, 0x1FFFF) if not 0xD800 <= code <= 0xF8FF]
DASHES = [sign for sign in EVERY if unicodedata.category(sign) == "Pd"]
BLANKS = [sign for sign in EVERY if unicodedata.category(sign) == "Zs" and sign != " "]
UNSEEN = [
    sign
    for sign in EVERY
    if unicodedata.category(sign) == "Cf" and not 0x600 <= ord(sign) < 0x900 and ord(sign) < 0x2070
]
QUOTES = [
    sign
    for sign in EVERY
    if any(
        word in unicodedata.name(sign, "")
        for word in ("APOSTROPHE", "SINGLE QUOTATION", "ACUTE ACCENT", "GRAVE ACCENT")
    )
    and unicodedata.category(sign) in ("Lm", "Po", "Pi", "Pf", "Sk")
    and not "\u07c0" <= sign <= "\u07ff"
]
DIGITS: list[str] = []
"""Of each script its ten digits."""
DRESSED: dict[str, list[str]] = {}
"""Letter -> signs that are it in another dress: full width, mathematical, circled."""
for _sign in EVERY[0x60:]:
    if unicodedata.decimal(_sign, None) == 0 and _sign != "0":
        DIGITS.append("".join(chr(ord(_sign) + n) for n in range(10)))
    _base = unicodedata.normalize("NFKC", _sign)
    if len(_base) == 1 and _base.isascii() and _base.isalpha() and _base != _sign:
        DRESSED.setdefault(_base, []).append(_sign)
LIGATURES = [(unicodedata.normalize("NFKC", sign), sign) for sign in "ﬀﬁﬂﬃﬄ"]
TWINS = dict(zip("ABCEHIKMOPTXYaceopxysij", "АВСЕНІКМОРТХУасеорхуѕіј", strict=True))
"""Latin letters and the Cyrillic ones that Unicode's list of confusable signs has for them."""

WESTERN = [
    "Callum Fotheringay",
    "Bronwen Tudful",
    "Eoghan O'Toole-Keane",
    "Niamh MacGiolla",
    "Désirée Lachaussée",
    "Jean-Baptiste d'Ormesson",
    "Hjördís Þráinsdóttir",
    "Bjarne Østergård",
    "Mädchen Großkopf",
    "Wolfgang von Trotha",
    "Joost van den Heuvel",
    "Consuelo Iturralde Bengoechea",
    "Nuno Falcão Ribeiro",
    "Loredana Dall'Oglio",
    "Stanisław Pękała",
    "Věra Štěpánková",
    "Dömötör Kovácsházy",
    "Gheorghița Țepeș",
    "Žarko Đukanović",
    "Gülbahar Yıldırım",
    "Ismail ibn Rashid",
    "Nasrin Tavakkoli",
    "Chukwuemeka Okonkwo",
    "Wanjirū Mũthoni",
    "Kealiʻi Nāone",
    "Tūī Ngārimu",
    "Abhishek Raghunathan",
    "Sandhya Chakraborty",
    "Anong Kittikachorn",
    "Maung Thant",
    "Tjokorda Suryawan",
    "Ligaya Dimaculangan",
    "Aputsiaq Kleist",
    "Sámmol Guttorm",
    "Mairéad Ní Ghráda",
    "Xabier Goikoetxea",
    "Zulfiqar D'Cruz",
    "Anastasia Papadopoulou",
    "Evgeny Shchukin",
    "Ruslan Kadyrbekov",
]
VIETNAMESE = [
    "Trương Thị Mỹ Duyên",
    "Phùng Khắc Hiếu",
    "Đặng Thuỳ Trâm Anh",
    "Huỳnh Ngọc Bảo Châu",
    "Nguyễn Đình Khuê",
    "Tạ Quang Vượng",
    "Quách Thị Ngoãn",
    "Lương Triệu Đức",
    "H'Bia Niê Kđăm",
    "Y Krông Ayun",
    "K'Sor Blơ",
    "Thạch Thị Ngọc Sương",
]
CHINESE = {
    "钱学军": ("錢學軍", "Qián Xuéjūn"),
    "龚丽萍": ("龔麗萍", "Gōng Lìpíng"),
    "吕国强": ("呂國強", "Lǚ Guóqiáng"),
    "诸葛云飞": ("諸葛雲飛", "Zhūgě Yúnfēi"),
    "谢婉莹": ("謝婉瑩", "Xiè Wǎnyíng"),
    "邹庆元": ("鄒慶元", "Zōu Qìngyuán"),
    "韩雪梅": ("韓雪梅", "Hán Xuěméi"),
    "冯骥远": ("馮驥遠", "Féng Jìyuǎn"),
}
AROUND = {
    "en": (
        "reviewed {} on the round",
        "{}: wound clean",
        "- {}, stable",
        "([{}])",
        "d/w {} and family",
        "|{}|stable|",
    ),
    "vi": (
        "thăm {} lúc sáng",
        "{}: vết mổ khô",
        "- {}, ổn",
        "(đã dặn {})",
        "giải thích cho {} và gia đình",
        "|{}|ổn|",
    ),
    "zh": (
        "今晨查看{}，伤口干燥",
        "{}：一般情况好",
        "- {}，平稳",
        "（{}）",
        "向{}及家属交代",
        "|{}|平稳|",
    ),
}
CLINICAL = {
    "en": ("Chest clear, no oedema.", "Continue antibiotics."),
    "vi": ("Phổi thông khí tốt, không phù.", "Tiếp tục kháng sinh."),
    "zh": ("两肺呼吸音清，无水肿。", "继续抗感染治疗。"),
}  # fmt: skip
Noise = Callable[[str, random.Random], str]


def each(signs: dict[str, list[str]], share: float) -> Noise:
    return lambda s, r: "".join(
        r.choice(signs[c]) if c in signs and r.random() < share else c for c in s
    )


def put(old: str, new: list[str]) -> Noise:
    return lambda s, r: "".join(r.choice(new) if c in old else c for c in s)


def unseen(s: str, r: random.Random) -> str:
    for _ in range(r.randrange(1, 4)):
        at = r.randrange(1, len(s)) if len(s) > 1 else 0
        s = s[:at] + r.choice(UNSEEN) + s[at:]
    return s


def joined(s: str, r: random.Random) -> str:
    for plain, sign in LIGATURES:
        s = s.replace(plain, sign)
    return s


def broken(s: str, r: random.Random) -> str:
    """Cut by a hyphen at the end of a line."""
    places = [n for n in range(2, len(s) - 1) if s[n - 1 : n + 1].isalpha()]
    at = r.choice(places) if places else 0
    return f"{s[:at]}-\n{s[at:]}" if at else s


def escaped(s: str, r: random.Random) -> str:
    """As a web page's source has it."""
    quote = r.choice(("&#39;", "&apos;", "&#x27;", "&rsquo;", "&#8217;"))
    made = "".join(quote if c in "'’ʻ" else c for c in s)
    return made.replace(" ", r.choice((" ", "&nbsp;", "&#160;")))


def letters(s: str, r: random.Random) -> str:
    """As typed without the keys for them."""
    s = "".join(dict(zip("đĐøØłŁıðÞþ", ("d", "D", "o", "O", "l", "L", "i", "d", "Th", "th"), strict=True)).get(c, c) for c in s)  # fmt: skip
    return "".join(c for c in unicodedata.normalize("NFD", s) if not unicodedata.combining(c))


NOISE: dict[str, Noise] = {
    "plain": lambda s, r: s,
    "small": lambda s, r: s.lower(),
    "capitals": lambda s, r: s.upper(),
    "typed plain": letters,
    "typed plain, small": lambda s, r: letters(s, r).lower(),
    "NFD": lambda s, r: unicodedata.normalize("NFD", s),
    "dashes": put("-", DASHES),
    "quotes": put("'’ʻ", QUOTES),
    "blanks": put(" ", BLANKS),
    "two blanks and a line": put(" ", ["  ", "\n", " \n", "\t", "\r\n"]),
    "unseen signs": unseen,
    "another dress": each(DRESSED, 0.6),
    "one in another dress": each(DRESSED, 0.15),
    "twins": each({a: [b] for a, b in TWINS.items()}, 0.5),
    "ligatures": joined,
    "cut at a line": broken,
    "escaped": escaped,
    "emphasised": lambda s, r: r.choice(("**{}**", "_{}_", "<b>{}</b>", "«{}»", "“{}”")).format(s),
    "underlined": put(" ", ["_", ".", "-", "·", "+"]),
}


def initial(word: str) -> str:
    return next(c for c in word if c.isalpha()).upper()


def western(name: str, r: random.Random) -> tuple[str, str]:
    """A form by custom: order, titles, initials, a part."""
    given, *rest = name.split()
    family = " ".join(rest)
    core = rest[-1]
    return r.choice((
        (name, "whole"),
        (f"{family}, {given}", "family first"),
        (f"{family.upper()}, {given}", "family in capitals"),
        (f"{family.upper()} {given}", "family in capitals, no comma"),
        (f"{core}, {given} {' '.join(rest[:-1])}".strip(), "particle behind"),
        (f"{initial(given)}. {family}", "initial"),
        (f"{initial(given)} {core}", "initial without dot"),
        (f"{family} {initial(given)}.", "initial behind"),
        (f"{r.choice(('Mr', 'Mrs', 'Ms', 'Miss', 'Dr', 'Herr', 'Mme'))} ¦{family}", "title"),
        (f"{given} ({family})", "family in brackets"),
        (f"{family}; {given}", "semicolon"),
        (f"{family}^{given}", "HL7"),
        (f"{given} {initial(core)}.", "given and initial"),
    ))  # fmt: skip


def vietnamese(name: str, r: random.Random) -> tuple[str, str]:
    first, *middle, last = name.split()
    heads = [initial(word) for word in (first, *middle)]
    short = {"Nguyễn": "Ng", "Trương": "Tr", "Phùng": "Ph", "Huỳnh": "H", "Thạch": "Th"}
    forms = [
        (name, "whole"),
        (f"{last} {first} {' '.join(middle)}", "given first"),
        (f"{'.'.join(heads)}.{last}", "initials"),
        (f"{'.'.join(heads)}. {last}", "initials and blank"),
        (f"{''.join(heads)} {last}", "initials joined"),
        (f"{last} {'.'.join(heads)}", "initials behind"),
        (f"{r.choice(('anh', 'chị', 'ông', 'bà', 'cụ', 'BN', 'bé', 'cháu'))} ¦{last}", "pronoun"),
        (f"{first} {last}", "middle dropped"),
        (f"{first} {' '.join(m[0] + '.' for m in middle)} {last}", "middle as initials"),
    ]
    if first in short:
        forms.append((f"{short[first]}. ¦{' '.join(middle)} {last}", "family shortened"))
    if len(middle) > 1:
        forms.append((f"{middle[-1]} {last}", "last two"))
    return r.choice(forms)


def chinese(name: str, r: random.Random) -> tuple[str, str]:
    other, sounds = CHINESE[name]
    cut = len(name) - (2 if len(name) > 2 else 1)
    bare = unicodedata.normalize("NFC", letters(sounds, r))
    family, given = bare.split()
    umlaut = [bare.replace("Lu", u, 1) for u in ("Lv", "Lyu", "Lü")] if "Lǚ" in sounds else [bare]
    return r.choice((
        (name, "whole"),
        (other, "traditional"),
        (r.choice(BLANKS).join(name), "spaced"),
        (f"{name[:cut]}{r.choice(('先生', '女士', '老师', '阿姨'))}", "title"),
        (f"{r.choice(('老', '小'))}{name[:cut]}", "familiar"),
        (sounds, "tones"),
        (r.choice(umlaut), "pinyin"),
        (bare.upper(), "pinyin in capitals"),
        (f"{family.upper()} {given}", "pinyin, family in capitals"),
        (f"{given} {family}", "pinyin, given first"),
        (f"{family}, {given}", "pinyin, comma"),
        (bare.replace(" ", "").lower(), "pinyin joined"),
        (f"{name}({bare.upper()})", "both"),
        ("\u200b".join(name), "unseen"),
    ))  # fmt: skip


def _name(r: random.Random) -> tuple[str, str, str, str]:
    lang = r.choices(("en", "vi", "zh"), (4, 3, 2))[0]
    if lang == "zh":
        value = r.choice([*CHINESE])
        form, custom = chinese(value, r)
        return lang, value, form, custom
    value = r.choice(WESTERN if lang == "en" or r.random() < 0.2 else VIETNAMESE)
    form, custom = (vietnamese if value in VIETNAMESE else western)(value, r)
    short = {"pronoun", "title", "initial", "initial without dot", "initial behind", "initials", "initials and blank",
             "initials joined", "initials behind", "given and initial", "middle as initials", "last two",
             "middle dropped", "family shortened", "HL7"}  # fmt: skip
    quiet = [
        "plain",
        "capitals",
        "typed plain",
        "NFD",
        "quotes",
        "blanks",
        "unseen signs",
        "dashes",
    ]
    if custom in ("initial without dot", "initials joined"):
        quiet = ["plain", "typed plain", "NFD", "quotes", "dashes"]
    noise = r.choice(quiet if custom in short else [*NOISE])
    lead, _, form = form.rpartition("¦")
    return lang, value, f"{lead}¦{NOISE[noise](form, r)}", f"{custom}, {noise}"


def _number(r: random.Random) -> tuple[str, str, str, str, str]:
    lang = r.choice(("en", "vi", "zh"))
    kind, value = r.choice((
        ("record", f"{r.choice('ABKMV')}{r.choice('QTXN')}{r.randrange(10**6, 10**7)}"),
        ("insurance", f"{r.randrange(10**9, 10**10)}"),
        ("national_id", f"{r.randrange(10**11, 10**12)}"),
        ("account", f"{r.randrange(10**12, 10**13)}"),
        ("phone", f"0{r.choice((912, 903, 387, 708))}{r.randrange(10**5, 10**6)}"),
    ))  # fmt: skip
    joint = r.choice((" ", "-", ".", "\n", "  ", r.choice(DASHES), r.choice(BLANKS), "/", " - "))
    size = r.choice((2, 3, 4))
    parts = [value[at : at + size] for at in range(0, len(value), size)]
    form, custom = r.choice((
        (value, "whole"),
        (joint.join(parts), "parted"),
        (value.lower(), "small"),
        (value.translate(str.maketrans("0123456789", r.choice(DIGITS))), "digits of another script"),
        (value.translate(str.maketrans("01", "Ol")), "misread"),
        ("".join(chr(0xFEE0 + ord(c)) for c in value), "full width"),
        (value.translate(str.maketrans("0123456789", "〇一二三四五六七八九")), "Chinese digits"),
        (unseen(value, r), "unseen signs"),
    ))  # fmt: skip
    if kind == "phone" and r.random() < 0.4:
        form, custom = r.choice((f"+84{value[1:]}", f"(+84) {value[1:4]} {value[4:]}", f"0084{value[1:]}", f"+84 (0){value[1:]}")), "country"  # fmt: skip
    return lang, kind, value, form, custom


def _mail(r: random.Random) -> tuple[str, str, str, str, str]:
    login, host = r.choice(("v.lindgren82", "khue_nguyen", "oconnor-pat", "mei.fong")), r.choice(("post.example.net", "mail.example.vn"))  # fmt: skip
    at = r.choice(("@", " @ ", "(at)", " [at] ", "{at}", "＠", " AT ", "﹫"))
    dot = r.choice((".", ".", " dot ", "(dot)", "．", "[.]"))
    return "en", "email", f"{login}@{host}", login + at + host.replace(".", dot), "spoken"


def _place(r: random.Random) -> tuple[str, str, str, str, str]:
    lang, value, parts = r.choice((
        ("en", "220 Wexcombe Lane, Harrowgate, VT 05733", ("Harrowgate", "220 Wexcombe Ln", "220 WEXCOMBE LANE", "05733")),
        ("en", "Flat 3, 9 Quernmore Road, Ulverthwaite LA1 3JT", ("9 Quernmore Rd", "Quernmore Road", "LA1 3JT", "LA13JT")),
        ("vi", "số 18 ngõ 42 đường Đặng Xuân Bảng, phường Yên Duyên, quận Hoàng Mai", ("Yên Duyên", "Đặng Xuân Bảng", "Hoàng Mai")),
        ("vi", "thôn Đắk Nhe, xã Ia Krêl, huyện Đức Cơ, tỉnh Gia Lai", ("Ia Krêl", "Đắk Nhe", "Gia Lai")),
        ("zh", "贵州省黔东南州雷山县郎德镇上寨村5组", ("雷山县", "郎德镇", "上寨村5组", "雷山縣")),
    ))  # fmt: skip
    whole = r.random() < 0.4
    form = value if whole else r.choice(parts)
    names = ["plain", "capitals", "blanks", "two blanks and a line", "NFD", "unseen signs"]
    noise = r.choice(names + ([] if lang == "zh" else ["typed plain"]))
    return lang, "address", value, NOISE[noise](form, r), f"{'whole' if whole else 'part'}, {noise}"


MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
ROMAN = ["I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII"]


def _birth(r: random.Random) -> tuple[str, str, str, str, str]:
    y, m, d = r.randrange(1925, 2015), r.randrange(1, 13), r.randrange(1, 29)
    lang, name = r.choice(("en", "vi", "zh")), MONTHS[m - 1]
    end = {1: "st", 2: "nd", 3: "rd"}.get(d % 10 if d not in (11, 12, 13) else 0, "th")
    forms = {
        "en": (f"{name} {d}, {y}", f"{d} {name[:3]} {y}", f"{d}{end} of {name} {y}", f"{d:02}-{name[:3].upper()}-{y}", f"{m}/{d}/{y}", f"{name[:3]}. {d}{end}, {y}"),
        "vi": (f"ngày {d} tháng {m} năm {y}", f"{d}/{m}/{y}", f"{d:02}.{m:02}.{y}", f"{d:02}-{m:02}-{y}", f"{d:02} / {m:02} / {y}"),
        "zh": (f"{y}年{m}月{d}日", f"{y} 年 {m} 月 {d} 日", f"{y}.{m:02}.{d:02}", f"{y}/{m}/{d}"),
    }[lang]  # fmt: skip
    every = (*forms, f"{y}-{m:02}-{d:02}", f"{y}{m:02}{d:02}", f"{d}.{ROMAN[m - 1]}.{y}")
    return lang, "birth_date", f"{y}-{m:02}-{d:02}", r.choice(every), "date"


def unicode_forms(count: int, seed: int) -> Iterator[Form]:
    """So many forms, the same for the same seed."""
    r = random.Random(seed)
    for _ in range(count):
        kind = r.choices(("name", "number", "email", "address", "birth"), (12, 4, 1, 2, 1))[0]
        if kind == "name":
            lang, value, form, custom = _name(r)
        else:
            make = {"number": _number, "email": _mail, "address": _place, "birth": _birth}[kind]
            lang, kind, value, form, custom = make(r)
        lead, _, form = form.rpartition("¦")
        before, after = r.choice(AROUND[lang]).split("{}")
        if kind == "address":
            before, after = {"en": ("lives in ", ""), "vi": ("quê ", ""), "zh": ("来自", "，务农")}[
                lang
            ]
        first, last = CLINICAL[lang]
        head = f"{first}\n{before}{lead}"
        yield Form(
            lang, kind, value, f"{head}{form}{after}\n{last}", len(head), len(head) + len(form), f"{kind}: {custom}"
        )  # fmt: skip
