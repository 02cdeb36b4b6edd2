"""What a specification may say of scoring, labels, drift and policy, and what it refuses."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from airflow_mlops import ModelSpec, load_spec
from airflow_mlops.errors import InvalidSpecError
from airflow_mlops.spec.resolve import label_settings, scored_data, scoring_settings
from airflow_mlops.spec.strict import is_secret_address, secret_setting_in

FLIGHTS = Path(__file__).parents[3] / "airflow_mlops" / "templates" / "flights.yaml"
PLAIN = {"scoring": None, "labels": None, "monitoring": {}, "drift": {}}


def spec(**changes: Any) -> ModelSpec:
    flights = load_spec(FLIGHTS)
    return ModelSpec.model_validate({**flights.model_dump(), "folder": flights.folder, **PLAIN, **changes})


LABELS = {"data": {"uri": "labels", "event_time": "event_time"}}


@pytest.mark.parametrize(
    ("changes", "mend"),
    [
        ({"monitoring": {"performance": {"metric": "roc_auc", "max_drop": 0.1}}}, "needs labels"),
        ({"labels": LABELS, "monitoring": {"performance": {"metric": "mae", "max_drop": 0.1}}}, "does not list"),
        ({"monitoring": {"drift": {"breaches": 3, "of_last": 2}}}, "3 of the last 2 windows, which cannot happen"),
        ({"scoring": {"output_uri": "s3://user:secret@bucket/x"}}, "put them into an Airflow connection"),
        ({"scoring": {"output_uri": "out", "shadow": "challenger", "split": {"share": 0.1}}}, "either shadow"),
        (
            {"scoring": {"output_uri": "out", "split": {"share": 0.1}}, "data": {"uri": "d", "event_time": "t"}},
            "split.by or data.id_columns",
        ),
        ({"labels": LABELS, "data": {"uri": "d", "event_time": "t"}}, "labels.entity or data.id_columns"),
        ({"labels": {**LABELS, "deadline": "soon"}}, "is not a length"),
        ({"drift": {"min_share": 0}}, "greater than 0"),
        (
            {"scoring": {"output_uri": "out", "wait": {"every": "0 days"}}},
            "a length above zero; write '1 day'",
        ),
        ({"monitoring": {"cool_down": "101 years"}}, "longer than 100 years"),
        ({"monitoring": {"retrain_timeout_hours": 1e12}}, "less than or equal to 876600"),
    ],
)
def test_what_cannot_work_is_refused_with_the_mend(changes: dict[str, Any], mend: str) -> None:
    with pytest.raises(ValueError, match=r"(?s).*") as caught:
        spec(**changes)

    assert mend in str(caught.value)
    assert "secret" not in str(caught.value)


def test_labels_take_column_and_entity_from_the_model() -> None:
    settings = label_settings(spec(labels=LABELS))

    assert (settings["label"], settings["entity"]) == ("late", ["flight", "tailnum"])
    assert Path(settings["data"]["uri"]).is_absolute()


def test_entity_columns_of_the_scored_rows_serve_labels_and_split() -> None:
    rows = {"uri": "feed", "event_time": "t", "id_columns": ["ticket"]}
    model = spec(
        data={"uri": "d", "event_time": "t"},
        scoring={"output_uri": "out", "data": rows, "split": {"share": 0.1}},
        labels=LABELS,
    )

    assert scored_data(model).uri == "feed"
    assert label_settings(model)["entity"] == ["ticket"]


def test_where_predictions_go_starts_from_the_specifications_folder_unless_it_is_an_address() -> None:
    local = scoring_settings(spec(scoring={"output_uri": "../out"}))
    remote = scoring_settings(spec(scoring={"output_uri": "s3://bucket/out"}))

    assert local["output_uri"] == str(FLIGHTS.parents[1] / "out")
    assert remote["output_uri"] == "s3://bucket/out"
    assert "schedule" not in local
    assert "data" not in local


def test_a_model_without_scoring_or_labels_says_what_is_missing() -> None:
    with pytest.raises(InvalidSpecError, match=r"scoring\.output_uri"):
        scoring_settings(spec())
    with pytest.raises(InvalidSpecError, match=r"labels\.data"):
        label_settings(spec())


def told_by(settings: dict[str, Any]) -> Any:
    return {"notifications": [{"events": ["drift"], "notifier": "n:N", "settings": settings}]}


@pytest.mark.parametrize(
    "address",
    [
        "https://hooks.slack.com/services/T0/B0/hush",
        "https://HOOKS.slack.com/workflows/T0/A0/1/hush",
        "https://hooks.zapier.com/hooks/catch/1/hush/",
        "https://contoso.webhook.office.com/webhookb2/hush@tenant/IncomingWebhook/hush/1",
        "https://outlook.office.com/webhook/hush",
        "https://discord.com/api/webhooks/1/hush",
        "https://canary.discordapp.com/api/v10/webhooks/1/hush",
        "https://api.telegram.org/bot1:hush/sendMessage",
        "https://webexapis.com/v1/webhooks/incoming/hush",
        "https://chat.example.org/hooks/hushhushhushhushhushhush12",
        "https://chat.googleapis.com/v1/spaces/A/messages?key=k&token=hushhush",
        "https://prod.westeurope.logic.azure.com/workflows/1/triggers/manual/paths/invoke?api-version=1&sig=hushhush",
        "https://me:hush@host.example.org/notify",
        "mailto://me:hush@example.org",
        "https://host.example.org/notify?access_token=hushhush",
        "https://host.example.org/notify?a=b&api_key=hushhush",
        "https://host.example.org/notify?client-secret=hushhush",
        "https://host.example.org/notify?key=hushhush1hushhushhushhush",
        "https://host.example.org/notify?authToken=hushhush",
        "https://host.example.org/notify?X-Amz-Signature=hushhush",
        "https://host.example.org/notify?a=b;SharedAccessKey=hushhush",
        "https://host.example.org/notify?page=2?pass.password=hushhush",
        "https://host.example.org/notify?to=https://host.example.org/?token=hushhush",
        "postgresql://db/x?user=ml&password=hush",
        "jdbc:sqlserver://h;user=sa;password=hush;",
        "https://host.example.org/notify?sessiontoken=hushhush&a=b",
        "https://host.example.org/notify?corpsecret=hush",
        "https://host.example.org/notify?hapikey=hush",
        "https://host.example.org/notify?key=AIzaSyDdhush0hCZtE6vySjMm-WEF-q3CPz",
        "https://host.example.org/notify?key=A1B2C3D4E5F6G7H8I9J0hush",
        f"https://oauth2:{'hush' * 200}@git.example.org/x",
        "amqp://user:pa;hush@host/",
        "amqp://user:pa,hush@host/",
        "https://hooks.slack.com:443/services/T0/B0/hush",
        "https://discord.com:443/api/webhooks/1/hush",
        "https://api.telegram.org:443/bot1:hush/sendMessage",
        "https://chat.example.org:8065/hooks/hushhushhushhushhushhush12",
        "hooks.slack.com/services/T0/B0/hush",
        "contoso.webhook.office.com/webhookb2/hush@tenant/IncomingWebhook/hush/1",
        "discord.com/api/webhooks/1/hush",
        "api.telegram.org/bot1:hush/sendMessage",
        "Send it to https://hooks.slack.com/services/T0/B0/hush, please",
    ],
)
@pytest.mark.parametrize(
    ("settings", "key"),
    [
        (lambda address: {"text": "{{ mlops.message }}", "url": address}, "settings.url"),
        (lambda address: {"a": {"b": [{"c": "x"}, {"c": address}]}}, "settings.a.b.c"),
        (lambda address: {"urls": ("https://example.org", address)}, "settings.urls"),
        (lambda address: {"routes": {address: "all"}}, "a key of settings.routes"),
    ],
)
def test_an_address_that_holds_a_secret_is_no_setting_of_a_notifier(settings: Any, key: str, address: str) -> None:
    with pytest.raises(ValueError, match=r"(?s).*") as caught:
        spec(**told_by(settings(address)))

    assert f"{key} is an address that holds a secret; put it into an Airflow connection" in str(caught.value)
    assert "slack_webhook_conn_id" in str(caught.value)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "https://example.org/runbooks/drift",
        "https://example.org:8443/runbooks?page=2&sort_key=name&design=flat#token=1",
        "https://slack.com/archives/C0/p1",
        "https://app.slack.com/client/T0/C0",
        "https://discord.com/channels/1/2",
        "https://wiki.example.org/hooks/how-to-write-one",
        "https://me@example.org/repository",
        "https://example.org/?key=FLIGHTS-1",
        "https://example.org/browse?key=FLIGHTS-DELAY-MONITORING-2024",
        "https://example.org/browse?key=flights-delay-monitoring-2024",
        "https://example.org/?page_token=2&next_token=2",
        "https://example.org/?next_token=12345678&nextPageToken=12345678&csrf-token=12345678",
        "https://example.org/?continuationToken=12345678&token_kind=12345678",
        "https://example.org/?sortsig=a&sortsig=abcdefgh&token=none&design=abcdefgh",
        "https://example.org/?token={{mlops.facts.model}}",
        "http://airflow:8080,ops@example.org",
        "http://airflow:8080;ops@example.org",
        "<a href='https://airflow:8080'>ml@example.org</a>",
        "https://airflow:8080<br>ml@example.org",
        "<https://airflow:8080|Airflow>ml@example.org",
        "https://example.org/browse?key=PROJ1-RELEASE-NOTES-2024-Q4",
        "Make one at https://hooks.slack.com or hooks.slack.com/services",
        "https://wiki.example.org/hooks.slack.com/how/to",
        "https://myhooks.slack.com.example.org/a/b",
        "See http://airflow:8080 or write to ops@example.org",
        "http://airflow:8080?mail=ops@example.org",
        "Our secrets: token=none",
        "{{ mlops.message }} on https://example.org/{{ mlops.facts.model }}",
    ],
)
def test_an_ordinary_address_is_a_setting_of_a_notifier(text: str) -> None:
    settings = {"text": text, "nested": [{"url": text}], "number": 7, "none": None}

    assert spec(**told_by(settings)).notifications[0].settings == settings


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"password": "hush"}, "settings.password"),
        ({"auth": {"client_secret": "hush"}}, "settings.auth.client_secret"),
        ({"parts": [{"API_KEY": "hush"}]}, "settings.parts.API_KEY"),
        ({"tokens": {"token": ["", "hush"]}}, "settings.tokens.token"),
        ({"headers": {"X-Auth-Token": "hush"}}, "settings.headers.X-Auth-Token"),
        ({"headers": {"Authorization": "Bearer hush"}}, "settings.headers.Authorization"),
        ({"headers": {"proxy-authorization": "basic hush"}}, "settings.headers.proxy-authorization"),
        ({"headers": ["Authorization: Bearer hush"]}, "settings.headers"),
        ({"auth": "Bearer hush"}, "settings.auth"),
    ],
)
def test_a_secret_is_no_setting_of_a_notifier(settings: dict[str, Any], key: str) -> None:
    with pytest.raises(ValueError, match=r"(?s).*") as caught:
        spec(**told_by(settings))

    assert f"{key} holds a secret; put it into an Airflow connection" in str(caught.value)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"slack_webhook_conn_id": "flights", "token_conn_id": "x", "password_conn_id": "x"},
        {"password": "", "token": None, "secret": False, "credentials": {"conn_id": "x"}},
        {"token": "{{ mlops.facts.model }}", "headers": {"Authorization": "Bearer {{ mlops.facts.model }}"}},
        {"token_url": "https://example.org/token", "key": "flights", "tokens": "7", "secretary": "ann"},
        {"subject": "Basic monitoring", "text": "Bearer of news: the model drifted", "authorization": "none"},
    ],
)
def test_what_only_sounds_like_a_secret_is_a_setting_of_a_notifier(settings: dict[str, Any]) -> None:
    assert spec(**told_by(settings)).notifications[0].settings == settings


@pytest.mark.parametrize(
    "text",
    [
        "://a/" * 20_000,
        "://a:" * 20_000,
        "://" + ":" * 50_000,
        "://" * 20_000,
        "https://a/b," * 2_000,
        "?a=" * 20_000,
        "?" + "a" * 100_000,
        "?token=" * 20_000,
        ("://" + "a" * 300 + ":" * 300) * 200,
        "://" + "/hooks/a" * 20_000,
        "://" + "a" * 100_000,
        "webhook.office.com/" * 10_000,
        "authorization: " * 10_000,
        "Bearer " + " " * 50_000,
        "Bearer a" + "a" * 50_000 + " ",
        "?key=" + "a1-" * 30_000,
    ],
    ids=lambda text: text[:24].strip(),
)
def test_a_long_text_is_searched_in_time(text: str) -> None:
    """Each takes milliseconds; a search that grows with the square of the length takes many seconds."""
    began = time.process_time()

    is_secret_address(text)
    secret_setting_in({"text": text, "authorization": text, text: 1}, "settings")

    assert time.process_time() - began < 2


def test_a_secret_in_a_notifiers_settings_is_told_with_its_line(tmp_path: Path) -> None:
    text = FLIGHTS.read_text()
    settings = "{url: 'https://hooks.slack.com/services/T0/B0/hush'}"
    (tmp_path / "flights.yaml").write_text(
        f"{text}notifications:\n  - {{events: [drift], notifier: 'n:N', settings: {settings}}}\n"
    )

    with pytest.raises(InvalidSpecError) as caught:
        load_spec(tmp_path / "flights.yaml")

    line = len(text.splitlines()) + 2
    assert f"flights.yaml, line {line}: notifications.0.settings: settings.url is an address" in str(caught.value)
    assert "hush" not in str(caught.value)
