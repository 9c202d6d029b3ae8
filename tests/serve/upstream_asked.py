"""Run by test_silence: the application before a vLLM that fails, in a process that is silent as the
server's are. Prints its answers."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import httpx2
from marks import TEXTS

from residency.serve.app import ROUTES, create_app, limited
from residency.serve.auth import LocalTokens
from residency.serve.auth.rate import Rate
from residency.serve.engines.servers import VllmEngine
from residency.serve.guard import Guard
from residency.serve.records.audit_chain import Audit
from residency.serve.records.monitoring import Log, Metrics, Users, silence
from residency.serve.settings import Serve

KEY = "k" * 43
FAKE = (sys.executable, str(Path(__file__).with_name("fake_vllm.py")))


async def main(artefact: Path, folder: Path) -> list[dict[str, Any]]:
    log = Log(routes=ROUTES)
    silence(log)
    engine = await VllmEngine.launch(artefact, "words", "", command=FAKE, seconds=600)
    settings = Serve.model_validate({"limits": {"per_second": 1000}})
    engines: Any = {"words": engine}
    audit, metrics = Audit.open(folder, 0, b"x" * 32), Metrics(ROUTES, engines)
    users = Users(b"x" * 32)
    app = create_app(
        Guard(
            settings, engines, LocalTokens(KEY), Rate(settings.limits), users, audit, metrics, log
        )
    )
    said = []
    transport: Any = httpx2.ASGITransport(app=limited(app))  # type: ignore[arg-type]
    headers = {"Authorization": f"Bearer {KEY}"}
    async with httpx2.AsyncClient(
        transport=transport, base_url="http://server", headers=headers
    ) as client:
        for words in TEXTS:
            for stream in (False, True):
                turns = [{"role": "system", "content": words}, {"role": "user", "content": words}]
                body = {
                    "model": "words",
                    "messages": turns,
                    "max_tokens": 3,
                    "stop": [words],
                    "stream": stream,
                }
                found = await client.post("/v1/chat/completions", json=body)
                said.append(
                    {
                        "status": found.status_code,
                        "body": found.text,
                        "headers": [*found.headers.items()],
                    }
                )
        said.append({"status": 0, "body": (await client.get("/metrics")).text, "headers": []})
    await engine.close()
    audit.close()
    return said


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2]))), ensure_ascii=False))
