"""QSGD_* environment variables as one validated record; nothing else reads the environment."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote, unquote

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict, SettingsError

from qsgd_core.errors import ConfigError

Names = Annotated[tuple[str, ...], NoDecode]


class Settings(BaseSettings):
    """Every setting that the environment can give; arguments in code or on the line win."""

    model_config = SettingsConfigDict(env_prefix="QSGD_", extra="ignore", frozen=True)

    backend: str = Field("exact", description="Backend used when none is named.")
    backend_options: dict[str, Any] = Field(
        default_factory=dict, description="Vendor options as JSON, for the backend above."
    )
    shots: int | None = Field(None, ge=1, description="Shots per row when none are named.")
    policy: str = Field("tracked", description="Refresh policy on a paid backend.")
    wait: Literal["never", "first", "always"] = Field(
        "first", description="Results that a paid backend's run waits for."
    )
    prefer: Names = Field((), description="Distributions that win when several serve a name.")
    observers: Names = Field((), description="Observers to run, by name.")
    load_plugins: Names | None = Field(
        None, description="If set, only these distributions are loaded as plugins."
    )
    disabled_plugins: Names = Field((), description="Distributions never loaded as plugins.")
    strict_plugins: bool = Field(False, description="A plugin that fails to load stops QSGD.")
    home: Path | None = Field(
        default_factory=lambda: _own_home(),
        description="Folder for state that lasts; None where the user has no home.",
    )
    ledger: str | None = Field(
        None, description="Database of budgets and jobs; None: ledger.sqlite in the home folder."
    )
    prices: Path | None = Field(
        None, description="Prices of your own; None: prices.toml in the home folder, if there."
    )
    runs: Path = Field(Path("runs"), description="Folder that run folders are written to.")
    debug: bool = Field(False, description="Show tracebacks.")

    @field_validator("prefer", "observers", "load_plugins", "disabled_plugins", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("home", "runs", "prices")
    @classmethod
    def _expanded(cls, value: Path | None) -> Path | None:
        return None if value is None else _expand(value)

    @field_validator("backend")
    @classmethod
    def _named(cls, value: str) -> str:
        return value.strip() or "exact"

    def home_folder(self) -> Path:
        """The folder for state that lasts, absolute.

        Raises:
            ConfigError: the user has none.
        """
        if self.home is None:
            raise ConfigError(
                "Budgets and jobs are kept in a folder under the user's home, and this user has "
                "none. Set QSGD_HOME to a folder that lasts and can be written."
            )
        return self.home.absolute()

    def ledger_url(self) -> str:
        """The ledger's SQLAlchemy URL.

        Raises:
            ConfigError: none is named, and the user has no home.
        """
        if self.ledger:
            return self.ledger
        from sqlalchemy import URL  # only here: most of what reads settings has no ledger

        path = str(self.home_folder() / "ledger.sqlite")
        return URL.create("sqlite", database=path).render_as_string(hide_password=False)


def _own_home() -> Path | None:
    try:
        return Path.home() / ".qsgd"
    except RuntimeError:  # no HOME and no entry in passwd, as in many containers
        return None


def _expand(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise ValueError(f"{error}; give an absolute path") from error


_SQLITE_FILE = re.compile(
    r"(sqlite(?:\+\w+)?:///(?:file:)?)(?!/|:memory:|file:)([^?]+)(.*)", re.DOTALL
)


def anchor_paths() -> None:
    """Make QSGD_HOME, QSGD_PRICES and QSGD_LEDGER absolute in the environment.

    A relative path is meant from where the program was when it was first read. Later the program,
    or one that it starts, may be in another folder (hydra changes it for every job), and another
    ledger would be another budget.
    """
    for name in ("QSGD_HOME", "QSGD_PRICES"):
        if value := os.environ.get(name, "").strip():
            with contextlib.suppress(RuntimeError):  # no such user: told when it is used
                os.environ[name] = str(Path(value).expanduser().absolute())
    if found := _SQLITE_FILE.fullmatch(os.environ.get("QSGD_LEDGER", "").strip()):
        scheme, path, rest = found.groups()
        with contextlib.suppress(RuntimeError):
            whole = quote(str(Path(unquote(path)).expanduser().absolute()), safe=" +/")
            os.environ["QSGD_LEDGER"] = f"{scheme}{whole}{rest}"


def load_settings(**overrides: Any) -> Settings:
    """Settings from the environment, with ``overrides`` on top.

    Raises:
        ConfigError: a value that cannot be read, with the variable's name.
    """
    anchor_paths()
    try:
        return Settings(**overrides)
    except ValidationError as error:
        first = error.errors()[0]
        name = "QSGD_" + "_".join(str(part) for part in first["loc"]).upper()
        raise ConfigError(
            f"{name}={first['input']!r} cannot be used: {first['msg']}. "
            f"Set {name} to a value of that form or unset it."
        ) from error
    except SettingsError as error:
        raise ConfigError(
            "QSGD_BACKEND_OPTIONS must be a JSON object, such as "
            f'QSGD_BACKEND_OPTIONS=\'{{"method": "statevector"}}\': {error.__cause__}.'
        ) from error


_CREDENTIAL_VARIABLES = (
    "QISKIT_IBM_TOKEN",
    "QISKIT_IBM_INSTANCE",
    "AWS_ACCESS_KEY_ID",
    "AWS_PROFILE",
)
_CREDENTIAL_FILES = ("~/.qiskit/qiskit-ibm.json", "~/.aws/credentials")


def credentials_present() -> dict[str, bool]:
    """Which of the vendors' variables and files are there, by name. Reads no value."""
    present = {name: bool(os.environ.get(name)) for name in _CREDENTIAL_VARIABLES}
    return present | {name: os.path.isfile(os.path.expanduser(name)) for name in _CREDENTIAL_FILES}  # noqa: PTH111, PTH113  never raise


_SECRET_NAME = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|API_?KEY|ACCESS_KEY", re.IGNORECASE)
_SHORTEST_SECRET = 8


def secrets_in_environment() -> tuple[str, ...]:
    """Values of the variables whose names say that they are secret.

    For one purpose: to make sure that none of them is shown. Values of fewer than eight characters
    are left out: they could be part of anything.
    """
    return tuple(
        value
        for name, value in os.environ.items()
        if _SECRET_NAME.search(name) and len(value) >= _SHORTEST_SECRET
    )
