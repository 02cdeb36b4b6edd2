"""``airflow-mlops init --repository``: a team's repository that passes its own checks, or one more model in it."""

from __future__ import annotations

import argparse
import json
import shlex
import tempfile
from pathlib import Path

from airflow_mlops.cli import new_repository_example as example
from airflow_mlops.cli.new_files import refuse_existing, write_files
from airflow_mlops.cli.new_model_study import Study, study
from airflow_mlops.cli.new_repository_files import HOSTS, MARKS, model_paths, model_texts, owner_of, shared_texts
from airflow_mlops.cli.output import emit
from airflow_mlops.cli.table_options import data_of, named_as_options, storage_of
from airflow_mlops.core.new_model import check_name
from airflow_mlops.errors import InvalidSpecError


def new_repository(args: argparse.Namespace) -> int:
    """Look at the table, or at the example, and write the repository; always 0, because anything else is an error.

    In a folder that is such a repository already, only the files of the model are written. A ``README.md`` and a
    ``.gitignore`` that are there stay as they are.

    :raises InvalidSpecError: the options contradict each other, a file exists, or nothing can be learnt from the table.
    :raises DataReadError: the table cannot be read.
    """
    root: Path = args.repository
    _check_options(args)
    nearest = next(path for path in (root, *root.parents, Path()) if path.exists())
    if not nearest.is_dir():
        raise InvalidSpecError(
            f"--repository {root} cannot be made: {nearest} is no folder. Name a new folder, or one to be added to."
        )
    there = all((root / mark).is_file() for mark in MARKS)
    if there and args.data is None:
        raise InvalidSpecError(
            f"{root} is a repository of models already. To add a model, say from which table: --data TABLE --target "
            f"COLUMN --name NAME."
        )
    name = args.name or example.NAME
    check_name(name)
    paths = model_paths(name)
    shared = {} if there else shared_texts(name, owner_of(root), example=args.data is None)
    kept = [path for path in HOSTS if path in shared and (root / path).is_file() and not args.force]
    shared = {path: text for path, text in shared.items() if path not in kept}
    refuse_existing([root / path for path in (*paths.values(), *shared)], force=args.force)

    found = _looked_at(args)
    texts = model_texts(found, root, {} if args.data else example.PLACES)
    files = {root / paths[kind]: text for kind, text in texts.items()}
    files |= {root / path: text for path, text in shared.items()}
    for path in files:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise InvalidSpecError(
                f"The folder {path.parent} cannot be made: {exc.strerror}. Choose another place for --repository."
            ) from exc
    for folder in dict.fromkeys(path.parent for path in files):
        write_files({path: text for path, text in files.items() if path.parent == folder}, force=args.force)
    _tell(args, found, sorted(files), [root / path for path in kept])
    return 0


def _check_options(args: argparse.Namespace) -> None:
    if args.out is not None:
        raise InvalidSpecError("--out and --repository contradict each other: a repository has its own folders.")
    if args.data is None:
        about = {"--target": args.target, "--name": args.name, "--task": args.task, "--event-time": args.event_time}
        about |= {"--id": args.ids, "--personal": args.personal, "--format": args.format, "--conn-id": args.conn_id}
        named = [option for option, value in about.items() if value]
        if named:
            raise InvalidSpecError(
                f"{named[0]} is about a table, and none is given: add --data TABLE, or leave it out for a repository "
                f"with an example."
            )
    elif args.target is None or args.name is None:
        raise InvalidSpecError(
            f"A model of {args.data} needs --target, the column to predict, and --name, the model's name."
        )


def _looked_at(args: argparse.Namespace) -> Study:
    if args.data is not None:
        access = storage_of(args)
        with named_as_options():
            return study(args, data_of(args.data, args, access), access)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{example.NAME}.parquet"
        example.write_example(path)
        given = argparse.Namespace(**vars(args))
        given.data, given.name, given.target, given.task = str(path), example.NAME, example.TARGET, "binary"
        given.event_time, given.ids = example.EVENT_TIME, [example.ID]
        found = study(given, data_of(given.data, given, None), None)
    said = found.contract.text.replace(str(path), "an example table")
    return Study(found.model, type(found.contract)(found.contract.inferred, said, found.contract.contract), 0)


def _tell(args: argparse.Namespace, found: Study, written: list[Path], kept: list[Path]) -> None:
    model = found.model
    steps = [
        (shlex.join(["cd", str(args.repository)]), ""),
        ("airflow-mlops lint --all-profiles models", "every model under every profile"),
        ("python -m pytest", "training functions, DAGs, a training on made-up rows, drifted and broken data"),
    ]
    if args.repository.resolve() == Path.cwd():
        steps = steps[1:]
    if args.json:
        told = {
            "files": list(map(str, written)),
            "kept": list(map(str, kept)),
            "guessed": list(model.guesses),
            "train_window": model.split.train.model_dump(mode="json"),
            "evaluate_window": model.split.evaluate.model_dump(mode="json"),
            "set_aside": found.set_aside,
            "next": [command for command, _ in steps],
        }
        emit(json.dumps(told, indent=1))
        return
    lines = ["Wrote:", *(f"  {path}" for path in written)]
    lines += [f"Kept as it was: {path}" for path in kept]
    if args.data is not None and model.guesses:
        lines += [f"Guessed (change it in models/{model.name}.yaml where you know better):"]
        lines += [f"  - {guess}" for guess in model.guesses]
    if found.set_aside:
        lines.append(f"{found.set_aside:,} rows have no {model.target!r}: the contract sets them aside.")
    lines.append("Next (README.md says more):")
    for command, why in steps:
        lines += [f"  # {why}"] if why else []
        lines.append(f"  {command}")
    emit("\n".join(lines))
