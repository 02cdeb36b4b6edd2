"""Each outcome is told once: the marks are on the real MLflow server, so a retry on any machine knows of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from airflow_mlops import PromoteModelOperator, RollbackModelOperator, ValidateDataOperator
from airflow_mlops.compat import AirflowFailException, BaseNotifier, Stats
from airflow_mlops.engines import alias_moves, promotions
from airflow_mlops.engines.marks import read_marks
from airflow_mlops.errors import TrackingUnavailableError
from airflow_mlops.hooks.mlflow import MLflowHook
from tests.support.candidates import Bench, make_bench
from tests.support.data_steps import DataSteps, write_parquet

CONTRACT = {"expectations": [{"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "y"}}]}


class Remembers(BaseNotifier):
    """Keeps what it sends; while ``broken`` is set it raises instead, as a notifier whose server is gone does."""

    template_fields = ("text",)
    sent: ClassVar[list[str]] = []
    broken: ClassVar[bool] = False

    def __init__(self, text: str = "{{ mlops.message }}") -> None:
        super().__init__()
        self.text = text

    def notify(self, context: Any) -> None:
        if Remembers.broken:
            raise ConnectionError("the chat server is gone")
        Remembers.sent.append(self.text)


class RemembersToo(Remembers):
    """Another one, which nothing breaks."""

    def notify(self, context: Any) -> None:
        Remembers.sent.append(f"too: {self.text}")


@pytest.fixture(autouse=True)
def forget() -> None:
    Remembers.sent.clear()
    Remembers.broken = False


class Task(dict[str, Any]):
    """Stands in for the task instance."""

    dag_id, map_index, log_url = "notify", -1, "http://airflow/task"

    def __init__(self, task_id: str, run_id: str) -> None:
        self.task_id = task_id
        self.run_id = run_id

    def xcom_push(self, key: str, value: Any) -> None:
        self[key] = value


def execute(operator: Any, run_type: str = "manual", run: str = "run") -> dict[str, Any]:
    """Run one try of a task in this process; a verdict that fails it is returned under ``failed``."""
    ti = Task(operator.task_id, run)
    context: Any = {"ti": ti, "dag_run": SimpleNamespace(run_type=run_type), "outlet_events": {}}
    try:
        operator.execute(context)
    except AirflowFailException as exc:
        ti["failed"] = str(exc)
    return dict(ti)


@pytest.fixture
def connection(mlflow_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_DEFAULT", json.dumps({"conn_type": "mlflow", "host": mlflow_server.uri}))


@pytest.fixture(scope="module")
def dataset(mlflow_server: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A dataset version whose column ``y`` has one null."""
    folder = tmp_path_factory.mktemp("lake")
    write_parquet(folder / "rows.parquet", {"y": [1, None, 0]})
    return DataSteps(mlflow_server.uri, "notifications").snapshot({"uri": str(folder)}).to_xcom()


@pytest.fixture
def validate(connection: None, dataset: Any, request: pytest.FixtureRequest) -> Callable[..., Any]:
    """A validate task of its own name whose contract fails."""
    name = "".join(char for char in request.node.name if char.isalnum())

    def make(*notifiers: str, **more: Any) -> ValidateDataOperator:
        text = "{{ mlops.title }} | {{ mlops.facts.how_far }} | {{ mlops.facts.report_url }}"
        return ValidateDataOperator(
            task_id=name,
            experiment="notifications",
            dataset=dataset,
            contract=CONTRACT,
            data={"uri": dataset["uri"]},
            about="flights",
            notifications=[wanted(one, text=text) for one in notifiers],
            **more,
        )

    return make


def wanted(notifier: str, event: str = "contract_failed", **settings: Any) -> dict[str, Any]:
    return {"events": [event], "notifier": notifier, "settings": settings}


REMEMBERS, TOO = f"{__name__}:Remembers", f"{__name__}:RemembersToo"


