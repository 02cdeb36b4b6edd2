"""Models as folders: formats, signature, example, digest, and loading where the team's code is not."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from airflow_mlops.engines.code import team_code
from airflow_mlops.engines.flavors import check_format, known_flavors
from airflow_mlops.engines.models import SavedModel, load_predictor, model_digest, save_model
from airflow_mlops.engines.signatures import input_example, input_schema, output_schema
from airflow_mlops.errors import InvalidSpecError, ModelRefusedError, UnknownNameError

ROWS = 400


def table(rows: int = ROWS) -> pd.DataFrame:
    rng = np.random.default_rng(7)
    return pd.DataFrame(
        {
            "distance": rng.integers(100, 3000, rows),
            "temp": np.where(rng.random(rows) < 0.1, np.nan, rng.normal(10, 5, rows)),
            "carrier": rng.choice(["AA", "B6", "UA"], rows),
        }
    )


def target(frame: pd.DataFrame) -> pd.Series:
    return ((frame["distance"] > 1500) ^ (frame["carrier"] == "B6")).astype("int64")


def sklearn_model(frame: pd.DataFrame) -> Any:
    from sklearn.compose import make_column_transformer
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OrdinalEncoder

    columns = make_column_transformer((OrdinalEncoder(), ["carrier"]), remainder="passthrough")
    return make_pipeline(columns, HistGradientBoostingClassifier(max_iter=5, random_state=7)).fit(frame, target(frame))


def save(
    model: Any, folder: Path, flavor: str = "sklearn", serialization: str = "cloudpickle", **kw: Any
) -> SavedModel:
    frame = kw.pop("features", table())
    return save_model(
        model,
        folder,
        flavor=flavor,
        serialization=serialization,
        inputs=input_schema(frame),
        sample=frame.head(100),
        example=input_example(frame),
        classifier=kw.pop("classifier", True),
        requirements=["scikit-learn", "numpy"],
        **kw,
    )


class TestFormats:
    @pytest.mark.parametrize(
        ("flavor", "serialization", "error", "said"),
        [
            pytest.param("sklearn", None, InvalidSpecError, "cloudpickle, pickle, skops", id="several and none chosen"),
            pytest.param("lightgbm", None, InvalidSpecError, "skops, text", id="lightgbm has several too"),
            pytest.param("sklearn", "cloudpikle", UnknownNameError, "'cloudpickle'?", id="the nearest format"),
            pytest.param("sklern", "pickle", UnknownNameError, "Did you mean 'sklearn'?", id="the nearest flavour"),
            pytest.param("statsmodels", "pickle", InvalidSpecError, "has one format", id="one format, and one chosen"),
        ],
    )
    def test_refused(self, flavor: str, serialization: str | None, error: type[Exception], said: str) -> None:
        with pytest.raises(error) as caught:
            check_format(flavor, serialization)
        assert said in str(caught.value)

    def test_one_format_needs_no_choice(self) -> None:
        assert check_format("statsmodels", None) == "native"

    def test_the_names_are_mlflows_own(self) -> None:
        from mlflow.sklearn import SUPPORTED_SERIALIZATION_FORMATS

        for name in SUPPORTED_SERIALIZATION_FORMATS:
            assert check_format("sklearn", name) == name

    def test_known_flavours_are_read_without_importing_them(self) -> None:
        assert {"sklearn", "lightgbm", "xgboost", "pytorch", "pyfunc"} <= set(known_flavors())
        assert "tracking" not in known_flavors()


class TestSaving:
    @pytest.mark.parametrize("serialization", ["cloudpickle", "pickle", "skops"])
    def test_sklearn_comes_back_as_it_was(self, tmp_path: Path, serialization: str) -> None:
        frame = table()
        model = sklearn_model(frame)
        saved = save(model, tmp_path / "model", serialization=serialization)
        again = load_predictor(saved.folder)

        assert type(again) is type(model)
        np.testing.assert_array_equal(again.predict_proba(frame), model.predict_proba(frame))

    @pytest.mark.parametrize(
        ("kind", "serialization"),
        [
            pytest.param("LGBMClassifier", "cloudpickle", id="estimator, cloudpickle"),
            pytest.param("LGBMClassifier", "skops", id="estimator, skops"),
            pytest.param("Booster", "text", id="booster, text"),
        ],
    )
    def test_lightgbm_comes_back_as_it_was(self, tmp_path: Path, kind: str, serialization: str) -> None:
        import lightgbm

        frame = table()[["distance", "temp"]]
        model: Any = lightgbm.LGBMClassifier(n_estimators=5, verbose=-1).fit(frame, target(table()))
        if kind == "Booster":
            model = model.booster_
        saved = save(model, tmp_path / "model", "lightgbm", serialization, features=frame)
        again = load_predictor(saved.folder)

        assert type(again).__name__ == kind
        np.testing.assert_array_equal(again.predict(frame), model.predict(frame))

    @pytest.mark.parametrize(
        ("booster", "serialization", "said"),
        [
            pytest.param(True, "pickle", "returned a Booster", id="a booster is text"),
            pytest.param(False, "text", "returned a LGBMRegressor", id="an estimator is not"),
        ],
    )
    def test_lightgbm_format_must_fit_the_class(
        self, tmp_path: Path, booster: bool, serialization: str, said: str
    ) -> None:
        import lightgbm

        frame = table()[["distance"]]
        model: Any = lightgbm.LGBMRegressor(n_estimators=2, verbose=-1).fit(frame, target(table()))
        with pytest.raises(ModelRefusedError, match=said):
            save(model.booster_ if booster else model, tmp_path / "m", "lightgbm", serialization, features=frame)

    def test_a_flavour_of_one_format_works_through_mlflows_wrapper(self, tmp_path: Path) -> None:
        import statsmodels.api

        frame = table()[["distance"]]
        frame["constant"] = 1.0
        model = statsmodels.api.OLS(target(table()), frame).fit()
        saved = save(model, tmp_path / "m", "statsmodels", "native", features=frame, classifier=False)

        np.testing.assert_allclose(np.ravel(load_predictor(saved.folder).predict(frame)), model.predict(frame))
        assert signature(saved)["inputs"] is not None

    def test_pyfunc_models(self, tmp_path: Path) -> None:
        import mlflow.pyfunc

        class Constant(mlflow.pyfunc.PythonModel):
            def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> Any:
                return np.full(len(model_input), 0.5)

        saved = save(Constant(), tmp_path / "m", "pyfunc", "native")

        assert load_predictor(saved.folder).predict(table(3)).tolist() == [0.5] * 3

    def test_a_model_that_cannot_be_pickled_is_refused_with_the_mend(self, tmp_path: Path) -> None:
        model = sklearn_model(table())
        model.steps[0][1].lock = threading.Lock()
        with pytest.raises(ModelRefusedError, match=r"Check train\.flavor and train\.serialization"):
            save(model, tmp_path / "m")

    def test_a_model_must_give_one_prediction_per_row(self, tmp_path: Path) -> None:
        class Short:
            def predict(self, frame: pd.DataFrame) -> Any:
                return np.zeros(3)

        with pytest.raises(ModelRefusedError, match="3 predictions for 100 rows"):
            save(Short(), tmp_path / "m", classifier=False)

    def test_classes_and_facts_are_in_the_metadata(self, tmp_path: Path) -> None:
        saved = save(sklearn_model(table()), tmp_path / "m", metadata={"dataset_digest": "d"})

        assert described(saved)["metadata"] == {"classes": [0, 1], "dataset_digest": "d"}

    def test_requirements_are_those_given(self, tmp_path: Path) -> None:
        saved = save(sklearn_model(table()), tmp_path / "m")
        lines = (saved.folder / "requirements.txt").read_text().split()

        assert {"scikit-learn", "numpy"} <= set(lines)
        assert {line.partition("==")[0] for line in lines} == {"scikit-learn", "numpy", "mlflow"}


def described(saved: SavedModel) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((saved.folder / "MLmodel").read_text())
    return content


def signature(saved: SavedModel) -> dict[str, Any]:
    found: dict[str, Any] = described(saved)["signature"]
    return found


class TestSignature:
    def test_served_probabilities(self, tmp_path: Path) -> None:
        import json

        import mlflow.pyfunc

        frame = table()
        model = sklearn_model(frame)
        saved = save(model, tmp_path / "m")
        served = mlflow.pyfunc.load_model(str(saved.folder)).predict(frame)

        np.testing.assert_array_equal(served, model.predict_proba(frame))
        (output,) = json.loads(signature(saved)["outputs"])
        assert output["tensor-spec"] == {"dtype": "float64", "shape": [-1, 2]}

    @pytest.mark.parametrize(
        ("values", "kind", "required"),
        [
            pytest.param(pd.Series([1, 2]), "long", True, id="whole numbers"),
            pytest.param(pd.Series([1, 2], dtype="int16"), "integer", True, id="short whole numbers"),
            pytest.param(pd.Series([1, 2], dtype="uint32"), "long", True, id="uint32 needs 64 bits"),
            pytest.param(pd.Series([1, None], dtype="Int64"), "long", False, id="nullable whole numbers"),
            pytest.param(pd.Series([1.5, None]), "double", False, id="missing makes it optional"),
            pytest.param(pd.Series([1.5], dtype="float32"), "float", True, id="short floats"),
            pytest.param(pd.Series([True, False]), "boolean", True, id="booleans"),
            pytest.param(pd.Series([True, None], dtype=object), "boolean", False, id="booleans, one missing"),
            pytest.param(pd.Series(["a", None]), "string", False, id="text"),
            pytest.param(pd.Series(["a", None], dtype=object), "string", False, id="text as objects"),
            pytest.param(pd.Series(["a", "b"], dtype="category"), "string", True, id="categories of text"),
            pytest.param(pd.Series([1, 2], dtype="category"), "long", True, id="categories of numbers"),
            pytest.param(pd.Series(pd.to_datetime(["2013-01-01"])), "datetime", True, id="timestamps"),
        ],
    )
    def test_types(self, values: pd.Series, kind: str, required: bool) -> None:
        (column,) = input_schema(values.to_frame("c")).inputs

        assert (column.type.name, column.required) == (kind, required)

    @pytest.mark.parametrize(
        ("values", "said"),
        [
            pytest.param(pd.Series([1, "a"], dtype=object), "holding mixed-integer", id="mixed"),
            pytest.param(pd.Series([[1], [2]]), "holding mixed", id="lists"),
            pytest.param(pd.Series([2**63], dtype="uint64"), "uint64 does not fit", id="too large"),
            pytest.param(pd.Series([None, None], dtype=object), "no value at all", id="nothing"),
            pytest.param(pd.Series(pd.to_timedelta(["1s"])), "timedelta64", id="spans of time"),
        ],
    )
    def test_a_column_without_a_type_is_refused_by_name(self, values: pd.Series, said: str) -> None:
        frame = pd.DataFrame({"fine": [1] * len(values), "broken": values})
        with pytest.raises(ModelRefusedError, match=rf"no signature: .*'broken' .*{said}"):
            input_schema(frame)

    def test_long_accepts_the_rows_the_model_was_trained_on_and_double_would_not(self, tmp_path: Path) -> None:
        """The reason for ``long``: MLflow's own scoring refuses 64-bit integers under ``double``."""
        import mlflow.pyfunc
        from mlflow.exceptions import MlflowException
        from mlflow.models import Model
        from mlflow.types import ColSpec, Schema

        frame = table()
        saved = save(sklearn_model(frame), tmp_path / "m")
        assert len(mlflow.pyfunc.load_model(str(saved.folder)).predict(frame)) == len(frame)

        model = Model.load(str(saved.folder))
        columns = [ColSpec("double" if c.name == "distance" else c.type, c.name) for c in model.signature.inputs]
        model.signature.inputs = Schema(columns)
        model.save(str(saved.folder / "MLmodel"))
        with pytest.raises(MlflowException, match="distance"):
            mlflow.pyfunc.load_model(str(saved.folder)).predict(frame)

    @pytest.mark.parametrize(
        ("predictions", "words"),
        [
            pytest.param(np.zeros((4, 3)), "Tensor", id="probabilities"),
            pytest.param(np.array(["a", "b"], dtype=object), "string", id="labels of text"),
            pytest.param(pd.Series([1.0]), "double", id="a series"),
            pytest.param(pd.DataFrame({"low": [1.0], "high": [2.0]}), "high", id="a frame"),
        ],
    )
    def test_outputs(self, predictions: Any, words: str) -> None:
        assert words in str(output_schema(predictions))

    @pytest.mark.parametrize(
        "predictions", [None, "text", {"a": 1}, [object()]], ids=["nothing", "text", "a dict", "objects"]
    )
    def test_strange_outputs_are_refused(self, predictions: Any) -> None:
        with pytest.raises(ModelRefusedError, match="no signature"):
            output_schema(predictions)


