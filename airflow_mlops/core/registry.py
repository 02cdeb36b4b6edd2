"""Plug points: names to things, imported only when asked for."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from airflow_mlops.errors import InvalidSpecError, UnknownNameError


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
        :raises InvalidSpecError: a plug-in's module or attribute cannot be imported.
        """
        if name in self.builtins:
            return EntryPoint(name, self.builtins[name], self.group).load()
        entry = self._find(name)
        try:
            return entry.load()
        except (ImportError, AttributeError) as exc:
            origin = f" of the distribution {entry.dist.name}" if entry.dist else ""
            raise InvalidSpecError(
                f"The {self._noun} {name!r}{origin} ({entry.value}) cannot be loaded: {exc}. Install what it needs, or "
                f"correct its entry point."
            ) from exc

    def check(self, name: str) -> None:
        """Refuse a name that nothing is called by. Nothing is imported, and built-ins are not even looked for.

        :raises UnknownNameError: nothing is called so.
        """
        if name not in self.builtins:
            self._find(name)

    def _find(self, name: str) -> EntryPoint:
        entries = self._entries()
        if name not in entries:
            raise UnknownNameError.of(self._noun, name, entries, group=self.group)
        return entries[name]

    @property
    def _noun(self) -> str:
        return self.kind.removesuffix("s").replace("_", " ")
