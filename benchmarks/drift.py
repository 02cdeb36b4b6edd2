"""A window's drift beside Evidently, NannyML and a bare scan: whole processes, imports included, on the same files.

Ours reads the current window and the stored profile; the peers read both tables. Bytecode is compiled by a run on a
few rows first, telemetry is off, CPU is user and system time of all threads. Before any time counts, every column's
distance is compared with the one from all raw values: KS within 0.001, PSI and JS within 1 % or 0.002 of the same
definition on raw values, chi-square exact, and every column's verdict the same.

The short runs alternate and the best of five counts on either side, because other work on the machine only ever adds.
Evidently and NannyML run once: about two minutes of CPU. ``python -m benchmarks drift`` writes 1.1 GB into the
system's temporary folder (``AIRFLOW_MLOPS_BENCH`` names another) and leaves it there for the next run.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.drift_rows import file
from benchmarks.entries import entry

ROOT = Path(__file__).parent.parent
NANNYML = ROOT / ".venv-nannyml" / "bin" / "python"
REPEATS = 5
SIZES = {"1m": "current-1m", "10m": "current-10m"}

#: Method to the largest difference from the raw values that is allowed, absolute; relative ones are told apart below.
ALLOWED = {"kolmogorov_smirnov": 0.001, "psi": 0.002, "jensen_shannon": 0.002, "chi_square": 1e-6}
RELATIVE = 0.01


def measure() -> list[dict[str, Any]]:
    """Return the entries; print what could not be run.

    :raises RuntimeError: a side failed, or a distance of ours is not that of the raw values.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        reference = str(file("reference"))
        stored = _stored(folder)
        entries = _accuracy(folder, stored, reference)
        small, large, scan = _alternate(stored)
        entries += [
            entry("drift_10m_cpu_vs_duckdb_bare_scan", large["cpu"], scan["cpu"], 1.6, "CPU seconds"),
            entry("drift_10m_peak_memory_vs_limit", large["peak"], 500, 1.0, "MB"),
            entry("drift_10m_peak_memory_vs_1m", large["peak"], small["peak"], 1.05, "MB"),
        ]
        bounds = {"evidently-default": 1 / 70, "evidently-psi": 1 / 30, "nannyml": 1 / 5}
        for peer, bound in bounds.items():
            found = _peer(peer, reference)
            if found is not None:
                name = f"drift_1m_cpu_vs_{peer.replace('-', '_')}"
                entries.append(entry(name, small["cpu"], found["cpu"], round(bound, 4), "CPU seconds"))
    return entries


def _stored(folder: Path) -> str:
    """Write the reference's profile, and let every program of ours compile on the way."""
    stored, tiny = folder / "reference.json", folder / "tiny.json"
    _ours("reference", str(file("reference")), str(stored))
    _ours("reference", str(file("tiny-reference")), str(tiny))
    _ours("window", str(file("tiny-current")), str(tiny))
    return str(stored)


def _accuracy(folder: Path, stored: str, reference: str) -> list[dict[str, Any]]:
    """Compare every column with the raw values at both sizes; return the largest differences as entries."""
    from airflow_mlops.core.drift import measure_column
    from airflow_mlops.core.drift_counts import pair_of
    from airflow_mlops.core.drift_methods import chi_square
    from airflow_mlops.spec.monitoring import DriftMethodSpec

    before = json.loads(Path(stored).read_text())
    entries = []
    for label, name in SIZES.items():
        made = folder / f"{label}.json"
        _ours("window", str(file(name)), stored, str(made))
        after = json.loads(made.read_text())
        raw = _run([sys.executable, "-m", "benchmarks.drift_peers", "exact", reference, str(file(name))])["values"]
        worst = dict.fromkeys(ALLOWED, 0.0)
        for column, values in raw.items():
            for method, expected in values.items():
                found = measure_column(column, before, after, DriftMethodSpec(method=method))
                assert found.value is not None
                assert found.threshold is not None
                value = found.value
                if method == "chi_square":
                    pair = pair_of(before["columns"][column], after["columns"][column])
                    value = chi_square(*pair.with_missing())[0]
                    difference = abs(value - expected) / expected
                else:
                    difference = abs(value - expected)
                    if found.drifted != (expected >= found.threshold):
                        raise RuntimeError(f"{label} {column}: {method} is {value}, from raw values {expected}")
                    if method != "kolmogorov_smirnov" and difference <= RELATIVE * expected:
                        continue
                if found.error is not None and method == "kolmogorov_smirnov" and difference > found.error + 1e-9:
                    raise RuntimeError(f"{label} {column}: {method} is off by {difference}, and claims {found.error}")
                worst[method] = max(worst[method], difference)
        late = {method: far for method, far in worst.items() if far > ALLOWED[method]}
        if late or len(raw) != len(before["columns"]):
            raise RuntimeError(f"{label}: distances are not those of the raw values: {late}")
        print(f"{label}: equal verdicts; largest differences from all raw values {worst}", flush=True)
        ks = worst["kolmogorov_smirnov"]
        entries.append(entry(f"drift_{label}_ks_difference_vs_allowed", ks, 0.001, 1.0, "KS distance"))
    return entries


