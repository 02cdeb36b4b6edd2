"""The serving check on real model folders: fresh interpreters where that is the point, the probe in here elsewhere."""

from __future__ import annotations

import json
import os
import platform
import signal
import sys
import uuid
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from airflow_mlops.engines import model_environments, serving, serving_probe
from airflow_mlops.engines.bounded_process import Ended
from airflow_mlops.engines.model_environments import (
    build_environment,
    differences,
    hide_logins,
    is_outage,
    plain_environment,
    said,
)
from airflow_mlops.engines.models import save_model
from airflow_mlops.engines.serving import check_serving, problem, sentence
from airflow_mlops.engines.signatures import input_schema
from airflow_mlops.errors import OutageError
from airflow_mlops.spec.model import ServingSpec

#: What a model without libraries needs; small, so that an environment of it is quickly built.
SMALL = [f"{name}=={metadata.version(name)}" for name in ("mlflow-skinny", "numpy", "pandas")]

MODELS = """
import sys
import time


class Model:
    def predict(self, model_input):
        print("a model's own words", file=sys.stderr)
        return {body}
"""


def frame() -> Any:
    import pandas as pd

    return pd.DataFrame({"distance": [1.0, 2.0, 3.0], "hour": [1.0, 5.0, 2.0]})


def save(folder: Path, body: str, *, example: bool = True, before: str = "") -> Path:
    """Save a model whose ``predict`` returns ``body``, as code in its own folder; ``before`` runs when it loads."""
    from mlflow.models import Model
    from mlflow.models.utils import _Example

    folder.mkdir(parents=True)
    (folder / "code").mkdir()
    # This process keeps every module it has loaded, so each model's are called differently.
    served, loaded = f"served_{uuid.uuid4().hex}", f"loader_{uuid.uuid4().hex}"
    (folder / "code" / f"{served}.py").write_text(before + MODELS.format(body=body))
    loader = f"from {served} import Model\n\n\ndef _load_pyfunc(path):\n    return Model()\n"
    (folder / "code" / f"{loaded}.py").write_text(loader)
    model = Model()
    model.add_flavor("python_function", loader_module=loaded, code="code", python_version=platform.python_version())
    if example:
        one = _Example(frame())
        one.save(str(folder))
        model.saved_input_example_info = one.info
    (folder / "requirements.txt").write_text("\n".join(SMALL))
    model.save(str(folder / "MLmodel"))
    return folder


@pytest.fixture(scope="module")
def sklearn_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier stored as the train step stores it, made, as it says, with an old library."""
    from sklearn.linear_model import LogisticRegression

    rows = frame()
    folder = tmp_path_factory.mktemp("sklearn") / "model"
    save_model(
        LogisticRegression().fit(rows, [0, 1, 0]),
        folder,
        flavor="sklearn",
        serialization="cloudpickle",
        inputs=input_schema(rows),
        sample=rows,
        example=rows,
        classifier=True,
        requirements=["scikit-learn==0.1", f"pandas=={metadata.version('pandas')}"],
    )
    return folder


def test_a_good_model_is_measured_and_differing_versions_are_told_not_punished(
    sklearn_model: Path, tmp_path: Path
) -> None:
    spec = ServingSpec(repeats=3)

    served = check_serving(sklearn_model, tmp_path, spec)

    assert served.ok, problem(served)
    assert (served.rows, served.repeats) == (3, 3)
    assert served.load_seconds is not None
    assert served.call_milliseconds is not None
    assert served.row_milliseconds == pytest.approx(served.call_milliseconds / 3)
    assert served.peak_memory_bytes is not None
    assert 10**7 < served.peak_memory_bytes < 4096 * serving.MIB
    assert served.python_version == platform.python_version()
    assert [said(one) for one in served.differences] == [
        f"scikit-learn (trained with 0.1, here {metadata.version('scikit-learn')})"
    ]
    assert "scikit-learn (trained with 0.1" in sentence(served, spec)
    assert problem(served) is None


def test_a_module_that_only_this_process_can_import_is_named_with_the_likely_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The team's code path is on this process's import path and in PYTHONPATH, and yet not in the fresh interpreter."""
    team = tmp_path / "team"
    team.mkdir()
    (team / "features_of_the_team.py").write_text("")
    monkeypatch.syspath_prepend(str(team))
    monkeypatch.setenv("PYTHONPATH", str(team))
    monkeypatch.chdir(team)
    model = save(tmp_path / "model", "[1.0] * len(model_input)", before="import features_of_the_team\n")
    (model / "requirements.txt").write_text("\n".join([*SMALL, "a-library-nobody-has==1.0"]))
    (tmp_path / "scratch").mkdir()

    served = check_serving(model, tmp_path / "scratch", ServingSpec())

    assert not served.ok
    told = problem(served)
    assert told is not None
    assert "does not load: the fresh interpreter has no module 'features_of_the_team'" in told
    assert "a-library-nobody-has (trained with 1.0, here not installed)" in told
    assert "cloudpickle" in told
    assert "Traceback" not in told
    assert "features_of_the_team" in served.traceback
    assert sentence(served, ServingSpec()).startswith("This model cannot be served: it does not load")


