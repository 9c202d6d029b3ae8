"""The page of routes, made from the server's own description: no script, nothing from another
machine."""

from __future__ import annotations

import json
from html import escape
from typing import Any

STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "pre{background:#f4f4f4;padding:.8rem;overflow-x:auto}h2{margin-top:2.5rem}"
)


def page(described: dict[str, Any]) -> str:
    """Every route with what it does, the scope that it needs, and examples as ``curl``."""
    parts = [
        f"<h1>{escape(described['info']['title'])} {escape(described['info']['version'])}</h1>"
    ]
    parts.append(
        f"<p>{escape(described['info'].get('description', ''))} <a "
        "href=/openapi.json>openapi.json</a></p>"
    )
    for path, item in described["paths"].items():
        for method, operation in item.items():
            parts.append(
                f"<h2>{method.upper()} "
                f"{escape(path)}</h2><p>{escape(operation.get('description', ''))}</p>"
            )
            if operation.get("security"):
                parts.append(f"<p>Scope: {escape(operation['tags'][0])}</p>")
            parts += [
                f"<pre>{escape(_curl(path, one))}</pre>" for one in _examples(described, operation)
            ]
    title = escape(described["info"]["title"])
    return (
        "<!doctype html><meta "
        f"charset=utf-8><title>{title}</title><style>{STYLE}</style>{''.join(parts)}"
    )


def _examples(described: dict[str, Any], operation: dict[str, Any]) -> list[dict[str, Any]]:
    content = (
        operation.get("requestBody", {})
        .get("content", {})
        .get("application/json", {})
        .get("schema", {})
    )
    name = content.get("$ref", "").rpartition("/")[2]
    found: list[dict[str, Any]] = (
        described["components"]["schemas"].get(name, {}).get("examples", [])
    )
    return found


def _curl(path: str, body: dict[str, Any]) -> str:
    words = json.dumps(body, ensure_ascii=False).replace("'", "'\\''")
    return (
        "curl -H \"Authorization: Bearer $KEY\" -H 'Content-Type: application/json' -d "
        f"'{words}' http://HOST:PORT{path}"
    )
