"""Where jobs go: a cluster's few facts, from the command line or a file of configs/cluster/."""

import json
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from twotower.core.errors import ConfigError
from twotower.core.loading import parse_yaml
from twotower.core.section import Count, Section
from twotower.runtime.upload import MAX_MB


class Options(Section):
    """Where a job goes and what goes with it."""

    address: str | None = None
    """Job server, such as http://127.0.0.1:8265; null = RAY_API_SERVER_ADDRESS, else that one."""

    token_path: Path | None = None
    """File of the cluster's token, never the token itself; null = Ray's own variables."""

    working_dir: Path = Path()
    """Checkout that is sent, with `jobs/` and `platform/`."""

    shares_disk: bool | None = None
    """Whether the cluster sees this machine's files, so that storage may be relative; null = where
    the address is this machine's own. A tunnel looks like that too: say false."""

    num_cpus: Annotated[float, Field(ge=0)] = 0.0
    """CPUs that the entry itself reserves; its workers ask for their own."""

    max_mb: Count = MAX_MB
    """Largest upload in MiB, before compression."""


def load_options(path: str | Path) -> Options:
    """Read a file of configs/cluster/.

    Raises:
        ConfigError: the file can't be read, or a key or value is wrong; the message names the key.
    """
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: can't be read: {error}") from None
    document = parse_yaml(text, str(file))
    try:
        options = Options.model_validate_json(json.dumps(document), strict=True)
    except ValidationError as error:
        detail = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in detail["loc"]) or "config"
        if detail["type"] == "extra_forbidden":
            known = ", ".join(Options.model_fields)
            raise ConfigError(f"{file}: {key}: unknown key; known keys: {known}") from None
        raise ConfigError(f"{file}: {key}: {detail['msg'].lower()}") from None
    token = options.token_path
    return options.model_copy(update={"token_path": token.expanduser()}) if token else options
