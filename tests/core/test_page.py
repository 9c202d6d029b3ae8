"""One-page reports: what stands in them is shown as it is, and nothing in it becomes markup."""

from __future__ import annotations

from pathlib import Path

from residency.core.page import Page, Section, markdown, write_page

PAGE = Page(
    title="Split of <ward>",
    eyebrow="Split, 2026-01-01",
    lead="Nothing leaks.",
    facts=(("notes", "20,000"),),
    caveats=("Invented | records.",),
    sections=(
        Section(
            title="Parts",
            columns=("part", "notes"),
            rows=(("train", "16,000"), ("a|b", "1 <b>")),
            numeric=(1,),
        ),
        Section(title="Plot", svg="<svg></svg>", caption="What it shows."),
    ),
)


def test_a_page_needs_nothing_else_and_escapes_what_it_is_given(tmp_path: Path) -> None:
    html = write_page(PAGE, tmp_path, "split").read_text("utf-8")
    assert "Split of &lt;ward&gt;" in html and "1 &lt;b&gt;" in html and "<svg></svg>" in html
    assert "http://" not in html and "https://" not in html and "<script" not in html
    assert (tmp_path / "split.md").is_file()


def test_the_same_as_markdown() -> None:
    lines = markdown(PAGE).splitlines()
    assert lines[0] == "# Split of &lt;ward>"
    assert "|---|---:|" in lines and "| a\\|b | 1 &lt;b> |" in lines
    assert "- notes: 20,000" in lines and "> Invented \\| records." in lines
    assert "svg" not in markdown(PAGE)
