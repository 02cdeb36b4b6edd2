"""Every error the package raises on purpose.

One base, :class:`MLOpsError`; each child names a situation, says whether a retry can help, and carries a message that
tells what happened, where, what is allowed, and what to do. Nothing here imports Airflow, so any layer may raise them;
the operators translate: a :class:`VerdictError` never retries, an :class:`OutageError` does.

``MLOpsError``
    ``VerdictError``                    the evidence says no; a retry would find the same
        ``InvalidSpecError``            what a person wrote is not a valid specification, contract or argument
            ``UnknownNameError``        a name that no registry entry answers to
        ``DataChangedError``            a file is not the one that was snapshotted
        ``DataReadError``               the data cannot be found, read or understood
        ``LeakageError``                windows overlap where they must not
        ``ModelRefusedError``           a model cannot be logged, loaded or trusted
        ``LedgerError``                 the promotion history needs a person
        ``RecordTooLargeError``         a record does not fit into XCom
        ``MissingEngineError``          a library this step needs is not installed here
        ``TrackingRefusedError``        the MLflow server answers, but refuses this login, certificate or address
    ``OutageError``                     something outside did not answer; a retry may help
        ``TrackingUnavailableError``    the MLflow server
        ``StorageUnavailableError``     the object store or file system
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from difflib import get_close_matches
from typing import ClassVar


class MLOpsError(Exception):
    """Base of every error the package raises on purpose."""


class VerdictError(MLOpsError):
    """The evidence says no. Running the task again without a change finds the same."""


class OutageError(MLOpsError):
    """Something outside did not answer in time. Running the task again may help."""


class InvalidSpecError(VerdictError, ValueError):
    """What a person wrote is not valid; the message names the place (file, key, line) and what is allowed."""


class UnknownNameError(InvalidSpecError):
    """A name that no registry entry answers to."""

    @classmethod
    def of(cls, kind: str, name: str, known: Collection[str], *, group: str | None = None) -> UnknownNameError:
        """Build the error for ``name`` among ``known``, with the nearest known name and how to add one."""
        close = get_close_matches(name, known, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        add = f" To add one, register it under the entry-point group {group!r}." if group else ""
        return cls(f"No {kind} is called {name!r}.{hint} Known: {', '.join(sorted(known)) or 'none'}.{add}")


class DataChangedError(VerdictError):
    """A file is not the one that was snapshotted. Clear the snapshot task to take a new version."""


class DataReadError(VerdictError):
    """The data cannot be found, read or understood; the message names the file or folder."""


class DataMissingError(DataReadError):
    """Nothing is there yet, or the path is misspelt: who waits for data goes on waiting."""


class LeakageError(VerdictError, ValueError):
    """Rows would serve both training and evaluation."""


class ModelRefusedError(VerdictError):
    """A model cannot be logged, loaded or trusted; the message says which check it failed."""


class LedgerError(VerdictError):
    """The promotion history and the registry disagree in a way only a person can settle (``needs_attention``)."""


class RecordTooLargeError(VerdictError, ValueError):
    """A record does not fit into XCom; the message names its largest field."""


class MissingEngineError(VerdictError, ImportError):
    """A library this step needs is not installed here; the message gives the install command."""

    #: Which extra of the package brings a library; what is not listed is the team's own affair.
    EXTRAS: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(("duckdb", "fsspec", "numpy", "pandas", "pyarrow", "scipy", "sklearn"), "steps"),
        "mlflow": "mlflow",
        "great_expectations": "great-expectations",
        "evidently": "evidently",
        "gcsfs": "google",
        "boto3": "amazon",
    }

    @classmethod
    def of(cls, module: str) -> MissingEngineError | None:
        """Build the error for a module that could not be found; None where no extra brings it."""
        extra = cls.EXTRAS.get(module.partition(".")[0])
        if extra is None:
            return None
        return cls(
            f"The library {module.partition('.')[0]!r} is not installed where this step runs. Run: pip install "
            f"'airflow-mlops[{extra}]' (Composer: PyPI packages; MWAA: requirements.txt). Or let the step run where it "
            f"is: runtime: {{name: external_python, python: /path/to/python}}."
        )


class TrackingRefusedError(VerdictError):
    """The MLflow server answers, but refuses this login, certificate or address; the message says what to mend."""


class TrackingUnavailableError(OutageError):
    """The MLflow server did not answer within its budget; the message names the host and what to check."""


class StorageUnavailableError(OutageError):
    """The object store or file system did not answer; the message names the URI."""