def marks(ti: dict[str, Any]) -> dict[str, str]:
    """The marks on the MLflow run of a task's record."""
    with MLflowHook().client() as client:
        return read_marks(client, ti["return_value"]["run_id"])


def test_a_failed_contract_is_told_once_and_the_task_fails_as_before(validate: Any) -> None:
    first, again = execute(validate(REMEMBERS)), execute(validate(REMEMBERS))

    assert first["return_value"] == again["return_value"]
    assert "'y' is null in 1 of 3 rows" in first["failed"]
    (text,) = Remembers.sent
    assert text.startswith("Contract failed for flights | Column 'y' is null in 1 of 3 rows")
    assert "/#/experiments/0/runs/" in text
    ((name, who),) = marks(first).items()
    assert name.startswith("told.contract_failed.")
    assert who == REMEMBERS


def test_a_result_made_anew_is_told_anew(validate: Any) -> None:
    execute(validate(REMEMBERS))
    execute(validate(REMEMBERS, force=True))

    assert len(Remembers.sent) == 2


def test_a_notifier_that_fails_fails_nothing_and_is_asked_again(
    validate: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    Remembers.broken = True

    first = execute(validate(REMEMBERS, TOO))

    assert "'y' is null" in first["failed"]
    assert [text[:4] for text in Remembers.sent] == ["too:"]
    log = capsys.readouterr().out
    assert "the chat server is gone" in log
    # What would have been sent is in the log.
    assert "What to do: Open the report" in log

    Remembers.broken = False
    execute(validate(REMEMBERS, TOO))

    assert [text[:4] for text in Remembers.sent] == ["too:", "Cont"]
    assert sorted(marks(first).values()) == [REMEMBERS, TOO]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        pytest.param([wanted("no.such:Notifier")], "cannot be imported", id="no such module"),
        pytest.param([wanted("Notifier")], "notifications[0] tells nobody", id="no module at all"),
        pytest.param([wanted(REMEMBERS, event="contract_fialed")], "notifications[0] tells nobody", id="no such event"),
        pytest.param([wanted(REMEMBERS, text="{{ mlops.message")], "TemplateSyntaxError", id="a broken template"),
        pytest.param(7, "could not be told", id="no list at all"),
    ],
)  # fmt: skip
def test_a_wrong_notification_fails_nothing_and_is_named(
    validate: Any, capsys: pytest.CaptureFixture[str], wrong: Any, words: str
) -> None:
    operator = validate()
    operator.notifications = wrong

    assert "'y' is null" in execute(operator)["failed"]

    errors = [line for line in capsys.readouterr().out.splitlines() if words in line and "[error" in line]
    assert len(errors) == 1
    assert Remembers.sent == []