class TestExample:
    def test_it_has_the_columns_and_types_and_predicts(self) -> None:
        frame = table()
        example = input_example(frame)

        assert example.dtypes.to_dict() == frame.dtypes.to_dict()
        assert sklearn_model(frame).predict_proba(example).shape == (3, 2)

    def test_hidden_columns_show_nothing_of_the_data(self) -> None:
        frame = pd.DataFrame(
            {"name": ["Ada"] * 50, "age": [41] * 50, "born": pd.to_datetime(["1815-12-10"] * 50), "city": ["Rome"] * 50}
        )
        example = input_example(frame, hidden={"name", "age", "born"})

        assert example.dtypes.to_dict() == frame.dtypes.to_dict()
        text = example.to_csv()
        assert "Rome" in text
        assert not [word for word in ("Ada", "41", "1815") if word in text]

    def test_rare_text_is_not_shown(self) -> None:
        frame = pd.DataFrame({"note": [f"call {n} back" for n in range(100)]})

        assert set(input_example(frame)["note"]) == {"example"}

    @pytest.mark.parametrize(
        "values",
        [
            pytest.param(pd.Series([None, None, None], dtype="float64"), id="no value"),
            pytest.param(pd.Series([1, None, 3], dtype="Int64"), id="nullable whole numbers"),
            pytest.param(pd.Series([True, None, False], dtype="boolean"), id="nullable booleans"),
            pytest.param(pd.Series(["a", "b", None], dtype="category"), id="rare categories"),
            pytest.param(pd.Series(pd.to_datetime(["2013-01-01", None, None], utc=True)), id="zoned timestamps"),
            pytest.param(pd.Series([1, 2, 3], dtype="int8"), id="short whole numbers"),
        ],
    )
    def test_every_type(self, values: pd.Series) -> None:
        example = input_example(values.to_frame("c"))

        assert len(example) == 3
        assert example["c"].dtype == values.dtype


