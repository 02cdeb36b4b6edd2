"""The texts of a team's repository: what all models share, and what each model has of its own."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import replace
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from airflow_mlops.cli.new_model_files import NewModel, data_uri, file_names, spec_text, test_text, training_text
from airflow_mlops.cli.new_model_study import Study
from airflow_mlops.core.yaml_text import comment, entry, scalar

#: Files of every repository: where each goes, and its template.
SHARED = {
    "models/_base.yaml": "base.yaml.tmpl",
    "dags/models_dag.py": "models_dag.py.tmpl",
    "make_sample.py": "make_sample.py.tmpl",
    "tests/test_models.py": "test_models.py.tmpl",
    ".github/workflows/ci.yaml": "ci.yaml.tmpl",
    "requirements.txt": "requirements.txt.tmpl",
    "pyproject.toml": "pyproject.toml.tmpl",
    ".airflowignore": "airflowignore.tmpl",
    ".gitignore": "gitignore.tmpl",
    "README.md": "README.md.tmpl",
}
#: What whoever hosts repositories often put there first; the checks do not need ours.
HOSTS = ("README.md", ".gitignore")
#: Where a repository is told by.
MARKS = ("models/_base.yaml", "dags/models_dag.py")
#: The interval of the schedule, by the unit of the training window.
_CRONS = {"years": "0 0 1 * *", "months": "0 0 1 * *", "weeks": "0 0 * * 0", "days": "0 0 * * *"}


def owner_of(folder: Path) -> str:
    """Return the owner that a folder's name suggests: letters, digits, single hyphens; ``team`` if nothing is left."""
    plain = unicodedata.normalize("NFKD", folder.resolve().name).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:40].strip("-") or "team"


def model_paths(name: str) -> dict[str, str]:
    """Return where the files of a model go, by their kind."""
    names = file_names(name)
    return {
        "spec": f"models/{name}.yaml",
        "contract": f"contracts/{name}.yaml",
        "training": f"src/{names['training']}",
        "test": f"tests/{names['test']}",
    }


def shared_texts(name: str, owner: str, *, example: bool) -> dict[str, str]:
    """Return the text of every shared file, by its path.

    :param name: the first model's name.
    :param example: whether that model is the example.
    """
    from airflow_mlops import __version__

    places = "the places of its data and its predictions under `profiles`"
    first = (
        f"- `models/{name}.yaml` is an example: put your own `data.uri` and {places}, or begin with a table of yours."
        if example
        else f"- `models/{name}.yaml`: {places}. Everything that was guessed stands in its first lines."
    )
    folder = resources.files("airflow_mlops.templates") / "new_repository"
    words = {"name": name, "owner": owner, "version": __version__, "first_steps": first}
    words["written_owner"] = scalar(owner)
    return {
        path: Template((folder / template).read_text(encoding="utf-8")).substitute(words)
        for path, template in SHARED.items()
    }


def model_texts(found: Study, folder: Path, places: Mapping[str, str]) -> dict[str, str]:
    """Return the texts of a model's files, by their kind.

    :param folder: the repository.
    :param places: where the rows are in ``prod`` and ``staging``, where that is not the table that was looked at.
    """
    model = found.model
    if places:
        model = replace(model, data=model.data.model_copy(update={"uri": places["prod"]}))
    return {
        "spec": _spec(model, folder / "models", places),
        "contract": found.contract.text,
        "training": training_text(model),
        "test": test_text(model),
    }


def _spec(model: NewModel, folder: Path, places: Mapping[str, str]) -> str:
    """Return the model's file: that of a model by itself, on a base, with its profiles."""
    name = model.name
    text = spec_text(model, folder)
    for old, new in (
        (f"\nname: {name}\n", f"\nextends: _base.yaml\nname: {name}\n"),
        (f"contract: {{path: {file_names(name)['contract']}}}", f"contract: {{path: ../contracts/{name}.yaml}}"),
    ):
        head, found, tail = text.partition(old)
        if not found:
            raise RuntimeError(f"The specification of a new model no longer holds {old!r}.")
        text = f"{head}{new}{tail}"
    split = model.split
    cron = _CRONS.get(split.length.unit, "0 * * * *")
    schedule = {"cron": cron, "start_date": split.evaluate.end.date().isoformat()}
    staging = places.get("staging") or data_uri(model.data.uri, folder)
    outputs = _outputs(name, model.data.uri, staging)
    ending = "csv" if model.data.format == "csv" else "parquet"
    dev: dict[str, Any] = {"uri": f"../sample/{name}.{ending}"}
    if model.data.conn_id:
        dev["conn_id"] = None
    lines = [
        "",
        comment("One file of predictions a window; each is compared with what the model was trained on."),
        entry("scoring", {"output_uri": outputs["prod"]}, 0),
        "",
        "profiles:",
        "  dev:",
        comment("Made-up rows, written by make_sample.py. Nothing runs by itself.", 4),
        entry("data", dev, 4),
        entry("scoring", {"output_uri": outputs["dev"]}, 4),
        "  staging:",
        entry("data", {"uri": staging}, 4),
        entry("scoring", {"output_uri": outputs["staging"]}, 4),
        "  prod:",
        comment("The interval that ended is the window to evaluate on, and to score.", 4),
        entry("schedule", schedule, 4),
        entry("scoring", {"schedule": schedule}, 4),
    ]
    return text + "\n".join(lines) + "\n"


def _outputs(name: str, prod: str, staging: str) -> dict[str, str]:
    """Return where predictions go: into the bucket of the data where there is one, else into the repository."""
    found = {"dev": f"../predictions/dev/{name}"}
    for profile, uri in (("staging", staging), ("prod", prod)):
        bucket = re.match(r"^\w+://[^/]+", uri)
        root = f"{bucket[0]}/predictions" if bucket else "../predictions"
        found[profile] = f"{root}/{profile}/{name}"
    return found
