"""What the screenshot script does before and after the browser."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest

from airflow_mlops import load_models
from scripts import fleet_screenshot
from scripts.screenshots import MOST_BYTES, Runs, airflow_page, choose, find_browser, main, shots, smaller, watch_shots
from tests.support.pages import ROOT

FIRST = {"gate": {"verdict": "first_model"}, "promote": {"outcome": "promoted"}, "register": {"version": 1}}
HELD = {"gate": {"verdict": "hold", "decision_uri": "runs:/abc/decision.html", "experiment_id": "1"}}
PROMOTED = {"gate": {"verdict": "promote"}, "promote": {"outcome": "promoted"}, "register": {"version": 2}}
FAILED = {
    "training_data.validate": {"verdict": "pass"},
    "evaluation_data.validate": {"verdict": "fail", "report_uri": "runs:/def/contract.html", "experiment_id": "1"},
}
ASKED = {
    "detect_drift": {"report_uri": "runs:/abc/drift.html", "experiment_id": "1"},
    "act_on_drift": {"action": "retrain"},
    "decision": {"pictures_uri": "runs:/old/pictures", "experiment_id": "1"},
}
WAITING = {"gate": {"verdict": "needs_approval"}, "register": {"version": 3}}


def test_runs_are_chosen_by_what_came_out_of_them() -> None:
    runs = choose([("a", FIRST), ("b", HELD), ("c", PROMOTED), ("d", FAILED), ("e", WAITING)])

    assert runs == Runs(first="a", held="b", promoted="c", contract_failed="d", waiting="e")


def test_the_newest_run_of_a_kind_is_taken_and_a_missing_kind_is_none() -> None:
    assert choose([("a", HELD), ("b", HELD)]) == Runs(held="b")
    assert choose([]) == Runs()


def test_every_kind_of_run_has_its_pictures() -> None:
    records = {"manual__2013-05-01T00:00:00+00:00": HELD, "c": PROMOTED, "d": FAILED, "e": WAITING}
    made = {one.name: one for one in shots("http://a:1/", "http://m:2", choose(list(records.items())), records)}

    assert made["held-gate-log"].url == (
        "http://a:1/dags/train_flights/runs/manual__2013-05-01T00%3A00%3A00%2B00%3A00/tasks/gate"
    )
    assert made["model-version"].url == "http://m:2/#/models/flights/versions/2"
    assert made["mlflow-decision"].url == "http://m:2/#/experiments/1/runs/abc/artifacts/decision.html"
    assert "/tasks/evaluation_data.validate" in made["failed-contract-log"].url
    assert {"airflow-grid", "airflow-graph", "connection-form", "approval", "mlflow-contract"} <= set(made)


def test_a_demo_without_runs_has_the_pages_that_need_none() -> None:
    assert [one.name for one in shots("http://a", "http://m", Runs(), {})] == [
        "airflow-grid",
        "connection-form",
        "connection-extra",
    ]


def test_the_run_that_asked_for_a_retrain_and_the_newest_pictures_are_shown() -> None:
    quiet = {
        "act_on_drift": {"action": "none"},
        "decision": {"pictures_uri": "runs:/new/pictures", "experiment_id": "1"},
    }

    made = {one.name: one.url for one in watch_shots("http://a", "http://m", [("x+1", ASKED), ("y", quiet)])}

    assert made["retrain-log"] == "http://a/dags/monitor_flights/runs/x%2B1/tasks/act_on_drift"
    assert made["drift-page"] == "http://m/#/experiments/1/runs/abc/artifacts/drift.html"
    assert made["drift-windows"] == "http://m/#/experiments/1/runs/new/artifacts/pictures/drift_share.png"
    assert watch_shots("http://a", "http://m", []) == []


def test_run_ids_are_quoted_whole() -> None:
    assert airflow_page("http://a/", "dags", "x/y") == "http://a/dags/x%2Fy"


@pytest.mark.parametrize("clip", [None, 200])
def test_pictures_are_made_small(clip: int | None) -> None:
    from PIL import Image

    image = Image.effect_noise((1280, 800), 90)
    png = io.BytesIO()
    image.save(png, "PNG")

    kept = smaller(png.getvalue(), clip=clip, most=400_000)

    found = Image.open(io.BytesIO(kept))
    assert found.format == "PNG"
    assert len(kept) <= 400_000 < len(png.getvalue())
    assert found.width * (clip or 800) == pytest.approx(found.height * 1280, rel=0.01)


def test_a_picture_that_is_small_already_keeps_its_size() -> None:
    from PIL import Image

    png = io.BytesIO()
    Image.new("RGB", (1280, 800), "white").save(png, "PNG")

    assert Image.open(io.BytesIO(smaller(png.getvalue(), most=MOST_BYTES))).size == (1280, 800)


def test_without_a_browser_or_a_demo_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match="make demo"):
        main(["--home", str(tmp_path), "--browser", "any"])
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit, match="apt-get install chromium"):
        find_browser()


def test_the_pages_show_pictures_that_the_script_takes() -> None:
    records = {"b": HELD, "c": PROMOTED, "d": FAILED, "e": WAITING}
    made = shots("http://a", "http://m", choose(list(records.items())), records)
    taken = {f"{one.name}.png" for one in (*made, *watch_shots("http://a", "http://m", [("m", ASKED)]))}
    shown = {
        name
        for page in (ROOT / "docs").rglob("*.md")
        for name in re.findall(r"images/([\w-]+\.png)", page.read_text(encoding="utf-8"))
    }

    assert shown <= taken | {f"{fleet_screenshot.NAME}.png"}


def test_the_photographed_fleet_has_one_good_model_and_the_bad_one_of_the_page(tmp_path: Path) -> None:
    fleet_screenshot.write_fleet(tmp_path)

    models = load_models(tmp_path / "models")

    assert set(models) == fleet_screenshot.GOOD_DAGS
    assert [file.name for file in models.errors] == ["early.yaml"]
    page = (ROOT / "docs" / "how-to" / "fleet.md").read_text(encoding="utf-8")
    said = next(iter(models.errors.values()))
    assert said[said.index("early.yaml") : said.index("Known keys")].strip() in page
    assert fleet_screenshot.MODEL in page
