"""Running servers of the teacher: a list in the configuration, or a file that may change.

    endpoints: [http://gpu1:8000/v1, {url: https://api.example/v1, api_key_env: EXAMPLE_KEY}]
    endpoints: pool.yaml          a YAML or JSON file that holds such a list

Keys are named here and read from the environment; no key is ever part of a configuration.
"""

import os
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    TypeAdapter,
    ValidationError,
    field_validator,
)

from qcrd_core.config.base import MAX_BATCH, Section
from qcrd_core.config.files import load_yaml, read_ordinary
from qcrd_core.errors import ConfigError

DEFAULT_KEY = "QCRD_API_KEY"


class Endpoint(Section):
    """One OpenAI-compatible server. A text is short for its URL with all else at the default."""

    url: str = Field(examples=["http://gpu1:8000/v1"])
    """Base URL of a server with its `/v1`, http or https."""
    max_concurrency: int | None = Field(default=None, ge=1, le=MAX_BATCH, examples=[64])
    """Samples in flight at this server, at most. Null takes `teacher.concurrency`."""
    api_key_env: str = Field(
        default=DEFAULT_KEY, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", examples=["EXAMPLE_KEY"]
    )
    """Environment variable that holds the server's API key. Only QCRD_API_KEY may be unset."""

    @field_validator("url")
    @classmethod
    def _is_http_without_secrets(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            msg = f"teacher.endpoints must hold URLs such as http://gpu1:8000/v1; got {url!r}"
            raise ValueError(msg)
        if parts.username or parts.password or parts.query:
            msg = (
                "teacher.endpoints must hold URLs without user, password or query, which would be "
                f"stored; got one for {parts.hostname}: put the key into a variable, api_key_env"
            )
            raise ValueError(msg)
        return url.rstrip("/")

    @property
    def headers(self) -> dict[str, str]:
        """The key as HTTP header, read now; empty without a key.

        Raises:
            ConfigError: If the variable of `api_key_env` is not set.
        """
        key = os.environ.get(self.api_key_env)
        if not key and self.api_key_env != DEFAULT_KEY:
            msg = (
                f"{self.api_key_env} must be set to the API key of {self.url}; it is not "
                "(teacher.endpoints.api_key_env). Export it and run again."
            )
            raise ConfigError(msg)
        return {"Authorization": f"Bearer {key}"} if key else {}


def _each_once(endpoints: tuple[Endpoint, ...]) -> tuple[Endpoint, ...]:
    urls = [endpoint.url for endpoint in endpoints]
    twice = sorted({url for url in urls if urls.count(url) > 1})
    if twice or not urls:
        msg = (
            "teacher.endpoints must name at least one server, each once; got "
            f"{twice[0] + ' twice' if twice else 'an empty list'}"
        )
        raise ValueError(msg)
    return endpoints


def _from_url(content: Any) -> Any:
    return {"url": content} if isinstance(content, str) else content


# The type tells Prefect's form and API that a text will do.
_EndpointOrUrl = Annotated[
    Endpoint, BeforeValidator(_from_url, json_schema_input_type=str | Endpoint)
]
EndpointList = Annotated[tuple[_EndpointOrUrl, ...], AfterValidator(_each_once)]
"""Servers, at least one, each once."""

# Told apart by hand, or an error in a list would also say that the list is no path.
Endpoints = Annotated[
    Annotated[EndpointList, Tag("endpoint_list")] | Annotated[Path, Tag("endpoint_file")],
    Discriminator(
        lambda value: "endpoint_file" if isinstance(value, (str, Path)) else "endpoint_list"
    ),
]
"""A list, or the file that holds one."""

ENDPOINT_TAGS = frozenset({"endpoint_list", "endpoint_file"})
"""What pydantic puts into the place of an error, and no user writes."""


def read_endpoints(path: Path) -> tuple[Endpoint, ...]:
    """Read a discovery file.

    Args:
        path: A YAML or JSON file: a list of URLs, or of mappings with the keys of `Endpoint`.

    Returns:
        The servers, at least one.

    Raises:
        ConfigError: If the file is absent or holds something else.
    """
    try:
        content = load_yaml(read_ordinary(path))
        endpoints = TypeAdapter(EndpointList).validate_python(content)
    except OSError as error:
        detail = error.strerror
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        detail = f"{first['msg'].removeprefix('Value error, ')}{f' at {where}' if where else ''}"
    except ValueError as error:
        detail = str(error)
    else:
        return endpoints
    msg = (
        f"{path} must be a YAML or JSON list of servers; got {detail} (teacher.endpoints). For "
        "example `[http://gpu1:8000/v1]`."
    )
    raise ConfigError(msg)
