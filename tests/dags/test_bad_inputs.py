"""Wrong inputs tried on purpose: every one ends in an error of ours that names place and mend, and harms nothing.

The table in docs/bad-inputs.md is written by this run: ``WRITE_DOCS=1 python -m pytest tests/dags/test_bad_inputs.py``.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_mlops import Access, Window, load_spec, run_training, training_dag
from airflow_mlops.core.windows import parse_window
from airflow_mlops.errors import MLOpsError
from airflow_mlops.hooks.mlflow import MLflowHook
from airflow_mlops.runtimes import make_runtime
from airflow_mlops.steps.base import RunInfo, StepRequest
from tests.support.bad_inputs import CASES, BadInput, write_model
from tests.support.http_server import Answer, scripted_server

if TYPE_CHECKING:
    from airflow_mlops.cli.demo.lake import Lake
    from tests.support.mlflow_server import MLflowServer

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "bad-inputs.md"
GOOD = {"conn_type": "mlflow"}
MAX_SHOWN = 420


@pytest.fixture(scope="module")
def fortnight(lake: Lake) -> Any:
    """The flights of 1 to 14 January 2013."""
    import pandas as pd

    frame = pd.read_parquet(sorted(lake.folder.rglob("*.parquet"))[0])
    return frame[frame["event_time"] < "2013-01-15"].reset_index(drop=True)


@pytest.fixture(scope="module")
def champion(mlflow_server: MLflowServer, fortnight: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A champion that every case could harm: made from the good files; afterwards it must still be there."""
    spec = load_spec(write_model(tmp_path_factory.mktemp("good"), fortnight))
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("AIRFLOW_CONN_MLFLOW_DEFAULT", json.dumps({**GOOD, "host": mlflow_server.uri}))
        outcome = run_training(spec, window=Window(start="2013-01-08", end="2013-01-15"), access=access())
    assert outcome.promotion is not None, outcome.ended
    return state(mlflow_server)


@pytest.fixture(scope="module")
def said() -> Iterator[dict[str, str]]:
    """What each case said; a whole run writes the page, or holds it to what it says."""
    found: dict[str, str] = {}
    yield found
    if len(found) == len(CASES) and os.environ.get("WRITE_DOCS"):
        PAGE.write_text(page(found))


def access() -> Access:
    """Return what a task with the default connection has."""
    hook = MLflowHook()
    return Access(server=hook.server(), login=hook.login())


def state(server: MLflowServer) -> Any:
    """Return what of the champion could be harmed: versions, alias and ledger."""
    from mlflow import MlflowClient

    client = MlflowClient(server.uri)
    model = client.get_registered_model("flights")
    return (
        {**model.aliases},
        [(v.version, v.source, v.status) for v in client.search_model_versions("name = 'flights'")],
        [v.tags for v in client.search_model_versions("name = 'flights.promotions'")],
    )


def attempt(case: BadInput, folder: Path, fortnight: Any) -> str:
    """Do what a user would do with these files; return what was said."""
    try:
        spec = load_spec(write_model(folder, fortnight, case))
        training_dag(spec)
        window = parse_window(*case.window, "--window")
        if spec.runtime.name != "inline":
            in_its_runtime(spec, window)
        outcome = run_training(spec, window=window, access=access())
    except MLOpsError as exc:
        return f"{type(exc).__name__}: {exc}"
    assert outcome.failed, f"nothing was found wrong: {outcome.ended}"
    return outcome.ended


def in_its_runtime(spec: Any, window: Window) -> None:
    """Run the first step where the specification says, as the task would."""
    run = RunInfo(key="runtime", name="runtime", experiment="bad_inputs")
    payload = {"window": window.model_dump(mode="json"), "train": {"length": "1 day"}, "reason": "try"}
    request = StepRequest(step="plan", key="runtime/plan", run=run, payload=payload)
    make_runtime(spec.runtime.name, spec.runtime.settings).run(request, access())


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.group}: {case.what}")
def test_a_wrong_input_names_place_and_mend_and_harms_nothing(
    case: BadInput,
    tmp_path: Path,
    fortnight: Any,
    champion: Any,
    said: dict[str, str],
    mlflow_server: MLflowServer,
    monkeypatch: pytest.MonkeyPatch,
    no_mlflow_here: str,
) -> None:
    fields = case.connection or {**GOOD, "host": mlflow_server.uri}
    if fields.get("host") == "NOT_MLFLOW":
        fields = {**fields, "host": no_mlflow_here}
    monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_DEFAULT", json.dumps(fields))

    sentence = attempt(case, tmp_path / "model", fortnight)

    assert re.search(case.place, sentence, re.DOTALL), sentence
    assert re.search(case.mend, sentence, re.DOTALL), sentence
    assert "Traceback" not in sentence
    assert "secret" not in sentence
    assert state(mlflow_server) == champion
    said[f"{case.group}: {case.what}"] = shown(sentence, tmp_path, no_mlflow_here)


@pytest.fixture(scope="module")
def no_mlflow_here() -> Iterator[str]:
    """A web server that knows nothing of MLflow."""
    with scripted_server(lambda request: Answer(404, "<html>nothing here</html>")) as server:
        yield server.uri


def test_the_page_lists_what_is_tried_here() -> None:
    """What is said may hold a time or a version; which inputs are tried may not differ."""
    listed = re.findall(r"^\| \d+ \| (.+?) \|", PAGE.read_text(), re.MULTILINE)

    assert listed == [case.what for case in CASES]
    assert len(CASES) >= 40


def shown(sentence: str, folder: Path, address: str) -> str:
    """Return what was said as it may stand in a table: without this machine's folders, and not too long."""
    text = sentence.replace(f"{folder}/model/", "").replace(str(folder), "…").replace(address, "http://HOST")
    text = re.sub(r"/\S*/site-packages/", "…/", text).replace(f"{ROOT}/", "…/")
    text = re.sub(r"\s+", " ", text).replace("|", "\\|").replace("<", "&lt;").replace("[", "\\[")
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 1]}…"


def page(found: dict[str, str]) -> str:
    """Return the documentation's page."""
    parts = [
        "# Wrong inputs, and what is said",
        "Each was made on purpose on a copy of the flights model whose champion already served. Every one ended in the "
        "error beside it; champion, versions and ledger were compared before and after and had not changed. The table "
        "is written by the run that tried them: "
        "`WRITE_DOCS=1 .venv/bin/python -m pytest tests/dags/test_bad_inputs.py`.",
    ]
    number = 0
    for group in dict.fromkeys(case.group for case in CASES):
        rows = ["| | What was wrong | What was said |", "|---|---|---|"]
        for case in (case for case in CASES if case.group == group):
            number += 1
            rows.append(f"| {number} | {case.what} | {found[f'{group}: {case.what}']} |")
        parts += [f"## {group.capitalize()}", "\n".join(rows)]
    return "\n\n".join(parts) + "\n"
