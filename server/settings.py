"""Settings: each from the environment as CREW_<NAME>, and DATABASE_URL."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from resolvers.vault import SHORTEST_KEY


def _split(given: object) -> object:
    return [word.strip() for word in given.split(",") if word.strip()] if isinstance(given, str) else given


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]


class Settings(BaseSettings):
    """What a server can be told. Seconds and bytes where no unit is named."""

    model_config = SettingsConfigDict(env_prefix="CREW_", populate_by_name=True, allow_inf_nan=False)

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 picks a free one.")
    no_keys: bool = Field(
        False,
        description="Listen beyond loopback without API keys, on purpose: whoever reaches the port may do everything.",
    )
    allowed_hosts: Names = Field(
        (),
        description="Names that the server is reached by, besides addresses, localhost and CREW_HOST; by commas.",
    )
    allowed_origins: Names = Field(
        (), description="Origins whose pages may call (CORS), as https://app.example; by commas; * for any."
    )
    database_url: str | None = Field(
        None,
        validation_alias="DATABASE_URL",
        description="PostgreSQL 15 or newer; without it the server starts its own in the data directory.",
    )
    database_direct_url: str | None = Field(
        None,
        validation_alias="DATABASE_DIRECT_URL",
        description="When DATABASE_URL leads to a pooler in transaction mode (PgBouncer): past it, for LISTEN and migrations.",
    )
    workers: int = Field(1, ge=1, le=64, description="Server processes on the port.")
    data_dir: Path = Field(Path(".crew"), description="Where the embedded database keeps its data.")
    pool_size: int = Field(16, ge=2, le=100, description="Database connections of one server process.")
    patience_seconds: float = Field(20.0, ge=0, description="How long a call waits for a database that is away.")
    max_batch: int = Field(10_000, ge=1, le=100_000, description="Tasks, groups, leases or results in one call.")
    max_wait_seconds: float = Field(25.0, ge=0, le=600, description="The longest long poll.")
    max_input_bytes: int = Field(1 << 20, ge=1024, description="One input, output, error or metadata as JSON.")
    max_lease_seconds: float = Field(86_400.0, ge=1, description="The longest lease.")
    max_page: int = Field(1000, ge=1, le=10_000, description="One page of a list.")
    max_body_bytes: int = Field(32 << 20, ge=1024, description="One request's body, or one message on a websocket.")
    max_depth: int = Field(20, ge=1, le=100, description="Levels of fields in a document.")
    max_nodes: int = Field(
        3_000_000, ge=1, description="Nodes that a document may ask for: page sizes, multiplied down."
    )
    max_fields: int = Field(400, ge=1, description="Fields in a document, its fragments opened.")
    max_aliases: int = Field(50, ge=0, description="Aliases in a document.")
    max_directives: int = Field(20, ge=0, description="Directives in a document.")
    max_tokens: int = Field(20_000, ge=1, description="Tokens in a document.")
    max_connections: int = Field(
        10_000,
        ge=1,
        description="Websockets and event streams of one client (a key, or an address) on a server process.",
    )
    max_subscriptions: int = Field(
        10_000, ge=1, description="Subscriptions of one client (a key, or an address) on a server process."
    )
    event_retention_days: float = Field(
        7.0, gt=0, description="How long events are kept: as far back as a cursor may lie."
    )
    rest_lease_seconds: float = Field(
        3600.0,
        ge=1,
        le=86_400,
        description="Leases of the second Crew's workers (`/api/v1`), which never extend: they have so long for a task.",
    )
    secret_key: SecretStr | None = Field(
        None,
        description=(
            "Operators' headers are encrypted under it: a long random text. Several, separated by commas: the first encrypts, all "
            "decrypt. 8 characters each at least."
        ),
    )
    operator_base_url: str | None = Field(
        None,
        description="Every channel without an operator of its own is delivered to this URL, `/` and the channel's name.",
    )
    operator_token: SecretStr | None = Field(
        None, description="Sent to the base URL as a bearer token, and signs what is delivered there."
    )
    operator_max_running: int = Field(
        10, ge=1, le=1000, description="Deliveries of one channel to the base URL at once, over all servers."
    )
    operator_timeout_seconds: float = Field(
        60.0, ge=0.1, le=3600, description="How long a delivery to the base URL may take."
    )
    operator_private_targets: bool = Field(
        False, description="Operators may be at private, loopback and link-local addresses."
    )
    group_retention_days: float | None = Field(
        None, ge=0, le=36_600, description="Groups are deleted so long after they finished; without it they are kept."
    )
    task_retention_days: float | None = Field(
        None,
        ge=0,
        le=36_600,
        description="Settled tasks of groups that are not finished are deleted after so long; without it they are kept.",
    )
    log_format: str = Field("console", pattern="^(console|json)$", description="console for people, json for programs.")
    log_level: str = Field("info", pattern="^(debug|info|warning|error)$", description="The least that is logged.")

    @field_validator("secret_key")
    @classmethod
    def _keys_are_long(cls, given: SecretStr | None) -> SecretStr | None:
        if given is not None and any(len(key) < SHORTEST_KEY for key in listed(given)):
            raise ValueError(f"each key must have {SHORTEST_KEY} characters at least")
        return given

    @property
    def secret_keys(self) -> list[str]:
        return [] if self.secret_key is None else listed(self.secret_key)


def listed(given: SecretStr) -> list[str]:
    """What stands between commas."""
    return [part for part in (part.strip() for part in given.get_secret_value().split(",")) if part]
