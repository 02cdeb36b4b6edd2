"""Keys that name a piece of work, and digests that name its inputs.

A task's key is stable over retries, clears and zombies; its input digest changes when what goes in changes. Same key
and digest: adopt what exists. Same key, other digest: a new result that supersedes the old one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel


@dataclass(frozen=True, kw_only=True)
class TaskKey:
    """Which task of which run. ``map_index`` is -1 for a task that is not mapped."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: int = -1

    def __str__(self) -> str:
        return f"{self.run_key}/{self.task_id}/{self.map_index}"

    @property
    def run_key(self) -> str:
        """Return the part that all tasks of one run share: the key of the parent MLflow run."""
        return f"{self.dag_id}/{self.run_id}"


def key_id(key: str) -> str:
    """Return a key as 32 hexadecimal digits, so that no character of a run id needs quoting in a search filter."""
    return hashlib.sha256(key.encode()).hexdigest()[:32]


def digest_of(value: Any) -> str:
    """Return the SHA-256 of ``value`` as canonical JSON: sorted keys, no spaces, UTF-8, no NaN.

    :param value: anything of JSON's types, pydantic models and mappings included.
    :raises ValueError: a number is not finite.
    :raises TypeError: a value has no JSON form.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, set | frozenset):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} has no canonical JSON form")
