"""Word documents and PDFs inside of messages: their words, without what is deleted or hidden, which
is counted; what cannot be read is named, with what to install."""

from __future__ import annotations

import io
import sys
import zipfile
from base64 import b64encode
from collections import Counter

import pytest

from residency.ingest.decode import ASIDE, HIDDEN, PICTURE, STRUCK
from residency.ingest.documents import EMBEDDED, words_of
from residency.ingest.office import SCANNED

W = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"


def docx(body: str, **parts: str) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        whole = f'<w:document xmlns:w="{W}" xmlns:mc="urn:mc"><w:body>{body}</w:body></w:document>'
        archive.writestr("[Content_Types].xml", "<Types/>")
        archive.writestr("word/document.xml", whole)
        for name, inside in parts.items():
            archive.writestr(f"word/{name}.xml", f'<w:x xmlns:w="{W}">{inside}</w:x>')
    return held.getvalue()


def run(text: str, properties: str = "") -> str:
    return f'<w:r><w:rPr>{properties}</w:rPr><w:t xml:space="preserve">{text}</w:t></w:r>'


def paragraph(*inside: str) -> str:
    return f"<w:p>{''.join(inside)}</w:p>"


def words(data: bytes) -> tuple[str, dict[str, int]]:
    left: Counter[str] = Counter()
    text = words_of(b64encode(data).decode(), "base64", "application/octet-stream", "vi", left)
    return text, dict(left)


def test_a_word_document_is_its_paragraphs_rows_and_inserted_text() -> None:
    cells = "".join(f"<w:tc>{paragraph(run(text))}</w:tc>" for text in ("Mạch", "80"))
    body = (
        paragraph(run("Sốt "), '<w:ins w:id="1">', run("3 ngày"), "</w:ins>")
        + f"<w:sdt><w:sdtContent>{paragraph(run('Ho đờm 😀'))}</w:sdtContent></w:sdt>"
        + f"<w:tbl><w:tr>{cells}</w:tr></w:tbl>"
        + paragraph(run("BC 10"), run("9", '<w:vertAlign w:val="superscript"/>'), run("/L"))
        + paragraph("<w:hyperlink>", run("xem"), "</w:hyperlink><w:r><w:tab/></w:r>", run("sau"))
    )
    assert words(docx(body)) == ("Sốt 3 ngày\nHo đờm 😀\nMạch\t80\nBC 10^9/L\nxem\tsau", {})


def test_what_is_deleted_hidden_or_aside_is_counted() -> None:
    body = paragraph(
        run("HIV "),
        '<w:del w:id="1"><w:r><w:delText>dương</w:delText></w:r></w:del>',
        run("âm"),
        run("xóa", "<w:strike/>"),
        run("ẩn nhé", "<w:vanish/>"),
        run(" tính", '<w:strike w:val="0"/><w:vanish w:val="false"/>'),
        "<w:r><w:drawing/></w:r>",
    )
    data = docx(body, header1=paragraph(run("Bệnh viện")), comments=paragraph(run("sao?")))
    text, left = words(data)
    assert text == "HIV âm tính"
    assert left == {
        STRUCK: len("dươngxóa"),
        HIDDEN: len("ẩnnhé"),
        PICTURE: 1,
        ASIDE: len("Bệnhviệnsao?"),
    }


def test_a_text_box_is_read_once() -> None:
    box = f"<w:txbxContent>{paragraph(run('hộp'))}</w:txbxContent>"
    both = f"<mc:AlternateContent><mc:Choice>{box}</mc:Choice><mc:Fallback>{box}</mc:Fallback></mc:AlternateContent>"
    assert words(docx(paragraph(run("a"), f"<w:r>{both}</w:r>")))[0] == "ahộp"


def pdf(*pages: str) -> bytes:
    """A PDF by the format's own description, a line of text on each page."""
    kids = " ".join(f"{4 + 2 * n} 0 R" for n in range(len(pages)))
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
    ]
    for number, text in enumerate(pages):
        objects.append(
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 300 300] /Resources << /Font << /F 3 0 R "
            f">> >> /Contents {5 + 2 * number} 0 R >>"
        )
        drawn = f"BT /F 12 Tf 20 200 Td ({text}) Tj ET" if text else ""
        objects.append(f"<< /Length {len(drawn)} >>\nstream\n{drawn}\nendstream")
    out, places = b"%PDF-1.4\n", []
    for number, one in enumerate(objects, 1):
        places.append(len(out))
        out += f"{number} 0 obj\n{one}\nendobj\n".encode("latin-1")
    table = "".join(f"{place:010} 00000 n \n" for place in places)
    end = f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}trailer\n"
    end += f"<< /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{len(out)}\n%%EOF\n"
    return out + end.encode()


def test_a_pdf_is_its_pages() -> None:
    pytest.importorskip("pypdf", reason="pypdf is not installed; pip install 'residency[pdf]'")
    assert words(pdf("Fever for 3 days.", "", "caf\xe9")) == (
        "Fever for 3 days.\ncafé",
        {SCANNED: 1},
    )


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (pdf(""), "PDF without words, such as a scan"),
        (b"%PDF-1.4", "PDF that cannot be read"),
        (b"%PDF-1.4" + b"x" * 2000, "PDF that cannot be read"),
    ],
)
def test_a_pdf_without_words_is_named(data: bytes, name: str) -> None:
    pytest.importorskip("pypdf", reason="pypdf is not installed; pip install 'residency[pdf]'")
    with pytest.raises(Exception, match=f"{EMBEDDED}: {name}"):
        words(data)


def test_without_the_library_a_pdf_is_refused_by_its_name_and_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "pypdf", None)
    with pytest.raises(Exception, match=r"PDF \(pip install 'residency\[pdf\]' reads them\)"):
        words(pdf("Fever"))


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"PK\x03\x04x", "DOCX, or another ZIP"),
        (docx("<w:p>"), "DOCX that cannot be read"),
        (docx("<w:p>")[:-30], "DOCX, or another ZIP"),
    ],
)
def test_a_word_document_that_is_broken_is_named(data: bytes, name: str) -> None:
    with pytest.raises(Exception, match=f"{EMBEDDED}: {name}"):
        words(data)
