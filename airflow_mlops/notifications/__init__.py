"""Telling people what happened, through any Airflow notifier."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from airflow_mlops.errors import InvalidSpecError

if TYPE_CHECKING:
    from airflow_mlops.compat import Context
    from airflow_mlops.core.notices import Notice
    from airflow_mlops.spec.monitoring import NotificationSpec

#: What a notifier's settings call the message: ``{{ mlops.message }}``.
NAME = "mlops"


def read_notifications(written: Iterable[Any]) -> tuple[list[NotificationSpec], list[str]]:
    """Return whom to tell, and a sentence for each entry that is not valid.

    :param written: the keys of ``NotificationSpec``, or such objects.
    """
    from pydantic import ValidationError

    from airflow_mlops.spec.monitoring import NotificationSpec

    valid: list[NotificationSpec] = []
    problems: list[str] = []
    for index, one in enumerate([written] if isinstance(written, Mapping) else written):
        try:
            valid.append(NotificationSpec.model_validate(one))
        except ValidationError as exc:
            places = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'it'}: {e['msg']}" for e in exc.errors())
            problems.append(
                f"notifications[{index}] tells nobody, because it is not valid: {places}. It takes `events`, "
                f"`notifier` (module:Class) and `settings`."
            )
    return valid, problems


def send(notice: Notice, spec: NotificationSpec, context: Context) -> None:
    """Load the notifier, give it the message as ``mlops`` beside the task's context, and let it speak.

    The notifier renders its own settings, as it does in a callback; the task's context stays as it is.

    :raises InvalidSpecError: there is no such notifier, or it cannot be made with these settings.
    """
    notifier = _load(spec.notifier)
    try:
        made = notifier(**spec.settings)
    except Exception as exc:
        raise InvalidSpecError(
            f"{spec.notifier} cannot be made with the settings {', '.join(sorted(spec.settings)) or '(none)'}: "
            f"{type(exc).__name__}: {exc}. Mend `settings` of the notification; they are the notifier's own arguments."
        ) from exc
    if not callable(made):
        raise InvalidSpecError(f"{spec.notifier} is no notifier: it cannot be called with a context. {_HINT}")
    # A notifier writes its own fields into the context that it is called with.
    own: Any = copy.copy(context)
    own[NAME] = notice
    failed = _failures(made)
    made(own)
    if failed:
        raise failed[0]


def _failures(notifier: Any) -> list[Exception]:
    """Return a list that gets what the notifier's own work raises: before 3.2 Airflow only logs it."""
    failed: list[Exception] = []
    notify = getattr(notifier, "notify", None)
    if notify is not None:

        def noted(context: Any) -> None:
            try:
                notify(context)
            except Exception as exc:
                failed.append(exc)
                raise

        notifier.notify = noted
    return failed


_HINT = (
    "Name a subclass of Airflow's BaseNotifier as module:Class, such as "
    "airflow.providers.smtp.notifications.smtp:SmtpNotifier. Its package must be installed on the workers; a module of "
    "your own must be importable there: in the DAG folder, in the plugins folder, or in an installed package."
)


def _load(path: str) -> Any:
    module, _, name = path.partition(":")
    try:
        loaded = import_module(module)
    except ImportError as exc:
        raise InvalidSpecError(f"The notifier {path!r} cannot be imported: {exc}. {_HINT}") from exc
    found = getattr(loaded, name, None)
    if not isinstance(found, type):
        raise InvalidSpecError(f"The module {module!r} has no class {name!r}. {_HINT}")
    return found
