"""``make bench``: ours beside what people would do without us, in one run; writes ``benchmarks/results.json``.

Each entry is ``{name, ours, peer, ratio, bound, unit}``; ``ratio`` is ours over peer and should be at most ``bound``.
Absolute numbers belong to the machine, ratios travel. Both sides' results are compared before a time counts.

``python -m benchmarks drift`` runs one part, or several, and replaces only their entries. A part is a module of this
package with a function ``measure()`` that returns entries; it raises where a result is wrong, and prints what could
not be run.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("results.json")
#: Part to the beginnings of its entries' names.
PARTS = {"training": ("gate-", "training-"), "drift": ("drift",), "scoring": ("scoring",), "parse": ("parse",)}


def main(asked: list[str]) -> int:
    """Run the parts; 1 where one failed or a ratio is over its bound, 2 where a part is not known."""
    there = [part for part in PARTS if find_spec(f"benchmarks.{part}") is not None]
    unknown = [part for part in asked if part not in there]
    if unknown:
        print(f"There is no part {', '.join(unknown)}; there are {', '.join(there)}.", file=sys.stderr)
        return 2
    results: list[dict[str, Any]] = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    wrong = []
    for part in asked or there:
        try:
            found = import_module(f"benchmarks.{part}").measure()
        except Exception as exc:  # noqa: BLE001  # the other parts still count
            print(f"FAILED: the part {part}: {type(exc).__name__}: {exc}", file=sys.stderr, flush=True)
            wrong.append(part)
            continue
        for one in found:
            print(one, flush=True)
        results = [one for one in results if not one["name"].startswith(PARTS[part])] + found
        wrong += [one["name"] for one in found if one["ratio"] > one["bound"]]
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    if wrong:
        print(f"Over its bound, or failed: {', '.join(wrong)}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
