"""Operators that make a model and measure it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.records import EvaluationReport, GateDecision, TrainedModel
from airflow_mlops.links import MLflowRunLink, ReportLink, ReusedFromLink
from airflow_mlops.operators.base import StepOperator

if TYPE_CHECKING:
    from airflow_mlops.compat import Context


class TrainModelOperator(StepOperator[TrainedModel]):
    """Call the team's training function and log the model it returns.

    :param validation: a ``ValidationReport``; its accepted rows are trained on.
    :param train: the keys of ``TrainSpec`` (``function``, ``flavor``, ``target``, ``parameters`` ...).
    :param code_path: absolute folder the function's module is imported from.
    :param data: the keys of ``DataSpec``: which columns are ids, personal, or the event time.
    :param task: ``binary``, ``multiclass`` or ``regression``.
    :param model_name: the model's name, for tags.
    """

    step = "train"
    record_type = TrainedModel
    operator_extra_links = (MLflowRunLink(), ReportLink(), ReusedFromLink())
    template_fields: Sequence[str] = (
        *StepOperator.template_fields,
        "validation",
        "train",
        "code_path",
        "data",
        "model_name",
    )

    def __init__(
        self,
        *,
        validation: Any,
        train: Mapping[str, Any],
        code_path: str,
        data: Mapping[str, Any],
        task: str,
        model_name: str,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.validation = validation
        self.train = train
        self.code_path = code_path
        self.data = data
        # BaseOperator knows no `task`, but a decorator's kwargs might: keep the name apart.
        self.prediction_task = task
        self.model_name = model_name

    def payload(self, context: Context) -> Mapping[str, Any]:
        """Return the accepted rows and how to train on them."""
        return {
            "dataset": self.validation["dataset"],
            "train": self.train,
            "code_path": self.code_path,
            "data": self.data,
            "task": self.prediction_task,
            "model_name": self.model_name,
            "validation_run_id": self.validation.get("run_id", ""),
        }

    def announce(self, record: TrainedModel, context: Context) -> None:
        """Say what was logged."""
        self.log.info(
            "Logged %s (%s, %s, %d bytes, digest %s), trained on %d rows and %d features of dataset %s.",
            record.model_uri,
            record.flavor,
            record.serialization,
            record.size_bytes,
            record.digest[:12],
            record.row_count,
            record.feature_count,
            record.dataset_digest[:12],
        )


class EvaluateModelOperator(StepOperator[EvaluationReport]):
    """Measure candidate and champion on the same frozen rows.

    :param model: a ``TrainedModel``, the candidate.
    :param validation: a ``ValidationReport`` of the evaluation window; its accepted rows are scored.
    :param evaluation: the keys of ``EvaluationSpec``.
    :param registered_model: whose champion to compare with.
    :param alias: the champion's alias.
    :param seed: of the bootstrap.
    :param code_path: absolute folder that metrics of your own are imported from.
    """

    step = "evaluate"
    record_type = EvaluationReport
    operator_extra_links = (MLflowRunLink(), ReportLink(), ReusedFromLink())
    template_fields: Sequence[str] = (
        *StepOperator.template_fields,
        "model",
        "validation",
        "evaluation",
        "registered_model",
        "alias",
        "code_path",
    )

    def __init__(
        self,
        *,
        model: Any,
        validation: Any,
        evaluation: Mapping[str, Any],
        registered_model: str,
        alias: str = "champion",
        seed: int = 0,
        code_path: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.model = model
        self.validation = validation
        self.evaluation = evaluation
        self.registered_model = registered_model
        self.alias = alias
        self.seed = seed
        self.code_path = code_path

    def payload(self, context: Context) -> Mapping[str, Any]:
        """Return the candidate and the rows to score."""
        return {
            "model": self.model,
            "dataset": self.validation["dataset"],
            "evaluation": self.evaluation,
            "registered_model": self.registered_model,
            "alias": self.alias,
            "seed": self.seed,
            "code_path": self.code_path,
            "validation_run_id": self.validation.get("run_id", ""),
        }

    def announce(self, record: EvaluationReport, context: Context) -> None:
        """Say the figures of both models."""
        for metric, value in record.metrics.items():
            champion = record.champion_metrics.get(metric)
            self.log.info(
                "%s: candidate %s%s, on %d rows.",
                metric,
                _shown(value),
                ""
                if record.champion is None or not record.champion_metrics
                else f", champion (version {record.champion.version}) {_shown(champion)}",
                record.row_count,
            )
        if record.champion_problem:
            self.log.warning("%s", record.champion_problem)


class GateModelOperator(StepOperator[GateDecision]):
    """Let a candidate through only when every rule passes.

    :param report: an ``EvaluationReport``.
    :param gate: the keys of ``GateSpec``: ``rules``, ``mode``, ``on_hold``. On ``hold`` the task is skipped or fails
        as ``on_hold`` says; on ``needs_attention`` it fails.
    :param serving: the candidate's ``ServingReport``, for rules about latency and size; a model that could not be
        served is held. None: no serving check was made.
    """

    step = "gate"
    record_type = GateDecision
    operator_extra_links = (MLflowRunLink(), ReportLink())
    template_fields: Sequence[str] = (*StepOperator.template_fields, "report", "gate", "serving")

    def __init__(self, *, report: Any, gate: Mapping[str, Any], serving: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.report = report
        self.gate = gate
        self.serving = serving

    def payload(self, context: Context) -> Mapping[str, Any]:
        """Return the evaluation, the rules, and the serving check."""
        return {"report": self.report, "gate": self.gate, "serving": self.serving}

    def announce(self, record: GateDecision, context: Context) -> None:
        """Log the verdict and every rule's sentence, and push the reasons under their own XCom key."""
        # What stops the run stands out in Airflow's page.
        verdict = logging.INFO if record.lets_through else logging.WARNING
        self.log.log(verdict, "Verdict: %s. %s", record.verdict, record.sentence)
        for result in record.results:
            level = logging.INFO if result.status == "pass" else logging.WARNING
            self.log.log(level, "[%s] %s: %s", result.status, result.rule, result.sentence)
        context["ti"].xcom_push(key="reasons", value=[record.sentence, *record.reasons])

    def judge(self, record: GateDecision) -> None:
        """Skip or fail where the candidate is not let through."""
        if record.lets_through:
            return
        sentence = " ".join([f"{record.verdict}: {record.sentence}", *record.reasons[:5]])
        if record.verdict == "needs_attention" or self.gate.get("on_hold") == "fail":
            self.fail(sentence)
        self.skip(sentence)


def _shown(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"
