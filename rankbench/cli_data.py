"""`rankbench data`: what datasets need, what is there, whether it is right, and how to get it."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from rankbench.errors import BenchmarkError, Interrupted, MissingData, RankbenchError, StoreError, counted
from rankbench.visible import visible

INDENT = "    "
SHOWN = 5  # examples of each reason why files could not be fetched
LISTED = 20  # remarks and problems that are printed
EVERY = 10.0  # seconds between two lines about one archive where no bar can be shown

HEADERS, ALIGN = ("", "found", "published", "", "of"), ("left", "right", "right", "left", "left")

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
    from rankbench.loading import Data
    from rankbench.registry import Registry
    from rankbench.runner import Options

    options = Options(data=root, cache=cache)
    registry = Registry.installed()
    warn(registry)
    return Data(registry, options.data_root, options.cache_root)


def warn(registry: Any) -> None:
    """A line for each package whose plugins are not usable."""
    for broken in registry.broken:
        text = f"Warning: plugin package {broken.distribution}, entry point {broken.entry_point!r}: {broken.message}"
        click.echo(visible(text), err=True)


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


def own_files_of(found: Any, name: str) -> list[Any]:
    """The files of the rankers and features of NAME, if it is a benchmark file."""
    from rankbench.benchmark import Benchmark
    from rankbench.own_files import own_files

    return own_files(found.registry, Benchmark.read(name)) if name.endswith(".toml") else []


def each(chosen: Sequence[Any], work: Callable[[Any], int], kind: str = "dataset ") -> int:
    """The largest exit code of `work` over the datasets; where one fails the others are looked at all the same."""
    worst = 0
    for choice in chosen:
        try:
            code = work(choice)
        except Interrupted:
            raise
        except RankbenchError as error:
            text = str(error)
            click.echo(f"Error: {text if choice.label in text else f'{kind}{choice.label}: {text}'}", err=True)
            code = 3 if isinstance(error, MissingData) else 1 if isinstance(error, StoreError) else 2
        worst = max(worst, code)
    return worst


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
    from rankbench.loading import listed_needs

    found = opened(data, cache)
    named = bool(names)
    if not names:
        names = (*found.registry.names("datasets"), *map(str, sorted(Path("benchmarks").glob("*.toml"))))
    rows = []
    for name in names:
        rows += [status(found, name, choice) for choice in choices(found, name, None, ())]
        rows += [of_own(own, name) for own in own_files_of(found, name)]
    if as_json:
        for row in rows:
            row["needs"] = [{**vars(need), "path": str(need.path)} for need in row["needs"]]
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
        if named or not row["benchmark"]:  # in the long list the datasets have said it already
            for line in listed_needs([need for need in row["needs"] if not need.found], most=SHOWN):
                click.echo(f"{INDENT}{line}")


def of_own(own: Any, name: str) -> dict[str, Any]:
    """The line of a ranker or feature that needs files beside data."""
    needs = own.learner.needs()
    there = "there" if all(need.found for need in needs) else "missing"
    return {"benchmark": name, "dataset": own.label, "needs": needs, "status": there}


def status(found: Any, name: str, choice: Any) -> dict[str, Any]:
    """One line of the list."""
    about = {"benchmark": name if name.endswith(".toml") else "", "dataset": choice.label, "needs": []}
    try:
        needs = found.needs(choice)
    except RankbenchError as error:
        return about | {"status": f"cannot be looked at: {error}"}
    about["needs"] = needs
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
    from rankbench.loading import listed_needs
    from rankbench.registry import description

    found = opened(data, cache)
    for choice in choices(found, name, folder, ()):
        plugin = found.registry.find("datasets", choice.name)
        about = description(plugin.load()).partition("\nRaises:")[0].rstrip()  # that is for those who program
        click.echo(f"{choice.name} [{plugin.distribution}]\n\n{about}\n")
        needs = found.needs(choice)
        click.echo("Files:" if needs else "Files: it reads none from the data root.")
        for need in filter(lambda need: need.found, needs):
            click.echo(f"  there  {need.path}")
        lines = listed_needs([need for need in needs if not need.found])
        if lines:
            click.echo("MISSING:")
        for line in lines:
            click.echo(line)


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

    NAME may be a benchmark file: a dataset that fails keeps none of the others from being checked.

    Exit codes, of several datasets the largest: 0 all good, 1 a count differs or an image cannot be read, 2 a file is
    wrong, 3 data is missing.
    """
    found = opened(data, cache)
    reports: list[dict[str, Any]] = []

    def one(choice: Any) -> int:
        report: dict[str, Any] = {"dataset": choice.label}
        reports.append(report)
        try:
            return check_one(found, choice, not no_decode, report, as_json)
        except RankbenchError as error:
            report.update(good=False, error=str(error))
            raise

    worst = each(choices(found, name, folder, parameters), one)
    if as_json:  # one document, whatever a benchmark names
        click.echo(json.dumps(reports if name.endswith(".toml") else reports[0], indent=1))
    context.exit(worst)


