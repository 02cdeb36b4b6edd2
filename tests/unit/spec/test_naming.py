from __future__ import annotations

from pathlib import Path

import pytest

from airflow_mlops import load_spec
from airflow_mlops.errors import InvalidSpecError
from airflow_mlops.spec import naming

TEMPLATES = Path(__file__).parents[3] / "airflow_mlops" / "templates"
FLIGHTS = TEMPLATES / "flights.yaml"


@pytest.mark.parametrize(
    ("profile", "names"),
    [
        pytest.param(None, ("m", "m", "train_m", "mlflow_default"), id="nothing said"),
        pytest.param("prod", ("m", "m", "train_m", "mlflow_prod"), id="production"),
        pytest.param("dev", ("dev/ann/m", "dev.ann.m", "train_m__dev__ann", "mlflow_dev_ann"), id="a profile"),
    ],
)
def test_names(profile: str | None, names: tuple[str, ...]) -> None:
    made = (
        naming.experiment("m", profile, "ann"),
        naming.registered_model("m", profile, "ann"),
        naming.dag_id("train_m", profile, "ann"),
        naming.connection(profile, "ann"),
    )

    assert made == names


@pytest.mark.parametrize("owner", ["", "a b", "a/b", "a.b", "a_b", "-a", "a--b", "å"])
def test_an_owner_that_would_blur_names_is_refused_where_it_becomes_one(owner: str) -> None:
    with pytest.raises(ValueError, match="letters, digits and single hyphens"):
        naming.check_owner(owner, "dev")
    naming.check_owner(owner, None)


def test_profile_and_owner_come_from_the_argument_the_environment_or_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_MLOPS_PROFILE", "dev")
    monkeypatch.setenv("AIRFLOW_MLOPS_OWNER", "ann")

    assert load_spec(FLIGHTS).registered_model == "dev.ann.flights"
    assert load_spec(FLIGHTS, profile="staging", owner="ben").experiment_name == "staging/ben/flights"
    assert load_spec(FLIGHTS, profile="prod").registered_model == "flights"
    monkeypatch.delenv("AIRFLOW_MLOPS_PROFILE")
    assert load_spec(FLIGHTS).registered_model == "flights"


def test_a_wrong_profile_says_where_it_came_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_MLOPS_PROFILE", "My Profile")

    with pytest.raises(InvalidSpecError, match="profile 'My Profile' given by argument or environment variable"):
        load_spec(FLIGHTS)


def test_a_name_the_specification_gives_is_qualified_and_a_connection_is_not(tmp_path: Path) -> None:
    text = FLIGHTS.read_text().replace(
        "name: flights\n", "name: flights\nexperiment: shared\nmlflow_conn_id: mine\n", 1
    )
    (tmp_path / "flights.yaml").write_text(text)
    spec = load_spec(tmp_path / "flights.yaml", profile="dev", owner="ann")

    assert spec.experiment_name == "dev/ann/shared"
    assert spec.connection_id == spec.promotion_connection_id == "mine"
