"""MLflow's model flavours: which there are, how each stores a model, and which libraries it needs."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pkgutil
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from airflow_mlops.errors import InvalidSpecError, MissingEngineError, ModelRefusedError, UnknownNameError

#: Named in a record where a flavour has one format only.
SINGLE_FORMAT = "native"


@dataclass(frozen=True)
class Formats:
    """How a flavour that has several formats is told which one to use.

    :param argument: the argument of its ``save_model``.
    :param choices: the flavour's own names; ``text`` is ours, for a LightGBM Booster, which MLflow always saves so.
    """

    argument: str
    choices: tuple[str, ...]


_PICKLES = ("cloudpickle", "pickle", "skops")
_FORMATS: Mapping[str, Formats] = {
    "sklearn": Formats("serialization_format", _PICKLES),
    "lightgbm": Formats("serialization_format", (*_PICKLES, "text")),
    "pytorch": Formats("serialization_format", ("pickle", "pt2")),
    "xgboost": Formats("model_format", ("ubj", "json")),
}
#: Distributions that models of a flavour use; a flavour that is not listed uses the one of its own name.
_LIBRARIES: Mapping[str, tuple[str, ...]] = {
    "sklearn": ("scikit-learn", "numpy", "scipy", "pandas"),
    "lightgbm": ("lightgbm", "scikit-learn", "numpy", "scipy", "pandas"),
    "xgboost": ("xgboost", "scikit-learn", "numpy", "scipy", "pandas"),
    "pytorch": ("torch", "numpy", "pandas"),
    "pyfunc": ("numpy", "pandas"),
}
#: Flavours whose native models take a data frame in ``predict``. Others are used through MLflow's own wrapper.
_PREDICTS_FRAMES = frozenset({"sklearn", "lightgbm", "xgboost", "catboost"})


def check_format(flavor: str, serialization: str | None) -> str:
    """Return the name of the format to store a model in, before anything is trained.

    :raises UnknownNameError: MLflow has no such flavour; the nearest is given.
    :raises MissingEngineError: full MLflow, or the flavour's library, is not installed here.
    :raises InvalidSpecError: the flavour has several formats and none was chosen, or it has no such format.
    """
    flavor_module(flavor)
    formats = _FORMATS.get(flavor)
    if formats is None:
        if serialization not in (None, SINGLE_FORMAT):
            raise InvalidSpecError(
                f"The flavour {flavor!r} has one format; leave train.serialization out instead of {serialization!r}."
            )
        return SINGLE_FORMAT
    if serialization is None:
        raise InvalidSpecError(
            f"The flavour {flavor!r} stores models in several formats, and loading some of them runs code from the "
            f"file, so the choice is yours: set train.serialization to one of {', '.join(formats.choices)}. "
            f"{_ADVICE.get(flavor, '')}".rstrip()
        )
    if serialization not in formats.choices:
        raise UnknownNameError.of(f"format of the flavour {flavor!r}", serialization, formats.choices)
    return serialization


_ADVICE = {
    "sklearn": (
        "cloudpickle takes any model, classes and functions of your own included; pickle takes library classes only; "
        "skops runs no code on loading but takes library classes only and its files differ between equal models."
    ),
    "lightgbm": "text is for a lightgbm.Booster and runs no code on loading; the others are for LGBM* estimators.",
}


def save_arguments(flavor: str, serialization: str, model: Any) -> dict[str, Any]:
    """Return the arguments of the flavour's ``save_model`` that store ``model`` in this format.

    :raises ModelRefusedError: the model cannot be stored so.
    """
    if flavor == "lightgbm":
        booster = type(model).__name__ == "Booster"
        if booster != (serialization == "text"):
            have = "a Booster" if booster else f"a {type(model).__name__}"
            fit = "text" if booster else "cloudpickle, pickle or skops"
            raise ModelRefusedError(
                f"The training function returned {have}, which cannot be stored as {serialization!r}: "
                f"set train.serialization to {fit}."
            )
        if booster:
            return {}
    if serialization == SINGLE_FORMAT:
        return {}
    arguments: dict[str, Any] = {_FORMATS[flavor].argument: serialization}
    if serialization == "skops":
        arguments["skops_trusted_types"] = _types_to_trust(model)
    return arguments


def _types_to_trust(model: Any) -> list[str]:
    """Return the types that skops must be told to trust: this process has just made the model from them.

    They are written into the model's MLmodel file, which the model digest covers.
    """
    try:
        import skops.io
    except ModuleNotFoundError as exc:
        raise MissingEngineError("serialization: skops needs the library skops. Run: pip install skops.") from exc
    types: list[str] = skops.io.get_untrusted_types(data=skops.io.dumps(model))
    return sorted(types)


def libraries(flavor: str, serialization: str) -> tuple[str, ...]:
    """Return the distributions that models of this flavour and format use."""
    formats = (serialization,) if serialization in ("cloudpickle", "skops") else ()
    return (*_LIBRARIES.get(flavor, (flavor.replace("_", "-"), "numpy", "pandas")), *formats)


def predicts_frames(flavor: str, model: Any) -> bool:
    """Say whether the native model takes a data frame in ``predict``; if not, MLflow's wrapper does."""
    native = flavor in _PREDICTS_FRAMES and hasattr(model, "predict")
    return native and not (flavor == "xgboost" and type(model).__name__ == "Booster")


def flavor_module(flavor: str) -> ModuleType:
    """Import ``mlflow.FLAVOR``, which has ``save_model`` and ``load_model``.

    :raises UnknownNameError: MLflow has no such flavour; the nearest is given.
    :raises MissingEngineError: full MLflow, or the flavour's library, is not installed here.
    """
    known = known_flavors()
    if not known:
        raise MissingEngineError(
            "Saving and loading models needs full MLflow; only mlflow-skinny is installed here. "
            "Run: pip install 'airflow-mlops[mlflow]' (Composer: PyPI packages; MWAA: requirements.txt)."
        )
    if flavor not in known:
        raise UnknownNameError.of("MLflow flavour", flavor, known)
    needed = {"pyfunc": "mlflow", "pytorch": "torch", "spark": "pyspark"}.get(flavor, flavor)
    if importlib.util.find_spec(needed) is None:
        raise MissingEngineError(
            f"The flavour {flavor!r} needs the module {needed!r}, which is not installed here. "
            f"Run: pip install {_LIBRARIES.get(flavor, (needed,))[0]}"
        )
    return importlib.import_module(f"mlflow.{flavor}")


def known_flavors() -> list[str]:
    """Return the names of MLflow's flavours, sorted, without importing their libraries; empty under mlflow-skinny."""
    import mlflow

    if importlib.util.find_spec("mlflow.sklearn") is None:
        return []
    names = []
    for module in pkgutil.iter_modules(mlflow.__path__):
        file = Path(mlflow.__path__[0]) / module.name / "__init__.py"
        if module.ispkg and re.search(r"^\s*def save_model\(", file.read_text(encoding="utf-8"), re.MULTILINE):
            names.append(module.name)
    return sorted(names)


def accepted(function: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of ``arguments`` that ``function`` has a parameter for: flavours differ in the optional ones."""
    parameters = inspect.signature(function).parameters
    return {name: value for name, value in arguments.items() if name in parameters}