class TestDigest:
    def test_training_twice_gives_equal_digests(self, tmp_path: Path) -> None:
        one = save(sklearn_model(table()), tmp_path / "one")
        two = save(sklearn_model(table()), tmp_path / "two")

        assert one.digest == two.digest
        assert (one.folder / "MLmodel").read_text() != (two.folder / "MLmodel").read_text()

    def test_it_survives_what_mlflow_adds(self, tmp_path: Path) -> None:
        saved = save(sklearn_model(table()), tmp_path / "m")
        (saved.folder / "registered_model_meta").write_text("model_name: x\nmodel_version: '1'\n")

        assert model_digest(saved.folder) == saved.digest

    @pytest.mark.parametrize(
        "tamper",
        [
            pytest.param(lambda folder: (folder / "model.pkl").write_bytes(b"x"), id="other weights"),
            pytest.param(lambda folder: (folder / "extra.py").write_text("x"), id="a file more"),
            pytest.param(lambda folder: (folder / "requirements.txt").unlink(), id="a file less"),
            pytest.param(lambda folder: (folder / "model.pkl").rename(folder / "model2.pkl"), id="a renamed file"),
            pytest.param(
                lambda folder: (folder / "MLmodel").write_text(
                    (folder / "MLmodel")
                    .read_text()
                    .replace("serialization_format: cloudpickle", "serialization_format: pickle")
                ),
                id="another format in MLmodel",
            ),
        ],
    )
    def test_any_change_shows(self, tmp_path: Path, tamper: Callable[[Path], Any]) -> None:
        saved = save(sklearn_model(table()), tmp_path / "m")
        tamper(saved.folder)

        assert model_digest(saved.folder) != saved.digest

    def test_links_are_refused(self, tmp_path: Path) -> None:
        saved = save(sklearn_model(table()), tmp_path / "m")
        (saved.folder / "link").symlink_to("/etc/hostname")
        with pytest.raises(ModelRefusedError, match="holds a link, link"):
            model_digest(saved.folder)

    @pytest.mark.parametrize("text", [": no: yaml", "[]", "name: x"], ids=["broken", "a list", "no flavours"])
    def test_what_is_no_model_is_refused(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "MLmodel").write_text(text)
        with pytest.raises(ModelRefusedError, match="MLmodel"):
            model_digest(tmp_path)