def test_a_model_that_never_answers_is_stopped_and_its_last_words_are_shown(tmp_path: Path) -> None:
    model = save(tmp_path / "model", "time.sleep(36000)")
    (tmp_path / "scratch").mkdir()

    served = check_serving(model, tmp_path / "scratch", ServingSpec(timeout_seconds=8))

    # How far it got in that time is the machine's affair.
    assert served.what.startswith("it was stopped ")
    assert served.what.endswith(", after the 8 s that serving.timeout_seconds allows.")
    assert served.call_seconds is None
    assert ("a model's own words" in (problem(served) or "")) == ("in its first call" in served.what)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="memory is looked at in /proc")
def test_a_model_that_takes_too_much_memory_is_stopped(tmp_path: Path) -> None:
    model = save(tmp_path / "model", "[bytes(range(256)) * 2**17 for _ in range(2**20)]")
    (tmp_path / "scratch").mkdir()

    served = check_serving(model, tmp_path / "scratch", ServingSpec(memory_mb=400))

    assert "MiB of memory; serving.memory_mb allows 400." in served.what
    assert served.what.startswith("it was stopped in its first call")
    assert served.peak_memory_bytes is not None
    assert served.peak_memory_bytes > 400 * serving.MIB


def probed(model: Path, folder: Path, **other: Any) -> dict[str, Any]:
    """Run the probe in this process, which has loaded MLflow already; return its answer."""
    request = {"model": str(model), "repeats": 2, "budget_seconds": 60.0, **other}
    answer = serving_probe.Answer(folder / "answer.json")
    before = list(sys.path)
    try:
        serving_probe.probe(request, answer)
    except Exception as exc:  # noqa: BLE001  # as the probe itself does
        answer.tell(problem=serving_probe._finding(exc))
    finally:
        sys.path[:] = before
    return serving.read_answer(folder / "answer.json")


def judged(answer: dict[str, Any], **ended: Any) -> serving.Served:
    values = {"reason": "ended", "code": 0, "seconds": 1.0, "peak_bytes": 0, "output": "", **ended}
    return serving._judged(Ended(**values), answer, ServingSpec(memory_mb=500), ())


@pytest.mark.parametrize(
    ("body", "told"),
    [
        pytest.param("[1.0]", "gives 1 predictions for the 3 rows", id="too few predictions"),
        pytest.param("None", "gives 0 predictions for the 3 rows", id="nothing at all"),
        pytest.param("[float('nan')] * 3", "3 of its 3 predictions", id="NaN only"),
        pytest.param("[1.0, float('inf'), 2.0]", "1 of its 3 predictions", id="one infinity"),
        pytest.param("[None, 'a', 'b']", "1 of its 3 predictions", id="one missing label"),
        pytest.param("model_input.assign(hour=float('nan'))", "3 of its 3 predictions", id="a column of NaN"),
        pytest.param("1 / 0", "does not predict for its own input example: ZeroDivisionError", id="an error"),
        pytest.param("['late'] * 3", None, id="labels"),
        pytest.param("model_input", None, id="a table"),
        pytest.param("model_input.to_numpy()", None, id="an array"),
        pytest.param("{'a': [1.0] * 3, 'b': ['x'] * 3}", None, id="columns by name"),
    ],
)
def test_what_a_model_answers(tmp_path: Path, body: str, told: str | None) -> None:
    answer = probed(save(tmp_path / "model", body), tmp_path)

    served = judged(answer)
    if told is None:
        assert served.ok, problem(served)
        assert served.repeats == 2
    else:
        assert told in served.what
        assert served.why
        assert served.rows == 3


