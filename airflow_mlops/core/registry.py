"""Plug points: names to things, imported only when asked for."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from airflow_mlops.errors import UnknownNameError


class Registry:
    """Names to things. Built-ins come with the package and cannot be shadowed; others come by entry point.

    :param kind: the plural noun, which is also the entry-point group's last part: ``gate_rules``.
    :param builtins: name to ``module:attribute``.
    """

    def __init__(self, kind: str, builtins: Mapping[str, str]) -> None:
        self.kind = kind
        self.group = f"airflow_mlops.{kind}"
        self.builtins = dict(builtins)

    def _entries(self) -> dict[str, EntryPoint]:
        plugins = {entry.name: entry for entry in entry_points(group=self.group)}
        ours = {name: EntryPoint(name, path, self.group) for name, path in self.builtins.items()}
        return plugins | ours

    def names(self) -> list[str]:
        """Return every known name, sorted, without importing anything."""
        return sorted(self._entries())

    def load(self, name: str) -> Any:
        """Import and return the thing called ``name``.

        :raises UnknownNameError: nothing is called so.
        """
        entries = self._entries()
        if name not in entries:
            raise UnknownNameError.of(self.kind.removesuffix("s").replace("_", " "), name, entries, group=self.group)
        return entries[name].load()
