"""What the grants of MariaDB and MySQL say, without a server; and what SQL Server is asked."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import sqlglot

from residency.ingest.login import MSSQL, find_granted, find_write_access, split

READER = "GRANT USAGE ON *.* TO `reader`@`%` IDENTIFIED BY PASSWORD '*0'"


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ([READER, "GRANT SELECT ON `his`.* TO `reader`@`%`"], ""),
        ([READER, "GRANT SELECT (`id`, `text`), SHOW VIEW ON `his`.`notes` TO `reader`@`%`"], ""),
        (
            [
                "GRANT SELECT, PROCESS, REPLICATION CLIENT ON *.* TO `r`@`%`",
                "SET DEFAULT ROLE NONE FOR `r`@`%`",
            ],
            "",
        ),
        (
            ["GRANT ALL PRIVILEGES ON *.* TO `root`@`localhost` WITH GRANT OPTION"],
            "it has the right ALL PRIVILEGES",
        ),
        (
            [READER, "GRANT SELECT (`id`, `text`), UPDATE (`text`) ON `his`.`notes` TO `r`@`%`"],
            "it has the right UPDATE",
        ),
        (
            [READER, "GRANT SELECT, LOCK TABLES ON `his`.* TO `r`@`%`"],
            "it has the right LOCK TABLES",
        ),
        (["GRANT SELECT, FILE ON *.* TO `r`@`%`"], "it has the right FILE"),
        (["GRANT EXECUTE ON PROCEDURE `his`.`clean` TO `r`@`%`"], "it has the right EXECUTE"),
        (["GRANT PROXY ON ''@'%' TO 'r'@'%'"], "it has the right PROXY"),
        (["GRANT SELECT ON `his`.* TO `r`@`%` WITH GRANT OPTION"], "it may hand out rights"),
        (["something new"], "it has rights that cannot be read"),
    ],
)
def test_only_rights_that_read_are_let_through(lines: list[str], why: str) -> None:
    assert find_granted(lambda asked: list(lines)) == why


def test_rights_of_roles_count_also_where_one_role_holds_another() -> None:
    shown = {
        "SHOW GRANTS": [READER, "GRANT `outer` TO `reader`@`%`"],
        "SHOW GRANTS FOR `outer`": [
            "GRANT USAGE ON *.* TO `outer`",
            "GRANT `inner` TO `outer`",
            "GRANT `outer` TO `inner`",
        ],
        "SHOW GRANTS FOR `inner`": ["GRANT DELETE ON `his`.* TO `inner`"],
    }
    assert find_granted(lambda asked: list(shown[asked])) == "it has the right DELETE"


def test_a_comma_inside_brackets_or_names_parts_nothing() -> None:
    assert list(split("SELECT (`a, b`, c), INSERT")) == ["SELECT (`a, b`, c)", "INSERT"]


def test_what_sql_server_is_asked_is_its_own_sql_and_only_reads() -> None:
    from residency.ingest.select import check_select

    assert len(sqlglot.parse(MSSQL, read="tsql")) == 1
    assert check_select(MSSQL, "here", "tsql")


@pytest.mark.parametrize(("dialect", "why"), [("sqlite", ""), ("db2", "db2")])
def test_rights_that_cannot_be_read_are_not_taken_for_none(dialect: str, why: str) -> None:
    engine = SimpleNamespace(dialect=SimpleNamespace(name=dialect))
    found = find_write_access(cast(Any, SimpleNamespace(engine=engine)), ["notes"])
    assert why in found and bool(found) == bool(why)
