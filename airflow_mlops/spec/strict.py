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


# Each of these patterns takes a text once from left to right: one that may look back at all of it would take minutes
# for a long text. So what may be repeated is bounded, or ends where the next search begins.
CREDENTIALS = re.compile(r"://[^/@:]*:[^/@]*@")
_SECRET_KEY = re.compile(
    r"(^|_)(password|passwd|pwd|passphrase|secret|token|api_?key|access_key|private_key|credentials?)$", re.IGNORECASE
)
_HOST, _PORT = r"(?:(?<=//)|(?<![\w./-]))", r"(?::\d{1,5})?"
#: An address that lets in whoever reads it: a user's password, the webhooks of known services.
_SECRET_ADDRESS = re.compile(
    # What follows a port and a comma, a quote or a bracket is no password but the text around an address.
    r"""://[^/@?#\s:<>"'|]*:(?!\d{1,5}[,;])[^/@?#\s<>"'|]*@"""
    rf"|{_HOST}hooks\.(?:slack(?:-gov)?|zapier)\.com{_PORT}/\w{{1,64}}/\w"
    rf"|{_HOST}(?:[\w-]{{1,64}}\.)?webhook\.office\.com{_PORT}/\w{{1,64}}/\w"
    rf"|{_HOST}outlook\.office(?:365)?\.com{_PORT}/webhook/\w"
    rf"|{_HOST}(?:[\w-]{{1,64}}\.)?discord(?:app)?\.com{_PORT}/api/(?:v\d{{1,3}}/)?webhooks/\w"
    rf"|{_HOST}api\.telegram\.org{_PORT}/bot\d{{1,20}}:"
    rf"|{_HOST}webexapis\.com{_PORT}/v1/webhooks/incoming/\w",
    re.IGNORECASE,
)
#: Of Mattermost, on a team's own host.
_OWN_WEBHOOK = re.compile(r"[^?#\s]{1,512}/hooks/[a-z0-9]{20}", re.IGNORECASE)
_PARAMETER = re.compile(r"[?&;]([\w.-]{1,64})=([^?&;#\s]{1,2000})")
#: Names of parameters, without what parts their words: a secret whatever the value; one if it is long enough.
_SECRET_NAME = re.compile(r"(?:passw(?:or)?d|pwd|secret|(?:api|access|account|private)key|credentials?)$")
_TOKEN_NAME = re.compile(r"(?<!page)(?<!next)(?<!prev)(?<!continuation)(?<![cx]srf)token$|signature$")
_LEAST_TOKEN = 8
_AUTHORISES = re.compile(
    r"^bearer[ \t]{1,8}[^\s{]{1,2000}$|authorization: {0,8}(?:bearer|basic) {1,8}[^\s{]", re.IGNORECASE
)
_AUTHORISES_THERE = re.compile(r"^\s{0,8}(?:bearer|basic|digest|token|apikey)[ \t]{1,8}[^\s{]", re.IGNORECASE)


def is_secret_address(text: str) -> bool:
    """Say whether a text holds an address that is a secret by itself, such as a webhook's."""
    return (
        _SECRET_ADDRESS.search(text) is not None
        or any(_OWN_WEBHOOK.match(address) for address in text.split("://")[1:])
        or any(_is_secret_parameter(key, value) for key, value in _PARAMETER.findall(text))
    )


def _is_secret_parameter(key: str, value: str) -> bool:
    if value.startswith("{{"):
        return False  # a template
    if key.lower() == "key":
        return _looks_random(value)
    name = re.sub("[._-]", "", key.lower())
    token = _TOKEN_NAME.search(name) or re.search(r"(?:^|[._-])sig$", key.lower())
    return _SECRET_NAME.search(name) is not None or (token is not None and len(value) >= _LEAST_TOKEN)


def _looks_random(value: str) -> bool:
    """Say whether a value is no name that people made of words and numbers."""
    if len(value) < 20:
        return False
    words = re.split("[-_]", value)
    return len(words) == 1 or any(len(word) >= 8 and re.search(r"\d.*[A-Za-z]|[A-Za-z].*\d", word) for word in words)


def secret_setting_in(value: object, path: str, key: str = "") -> str:
    """Return what in a notifier's settings is a secret, in words that do not show it; else nothing.

    :param path: the dotted key under which the value stands.
    :param key: the last part of it.
    """
    if isinstance(value, Mapping):
        if any(isinstance(name, str) and is_secret_address(name) for name in value):
            return f"a key of {path} is an address that holds a secret"
        inner = (secret_setting_in(one, f"{path}.{name}", str(name)) for name, one in value.items())
        return next(filter(None, inner), "")
    if isinstance(value, list | tuple):
        return next(filter(None, (secret_setting_in(one, path, key) for one in value)), "")
    if not isinstance(value, str):
        return ""
    if is_secret_address(value):
        return f"{path} is an address that holds a secret"
    named = _SECRET_KEY.search(key.replace("-", "_")) and value.strip() and "{{" not in value
    sent = key.lower().endswith("authorization") and _AUTHORISES_THERE.search(value)
    return f"{path} holds a secret" if named or sent or _AUTHORISES.search(value) else ""


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
