"""The parts of the reference that are made from the package itself, so that they cannot fall behind it."""

from __future__ import annotations

import argparse
import ast
import inspect
import os
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

    return "\n".join(_model(ModelSpec, "", ModelSpec.__doc__ or "", level=2))


def contract() -> str:
    """Every key of a contract file."""
    from airflow_mlops.spec.contract import Contract

    return "\n".join(_model(Contract, "", Contract.__doc__ or "", level=2))


def _model(model: type[BaseModel], key: str, about: str, *, level: int) -> Iterator[str]:
    """Yield a section about a model and then, depth first, about the models in it."""
    title = f"`{key}`" if key else "The whole file"
    yield f"{'#' * level} {title} {{#{_anchor(key)}}}\n\n{as_markdown(inspect.cleandoc(about))}\n"
    yield _table(
        ("Key", "Value", "Default", "Meaning"),
        (
            (f"`{name}`", _value(field, _join(key, name)), _default(field), _meaning(field))
            for name, field in model.model_fields.items()
            if not field.exclude
        ),
    )
    for name, field in model.model_fields.items():
        inner = _inner_model(field.annotation)
        if inner is not None and not field.exclude:
            yield from _model(inner, _join(key, name), inner.__doc__ or "", level=min(level + 1, 4) if key else level)


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
        return f"`{value}`" if type(value).__str__ is not BaseModel.__str__ else "as below"
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


def operators() -> str:
    """A section for every public operator, in the order of the loop: mkdocstrings fills it from the docstring."""
    import airflow_mlops
    from airflow_mlops.steps.base import STEPS

    order = [*STEPS.builtins, "approve"]
    order.insert(order.index("promote"), order.pop())
    made: list[tuple[int, str]] = []
    for module, names in airflow_mlops._HOMES.items():
        if not module.startswith("operators."):
            continue
        tree = ast.parse((ROOT / "airflow_mlops" / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8"))
        for name in names:
            templated = ", ".join(f"`{field}`" for field in _constants(tree, name, "template_fields")) or "none"
            section = f"::: airflow_mlops.{module}.{name}\n\nTemplated beside the common ones: {templated}.\n"
            place = next((number for number, step in enumerate(order) if step in name.lower()), len(order))
            made.append((place, section))
    return "\n".join(section for _, section in sorted(made, key=lambda pair: pair[0]))


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
    import airflow_mlops.core.records as records

    model = getattr(records, name)
    return _table(
        ("Field", "Value", "Default"),
        ((f"`{key}`", _value(field, ""), _default(field)) for key, field in model.model_fields.items()),
    )


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def changelog() -> str:
    """Return the changelog, which stands beside the package and not among the pages."""
    return (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
