"""Photograph the demo's real Airflow and MLflow pages with a real browser, for the documentation.

Run ``make demo`` once, then ``make screenshots``: it starts the demo's services, logs in, opens each page, and writes
``docs/images/NAME.png``. Nothing on the pages is changed.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

from airflow_mlops.cli.demo.airflow_api import AirflowAPI
from airflow_mlops.cli.demo.months import MONITOR
from airflow_mlops.cli.demo.services import Services, free_port
from airflow_mlops.cli.demo.story import MODEL, TRAIN
from airflow_mlops.cli.demo.verb import AIRFLOW_PORT, MLFLOW_PORT

if TYPE_CHECKING:
    from playwright.sync_api import Page

ROOT = Path(__file__).parents[1]
WIDTH, HEIGHT, TALL = 1280, 800, 1600
MOST_BYTES = 150_000
#: Where Debian and Ubuntu put the browser; Playwright brings none of its own here.
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@dataclass(frozen=True, kw_only=True)
class Shot:
    """One picture: its name, the page, what must be visible on it, and what to do before it is taken.

    :param needs: text that must be on the page; the picture is refused without it.
    :param view: what Airflow shows beside the page.
    :param before: what to do once the page is open, such as unfolding a part of it.
    :param scroll_to: text, in the page or in a report shown in it, that is brought to the top.
    :param until: text above which the picture ends; None: at ``clip``.
    :param clip: height in pixels that is kept, from the top; None: the whole viewport.
    :param height: of the viewport; a log scrolls to its end, so all of it must fit.
    """

    name: str
    url: str
    needs: str
    height: int = HEIGHT
    view: Literal["grid", "graph"] = "grid"
    before: Callable[[Page], None] | None = None
    scroll_to: str | None = None
    until: str | None = None
    clip: int | None = None


@dataclass(frozen=True, kw_only=True)
class Runs:
    """The demo's runs that are worth a picture, by what came out of them; None where the demo holds no such run."""

    first: str | None = None
    held: str | None = None
    promoted: str | None = None
    contract_failed: str | None = None
    waiting: str | None = None


def choose(runs: Sequence[tuple[str, Mapping[str, Mapping[str, Any]]]]) -> Runs:
    """Return the newest run of each kind.

    :param runs: run ids, oldest first, each with its tasks' records.
    """
    found: dict[str, str] = {}
    for run_id, records in runs:
        verdict = records.get("gate", {}).get("verdict")
        if verdict == "first_model":
            found["first"] = run_id
        if verdict == "hold":
            found["held"] = run_id
        if records.get("promote", {}).get("outcome") == "promoted":
            found["promoted"] = run_id
        if any(one.get("verdict") == "fail" for one in records.values()):
            found["contract_failed"] = run_id
        if verdict == "needs_approval":
            found["waiting"] = run_id
    return Runs(**found)


def airflow_page(base: str, *parts: str) -> str:
    """Return the address of one of Airflow's pages; run ids hold characters that must be quoted."""
    return "/".join([base.rstrip("/"), *(quote(part, safe="") for part in parts)])


