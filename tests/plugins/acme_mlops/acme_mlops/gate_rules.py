"""Gate rules of our own. A DAG file that is parsed imports this module: nothing heavy here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from airflow_mlops.core.evidence import Evidence
from airflow_mlops.core.records import RuleResult


@dataclass(frozen=True, kw_only=True)
class EnoughRows:
    """The metric was measured on at least ``rows`` rows."""

    metric: str
    rows: int
    rule_name: ClassVar[str] = "enough_rows"

    def __post_init__(self) -> None:
        if type(self.rows) is not int or self.rows < 1:
            raise ValueError(f"rows must be a whole number of at least 1, not {self.rows!r}")

    def check(self, evidence: Evidence) -> RuleResult:
        """Undecided where the metric was not measured or has no value."""
        measured = evidence.overall(self.metric)
        if measured is None or measured.candidate is None:
            return RuleResult.undecided(self.rule_name, f"{self.metric} was not measured on any row")
        return RuleResult.of(
            measured.rows >= self.rows,
            self.rule_name,
            f"{self.metric} was measured on {measured.rows:,} rows; at least {self.rows:,} were asked for",
            metric=self.metric,
            rows=measured.rows,
            limit=self.rows,
        )
