from __future__ import annotations

import json
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from airflow_mlops import load_spec
from airflow_mlops.cli import main
from airflow_mlops.cli.dag_picture import Box, Line, Scene, _steps, _texts, _width, draw, png, svg
from airflow_mlops.cli.dag_view import DagView, reduced, view
from airflow_mlops.spec.fleet import dag_ids, dag_kinds, model_files
from airflow_mlops.spec.load import spec_of
from airflow_mlops.spec.yaml_lines import load_yaml

ROOT = Path(__file__).parents[3]
FLIGHTS = ROOT / "dags" / "flights.yaml"
BASE = """\
owner: ann
data: {uri: lake/churn, event_time: at}
contract: {path: contract.yaml}
evaluation: {task: binary, metrics: [roc_auc]}
schedule: {retries: 5}
"""
MODEL = """\
extends: _base.yaml
name: churn
train:
  function: churn:train
  target: left
  window: {length: 2 months}
  parameters: {depth: 3, password: hunter2}
gate: {rules: [{rule: at_least, metric: roc_auc, value: 0.7}]}
runtime: {name: external_python, python: /opt/python, env: {API_TOKEN: hunter2, LEVEL: 1}}
profiles:
  dev:
    data: {uri: lake/small}
    schedule: {retries: 0}
"""


@pytest.fixture
def churn(tmp_path: Path) -> Path:
    (tmp_path / "_base.yaml").write_text(BASE)
    (tmp_path / "churn.yaml").write_text(MODEL)
    (tmp_path / "contract.yaml").write_text("expectations: [{type: expect_column_to_exist, kwargs: {column: at}}]\n")
    return tmp_path / "churn.yaml"


def rendered(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["render", *words]) == 0
    return capsys.readouterr().out


# The specification


@pytest.mark.parametrize("file", model_files(ROOT / "dags"), ids=lambda file: file.name)
def test_the_printed_specification_reads_as_the_same_one(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "printed.yaml").write_text(rendered(capsys, str(file), "--dag", "none"))
    data, _ = load_yaml(tmp_path / "printed.yaml")

    assert spec_of(data, {}, file.parent) == load_spec(file)


