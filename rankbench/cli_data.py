"""`rankbench data`: what datasets need, what is there, whether it is right, and how to get it."""

from __future__ import annotations

import json
import os
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from rankbench.errors import BenchmarkError, MissingData, RankbenchError, counted

INDENT = "    "
SHOWN = 5  # examples of each reason why files could not be fetched

root_option = click.option("--data", type=click.Path(path_type=Path), help="Data root [$RANKBENCH_DATA or ./data].")
cache_option = click.option(
    "--cache", type=click.Path(path_type=Path), help="Cache folder [$RANKBENCH_CACHE or ./cache]."
)
folder_option = click.option("--folder", help="The dataset's folder below the data root.")
set_option = click.option(
    "--set",
    "parameters",
    multiple=True,
    metavar="NAME=VALUE",
    help='A parameter of the dataset: --set protocol="paper".',
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def data() -> None:
    """Datasets: what they need, what is there, whether it is right.

    NAME is the name of a dataset, or a benchmark file, which stands for every dataset it names.
    """


def opened(root: Path | None, cache: Path | None) -> Any:
    """The datasets of every installed package, below the data root."""
    from rankbench.cli import warn
    from rankbench.loading import Data
    from rankbench.registry import Registry
    from rankbench.runner import Options

    options = Options(data=root, cache=cache)
    registry = Registry.installed()
    warn(registry)
    return Data(registry, options.data_root, options.cache_root)


def choices(found: Any, name: str, folder: str | None, parameters: tuple[str, ...]) -> list[Any]:
    """What NAME stands for. BenchmarkError for a name nobody knows."""
    from rankbench.benchmark import Benchmark
    from rankbench.loading import DatasetChoice

    if name.endswith(".toml"):
        if folder or parameters:
            raise BenchmarkError("--folder and --set go with the name of a dataset; a benchmark file has its own.")
        return named_in(Benchmark.read(name))
    found.registry.find("datasets", name)
    return [DatasetChoice.parse({"name": name, "folder": folder} | dict(map(parameter, parameters)))]


def named_in(benchmark: Any) -> list[Any]:
    """Every dataset that a benchmark names, those that features are fitted on included, each once."""
    from rankbench.files import canonical_json
    from rankbench.loading import DatasetChoice
    from rankbench.plan import place

    every = [column.choice for column in benchmark.column]
    for row in benchmark.row:
        every += [DatasetChoice.parse(table) for table in fitted_on([row.ranker, row.at])]
    return list({canonical_json(place(one)): one for one in every}.values())


def fitted_on(value: Any) -> Iterator[Any]:
    """The tables that `fit_on` names anywhere below."""
    if isinstance(value, dict):
        if isinstance(value.get("fit_on"), dict):
            yield value["fit_on"]
        for part in value.values():
            yield from fitted_on(part)
    elif isinstance(value, list):
        for part in value:
            yield from fitted_on(part)


def parameter(text: str) -> tuple[str, Any]:
    """`name=value`, the value as TOML; a bare word is a string."""
    name, sign, value = text.partition("=")
    if not sign or not name.strip():
        raise BenchmarkError(f"--set {text}: write NAME=VALUE.")
    try:
        return name.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return name.strip(), value.strip()


# ------------------------------------------------------------------------------------------------------------- list


@data.command(name="list")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@root_option
@cache_option
@json_option
def list_data(names: tuple[str, ...], data: Path | None, cache: Path | None, as_json: bool) -> None:
    """What each dataset needs, and what of it is there.

    Without NAME: every installed dataset, and every benchmark in ./benchmarks.
    """
    found = opened(data, cache)
    if not names:
        names = (*found.registry.names("datasets"), *map(str, sorted(Path("benchmarks").glob("*.toml"))))
    rows = [status(found, name, choice) for name in names for choice in choices(found, name, None, ())]
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    width = max(len(row["dataset"]) for row in rows)
    click.echo(f"Data root: {found.root}")
    last = None
    for row in rows:
        if row["benchmark"] != last:
            click.echo(f"\n{row['benchmark'] or 'Datasets'}")
            last = row["benchmark"]
        click.echo(f"  {row['dataset']:<{width}}  {row['status']}")
        if not row["benchmark"]:
            for need in row["needs"]:
                if not need["found"]:
                    click.echo(f"{INDENT}{need['path']}\n{INDENT}{INDENT}{need['get']}")


def status(found: Any, name: str, choice: Any) -> dict[str, Any]:
    """One line of the list."""
    about = {"benchmark": name if name.endswith(".toml") else "", "dataset": choice.label, "needs": []}
    try:
        needs = found.needs(choice)
    except RankbenchError as error:
        return about | {"status": f"cannot be looked at: {error}"}
    about["needs"] = [{**vars(need), "path": str(need.path)} for need in needs]
    if any(not need.found and not need.images for need in needs):
        return about | {"status": "missing"}
    return about | {"status": "there" if all(need.found for need in needs) else "there, without all images"}


# --------------------------------------------------------------------------------------------------------- describe


@data.command()
@click.argument("name")
@folder_option
@root_option
@cache_option
def describe(name: str, folder: str | None, data: Path | None, cache: Path | None) -> None:
    """Source, licence, layout, protocol and known problems of a dataset.

    Besides: where its files are looked for, and which of them are there.
    """
    from rankbench.registry import description

    found = opened(data, cache)
    for choice in choices(found, name, folder, ()):
        plugin = found.registry.find("datasets", choice.name)
        click.echo(f"{choice.name} [{plugin.distribution}]\n\n{description(plugin.load())}\n")
        needs = found.needs(choice)
        click.echo("Files:" if needs else "Files: it reads none from the data root.")
        for need in needs:
            click.echo(f"  {'there  ' if need.found else 'MISSING'}  {need.path}")
            if not need.found:
                click.echo(f"{INDENT}{INDENT}   {need.get}")


# ------------------------------------------------------------------------------------------------------------ check


@data.command()
@click.argument("name")
@folder_option
@set_option
@root_option
@cache_option
@click.option("--no-decode", is_flag=True, help="Do not decode the images.")
@json_option
@click.pass_context
def check(
    context: click.Context,
    /,
    name: str,
    folder: str | None,
    parameters: tuple[str, ...],
    data: Path | None,
    cache: Path | None,
    no_decode: bool,
    as_json: bool,
) -> None:
    """Count what is there, hold it against what was published, and decode every image.

    Exit codes: 0 all good, 1 a count differs or an image cannot be read, 2 a file is wrong, 3 data is missing.
    """
    found = opened(data, cache)
    worst = 0
    for choice in choices(found, name, folder, parameters):
        lacking = found.missing(choice)
        for need in lacking:
            click.echo(f"{choice.label}: missing: {need.path}\n{INDENT}{need.get}", err=True)
        if any(not need.images for need in lacking):
            worst = 3
            continue
        worst = max(worst, 3 if lacking else 0, print_check(found, choice, not no_decode, as_json))
    context.exit(worst)


def print_check(found: Any, choice: Any, decode: bool, as_json: bool) -> int:
    from tabulate import tabulate

    from rankbench.checking import as_json as report
    from rankbench.checking import checked, remarks, table

    try:
        with bar("images") as advance:
            result = checked(found, choice, decode, advance)
    except MissingData as error:
        click.echo(f"Error: {error}", err=True)
        return 3
    if as_json:
        click.echo(json.dumps({"dataset": choice.label, **report(result)}, indent=1))
        return 0 if result.good else 1
    click.echo(f"{choice.label}: {counted(len(result.problems), 'problem')}")
    rows = table(result)
    headers = ("", "found", "published", "", "of")
    click.echo(
        tabulate(
            rows, headers, tablefmt="simple", colalign=("left", "right", "right", "left", "left"), disable_numparse=True
        )
    )
    for title, texts in (("Wrong", result.wrong), ("Remarks", remarks(result))):
        if texts:
            click.echo(f"\n{title}:")
            for text in texts[:20]:
                click.echo(f"  {text}")
            if len(texts) > 20:
                click.echo(f"  … and {len(texts) - 20} more (--json lists all)")
    click.echo("\nGood." if result.good else "\nNot as published, or not whole.")
    for (facets, _), mark in list(zip(result.problems, result.fingerprints, strict=True))[:20]:
        click.echo(f"  {mark[:16]}  {' '.join(f'{k}={v}' for k, v in facets.items()) or choice.name}")
    return 0 if result.good else 1


@contextmanager
def bar(unit: str) -> Iterator[Any]:
    """A progress bar on a terminal: a function told how much is done, of how much."""
    from tqdm import tqdm

    from rankbench.progress import terminal

    with tqdm(total=0, unit=f" {unit}", disable=not terminal(), leave=False) as shown:

        def advance(done: int, of: int) -> None:
            if shown.total != of:
                shown.reset(of)
            shown.update(done - shown.n)

        yield advance


# ------------------------------------------------------------------------------------------------------------ fetch


@data.command()
@click.argument("name")
@folder_option
@set_option
@root_option
@cache_option
@click.option("--from", "source", default="", metavar="URL|FOLDER", help="Another place to get the files from.")
@click.option("--jobs", type=click.IntRange(1, 32), default=8, show_default=True, help="Files at once.")
@click.pass_context
def fetch(
    context: click.Context,
    /,
    name: str,
    folder: str | None,
    parameters: tuple[str, ...],
    data: Path | None,
    cache: Path | None,
    source: str,
    jobs: int,
) -> None:
    """Download what may be downloaded; what is there already stays.

    Interrupted, it resumes. With $RANKBENCH_OFFLINE set, no connection is made. FOLDER or URL given by --from is looked
    into for a file's path or name. The dataset's .fetch/report.json says what became of each file.

    Exit codes: 0 all there, 1 some could not be had, 2 nothing of it may be downloaded.
    """
    found = opened(data, cache)
    worst = 0
    for choice in choices(found, name, folder, parameters):
        worst = max(worst, fetch_one(found, choice, source, jobs))
    context.exit(worst)


def fetch_one(found: Any, choice: Any, source: str, jobs: int) -> int:
    from rankbench.fetch import FAILED, Fetcher
    from rankbench.loading import blaming

    folder = found.folder(choice)
    with bar("files") as advance:

        def say(outcome: Any, done: int, of: int) -> None:
            advance(done, of)
            if not sys.stderr.isatty() and done % 500 == 0:
                click.echo(f"{done:,} of {of:,} files", err=True)

        fetcher = Fetcher(folder, source, jobs, bool(os.environ.get("RANKBENCH_OFFLINE")), say)
        with blaming(found.registry, choice):
            outcomes = fetcher.all(found.dataset(choice))
    if not outcomes:
        gets = list(dict.fromkeys(need.get for need in found.missing(choice)))
        raise RankbenchError(
            f"nothing of {choice.label} may be downloaded. " + (" ".join(gets) or "All of it is there.")
        )
    counts = Counter(outcome.status for outcome in outcomes)
    click.echo(f"{choice.label}: " + ", ".join(f"{count:,} {status}" for status, count in counts.items()))
    for outcome in outcomes:
        if outcome.sha256 and not outcome.path.startswith("images/"):
            click.echo(f"  {outcome.url}\n    {outcome.size:,} bytes, sha-256 {outcome.sha256}")
    failed = [outcome for outcome in outcomes if outcome.status == FAILED]
    for outcome in failed[:SHOWN]:
        click.echo(f"  {outcome.path}: {outcome.reason}", err=True)
    if len(failed) > SHOWN:
        click.echo(f"  … and {len(failed) - SHOWN} more: {folder / '.fetch' / 'report.json'}", err=True)
    return 1 if failed else 0
