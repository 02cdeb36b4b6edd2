"""The parts of the reference that are made from the package itself, so that they cannot fall behind it."""

from __future__ import annotations

import argparse
import ast
import inspect
import os
import re
import types
from collections.abc import Iterable, Iterator
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from scripts.docs.docstrings import as_markdown

ROOT = Path(__file__).parents[2]


def parts() -> dict[str, Any]:
    """Return what a page may ask for, by the name in its ``<!-- made from: NAME -->`` line."""
    return {
        "the specification": specification,
        "the contract": contract,
        "the gate rules": gate_rules,
        "the metrics": metrics,
        "the command line": command_line,
        "the connection form": connection_form,
        "the errors": errors,
        "the operators": operators,
        "the sensors": sensors,
        "the drift methods": drift_method_sections,
        "the table of drift methods": drift_method_table,
        "the fields of": record_fields,
        "the file": file,
    }


def make(name: str) -> str:
    """Return the Markdown that stands for ``name``.

    :raises ValueError: nothing is called so.
    """
    for known, maker in parts().items():
        if name == known:
            return str(maker())
        if known in ("the fields of", "the file") and name.startswith(f"{known} "):
            return str(maker(name.removeprefix(f"{known} ")))
    raise ValueError(f"Nothing is made from {name!r}; known: {', '.join(parts())}.")


# The specification and the contract


def specification() -> str:
    """Every key of a model specification, part by part."""
    from airflow_mlops.spec.model import ModelSpec

    return "\n".join(_model(ModelSpec, "", ModelSpec.__doc__ or "", {}, level=2))


def contract() -> str:
    """Every key of a contract file."""
    from airflow_mlops.spec.contract import Contract

    return "\n".join(_model(Contract, "", Contract.__doc__ or "", {}, level=2))


#: Where a model has its section: the first key that holds one. Other keys lead there.
Homes = dict[type[BaseModel], str]


def _model(model: type[BaseModel], key: str, about: str, homes: Homes, *, level: int) -> Iterator[str]:
    """Yield a section about a model and then, depth first, about the models in it that have none yet."""
    inner_models = {
        name: inner
        for name, field in model.model_fields.items()
        if not field.exclude and (inner := _inner_model(field.annotation)) is not None
    }
    mine = [
        name for name, inner in inner_models.items() if homes.setdefault(inner, _join(key, name)) == _join(key, name)
    ]
    title = f"`{key}`" if key else "The whole file"
    yield f"{'#' * level} {title} {{#{_anchor(key)}}}\n\n{as_markdown(inspect.cleandoc(about))}\n"
    yield _table(
        ("Key", "Value", "Default", "Meaning"),
        (
            (
                f"`{name}`",
                _value(field, homes[inner_models[name]] if name in inner_models else _join(key, name)),
                _default(field),
                _meaning(field),
            )
            for name, field in model.model_fields.items()
            if not field.exclude
        ),
    )
    for name in mine:
        inner, deeper = inner_models[name], min(level + 1, 4) if key else level
        yield from _model(inner, _join(key, name), inner.__doc__ or "", homes, level=deeper)


def _meaning(field: FieldInfo) -> str:
    """Return what the field says of itself; a part of the specification says it in its class."""
    inner = _inner_model(field.annotation)
    return field.description or (inspect.cleandoc(inner.__doc__ or "") if inner is not None else "")


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name


def _anchor(key: str) -> str:
    return (key or "the-whole-file").replace(".", "-").replace("_", "-")


def _inner_model(annotation: Any) -> type[BaseModel] | None:
    """Return the model of our own that a field holds, alone, in a list or in a mapping; a length is written as text."""
    for one in (annotation, *get_args(annotation)):
        if isinstance(one, type) and issubclass(one, BaseModel) and one.__name__ != "Length":
            return one
    return None


