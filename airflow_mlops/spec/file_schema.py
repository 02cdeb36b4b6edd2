"""The JSON Schema of a model file, made from the specification's own models: what an editor needs to help while typing.

It says what can be said of one file by itself: keys, types, limits, known names, and what must be there. What only
becomes visible with other files (a contract, a function, the base of ``extends``) is `airflow-mlops lint`'s.

Parts of a specification are mappings that a base and profiles fill up key by key, so no part demands keys by itself; an
overlay at the top demands them where nothing is left to be filled in. Where a number or truth value is asked for, text
that reads as one is refused, though ``load_spec`` takes it: it is a mistake more often than not.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from airflow_mlops.core.data_sources import data_sources
from airflow_mlops.core.drift import drift_methods
from airflow_mlops.core.gate import gate_rules
from airflow_mlops.core.metrics import BUILT_IN
from airflow_mlops.core.registry import Registry
from airflow_mlops.spec.layers import PROFILE_KEYS
from airflow_mlops.spec.model import ModelSpec

DIALECT = "https://json-schema.org/draft/2020-12/schema"
#: Parts that stand in lists: a list is replaced as a whole, so each of its entries is complete.
_WHOLE = ("RuleSpec", "NotificationSpec")
_UNITS = ("minute", "hour", "day", "week", "month", "year")

Schema = dict[str, Any]


def file_schema(*, base: bool = False, closed: bool = False, runtimes: Collection[str] = ()) -> Schema:
    """Return the JSON Schema (draft 2020-12) of a model file, as plain JSON.

    :param base: of a file that others extend: nothing must be there, and ``extends`` is not allowed.
    :param closed: only gate rules, drift methods and data sources that are built in or installed here are valid; else
        any name is, because another installation may have more.
    :param runtimes: names to offer as runtimes.
    """
    made = ModelSpec.model_json_schema()
    parts: dict[str, Schema] = made["$defs"]
    keys: dict[str, Schema] = made["properties"]
    del keys["folder"]  # the loader's own
    root = {"properties": keys, "required": made["required"]}
    complete = _required(root, parts)
    but_for_profiles = _required(root, parts, given=PROFILE_KEYS)
    for name, part in parts.items():
        if name not in _WHOLE:
            part.pop("required", None)
    parts["Length"] = _length()
    parts["RuntimeSpec"] = _runtime(parts["RuntimeSpec"], runtimes)
    parts["DriftMethodSpec"]["properties"]["method"] |= _names(drift_methods, closed=closed)
    parts["DataSpec"]["properties"]["format"] |= _names(data_sources, closed=closed)
    parts["ScheduleSpec"]["properties"]["start_date"]["anyOf"][0]["pattern"] = r"^\d{4}"
    parts["RuleSpec"] = _rule(parts["RuleSpec"], closed=closed)
    parts |= {f"rule_{name}": _settings(name) for name in gate_rules.builtins}
    _metrics(parts["EvaluationSpec"])
    for one in (*parts.values(), *keys.values()):
        _tidy(one)
    parts["profile"] = _profile(keys, parts)
    profiles = {
        "type": ["object", "null"],
        "description": "Overrides by profile, such as dev and prod. They change where a model runs (connections, URIs, "
        "schedules, resources, owner, tags, notifications), never what is trained or what the gate asks.",
        "propertyNames": _of_text(keys["profile"]),
        "additionalProperties": {"anyOf": [{"$ref": "#/$defs/profile"}, {"type": "null"}]},
    }
    schema: Schema = {
        "$schema": DIALECT,
        "title": "A base for model specifications" if base else "A model specification of airflow_mlops",
        "description": (ModelSpec.__doc__ or "").strip(),
        "type": "object",
        "properties": {**keys, "profiles": profiles},
        "additionalProperties": False,
    }
    if not base:
        extends = (
            "A base file, relative to this one, that is read first: mappings are merged by key, all else replaced."
        )
        suffix = r"\.([yY][aA]?[mM][lL]|[jJ][sS][oO][nN])$"
        schema["properties"]["extends"] = {"type": "string", "pattern": suffix, "description": extends}
        schema |= {
            "if": {"not": {"required": ["extends"]}},
            "then": {
                "if": {"required": ["profiles"]},
                "then": {"$ref": "#/$defs/complete_with_profiles"},
                "else": {"$ref": "#/$defs/complete"},
            },
        }
        parts |= {"complete": complete, "complete_with_profiles": but_for_profiles}
    schema["$defs"] = parts
    return schema


# What must be there


def _required(
    part: Mapping[str, Any], parts: Mapping[str, Schema], place: str = "", given: Collection[str] = ()
) -> Schema:
    """Return an overlay that demands a part's required keys, and those of the parts in it.

    :param given: keys that something else may give, so that they are not demanded.
    """

    def elsewhere(key: str) -> bool:
        return _join(place, key) in given

    demanded = [key for key in part.get("required", ()) if not elsewhere(key)]
    inner: dict[str, Schema] = {}
    for key, schema in part.get("properties", {}).items():
        if (name := _part_in(schema)) in parts and name not in ("Length", "RuntimeSpec") and not elsewhere(key):
            found = _required(parts[name], parts, _join(place, key), given)
            if found:
                inner[key] = {"additionalProperties": found} if "additionalProperties" in schema else found
    if place == "data":  # the rows that a model learns from are cut by time
        demanded.append("event_time")
        inner["event_time"] = {"type": "string"}
    overlay: Schema = {"required": demanded} if demanded else {}
    if inner:
        overlay["properties"] = inner
    if "cron" in part.get("properties", {}):
        overlay |= _cron()
    return overlay


def _cron() -> Schema:
    written = {"properties": {"cron": {"type": "string", "minLength": 1}}, "required": ["cron"]}
    demanded = {
        "properties": {
            "start_date": {"type": "string"},
            "on_assets": {"maxItems": 0},
            "on_retrain": {"const": False},
        },
        "required": ["start_date"],
    }
    return {"if": written, "then": demanded}


def _part_in(schema: Mapping[str, Any]) -> str:
    """Return the part a key holds, alone or as the values of a mapping; nothing for what stands in lists."""
    for one in (schema, schema.get("additionalProperties"), *schema.get("anyOf", ())):
        if isinstance(one, dict) and "$ref" in one:
            return str(one["$ref"]).rpartition("/")[2]
    return ""


# Ours by name


def _length() -> Schema:
    units = "|".join("".join(f"[{letter}{letter.upper()}]" for letter in unit) for unit in _UNITS)
    return {
        "description": "A whole number and a unit: minutes, hours, days, weeks, months or years.",
        "anyOf": [
            {
                "type": "string",
                "pattern": rf"^\s*\d+\s*({units})[sS]?\s*$",
                # Not of the standard, but editors show it instead of the pattern.
                "patternErrorMessage": "Write a whole number and a unit, such as 2 months or 30 days.",
            },
            {
                "type": "object",
                "properties": {
                    "count": {"type": "integer", "minimum": 0},
                    "unit": {"enum": [f"{unit}s" for unit in _UNITS]},
                },
                "required": ["count", "unit"],
            },
        ],
        "examples": ["2 months", "30 days"],
    }


def _names(registry: Registry, *, closed: bool) -> Schema:
    if closed:
        return {"enum": registry.names()}
    return {"anyOf": [{"enum": sorted(registry.builtins)}, {"description": "one that a plug-in brings"}]}


def _runtime(part: Schema, runtimes: Collection[str]) -> Schema:
    name = dict(part["properties"]["name"])
    if runtimes:
        name["anyOf"] = [{"enum": sorted(runtimes)}, {"description": "one that a plug-in brings"}]
    short = {key: value for key, value in name.items() if key != "description"}
    return {
        "description": part["description"],
        "anyOf": [short, {"type": "object", "properties": {"name": name}}],
    }


def _rule(part: Schema, *, closed: bool) -> Schema:
    part["properties"]["rule"] |= _names(gate_rules, closed=closed)
    part["allOf"] = [
        {
            "if": {"properties": {"rule": {"const": name}}, "required": ["rule"]},
            "then": {"$ref": f"#/$defs/rule_{name}"},
        }
        for name in sorted(gate_rules.builtins)
    ]
    return part


def _settings(name: str) -> Schema:
    """Return the settings of a built-in rule."""
    made: type[BaseModel] = gate_rules.load(name)
    schema = made.model_json_schema()
    schema["properties"] = {"rule": {"const": name}, **schema["properties"]}
    return schema


def _metrics(part: Schema) -> None:
    def listed(names: Collection[str]) -> Schema:
        own = {"pattern": ":", "description": "module:function, a callable of your own"}
        return {"properties": {"metrics": {"items": {"anyOf": [{"enum": sorted(names)}, own]}}}}

    part["properties"]["metrics"]["uniqueItems"] = True
    part["allOf"] = [
        {"if": {"properties": {"task": {"const": task}}, "required": ["task"]}, "then": listed(names)}
        for task, names in BUILT_IN.items()
    ]
    every = {name for names in BUILT_IN.values() for name in names}
    part |= {"if": {"required": ["task"]}, "else": listed(every)}  # the base may say the task


# Profiles


def _profile(keys: Mapping[str, Schema], parts: Mapping[str, Schema]) -> Schema:
    return {
        "description": "What this profile changes.",
        **_allowed("", keys, parts),
    }


def _allowed(place: str, keys: Mapping[str, Schema], parts: Mapping[str, Schema]) -> Schema:
    """Return the schema of a mapping with only those keys that a profile may change."""
    found: dict[str, Schema] = {}
    for key, schema in keys.items():
        dotted, name = _join(place, key), _part_in(schema)
        if dotted in PROFILE_KEYS:
            found[key] = schema
        elif "properties" in parts.get(name, {}) and "additionalProperties" not in schema:
            inner = _allowed(dotted, parts[name]["properties"], parts)
            if inner["properties"]:
                found[key] = {"description": schema.get("description", parts[name].get("description", "")), **inner}
    return {"type": "object", "properties": found, "additionalProperties": False}


def _join(place: str, key: str) -> str:
    return f"{place}.{key}" if place else key


# For people


def _of_text(schema: Mapping[str, Any]) -> Schema:
    found = next(one for one in schema.get("anyOf", [schema]) if one.get("type") == "string")
    return dict(found)


def _tidy(schema: Any) -> None:
    """Write defaults as a person would, join the lines of a description, and leave out pydantic's titles."""
    for one in _schemas(schema):
        if isinstance(one.get("title"), str):
            del one["title"]
        if isinstance(text := one.get("description"), str):
            one["description"] = " ".join(inspect.cleandoc(text).replace("``", "`").split("\n\n")[0].split())
        default = one.get("default")
        if isinstance(default, dict):
            one["default"] = _written(default)


def _written(default: Any) -> Any:
    if not isinstance(default, dict):
        return default
    if set(default) == {"count", "unit"}:
        return f"{default['count']} {default['unit']}"
    if set(default) == {"name"}:
        return default["name"]
    return {key: _written(value) for key, value in default.items()}


def _schemas(schema: Any) -> Iterator[Schema]:
    """Yield a schema and those in it; keys of a specification called ``description`` or ``title`` are none of it."""
    if isinstance(schema, list):
        for one in schema:
            yield from _schemas(one)
    elif isinstance(schema, dict):
        yield schema
        for key, value in schema.items():
            if key == "properties":
                yield from _schemas(list(value.values()))
            elif key not in ("default", "enum", "const", "required", "examples"):
                yield from _schemas(value)