def test_a_model_without_an_example_cannot_be_tried(tmp_path: Path) -> None:
    none = judged(probed(save(tmp_path / "none", "[1.0] * 3", example=False), tmp_path))
    lost = save(tmp_path / "lost", "[1.0] * 3")
    (lost / "input_example.json").unlink()

    assert none.what == "it has no input example, so there is nothing to score."
    assert judged(probed(lost, tmp_path)).what.startswith("its input example cannot be read")


def test_timestamps_with_a_zone_are_scored_as_mlflow_takes_them(tmp_path: Path) -> None:
    import pandas as pd
    from sklearn.dummy import DummyRegressor

    rows = pd.DataFrame({"at": pd.date_range("2024-01-01", periods=3, tz="Europe/Brussels"), "x": [1.0, 2.0, 3.0]})
    save_model(
        DummyRegressor().fit(rows, [1.0, 2.0, 3.0]),
        tmp_path / "model",
        flavor="sklearn",
        serialization="cloudpickle",
        inputs=input_schema(rows),
        sample=rows,
        example=rows,
        classifier=False,
        requirements=["scikit-learn"],
    )

    served = judged(probed(tmp_path / "model", tmp_path))

    assert served.ok, problem(served)


def test_what_has_rows() -> None:
    import numpy as np

    chat = {"messages": [{"role": "user", "content": "hello"}, {"role": "user", "content": "again"}]}
    tensors = {"ids": np.zeros((4, 2)), "mask": np.zeros((4, 2))}

    assert [serving_probe.is_table(one) for one in (chat, "text", {}, tensors, frame(), ["a", "b"])] == [
        False, False, False, True, True, True,
    ]  # fmt: skip
    assert [serving_probe.count(one) for one in (tensors, frame(), ["a", "b"], "text", None)] == [4, 3, 2, 1, 0]


def test_repeated_calls_stop_when_half_the_time_is_gone(tmp_path: Path) -> None:
    answer = probed(save(tmp_path / "model", "[1.0] * 3"), tmp_path, repeats=10_000, budget_seconds=0.0)

    assert (answer["stage"], answer["repeats"]) == ("done", 1)


DONE = {"stage": "done", "rows": 3, "repeats": 2, "call_seconds": 0.001, "peak_memory_bytes": 100 * serving.MIB}


@pytest.mark.parametrize(
    ("answer", "ended", "told"),
    [
        pytest.param(DONE, {}, "", id="all is well"),
        pytest.param(
            {**DONE, "peak_memory_bytes": 600 * serving.MIB},
            {},
            "took 600 MiB of memory",
            id="a peak between two looks",
        ),
        pytest.param(
            {"stage": "load"},
            {"code": -signal.SIGKILL},
            "the system killed its interpreter while it loaded",
            id="killed",
        ),
        pytest.param(
            {"stage": "predict"}, {"code": -signal.SIGSEGV}, "crashed in its first call (SIGSEGV)", id="crash"
        ),
        pytest.param({"stage": "repeat"}, {"code": 0}, "ended in a later call, with code 0", id="it left"),
        pytest.param({}, {"code": 1}, "ended while it started, with code 1", id="it never began"),
        pytest.param(
            {"stage": "load"}, {"reason": "timed_out", "code": -9}, "stopped while it loaded the model", id="too slow"
        ),
        pytest.param(
            {"stage": "import", "problem": {"kind": "raised", "type": "ModuleNotFoundError", "message": "No mlflow"}},
            {},
            "MLflow cannot be imported",
            id="no MLflow",
        ),
    ],
)
def test_how_the_interpreter_ended(answer: dict[str, Any], ended: dict[str, Any], told: str) -> None:
    served = judged(answer, **ended)

    assert served.ok == (not told)
    assert told in served.what
    assert bool(served.why) == bool(told)


def test_an_answer_that_cannot_be_read_is_no_answer(tmp_path: Path) -> None:
    file = tmp_path / "answer.json"

    for content in ("", "{", "[1]"):
        file.write_text(content)
        assert serving.read_answer(file) == {}


