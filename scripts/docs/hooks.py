"""What the site's build adds to the pages: parts made from the package, the changelog, the decisions, plain fences."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from scripts.docs.reference import changelog, make

_MADE_FROM = re.compile(r"^<!-- made from: (.+?) -->$", re.MULTILINE)
#: A fence's opening line; what follows the language is for the tests, all but the title.
_FENCE = re.compile(r"^(?P<indent>[ \t]*)(?P<ticks>```+)(?P<language>\w+)[ \t]+(?P<words>[^`\n]+)$", re.MULTILINE)
_TITLE = re.compile(r'title="[^"]*"')


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Fill in the decisions: every file of ``docs/adr``, in order."""
    decisions = sorted(Path(config.docs_dir, "adr").glob("*.md"))
    _fill(config.nav, "Decisions", [f"adr/{path.name}" for path in decisions])
    return config


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the changelog, which lives beside the package."""
    files.append(File.generated(config, "changelog.md", content=changelog()))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put in what is made from the package, and leave of a fence's words only the title."""
    made = _MADE_FROM.sub(lambda match: make(match[1]), markdown)
    return plain_fences(made)


def plain_fences(markdown: str) -> str:
    """Return the text with every fence opened by its language and title alone."""

    def opening(match: re.Match[str]) -> str:
        title = _TITLE.search(match["words"])
        return f"{match['indent']}{match['ticks']}{match['language']}" + (f" {title[0]}" if title else "")

    return _FENCE.sub(opening, markdown)


def _fill(nav: Any, title: str, value: list[str]) -> None:
    for item in nav or ():
        for key, inner in item.items() if isinstance(item, dict) else ():
            if key == title:
                item[key] = value
            elif isinstance(inner, list):
                _fill(inner, title, value)
