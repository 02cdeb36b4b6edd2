"""An inferred contract as the text of a YAML file, each limit with the comment that says where it came from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow_mlops.core.inference import Inferred, Proposal
from airflow_mlops.core.yaml_text import comment, entry, flow

_HEADER = (
    "Beside each expectation stands what was seen, and how its limit follows. One window cannot tell a habit from a "
    "law: read the limits, tighten what you know, loosen what you doubt. `type` and `kwargs` are Great Expectations' "
    "own names.",
    "on_failure: what a model cannot do without (columns, types, completeness, keys, labels) is `fail`: the run stops. "
    "What merely was usual here (ranges, values) is `warn`: it is said. Where you know a limit to be a law, make it "
    "`fail`, or `quarantine` to set single rows aside.",
)


def contract_text(inferred: Inferred, source: str) -> str:
    """Return the file's text; the same input gives the same text.

    :param source: the sentence that says which rows it was inferred from.
    """
    lines = [comment(text) for text in (source, *_HEADER)]
    lines += ["", comment(f"{_capital(inferred.min_rows_reason)}."), f"min_rows: {inferred.min_rows}"]
    if inferred.max_quarantined_share is not None:
        lines += [
            comment(f"{_capital(inferred.share_reason)}."),
            f"max_quarantined_share: {flow(inferred.max_quarantined_share)}",
        ]
    if inferred.target is not None:
        lines += [
            comment("Columns that only training rows have: a batch to score comes without them, no model reads one."),
            entry("train_only", [inferred.target], 0),
        ]
    lines.append("expectations:")
    about: object = None
    for proposal in inferred.proposals:
        column = proposal.kwargs.get("column")
        if column is None or column != about:
            lines.append("")
        about = column
        lines += _written(proposal)
    if inferred.left_out:
        lines += ["", comment("Looked at, and nothing is expected of it:")]
        lines += [comment(f"- {text}") for text in inferred.left_out]
    return "\n".join(lines).replace("expectations:\n\n", "expectations:\n", 1) + "\n"


def as_mapping(inferred: Inferred) -> dict[str, Any]:
    """Return the contract as the mapping that the text reads back as."""
    mapping: dict[str, Any] = {"min_rows": inferred.min_rows}
    if inferred.max_quarantined_share is not None:
        mapping["max_quarantined_share"] = inferred.max_quarantined_share
    if inferred.target is not None:
        mapping["train_only"] = [inferred.target]
    mapping["expectations"] = [
        {"type": one.type, "kwargs": one.kwargs, "on_failure": one.on_failure} for one in inferred.proposals
    ]
    return mapping


def _written(proposal: Proposal) -> Sequence[str]:
    return (
        comment(f"{_capital(proposal.reason)}.", indent=2),
        f"  - type: {proposal.type}",
        entry("kwargs", proposal.kwargs, 4),
        f"    on_failure: {proposal.on_failure}",
    )


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