# --- environments -------------------------------------------------------------------------------------------------


def test_differences_are_what_the_requirements_do_not_allow(tmp_path: Path) -> None:
    numpy = metadata.version("numpy")
    (tmp_path / "requirements.txt").write_text(
        "\n".join(
            [
                "--index-url https://example.invalid/simple",
                "# a comment",
                f"NumPy=={numpy}  # the same",
                "pandas>=1",
                "scikit_learn<0.5,>=0.1",
                "skops",
                "an-unknown-library",
                "another==2.0 ; python_version < '3'",
                "git+https://example.invalid/model.git",
            ]
        )
    )
    (tmp_path / "python_env.yaml").write_text("python: 2.7.18\n")

    found = {one.name: (one.recorded, one.installed) for one in differences(tmp_path)}

    assert found == {
        "python": ("2.7.18", platform.python_version()),
        "scikit-learn": (found["scikit-learn"][0], metadata.version("scikit-learn")),
        "an-unknown-library": (None, None),
    }
    assert set(str(found["scikit-learn"][0]).split(",")) == {"<0.5", ">=0.1"}
    assert [one.name for one in differences(tmp_path, libraries=False)] == ["python"]


def test_another_patch_release_of_python_is_no_difference(tmp_path: Path) -> None:
    major, minor, _ = platform.python_version_tuple()
    (tmp_path / "conda.yaml").write_text(f"dependencies: [python={major}.{minor}.99, {{pip: []}}]\n")

    assert model_environments.recorded_python(tmp_path) == f"{major}.{minor}.99"
    assert differences(tmp_path) == []


def test_a_fresh_interpreter_gets_no_login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_DEFAULT", "secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "secret")
    monkeypatch.setenv("UV_INDEX_URL", "https://me:secret@example.invalid/simple")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    assert "secret" not in json.dumps(plain_environment(tmp_path))
    assert plain_environment(tmp_path)["OMP_NUM_THREADS"] == "1"
    assert "UV_INDEX_URL" in plain_environment(tmp_path, installing=True)
    assert "AWS_SECRET_ACCESS_KEY" not in plain_environment(tmp_path, installing=True)


def test_an_environment_is_built_and_the_model_served_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = "[float(__import__('importlib.util').util.find_spec('sklearn') is None)] * len(model_input)"
    model = save(tmp_path / "model", body)
    spec = ServingSpec(env="build", repeats=1)
    # The set-up has put these versions into uv's cache, unless it had to fall back to pip.
    for place in ("offline", "scratch"):
        monkeypatch.setenv("UV_OFFLINE", "1" if place == "offline" else "0")
        (tmp_path / place).mkdir()
        served = check_serving(model, tmp_path / place, spec)
        if served.ok:
            break

    assert served.ok, problem(served)
    assert "in an environment of its own" in sentence(served, spec)
    python = tmp_path / place / "build" / "environment"
    libraries = {path.name for path in python.glob("lib/python*/site-packages/*")}
    assert "pandas" in libraries
    assert "airflow_mlops" not in libraries
    assert "sklearn" not in libraries


