"""Which text of a specification's file Airflow may render, and what it may say there.

A specification's text reaches the operators' templated fields. There ``{{ conn.x.password }}`` would read a connection
and ``{{ var.value.x }}`` a variable, on a worker that may read them all. So a file's text holds no template, except:

* in the addresses of :data:`URI_KEYS`, ``{{ var.value.NAME }}``: a bucket that the deployment names. A name that looks
  like a secret's is refused, because an address is shown and logged.
* in ``notifications.*.settings``, ``{{ mlops.… }}``: the message, with Jinja's plain text filters.

A DAG file in Python may do what it likes: who writes one can read connections anyway.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from airflow_mlops.spec.strict import secret_in

#: Addresses that may name an Airflow variable.
URI_KEYS = (
    "data.uri",
    "data.copy_to",
    "scoring.output_uri",
    "scoring.data.uri",
    "scoring.data.copy_to",
    "labels.data.uri",
    "labels.data.copy_to",
)
_MARKS = re.compile(r"\{[{%#]|[%#}]\}")
_NO_TEXT = re.compile("[\x00\ud800-\udfff]")
_VARIABLE = re.compile(r"\{\{ *var\.value\.([A-Za-z][A-Za-z0-9_]*) *\}\}")
_LITERAL = r"""(?:-?\d+(?:\.\d+)?|'[^'{}\\]*'|"[^"{}\\]*"|true|false)"""
_FILTER = (
    rf" *\| *(?:truncate|upper|lower|title|capitalize|default|d|replace|trim|escape|e|round|wordwrap|indent|tojson)"
    rf"(?:\( *(?:{_LITERAL}(?: *, *{_LITERAL})*)? *\))?"
)
_MESSAGE = re.compile(rf"\{{\{{-? *mlops(?:\.[A-Za-z][A-Za-z0-9_]*)+(?:{_FILTER})* *-?\}}\}}")


def forbidden_templates(data: Mapping[str, Any]) -> Iterator[tuple[tuple[Any, ...], str]]:
    """Yield the location of each text with a template that is not allowed there, and a sentence with the mend."""
    for location, text in _texts(data, ()):
        if _NO_TEXT.search(text):
            yield location, "this text holds a character that no database keeps (NUL, or half of a pair); remove it"
        if "{" not in text and "}" not in text:
            continue
        key = ".".join(map(str, location))
        if key in URI_KEYS:
            secret = next((name for name in _VARIABLE.findall(text) if secret_in({name: ""})), None)
            if secret:
                yield (
                    location,
                    f"the Airflow variable {secret!r} looks like a secret, and an address is shown and logged; put "
                    f"credentials into an Airflow connection and name it in conn_id",
                )
            elif _MARKS.search(_VARIABLE.sub("", text)):
                yield (
                    location,
                    "the only template that an address may hold is {{ var.value.NAME }}, an Airflow variable; write "
                    "the address out, or give each environment its own under profiles",
                )
        elif location[:1] == ("notifications",) and "settings" in location[2:3]:
            if _MARKS.search(_MESSAGE.sub("", text)):
                yield (
                    location,
                    "the only templates that a notifier's settings may hold are the message's parts, such as "
                    "{{ mlops.message }} or {{ mlops.facts.model }}; give a secret through the notifier's connection",
                )
        elif _MARKS.search(text):
            yield (
                location,
                "this text holds a template, which Airflow would render on the worker; templates are allowed in "
                f"{', '.join(URI_KEYS)} ({{{{ var.value.NAME }}}}) and in notifications.settings "
                f"({{{{ mlops.message }}}}) only. Write the value out, or give each environment its own under profiles",
            )


def _texts(value: Any, location: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], str]]:
    if isinstance(value, str):
        yield location, value
    elif isinstance(value, Mapping):
        for key, one in value.items():
            yield from _texts(one, (*location, key))
    elif isinstance(value, list | tuple):
        for number, one in enumerate(value):
            yield from _texts(one, (*location, number))
