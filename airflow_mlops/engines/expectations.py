"""Checking a frame against a contract with Great Expectations 1.x: in memory, quietly, with nothing sent out.

Only the outcome leaves this module: counts, shares and limits, in sentences. The rows themselves do not, except the
positions of the rows that a quarantining expectation found.
"""

from __future__ import annotations

import logging
import re
import threading
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Literal

from airflow_mlops.engines.sentences import Observed, sentence_for
from airflow_mlops.errors import InvalidSpecError, MissingEngineError, UnknownNameError
from airflow_mlops.spec.contract import JUDGES_NO_ROWS, NOT_ARGUMENTS, unknown_expectation

if TYPE_CHECKING:
    import pandas

    from airflow_mlops.spec.contract import Contract, ExpectationSpec

Status = Literal["pass", "fail", "error", "unchecked"]
#: Great Expectations keeps its current context in one global place, so two checks in one process take turns.
_ONE_AT_A_TIME = threading.Lock()
#: Its time grows faster than the expectations, and with the columns, that it is given at once.
_AT_ONCE = 60


@dataclass(frozen=True)
class Outcome:
    """What one expectation says of the frame.

    :param number: its place in the contract.
    :param status: ``error``: it could not be evaluated (column missing, wrong type); ``unchecked``: not tried.
    :param positions: rows at fault, counted from 0; for quarantining expectations only.
    """

    number: int
    status: Status
    sentence: str
    unexpected_count: int | None = None
    positions: tuple[int, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class Mistake:
    """What is wrong with one expectation of a contract.

    :param number: its place in the contract.
    :param key: which of its keys is wrong.
    """

    number: int
    key: str
    what: str
    mend: str = ""


def check_contract_names(contract: Contract) -> None:
    """Refuse what Great Expectations does not know or cannot use.

    :raises UnknownNameError: no expectation has that name; the nearest one is suggested.
    :raises InvalidSpecError: arguments do not fit, or quarantine is asked of an expectation that judges no single rows.
    :raises MissingEngineError: Great Expectations is not installed.
    """
    known = known_names()
    for number, spec in enumerate(contract.expectations):
        if spec.type not in known:
            said, mend = unknown_expectation(spec.type, known)
            raise UnknownNameError(f"{contract.place(number)}: {said}. {mend}")
    mistakes = [f"{contract.place(one.number)}: {one.what}. {one.mend}".rstrip() for one in mistakes_in(contract)]
    if mistakes:
        raise InvalidSpecError("\n".join(mistakes))


def known_names() -> Collection[str]:
    """Return the names of all expectations that can be used in this process: a team's own count once imported.

    :raises MissingEngineError: Great Expectations is not installed.
    """
    _require()
    from great_expectations.expectations import registry

    names: Collection[str] = registry.list_registered_expectation_implementations()
    return names


def mistakes_in(contract: Contract) -> Iterator[Mistake]:
    """Yield the expectations whose name is known and which still cannot be used. No data is needed.

    :raises MissingEngineError: Great Expectations is not installed.
    """
    known = known_names()
    from great_expectations.core.expectation_suite import ExpectationSuite
    from great_expectations.exceptions import GreatExpectationsError

    for number, spec in enumerate(contract.expectations):
        if spec.type not in known:
            continue
        if spec.on_failure == "quarantine" and not _is_row_wise(spec.type):
            yield Mistake(number, "on_failure", *JUDGES_NO_ROWS)
            continue
        try:
            _add(ExpectationSuite(name="check"), number, spec, lambda column: False)
        except (ValueError, TypeError, OverflowError, GreatExpectationsError) as exc:
            yield Mistake(number, "kwargs", _argument_mistakes(exc))


def evaluate(frame: pandas.DataFrame, contract: Contract, numbers: Sequence[int]) -> list[Outcome]:
    """Check ``frame`` against the expectations of ``contract`` whose places are ``numbers``, in that order.

    What an expectation raises becomes an outcome with status ``error``; nothing of it reaches the caller as an
    exception. ISO text as a bound of a time column is read as UTC.

    :param frame: the rows, with an index that counts from 0, as ``load_frame`` gives them.
    """
    chosen = [(number, contract.expectations[number]) for number in numbers]
    outcomes = {number: gone for number, spec in chosen if (gone := _missing_column(number, spec, frame)) is not None}
    ready = [(number, spec) for number, spec in chosen if number not in outcomes]
    for want_rows in (False, True):
        part = [(number, spec) for number, spec in ready if (spec.on_failure == "quarantine") is want_rows]
        for start in range(0, len(part), _AT_ONCE):
            turn = part[start : start + _AT_ONCE]
            outcomes |= _run(_needed(frame, turn), turn, want_rows=want_rows)
    return [outcomes[number] for number in numbers]


def _needed(frame: pandas.DataFrame, part: list[tuple[int, ExpectationSpec]]) -> pandas.DataFrame:
    """Return the columns these expectations name; all where one has a condition or is about the table or its order."""
    if any(not spec.columns or {"row_condition", "column_index"} & spec.kwargs.keys() for _, spec in part):
        return frame
    named = {column for _, spec in part for column in spec.columns}
    return frame[[column for column in frame.columns if column in named]]


def _run(frame: pandas.DataFrame, part: list[tuple[int, ExpectationSpec]], *, want_rows: bool) -> dict[int, Outcome]:
    _require()
    import great_expectations
    from great_expectations.core.expectation_suite import ExpectationSuite
    from great_expectations.data_context.types.base import (
        DataContextConfig,
        InMemoryStoreBackendDefaults,
        ProgressBarsConfig,
    )

    def is_time(column: str) -> bool:
        return column in frame.columns and frame[column].dtype.kind == "M"

    with _ONE_AT_A_TIME, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        context = great_expectations.get_context(
            mode="ephemeral",
            project_config=DataContextConfig(
                store_backend_defaults=InMemoryStoreBackendDefaults(init_temp_docs_sites=False),
                analytics_enabled=False,
                progress_bars=ProgressBarsConfig(globally=False),
            ),
        )
        asset = context.data_sources.add_pandas("frame").add_dataframe_asset("frame")
        batch = asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": frame})
        suite = ExpectationSuite(name="contract")
        for number, spec in part:
            _add(suite, number, spec, is_time)
        result = batch.validate(
            suite,
            # Counts only; where rows are set aside, their positions too, but never in a partial list.
            result_format={
                "result_format": "COMPLETE" if want_rows else "BASIC",
                "partial_unexpected_count": 0,
                "include_unexpected_rows": False,
            },
        )
    specs = dict(part)
    found = {}
    for item in result.results:
        number = int(item.expectation_config.meta["number"])
        found[number] = _outcome(number, specs[number], item, want_rows=want_rows)
    for number, spec in part:
        # Seen where an expectation's own code swallows an error: what gave no result was not checked.
        found.setdefault(number, Outcome(number, "error", f"{spec.type} gave no result."))
    return found


def _outcome(number: int, spec: ExpectationSpec, item: Any, *, want_rows: bool) -> Outcome:
    problem = _problem(item.exception_info)
    if problem is not None:
        about = f"column {spec.columns[0]!r}" if spec.columns else "the table"
        return Outcome(
            number,
            "error",
            f"{spec.type} could not be evaluated on {about}: {problem}. Check the type of the data and the arguments.",
        )
    result = dict(item.result or {})
    count = result.get("unexpected_count")
    sentence = sentence_for(
        Observed(
            type=spec.type,
            kwargs=spec.kwargs,
            success=bool(item.success),
            element_count=result.get("element_count"),
            missing_count=result.get("missing_count"),
            unexpected_count=count,
            value=result.get("observed_value"),
        )
    )
    if item.success:
        return Outcome(number, "pass", sentence, count)
    positions = result.get("unexpected_index_list") if want_rows else ()
    if want_rows and not positions:
        return Outcome(number, "error", f"{sentence} It names no single rows, so none can be set aside.", count)
    return Outcome(number, "fail", sentence, count, tuple(int(place) for place in positions or ()))


def _add(suite: Any, number: int, spec: ExpectationSpec, is_time: Callable[[str], bool]) -> None:
    from great_expectations.expectations.expectation_configuration import ExpectationConfiguration

    kwargs: dict[str, Any] = dict(spec.kwargs)
    if len(spec.columns) == 1 and is_time(spec.columns[0]):
        for bound in ("min_value", "max_value"):
            if isinstance(text := kwargs.get(bound), str) and (moment := _naive_utc(text)) is not None:
                kwargs[bound] = moment
    # Not by the suite's own add: it replaces an expectation of the same type on the same column, or on the same table.
    suite.expectations.append(
        ExpectationConfiguration(type=spec.type, kwargs=kwargs, meta={"number": number}).to_domain_obj()
    )


def _naive_utc(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo is None else moment.astimezone(UTC).replace(tzinfo=None)


def _missing_column(number: int, spec: ExpectationSpec, frame: pandas.DataFrame) -> Outcome | None:
    """Answer for a column that is not there, before Great Expectations wraps the same in a page of traceback."""
    if spec.type == "expect_column_to_exist":
        return None
    names = [str(name) for name in frame.columns]
    for column in spec.columns:
        if column not in names:
            close = get_close_matches(column, names, n=1)
            shown = ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
            hint = f" The nearest name is {close[0]!r}." if close else f" It has: {shown}."
            return Outcome(number, "error", f"Column {column!r} is missing from the data.{hint}")
    return None


def _is_row_wise(name: str) -> bool:
    from great_expectations.expectations import expectation, registry

    kinds = (
        expectation.ColumnMapExpectation,
        expectation.ColumnPairMapExpectation,
        expectation.MulticolumnMapExpectation,
    )
    return issubclass(registry.get_expectation_impl(name), kinds)


def _problem(info: Any) -> str | None:
    """Return the reason why an expectation could not be evaluated, or None. Quoted values are blanked out."""
    infos = [info] if "raised_exception" in (info or {}) else list((info or {}).values())
    for one in infos:
        if one.get("raised_exception"):
            lines = [line for line in str(one.get("exception_message") or "").splitlines() if line.strip()]
            return _without_values(lines[0] if lines else "no reason was given")
    return None


#: Words that an error message may quote without telling anything about a row.
_HARMLESS = re.compile(
    r"^(?:<|>|<=|>=|==|!=|[+*/-]|int|float|str|bool|NoneType|datetime\S*|Timestamp|object|list|dict)$"
)


def _without_values(text: str) -> str:
    def shown(match: re.Match[str]) -> str:
        return match[0] if _HARMLESS.match(match[2]) else f"{match[1]}...{match[1]}"

    text = re.sub(r"(['\"])(.*?)\1", shown, text)
    return text[:200].rstrip(". ")


def _argument_mistakes(exc: Exception) -> str:
    """Turn the reader's own list of mistakes into one sentence each."""
    errors = exc.errors() if hasattr(exc, "errors") else []
    said: dict[str, str] = {}
    for error in errors:
        key = ".".join(str(part) for part in error["loc"]).replace("__root__", "kwargs")
        said.setdefault(
            key,
            {"field required": "is missing", "extra fields not permitted": "is no argument of it"}.get(
                error["msg"], error["msg"]
            ),
        )
    if not said:
        return " ".join(str(exc).split()).rstrip(".")
    return "; ".join(
        f"{key} {message}" if message.startswith("is ") else f"{key}: {message}" for key, message in said.items()
    )


def arguments_of(name: str) -> list[str]:
    """Return the arguments of an expectation that is known, those that it must have first."""
    from great_expectations.expectations import expectation, registry

    fields = registry.get_expectation_impl(name).__fields__
    own = [key for key in fields if key not in expectation.BatchExpectation.__fields__ and key not in NOT_ARGUMENTS]
    return sorted(own, key=lambda key: not fields[key].required)


def _require() -> None:
    """Import Great Expectations quietly: it logs hundreds of lines while it is imported."""
    logger = logging.getLogger("great_expectations")
    if logger.level < logging.WARNING:
        logger.setLevel(logging.WARNING)
    try:
        import great_expectations  # noqa: F401  # imported for its presence
    except ModuleNotFoundError as exc:
        if exc.name != "great_expectations":
            raise
        raise MissingEngineError(
            "great_expectations is not installed on this worker, so the contract cannot be checked. "
            "Run: pip install 'airflow-mlops[great-expectations]' (Composer: PyPI packages; MWAA: requirements.txt)."
        ) from exc