@pytest.fixture(params=[pytest.param(True, id="uv"), pytest.param(False, id="pip")])
def installer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each installer in turn, without settings of this machine, failing fast."""
    if request.param and model_environments.find_uv() is None:
        pytest.skip("uv is not installed here, as in the environment of Airflow 2.11; pip is tried")
    if not request.param:
        monkeypatch.setattr(model_environments, "find_uv", lambda: None)
    for name in [name for name in os.environ if name.startswith(("PIP_", "UV_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("UV_NO_CONFIG", "1")
    monkeypatch.setenv("PIP_RETRIES", "1")  # pip says nothing of the first try
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    return "uv" if request.param else "pip"


def needing(folder: Path, *lines: str) -> Path:
    folder.mkdir()
    (folder / "requirements.txt").write_text("\n".join(lines))
    return folder


#: Nobody listens on the discard port, so this is an index that does not answer.
AWAY = "http://me:hunter2@127.0.0.1:9/simple"


def test_an_index_that_is_away_is_an_outage_and_shows_no_login(
    installer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_INDEX_URL", AWAY)
    monkeypatch.setenv("PIP_INDEX_URL", AWAY)
    model = needing(tmp_path / "model", "no-such-library==1.0")

    with pytest.raises(OutageError, match=f"{installer} cannot reach its package index") as caught:
        build_environment(model, tmp_path / "build", timeout_seconds=300)

    assert "no-such-library" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_an_environment_that_cannot_be_resolved_is_a_finding(installer: str, tmp_path: Path) -> None:
    (tmp_path / "wheels").mkdir()
    model = needing(tmp_path / "model", "--no-index", f"--find-links {tmp_path / 'wheels'}", "no-such-library==1.0")

    built = build_environment(model, tmp_path / "build", timeout_seconds=300)

    assert built.python is None
    assert built.what.startswith("no environment could be built from its requirements.txt")
    assert "train.requirements" in built.why
    assert "no-such-library" in built.output


def test_a_library_that_does_not_compile_is_a_finding_whatever_it_says_and_shows_no_login(
    installer: str, tmp_path: Path
) -> None:
    library = tmp_path / "library"
    library.mkdir()
    (library / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        '[project]\nname = "a-library"\nversion = "1"\n'
    )
    (library / "backend.py").write_text(
        "def build_wheel(*args, **more):\n    raise SystemExit('http://me:hunter2@host: Connection refused')\n"
    )
    model = needing(tmp_path / "model", "--no-index", str(library))

    built = build_environment(model, tmp_path / "build", timeout_seconds=300)

    assert built.what.startswith("no environment could be built from its requirements.txt")
    assert "://***@host: Connection refused" in built.output
    assert "hunter2" not in built.output


@pytest.mark.parametrize(
    ("output", "outage"),
    [
        pytest.param("error: Failed to fetch\n  cause: client error (Connect)\n  cause: dns error", True, id="uv, dns"),
        pytest.param("HTTP status server error (503 Service Unavailable) for url (http://i/)", True, id="uv, 503"),
        pytest.param("HTTP status client error (429 Too Many Requests) for url (http://i/)", True, id="uv, 429"),
        pytest.param("HTTP status client error (404 Not Found) for url (http://i/)", False, id="uv, 404"),
        pytest.param("Failed to download distribution due to network timeout.", True, id="uv, slow"),
        pytest.param("ERROR: HTTP error 502 while getting http://i/a.whl", True, id="pip, 502"),
        pytest.param("ERROR: 500 Server Error: Oh for url: http://i/a", True, id="pip, 500"),
        pytest.param("ERROR: 403 Client Error: Forbidden for url: http://i/a", False, id="pip, 403"),
        pytest.param(
            "WARNING: Retrying (Retry(total=4, connect=None)) after connection broken by 'ConnectionResetError(104, "
            "'Connection reset by peer')': /a/\nERROR: No matching distribution found for a==1",
            False,
            id="pip, the next try went well",
        ),
        pytest.param("ERROR: No matching distribution found for async-timeout==500", False, id="pip, resolution"),
        pytest.param(
            "x Failed to build `a==1`\n The build backend returned an error\n [stderr]\n Connection refused",
            False,
            id="uv, a library's own set-up",
        ),
        pytest.param("client error (Connect)\n invalid peer certificate: UnknownIssuer", False, id="uv, certificate"),
    ],
)
def test_what_an_installer_says_is_an_outage_or_not(output: str, outage: bool) -> None:
    assert is_outage(output) is outage


def test_a_build_that_takes_too_long_or_has_nothing_to_install(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("# nothing\n")
    assert (
        "requirements.txt is missing or empty" in build_environment(tmp_path, tmp_path / "a", timeout_seconds=60).what
    )

    (tmp_path / "requirements.txt").write_text("numpy\n")
    late = build_environment(tmp_path, tmp_path / "b", timeout_seconds=0.0)
    assert "longer than the 0 s that serving.build_timeout_seconds allows" in late.what


def test_logins_are_hidden() -> None:
    text = "GET https://me:p@ss@host/simple and token abcd1234 and http://host/a@b"

    hidden = hide_logins(text, {"UV_INDEX_X_PASSWORD": "abcd1234", "UV_TOKEN": "e"})

    assert hidden == "GET https://***@host/simple and token *** and http://host/a@b"
