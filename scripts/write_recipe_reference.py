"""Writes docs/reference/recipe.md: every key of a recipe, as the schema of the program has it.

python scripts/write_recipe_reference.py [FILE]
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from residency.recipe import json_schema

PAGE = Path(__file__).resolve().parents[1] / "docs" / "reference" / "recipe.md"
HEAD = """# Every key of a recipe

Written by `make docs-help` from the schema that `residency schema` prints; [the recipe](../guide/recipe.md) explains the usual ones.
A key without a default must be given. Keys that every format of data has stand once, in [all formats](#all-formats).
"""
SHARED = "All formats"


def page() -> str:
    """The page."""
    schema = json_schema()
    parts = {"Recipe": schema, **schema["$defs"]}
    formats = [
        name
        for name, part in parts.items()
        if "format" in part.get("properties", {}) and "train" in part["properties"]
    ]
    common = {
        key: value
        for key, value in parts[formats[0]]["properties"].items()
        if all(parts[name]["properties"].get(key) == value for name in formats)
    }
    shown = {name: dict(part.get("properties", {})) for name, part in parts.items()}
    for name in formats:
        shown[name] = {key: value for key, value in shown[name].items() if key not in common}
    order = [
        "Recipe",
        "Stage",
        "Task",
        "Evaluate",
        *sorted(shown.keys() - {"Recipe", "Stage", "Task", "Evaluate"}),
    ]
    text = [HEAD, *section(SHARED, "Keys of every data set, whatever its format.", common, ())]
    for name in order:
        if shown[name]:
            part = parts[name]
            text += section(
                name, str(part.get("description", "")), shown[name], part.get("required", ())
            )
    return "\n".join(text)


def section(name: str, words: str, keys: dict[str, Any], needed: Any) -> Iterator[str]:
    """The heading of a part, what it is, and a row for each of its keys."""
    yield f"## {heading(name)}\n"
    yield line(words.partition("\n\n")[0]) + "\n"
    yield "| key | takes | default | meaning |\n|---|---|---|---|"
    for key, value in keys.items():
        default = "" if key in needed or "default" not in value else code(value["default"])
        yield f"| `{key}` | {takes(value)} | {default} | {line(value['description'])} |"
    yield ""


def heading(name: str) -> str:
    """The name of a part; where two rooms have one of a name, with its room."""
    rooms = name.split("__")
    return f"{rooms[-1]} of {rooms[1]}" if len(rooms) > 1 else name


def line(text: str) -> str:
    """Words of a docstring in a cell of a table."""
    one = " ".join(text.split()).replace("``", "`").replace("|", "\\|")
    return re.sub(r"<(?=\w)", "&lt;", one)


def code(value: object) -> str:
    """A value as a recipe writes it."""
    shown = json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else value or '""'
    if len(shown) > 60:
        return "as in its own table" if isinstance(value, dict) else "see the meaning"
    return f"`{shown}`".replace("|", "\\|")


def takes(value: dict[str, Any]) -> str:
    """What a key takes, in words."""
    if "$ref" in value:
        name = value["$ref"].rpartition("/")[2]
        anchor = re.sub(r"[^a-z0-9]+", "-", heading(name).lower()).strip("-")
        return f"[{heading(name)}](#{anchor})"
    if "const" in value:
        return code(value["const"])
    if "enum" in value:
        return ", ".join(code(one) for one in value["enum"])
    for how in ("anyOf", "oneOf"):
        if how in value:
            return " or ".join(dict.fromkeys(takes(one) for one in value[how]))
    kind = value.get("type", "anything")
    if kind == "array":
        items = value.get("items")
        return f"list of {takes(items)}" if items else "list"
    if kind == "object":
        inside = value.get("additionalProperties")
        return f"name: {takes(inside)}" if isinstance(inside, dict) else "mapping"
    words = {
        "string": "text",
        "integer": "whole number",
        "null": "`null`",
        "boolean": "`true`, `false`",
    }
    bounds = [
        f"{sign} {value[key]}"
        for key, sign in (
            ("minimum", "≥"),
            ("exclusiveMinimum", ">"),
            ("maximum", "≤"),
            ("exclusiveMaximum", "<"),
        )
        if key in value
    ]
    return " ".join([words.get(kind, kind), " and ".join(bounds)]).strip().replace("<", "&lt;")


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else PAGE
    target.write_text(page(), "utf-8")
    print(f"{target}: {len(page().splitlines())} lines")
