"""What is sent to a database, in each dialect; marks come back as what they were."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import pytest
import sqlglot
from sqlalchemy.dialects import mssql, mysql, postgresql, sqlite

from residency.core.errors import UserError
from residency.ingest.select import DIALECTS, check_select
from residency.ingest.sources import Sql
from residency.ingest.sql import connect, mark_of, order_by_mark, value_of

SENT = {
    "postgresql": (
        'SELECT * FROM (SELECT \\:\\:x FROM notes\n) taken WHERE "changed at" >= '
        ':mark AND id IS NOT NULL ORDER BY "changed at", id'
    ),
    "mysql": (
        "SELECT * FROM (SELECT \\:\\:x FROM notes\n) taken WHERE `changed at` >= :mark "
        "AND "
        "id IS NOT NULL ORDER BY `changed at`, id"
    ),
    "mssql": (
        "SELECT * FROM (SELECT \\:\\:x FROM notes\n) taken WHERE [changed at] >= :mark "
        "AND "
        "id IS NOT NULL ORDER BY [changed at], id"
    ),
    "sqlite": (
        'SELECT * FROM (SELECT \\:\\:x FROM notes\n) taken WHERE "changed at" >= :mark '
        'AND id IS NOT NULL ORDER BY "changed at", id'
    ),
}
DIALECT = {"postgresql": postgresql, "mysql": mysql, "mssql": mssql, "sqlite": sqlite}


@pytest.mark.parametrize("name", SENT)
def test_the_statement_is_the_users_from_a_mark_on_in_the_order_of_marks(name: str) -> None:
    settings = Sql(url="env:X", notes="SELECT ::x FROM notes", mark="changed at")
    quote = DIALECT[name].dialect().identifier_preparer.quote
    assert order_by_mark("SELECT ::x FROM notes", quote, settings, resumed=True) == SENT[name]


@pytest.mark.parametrize("name", SENT)
def test_what_is_sent_is_one_select_in_the_servers_own_dialect(name: str) -> None:
    settings = Sql(url="env:X", notes="SELECT id, patient, text FROM notes")
    quote = DIALECT[name].dialect().identifier_preparer.quote_identifier
    sent = order_by_mark(settings.notes, quote, settings, resumed=False)
    assert sqlglot.parse_one(sent, read=DIALECTS[name]).sql(DIALECTS[name])
    assert check_select(sent, "sent", DIALECTS[name]) == sent


@pytest.mark.parametrize(
    "value",
    [
        7,
        2.5,
        "N-7",
        Decimal("7.25"),
        date(2024, 5, 1),
        datetime(2024, 5, 1, 7, 30, 0, 123456),
        datetime(2024, 5, 1, tzinfo=UTC),
        b"\x00\x07\xff",
        UUID("12345678123456781234567812345678"),
        True,
    ],
)
def test_a_mark_comes_back_as_what_it_was(value: object) -> None:
    assert value_of(mark_of(value)) == value


@pytest.mark.parametrize(
    "url", ["nonsense://x", "postgresql+nodriver://reader:hush@host/db", "not a url"]
)
def test_a_url_that_cannot_be_used_is_not_shown(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOSPITAL_DB", url)
    with pytest.raises(UserError, match="is not a database URL") as refused:
        connect(Sql(url="env:HOSPITAL_DB", notes="SELECT 1 AS x"), tmp_path)
    assert "hush" not in str(refused.value) and url not in str(refused.value)
