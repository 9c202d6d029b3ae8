"""A server as the account's authors would write it: FastAPI, a pipeline of transformers, one call
of the model per request."""

from __future__ import annotations

import os
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from transformers import pipeline

app = FastAPI()
find = pipeline(
    "token-classification", model=os.environ["PLAIN_MODEL"], aggregation_strategy="simple"
)


class Passage(BaseModel):
    text: str


@app.post("/extract")
def extract(passage: Passage) -> dict[str, Any]:
    return {
        "entities": [
            {
                "start": int(one["start"]),
                "end": int(one["end"]),
                "label": one["entity_group"],
                "score": float(one["score"]),
            }
            for one in find(passage.text)
        ]
    }


@app.get("/readyz")
def ready() -> dict[str, str]:
    return {"status": "ok"}
