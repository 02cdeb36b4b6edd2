"""From a folder of model files to their DAGs, in one DAG file.

A bad file must not take the others with it. Airflow records an import error by a path, and takes every DAG of that path
out of service; so a bad file's error is recorded by the path of that file, not of the DAG file that reads it.
"""

from __future__ import annotations

import gc
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from airflow_mlops.compat import DAG, AirflowClusterPolicySkipDag, get_parsing_context
from airflow_mlops.core.keys import digest_of
from airflow_mlops.errors import InvalidSpecError, MLOpsError
from airflow_mlops.factories.monitoring import monitoring_dag
from airflow_mlops.factories.parts import timetable
from airflow_mlops.factories.scoring import scoring_dag
from airflow_mlops.factories.training import training_dag
from airflow_mlops.spec.fleet import dag_ids, dag_kinds, read_models
from airflow_mlops.spec.layers import read_layers
from airflow_mlops.spec.load import asked
from airflow_mlops.spec.model import ModelSpec

_log = logging.getLogger(__name__)

#: By the kinds that ``dag_kinds`` names.
FACTORIES: dict[str, Callable[[ModelSpec], DAG]] = {
    "training": training_dag,
    "scoring": scoring_dag,
    "monitoring": monitoring_dag,
}
_KEY = re.compile(r"[a-z_]+(?:\.[a-z_]+|\[\d+\])*")


class Models(dict[str, DAG]):
    """The DAGs of a folder by id, and in ``errors`` what is wrong with the files that gave none, by path."""

    def __init__(self) -> None:
        super().__init__()
        self.errors: dict[Path, str] = {}


def load_models(folder: str | Path, *, profile: str | None = None, owner: str | None = None) -> Models:
    """Make the DAGs of every model's file in ``folder`` and below; call it at the top of a DAG file.

    A model gets a training DAG; a scoring DAG where it says ``scoring``; a monitoring DAG where it says ``scoring``,
    ``drift`` or ``monitoring``. A file that is not valid gives one import error in Airflow, under its own path, and no
    DAG; all others load. Of two files that would make a DAG of the same id, neither loads.

    Files that begin with ``_`` or ``.``, folders too, and data contracts are left out. What a file says is kept on disk
    (``AIRFLOW_MLOPS_CACHE``), and read again when the file or its base changes. When Airflow runs a task, only the
    DAGs of its model are made.

    :param folder: absolute, as ``Path(__file__).parent / "models"``; a relative path starts from where Airflow runs.
    :param profile: as for ``load_spec``, for all models.
    :param owner: as for ``load_spec``, for all models.
    :returns: the DAGs by id, and the mistakes under ``errors``.
    :raises InvalidSpecError: there is no such folder, or no model in it.
    """
    given = asked(profile, owner)
    models = Models()
    wanted = get_parsing_context().dag_id
    if wanted:
        return _one(models, folder, given, wanted)
    made: dict[Path, dict[str, DAG]] = {}
    crons: set[tuple[str, str]] = set()
    with _no_collections():
        for file, spec in read_models(folder, given):
            try:
                made[file] = _dags_of(spec, crons)
            except Exception as exc:  # noqa: BLE001  # whatever it is, it is one model's
                models.errors[file] = _told(file, exc, given)
    if not made and not models.errors:
        raise InvalidSpecError(
            f"{folder} holds no model: no file in it, or below, ends in .yaml, .yml or .json, is no data contract, and "
            f"has a name, and folders on its way, that begin with neither `_` nor `.`."
        )
    files_of: dict[str, list[Path]] = {}
    for file, dags in made.items():
        for dag_id in dags:
            files_of.setdefault(dag_id, []).append(file)
    for file, dags in made.items():
        twice = [dag_id for dag_id in dags if len(files_of[dag_id]) > 1]
        if twice:
            others = ", ".join(str(one) for one in files_of[twice[0]] if one != file)
            models.errors[file] = (
                f"{file}: the DAG {twice[0]!r} is also made from {others}, so none of them is loaded. Give each model "
                f"its own name, or remove the file that is too much (a name that begins with `_` leaves it out)."
            )
            _leave_out(dags)
        else:
            models.update(dags)
    for file, text in models.errors.items():
        _log.error("%s", _storable(text))
        _refuse(file, text)
    return models


@contextmanager
def _no_collections() -> Iterator[None]:
    """Spare the garbage collector's walks, a tenth of the time: nearly all that is made here stays."""
    on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if on:
            gc.enable()


