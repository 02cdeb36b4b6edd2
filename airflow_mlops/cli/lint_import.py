"""``lint --import``: import, in a process of its own, what the tasks would import, and say what went wrong.

The team's code runs here as far as importing it does: nothing is called. A module that ends or hangs the process harms
nobody else. Great Expectations, which takes seconds to import, is asked here about the contracts' expectations.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from airflow_mlops.cli.lint_findings import Finding, finding, findings_of
from airflow_mlops.cli.lint_fleet import Facts, Loaded
from airflow_mlops.errors import MissingEngineError, MLOpsError

#: Seconds for all imports from one code folder.
LIMIT = 300.0
_CODES = {"train": "MLOPS304", "metric": "MLOPS304", "flavor": "MLOPS404", "contract": "MLOPS205"}
_MEND = "See that `import great_expectations` works here; until then arguments are only compared with its schemas."


def import_all(facts: Iterable[Facts]) -> Iterator[Finding]:
    """Yield what cannot be imported here, each thing once a model; one process for each code folder."""
    wanted: dict[str, list[tuple[Facts, Loaded]]] = {}
    for model in facts:
        for one in model.loaded:
            wanted.setdefault(one.code_path, []).append((model, one))
    for folder, named in wanted.items():
        if not Path(folder).is_dir():
            continue  # told by the check of the specification
        answers = _ask(folder, sorted({(one.kind, one.name, one.serialization or "") for _, one in named}))
        for model, one in named:
            problem = answers.get(json.dumps([one.kind, one.name, one.serialization or ""]))
            if problem:
                for found in _findings(model, one, problem):
                    yield replace(found, profiles=(model.profile,) if model.profile else ())


def _findings(model: Facts, one: Loaded, problem: str) -> Iterator[Finding]:
    file, line = one.place
    for found in findings_of(_CODES[one.kind], RuntimeError(problem), model.file, key=one.key):
        if one.kind == "contract" and found.key != one.key:  # it stands in the contract
            code = "MLOPS203" if found.key.endswith(".type") else "MLOPS202"
            yield finding(code, (found.file, found.line), found.key, found.message, found.mend)
        elif found.file.endswith(".py"):
            yield replace(found, key=one.key)
        else:
            yield replace(found, file=file, line=line, key=one.key)


def _ask(folder: str, wanted: list[tuple[str, str, str]]) -> dict[str, str]:
    """Return what is wrong with each wanted thing, an empty text where nothing is."""
    answers: dict[str, str] = {}
    left = wanted
    while left:
        found, ended = _process(folder, left)
        answers |= found
        left = [one for one in left if json.dumps(one) not in answers]
        if left:  # the first of them ended the process; the others are tried without it
            mend = (
                "Importing a module must only define things: move what it does at its top into the functions."
                if left[0][0] != "contract"
                else _MEND
            )
            what = "Great Expectations" if left[0][0] == "contract" else repr(left[0][1])
            answers[json.dumps(left[0])] = f"Importing {what} ended its process ({ended}). {mend}"
            left = left[1:]
    return answers


def _process(folder: str, wanted: list[tuple[str, str, str]]) -> tuple[dict[str, str], str]:
    """Try to import in a process of its own; return the answers that it gave, and how it ended."""
    with tempfile.TemporaryDirectory(prefix="airflow-mlops-lint-") as name:
        request, answer = Path(name) / "request.json", Path(name) / "answer.jsonl"
        request.write_text(json.dumps({"folder": folder, "wanted": wanted}), encoding="utf-8")
        answer.touch()
        command = [sys.executable, "-P", "-m", "airflow_mlops.cli.lint_import", str(request), str(answer)]
        try:
            done = subprocess.run(command, check=False, timeout=LIMIT, stdout=subprocess.DEVNULL)  # noqa: S603
            ended = f"exit code {done.returncode}"
        except subprocess.TimeoutExpired:
            ended = f"stopped after {LIMIT:g} s"
        return dict(json.loads(line) for line in answer.read_text(encoding="utf-8").splitlines()), ended


def main(request: str, answer: str) -> None:
    """Import what the request names, and write a line for each as soon as it is known."""
    asked = json.loads(Path(request).read_text(encoding="utf-8"))
    with Path(answer).open("a", encoding="utf-8") as file:
        for kind, name, serialization in asked["wanted"]:
            problem = _try(kind, name, serialization or None, Path(asked["folder"]))
            print(json.dumps([json.dumps([kind, name, serialization]), problem]), file=file, flush=True)


def _try(kind: str, name: str, serialization: str | None, folder: Path) -> str:
    if kind == "contract":
        return _ask_great_expectations(Path(name))
    from airflow_mlops.cli.lint_code import METRIC, TRAIN
    from airflow_mlops.engines.code import check_signature, team_code

    try:
        if kind == "flavor":
            from airflow_mlops.engines.flavors import check_format

            check_format(name, serialization)
            return ""
        call: Any = TRAIN if kind == "train" else METRIC
        with team_code(folder) as code:
            check_signature(code.function(name), name, call.expected, *call.args, **call.kwargs)
    except MLOpsError as exc:
        return str(exc)
    return ""


def _ask_great_expectations(path: Path) -> str:
    from airflow_mlops.engines.expectations import arguments_of, known_names, mistakes_in
    from airflow_mlops.spec.contract import load_contract, unknown_expectation

    lines = []
    try:
        contract, known = load_contract(path), known_names()
        for number, one in enumerate(contract.expectations):
            if one.type not in known:
                said, mend = unknown_expectation(one.type, known)
                lines.append(f"{contract.place(number)}: expectations[{number}].type: {said}. {mend}")
        for wrong in mistakes_in(contract):
            about = contract.expectations[wrong.number].type
            mend = wrong.mend or f"It takes {', '.join(arguments_of(about))}."
            key = f"expectations[{wrong.number}].{wrong.key}"
            lines.append(f"{contract.place(wrong.number)}: {key}: {about}: {wrong.what}. {mend}")
    except MissingEngineError:
        return "Great Expectations is not installed here, so it was not asked about the contract."
    except Exception as exc:  # noqa: BLE001  # what an import raises that went wrong may be anything
        reason = " ".join(f"{type(exc).__name__}: {exc}".split()).rstrip(".")
        lines.append(f"Great Expectations could not look at the contract: {reason}. {_MEND}")
    return "\n".join(lines)


if __name__ == "__main__":
    main(*sys.argv[1:])