def check_one(found: Any, choice: Any, decode: bool, report: dict[str, Any], as_json: bool) -> int:
    """Check one dataset, fill its report, and print it unless that is asked for as JSON."""
    from rankbench.checking import as_json as told
    from rankbench.checking import checked
    from rankbench.loading import missing_message

    lacking = found.missing(choice)
    if lacking:
        report.update(good=False, missing=[{"path": str(need.path), "get": need.get} for need in lacking])
        click.echo(missing_message(choice, lacking), err=True)
    if any(not need.images for need in lacking):
        return 3
    with bar("images") as advance:
        result = checked(found, choice, decode, advance)
    report.update(told(result))
    report["good"] &= not lacking
    if not as_json:
        print_check(choice, found.folder(choice), result, decode, bool(lacking))
    return 3 if lacking else 0 if result.good else 1


def print_check(choice: Any, folder: Path, result: Any, decoded: bool, lacking: bool) -> None:
    from tabulate import tabulate

    from rankbench.checking import short_remarks, table, verdict

    click.echo(f"{choice.label}: {counted(len(result.problems), 'problem')}")
    every = table(result)
    columns = range(5) if any(published for _, _, published, *_ in every) else (0, 1, 4)  # of one's own nothing is
    *rows, headers, align = ([row[k] for k in columns] for row in (*every, HEADERS, ALIGN))
    click.echo(tabulate(rows, headers, tablefmt="simple", colalign=align, disable_numparse=True))
    marks = zip(result.problems, result.fingerprints, strict=True)
    prints = [f"{mark[:16]}  {' '.join(f'{k}={v}' for k, v in of.items()) or choice.name}" for (of, _), mark in marks]
    inside = any(path.is_relative_to(folder) for path, *_ in result.files)
    files = [
        f"{digest[:16]}  {size:>13,}  {path.relative_to(folder) if path.is_relative_to(folder) else path}"
        for path, size, digest in result.files
    ]
    for title, texts in (
        (f"Files{f' below {folder}' * inside} (start of the SHA-256, bytes)", files),
        ("Fingerprints of the problems (equal where images, pairs and splits are)", prints),
        ("Wrong", result.wrong),
        ("Remarks", short_remarks(result)),
    ):
        if texts:
            click.echo(f"\n{title}:")
            some(texts)
    click.echo(f"\n{verdict(result, decoded, lacking)}")


def some(texts: list[str]) -> None:
    """The first lines, and how many there are beside."""
    for text in texts[:LISTED]:
        click.echo(f"  {text}")
    if len(texts) > LISTED:
        click.echo(f"  … and {len(texts) - LISTED} more (--json lists all)")


