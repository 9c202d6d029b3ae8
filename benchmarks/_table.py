"""Fill the tables of docs/benchmarks.md from benchmarks/results/*.json: python
benchmarks/_table.py."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "benchmarks.md"
UNMEASURED = "Not yet measured."


def table(result: dict[str, Any]) -> str:
    """A result as a Markdown table, and under it where and when it was measured."""
    columns, rows = result["table"]["columns"], result["table"]["rows"]
    lines = [columns, ["---"] * len(columns), *rows]
    versions = ", ".join(f"{name} {version}" for name, version in result["packages"].items())
    where = (
        f"Measured {result['date'][:10]} on {result['machine']}, {result['threads']} threads; "
        f"{versions}."
    )
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + f"\n\n{where}"


def filled(page: str, results: Path) -> str:
    """The page with every ``<!-- results: NAME -->`` block as its result file has it."""

    def block(match: re.Match[str]) -> str:
        path = results / f"{match[1]}.json"
        inside = table(json.loads(path.read_text("utf-8"))) if path.is_file() else UNMEASURED
        return f"<!-- results: {match[1]} -->\n\n{inside}\n\n<!-- end -->"

    return re.sub(r"<!-- results: ([\w-]+) -->\n.*?<!-- end -->", block, page, flags=re.S)


def main() -> None:
    PAGE.write_text(filled(PAGE.read_text("utf-8"), Path(__file__).parent / "results"), "utf-8")


if __name__ == "__main__":
    main()
