"""The blocks of code on the documentation's pages, and what it takes to try each of them.

What a fence's words mean is told to writers in ``docs/writing-these-pages.md``.
"""

from __future__ import annotations

import ast
import io
import json
import os
import re
import shlex
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
_FENCE = re.compile(r"^(?P<indent>[ \t]*)```(?P<language>[\w+-]*)[ \t]*(?P<words>[^`\n]*)$")
#: Words a fence may carry, and whether they take a value.
WORDS = {"title": True, "run": False, "exit": True, "part-of": True, "no-run": True}
#: Blocks that are there to be looked at.
PLAIN = {"", "text"}
#: What an unmarked shell block may start a line with, beside what is checked: programs that are not ours.
OTHER_PROGRAMS = {"airflow", "export", "cd", "mlflow", "python", "uv", "chmod", "cat", "ls", "kubectl", "docker"}


@dataclass(frozen=True)
class Block:
    """One fenced block: where it stands, its language, its words and its text without indentation."""

    page: Path
    line: int
    language: str
    text: str
    words: Mapping[str, str] = field(default_factory=dict)

    @property
    def place(self) -> str:
        """Return page and line for messages."""
        return f"{self.page.relative_to(ROOT)}, line {self.line}"

    @property
    def title(self) -> str | None:
        """Return the file the block is written to."""
        return self.words.get("title")


def pages() -> list[Path]:
    """Return the README and every page of the documentation."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page, in order.

    :raises ValueError: a fence is not closed, or carries a word nobody knows.
    """
    return list(_blocks(page, page.read_text(encoding="utf-8").split("\n")))


def _blocks(page: Path, lines: list[str]) -> Iterator[Block]:
    number = 0
    while number < len(lines):
        opened = _FENCE.match(lines[number])
        number += 1
        if opened is None:
            continue
        begin = number
        while number < len(lines) and lines[number].strip() != "```":
            number += 1
        if number == len(lines):
            raise ValueError(f"{page}, line {begin}: this fence is not closed")
        text = textwrap.dedent("\n".join(lines[begin:number]))
        number += 1
        yield Block(page, begin, opened["language"], text, _words(page, begin, opened["words"]))


def _words(page: Path, line: int, text: str) -> dict[str, str]:
    found = {}
    for word in shlex.split(text):
        name, equals, value = word.partition("=")
        if name not in WORDS or WORDS[name] != bool(equals):
            raise ValueError(f"{page}, line {line}: {word!r} is no word of a fence; known: {', '.join(WORDS)}")
        found[name] = value
    return found