def shots(airflow: str, mlflow: str, runs: Runs, records: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[Shot]:
    """Return every picture that the demo's runs allow.

    :param records: records by run id and task.
    """

    def task(run_id: str, task_id: str, *tab: str) -> str:
        return airflow_page(airflow, "dags", TRAIN, "runs", run_id, "tasks", task_id, *tab)

    connections = airflow_page(airflow, "connections")
    made = [
        Shot(name="airflow-grid", url=airflow_page(airflow, "dags", TRAIN), needs="promote"),
        Shot(name="connection-form", url=connections, needs="Tracking URI", before=_form),
        Shot(name="connection-extra", url=connections, needs="Registry URI", before=_extra),
    ]
    if runs.promoted:
        run = airflow_page(airflow, "dags", TRAIN, "runs", runs.promoted)
        version = records[runs.promoted].get("register", {}).get("version", 1)
        made += [
            Shot(name="airflow-graph", url=run, needs="evaluate", view="graph", clip=640),
            Shot(name="promoted-log", url=task(runs.promoted, "promote"), needs="promoted", until="Post Execute"),
            Shot(name="model-version", url=f"{mlflow}/#/models/{MODEL}/versions/{version}", needs="champion"),
        ]
    if runs.held:
        made += [
            Shot(name="held-gate-log", url=task(runs.held, "gate"), needs="B6", until="Post Execute", height=TALL),
            Shot(name="held-gate-links", url=task(runs.held, "gate", "details"), needs="Report", clip=560),
            Shot(
                name="held-gate-xcom",
                url=task(runs.held, "gate", "xcom"),
                needs="reasons",
                before=_unfolded,
                height=1100,
            ),
            *_mlflow_run(mlflow, "mlflow-decision", records[runs.held].get("gate", {})),
        ]
    if runs.contract_failed:
        failed = records[runs.contract_failed]
        name = next(task_id for task_id, record in failed.items() if record.get("verdict") == "fail")
        log = task(runs.contract_failed, name)
        made += [
            Shot(name="failed-contract-log", url=log, needs="temp", until="Task failed with exception", height=TALL),
            *_mlflow_run(
                mlflow, "mlflow-contract", failed[name], report="report_uri", scroll_to="Column 'temp' is null"
            ),
        ]
    if runs.waiting:
        made.append(Shot(name="approval", url=task(runs.waiting, "approve", "required_actions"), needs="Approve"))
    return made


def watch_shots(airflow: str, mlflow: str, runs: Sequence[tuple[str, Mapping[str, Mapping[str, Any]]]]) -> list[Shot]:
    """Return the pictures of the newest run that asked for a retrain, and the newest pictures over windows.

    :param runs: monitoring run ids, oldest first, each with the records of its drift task and its decision.
    """
    made: list[Shot] = []
    for run_id, records in reversed(runs):
        if records.get("act_on_drift", {}).get("action") == "retrain":
            run = airflow_page(airflow, "dags", MONITOR, "runs", run_id)
            log = airflow_page(run, "tasks", "act_on_drift")
            made += [
                Shot(name="monitor-graph", url=run, needs="act_on_drift", view="graph", clip=640),
                Shot(name="retrain-log", url=log, needs="asked for", until="Post Execute", height=TALL),
                *_mlflow_run(mlflow, "drift-page", records.get("detect_drift", {}), report="report_uri"),
            ]
            break
    newest = next((records["decision"] for _, records in reversed(runs) if records.get("decision")), {})
    if pictures := newest.get("pictures_uri"):
        for name, file in (("drift-windows", "drift_share.png"), ("performance-windows", "performance.png")):
            shown = {**newest, "pictures_uri": f"{pictures}/{file}"}
            made += _mlflow_run(mlflow, name, shown, report="pictures_uri")
    return made


def _mlflow_run(
    mlflow: str, name: str, record: Mapping[str, Any], report: str = "decision_uri", scroll_to: str | None = None
) -> Iterator[Shot]:
    """Yield the MLflow page of a record's report, where it has one."""
    owner, _, path = str(record.get(report) or "").removeprefix("runs:/").partition("/")
    experiment = str(record.get("experiment_id") or "")
    if owner and path and experiment:
        url = f"{mlflow}/#/experiments/{experiment}/runs/{owner}/artifacts/{path}"
        yield Shot(name=name, url=url, needs=path.rpartition("/")[2], scroll_to=scroll_to)


#: What both programs remember in the browser: room for the grid, wrapped logs, MLflow's training pages, no assistant.
SETTINGS = {
    **{
        f"react-resizable-panels:{view}-{direction}": {
            "details-panel,main-panel": {"expandToSizes": {}, "layout": layout}
        }
        for view, layout in (("grid", [30, 70]), ("graph", [72, 28]))
        for direction in ("ltr", "rtl")
    },
    "log_wrap": True,
    "mlflow.workflowType_v1": "machine_learning",
    "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": True,
    "mlflow.assistant.panelOpen_v1": False,
}


def _form(page: Page) -> None:
    """Open the form of a new connection and choose the type MLflow."""
    page.get_by_role("button", name="Add Connection").first.click()
    page.get_by_role("combobox").last.click()
    page.keyboard.type("MLflow", delay=60)
    page.get_by_role("option", name="MLflow").first.click()


def _unfolded(page: Page) -> None:
    """Show the values of a page whole."""
    page.get_by_label("Expand all extra JSON").click()


def _extra(page: Page) -> None:
    """Open that form at its further fields."""
    _form(page)
    page.get_by_text("Extra Fields").first.click()


def smaller(png: bytes, *, clip: int | None = None, most: int = MOST_BYTES) -> bytes:
    """Return a PNG of at most ``most`` bytes, where shrinking to half its width is enough for that.

    :param clip: height in pixels that is kept, from the top.
    """
    from PIL import Image

    image = Image.open(io.BytesIO(png)).convert("RGB")
    if clip is not None:
        image = image.crop((0, 0, image.width, min(clip, image.height)))
    for share in (1.0, 0.85, 0.7, 0.5):
        size = (round(image.width * share), round(image.height * share))
        scaled = image if share == 1.0 else image.resize(size, Image.Resampling.LANCZOS)
        kept = io.BytesIO()
        # Pages have few colours: a palette keeps text sharp in a quarter of the bytes.
        scaled.quantize(colors=128, dither=Image.Dither.NONE).save(kept, "PNG", optimize=True)
        if kept.tell() <= most:
            break
    return kept.getvalue()


def say(line: str) -> None:
    """Tell on standard error how it goes."""
    sys.stderr.write(f"{line}\n")


def find_browser(given: str | None = None) -> str:
    """Return the browser's path.

    :raises SystemExit: there is none; the message says how to get one.
    """
    found = given or next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        raise SystemExit("No Chromium was found. Install it (apt-get install chromium), or name it: --browser PATH")
    return found


@contextmanager
def addresses(args: argparse.Namespace) -> Iterator[tuple[str, str, Path]]:
    """Yield Airflow's address, MLflow's, and the password file: of running services, or of services started here."""
    home: Path = args.home.absolute()
    if args.airflow_url and args.mlflow_url:
        yield args.airflow_url.rstrip("/"), args.mlflow_url.rstrip("/"), home / "airflow" / "passwords.json"
        return
    if not (home / "dags").is_dir():
        raise SystemExit(f"There is no demo in {home}. Run `make demo` first.")
    ports = free_port(MLFLOW_PORT), free_port(AIRFLOW_PORT)
    with Services(home, home / "dags", mlflow_port=ports[0], airflow_port=ports[1], say=say) as services:
        yield services.airflow_url, services.mlflow_uri, services.password_file


def main(argv: list[str] | None = None) -> int:
    """Take every picture; 1 where one could not be taken."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--home", type=Path, default=ROOT / ".demo", help="the demo's folder; default: .demo")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images", help="default: docs/images")
    parser.add_argument("--airflow-url", help="a running Airflow of that demo; default: one is started")
    parser.add_argument("--mlflow-url", help="its MLflow")
    parser.add_argument("--browser", help="a Chromium; default: the one on the path")
    parser.add_argument("--only", action="append", help="take these pictures alone, by name")
    args = parser.parse_args(argv)
    browser = find_browser(args.browser)
    with addresses(args) as (airflow, mlflow, password_file), ExitStack() as stack:
        (user, password), *_ = json.loads(password_file.read_text()).items()
        api = stack.enter_context(AirflowAPI(airflow, user, password))
        records = _records(api, mlflow)
        wanted = shots(airflow, mlflow, choose(list(records.items())), records)
        wanted += watch_shots(airflow, mlflow, list(_watched(api, mlflow).items()))
        wanted = [shot for shot in wanted if not args.only or shot.name in args.only]
        args.out.mkdir(parents=True, exist_ok=True)
        failed = take(wanted, browser, (airflow, user, password), args.out)
    for name, why in failed.items():
        say(f"NOT TAKEN: {name}: {why}")
    return 1 if failed else 0


def _records(api: AirflowAPI, mlflow: str) -> dict[str, dict[str, dict[str, Any]]]:
    """Return every training run's records, oldest run first; each knows its MLflow experiment."""
    from airflow_mlops.engines.tracking import TrackingServer, connected

    found: dict[str, dict[str, dict[str, Any]]] = {}
    with connected(TrackingServer(tracking_uri=mlflow)) as client:
        for run_id in _run_ids(api):
            records = {task: api.xcom(TRAIN, run_id, task) for task in api.task_states(TRAIN, run_id)}
            found[run_id] = {task: dict(record) for task, record in records.items() if isinstance(record, Mapping)}
            for record in found[run_id].values():
                if mlflow_run := record.get("run_id"):
                    record["experiment_id"] = client.get_run(mlflow_run).info.experiment_id
    return found


def _watched(api: AirflowAPI, mlflow: str) -> dict[str, dict[str, dict[str, Any]]]:
    """Return every monitoring run's first drift report, its decision on drift, and its last decision."""
    from airflow_mlops.engines.tracking import TrackingServer, connected

    found: dict[str, dict[str, dict[str, Any]]] = {}
    with connected(TrackingServer(tracking_uri=mlflow)) as client:
        for run in api.runs(MONITOR):
            run_id = str(run["dag_run_id"])
            records = {
                "detect_drift": api.xcom(MONITOR, run_id, "inputs.detect_drift", map_index=0),
                "act_on_drift": api.xcom(MONITOR, run_id, "act_on_drift"),
                "decision": api.xcom(MONITOR, run_id, "act_on_performance"),
            }
            found[run_id] = {name: dict(record) for name, record in records.items() if isinstance(record, Mapping)}
            for record in found[run_id].values():
                record["experiment_id"] = client.get_run(record["run_id"]).info.experiment_id
    return found


def _run_ids(api: AirflowAPI) -> list[str]:
    path = f"/api/v2/dags/{quote(TRAIN)}/dagRuns"
    answer = api._get(path, order_by="run_after", limit=100)
    return [str(run["dag_run_id"]) for run in answer["dag_runs"]]


def take(wanted: Sequence[Shot], browser: str, login: tuple[str, str, str], out: Path) -> dict[str, str]:
    """Take the pictures and return why some could not be taken."""
    from playwright.sync_api import Error, sync_playwright

    failed: dict[str, str] = {}
    airflow, user, password = login
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        page = opened.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light", locale="en-GB")
        page.add_init_script(
            f"for (const [key, value] of Object.entries({json.dumps(SETTINGS)})) "
            "localStorage.setItem(key, JSON.stringify(value));"
        )
        page.goto(f"{airflow}/auth/login")
        page.fill("input[name=username]", user)
        page.fill("input[name=password]", password)
        page.click("button[type=submit]")
        page.wait_for_url(lambda url: "login" not in url, timeout=60_000)
        for shot in wanted:
            say(f"{shot.name}: {shot.url}")
            try:
                (out / f"{shot.name}.png").write_bytes(_picture(page, shot))
            except Error as exc:
                failed[shot.name] = str(exc).partition("\n")[0]
        opened.close()
    return failed


def _picture(page: Page, shot: Shot) -> bytes:
    """Open the page, wait for what must be on it, and return the picture."""
    page.set_viewport_size({"width": WIDTH, "height": shot.height})
    page.goto("about:blank")  # a change behind the # alone loads nothing
    page.goto(shot.url)
    if "/#/" not in shot.url:
        page.evaluate(f"localStorage.setItem('default_dag_view', '\"{shot.view}\"')")
        page.reload()
    if shot.before is not None:
        shot.before(page)
    page.get_by_text(shot.needs).first.wait_for(timeout=30_000)
    page.wait_for_timeout(2_500)  # animations and what loads last
    page.mouse.move(WIDTH - 5, HEIGHT - 5)  # no hint of what the pointer rests on
    if shot.scroll_to is not None:
        for frame in page.frames:
            for found in frame.get_by_text(shot.scroll_to).all()[:1]:
                found.evaluate("it => it.scrollIntoView({block: 'start'})")
        page.wait_for_timeout(500)
    clip = shot.clip
    if shot.until is not None:
        box = page.get_by_text(shot.until).first.bounding_box()
        clip = round(box["y"]) - 2 if box is not None else None
    return smaller(page.screenshot(), clip=clip)


if __name__ == "__main__":
    raise SystemExit(main())
