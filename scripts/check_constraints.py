"""Resolve every managed service's requirements file under that service's constraints, and hold the floors.

Run before a release (it asks the package index; nothing is installed)::

    python scripts/check_constraints.py                # all lanes; exit code 1 if one fails
    python scripts/check_constraints.py --lane mwaa-3.3.1 --json
    python scripts/check_constraints.py --lane composer-3.3.1 --installed packages.txt
    python scripts/check_constraints.py --write-docs   # the tables of docs/how-to/deploy-{mwaa,composer}.md

A lane fails where uv finds no solution, and where a machine-learning library comes out under the floor that its
requirements file or pyproject.toml writes: without floors a resolver steps back in silence (to mlflow 1.27).
"""

from __future__ import annotations

import argparse
import datetime
import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
DATA = Path("tests") / "deploy" / "constraints"
DOCS = {"mwaa": "docs/how-to/deploy-mwaa.md", "composer": "docs/how-to/deploy-composer.md"}
#: What must not fall under its floor, in the order of the tables.
LIBRARIES = (
    *("mlflow", "mlflow-skinny", "great-expectations", "evidently"),
    *("scikit-learn", "pandas", "pyarrow", "duckdb"),
)
#: Printed beside them; no floor of its own in a lane.
BESIDE = ("numpy", "apache-airflow")
_PIN = re.compile(r"^(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)==(?P<version>[^\s;]+)")
#: The managed images run on Linux with a C library of 2022 or later; a laptop must not resolve for itself.
PLATFORM = "x86_64-manylinux_2_34"


@dataclass(frozen=True)
class Lane:
    """One service at one Airflow version: its requirements file and what the service holds pip to."""

    name: str
    service: str
    airflow: str
    python: str
    requirements: Path
    constraints: tuple[Path, ...]
    image: tuple[str, ...]
    obtained: str