TEAM = """
from helpers import SCALE
from sklearn.base import BaseEstimator, ClassifierMixin
import numpy as np

class Halves(ClassifierMixin, BaseEstimator):
    def fit(self, data, target):
        self.classes_ = np.unique(target)
        return self
    def predict_proba(self, data):
        share = np.full(len(data), SCALE)
        return np.column_stack([1 - share, share])
    def predict(self, data):
        return self.classes_[np.ones(len(data), dtype=int)]
"""
LOAD = """
import sys
import pandas as pd
from pathlib import Path
from airflow_mlops.engines.models import load_predictor
model = load_predictor(Path(sys.argv[1]))
print(model.predict_proba(pd.DataFrame({"distance": [1, 2]})).tolist())
print(sorted({"halves", "helpers"} & set(sys.modules)))
"""


class TestTeamClasses:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        (tmp_path / "halves.py").write_text(TEAM)
        (tmp_path / "helpers.py").write_text("SCALE = 0.25\n")
        return tmp_path

    def test_they_load_in_an_interpreter_without_the_teams_modules(self, folder: Path) -> None:
        frame = table()[["distance"]]
        with team_code(folder) as code:
            model = code.function("halves:Halves")().fit(frame, target(table()))
            saved = save(model, folder / "m", features=frame)
        shutil.move(saved.folder, folder / "elsewhere")
        (folder / "halves.py").unlink()
        (folder / "helpers.py").unlink()
        done = subprocess.run(
            [sys.executable, "-c", LOAD, str(folder / "elsewhere")], capture_output=True, text=True, timeout=300
        )

        assert done.stdout.split("\n")[:2] == ["[[0.75, 0.25], [0.75, 0.25]]", "[]"], done.stderr[-2000:]

    def test_pickle_refuses_to_load_them_and_says_what_was_needed(self, folder: Path) -> None:
        frame = table()[["distance"]]
        with team_code(folder) as code:
            model = code.function("halves:Halves")().fit(frame, target(table()))
            saved = save(model, folder / "m", serialization="pickle", features=frame)
        with pytest.raises(ModelRefusedError, match=r"halves.*It was made with: .*scikit-learn"):
            load_predictor(saved.folder)


class TestLoading:
    def test_an_unknown_flavour_is_refused_with_those_it_has(self, tmp_path: Path) -> None:
        saved = save(sklearn_model(table()), tmp_path / "m")
        with pytest.raises(ModelRefusedError, match="it has python_function, sklearn"):
            load_predictor(saved.folder, "lightgbm")

    def test_the_generic_wrapper_on_demand(self, tmp_path: Path) -> None:
        saved = save(sklearn_model(table()), tmp_path / "m")

        assert load_predictor(saved.folder, "pyfunc").predict(table(4)).shape == (4, 2)