@contextmanager
def bar(unit: str) -> Iterator[Any]:
    """A progress bar on a terminal: a function told what is done, with how many, of how many."""
    from tqdm import tqdm

    from rankbench.progress import terminal

    if not terminal():
        yield lambda what, done, of: None
        return
    width = shutil.get_terminal_size().columns or 80  # some terminals say 0
    with tqdm(total=0, unit=f" {unit}", leave=False, ncols=width, nrows=20) as shown:

        def advance(what: str, done: int, of: int) -> None:
            if (shown.total, shown.desc) != (of, f"{what}: "):
                shown.reset(of)
                shown.set_description(what)
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

    Interrupted, it resumes. With $RANKBENCH_OFFLINE set (to anything but 0, no or false), no connection is made. FOLDER
    or URL given by --from is looked into for a file's path or name. The dataset's .fetch/report.json says what became
    of each file. NAME may be a benchmark file: all its datasets, and the weights that its rows need, are fetched, and
    one that cannot be had keeps none of the others from it.

    Exit codes, of several datasets the largest: 0 all there, 1 some could not be had or is still missing, 2 nothing of
    it may be downloaded.
    """
    found = opened(data, cache)
    worst = each(choices(found, name, folder, parameters), lambda one: fetch_one(found, one, source, jobs))
    context.exit(max(worst, each(own_files_of(found, name), lambda own: fetch_own(own, source, jobs), "")))


def fetch_one(found: Any, choice: Any, source: str, jobs: int) -> int:
    from rankbench.loading import blaming

    with blaming(found.registry, choice):
        outcomes = fetched(found.dataset(choice), found.folder(choice), source, jobs)
    found.look_again()
    return tell_fetched(f"dataset {choice.label}", outcomes, found.folder(choice), found.missing(choice))


def fetch_own(own: Any, source: str, jobs: int) -> int:
    """The files that a ranker or feature of a benchmark needs beside data: weights, say."""
    worst, folders = 0, own.folders()
    if not folders:
        click.echo(f"{own.label}: all of it is there; nothing to fetch")
    for folder in folders:
        outcomes = fetched(own, folder, source, jobs)
        worst = max(worst, tell_fetched(own.label, outcomes, folder, own.missing(folder)))
    return worst


def fetched(listed: Any, folder: Path, source: str, jobs: int) -> list[Any]:
    """What became of everything that a dataset, or what looks like one, lists."""
    from rankbench.fetch import Fetcher

    with bar("files") as advance:
        shown = Shown(advance)
        return Fetcher(folder, source, jobs, offline(), shown.file, shown.archive).all(listed)


def tell_fetched(label: str, outcomes: Sequence[Any], folder: Path, lacking: Sequence[Any]) -> int:
    """Say what became of it, and give the exit code."""
    from rankbench.fetch import FAILED
    from rankbench.loading import not_found

    named = label.removeprefix("dataset ")
    if not outcomes and lacking:
        gets = dict.fromkeys(need.get for need in lacking)
        raise RankbenchError(f"nothing of {named} may be downloaded. {' '.join(gets)}")
    counts = Counter(outcome.status for outcome in outcomes)
    said = ", ".join(f"{count:,} {status}" for status, count in counts.items())
    click.echo(f"{named}: {said or 'all of it is there; nothing to fetch'}")
    for outcome in outcomes:
        if outcome.sha256 and not outcome.path.startswith("images/"):
            click.echo(f"  {outcome.url}\n    {outcome.size:,} bytes, sha-256 {outcome.sha256}")
    failed = [outcome for outcome in outcomes if outcome.status == FAILED]
    for outcome in failed[:SHOWN]:
        click.echo(f"  {outcome.path}: {outcome.reason}", err=True)
    if len(failed) > SHOWN:
        click.echo(f"  … and {len(failed) - SHOWN} more: {folder / '.fetch' / 'report.json'}", err=True)
    if lacking:
        click.echo(f"Still missing: {not_found(label, lacking)}", err=True)
    return 1 if failed or lacking else 0


def offline() -> bool:
    """Whether $RANKBENCH_OFFLINE forbids connections: set, and to none of the words that say no."""
    return os.environ.get("RANKBENCH_OFFLINE", "").strip().lower() not in ("", "0", "false", "no", "off")


class Shown:
    """What a fetch shows: on a terminal its bar, and beside it how far an archive is; else a line now and then."""

    def __init__(self, advance: Callable[[str, int, int], None]) -> None:
        self.advance, self.said = advance, time.monotonic()
        self.bar, self.done, self.of = sys.stderr.isatty(), 0, 0

    def file(self, outcome: Any, done: int, of: int) -> None:
        """One file has come, or cannot be had."""
        self.done, self.of = done, of
        self.advance("fetched", done, of)
        if not self.bar and done % 500 == 0:
            click.echo(f"{done:,} of {of:,} files", err=True)

    def archive(self, name: str, unit: str, done: int, of: int) -> None:
        """Some of an archive has come, or was unpacked."""
        now = time.monotonic()
        if now - self.said < (0.2 if self.bar else EVERY):
            return
        self.said = now
        if unit == "files":
            text = f"{name}: unpacked {done:,} of {of:,} files"
        else:
            text = f"{name}: {done / 1e6:,.0f}" + (f" of {of / 1e6:,.0f}" if of else "") + " MB"
        if self.bar:
            self.advance(text, self.done, self.of)
        else:
            click.echo(text, err=True)
