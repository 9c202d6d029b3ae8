"""HL7 version 2 as it is written: bytes to messages, messages to the segments of each patient, and
escape sequences to signs.

What is a segment, and what its text holds, is chapter 2 of the standard (2.5.2 segments, 2.7 escape
sequences, table 0211 character sets); its names are those of appendix A.
"""

from __future__ import annotations

import re
from collections import Counter

from residency.ingest.decode import Unreadable, decode_bytes

UNKNOWN_SET = "the message names a character set that is not read"
UNKNOWN_ESCAPE = "signs kept as they stand: an escape character that begins no known sequence"
GOES_ON = "characters left out: a line that goes on with a segment that holds no words"
_NAMES = (
    "ABS ACC ADD ADJ AFF AIG AIL AIP AIS AL1 APR ARQ ARV AUT BHS BLC BLG BPO BPX BTS BTX BUI CDM "
    "CDO CER CM0 CM1 CM2 CNS CON CSP CSR CSS CTD CTI CTR DB1 DEV DG1 DMI DON DPS DRG DSC DSP DST "
    "ECD ECR EDU EQL EQP EQU ERQ ERR EVN FAC FHS FT1 FTS GOL GP1 GP2 GT1 IAM IAR IIM ILT IN1 IN2 "
    "IN3 INV IPC IPR ISD ITM IVC IVT LAN LCC LCH LDP LOC LRL MCP MFA MFE MFI MRG MSA NCK NDS "
    "NK1 NPU NSC NST NTE OBR OBX ODS ODT OH1 OH2 OH3 OH4 OM1 OM2 OM3 OM4 OM5 OM6 OM7 OM8 OMC ORC "
    "ORG OVR PAC PCE PCR PD1 PDA PDC PEO PES PID PKG PM1 PMT PR1 PRA PRB PRC PRD PRT PSG PSH PSL "
    "PSS PTH PV1 PV2 PYE QAK QID QPD QRD QRF QRI RCP RDF RDT REL RF1 RFI RGS RMI ROL RQ1 RQD RXA "
    "RXC RXD RXE RXG RXO RXR RXV SAC SCD SCH SCP SDD SFT SGH SGT SHP SID SLT SPM SPR STF STZ TCC "
    "TCD TQ1 TQ2 TXA UAC UB1 UB2 URD URS VAR VND VTQ"
)
KNOWN = frozenset(_NAMES.split())
BATCH = ("FHS", "BHS", "BTS", "FTS")
CHARSETS = {
    **dict.fromkeys(("ASCII", "UTF8", "UNICODE", "UNICODEUTF8"), "utf-8"),
    **dict.fromkeys(("GB180302000", "GB18030", "GBK", "GB2312"), "gb18030"),
    **dict.fromkeys(("BIG5", "CNS116431992"), "big5"),
    **{f"8859{part}": f"iso8859-{part}" for part in (*range(1, 11), 13, 14, 15, 16)},
    **{
        f"{name}{page}": f"cp{page}"
        for name in ("WINDOWS", "CP", "WIN")
        for page in range(1250, 1259)
    },
}
"""Table 0211, and names beside it that systems write, without signs -> Python's codec."""
_HEADER = rb"MSH([^\w\s])[^\w\s]{1,5}(?:\1|[\r\n]|\Z)"


def cut(data: bytes) -> tuple[bytes, list[bytes]]:
    """(what stands before the first message, bytes of each message) of a file."""
    starts = [
        found.start()
        for found in re.finditer(rb"(?:\A|(?<=[\r\n\x0b]))[ \t]*(?=" + _HEADER + rb")", data)
    ]
    if not starts:
        return data, []
    ends = [*starts[1:], len(data)]
    return data[: starts[0]], [data[start:end] for start, end in zip(starts, ends, strict=True)]


def text_of(data: bytes, encoding: str, lang: str) -> tuple[str, str]:
    """(text, codec) of a message: as the settings say, else as its own header does (MSH-18); raises
    ``Unreadable``."""
    if encoding == "auto":
        header = re.match(rb"\s*" + _HEADER, data)
        fields = (
            re.split(rb"[\r\n]", data.lstrip(), maxsplit=1)[0].split(header[1]) if header else []
        )
        first = fields[17].split(b"~")[0] if len(fields) > 17 else b""
        named = re.sub(r"[^A-Z0-9]", "", first.decode("ascii", "replace").upper())
        codec = CHARSETS.get(named.removeprefix("ISO"), "" if named else "auto")
        if not codec:
            try:
                return decode_bytes(data, "utf-8"), "utf-8"
            except Unreadable:
                raise Unreadable(UNKNOWN_SET) from None
        encoding = codec
    return decode_bytes(data, encoding, lang), "utf-8" if encoding == "auto" else encoding


def split(text: str, left: Counter[str] | None = None) -> list[str]:
    """Messages of a text: without the frame of MLLP, without batch headers; a line that begins no
    segment goes on with the one before. A segment begins with a known name, or one with Z, and the
    field separator. Characters of lines that go on with a segment that holds no words are counted
    in ``left``."""
    left = Counter() if left is None else left
    found: list[list[str]] = []
    more: list[str] = []
    for line in re.split(
        r"\r\n|\r|\n", text.lstrip("\x0b\x1c\ufeff \r\n\t").rstrip("\x0b\x1c\r\n")
    ):
        line = line.strip("\x0b\x1c")
        if re.match(r"MSH[^\w\s][^\w\s]*", line) and (not found or is_header(line)):
            _close(found, more, left)
            found.append([line])
        elif found and begins_segment(line, found[-1][0][3]):
            _close(found, more, left)
            if line[:3] not in BATCH:
                found[-1].append(line)
        elif found:
            more.append(line)
    _close(found, more, left)
    return ["\r".join(lines) for lines in found]


