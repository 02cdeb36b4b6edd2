"""Our side of the drift benchmark, a process by itself: a window's file against the stored profile.

The file is taken as it lies there; hashing it, which the drift step does before it reads, is no part of a profile.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from airflow_mlops.core.drift import judge_drift
from airflow_mlops.engines.checked_files import CheckedFile
from airflow_mlops.engines.manifests import Manifest, ManifestFile, encode_schema
from airflow_mlops.engines.window_profile import reference_profile, window_profile
from airflow_mlops.spec.monitoring import DriftSpec


def checked(path: Path) -> CheckedFile:
    """Return a file as the profile's reader takes it."""
    from pyarrow import parquet

    footer, schema = parquet.read_metadata(path), parquet.read_schema(path)
    entry = ManifestFile(
        path=path.name, size=path.stat().st_size, sha256="0" * 64, row_count=footer.num_rows, total_rows=footer.num_rows
    )
    manifest = Manifest(
        uri=str(path),
        root=str(path.parent),
        format="parquet",
        columns=tuple((field.name, str(field.type)) for field in schema),
        arrow_schema=encode_schema(schema),
        files=(entry,),
    )
    return CheckedFile(path=path, name=path.name, format="parquet", entry=entry, manifest=manifest)


def main(act: str, rows: str, stored: str, made: str = "") -> None:
    """``reference ROWS STORED`` writes a profile; ``window ROWS STORED MADE`` judges a window and keeps its profile."""
    if act == "reference":
        Path(stored).write_text(json.dumps(reference_profile(lambda: [checked(Path(rows))])))
        return
    reference = json.loads(Path(stored).read_text())
    profile = window_profile([checked(Path(rows))], reference)
    print(judge_drift(reference, profile, DriftSpec()).sentence, file=sys.stderr)
    if made:
        Path(made).write_text(json.dumps(profile))


if __name__ == "__main__":
    main(*sys.argv[1:])
    # The largest resident set of this program alone; what the parent had before it is in getrusage's figure, too.
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    print(json.dumps({"peak": int(peak.split()[1]) / 1000}))