@dataclass
class Desk:
    """A folder in which a page is worked through: ``dags`` with the flights' files, ``lake``, and an MLflow store.

    All Python blocks of a page share one namespace.
    """

    folder: Path
    env: Mapping[str, str]
    names: dict[str, Any] = field(default_factory=dict)

    def try_block(self, block: Block) -> None:
        """Run or check one block.

        :raises AssertionError: it does not do what the page says.
        """
        if "no-run" in block.words or block.language in PLAIN:
            return
        if source := block.words.get("part-of"):
            whole = _unindented((ROOT / source).read_text(encoding="utf-8"))
            assert _unindented(block.text) in whole, f"{block.place}: {source} no longer holds these lines"
            return
        trial = {
            "python": self._python,
            "yaml": self._yaml,
            "console": self._console,
            "json": lambda one: json.loads(one.text),
            "toml": lambda one: tomllib.loads(one.text),
        }.get(block.language)
        assert trial is not None, f"{block.place}: nobody knows how to try a block of {block.language!r}"
        trial(block)

    def _written(self, block: Block) -> Path:
        """Write a titled block to its file; a bare name goes into the DAG folder."""
        assert block.title is not None
        path = self.folder / (block.title if "/" in block.title else f"dags/{block.title}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text + "\n", encoding="utf-8")
        return path

    def _python(self, block: Block) -> None:
        names, path = self.names, self.folder / "dags" / "page.py"
        if block.title is not None:
            path, names = self._written(block), {}
        names |= {"__name__": path.stem, "__file__": str(path)}
        # Empty lines before it: a traceback then shows the line of the page.
        code = compile("\n" * block.line + block.text, str(block.page), "exec")
        try:
            exec(code, names)
        except Exception as exc:
            raise AssertionError(f"{block.place}: this block fails with {type(exc).__name__}: {exc}") from exc

    def _yaml(self, block: Block) -> None:
        from airflow_mlops.errors import InvalidSpecError

        try:
            self._validated(block)
        except (InvalidSpecError, ValueError) as exc:
            raise AssertionError(f"{block.place}: this is no valid YAML of ours: {exc}") from exc

    def _validated(self, block: Block) -> None:
        import yaml

        from airflow_mlops.core.gate import check_rules
        from airflow_mlops.spec.load import load_spec
        from airflow_mlops.spec.model import ModelSpec

        data = yaml.safe_load(block.text)
        path = self._written(block) if block.title is not None else self.folder / "dags" / "fragment.yaml"
        if isinstance(data, list) and all("type" in item for item in data):
            data = {"expectations": data}
        elif isinstance(data, list) and all("rule" in item for item in data):
            data = {"gate": {"rules": data}}
        if isinstance(data, dict) and {"expectations", "min_rows", "max_quarantined_share"} & set(data):
            check_contract(data)
            return
        whole = isinstance(data, dict) and {"name", "data", "train"} <= set(data)
        if not whole:
            foreign = sorted(set(data) - set(ModelSpec.model_fields)) if isinstance(data, dict) else [str(data)]
            if foreign:
                raise ValueError(f"neither contract, expectations, rules nor a part of a specification: {foreign}")
            data = merged(yaml.safe_load((self.folder / "dags" / "flights.yaml").read_text()), data)
        if block.title is None:
            path.write_text(yaml.safe_dump(data), encoding="utf-8")
        check_rules(load_spec(path).gate.rules)

    def _console(self, block: Block) -> None:
        commands = list(commands_of(block.text))
        assert commands, f"{block.place}: a shell block begins with `$ `"
        if "run" not in block.words:
            for command, _ in commands:
                check_command(command, block.place)
            return
        if not any(command.startswith(("cd ", "export ")) for command, _ in commands):
            self._one_by_one(block, commands)
            return
        script = "".join(f"echo {_MARK}{number}\n{command}\n" for number, (command, _) in enumerate(commands))
        done = self._shell(script)
        outputs = re.split(rf"{_MARK}\d+\n", done.stdout)[1:]
        wanted = int(block.words.get("exit", 0))
        shown = done.stdout[-3000:]
        assert done.returncode == wanted, f"{block.place}: exit code {done.returncode}, not {wanted}:\n{shown}"
        assert len(outputs) == len(commands), f"{block.place}: it ended before its last command:\n{shown}"
        for (command, lines), output in zip(commands, outputs, strict=True):
            _compare(block, command, lines, output)

    def _one_by_one(self, block: Block, commands: list[tuple[str, list[str]]]) -> None:
        for number, (command, lines) in enumerate(commands, 1):
            if _is_ours(command):
                code, output = _in_this_process(shlex.split(command)[1:])
            else:
                done = self._shell(command)
                code, output = done.returncode, done.stdout
            wanted = int(block.words.get("exit", 0)) if number == len(commands) else 0
            assert code == wanted, f"{block.place}: exit code {code}, not {wanted}: `{command}`:\n{output[-3000:]}"
            _compare(block, command, lines, output)

    def _shell(self, script: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", f"exec 2>&1\n{script}"],
            cwd=self.folder,
            env=dict(self.env),
            capture_output=True,
            text=True,
            timeout=180,
        )


def _compare(block: Block, command: str, lines: list[str], output: str) -> None:
    for line in lines:
        assert printed(line, output), f"{block.place}: `{command}` did not print {line!r}, but:\n{output}"


def _unindented(text: str) -> str:
    return "\n".join(line.strip() for line in text.strip().split("\n"))


def _is_ours(command: str) -> bool:
    return command.startswith("airflow-mlops ") and not re.search(r"[|&;<>$`]", command)


def _in_this_process(words: list[str]) -> tuple[int, str]:
    """Run the command line as its script does, sparing the seconds that a new process takes to load its libraries."""
    from airflow_mlops.cli import main

    said = io.StringIO()
    with redirect_stdout(said), redirect_stderr(said):
        code = main(words)
    return code, said.getvalue()


_MARK = "@@block-command-"


def commands_of(text: str) -> Iterator[tuple[str, list[str]]]:
    """Yield each command of a shell block with the lines that the page shows as its output."""
    command, output = "", []
    for line in text.split("\n"):
        if line.startswith("$ "):
            if command:
                yield command, output
            command, output = line[2:], []
        elif command.endswith("\\") and not output:
            command = f"{command[:-1].rstrip()} {line.strip()}"
        elif line.strip():
            output.append(line.strip())
    if command:
        yield command, output


def printed(line: str, output: str) -> bool:
    """Say whether a line of the page is among the output's lines; ``…`` on the page stands for anything."""
    parts = [re.escape(" ".join(part.split())) for part in re.split(r"…|\.\.\.", line)]
    pattern = re.compile(r"\s?.*\s?".join(parts))
    return any(pattern.fullmatch(" ".join(one.split())) for one in output.split("\n"))


def merged(whole: Any, part: Any) -> Any:
    """Return ``whole`` with ``part`` written over it: mappings key by key, anything else at once."""
    if isinstance(whole, dict) and isinstance(part, dict):
        return whole | {key: merged(whole.get(key), value) for key, value in part.items()}
    return part


def check_contract(data: Mapping[str, Any]) -> None:
    """Read a contract and let Great Expectations say whether it knows every expectation."""
    from airflow_mlops.engines.expectations import check_contract_names
    from airflow_mlops.spec.contract import load_contract

    contract = load_contract(data if "expectations" in data else {**data, "expectations": [_ANY]})
    check_contract_names(contract)


_ANY = {"type": "expect_column_to_exist", "kwargs": {"column": "late"}}


def check_command(command: str, place: str) -> None:
    """Check a command that is shown and not run: our verbs and options, our make targets, our extras."""
    words = shlex.split(command, comments=True)
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    program = re.sub(r"^python3?(\.\d+)?$", "python", Path(words[0]).name)
    if program == "airflow-mlops":
        check_arguments(words[1:], place)
    elif program == "make":
        targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
        unknown = {word for word in words[1:] if "=" not in word} - targets
        assert not unknown, f"{place}: the Makefile has no target {unknown}"
    elif program in ("pip", "uv") and "install" in words:
        asked = {extra for word in words for extra in re.findall(r"airflow-mlops\[([\w,-]+)\]", word)}
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        unknown = {one for extra in asked for one in extra.split(",")} - set(project["optional-dependencies"])
        assert not unknown, f"{place}: the package has no extra {unknown}"
    else:
        assert program in OTHER_PROGRAMS, f"{place}: nobody checks {program!r}; mark the block `run`, or add it here"


def check_arguments(words: list[str], place: str) -> None:
    """Let the real parser read the arguments of ``airflow-mlops``; ``VERSION`` stands for a number."""
    from airflow_mlops.cli import build_parser

    redirected = words.index(">") if ">" in words else len(words)
    try:
        build_parser().parse_args(["1" if word == "VERSION" else word for word in words[:redirected]])
    except SystemExit as exc:
        if exc.code != 0:
            raise AssertionError(f"{place}: airflow-mlops does not take {shlex.join(words)}") from exc


def desk_environment(folder: Path, tracking_uri: str) -> dict[str, str]:
    """Return the environment in which a page's shell blocks run."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "AIRFLOW_CONN_"))}
    return {
        **kept,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "MLFLOW_TRACKING_URI": tracking_uri,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "GX_ANALYTICS_ENABLED": "False",
        "AIRFLOW_CONN_MLFLOW_DEFAULT": json.dumps({"conn_type": "mlflow", "host": tracking_uri}),
        "AIRFLOW__CORE__DAGS_FOLDER": str(folder / "dags"),
        "PYTHONPATH": str(folder / "dags"),
    }


def texts_of_the_package() -> list[str]:
    """Return every text in the package's source; a part that is computed stands as ``…``."""
    found = []
    for path in sorted((ROOT / "airflow_mlops").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = (str(one.value) if isinstance(one, ast.Constant) else "…" for one in node.values)
                found.append("".join(parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found
