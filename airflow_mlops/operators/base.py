"""What every operator of the package shares: build the request, run the step, publish the record, judge the verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from airflow_mlops.compat import AirflowFailException, AirflowSkipException, BaseOperator
from airflow_mlops.core.keys import TaskKey
from airflow_mlops.core.records import Record
from airflow_mlops.errors import VerdictError
from airflow_mlops.hooks.mlflow import MLflowHook
from airflow_mlops.links import EvidentlyLink, MLflowRunLink, ModelVersionLink, ReportLink, ReusedFromLink
from airflow_mlops.operators.context import dag_run_url, task_page

if TYPE_CHECKING:
    from airflow_mlops.compat import Context
    from airflow_mlops.engines.tracking import TrackingServer
    from airflow_mlops.runtimes import Runtime

RecordT = TypeVar("RecordT", bound=Record)


#: Kind of address to the link that shows it.
_LINKS = {"run": MLflowRunLink, "version": ModelVersionLink, "report": ReportLink, "evidently": EvidentlyLink}


class StepOperator(BaseOperator, Generic[RecordT]):
    """Run one step of the machine-learning loop and hand its record on as a plain JSON object.

    A verdict (a failed contract, a held gate, a wrong specification) ends the task without a retry; an outage (MLflow
    or the object store does not answer) raises an ordinary error and retries. A retry of a task whose step already
    finished adopts what it made.

    :param experiment: MLflow experiment; default: the DAG's id.
    :param mlflow_conn_id: Airflow connection of type ``mlflow``.
    :param runtime: where the step's body runs: a name such as ``inline``, this task's process, or a mapping
        ``{"name": "external_python", "python": "/opt/steps/bin/python"}`` with the runtime's settings.
    :param force: make everything anew even though the same inputs were worked on before. ``"true"`` from a template
        counts as True.
    :param notifications: whom to tell of which event: the keys of ``NotificationSpec`` (``events``, ``notifier``,
        ``settings``), each by an Airflow notifier that is loaded when the event happens. Not templated: the notifier
        renders its own settings, with the message as ``{{ mlops.message }}``. One that fails is logged and fails
        nothing. In a DAG where several tasks see one event, give them to the one that knows what follows.
    :param about: the model's name in messages and metrics, for a task whose record has none; default: the registered
        model that the task names, else the DAG's id.
    """

    step: ClassVar[str]
    record_type: type[RecordT]
    _running: Runtime | None = None
    #: What the links store while the task runs; None before.
    link_addresses: dict[str, str] | None = None
    # Defaults live on the class: every attribute of every operator is paid for when a DAG file is parsed.
    notifications: Sequence[Any] = ()
    about: str = ""

    template_fields: Sequence[str] = ("experiment", "mlflow_conn_id", "runtime", "force")
    #: Only those that a step can have: Airflow stores an empty entry for every other one.
    operator_extra_links: Sequence[Any] = (MLflowRunLink(),)
    ui_color = "#e8f1fa"

    def __init__(
        self,
        *,
        experiment: str | None = None,
        mlflow_conn_id: str = MLflowHook.default_conn_name,
        runtime: str | Mapping[str, Any] = "inline",
        force: bool | str = False,
        notifications: Sequence[Mapping[str, Any]] = (),
        about: str = "",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.experiment = experiment
        self.mlflow_conn_id = mlflow_conn_id
        self.runtime = runtime
        self.force = force
        if notifications:
            self.notifications = notifications
        if about:
            self.about = about

    def payload(self, context: Context) -> Mapping[str, Any]:
        """Return what the step is given, rendered. Subclasses fill it in."""
        raise TypeError(f"{type(self).__name__} must define payload()")

    def judge(self, record: RecordT) -> None:
        """Raise a skip or a failure where the record's verdict says so. Nothing by default."""

    def announce(self, record: RecordT, context: Context) -> None:
        """Log the outcome and emit events. By default the record's ``sentence``, if it has one, is logged."""
        if sentence := getattr(record, "sentence", ""):
            self.log.info("%s", sentence)

    def execute(self, context: Context) -> dict[str, Any]:
        """Run the step and return its record."""
        # Imported here: runtimes load the steps, which a DAG file being parsed does not need.
        from airflow_mlops.hooks.storage import storage_access
        from airflow_mlops.operators.news import spread
        from airflow_mlops.runtimes import make_runtime
        from airflow_mlops.spec.model import RuntimeSpec
        from airflow_mlops.steps.base import Access

        self.link_addresses = {}
        hook = MLflowHook(self.mlflow_conn_id)
        try:
            server = hook.server()
            where = RuntimeSpec.of(self.runtime)
            self._running = make_runtime(where.name, where.settings)
            record = self._running.run(
                self._request(context), Access(server=server, login=hook.login(), storage=storage_access)
            )
        except VerdictError as exc:
            raise AirflowFailException(str(exc)) from exc
        if not isinstance(record, self.record_type):
            raise TypeError(f"The step {self.step!r} returned {type(record).__name__}, not {self.record_type.__name__}")
        published = record.to_xcom()
        # A task that skips or fails has no return value, and its reasons are then wanted most.
        context["ti"].xcom_push(key="return_value", value=published)
        self._store_links(record, server, context)
        if origin := getattr(record, "reused_from", ""):
            self.log.info("Reused: the task %s made this; force=true on the run makes it anew.", origin)
            context["ti"].xcom_push(key="reused_from", value=origin)
            ReusedFromLink.store(context, task_page(origin))
        self.announce(record, context)
        # Before the judgement: a held gate or a failed contract is what people want to be told of.
        spread(self, record, hook, context)
        self.judge(record)
        return published

    def on_kill(self) -> None:
        """Stop what the runtime started: nothing of a killed task goes on."""
        if self._running is not None:
            self._running.stop()

    def _request(self, context: Context) -> Any:
        from airflow_mlops.steps.base import RunInfo, StepRequest
        from airflow_mlops.steps.plan import AIRFLOW_URL

        ti = context["ti"]
        key = TaskKey(
            dag_id=ti.dag_id,
            run_id=ti.run_id,
            task_id=ti.task_id,
            map_index=-1 if ti.map_index is None else ti.map_index,
        )
        tags = {"airflow_mlops.dag_id": ti.dag_id, "airflow_mlops.airflow_run_id": ti.run_id}
        if url := dag_run_url(context):
            tags[AIRFLOW_URL] = url
        return StepRequest(
            step=self.step,
            key=str(key),
            run=RunInfo(
                key=key.run_key,
                name=f"{ti.dag_id} {ti.run_id}",
                experiment=self.experiment or ti.dag_id,
                tags=tags,
            ),
            payload=dict(self.payload(context)),
            force=as_bool(self.force),
            task_url=getattr(ti, "log_url", None),
        )

    def _store_links(self, record: RecordT, server: TrackingServer, context: Context) -> None:
        from airflow_mlops.links.addresses import addresses_of

        for link, address in addresses_of(record, server).items():
            _LINKS[link].store(context, address)

    def skip(self, sentence: str) -> None:
        """End the task as skipped, so that what depends on it does not run."""
        raise AirflowSkipException(sentence)

    def fail(self, sentence: str) -> None:
        """End the task as failed, without a retry."""
        raise AirflowFailException(sentence)


def as_bool(value: bool | str | None) -> bool:
    """Read a flag that may have come through a template: ``"true"``, ``"1"`` and ``"yes"`` are True."""
    if isinstance(value, str):
        return value.strip().lower() in ("true", "1", "yes")
    return bool(value)
