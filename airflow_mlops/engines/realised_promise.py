"""What the evaluation promised that let a version through: the candidate's own figures in its evidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_mlops.core.evidence import Evidence
from airflow_mlops.core.monitoring_records import ServedModel
from airflow_mlops.engines.artifacts import stored_json
from airflow_mlops.errors import InvalidSpecError

if TYPE_CHECKING:
    from mlflow import MlflowClient

#: Metric, slice column and slice value; the latter two None for all rows.
Place = tuple[str, str | None, str | None]


@dataclass(frozen=True)
class Promise:
    """Figures of one version.

    :param overall: by metric, on all rows; None where evaluation found no value.
    :param groups: the same and every slice's, by place.
    :param notes: why something is not promised.
    """

    overall: Mapping[str, float | None] = field(default_factory=dict)
    groups: Mapping[Place, float | None] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)


def read_promise(client: MlflowClient, model: ServedModel, metrics: Sequence[str]) -> Promise:
    """Read the evidence of a version; without any, nothing was promised and a note says so."""
    stored = stored_json(client, model.evidence_uri) if model.evidence_uri else None
    if stored is None:
        what = f"its evidence {model.evidence_uri} is gone" if model.evidence_uri else "it names no evidence"
        return _nothing(model, f"{what}, as with a version that was not made by this package")
    try:
        evidence = Evidence.from_xcom(stored)
    except InvalidSpecError as exc:
        return _nothing(model, f"its evidence {model.evidence_uri} cannot be read ({exc})")
    if model.digest and evidence.model_digest != model.digest:
        return _nothing(model, f"the evidence {model.evidence_uri} is about another model")
    found = {(one.metric, one.slice, one.value): one.candidate for one in evidence.measurements}
    absent = [name for name in metrics if (name, None, None) not in found]
    notes = (
        {"promised": f"The evaluation of {model} did not measure {', '.join(absent)}, so nothing is promised there."}
        if absent
        else {}
    )
    overall = {name: found[(name, None, None)] for name in metrics if name not in absent}
    return Promise(overall, found, notes)


def _nothing(model: ServedModel, why: str) -> Promise:
    return Promise(notes={"promised": f"Nothing is promised of {model}: {why}."})
