"""Gate rules about how a model serves. They read the serving check's report, which the gate lays beside the evidence.

Without that report they are undecided, so the gate holds: nobody has measured what they ask for.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from airflow_mlops.core.evidence import Evidence
from airflow_mlops.core.records import RuleResult, ServingReport
from airflow_mlops.core.rules import number

#: Bytes of a megabyte, as a disk's maker counts.
MEGABYTE = 10**6
#: The rules that cannot be decided without a serving check.
NEEDS_SERVING = frozenset({"latency_at_most", "model_size_at_most"})
_SAID = 500
_UNCHECKED = (
    "the model was not tried in a fresh interpreter. Set serving.check to true in the specification, or pass the "
    "serving check's report as `serving` to the gate operator"
)


class _ServingRule(BaseModel):
    """Base of these rules: immutable, unknown settings refused, no text where a number belongs."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    rule_name: ClassVar[str]


class LatencyAtMost(_ServingRule):
    """A prediction takes at most ``milliseconds``; exactly as much passes. Needs no champion.

    The time is the median over the calls of the serving check, each with the model's input example of a few rows, on
    the machine that ran the check. ``per: row`` (the default) divides a call's time by its rows; ``per: call`` takes
    the whole call, so also what a call costs whatever its rows.
    """

    rule_name = "latency_at_most"
    milliseconds: float = Field(gt=0)
    per: Literal["row", "call"] = "row"

    def check(self, evidence: Evidence) -> RuleResult:
        """Undecided without a serving check, or where it did not get as far as timing a call."""
        report = evidence.serving
        if report is None:
            return RuleResult.undecided(self.rule_name, f"Latency was not measured: {_UNCHECKED}.")
        value = report.row_milliseconds if self.per == "row" else report.call_milliseconds
        limit = f"it must be at most {number(self.milliseconds)} ms"
        numbers = {
            "metric": f"{self.per}_milliseconds",
            "candidate": value,
            "limit": self.milliseconds,
            "rows": report.rows,
        }
        if value is None:
            return RuleResult.undecided(
                self.rule_name, f"Latency per {self.per} was not measured, {limit}: {_why(report)}.", **numbers
            )
        calls = f"{report.repeats:,} call{'' if report.repeats == 1 else 's'} of {report.rows:,} rows"
        return RuleResult.of(
            value <= self.milliseconds * (1 + 1e-12),
            self.rule_name,
            f"Latency per {self.per} is {number(value)} ms (median of {calls}); {limit}.",
            **numbers,
        )


class ModelSizeAtMost(_ServingRule):
    """All files of the model together take at most ``megabytes`` of 1,000,000 bytes; exactly as much passes."""

    rule_name = "model_size_at_most"
    megabytes: float = Field(gt=0)

    def check(self, evidence: Evidence) -> RuleResult:
        """Undecided without a serving check, which measures the files that are served."""
        report = evidence.serving
        if report is None:
            return RuleResult.undecided(self.rule_name, f"The model's size was not measured: {_UNCHECKED}.")
        value = report.size_bytes / MEGABYTE
        return RuleResult.of(
            report.size_bytes <= self.megabytes * MEGABYTE,
            self.rule_name,
            f"The model's files take {number(value)} MB ({report.size_bytes:,} bytes); they must take at most "
            f"{number(self.megabytes)} MB (1 MB is 1,000,000 bytes).",
            metric="model_megabytes",
            candidate=value,
            limit=self.megabytes,
        )


class Servable(_ServingRule):
    """The serving check found nothing wrong. The gate asks this by itself whenever it is given a check's report."""

    rule_name = "serving"

    def check(self, evidence: Evidence) -> RuleResult:
        """Fail for a model that could not be served; undecided without a report."""
        report = evidence.serving
        if report is None:
            return RuleResult.undecided(self.rule_name, f"{_UNCHECKED[:1].upper()}{_UNCHECKED[1:]}.")
        said = report.sentence if report.ok else f"{report.sentence} {_why(report)}."
        return RuleResult.of(report.ok, self.rule_name, said)


def _why(report: ServingReport) -> str:
    said = (report.problem or report.sentence).partition("\n")[0]
    said = said if len(said) <= _SAID else f"{said[:_SAID]}…"
    return said.rstrip(".")