def _one(models: Models, folder: str | Path, given: Mapping[str, str], wanted: str) -> Models:
    """Make only the DAGs of the model that a running task belongs to; mistakes of others are not its business."""
    for _, spec in read_models(folder, given, only=lambda name: name in wanted):
        if isinstance(spec, ModelSpec) and wanted in dag_ids(spec).values():
            models.update(_dags_of(spec, set()))
    return models


def _dags_of(spec: ModelSpec | Exception, crons: set[tuple[str, str]]) -> dict[str, DAG]:
    """Return the DAGs of one model; all or none.

    :param crons: the expressions and zones that are known to be valid; filled in.
    """
    if isinstance(spec, Exception):
        raise spec
    _check_crons(spec, crons)
    dags: dict[str, DAG] = {}
    try:
        for kind in dag_kinds(spec):
            dag = FACTORIES[kind](spec)
            dags[dag.dag_id] = dag
    except BaseException:
        _leave_out(dags)
        raise
    return dags


def _check_crons(spec: ModelSpec, valid: set[tuple[str, str]]) -> None:
    """Refuse a cron expression that Airflow would find only later, and then blame on the DAG file."""
    for place, schedule in (
        ("schedule", spec.schedule),
        ("scoring.schedule", spec.scoring.schedule if spec.scoring is not None else None),
        ("monitoring.schedule", spec.monitoring.schedule),
    ):
        if schedule is None or not schedule.cron or (schedule.cron, schedule.timezone) in valid:
            continue
        try:
            timetable(spec, schedule).validate()
        except Exception as exc:
            raise InvalidSpecError(
                f"{place}.cron: {schedule.cron!r} is no cron expression: {exc}. Write five fields, such as '0 6 * * 1'."
            ) from exc
        valid.add((schedule.cron, schedule.timezone))


def _told(file: Path, exc: Exception, given: Mapping[str, str]) -> str:
    """Return what Airflow's page shows of one bad file: its path, the line, the key, and the mend."""
    if not isinstance(exc, MLOpsError):
        return f"{file}: this model cannot be made into DAGs.\n{''.join(traceback.format_exception(exc))}"
    text = str(exc)
    if str(file) in text or f"{file.name}, line" in text:
        return text
    # What the factories find names the key, and no line.
    said = re.sub(r"^Model '\w+': ", "", text)
    key = _KEY.match(said)
    if key is not None:
        location = [int(part) if part.isdigit() else part for part in re.findall(r"\w+", key[0])]
        try:
            return f"{read_layers(file, given.get('profile')).place(location)}: {said}"
        except (MLOpsError, OSError):
            pass
    return f"{file}: {said}"


def _leave_out(dags: Mapping[str, DAG]) -> None:
    """Keep DAGs that were made already, and that Airflow knows of, from being loaded."""

    def validate() -> None:
        raise _skip()

    for dag in dags.values():
        dag.validate = validate


def _refuse(file: Path, text: str) -> None:
    """Have Airflow record ``text`` as the import error of ``file``."""
    stem = re.sub(r"[^A-Za-z0-9_.-]", "_", file.stem)[:100]
    # Leaving the context makes it known to Airflow, as it does with every DAG.
    with DAG(dag_id=f"not_loaded__{stem}__{digest_of(ascii(file))[:8]}", schedule=None) as dag:
        dag.validate = partial(_record, file, text)


def _record(file: Path, text: str) -> None:
    """Write the error down where Airflow collects them, when it asks this stand-in for a DAG whether it is valid."""
    frame = sys._getframe(1)
    for _ in range(3):
        bag: Any = frame.f_locals.get("self")
        if isinstance(getattr(bag, "import_errors", None), dict) and hasattr(bag, "bag_dag"):
            absolute = Path(os.path.abspath(file))  # noqa: PTH100  # links are not followed, as Airflow does not
            bag.import_errors[_storable(_key(absolute, getattr(bag, "bundle_path", None)))] = _storable(text)
            raise _skip()
        if frame.f_back is None:
            break
        frame = frame.f_back
    # Rather all DAGs of the file out of service, and the reason seen, than a mistake that nobody sees.
    raise InvalidSpecError(text)


def _key(file: Path, bundle: Path | None) -> str:
    """Return the path by which Airflow records errors: from the bundle's folder, where there are bundles."""
    if bundle is not None and file.is_relative_to(bundle):
        return str(file.relative_to(bundle))
    return str(file)


def _storable(text: str) -> str:
    """Return a text that a database keeps: no NUL, and no bytes of a file's name that are no UTF-8."""
    return text.replace("\x00", "?").encode(errors="replace").decode()


def _skip() -> Exception:
    """Return the error by which a DAG says that it is not to be loaded, which is no import error."""
    skip: Exception = AirflowClusterPolicySkipDag("This model's file is not valid; its import error says why.")
    return skip
