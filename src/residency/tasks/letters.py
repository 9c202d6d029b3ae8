"""Which option an answer commits to, where the options are letters or words as short as "yes".

A letter counts where it is the whole answer, stands at its head or alone on its last line, behind
words that choose ("the answer is B", "đáp án: B", "故选B"), or before words that judge it
("B项正确"). Elsewhere it is a word of the sentence ("As an AI", "hepatitis B").
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache, partial
from typing import NamedTuple
from unicodedata import normalize

from residency.tasks import together
from residency.tasks.answer_repair import Names
from residency.tasks.negation import chosen, without_echo, word

SHORT = frozenset(
    [
        "yes",
        "no",
        "maybe",
        "true",
        "false",
        "unknown",
        "unsure",
        "correct",
        "incorrect",
        "right",
        "wrong",
        "có",
        "không",
        "đúng",
        "sai",
        "是",
        "否",
        "有",
        "无",
        "对",
        "错",
        "是的",
        "不是",
        "正确",
        "错误",
        "真",
        "假",
        "可能",
    ]
) | {
    "có thể",
    "không rõ",
    "không đúng",
    "not sure",
    "không phải",
    "没有",
    "不确定",
    "不对",
    "不正确",
}


def short(labels: Sequence[str]) -> bool:
    """Whether labels are letters, or words that stand in any sentence."""
    return bool(labels) and (
        all(re.fullmatch(r"[A-Za-z]", label) for label in labels)
        or any(normalize("NFC", label).casefold() in SHORT for label in labels)
    )


def spoken(names: Names) -> Names:
    """Of labels of which some are words that stand in any sentence, the others, where there are two
    or more: "current smoker" beside "unknown"."""
    rest = [one for one in names.names if len(one) > 1 and one.casefold() not in SHORT]
    found = Names(rest if 1 < len(rest) < len(names.names) else ())
    if found.names:
        found.folded = {key: name for key, name in names.folded.items() if name in rest}
    return found


CHOOSE = {
    "en": r"(?:(?:the|my|so the|correct|right|final|best|only|single)\s+)*"
    r"(?:answers?|ans\.?|key|exception|choices?|options?|decision|verdict|conclusion|selection|response|letter|pick|guess|bet|vote|preference|"
    r"(?:best|appropriate|correct|likely) (?:next |first |initial )?(?:step(?: in [a-z]{1,12})?"
    r"|treatment|test|diagnosis|management))"
    r"(?:\s+(?:here|to (?:this|the) question|therefore|thus|then))?\s*,?\s*"
    r"(?P<n1>is not|isn't|are not|cannot be|can't be|can not be|was not|would not be)?"
    r"(?:\s*(?:also|still|is|are|'s|should be|must be|would be|will be|has to be|was|=|:|-+>|→"
    r"|[-–—](?=\s)))*"
    r"|(?P<n2>(?:do not|don't|not|never|cannot|can't|wouldn't|would not|won't|will not|didn't"
    r"|did not)\s+)?"
    r"(?:choose|choosing|chose|pick|select|go(?:ing)? (?:with|for)|opt for|mark|answer|settle on"
    r"|left with|only|"
    r"selected|vote for|tick|circle|would say|corresponds? to|points? to|keep)(?:\s*:)?"
    r"|(?:chang|switch|revis|mov)(?:e|es|ed|ing|ed my answer|ing my answer)(?: my answer"
    r"| it)? from .{1,15}? to"
    r"|(?:therefore|thus|hence)\s*[,:]?\s*(?:it is|it's)?"
    r"|(?:so|finally|in (?:conclusion|short|brief|summary|sum)|to sum up|bottom line|overall"
    r"|consequently)\s*[,:]\s*(?:it is|it's)?"
    r"|(?:one|option|choice|answer)s? (?:that|which) [a-z ]{1,24} (?:is|are)"
    r"|\bso\s+(?:it is|it's|choose|pick|take)?"
    r"|(?:it is|it's|it must be|it has to be|that is|that's|which is|leaves|leaving)"
    r"|(?:correct|right|true|chosen|selected)(?: (?:ones?|options?|answers?|statements?))?"
    r"(?:\s*(?:is|are|:))+"
    r"|\\boxed\{(?:\\text\{)?",
    "vi": r"(?:(?:các|những)\s+)?(?:đáp án|đ/án|đ/a|chẩn đoán|câu trả lời|trả lời|lựa chọn"
    r"|phương án|kết luận|kết quả|ý)"
    r"(?:\s+(?:đúng(?: nhất)?|cuối cùng|chính xác(?: nhất)?|phù hợp(?: nhất)?|của (?:tôi|em|mình)"
    r"|được chọn|"
    r"cần chọn|ở đây|câu này|cho câu hỏi này|hợp lý(?: nhất)?|cần tìm|tốt nhất))*\s*"
    r"(?P<n3>không phải(?: là)?|không là|không thể là|chẳng phải)?"
    r"(?:\s*(?:cũng|vẫn|sẽ là|phải là|chính là|nên là|là|gồm|:|=|[-–—](?=\s)))*"
    r"|(?P<n4>(?:không|đừng|chưa|chẳng|không nên|không thể|không được)\s+)?(?:chọn|khoanh|chốt)"
    r"(?:\s+(?:là|đáp án|phương án|câu|ý|cả))*(?:\s*:)?"
    r"|(?:đổi|chuyển|sửa)(?: đáp án)?(?: từ .{1,12}?)? (?:sang|thành)"
    r"|(?:(?:phải|chính|đó|đây) là|theo (?:tôi|em|mình|ý (?:kiến )?(?:của )?(?:tôi|em|mình))"
    r"|(?:chắc chắn|rõ ràng|dứt khoát))(?:\s*,)?(?: thì)?(?: là)?"
    r"|(?:tôi|em|mình) (?:nghĩ|cho rằng|tin)(?: rằng)?(?: (?:là|đáp án|đúng))*|=>|⇒"
    r"|(?:đúng|chính xác)\s*:|(?:chỉ(?: có| còn| mình)?|còn(?: lại)?)\s"
    r"|(?:vậy|do đó|vì vậy|vì thế|tóm lại|cuối cùng|như vậy|suy ra|nên)\s*[,:]?\s*(?:là|thì)?",
    "zh": r"(?:(?:正确|最终|最佳|标准|参考|本题|此题|该题|我的|所以|因此|故|综上)*的?)"
    r"(?:答案|选项|回答|结论|选择|诊断)(?P<n5>不是|不应是|并非|不为|不可能是)?"
    r"(?:\s*(?:也|仍|还|会是|将是|应该是|应该为|应为|应是|应选|就是|是|为|有|包括|:|=|】|\]))*"
    r"|(?P<n6>不能?|不应该?|不可|不该|别|勿|排除|不会|不宜|从不)?(?:应该|应当|应|故|可|就|要|该|答案|本题|此题|我)*"
    r"选(?:择|取|定|项|的是|了)?(?:\s*(?:是|为|:))?"
    r"|(?:毫无疑问|显然|肯定|当然|我认为|我觉得|就)(?:应该?)?是|即|必须是|最终\s*:|答案\s*[—–-]+|从.{1,8}?(?:改成|改为|换成|变为)|答\s*:|=>|⇒"
    r"|正确\s*:|(?:只有|唯有|仅有?|只剩下?|剩下?的?是?)"
    r"|(?:所以|因此|故)[,，:]?(?:本题|应该?)?(?:是|为)?"
    r"|(?:正确|对)的(?:选项|答案|说法)?(?:\s*(?:应该是|应为|是|为|有|包括|:))+",
}
"""What chooses the option behind it; a named group is what denies it."""

RIGHT = (
    r"(?:(?:is|are|was|were|would be|seems|remains|looks)\s+(?:both |all |also |clearly |indeed |"
    r"therefore |thus |the |an? |only |most |certainly |definitely |obviously )*(?:correct|right"
    r"|true|best|"
    r"answers?|option|one|choice|correct (?:answers?|choices?|options?|ones?)|appropriate|(?:sole"
    r"|single) (?:correct )?(?:answer|option|one)|(?:most )?(?:accurate"
    r"|fitting)(?: of (?:the )?\w+)?)\b"
    r"|(?:seems|appears|looks)(?: to be)? (?:the )?(?:most|best|right|correct)\b|alone\b"
    r"|(?:is|are)\s+(?:my|our) (?:final |best )?(?:choice|answer|pick)s?\b"
    r"|là (?:lựa chọn|đáp án|câu trả lời)(?: cuối cùng)?(?: của)? (?:tôi|em|mình)"
    r"|(?:才是|就是|是)答案|是我的(?:最终|最后)?(?:选择|答案)"
    r"|(?:(?:stands|fits?|holds|applies|remains?)|(?:is|are) (?:better|preferable|preferred))\b"
    r"|(?:đều |là |thì |mới |cũng |hoàn toàn |chính |phương án |đáp án |lựa chọn |câu trả lời |ý )*"
    r"(?:đúng|chính xác|(?:phù hợp|hợp lý)(?: nhất| hơn(?: cả| hết)?)|đúng hơn cả"
    r"|đáp án(?!\s*(?:sai|không)))(?!\s*(?:hay|với))"
    r"|(?:选项|项|答案|说法|、)?(?:的?(?:说法|描述|表述|叙述))?\s*(?:都|均|是|才是|为|最|也|完全|才|全部|全都|皆)*"
    r"(?:正确|对(?![照比于于应])|准确|合适|符合题意|正确答案|正确选项|符合|最好|最?佳(?:选项|答案)|(?:更|较)?合适的?(?:选项|答案)?|更(?:好|符合|恰当)|优选项)"
    r"|\s*[:=-]?\s*(?:\([+]\)|[✓✔☑√✅]))"
)
WRONG = (
    r"(?:(?:is|are|was|were|can be|should be|has been|have been|must be)\s+(?:both |all |also "
    r"|clearly |"
    r"the |an? |therefore |thus |obviously |definitely )*(?:not (?:the )?(?:correct|right|true"
    r"|best|"
    r"appropriate|answer|an? )|"
    r"incorrect|wrong|false|eliminated|excluded|ruled out|out\b|rejected|discarded|inappropriate|"
    r"unlikely|contraindicated|implausible|impossible)"
    r"|(?:isn't|aren't|cannot|can't|does not|doesn't|do not|don't|fails?|won't)\b"
    r"|(?:đều |là |thì |bị |cũng |hoàn toàn |rõ ràng )*(?:sai|không (?:đúng|phải|chính xác|phù hợp"
    r"|hợp lý)|"
    r"loại|chưa đúng|chống chỉ định)"
    r"|(?:选项|项|答案|说法)?(?:的?(?:说法|描述|表述|叙述))?\s*(?:都|均|是|也|可|可以|应|被|为)*"
    r"(?:错误|错|不正确|不对|不准确|不符合|不合适|不是|不选|不能选|不考虑|排除|被排除|有误|不恰当|不成立)"
    r"|\s*[:=-]?\s*(?:\([-−]\)|[✗✘❌×☒❎✖✕]))"
)
OUT = (
    r"(?:eliminat(?:e|ed|ing)|rul(?:e|ed|ing) out|exclud(?:e|ed|ing)|reject(?:ed|ing)?"
    r"|discard(?:ed|ing)?|"
    r"not|wrong|incorrect|except(?: for)?|instead of|rather than|other than|neither|nor|over|"
    r"(?:đã |có thể |ta )?loại(?: trừ| bỏ| đi)?|không phải(?: là)?|chứ không phải(?: là)?|sai"
    r"|ngoại trừ|trừ|thay vì|"
    r"排除(?:了|掉)?|不是|而非|而不是|除了?|错误(?:的)?(?:是|有|选项)?|不正确的(?:是|有)?|淘汰|去掉|剔除|错的(?:是|有)?)"
    r"(?:\s*(?:are|is|being|là|的?选项|的?是|为|:|=))*\s*(?:both |all |cả |the |các )?"
)
"""What takes the options behind it out."""
UNSURE_BEHIND = r"(?:\s*,\s*[\w\"]{1,12}){0,6}\s*(?:,\s*)?(?:or|/|hoặc|hay(?: là)?|或者?|还是)\s*"
FILL = (
    r"[\s\"'“”‘’「『(\[【{<*_`:]{0,6}(?i:(?:definitely |certainly |clearly |probably |either "
    r"|both |all |only |cả |đều |the |"
    r"hai |still |most likely |option|options|choice|choices|letter|letters|answer|statement"
    r"|statements|"
    r"phương án|đáp án|lựa chọn|câu|ý|chữ|"
    r"选项|项|字母|答案)[\s:]{0,3}){0,4}[\s\"'“”‘’「『(\[【{<*_`]{0,6}"
)
NOT_LETTERS = re.compile(
    r"(?:vitamin|hepatitis|type|group|grade|stage|class|pugh|influenza|blood|factor|protein|immunoglobulin|"
    r"hemophilia|haemophilia|strep|streptococcus|plan|viêm gan|nhóm|nhóm máu|loại|týp|típ|cúm"
    r"|giai đoạn|"
    r"độ|khoa|ib|lớp|thể|维生素|型|级|期|组|流感|肝炎|血型|甲|因子|链球菌)[\s-]*$",
    re.IGNORECASE,
)
NOT_BEHIND = r"(?!\s*(?:型|超|族|肝|淋巴|细胞|链|组血|级|期|溶血|座|线检))"


NONE_RIGHT = re.compile(
    r"\bnone of (?:the )?(?:options|statements|answers|choices|them|these)[^.;]*\b(?:correct|right"
    r"|true|fits?)\b|"
    r"\b(?:no (?:option|answer|statement|choice)s?|none) (?:is|are) (?:correct|right|true)|"
    r"không có (?:ý|phương án|đáp án|câu|nhận định|lựa chọn)(?: trả lời)? nào (?:là )?đúng"
    r"|không (?:ý|câu|phương án|đáp án) nào đúng|"
    r"没有(?:任何|一个|一项)*(?:选项|答案|说法)?(?:是)?正确|无正确(?:选项|答案)|(?:选项|[五四三]项|以上)[^,。]{0,4}(?:都|均|全)不(?:正确|对|是)",
    re.IGNORECASE,
)
ALL_BUT = (
    r"\b(?:all|every(?:thing|one)?)\b(?! but)[^.;,]{0,30}?\b(?:are|is) (?P<a>wrong|incorrect|false"
    r"|right|correct|true),? "
    r"(?:except|but|save)(?: for)?\s*GOT|\b(?:all|everything|every (?:option"
    r"|one))\b[^.;,]{0,20}?\b(?:except|save)(?: for)?"
    r"\s*GOT,? (?:are|is) (?P<b>wrong|incorrect|false|right|correct|true)\b|"
    r"(?:tất cả|mọi|các)[^.;,]{0,30}? (?P<c>đúng|sai),? (?:ngoại )?trừ (?:câu |ý |đáp án "
    r"|phương án )?GOT|"
    r"除了?GOT[项以之]?外[,，]?(?:其余|其他|其它|全部|全|的|选项|都|均|皆|是)+(?P<d>正确|对|错误?|不正确|不对)"
)
"""What judges all options but the one that it names."""
FINAL = re.compile(
    r"(?:correct|right) (?:answer|option|choice)|đáp án (?:đúng|chính xác)|正确(?:答案|选项)|final"
    r"|cuối cùng|最终|最后|conclusion|kết luận|结论|therefore|综上",
    re.IGNORECASE,
)
NOUN_ONLY = re.compile(
    r"(?:options?|choices?|answers?|statements?|phương án|đáp án|lựa chọn|ý|câu|选项|答案)\W*$",
    re.IGNORECASE,
)


ARTICLE = re.compile(r" (?!(?:because|since|as|and|for|is|due|given|or|but|with|not|by)\b)[a-z]+")
"""What follows an A that is an article."""


SPEAKER = re.compile(r"\s*[:,]\s*(?:I|The|Sorry|As|Yes|No|You|This|We|It)\b")
"""What follows an A that says who speaks."""


SMALL = (
    r"(?:answer|ans\.?|option|choice|đáp án|phương án|câu trả lời|lựa chọn|答案|选项)"
    r"(?: (?:đúng(?: nhất)?|chính xác|cuối cùng|phù hợp(?: nhất)?))*(?:\s*(?:is|là|为|是"
    r"|:))*\s*\(?(?P<got>BODY)"
    r"(?=\s*(?:[.),;:。!]|\n|\Z))"
)
"""Where a letter that is written small is chosen."""


class Choice(NamedTuple):
    """Options that a place of the answer takes up or out."""

    place: int
    options: tuple[str, ...]
    takes: bool
    weight: int
    """What chooses outweighs what judges, and that what only stands at the head."""
    certain: bool = True


@cache
def _patterns(labels: tuple[str, ...], languages: tuple[str, ...]) -> dict[str, re.Pattern[str]]:
    lone = all(len(label) == 1 and label.isascii() for label in labels)
    body = "|".join(sorted(map(re.escape, labels), key=len, reverse=True))
    if lone:
        latin = r"A-Za-zÀ-ɏḀ-ỿ0-9"
        wrapped = rf"[\"'“”‘’(\[【「{{]{{0,3}}(?:{body})[\"'“”‘’)\]】」}}]{{0,3}}"
        one = rf"(?<![{latin}'’\-])(?:{wrapped})(?![{latin}])(?!['’][a-z]|-[a-zA-Z])"
        glued = rf"(?<![{latin}\-])(?:{body}){{2,}}(?![{latin}])(?!-[a-zA-Z])"
        link = (
            r"\s*(?:,\s*(?:and|và)|[,、/+&]|and|và|với|cùng(?: với)?|lẫn|和|及|与|以及"
            r"|以?及)\s*(?:option |options |phương án |câu |选项)?"
        )
        apart = rf"(?<![{latin}\-])(?:{body})(?: (?:{body})(?![{latin}])){{1,}}(?!-[a-zA-Z]| [a-z])"
        group = rf"(?>{glued}|{apart}|{one}(?:选?项)?(?:{link}{one}(?:选?项)?)*)"
    else:
        group = rf"(?<!\w)(?:{body})(?!\w)" if re.search(r"\w ?[a-zà-ỹ]", body) else rf"(?:{body})"
    after = (
        r"\s*(?i:because|since|as|so|not|vì|do|nên|không|因为|由于|理由|而|其)"
        if lone
        else r"\s*\w"
    )
    choose = "|".join(CHOOSE[lang] for lang in languages)
    made = partial(re.compile, flags=0 if lone else re.IGNORECASE)
    blank = chr(92) + "s"
    more = rf"(?P<more>{UNSURE_BEHIND}{FILL}(?:{group}))?"
    return {
        "choose": made(
            rf"(?i:(?<![a-z])(?:{choose})){FILL}{'' if lone else '(?:an? )?'}(?P<got>{group}){NOT_BEHIND}{more}"  # noqa: E501
        ),
        "judge": made(
            rf"(?P<got>{group})[\s\"')\]】]{{0,4}}(?:选项|[两三四五六]?项|全部|全都|均|都|皆|both|all|đều|cả){{0,3}}\s{{0,3}}(?i:(?P<wrong>{WRONG})|{RIGHT})"
        ),
        "out": made(
            rf"(?i:(?<![a-z])(?:{OUT.replace(blank, ' ')})){FILL.replace(blank, ' ')}(?P<got>{group}){NOT_BEHIND}"  # noqa: E501
        ),
        "turn": made(
            r"(?i:(?<![a-z])(?<!everything )(?<!all )(?<!any )(?:but(?: rather)?(?: it is| it's)?"
            rf"|mà(?: là)?|而是|而应?选)){FILL}"
            rf"(?P<got>{group})\s*(?:[.,;。!]|$)"
        ),
        "item": made(rf"(?m)(?:^|[.;。,]\s*)[\s(]*(?P<got>{body})[.):、]\s*\S"),
        "mark": made(
            rf"(?P<got>{group})\s*(?:[:=]|-+>|→|\||\s[-–—]\s|\()\s*(?i:(?P<wrong>no\b|false|wrong|incorrect|sai|"
            r"không|错|否|不|×|✗|❌|✘)|(?:yes|true|right|correct|đúng|có|对|是|正确|✓|✔|√|✅))"
        ),
        "head": made(
            rf"\A[\s#>]*{FILL}(?P<got>{group})(?:\s*[.)\]】:;,，。、！!—–-](?!\w|\s)|[.;)\]】:!—–-]\s|\s*[。；：:)、]|(?<=[)\]】])\s|\s*[,，](?={after})|\s*!?\Z|\s*\n|\s+[-–—]\s|"
            r"(?:\s*[.、)]|(?<=[)\]】]))(?=[一-鿿])|\s+\(?(?i:because|since|as|for|vì|bởi|do|因为)\b)"
        ),
        "line": made(
            rf"(?m)^(?i:(?:câu|question|q|第)?\s*\d{{1,3}}\s*题?\s*[.:)、]\s*)?[\s\"'*_`#>()\[\]【】-]*(?P<got>{group})[\s\"'*_`.。!)\]】]*$"
        ),
        "small": re.compile(SMALL.replace("BODY", body), re.IGNORECASE),
        "last": made(rf"(?:[.;!。→⇒>]\s*|:\s+)(?P<got>{group})\s*[.!。]?\s*\Z"),
        "tail": made(rf"(?i:\b(?:là|is|are)|是|为|:)\s*[\"'“]?(?P<got>{group})[\"'”]?\s*[.!。]*\Z"),
        "one": made(body),
    }


def picked(
    answer: str, labels: Sequence[str], multiple: bool, language: str
) -> tuple[str, ...] | None:
    """The options that an answer takes; ``()`` where it says that none is right, ``None`` where it
    cannot be read."""
    languages = chosen(language)
    text = normalize("NFKC", answer).replace("’", "'")
    text = re.sub(r"[*_`$]+", "", text)
    text = re.sub(r"\A\s*(?:Q|Question)\s*:.*\n\s*(?:A|Answer)\s*:", "", text, flags=re.DOTALL)
    patterns = _patterns(tuple(labels), languages)
    known = {label.casefold(): label for label in labels}
    text = text if "是的" in known else text.replace("是的", "是")
    text, others = together.without_rest(text, languages)
    bare = text.strip(" \t\r\n\"'“”‘’()[]【】{}.。,，;；:：!！-#>")
    if bare.casefold() in known and others is not True:
        return (known[bare.casefold()],)
    if re.fullmatch(r"[a-z](?:[\s,、/]*(?:and|và|和)?\s*[a-z])*", bare) and len(bare) <= 12:
        text = bare = bare.upper() if not re.search("and", bare) else bare
    apart = re.split(r"[\s,;、/&+]+", bare)
    if multiple and len(apart) > 1 and all(one in labels for one in apart):
        return tuple(label for label in labels if label in apart)
    if (back := list(word("revision", languages).finditer(text.casefold()))) and len(
        text.casefold()
    ) == len(text):
        text = text[back[-1].end() :].lstrip(" :,.，。")
    if NONE_RIGHT.search(text):
        return () if multiple else None
    text = without_echo(text, languages)
    if (rest := _all_but(text, labels)) is not None:
        return rest if multiple or len(rest) == 1 else None
    found = sorted(_choices(text, patterns, known, languages), key=lambda one: one.place)
    if multiple and others:
        out = {option for one in found if not one.takes for option in one.options}
        taken = {option for one in found if one.takes for option in one.options}
        return None if taken & out or not out else tuple(one for one in labels if one not in out)
    if (
        not found
        and multiple
        and not word("hedge", languages).search(text.casefold())
        and word("nothing", languages).fullmatch(text.casefold().strip(" .。"))
    ):
        return ()
    return _settled(found, tuple(labels), multiple)


def _all_but(text: str, labels: Sequence[str]) -> tuple[str, ...] | None:
    """The options that hold where all are judged but one, in a sentence that is the whole
    answer."""
    body = "|".join(sorted(map(re.escape, labels), key=len, reverse=True))
    groups = iter("efgh")
    pattern = re.sub("GOT", lambda _: rf"\(?(?P<{next(groups)}>{body})\)?(?![A-Za-z0-9])", ALL_BUT)
    found = re.fullmatch(rf"\W*(?:{pattern})\W*", text.strip(), re.IGNORECASE)
    if found is None:
        return None
    said = {key: value for key, value in found.groupdict().items() if value}
    one = next(
        label
        for label in labels
        for key in "efgh"
        if said.get(key, "").casefold() == label.casefold()
    )
    verdict = next(said[key] for key in "abcd" if key in said)
    wrong = re.match("wrong|incorrect|false|sai|错|不", verdict, re.IGNORECASE)
    return (one,) if wrong else tuple(label for label in labels if label != one)


Patterns = dict[str, re.Pattern[str]]


def _choices(
    text: str, patterns: Patterns, known: dict[str, str], languages: tuple[str, ...]
) -> Iterable[Choice]:
    def options(match: re.Match[str]) -> tuple[str, ...]:
        names = [known[one.casefold()] for one in patterns["one"].findall(match["got"])]
        return tuple(dict.fromkeys(names))

    letters_only = all(len(one) == 1 for one in known)
    for match, takes, weight, sure in _chosen(text, patterns, letters_only, languages):
        yield Choice(match.start("got"), options(match), takes, weight, sure)
    yield from (
        Choice(match.start("got"), options(match), takes, 2, sure)
        for match, takes, sure in _judged(text, patterns, frozenset(known), languages)
    )
    for match in patterns["small"].finditer(text) if letters_only else ():
        if match["got"] not in known.values():
            yield Choice(match.start("got"), (known[match["got"].casefold()],), True, 3)
    head = patterns["head"].match(text)
    if head and not (letters_only and SPEAKER.match(text, head.end("got"))):
        items = {match["got"] for match in patterns["item"].finditer(text)}
        sure = not re.match(UNSURE_BEHIND, text[head.end("got") :]) and len(items) < 2
        yield Choice(head.start("got"), options(head), True, 1, sure)
    for match in patterns["line"].finditer(text):
        yield Choice(match.start("got"), options(match), True, 1)
    last = patterns["last"].search(text) if letters_only else None
    if last and not re.search(rf"(?i:{OUT}|{WRONG})\W*\Z", text[: last.start()][-30:]):
        yield Choice(last.start("got"), options(last), True, 3)


def _chosen(
    text: str, patterns: Patterns, letters_only: bool, languages: tuple[str, ...]
) -> Iterable[tuple[re.Match[str], bool, int, bool]]:
    """Where words choose: the place, whether they take, how much they weigh, whether certain."""
    judged = {
        match.start("got")
        for name in ("judge", "mark", "out")
        for match in patterns[name].finditer(text)
        if name == "out" or match["wrong"]
    }
    items = [match.start("got") for match in patterns["item"].finditer(text)]
    for match in patterns["choose"].finditer(text):
        cue, place = match[0][: match.start("got") - match.start()], match.start("got")
        noun = NOUN_ONLY.search(cue) is not None
        if (noun and (place in judged or match["more"])) or (place in items and len(items) > 1):
            continue
        if _taken_back(text, match.start(), languages) or "?" in text[match.end() :][:2]:
            continue
        if letters_only and match["got"] == "A" and ARTICLE.match(text, match.end("got")):
            continue
        denied = any(value for name, value in match.groupdict().items() if name.startswith("n"))
        sure = not match["more"] and not _hedged(text, match.start(), place, languages)
        yield match, not denied, 4 if FINAL.search(cue) else 3, sure
    for match in patterns["turn"].finditer(text):
        yield match, True, 3, True


def _judged(
    text: str, patterns: Patterns, known: frozenset[str], languages: tuple[str, ...]
) -> Iterable[tuple[re.Match[str], bool, bool]]:
    """Where words say that an option is right or wrong: the place, which, whether certain."""
    right = set()
    for match in patterns["judge"].finditer(text):
        if NOT_LETTERS.search(text[: match.start("got")]):
            continue
        if re.search(r"(?i:\b(?:neither|nor)\s*)\Z", text[: match.start("got")]):
            continue
        right |= set() if match["wrong"] else {match.start("got")}
        yield match, not match["wrong"], not _hedged(text, match.start(), match.end(), languages)
    for match in () if known & SHORT else patterns["mark"].finditer(text):
        yield match, not match["wrong"], True
    for match in patterns["out"].finditer(text):
        if match.start("got") not in right:
            yield match, False, True
    for match in () if all(len(one) == 1 for one in known) else patterns["tail"].finditer(text):
        yield match, True, True


def _taken_back(text: str, start: int, languages: tuple[str, ...]) -> bool:
    """Whether a clause tells what was thought at first."""
    from_ = max(text.rfind(sign, 0, start) for sign in ".。;\n") + 1
    clause = text[from_ : start + 12].casefold()
    back = [one for one in word("generic", languages).finditer(clause) if one.start() < start]
    between = clause[back[-1].end() : start - from_] if back else ""
    return bool(back) and not re.search(
        rf"{word('but', languages).pattern}|[,，]", between.replace("\n", ",")
    )


def _hedged(text: str, start: int, end: int, languages: tuple[str, ...]) -> bool:
    """Whether a clause with a choice says that it is not certain."""
    from_ = max(text.rfind(sign, 0, start) for sign in ".。;\n,，") + 1
    clause = text[from_:end].casefold()
    clause = re.sub(
        r"most likely|有可能性最大|最有?可能|có khả năng (?:cao )?nhất|probably|likely", "", clause
    )
    return word("hedge", languages).search(clause) is not None


def _settled(
    found: Sequence[Choice], labels: tuple[str, ...], multiple: bool
) -> tuple[str, ...] | None:
    """The options that remain; ``None`` where what is said does not agree or is not certain."""
    judged = {option for one in found if one.weight >= 2 for option in one.options}
    taken = [
        one for one in found if one.takes and (one.weight >= 2 or not judged & set(one.options))
    ]
    out = {option: one for one in found if not one.takes for option in one.options}
    if not taken:
        return () if multiple and set(out) == set(labels) else None
    top = max(one.weight for one in taken)
    if top == 4:
        out = {key: one for key, one in out.items() if one.weight >= 3}
    kept = [one for one in taken if one.weight == top or (multiple and 2 <= one.weight < top < 4)]
    if not all(one.certain for one in kept):
        return None
    if top == 1 and (heads := [one for one in kept if one.options]):
        kept = heads[:1] if len({one.options for one in heads}) == 1 else heads
    chosen_ = list(dict.fromkeys(option for one in kept for option in one.options))
    for option in chosen_:
        against = out.get(option)
        own = [one for one in kept if option in one.options]
        if against and not any(
            one.weight > against.weight and one.place > against.place for one in own
        ):
            return None
    if not multiple and len(chosen_) != 1:
        last = kept[-1]
        distinct = {one.options for one in kept}
        return None if len(distinct) != 1 or len(last.options) != 1 else last.options
    return tuple(option for option in labels if option in chosen_)
