"""Judge a candidate once more, because a promotion of an older window came before its own.

Runs of several windows at once are judged against the champion that each found, and the first that promotes makes the
evidence of the others out of date. For an older window that is the end: it would not take the alias anyway. The newer
one must not be lost to it, so the task that promotes evaluates it against the new champion, on the same frozen rows,
and lets the same gate decide.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.ledger import is_older
from airflow_mlops.core.records import GateDecision, ModelVersionRef
from airflow_mlops.engines.artifacts import stored_json
from airflow_mlops.engines.promotions import read_ledger
from airflow_mlops.errors import InvalidSpecError
from airflow_mlops.steps.access_file import connection_ids
from airflow_mlops.steps.base import StepRequest, Work, perform
from airflow_mlops.steps.evaluate import REQUEST_FILE

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from airflow_mlops.core.ledger import Judged

log = logging.getLogger(__name__)


def lost_to_an_older_window(client: MlflowClient, version: ModelVersionRef, alias: str) -> Judged | None:
    """Return the champion's entry where nothing but promotions of older windows came before this version.

    A person who rejected it, rolled back or overrode in the meantime is not contradicted.
    """
    ledger = read_ledger(client, version.name, alias)
    decided = ledger.decision(version.version, version.digest)
    if decided is not None and decided.body.action == "reject":
        return None
    since = [line for line in ledger.counted if line.number > version.ledger_entry]
    if not since or any(line.body.action != "promote" for line in since):
        return None
    return since[-1] if is_older(since[-1].body.window, version.window) else None


def judge_again(work: Work, version: ModelVersionRef, champion: Judged) -> GateDecision | None:
    """Evaluate the version's model against the champion of now and decide anew.

    :return: None where an earlier release judged it and left nothing to ask again with, or where it was judged against
        another alias's champion. The decision's ``ledger_entry`` is another than the champion's where one more act
        came in between.
    :raises VerdictError: the candidate cannot be evaluated here: a library or the rows' connection is missing.
    :raises OutageError: something outside did not answer.
    """
    asked = [_request(work.client, uri) for uri in (version.evidence_uri or "", version.decision_uri)]
    if asked[0] is None or asked[1] is None:
        return None
    if (asked[0].get("registered_model"), asked[0].get("alias")) != (version.name, champion.body.alias):
        return None
    for conn_id in sorted(set(connection_ids(asked[0]))):
        # Another interpreter is given the connections that its own task names, and promotion names none.
        if work.access.storage(conn_id) is None:
            raise InvalidSpecError(
                f"the rows are read through the Airflow connection {conn_id!r}, which this task's runtime was not "
                f"given. Clear the run's evaluate task, or let promote run inline."
            )
    log.info(
        "Version %s of %s has the newest window, and entry %s (version %s) came before it: judging it again.",
        version.version,
        version.name,
        champion.number,
        champion.body.to_version,
    )
    report = _perform(work, "evaluate", asked[0], champion)
    decision: GateDecision = _perform(work, "gate", {**asked[1], "report": report.to_xcom()}, champion)
    return decision


def _perform(work: Work, step: str, payload: dict[str, Any], champion: Judged) -> Any:
    # A key of its own: the run's other tasks keep what they made, and a retry of this one adopts.
    key = f"{work.request.key}/{step}-{champion.number}"
    request = StepRequest(step=step, key=key, run=work.request.run, payload=payload, task_url=work.request.task_url)
    return perform(request, work.access, part_of=work.request.key)


def _request(client: MlflowClient, uri: str) -> dict[str, Any] | None:
    """Return what the step was given that wrote this artifact; None where it kept nothing."""
    found = stored_json(client, f"{uri.rpartition('/')[0]}/{REQUEST_FILE}") if uri.startswith("runs:/") else None
    return dict(found) if isinstance(found, dict) else None
