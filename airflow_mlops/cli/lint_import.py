"""``lint --import``: import, in a process of its own, what the tasks would import, and say what went wrong.

The team's code runs here as far as importing it does: nothing is called. A module that ends or hangs the process harms
nobody else.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from airflow_mlops.cli.lint_findings import Finding, findings_of
from airflow_mlops.cli.lint_fleet import Facts, Loaded
from airflow_mlops.errors import MLOpsError

#: Seconds for all imports from one code folder.
LIMIT = 300.0
_CODES = {"train": "MLOPS304", "metric": "MLOPS304", "flavor": "MLOPS404"}


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
                place = one.place
                for found in findings_of(_CODES[one.kind], RuntimeError(problem), model.file, key=one.key):
                    own = (found.file, found.line) if found.file.endswith(".py") else place
                    yield Finding(
                        own[0],
                        own[1],
                        found.code,
                        one.key,
                        found.level,
                        found.message,
                        found.mend,
                        (model.profile,) if model.profile else (),
                    )


def _ask(folder: str, wanted: list[tuple[str, str, str]]) -> dict[str, str]:
    """Return what is wrong with each wanted thing, an empty text where nothing is."""
    answers: dict[str, str] = {}
    left = wanted
    while left:
        found, ended = _process(folder, left)
        answers |= found
        left = [one for one in left if json.dumps(one) not in answers]
        if left:  # the first of them ended the process; the others are tried without it
            answers[json.dumps(left[0])] = (
                f"Importing {left[0][1]!r} ended its process ({ended}). Importing a module must only define things: "
                f"move what it does at its top into the functions."
            )
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


if __name__ == "__main__":
    main(*sys.argv[1:])