@dataclass(frozen=True)
class Outcome:
    """What came of a lane: every resolved version, and one sentence for each thing that is wrong."""

    lane: str
    versions: dict[str, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


def read_lanes(root: Path = ROOT) -> dict[str, Lane]:
    """Read lanes.toml; paths become absolute."""
    data = root / DATA
    return {
        name: Lane(
            name=name,
            service=table["service"],
            airflow=table["airflow"],
            python=table["python"],
            requirements=root / table["requirements"],
            constraints=tuple(data / file for file in table["constraints"]),
            image=tuple(table["image"]),
            obtained=table["obtained"],
        )
        for name, table in tomllib.loads((data / "lanes.toml").read_text()).items()
    }


def read_requirements(path: Path) -> list[Requirement]:
    """Return a requirements file's requirements, without its options and comments."""
    lines = (line.split(" #")[0].strip() for line in path.read_text().splitlines())
    return [Requirement(line) for line in lines if line and not line.startswith(("#", "-"))]


def read_pins(text: str) -> dict[str, str]:
    """Return ``{name: version}`` of a list of pins: a constraints file, ``pip freeze``, or the table of ``pip list``.

    Composer's own builds have a suffix (``3.3.1+composer``) that no index knows; it is cut away.
    """
    pins = {}
    for line in text.splitlines():
        words = line.split()
        if found := _PIN.match(line):
            name, version = found["name"], found["version"]
        elif len(words) == 2 and words[1][:1].isdigit():
            name, version = words
        else:
            continue
        pins[canonicalize_name(name)] = version.split("+")[0]
    return pins


def floor(specifier: SpecifierSet) -> Version | None:
    """Return the lowest version that a specifier lets through, None if it has no lower end."""
    return max((Version(part.version) for part in specifier if part.operator in (">=", "==", "~=", ">")), default=None)


def project_floors(root: Path = ROOT) -> dict[str, Version]:
    """Return the floor of every library in pyproject.toml's dependencies and extras."""
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    return _highest(Requirement(line) for line in lines)


def lane_floors(lane: Lane, root: Path = ROOT) -> dict[str, Version]:
    """Return the floor of every library in LIBRARIES: the higher one of the lane's file and of pyproject.toml."""
    project, own = project_floors(root), _highest(read_requirements(lane.requirements))
    return {
        name: max(found)
        for name in LIBRARIES
        if (found := [floors[name] for floors in (project, own) if floors.get(name)])
    }


def _highest(requirements: Iterable[Requirement]) -> dict[str, Version]:
    floors: dict[str, Version] = {}
    for each in requirements:
        name, low = canonicalize_name(each.name), floor(each.specifier)
        if low is not None:
            floors[name] = max(low, floors.get(name, low))
    return floors


def below(versions: dict[str, str], floors: dict[str, Version]) -> list[str]:
    """Return a sentence for each library that is missing or older than its floor."""
    problems = []
    for name, low in floors.items():
        if name not in versions:
            problems.append(f"{name} is not in the resolution; its floor is {low}.")
        elif Version(versions[name]) < low:
            problems.append(f"{name} fell to {versions[name]}, under its floor {low}.")
    return problems


def resolve(lane: Lane, constraints: tuple[Path, ...], root: Path = ROOT, options: tuple[str, ...] = ()) -> Outcome:
    """Let uv resolve the lane, this checkout standing in for the published package. Nothing is installed."""
    wanted = [
        f"{each.name}[{','.join(sorted(each.extras))}] @ {root.as_uri()}"
        if canonicalize_name(each.name) == "airflow-mlops"
        else str(each)
        for each in read_requirements(lane.requirements)
    ]
    done = subprocess.run(  # noqa: S603  # our own uv, our own files
        [
            # Our own interpreter builds what has no wheel; the lane's Python is only resolved for.
            *(find_uv(), "pip", "compile", "-", "--python", sys.executable),
            *("--python-version", lane.python, "--python-platform", PLATFORM),
            *(word for path in constraints for word in ("--constraint", str(path))),
            *("--no-header", "--no-annotate", "--no-emit-index-url", "--no-emit-find-links", "--quiet", *options),
        ],
        input="\n".join([*wanted, *lane.image]),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        return Outcome(lane.name, problems=(f"uv found no solution. {' '.join(done.stderr.split())}",))
    versions = read_pins(done.stdout)
    return Outcome(lane.name, dict(sorted(versions.items())), tuple(below(versions, lane_floors(lane, root))))


def find_uv() -> str:
    """Return the uv beside this interpreter, else the one on the path; end with a sentence if there is none."""
    beside = Path(sys.executable).with_name("uv")
    found = str(beside) if beside.exists() else shutil.which("uv")
    if not found:
        sys.exit("uv was not found. Make the environment with `make venv`, or install uv: python -m pip install uv")
    return found


def installed_constraints(path: Path) -> Path:
    """Write a service's own list of packages as a constraints file beside it; end with a sentence if it has no pin."""
    if not path.is_file():
        sys.exit(f"{path} is not there. Write it with: gcloud composer environments list-packages NAME > {path}")
    pins = read_pins(path.read_text())
    if not pins:
        sys.exit(f"{path} has no line such as `pandas==2.1.4` or `pandas  2.1.4`.")
    target = path.with_suffix(".constraints.txt")
    target.write_text("".join(f"{name}=={version}\n" for name, version in sorted(pins.items())))
    return target


def table(lanes: list[Lane], outcomes: dict[str, Outcome], day: str) -> str:
    """Return the Markdown table of what each lane resolved to."""
    names = (*BESIDE, *LIBRARIES)
    lines = [
        f"Resolved on {day} by `python scripts/check_constraints.py --write-docs`:",
        "",
        "| | " + " | ".join(f"{lane.service} {lane.airflow}" for lane in lanes) + " |",
        "|---|" + "---|" * len(lanes),
        "| Python | " + " | ".join(lane.python for lane in lanes) + " |",
        *(
            f"| {name} | " + " | ".join(outcomes[lane.name].versions.get(name, "") for lane in lanes) + " |"
            for name in names
        ),
        "| packages in all | " + " | ".join(str(len(outcomes[lane.name].versions)) for lane in lanes) + " |",
        "| constraints | " + " | ".join(lane.obtained for lane in lanes) + " |",
    ]
    return "\n".join(lines) + "\n"


def write_docs(lanes: list[Lane], outcomes: dict[str, Outcome], root: Path = ROOT) -> list[str]:
    """Replace what stands between the markers of each service's page; return the pages."""
    day = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    written = []
    for service, page in DOCS.items():
        chosen = [lane for lane in lanes if lane.name.startswith(f"{service}-")]
        path, begin, end = root / page, f"<!-- resolved versions: {service} -->\n", "<!-- end of resolved versions -->"
        head, _, rest = path.read_text().partition(begin)
        _, _, tail = rest.partition(end)
        path.write_text(head + begin + "\n" + table(chosen, outcomes, day) + "\n" + end + tail)
        written.append(page)
    return written


def main(arguments: list[str] | None = None) -> int:
    """Check the lanes that were asked for; 0 if all hold, 1 if one does not."""
    lanes = read_lanes()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lane", action="append", choices=sorted(lanes), help="only this one; may be repeated")
    parser.add_argument(
        "--installed", type=Path, help="hold ONE lane to this list of packages (pip list or pip freeze)"
    )
    parser.add_argument("--json", action="store_true", help="print every resolved version as JSON")
    parser.add_argument("--write-docs", action="store_true", help="write the tables of the documentation")
    given = parser.parse_args(arguments)
    chosen = [lanes[name] for name in (given.lane or lanes)]
    if given.installed and len(chosen) != 1:
        parser.error("--installed goes with exactly one --lane")
    if given.write_docs and (given.lane or given.installed):
        parser.error("--write-docs takes all lanes as they are")
    outcomes = {}
    for lane in chosen:
        held = (installed_constraints(given.installed),) if given.installed else lane.constraints
        outcomes[lane.name] = resolve(lane, held)
        if not given.json:
            report(lane, outcomes[lane.name])
    failed = [outcome.lane for outcome in outcomes.values() if outcome.problems]
    if given.json:
        print(json.dumps({"ok": not failed, "lanes": [asdict(outcome) for outcome in outcomes.values()]}, indent=2))  # noqa: T201
    if given.write_docs and not failed:
        print(f"Wrote {' and '.join(write_docs(chosen, outcomes))}.", file=sys.stderr if given.json else sys.stdout)
    return 1 if failed else 0


def report(lane: Lane, outcome: Outcome) -> None:
    """Print one lane for a person."""
    head = f"{lane.name} ({lane.service}, Airflow {lane.airflow}, Python {lane.python}; constraints: {lane.obtained})"
    print(f"{'FAILS' if outcome.problems else 'ok   '} {head}")  # noqa: T201
    shown = [f"{name} {outcome.versions[name]}" for name in (*BESIDE, *LIBRARIES) if name in outcome.versions]
    for line in (*outcome.problems, *([", ".join(shown)] if shown else [])):
        print(f"      {line}")  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
