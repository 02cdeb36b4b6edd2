"""The only module that knows Airflow's moving import paths (2.11 and 3.x). Imported from ``hooks`` upward.

Take every Airflow name from here: ``from airflow_mlops.compat import BaseOperator``. A name is looked up when it is
first asked for, newest path first, so importing this module costs nothing and a name that one Airflow lacks harms
nobody who does not ask for it. Airflow's own ``common.compat`` provider is no help: managed services pin versions
without its ``sdk`` module.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.exceptions import AirflowClusterPolicySkipDag as AirflowClusterPolicySkipDag
    from airflow.models.dagbag import DagBag as DagBag
    from airflow.providers.standard.operators.hitl import HITLOperator as HITLOperator
    from airflow.sdk import DAG as DAG
    from airflow.sdk import Asset as Asset
    from airflow.sdk import AssetAlias as AssetAlias
    from airflow.sdk import AssetAll as AssetAll
    from airflow.sdk import AssetAny as AssetAny
    from airflow.sdk import BaseHook as BaseHook
    from airflow.sdk import BaseNotifier as BaseNotifier
    from airflow.sdk import BaseOperator as BaseOperator
    from airflow.sdk import BaseOperatorLink as BaseOperatorLink
    from airflow.sdk import BaseSensorOperator as BaseSensorOperator
    from airflow.sdk import Connection as Connection
    from airflow.sdk import Context as Context
    from airflow.sdk import CronDataIntervalTimetable as CronDataIntervalTimetable
    from airflow.sdk import DeltaDataIntervalTimetable as DeltaDataIntervalTimetable
    from airflow.sdk import Label as Label
    from airflow.sdk import Metadata as Metadata
    from airflow.sdk import Param as Param
    from airflow.sdk import PokeReturnValue as PokeReturnValue
    from airflow.sdk import TaskGroup as TaskGroup
    from airflow.sdk import TriggerRule as TriggerRule
    from airflow.sdk import Variable as Variable
    from airflow.sdk import XComArg as XComArg
    from airflow.sdk import chain as chain
    from airflow.sdk import conf as conf
    from airflow.sdk import get_current_context as get_current_context
    from airflow.sdk import get_parsing_context as get_parsing_context
    from airflow.sdk import task as task
    from airflow.sdk import task_group as task_group
    from airflow.sdk.bases.xcom import BaseXCom
    from airflow.sdk.exceptions import AirflowException as AirflowException
    from airflow.sdk.exceptions import AirflowFailException as AirflowFailException
    from airflow.sdk.exceptions import AirflowNotFoundException as AirflowNotFoundException
    from airflow.sdk.exceptions import AirflowSensorTimeout as AirflowSensorTimeout
    from airflow.sdk.exceptions import AirflowSkipException as AirflowSkipException
    from airflow.sdk.exceptions import TaskDeferred as TaskDeferred
    from airflow.sdk.observability.stats import Stats as Stats
    from airflow.serialization.serialized_objects import DagSerialization as DagSerialization
    from airflow.triggers.base import BaseTrigger as BaseTrigger
    from airflow.triggers.base import TriggerEvent as TriggerEvent
    from packaging.version import Version

    XCom = BaseXCom
    #: The running Airflow's version.
    AIRFLOW_VERSION: Version
    #: Whether this is Airflow 3 or later.
    AIRFLOW_3: bool

#: name -> where it is found, newest Airflow first, as ``module:attribute``.
_PATHS: dict[str, tuple[str, ...]] = {
    "AirflowClusterPolicySkipDag": ("airflow.exceptions:AirflowClusterPolicySkipDag",),
    "AirflowException": ("airflow.sdk.exceptions:AirflowException", "airflow.exceptions:AirflowException"),
    "AirflowFailException": ("airflow.sdk.exceptions:AirflowFailException", "airflow.exceptions:AirflowFailException"),
    "AirflowNotFoundException": (
        "airflow.sdk.exceptions:AirflowNotFoundException",
        "airflow.exceptions:AirflowNotFoundException",
    ),
    "AirflowSensorTimeout": ("airflow.sdk.exceptions:AirflowSensorTimeout", "airflow.exceptions:AirflowSensorTimeout"),
    "AirflowSkipException": ("airflow.sdk.exceptions:AirflowSkipException", "airflow.exceptions:AirflowSkipException"),
    # Before Airflow 3 an Asset was called a Dataset.
    "Asset": ("airflow.sdk:Asset", "airflow.datasets:Dataset"),
    "AssetAlias": ("airflow.sdk:AssetAlias", "airflow.datasets:DatasetAlias"),
    "AssetAll": ("airflow.sdk:AssetAll", "airflow.datasets:DatasetAll"),
    "AssetAny": ("airflow.sdk:AssetAny", "airflow.datasets:DatasetAny"),
    "BaseHook": ("airflow.sdk:BaseHook", "airflow.hooks.base:BaseHook"),
    "BaseNotifier": ("airflow.sdk:BaseNotifier", "airflow.notifications.basenotifier:BaseNotifier"),
    "BaseOperator": ("airflow.sdk:BaseOperator", "airflow.models.baseoperator:BaseOperator"),
    "BaseOperatorLink": ("airflow.sdk:BaseOperatorLink", "airflow.models.baseoperatorlink:BaseOperatorLink"),
    "BaseSensorOperator": ("airflow.sdk:BaseSensorOperator", "airflow.sensors.base:BaseSensorOperator"),
    "BaseTrigger": ("airflow.triggers.base:BaseTrigger",),
    "Connection": ("airflow.sdk:Connection", "airflow.models.connection:Connection"),
    "Context": ("airflow.sdk:Context", "airflow.utils.context:Context"),
    "CronDataIntervalTimetable": (
        "airflow.sdk:CronDataIntervalTimetable",
        "airflow.timetables.interval:CronDataIntervalTimetable",
    ),
    "DAG": ("airflow.sdk:DAG", "airflow.models.dag:DAG"),
    "DagBag": ("airflow.dag_processing.dagbag:DagBag", "airflow.models.dagbag:DagBag"),
    "DagSerialization": (
        "airflow.serialization.serialized_objects:DagSerialization",
        "airflow.serialization.serialized_objects:SerializedDAG",
    ),
    "DeltaDataIntervalTimetable": (
        "airflow.sdk:DeltaDataIntervalTimetable",
        "airflow.timetables.interval:DeltaDataIntervalTimetable",
    ),
    "HITLOperator": ("airflow.providers.standard.operators.hitl:HITLOperator",),  # from Airflow 3.1 on
    "Label": ("airflow.sdk:Label", "airflow.utils.edgemodifier:Label"),
    "Metadata": ("airflow.sdk:Metadata", "airflow.datasets.metadata:Metadata"),
    "Param": ("airflow.sdk:Param", "airflow.models.param:Param"),
    "PokeReturnValue": ("airflow.sdk:PokeReturnValue", "airflow.sensors.base:PokeReturnValue"),
    "Stats": ("airflow.sdk.observability.stats:Stats", "airflow.stats:Stats"),
    "TaskDeferred": ("airflow.sdk.exceptions:TaskDeferred", "airflow.exceptions:TaskDeferred"),
    "TaskGroup": ("airflow.sdk:TaskGroup", "airflow.utils.task_group:TaskGroup"),
    "TriggerEvent": ("airflow.triggers.base:TriggerEvent",),
    "TriggerRule": ("airflow.sdk:TriggerRule", "airflow.utils.trigger_rule:TriggerRule"),
    "Variable": ("airflow.sdk:Variable", "airflow.models.variable:Variable"),
    "XCom": ("airflow.sdk.execution_time.xcom:XCom", "airflow.models.xcom:XCom"),
    "XComArg": ("airflow.sdk:XComArg", "airflow.models.xcom_arg:XComArg"),
    "chain": ("airflow.sdk:chain", "airflow.models.baseoperator:chain"),
    "conf": ("airflow.sdk:conf", "airflow.configuration:conf"),
    "get_current_context": ("airflow.sdk:get_current_context", "airflow.operators.python:get_current_context"),
    "get_parsing_context": (
        "airflow.sdk:get_parsing_context",
        "airflow.utils.dag_parsing_context:get_parsing_context",
    ),
    "task": ("airflow.sdk:task", "airflow.decorators:task"),
    "task_group": ("airflow.sdk:task_group", "airflow.decorators:task_group"),
}

#: What a provider's module raises while it loads on an Airflow that is too old for it.
_NOT_HERE = "AirflowOptionalProviderFeatureException"

__all__ = ["AIRFLOW_3", "AIRFLOW_VERSION", *sorted(_PATHS)]


def _find(name: str) -> Any:
    for path in _PATHS[name]:
        module_name, _, attribute = path.partition(":")
        try:
            module = import_module(module_name)
        except ModuleNotFoundError as exc:
            # Only the absence of the path itself sends us on; a broken installation must show its real cause.
            if exc.name is None or not f"{module_name}.".startswith(f"{exc.name}."):
                raise
            continue
        except Exception as exc:
            if type(exc).__name__ != _NOT_HERE:
                raise
            continue
        try:
            return getattr(module, attribute)
        except AttributeError:
            continue
    raise ImportError(
        f"This Airflow has none of {', '.join(_PATHS[name])}. airflow_mlops supports Airflow 2.11 and 3.x: "
        f"run `airflow version`, and install a supported one."
    )


def __getattr__(name: str) -> Any:
    if name in ("AIRFLOW_VERSION", "AIRFLOW_3"):
        from airflow import __version__
        from packaging.version import Version

        found: Any = Version(__version__)
        if name == "AIRFLOW_3":
            found = found.major >= 3
    elif name in _PATHS:
        found = _find(name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found  # the next look-up finds it at once
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
