"""What every part of a specification shares: strict models, and the search for secrets that were written into one."""

from __future__ import annotations

import re
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
