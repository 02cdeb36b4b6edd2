"""An Airflow DAG written by hand: put the flights champion that served before back, with a reason."""

from airflow_mlops import RollbackModelOperator
from airflow_mlops.compat import DAG, AssetAlias, Param

with DAG(
    dag_id="rollback_flights",
    description="Put the version of flights that served before back",
    schedule=None,
    catchup=False,
    tags=["airflow_mlops", "flights", "rollback"],
    params={"reason": Param(type="string", minLength=5, description="Why; kept in the promotion ledger.")},
    doc_md="Moves the alias `champion` of `flights` to the version that served before. Running it again moves it back.",
):
    RollbackModelOperator(
        task_id="rollback",
        registered_model="flights",
        experiment="flights",
        reason="{{ params.reason }}",
        outlets=[AssetAlias("flights_champion")],
    )
