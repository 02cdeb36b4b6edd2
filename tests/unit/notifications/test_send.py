"""Any Airflow notifier speaks; one that cannot says how to mend it."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from airflow_mlops.compat import DAG, BaseNotifier
from airflow_mlops.core.notices import Notice
from airflow_mlops.errors import InvalidSpecError
from airflow_mlops.notifications import read_notifications, send
from airflow_mlops.spec.monitoring import NotificationSpec

NOTICE = Notice(events=("drift",), title="Drift in flights", message="What: 5 of 15", facts={"share": 0.25})


#: Airflow 2.11 renders with the context's DAG.
DAG_OF_THE_TASK = DAG(dag_id="d", schedule=None)


class Remembers(BaseNotifier):
    """Keeps what it would send."""

    template_fields = ("text", "nested")
    sent: ClassVar[list[Any]] = []

    def __init__(self, text: str = "{{ mlops.message }}", nested: Any = None) -> None:
        super().__init__()
        self.text = text
        self.nested = nested

    def notify(self, context: Any) -> None:
        Remembers.sent.append((self.text, self.nested, context))


def not_a_class() -> None:
    """Stands where a notifier is looked for."""


def spec(name: str = "Remembers", module: str = __name__, **settings: Any) -> NotificationSpec:
    return NotificationSpec(events=("drift",), notifier=f"{module}:{name}", settings=settings)


@pytest.fixture(autouse=True)
def forget() -> None:
    Remembers.sent.clear()


def test_the_notifier_renders_its_settings_with_the_notice() -> None:
    settings = {
        "text": "{{ mlops.title }} ({{ ti }}): {{ mlops.facts.share }}",
        "nested": {"body": ["{{ mlops.event }}", "{{ mlops.html }}"]},
    }

    send(NOTICE, spec(**settings), {"ti": "the task", "dag": DAG_OF_THE_TASK})  # type: ignore[typeddict-item]

    ((text, nested, context),) = Remembers.sent
    assert text == "Drift in flights (the task): 0.25"
    assert nested == {"body": ["drift", NOTICE.html]}
    assert context["mlops"] is NOTICE


def test_the_task_s_context_stays_as_it_is() -> None:
    context: Any = {"ti": "the task", "dag": DAG_OF_THE_TASK}

    send(NOTICE, spec(), context)

    assert context == {"ti": "the task", "dag": DAG_OF_THE_TASK}


class Refuses(BaseNotifier):
    """Cannot send."""

    template_fields = ()

    def notify(self, context: Any) -> None:
        raise ConnectionError("no such mail server")


def test_what_a_notifier_could_not_send_is_an_error_on_every_airflow() -> None:
    with pytest.raises(ConnectionError, match="no such mail server"):
        send(NOTICE, spec("Refuses"), {"ti": "the task", "dag": DAG_OF_THE_TASK})  # type: ignore[typeddict-item]


def test_a_message_is_not_rendered_a_second_time() -> None:
    odd = NOTICE.model_copy(update={"message": "column {{ ti }}"})

    send(odd, spec(), {"ti": "the task", "dag": DAG_OF_THE_TASK})  # type: ignore[typeddict-item]

    assert Remembers.sent[0][0] == "column {{ ti }}"


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        pytest.param(spec(module="no_such_package.notifier"), "cannot be imported: No module named", id="no module"),
        pytest.param(spec("Missing"), "has no class 'Missing'", id="no class"),
        pytest.param(spec("not_a_class"), "has no class 'not_a_class'", id="a function"),
        pytest.param(spec("JSONDecoder", module="json"), "is no notifier", id="a class of another kind"),
        pytest.param(spec(webhook="x"), r"with the settings webhook: TypeError", id="settings it does not take"),
    ],
)
def test_what_cannot_be_made_says_how_to_mend_it(wrong: NotificationSpec, words: str) -> None:
    with pytest.raises(InvalidSpecError, match=words):
        send(NOTICE, wrong, {})  # type: ignore[typeddict-item]


def test_entries_that_are_not_valid_are_named_and_the_others_count() -> None:
    good = {"events": ["drift"], "notifier": "a.b:C", "settings": {}}
    written = [good, {"events": ["drfit"], "notifier": "a.b:C"}, {"events": ["drift"], "notifier": "a.b.C"}, "text"]

    valid, problems = read_notifications(written)

    assert [one.notifier for one in valid] == ["a.b:C"]
    assert [problem[: len("notifications[1]")] for problem in problems] == [f"notifications[{n}]" for n in (1, 2, 3)]
    assert "'drfit'" in problems[0] or "rolled_back" in problems[0]
    assert read_notifications(good)[0] == valid
