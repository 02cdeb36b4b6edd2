"""What lint finds: findings, their codes, and how an error's words become one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from airflow_mlops.spec.layers import EXTENDS, PROFILES
from airflow_mlops.spec.model import ModelSpec

Level = Literal["error", "warning"]

#: Every code, what it is about, and whether it is an error. A code keeps its meaning; new ones are added.
CODES: dict[str, tuple[Level, str]] = {
    "MLOPS101": ("error", "the file cannot be read, or is no YAML or JSON"),
    "MLOPS102": ("error", "the specification is not valid: a key, a value, a base, or two parts that disagree"),
    "MLOPS103": ("error", "profiles are not valid, or one changes what a profile may not"),
    "MLOPS104": ("error", "the cron expression is not valid"),
    "MLOPS201": ("error", "the contract's file is not there"),
    "MLOPS202": ("error", "the contract is not valid"),
    "MLOPS203": ("error", "the contract names an expectation that Great Expectations does not have"),
    "MLOPS204": ("error", "a feature is one that the contract keeps for training only"),
    "MLOPS205": ("warning", "Great Expectations could not be asked about the contract (with --import)"),
    "MLOPS301": ("error", "a module of the team's code is not there, or is no Python"),
    "MLOPS302": ("error", "the module has no such function or class"),
    "MLOPS303": ("error", "the function does not take the arguments that it will be given"),
    "MLOPS304": ("error", "importing it failed (with --import)"),
    "MLOPS305": ("warning", "a notifier's module is not installed here"),
    "MLOPS401": ("error", "a gate rule does not exist, or does not take its settings"),
    "MLOPS402": ("error", "a drift method does not exist, or does not fit"),
    "MLOPS403": ("error", "a runtime does not exist, or does not take its settings"),
    "MLOPS404": ("error", "the flavour or its format does not exist (with --import)"),
    "MLOPS501": ("error", "two models have one name"),
    "MLOPS502": ("error", "two models make one DAG id"),
    "MLOPS503": ("error", "two models write one registered model"),
    "MLOPS504": ("error", "two models write their predictions to one place"),
    "MLOPS601": ("error", "a DAG cannot be made from the specification"),
    "MLOPS602": ("error", "Airflow cannot serialise a DAG"),
    "MLOPS901": ("warning", "the gate compares nothing with the champion"),
    "MLOPS902": ("warning", "no gate rule asks for proof, so chance may decide"),
    "MLOPS903": ("warning", "predictions are made, and their performance is never measured"),
    "MLOPS904": ("warning", "a breach has no consequence, and nobody is told"),
    "MLOPS905": ("warning", "a retrain is asked for, and no schedule listens"),
    "MLOPS906": ("warning", "a drift threshold that chance alone reaches in a small window"),
    "MLOPS907": ("warning", "two profiles of a model write their predictions to one place"),
}

#: Places in words: ``FILE, line 3: ``, of code also ``FILE.py:3: ``; ``FILE: `` or ``FILE `` where no line is known.
_WITH_LINE = re.compile(
    r"^(?:(?P<file>.+?), line (?P<line>\d+)(?: \([^)]*\))?|(?P<code>[^:]+\.py):(?P<at>\d+)): (?P<text>.*)$", re.DOTALL
)
_KEY = re.compile(r"^(?P<key>[a-z_]\w*(?:\.\w+|\[\d+\])*)(?=:| |;|$)")
_ROOTS = {*ModelSpec.model_fields, EXTENDS, PROFILES, "expectations", "min_rows", "train_only", "max_quarantined_share"}
_SENTENCE = re.compile(r"(?<=[.?])\s+(?=[A-Z(`])")

Locate = Callable[[Sequence[Any]], tuple[str, int]]


@dataclass(frozen=True, order=True)
class Finding:
    """One thing that is wrong or questionable.

    :param line: counted from 1.
    :param key: dotted, as in the specification; empty where the file as a whole is meant.
    :param profiles: under which profiles it shows; none where it does without one.
    """

    file: str
    line: int
    code: str
    key: str
    level: Level
    message: str
    mend: str
    profiles: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the finding as plain JSON."""
        return {**asdict(self), "profiles": list(self.profiles)}


def finding(code: str, place: tuple[str, int], key: str, message: str, mend: str) -> Finding:
    """Return a finding of ``code``, whose level is the code's."""
    return Finding(place[0], place[1], code, key, CODES[code][0], message, mend)


def findings_of(code: str, error: Exception, file: str, at: Locate | None = None, key: str = "") -> list[Finding]:
    """Return what an error of the package says, one finding a line: its place, key, sentence and mend.

    :param file: the file that is meant where the words name none.
    :param at: gives the place of a key, for words that name the key alone.
    :param key: the key that is meant where the words name none.
    """
    found = []
    for line in str(error).splitlines() or [type(error).__name__]:
        match = _WITH_LINE.match(line)
        where = (match["file"] or match["code"], int(match["line"] or match["at"])) if match else (file, 1)
        text = match["text"] if match else re.sub(rf"^{re.escape(file)}(: | )", _instead_of_the_file, line)
        written = re.sub(r"^(Model '[^']*'|the specification): ", "", text)
        said, text = _key_of(written)
        named = said or key
        # The words name a deeper key than the place does, or no place at all.
        if (
            at is not None
            and named
            and (match is None or written != match["text"] or f"{said}: " not in written[: len(said) + 2])
        ):
            where = at(_location(named))
        message, mend = _parted(text)
        found.append(finding(code, where, named, message, mend))
    return found


def merged(found: Iterable[Finding]) -> list[Finding]:
    """Return the findings sorted, each once: what shows under several profiles names them all.

    What shows without a profile, too, is a fault of the specification itself and names none.
    """
    under: dict[Finding, list[str]] = {}
    for one in found:
        alone = replace(one, profiles=())
        under.setdefault(alone, [])
        under[alone] += one.profiles or [""]
    return sorted(
        replace(one, profiles=() if "" in names else tuple(dict.fromkeys(names))) for one, names in under.items()
    )


def _instead_of_the_file(match: re.Match[str]) -> str:
    return "" if match[1] == ": " else "the file "


def _key_of(text: str) -> tuple[str, str]:
    """Return the longest key that the text begins with, and the text without the keys before it."""
    key = ""
    while match := _KEY.match(text):
        root = re.split(r"[.\[]", match["key"])[0]
        if root not in _ROOTS or (key and not match["key"].startswith(key)):
            break
        key, rest = match["key"], text[match.end() :]
        if not rest.startswith(": "):
            break
        text = rest[2:]
    return key, text


def _location(key: str) -> tuple[Any, ...]:
    parts = re.findall(r"\w+", key)
    return tuple(int(part) if part.isdigit() else part for part in parts)


def _parted(text: str) -> tuple[str, str]:
    """Return what is wrong, and what to do: the first sentence, and the rest."""
    first, *rest = _SENTENCE.split(text.strip(), maxsplit=1)
    if not rest and "; " in first:
        first, _, last = first.partition("; ")
        rest = [last[:1].upper() + last[1:]]
    return first.rstrip("."), (rest[0] if rest else "")
