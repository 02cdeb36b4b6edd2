"""What every part of a specification shares: strict models, and the search for secrets that were written into one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated

from pydantic import BaseModel, ConfigDict, JsonValue, StringConstraints

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$", max_length=100)]
Column = Annotated[str, StringConstraints(min_length=1, max_length=300)]
FunctionPath = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]


class Strict(BaseModel):
    """A part of a specification: unknown keys are refused, values cannot be changed afterwards."""

    # What was written stays out of pydantic's own message: a URI may hold what must not be shown.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)


CREDENTIALS = re.compile(r"://[^/@]*:[^/@]*@")
_SECRET_KEY = re.compile(
    r"(^|_)(password|passwd|pwd|passphrase|secret|token|api_?key|access_key|private_key|credentials?)$", re.IGNORECASE
)
#: An address that lets in whoever reads it: a user's password, the webhooks of known services, a value of the query.
_SECRET_ADDRESS = re.compile(
    r"://[^/@?#\s]*:[^/@?#\s]*@"
    r"|://hooks\.(?:slack(?:-gov)?|zapier)\.com/\w"
    r"|://(?:[\w-]+\.)?webhook\.office\.com/\w|://outlook\.office(?:365)?\.com/webhook/\w"
    r"|://(?:[\w-]+\.)?discord(?:app)?\.com/api/(?:v\d+/)?webhooks/\w"
    r"|://api\.telegram\.org/bot\d+:"
    r"|://webexapis\.com/v1/webhooks/incoming/\w"
    r"|://[^?#\s]+/hooks/[a-z0-9]{20}"  # Mattermost, on a team's own host
    r"|[?&;][\w.-]*(?:token|secret|passw(?:or)?d|pwd|sig|signature|api-?_?key|access-?_?key|accountkey|credential)"
    r"=[^&;\s]"
    r"|[?&]key=[\w-]{20}",
    re.IGNORECASE,
)


def is_secret_address(text: str) -> bool:
    """Say whether a text holds an address that is a secret by itself, such as a webhook's."""
    return bool(_SECRET_ADDRESS.search(text))


def secret_address_in(value: object, path: str) -> str:
    """Return the dotted key under which an address stands that is a secret by itself; else nothing."""
    if isinstance(value, Mapping):
        return next((found for key, one in value.items() if (found := secret_address_in(one, f"{path}.{key}"))), "")
    if isinstance(value, list | tuple):
        return next((found for one in value if (found := secret_address_in(one, path))), "")
    return path if isinstance(value, str) and is_secret_address(value) else ""


def secret_in(value: JsonValue, path: str = "") -> str:
    """Return the dotted key under which a secret stands, by the key's name or the look of its value; else nothing."""
    if isinstance(value, dict):
        for key, inner in value.items():
            place = f"{path}.{key}" if path else key
            if _SECRET_KEY.search(key):
                return place
            if found := secret_in(inner, place):
                return found
    elif isinstance(value, list):
        return next((found for inner in value if (found := secret_in(inner, path))), "")
    elif isinstance(value, str) and CREDENTIALS.search(value):
        return path
    return ""