def is_header(line: str) -> bool:
    """Whether a line begins a message: the gene MSH2 does not."""
    return re.match(_HEADER, line.encode("utf-8", "surrogatepass")) is not None


def begins_segment(line: str, separator: str) -> bool:
    """Whether a line is a segment, and does not go on with the one before."""
    name = line[:3]
    return line[3:4] == separator and (
        name in KNOWN or re.fullmatch(r"Z[A-Z0-9]{2}", name) is not None
    )


def _close(found: list[list[str]], more: list[str], left: Counter[str]) -> None:
    """Join the lines that go on with the last segment to it: to the value of an OBX or a comment of
    an NTE, where a field separator is a sign of the text save before the fields that follow."""
    while more and not more[-1].strip():
        more.pop()
    if not more:
        return
    header, lines = found[-1][0], found[-1]
    field, sign = header[3], header[4:].split(header[3])[0][2:3]
    joint = f"{sign}.br{sign}" if sign else "\n"
    value = {"OBX": 5, "NTE": 3}.get(lines[-1][:3])
    if value is None:
        left[GOES_ON] += sum(len("".join(line.split())) for line in more)
        lines[-1] += "".join(f"{joint}{line}" for line in more)
    else:
        cells = lines[-1].split(field)
        after = cells[value + 1 :]
        cells = [*cells[: value + 1], *[""] * (value + 1 - len(cells))]
        mark = re.escape(field)
        ending = rf"(?:{mark}[^{mark}]*){{5}}{mark}[A-Z](?:{mark}.*)?|{mark}+"
        if not after and (rest := re.search(rf"(?:{ending})\Z", more[-1])):
            after, more[-1] = rest[0].split(field)[1:], more[-1][: rest.start()]
        shown = f"{sign}F{sign}" if sign else " "
        cells[value] += "".join(joint + line.replace(field, shown) for line in more)
        lines[-1] = field.join([*cells, *after])
    more.clear()


def patients(text: str) -> list[str]:
    """A message as one for each patient: the second PID begins another, under the same header."""
    lines = text.split("\r")
    at = [number for number, line in enumerate(lines) if line.startswith("PID")]
    if len(at) < 2:
        return [text]
    ends = [*at[1:], len(lines)]
    return [
        "\r".join((*lines[: at[0]], *lines[start:end])) for start, end in zip(at, ends, strict=True)
    ]


class Message:
    """A message, or what it says of one patient: its segments as fields, and its escape
    sequences."""

    def __init__(self, text: str, codec: str = "utf-8") -> None:
        """Raises ``IndexError`` where it has no header."""
        separator = text[3]
        self.unescape = Escapes(text.split("\r", 1)[0], codec)
        self.segments = [line.split(separator) for line in text.split("\r") if line]
        self.segments[0].insert(1, separator)

    def named(self, name: str) -> list[list[str]]:
        """The segments of a name."""
        return [segment for segment in self.segments if segment[0] == name]


class Escapes:
    """The escape sequences of a message, and how many escape characters begin none."""

    def __init__(self, header: str, codec: str = "utf-8") -> None:
        signs = header[4:].split(header[3], 1)[0]
        self.codec, self.unknown, self.signs = codec, Counter[str](), signs
        self.sign = signs[2:3] or "\\"
        self.plain = {
            "F": header[3],
            "S": signs[0:1] or "^",
            "R": signs[1:2] or "~",
            "E": self.sign,
            "T": signs[3:4] or "&",
            "P": signs[4:5] or "#",
        }
        mark = re.escape(self.sign)
        known = r"[FSRETPHN]|\.(?:br|ce|fi|nf|sp[+-]?\d*|(?:in|ti|sk)[+-]?\d*)"
        bytes_of = rf"(?:{mark}X(?:[0-9A-Fa-f]{{2}})+{mark})+"
        self.pattern = re.compile(rf"{mark}({known}){mark}|({bytes_of})|{mark}")

    def __call__(self, text: str) -> str:
        r"""A text without escape sequences: ``\F\`` and its like, ``\.br\`` and ``\.sp\`` as line
        ends, ``\Xdd..\`` as bytes of the message's encoding. What is no known sequence stays as it
        stands and is counted."""
        return self.pattern.sub(self._one, text) if self.sign in text else text

    def _one(self, found: re.Match[str]) -> str:
        code, coded = found[1], found[2]
        if coded:
            data = bytes.fromhex(re.sub(rf"{re.escape(self.sign)}X?", "", coded))
            try:
                return re.sub(r"\r\n?", "\n", data.decode(self.codec))
            except UnicodeDecodeError:
                self.unknown[UNKNOWN_ESCAPE] += 1
                return coded
        if code is None:
            self.unknown[UNKNOWN_ESCAPE] += 1
            return found[0]
        if code in self.plain:
            return self.plain[code]
        if rest := re.fullmatch(r"\.(?:br|ce|sp[+-]?(\d*))", code):
            return "\n" * min(max(1, int(rest[1] or 1)), 100)
        return " " if code.startswith((".in", ".ti", ".sk")) else ""


def stray(data: bytes) -> int:
    """Characters before the first message that belong to no batch header."""
    lines = re.split(rb"[\r\n\x0b]+", data.removeprefix(b"\xef\xbb\xbf"))
    return sum(len(line.strip()) for line in lines if line.strip()[:3] not in (b"FHS", b"BHS"))
