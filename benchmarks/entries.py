"""One line of ``results.json``."""

from __future__ import annotations

from typing import Any


def entry(name: str, ours: float, peer: float, bound: float, unit: str) -> dict[str, Any]:
    """Return one line of the results."""
    return {
        "name": name,
        "ours": round(ours, 4),
        "peer": round(peer, 4),
        "ratio": round(ours / peer, 4),
        "bound": bound,
        "unit": unit,
    }