def _value(field: FieldInfo, key: str) -> str:
    shown = _type(field.annotation, key)
    if limits := list(_limits(field.metadata)):
        shown += f", {', '.join(limits)}"
    return shown


def _type(annotation: Any, key: str = "") -> str:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(inner[0], key)
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in inner)
    if origin in (Union, types.UnionType):
        return " or ".join(_type(one, key) for one in inner if one is not type(None))
    if origin in (tuple, list):
        return f"list of {_type(inner[0], key)}"
    if origin is not None and len(inner) == 2:
        return f"mapping of {_type(inner[0])} to {_type(inner[1], key)}"
    if isinstance(annotation, type):
        if annotation.__name__ == "Length":
            return "length, such as `2 months`"
        if issubclass(annotation, BaseModel):
            return f"[keys](#{_anchor(key)})" if key else f"`{annotation.__name__}`"
        if issubclass(annotation, Enum):
            return " or ".join(f"`{one.value}`" for one in annotation)
    names = {str: "text", int: "whole number", float: "number", bool: "`true` or `false`"}
    return names.get(annotation, "any value")


def _limits(metadata: Iterable[Any]) -> Iterator[str]:
    words = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
    for one in metadata:
        for name, word in words.items():
            if (limit := getattr(one, name, None)) is not None:
                yield f"{word} {limit:,}" if isinstance(limit, int) else f"{word} {limit}"
        if getattr(one, "pattern", None):
            yield f"matching `{one.pattern}`"
        if (least := getattr(one, "min_length", None)) and least > 1:
            yield f"{least} or more"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**required**"
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined or value is None or value in ((), {}, "", []):
        return "none"
    if isinstance(value, BaseModel):
        written = getattr(value, "written", None)
        if isinstance(written, str):
            return f"`{written}`"
        if type(value).__str__ is not BaseModel.__str__:
            return f"`{value}`"
        settings = value.model_dump(mode="json", exclude_defaults=True)
        return f"`{{{', '.join(f'{key}: {one}' for key, one in settings.items())}}}`" if settings else "its own"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


# The gate


def gate_rules() -> str:
    """Every built-in rule with its settings."""
    from airflow_mlops.core.gate import gate_rules as registry

    made = []
    for name in sorted(registry.builtins):
        rule = registry.load(name)
        made.append(
            f"## `{name}` {{#{name.replace('_', '-')}}}\n\n{as_markdown(inspect.cleandoc(rule.__doc__ or ''))}\n"
        )
        made.append(
            _table(
                ("Setting", "Value", "Default"),
                ((f"`{key}`", _value(field, ""), _default(field)) for key, field in rule.model_fields.items()),
            )
        )
    return "\n".join(made)


def metrics() -> str:
    """Every built-in metric, by task."""
    from airflow_mlops.core.metrics import BUILT_IN

    return _table(
        ("`evaluation.task`", "Higher is better", "Lower is better"),
        (
            (
                f"`{task}`",
                ", ".join(f"`{name}`" for name, higher in names.items() if higher) or "none",
                ", ".join(f"`{name}`" for name, higher in names.items() if not higher) or "none",
            )
            for task, names in BUILT_IN.items()
        ),
    )


# Drift


def drift_method_table() -> str:
    """Every built-in drift method in one line."""
    return _table(
        ("Method", "Measures", "Drift from", "In one sentence"),
        (
            (f"[`{name}`](../reference/drift-methods.md#{name.replace('_', '-')})", kinds, f"{threshold:g}", said)
            for name, kinds, threshold, said in (
                (name, " and ".join(method.kinds), method.threshold, _first_sentence(method.__doc__ or ""))
                for name, method in _drift_methods()
            )
        ),
    )