def test_every_value_says_where_it_is_from(churn: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = json.loads(rendered(capsys, str(churn), "--profile", "dev", "--owner", "bob", "--dag", "none", "--json"))

    origins = {key: (one["from"], one.get("line")) for key, one in told["origins"].items()}
    assert origins["data.uri"] == ("profile", 12)
    assert origins["data.event_time"] == ("base", 2)
    assert origins["evaluation.metrics"] == ("base", 4)
    assert origins["train.parameters.depth"] == ("file", 7)
    assert origins["train.window.gap"] == ("default", None)
    assert origins["schedule.retries"] == ("profile", 13)
    assert origins["owner"] == origins["profile"] == ("given", None)
    assert told["origins"]["data.uri"]["file"] == str(churn)
    assert told["specification"]["data"]["uri"] == "lake/small"
    assert told["specification"]["train"]["window"] == {"length": "2 months", "gap": "0 days"}
    assert told["names"]["registered_model"] == "dev.bob.churn"
    assert told["names"]["dag_ids"] == {"training": "train_churn__dev__bob"}
    assert told["names"]["mlflow_conn_id"] == "mlflow_dev_bob"


def test_the_origins_stand_beside_the_values(churn: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = rendered(capsys, str(churn), "--profile", "dev", "--dag", "none").splitlines()

    beside = {line.split("#")[0].strip(): line.split("#")[1].strip() for line in lines if "#" in line[1:]}
    assert beside['uri: "lake/small"'] == "profile dev, churn.yaml:12"
    assert beside["event_time: at"] == "base _base.yaml:2"
    assert beside["target: left"] == "churn.yaml:5"
    assert beside["flavor: sklearn"] == "default"


def test_a_secret_is_hidden_wherever_it_was_written(churn: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--json"], []):
        out = rendered(capsys, str(churn), "--dag", "none", "--profile", "dev", *words)
        assert "hunter2" not in out
        assert out.count("(hidden)") == 2


def test_signed_addresses_webhooks_and_headers_are_hidden(churn: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = "{text: hi, webhook_url: 'https://x/hunter2', headers: {Authorization: hunter2}, url: 'https://hooks.x/hunter2'}"
    churn.write_text(
        MODEL.replace("uri: lake/small", "uri: 's3://lake/small?X-Amz-Signature=hunter2&b=c'")
        + f"notifications: [{{notifier: 'n:N', events: [drift], settings: {settings}}}]\n"
    )

    out = rendered(capsys, str(churn), "--dag", "none", "--profile", "dev")

    assert "hunter2" not in out
    assert "text: hi" in out


def test_a_base_beside_a_file_that_was_named_from_here_is_told_by_its_name(
    churn: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(churn.parent)

    assert "# base _base.yaml:2" in rendered(capsys, "churn.yaml", "--dag", "none", "--profile", "dev")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["gone.yaml"], "gone.yaml"),
        (["CHURN", "--profile", "staging"], "Known: dev"),
        (["CHURN", "--profile", "dev", "--dag", "scoring"], "scoring.output_uri"),
        (["CHURN", "--profile", "dev", "--picture", "x.pdf"], ".svg or a .png"),
        (["CHURN", "--profile", "dev", "--picture", "gone/x.svg"], "no folder gone"),
        (["CHURN", "--profile", "dev", "--picture", "x.svg", "--dag", "none"], "Leave one of them out"),
    ],
    ids=["no file", "no profile", "no scoring", "a pdf", "no folder", "nothing to draw"],
)
def test_wrong_input_is_told_with_its_mend(
    churn: Path, words: list[str], says: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(churn.parent)

    assert main(["render", *[str(churn) if word == "CHURN" else word for word in words]]) == 2

    told = capsys.readouterr()
    assert says in told.err
    assert told.out == ""
    assert not list(churn.parent.glob("x.*"))


# The DAGs


def test_the_dag_is_told_in_topological_order_with_its_assets(capsys: pytest.CaptureFixture[str]) -> None:
    told = json.loads(rendered(capsys, str(FLIGHTS), "--json"))

    assert [dag["dag_id"] for dag in told["dags"]] == ["train_flights", "score_flights", "monitor_flights"]
    for dag in told["dags"]:
        seen: set[str] = set()
        for task in dag["tasks"]:
            assert set(task["after"]) <= seen
            seen.add(task["id"])
    training, scoring, monitoring = told["dags"]
    assert training["assets_in"] == ["flights_retrain"]
    assert training["assets_out"] == {"flights_champion": ["promote"]}
    assert {"id": "training_data", "mapped": False} in training["groups"]
    assert scoring["groups"] == [{"id": "batch", "mapped": True}]
    assert scoring["schedule"] == "started by hand"
    assert monitoring["assets_in"] == ["flights_predictions"]
    rules = {task["id"]: task["trigger_rule"] for task in monitoring["tasks"]}
    assert rules["act_on_drift"] == "all_done"


def test_the_ids_that_are_foretold_are_those_of_the_dags() -> None:
    for file in model_files(ROOT / "dags"):
        spec = load_spec(file, profile="dev", owner="ann")
        assert {kind: view(spec, kind).dag_id for kind in dag_kinds(spec)} == dag_ids(spec)


def test_the_text_is_comments_below_the_specification(capsys: pytest.CaptureFixture[str]) -> None:
    out = rendered(capsys, str(FLIGHTS), "--dag", "training")

    assert yaml.safe_load(out)["name"] == "flights"
    assert "#     train                     TrainModelOperator     after training_data.validate, evaluation" in out
    assert "score_flights" not in out


def test_an_edge_that_follows_from_others_is_left_out() -> None:
    assert reduced([("a", "b"), ("b", "c"), ("a", "c"), ("c", "d"), ("a", "d")]) == [("a", "b"), ("b", "c"), ("c", "d")]


# The picture


LONG = {
    "name": "probability_that_a_customer_leaves_within_ninety_days_after_the_renewal_of_a_contract",
    "schedule": {"on_retrain": True, "on_assets": ["the_partition_of_the_month_is_complete", 's3://b/<x>&"$y"/z_$1']},
    "scoring": {"output_uri": "out", "wait": {}, "schedule": {"cron": "0 6 * * 1-5", "start_date": "2024-01-01"}},
}


def views(name: str) -> list[DagView]:
    if name == "long names":
        data, _ = load_yaml(FLIGHTS)
        spec = spec_of({**data, **LONG, "gate": {**data["gate"], "approval": {"when": "always"}}}, {}, FLIGHTS.parent)
    else:
        spec = load_spec(ROOT / "dags" / name)
    return [view(spec, kind) for kind in dag_kinds(spec)]


PICTURED = [file.name for file in model_files(ROOT / "dags")] + ["long names"]


@pytest.fixture(params=PICTURED)
def scene(request: pytest.FixtureRequest) -> Scene:
    return draw(views(request.param))


def boxes(scene: Scene, *kinds: str) -> list[Box]:
    return [shape for shape in scene.shapes if isinstance(shape, Box) and (not kinds or shape.kind in kinds)]


def test_no_two_boxes_overlap_and_groups_hold_their_tasks(scene: Scene) -> None:
    every = boxes(scene)
    for number, one in enumerate(every):
        assert one.x >= 0
        assert one.x + one.width <= scene.width
        assert one.y + one.height <= scene.height
        for two in every[number + 1 :]:
            apart = (
                one.x + one.width <= two.x
                or two.x + two.width <= one.x
                or one.y + one.height <= two.y
                or two.y + two.height <= one.y
            )
            assert apart or _holds(one, two) or _holds(two, one), (one.names, two.names)


def _holds(outer: Box, inner: Box) -> bool:
    return (
        outer.kind == "group"
        and outer.x < inner.x
        and outer.y + 17 < inner.y
        and inner.x + inner.width < outer.x + outer.width
        and inner.y + inner.height < outer.y + outer.height
    )


def _points(line: Line) -> list[tuple[float, float]]:
    """Points along a line, some pixels apart."""
    found: list[tuple[float, float]] = []
    at = (0.0, 0.0)
    for step, values in _steps(line):
        if step == "C":
            ends = [at, values[0:2], values[2:4], values[4:6]]
            for part in range(1, 21):
                t = part / 20
                weights = [(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3]
                found.append(tuple(sum(w * end[axis] for w, end in zip(weights, ends, strict=True)) for axis in (0, 1)))  # type: ignore[arg-type]
            at = values[4:6]  # type: ignore[assignment]
        else:
            stop = (values[0], values[1])
            if step == "L":
                found += [(at[0] + (stop[0] - at[0]) * n / 20, at[1] + (stop[1] - at[1]) * n / 20) for n in range(21)]
            at = stop
    return found


def test_no_line_runs_through_a_box(scene: Scene) -> None:
    solid = boxes(scene, "task", "sensor", "asset", "start")
    lines = [shape for shape in scene.shapes if isinstance(shape, Line)]
    assert lines
    for line in lines:
        for x, y in _points(line):
            for box in solid:
                inside = box.x + 1 < x < box.x + box.width - 1 and box.y + 1 < y < box.y + box.height - 1
                assert not inside, (box.names, line.points)


def test_every_line_begins_at_a_box_or_a_group_and_ends_at_one(scene: Scene) -> None:
    lines = [shape for shape in scene.shapes if isinstance(shape, Line)]
    for line in lines:
        (begin, at), (end, stop) = line.points[0], line.points[-1]
        assert any(abs(b.x + b.width - begin) < 0.6 and b.y <= at <= b.y + b.height for b in boxes(scene)) or any(
            abs(b.x - begin) < 0.6 for b in boxes(scene, "group")
        )
        ends = boxes(scene) if line.arrow else boxes(scene, "group")
        assert any(
            (abs(b.x - end) < 0.6 or abs(b.x + b.width - end) < 0.6) and b.y <= stop <= b.y + b.height for b in ends
        )
        assert all(before[0] <= after[0] + 0.1 for before, after in pairwise(line.points))
    arrows = sum(line.arrow for line in lines)
    assert arrows >= len(boxes(scene, "task", "sensor"))  # each task is reached by something


def test_text_fits_into_its_box(scene: Scene) -> None:
    for box in boxes(scene):
        for x, y, size, _, text in _texts(box):
            assert box.x + 4 <= x
            assert x + _width(text, size) <= box.x + box.width - 4
            assert box.y + size * 0.8 < y < box.y + box.height - 2


def test_the_svg_shows_every_task_and_asset_and_loads_nothing() -> None:
    for name in PICTURED:
        dags = views(name)
        text = svg(draw(dags))
        root = ElementTree.fromstring(text)
        shown = "".join(one.text or "" for one in root.iter("{http://www.w3.org/2000/svg}text"))
        for dag in dags:
            for task in dag.root.tasks():
                assert task.label in shown
                assert task.operator in shown
            for asset in (*dag.assets_in, *dag.assets_out):
                assert asset in shown
        assert "href" not in text
        assert text.count("http") == 1  # the namespace


def test_the_verb_writes_either_format(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from matplotlib.image import imread

    for ending in ("svg", "png"):
        file = tmp_path / f"flights.{ending}"
        file.write_text("an earlier one")
        assert f"# The picture is {file}." in rendered(capsys, str(FLIGHTS), "--picture", str(file))
    assert (tmp_path / "flights.svg").read_text() == svg(draw(views("flights.yaml")))
    picture: Any = imread(tmp_path / "flights.png")
    whole = draw(views("flights.yaml"))
    assert picture.shape[1] == pytest.approx(2 * whole.width, abs=2)
    assert picture.shape[0] == pytest.approx(2 * whole.height, abs=2)
    dark = (picture[..., :3].max(axis=2) < 0.3).mean()
    assert 0.005 < dark < 0.2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["flights.png", "flights.svg"]


def test_a_png_of_names_with_dollar_signs_is_no_formula() -> None:
    assert png(draw(views("long names"))).startswith(b"\x89PNG")


def test_without_matplotlib_a_png_says_what_to_do_and_an_svg_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)

    assert main(["render", str(FLIGHTS), "--picture", str(tmp_path / "x.png")]) == 2
    assert "Write an .svg file instead" in capsys.readouterr().err
    assert main(["render", str(FLIGHTS), "--picture", str(tmp_path / "x.svg")]) == 0