def _alternate(stored: str) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Return the best runs of ours on a million and on ten million rows, and of the bare scan."""
    found: dict[str, list[dict[str, Any]]] = {"small": [], "large": [], "scan": []}
    large = str(file("current-10m"))
    scan = [sys.executable, "-m", "benchmarks.drift_peers", "duckdb-scan", large]
    for _ in range(REPEATS):
        found["small"].append(_ours("window", str(file("current-1m")), stored))
        found["large"].append(_ours("window", large, stored))
        found["scan"].append(_run(scan))
    best = {name: min(runs, key=lambda run: run["cpu"]) for name, runs in found.items()}
    for name, runs in found.items():
        best[name]["peak"] = max(run["peak"] for run in runs)
        print(f"{name}: CPU {[round(run['cpu'], 2) for run in runs]}, peak {best[name]['peak']:.0f} MB", flush=True)
    return best["small"], best["large"], best["scan"]


def _peer(peer: str, reference: str) -> dict[str, Any] | None:
    """Run one peer on a million rows; None, and a line that says so, where it cannot run."""
    python = str(NANNYML) if peer == "nannyml" else sys.executable
    if not Path(python).exists():
        made = (
            ".venv/bin/uv venv .venv-nannyml --python 3.11 && .venv/bin/uv pip install --python "
            ".venv-nannyml/bin/python -r benchmarks/nannyml.txt"
        )
        print(f"FAILED: {peer} was not run; it needs an environment of its own: {made}", flush=True)
        return None
    command = [python, str(Path(__file__).with_name("drift_peers.py")), peer]
    try:
        _run([*command, str(file("tiny-reference")), str(file("tiny-current"))])
        found = _run([*command, reference, str(file("current-1m"))])
    except RuntimeError as exc:
        print(f"FAILED: {peer} could not run: {exc}", flush=True)
        return None
    if found["columns"] != 20:
        raise RuntimeError(f"{peer} measured {found['columns']} of 20 columns")
    print(f"{peer}: CPU {found['cpu']:.2f}, peak {found['peak']:.0f} MB", flush=True)
    return found


def _ours(*arguments: str) -> dict[str, Any]:
    return _run([sys.executable, "-m", "benchmarks.drift_ours", *arguments])


def _run(command: list[str]) -> dict[str, Any]:
    """Run a process; return what it printed last with its CPU seconds."""
    env = {key: value for key, value in os.environ.items() if key not in ("PYTHONDONTWRITEBYTECODE", "PYTHONPATH")}
    env |= {"OMP_NUM_THREADS": "1", "DO_NOT_TRACK": "1", "NML_DISABLE_USAGE_LOGGING": "1"}
    with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as complained:
        process = subprocess.Popen(command, stdout=said, stderr=complained, env=env, cwd=ROOT)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        for stream in (said, complained):
            stream.seek(0)
        if process.returncode != 0:
            words = complained.read().decode(errors="replace").strip().splitlines()
            raise RuntimeError(f"it ended with {process.returncode}: {words[-1] if words else 'no word'}")
        lines = said.read().decode().strip().splitlines()
    found: dict[str, Any] = json.loads(lines[-1]) if lines[-1:] and lines[-1].startswith("{") else {}
    return found | {"cpu": usage.ru_utime + usage.ru_stime}