def test_without_marks_it_is_told_rather_twice_than_never(
    validate: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def gone(self: MLflowHook) -> Any:
        raise TrackingUnavailableError("MLflow does not answer")

    monkeypatch.setattr(MLflowHook, "client", gone)
    execute(validate(REMEMBERS))
    execute(validate(REMEMBERS))

    assert len(Remembers.sent) == 2
    assert "so a retry tells again" in capsys.readouterr().out


def test_a_backfill_is_silent(validate: Any) -> None:
    assert "failed" in execute(validate(REMEMBERS), run_type="backfill")
    assert Remembers.sent == []


@pytest.fixture(scope="module")
def benches(mlflow_server: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    made, make = make_bench(mlflow_server.uri, tmp_path_factory.mktemp("notifications"))
    yield make
    made.__exit__(None, None, None)


@pytest.fixture
def bench(benches: Any, connection: None, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(promotions, "CONFIRM_SECONDS", 0.01)
    return benches(f"notify.{request.node.name}")  # type: ignore[no-any-return]


def test_a_promotion_and_its_rollback_are_told_with_the_way_back(bench: Bench) -> None:
    bench.serve(1)
    version = bench.register("two", entry=1)
    both = [{"events": ["promoted", "rolled_back"], "notifier": REMEMBERS}]
    common: dict[str, Any] = {"experiment": "notifications", "notifications": both}
    promote = PromoteModelOperator(task_id=f"promote-{bench.name}", version=version.to_xcom(), **common)
    back = RollbackModelOperator(
        task_id=f"back-{bench.name}", registered_model=bench.name, reason="too often late", **common
    )

    for operator in (promote, promote, back, back):
        execute(operator)

    promoted, rolled = Remembers.sent
    assert promoted.startswith(f"Promoted: version 2 of {bench.name} is champion")
    assert "version 1 served before" in promoted
    assert f"airflow-mlops rollback {bench.name} --reason WHY" in promoted
    assert f"/#/models/{bench.name}/versions/2" in promoted
    assert rolled.startswith(f"Rolled back: version 1 of {bench.name} is champion")
    assert "too often late" in rolled
    assert bench.alias() == 1


def test_another_run_that_finds_it_champion_already_tells_nobody(bench: Bench) -> None:
    version = bench.register("one").to_xcom()

    for run in ("first", "second"):
        operator = PromoteModelOperator(
            task_id=f"promote-{bench.name}", experiment="notifications", version=version,
            notifications=[wanted(REMEMBERS, "promoted")],
        )  # fmt: skip
        assert execute(operator, run=run)["return_value"]["outcome"] == "promoted"

    assert len(Remembers.sent) == 1


def test_what_a_person_did_meanwhile_is_told_by_the_task_that_finds_it(bench: Bench) -> None:
    bench.serve(1)
    version = bench.register("two", entry=1)
    alias_moves.promote(bench.client, bench.wish("it may", key="cli"), version)

    execute(
        PromoteModelOperator(
            task_id=f"promote-{bench.name}",
            experiment="notifications",
            version=version.to_xcom(),
            notifications=[wanted(REMEMBERS, "promoted")],
        )
    )

    (text,) = Remembers.sent
    assert "Why: it may" in text
    assert "version 1 served before" in text


def test_a_retry_counts_nothing_twice(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.sdk._shared.observability.metrics.base_stats_logger import NoStatsLogger

    counted: list[str] = []

    class Counts(NoStatsLogger):
        """Airflow's interface of a stats client."""

        @classmethod
        def incr(cls, stat: str, count: int = 1, rate: float = 1, *, tags: Any = None) -> None:
            counted.append(f"{stat} {count}")

    monkeypatch.setenv("AIRFLOW__METRICS__STATSD_ON", "True")
    Stats.initialize(factory=Counts, export_legacy_names=False)
    operator = PromoteModelOperator(
        task_id=f"promote-{bench.name}", experiment="notifications", version=bench.register("one").to_xcom()
    )
    try:
        first = execute(operator)
        execute(operator)
    finally:
        Stats.initialize(factory=NoStatsLogger, export_legacy_names=False)

    ours = [one for one in counted if "airflow_mlops" in one]
    assert ours == [f"airflow_mlops.promotions.{bench.name.replace('.', '__')} 1"]
    assert [name.partition(".")[0] for name in marks(first)] == ["measured"]


def test_pictures_are_on_the_run(bench: Bench, tmp_path: Path) -> None:
    from airflow_mlops.core.monitoring_records import WindowState
    from airflow_mlops.engines.pictures import log_pictures
    from airflow_mlops.engines.registry import history
    from tests.support.candidates import month

    bench.serve(1)
    run = bench.client.create_run(bench.client.create_experiment(bench.name))
    state = WindowState(window=month(7), version=1, rows=9, drift_verdict="drift", drift_share=0.3)

    uri = log_pictures(
        bench.client, run.info.run_id, tmp_path, [state], history(bench.client, bench.name, "champion").lines
    )

    assert uri == f"runs:/{run.info.run_id}/pictures"
    stored = bench.client.list_artifacts(run.info.run_id, "pictures")
    assert [one.path for one in stored] == [
        "pictures/drift_share.png", "pictures/drifted_columns.png", "pictures/performance.png",
    ]  # fmt: skip
    assert all(one.file_size > 5_000 for one in stored)
