"""Pages behind the server's guard: who asks is who the verified token of each request names, and
sees what its scopes let them see."""

from __future__ import annotations

import hmac
from pathlib import Path

from residency.core.errors import UserError
from residency.pages.desk import Person
from residency.serve import Refusal
from residency.serve.auth import make_tokens
from residency.serve.launch import check
from residency.serve.records.monitoring import Users, log_key
from residency.serve.settings import Serve

DOCTORS = frozenset({"diagnose", "extract"})


class Gate:
    """The guard of a server, before pages. Raises what starting that server would raise."""

    def __init__(self, settings: Serve, host: str) -> None:
        check(settings.model_copy(update={"host": host}))
        folder = Path(settings.logs.folder)
        self.tokens = make_tokens(settings.auth, folder)
        self.users = Users(log_key(settings.logs), settings.logs.user)
        asked = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)
        self.server = f"http://{f'[{asked}]' if ':' in asked else asked}:{settings.port}"
        """Where models are asked."""

    async def person(self, authorization: str | None) -> Person:
        """Who a token names, by the hash that the audit log has of them: with the scope ``admin``
        the owner, with ``diagnose`` or ``extract`` a doctor, else somebody who needs an address of
        their own too. Raises ``Refusal``: 401 where nobody is known."""
        caller = await self.tokens.caller(authorization)
        name = self.users.hashed(caller.subject)
        if "admin" in caller.scopes:
            return Person(role="owner", name=name, scopes=caller.scopes)
        if caller.scopes & DOCTORS:
            return Person(role="doctor", name=name, home="/doctor", scopes=caller.scopes)
        return Person(role="guest", name=name, scopes=caller.scopes)


def secret_of(person: Person, secret: str) -> str:
    """What the tokens of a person's forms are made of: another's are of no use to them."""
    return hmac.new(secret.encode(), person.name.encode(), "sha256").hexdigest()


def no_page() -> Refusal:
    """403: a token that is valid, and opens nothing."""
    said = "Your token opens no page here; ask for a scope (diagnose, extract, admin), or open the "
    return Refusal(403, "missing_scope", f"{said}address that you were given.")


def of_settings(path: Path, host: str) -> Gate:
    """The gate of a server's settings (YAML)."""
    from residency.core.part import parse
    from residency.recipe import read_yaml

    if not path.is_file():
        raise UserError(f"--behind: {path} is no file; name the settings of residency serve.")
    settings: Serve = parse(Serve, read_yaml(path), str(path))
    return Gate(settings, host)