def drift_method_sections() -> str:
    """What all drift methods work on, then each built-in one with its base, bins, sides, smoothing and source."""
    import airflow_mlops.core.drift_methods as module

    made = [as_markdown(inspect.cleandoc(module.__doc__ or "").partition("\n")[2]) + "\n"]
    for name, method in _drift_methods():
        said = as_markdown(inspect.cleandoc(method.__doc__ or "")).replace("as in the module's text", "as above")
        made.append(
            f"## `{name}` {{#{name.replace('_', '-')}}}\n\n{said}\n\n"
            f"Columns: {' and '.join(method.kinds)}. Default threshold: {method.threshold:g}.\n"
        )
    return "\n".join(made)


def _drift_methods() -> Iterator[tuple[str, Any]]:
    from airflow_mlops.core.drift import drift_methods

    return ((name, drift_methods.load(name)) for name in drift_methods.builtins)


def _first_sentence(text: str) -> str:
    return " ".join(inspect.cleandoc(text).split("\n\n")[0].split())


# The command line


def command_line() -> str:
    """Every verb with its arguments, from the parser that reads them."""
    from airflow_mlops.cli import build_parser

    # argparse wraps at the terminal's width.
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "78"
    try:
        return "\n".join(_verbs(build_parser()))
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before


def _verbs(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        if not isinstance(action, argparse._SubParsersAction):
            continue
        helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
        for name, verb in action.choices.items():
            yield f"## {name} {{#{name}}}\n"
            said = verb.description or helps.get(name, "")
            yield f"{_sentence(said)}\n\n```text\n{verb.format_usage().removeprefix('usage: ').rstrip()}\n```\n"
            yield _table(("Argument", "Meaning"), ((_argument(one), one.help or "") for one in _arguments(verb)))
            yield from _verbs(verb)


def _arguments(verb: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in verb._actions:
        hidden = action.help == argparse.SUPPRESS or isinstance(action, argparse._SubParsersAction)
        if not hidden and not isinstance(action, argparse._HelpAction):
            yield action


def _argument(action: argparse.Action) -> str:
    if not action.option_strings:
        name = action.metavar or action.dest.upper()
        return f"`{name}`" if isinstance(name, str) else f"`{' '.join(name)}`"
    metavar = action.metavar or action.dest.upper()
    value = "" if action.nargs == 0 else f" {metavar if isinstance(metavar, str) else ' '.join(metavar)}"
    shown = ", ".join(f"`{option}{value}`" for option in action.option_strings)
    return f"{shown} (required)" if action.required else shown


def _sentence(text: str) -> str:
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") or not text else ".")


# The rest


def connection_form() -> str:
    """The fields of a connection of type ``mlflow``."""
    from airflow_mlops.provider_info import CONNECTION_FIELDS, FIELD_BEHAVIOUR

    labels, hints = FIELD_BEHAVIOUR["relabeling"], FIELD_BEHAVIOUR["placeholders"]
    standard = [
        (labels[name], f"`{name}`", "", hints.get(name, "")) for name in ("host", "schema", "login", "password")
    ]
    extra = []
    for name, field in CONNECTION_FIELDS.items():
        default = field["schema"].get("default")
        shown = str(default).lower() if isinstance(default, bool) else default
        extra.append(
            (field["label"], f"`{name}` in Extra", "" if shown is None else f"`{shown}`", field["description"])
        )
    return _table(("Field of the form", "Stored as", "Default", "Meaning"), [*standard, *extra])


def errors() -> str:
    """Every error, with what it means and whether Airflow retries it."""
    import airflow_mlops.errors as module
    from airflow_mlops.errors import MLOpsError, OutageError

    found = [one for one in vars(module).values() if isinstance(one, type) and issubclass(one, MLOpsError)]
    return _table(
        ("Error", "Kind of", "Meaning", "Airflow retries", "Exit code"),
        (
            (
                f"`{one.__name__}`",
                f"`{one.__bases__[0].__name__}`",
                as_markdown(inspect.cleandoc(one.__doc__ or "")).replace("\n", " "),
                "yes" if issubclass(one, OutageError) else "no" if one is not MLOpsError else "by its kind",
                "75" if issubclass(one, OutageError) else "2",
            )
            for one in found
        ),
    )


#: The DAGs whose tasks the operators are, with the modules of those that belong to none but theirs.
_LOOPS = (
    ("Training", ("plan", "data", "model", "serving", "registry", "approval")),
    ("Scoring", ("plan_scoring", "scoring")),
    ("Monitoring", ("plan_monitoring", "drift", "performance", "policy")),
)


def operators() -> str:
    """A section for every public operator, by DAG and in its order: mkdocstrings fills it from the docstring."""
    from airflow_mlops.steps.base import STEPS

    order = [*STEPS.builtins, "approve"]
    order.insert(order.index("promote"), order.pop())
    found: dict[str, list[tuple[int, str]]] = {title: [] for title, _ in _LOOPS}
    for module, name, tree in _public("operators"):
        title = next(title for title, modules in _LOOPS if module.rpartition(".")[2] in modules)
        (step,) = _constants(tree, name, "step") or ["approve"]
        found[title].append((order.index(step) if step in order else len(order), _section(module, name, tree)))
    return "\n".join(
        f"## {title}\n\n" + "\n".join(section for _, section in sorted(sections, key=lambda pair: pair[0]))
        for title, sections in found.items()
    )


def sensors() -> str:
    """A section for every public sensor."""
    return "\n".join(_section(module, name, tree) for module, name, tree in _public("sensors"))


def _public(package: str) -> Iterator[tuple[str, str, ast.Module]]:
    """Yield module, name and source of every public name that lives in a subpackage."""
    import airflow_mlops

    for module, names in airflow_mlops._HOMES.items():
        if module.startswith(f"{package}."):
            path = ROOT / "airflow_mlops" / f"{module.replace('.', '/')}.py"
            tree = ast.parse(path.read_text(encoding="utf-8"))
            yield from ((module, name, tree) for name in names)


def _section(module: str, name: str, tree: ast.Module) -> str:
    templated = ", ".join(f"`{field}`" for field in _constants(tree, name, "template_fields")) or "none"
    return (
        f"::: airflow_mlops.{module}.{name}\n    options:\n      heading_level: 3\n\n"
        f"Templated beside the common ones: {templated}.\n"
    )


def _constants(tree: ast.Module, name: str, attribute: str) -> list[str]:
    """Return the texts that a class gives to an attribute of its own, read from its source."""
    (part,) = (one for one in ast.walk(tree) if isinstance(one, ast.ClassDef) and one.name == name)
    for line in part.body:
        targets = line.targets if isinstance(line, ast.Assign) else [getattr(line, "target", None)]
        if any(isinstance(one, ast.Name) and one.id == attribute for one in targets):
            return [one.value for one in ast.walk(line) if isinstance(one, ast.Constant)]
    return []


def file(name: str) -> str:
    """Return a file of the repository as a block of code, with its name."""
    path = ROOT / name
    language = {".yaml": "yaml", ".py": "python"}[path.suffix]
    return f'```{language} title="{path.name}"\n{path.read_text(encoding="utf-8").rstrip()}\n```\n'


def record_fields(name: str) -> str:
    """The fields of one record."""
    from airflow_mlops.core import monitoring_records, records, sightings

    model = next(getattr(module, name) for module in (records, monitoring_records, sightings) if hasattr(module, name))
    return _table(
        ("Field", "Value", "Default"),
        ((f"`{key}`", _value(field, ""), _default(field)) for key, field in model.model_fields.items()),
    )


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines) + "\n"


def _cell(text: str) -> str:
    """Return a text for a table's cell: a bar ends a cell except in code, where an escape would be seen."""
    parts = re.split(r"(`+[^`]+`+)", " ".join(text.split()))
    return "".join(part if part.startswith("`") else part.replace("|", "\\|") for part in parts)


def changelog() -> str:
    """Return the changelog, which stands beside the package and not among the pages."""
    return (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
