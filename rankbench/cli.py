"""Arguments in, exit code out; no logic of its own. Heavy imports wait until a command needs them."""

from __future__ import annotations

import errno
import json
import os
import sys
import threading
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rankbench.cli_data import data as data_commands
from rankbench.cli_data import warn
from rankbench.ending import PROGRAM
from rankbench.errors import RankbenchError, StoreError, did_you_mean
from rankbench.visible import visible

if TYPE_CHECKING:
    from rankbench.findings import Finding

KINDS = ("datasets", "rankers", "metrics", "features")
INTERRUPTED = 130


class Cli(click.Group):
    """Prints what rankbench says on purpose without a traceback, and keeps the exit codes."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """As a program: SIGTERM ends it at every moment, and nothing that a plugin left running holds it up."""
        if threading.current_thread() is threading.main_thread():
            PROGRAM.begin()
        try:
            return super().__call__(*args, **kwargs)
        except BaseException as end:
            code = end.code if isinstance(end, SystemExit) else 1
            PROGRAM.lasting(code if isinstance(code, int) else int(code is not None))
            raise

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except RankbenchError as error:
            click.echo(visible(f"Error: {error}"), err=True)
            context.exit(1 if isinstance(error, StoreError) else 2)  # a full disk is nobody's wrong use
        except KeyboardInterrupt:
            click.echo("Interrupted. What was finished is stored; the same command goes on from there.", err=True)
            context.exit(INTERRUPTED)
        except BrokenPipeError:  # the reader of our output has gone (`| head`)
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            context.exit(0)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EIO) or error.filename is not None:
                raise
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            click.echo(f"Error: the output cannot be written ({error.strerror}). What was stored is whole.", err=True)
            context.exit(1)


def where(command: Any) -> Any:
    """Options of every command that looks at data, results and the cache."""
    for option in (
        click.option("--cache", type=click.Path(path_type=Path), help="Cache folder [$RANKBENCH_CACHE or ./cache]."),
        click.option(
            "--results",
            type=click.Path(path_type=Path),
            default=Path("results"),
            show_default=True,
            help="Results folder; what is stored there is not computed again.",
        ),
        click.option("--data", type=click.Path(path_type=Path), help="Data root [$RANKBENCH_DATA or ./data]."),
    ):
        command = option(command)
    return command


form_option = click.option(
    "--format",
    "form",
    default="text",
    show_default=True,
    type=click.Choice(["text", "markdown", "latex", "html", "csv", "json"]),
    help="How the table is printed.",
)


@click.group(cls=Cli, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="rankbench")
def main() -> None:
    """Benchmark pairwise attribute ranking of images.

    `rankbench run FILE` fits what is not stored yet and prints the table; without FILE it runs the quick start.
    """


@main.command()
@click.argument("file", type=click.Path(path_type=Path), required=False)
@where
@click.option("--only", default="*", metavar="GLOB", help="Fit only rows whose label matches; the table shows all.")
@click.option("--jobs", type=click.IntRange(1), help="CPU threads to use at once [all cores].")
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where cells that ask for a GPU run.",
)
@click.option("--rerun", type=click.Choice(["stale", "all"]), help="Compute stored cells again.")
@click.option("--accept-stale", is_flag=True, help="Record that an edit of a plugin leaves its stored results valid.")
@click.option("--no-retry", is_flag=True, help="Leave failed cells as they are.")
@click.option("--strict-data", is_flag=True, help="Fail a cell rather than drop an unreadable image.")
@click.option("--dry-run", is_flag=True, help="Print the plan and stop.")
@form_option
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@click.pass_context
def run(context: click.Context, /, file: Path | None, dry_run: bool, form: str, as_json: bool, **options: Any) -> None:
    """Fit what is not stored yet and print the table.

    FILE is a benchmark; without it the quick start runs.

    Exit codes: 0 all good or not applicable, 1 some failed, 2 wrong usage or an invalid file, 3 data is missing,
    130 interrupted, 143 terminated.
    """
    from rankbench.api import Result
    from rankbench.benchmark import Benchmark
    from rankbench.offspring import adopt
    from rankbench.runner import Options, Runner

    adopt()
    options["retry"] = not options.pop("no_retry")
    options["rerun"] = options["rerun"] or ""
    benchmark = Benchmark.read(file or quickstart())
    runner = Runner(Options(**options))
    warn(runner.registry)
    if dry_run:
        plan = runner.plan(benchmark)
        print_plan(Result(runner, plan), as_json or form == "json")
        return
    result = Result(runner, runner.run(benchmark))
    print_result(result, "json" if as_json else form)
    context.exit(result.exit_code)


def quickstart() -> Path:
    """The embedded benchmark: beside this package when installed, in the checkout otherwise."""
    here = Path(__file__).parent
    packaged = here / "quickstart.toml"
    return packaged if packaged.exists() else here.parent / "benchmarks" / "quickstart.toml"


def print_plan(result: Any, as_json: bool) -> None:
    cells = result.cells
    if as_json:
        rows = [
            {
                "row": c.row,
                **c.description,
                "key": c.key,
                "status": c.status,
                "reason": c.reason,
                "threads": c.threads,
                "gpu": c.gpu,
            }
            for c in cells
        ]
        click.echo(json.dumps({"benchmark": result.plan.benchmark.name, "cells": rows}, indent=1))
        return
    click.echo(f"{visible(result.plan.benchmark.title)}: {counted(len(cells), 'cell')}{which(result)}")
    for status in ("to do", "done", "not applicable", "failed", "stale", "missing data"):
        some = [cell for cell in cells if cell.status == status]
        if some:
            click.echo(f"  {status:<15}{len(some):>5}")
            if status in ("to do", "stale"):
                for cell in some[:20]:
                    click.echo(visible(f"    {cell.title}"))
                if len(some) > 20:
                    click.echo(f"    … and {len(some) - 20} more (--json lists all)")
    print_causes(result, err=False)


def print_result(result: Any, form: str) -> None:
    from rankbench.progress import terminal
    from rankbench.render import render

    click.echo(render(result.drawn(), form, terminal(sys.stdout)), nl=False)
    cells = result.cells
    counts = Counter(cell.status for cell in cells)
    if result.plan.accepted:
        click.echo(f"{counted(result.plan.accepted, 'stored cell')} accepted.", err=True)
    click.echo(
        f"Cells{which(result)}: {', '.join(f'{count} {status}' for status, count in counts.items())}; "
        f"{result.plan.fitted} fitted in this run.",
        err=True,
    )
    print_causes(result, err=True)


def which(result: Any) -> str:
    """Which rows a count is about, where not all."""
    only = result.runner.options.only
    return "" if only == "*" else f" of rows that match {only!r}"


def print_causes(result: Any, err: bool) -> None:
    """What went wrong, each cause once."""
    from rankbench.reasons import failures, lacking

    cells = result.cells
    causes = failures(cells, result.runner.store)
    for whose, reason in causes[:10]:
        click.echo(visible(f"Failed{whose}: " + reason.replace("\n", "\n  ")), err=err)
    if len(causes) > 10:
        click.echo(f"… and {len(causes) - 10} more causes; `--dry-run --json` lists every cell.", err=err)
    for reason in lacking(cells):
        click.echo(visible(f"Missing data: {reason}"), err=err)


def counted(number: int, noun: str) -> str:
    """`1 cell`, `2 cells`."""
    return f"{number} {noun}" + ("" if number == 1 else "s")


@main.command()
@click.argument("file", type=click.Path(path_type=Path), required=False)
@where
@form_option
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@click.pass_context
def table(
    context: click.Context,
    /,
    file: Path | None,
    results: Path,
    cache: Path | None,
    form: str,
    as_json: bool,
    **_others: Any,
) -> None:
    """Draw tables from stored results.

    Without FILE: the table of every benchmark ever run into them.
    """
    from rankbench.benchmark import Benchmark
    from rankbench.plan import default_cache
    from rankbench.progress import terminal
    from rankbench.registry import Registry
    from rankbench.render import render, render_all
    from rankbench.store import ResultStore
    from rankbench.table import Drawer

    registry = Registry.installed()
    warn(registry)
    drawer = Drawer(registry, ResultStore(results), cache or default_cache())
    if file is None:
        drawn = list(drawer.every())
    else:
        benchmark = Benchmark.read(file)
        if drawer.store.plan(benchmark.name) is None:
            click.echo(f"Note: {results} holds no run of {file}; `rankbench run {file}` makes one.", err=True)
        drawn = [drawer.draw(benchmark)]
    if not drawn:
        raise RankbenchError(
            f"{results}: holds no results yet. `rankbench run FILE` makes some; --results DIR looks elsewhere."
        )
    tables = [one for one in drawn if not isinstance(one, RankbenchError)]
    form = "json" if as_json else form
    wide = terminal(sys.stdout)
    click.echo(render_all(tables, form, wide) if file is None else render(tables[0], form, wide), nl=False)
    for one in drawn:
        if isinstance(one, RankbenchError):
            click.echo(visible(f"Error: {one}"), err=True)
    context.exit(2 if any(isinstance(one, RankbenchError) for one in drawn) else 0)


@main.command(name="list")
@click.argument("kind", type=click.Choice(KINDS))
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_plugins(kind: str, name: str | None, as_json: bool) -> None:
    """List plugins of a kind; with NAME, its parameters.

    KIND is datasets, rankers, metrics or features. With NAME: what that plugin does, and each of its parameters
    with type and default.
    """
    from rankbench.registry import Registry

    registry = Registry.installed()
    warn(registry)
    if name is not None:
        print_plugin(registry.find(kind, name), as_json)
        return
    plugins = [registry.find(kind, name) for name in registry.names(kind)]
    if as_json:
        rows = [{"name": p.name, "package": p.distribution, "summary": p.summary} for p in plugins]
        click.echo(json.dumps(rows, indent=1))
        return
    width = max((len(plugin.name) for plugin in plugins), default=0)
    for plugin in plugins:
        package = "" if plugin.distribution == "rankbench" else f"[{plugin.distribution}]"
        click.echo(f"{plugin.name:<{width}}  {' '.join(filter(None, [plugin.summary, package]))}".rstrip())


def print_plugin(plugin: Any, as_json: bool) -> None:
    """One plugin: its docstring and its parameters."""
    from rankbench.registry import description, parameters_of

    cls = plugin.load()
    text, parameters = description(cls), parameters_of(cls)
    if as_json:
        about = {"name": plugin.name, "package": plugin.distribution, "description": text}
        click.echo(json.dumps({**about, "parameters": [asdict(one) for one in parameters]}, indent=1))
        return
    click.echo(f"{plugin.kind[:-1]} {plugin.name} [{plugin.distribution}]\n")
    if text:
        click.echo(f"{text}\n")
    if not parameters:
        click.echo("It has no parameters of its own.")
        return
    rows = [("Parameter", "Type", "Default"), *((one.name, one.type, one.shown) for one in parameters)]
    name, kind = (max(len(row[at]) for row in rows) for at in (0, 1))
    for row in rows:
        click.echo(f"{row[0]:<{name}}  {row[1]:<{kind}}  {row[2]}")
    if plugin.kind == "datasets":
        click.echo(
            "\nBesides, `folder` says where a dataset lies below the data root, by default in a folder of its name."
        )


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def plugins(context: click.Context, /, as_json: bool) -> None:
    """List plugin packages, the broken ones too.

    Exit code 1 if one is not usable.
    """
    from rankbench.registry import Registry

    registry = Registry.installed()
    packages: dict[str, list[str]] = {}
    for plugin in registry.plugins.values():
        label = f"{plugin.distribution} {plugin.distribution_version}".strip()
        packages.setdefault(label, []).append(f"{plugin.kind[:-1]} {plugin.name}")
    if as_json:
        unusable = [
            {"package": b.distribution, "entry_point": b.entry_point, "message": b.message} for b in registry.broken
        ]
        click.echo(json.dumps({"packages": packages, "broken": unusable}, indent=1))
        context.exit(1 if registry.broken else 0)
    for label, names in sorted(packages.items()):
        click.echo(f"{label}\n  " + "\n  ".join(sorted(names)))
    for broken in registry.broken:
        click.echo(f"{broken.distribution}, entry point {broken.entry_point!r}: NOT USABLE: {broken.message}")
        if broken.details:
            click.echo(visible("    " + broken.details.strip().replace("\n", "\n    ")))
    context.exit(1 if registry.broken else 0)


@main.command()
@click.argument("file", type=click.Path(path_type=Path))
@where
@click.option("--only", default="*", metavar="GLOB", help="Each cell of the rows whose label matches.")
@click.option("--all", "every", is_flag=True, help="Each cell of all rows.")
@click.option("--json", "as_json", is_flag=True, help="Print each cell as JSON.")
def why(file: Path, every: bool, as_json: bool, **options: Any) -> None:
    """Count cells by why they are stored, stale, failed or to do.

    With --only or --all: that of each cell; of a failed one, the file with its traceback and what its plugin printed;
    of one to do, which part of its key differs from the nearest stored cell.
    """
    from rankbench.benchmark import Benchmark
    from rankbench.reasons import reasons, summary
    from rankbench.runner import Options, Runner

    runner = Runner(Options(**options))
    warn(runner.registry)
    plan = runner.plan(Benchmark.read(file))
    cells = runner.selected(plan)
    if as_json:
        found = reasons(runner.planner, cells)
        click.echo(
            json.dumps(
                [{"cell": c.title, "key": c.key, "status": c.status, "why": text} for c, text in found], indent=1
            )
        )
        return
    click.echo(visible("\n".join(summary(runner.planner, cells))))
    if every or options["only"] != "*":
        for cell, text in reasons(runner.planner, cells):
            click.echo(visible(f"{cell.title}: {cell.status}\n    " + text.replace("\n", "\n    ")))
    else:
        click.echo("`--only GLOB` tells more of each cell of the rows that match, `--all` of every cell.")


def end_with(found: list[Finding]) -> None:
    """A plugin hangs where nothing can interrupt it: say so, and end this process."""
    for finding in found:
        click.echo(finding.line)
    sys.stdout.flush()
    os._exit(1)


@main.command(name="check-plugin")
@click.argument("name")
@where
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    default=120.0,
    show_default=True,
    help="Seconds that each requirement may take.",
)
@click.pass_context
def check_plugin(context: click.Context, /, name: str, data: Path | None, timeout: float, **_others: Any) -> None:
    """Run the conformance kit on a plugin.

    NAME is the name of an installed plugin, or KIND/NAME where two kinds share it. A plugin that ends its process ends
    this command too. Exit code 1 if a check fails, 3 if nothing could be checked.
    """
    from rankbench.registry import Registry
    from rankbench.runner import Options
    from rankbench.testing import check

    registry = Registry.installed()
    kind, _, bare = name.rpartition("/")
    found = [of for of in KINDS if (not kind or of == kind) and (of, bare) in registry.plugins]
    if not found:
        known = sorted({other for _, other in registry.plugins})
        raise RankbenchError(f"no plugin named {name!r}.{did_you_mean(bare, known)} `rankbench plugins` lists them.")
    marks: Counter[str] = Counter()
    for of in found:
        click.echo(f"{of[:-1]} {bare}")
        root = Options(data=data).data_root
        for outcome in check(of, bare, registry=registry, data=root, timeout=timeout, hang=end_with):
            click.echo(outcome.line)
            marks[outcome.mark] += 1
    click.echo(f"{marks['ok']} ok, {marks['FAILED']} failed" + (f", {marks['--']} left out" if marks["--"] else ""))
    context.exit(1 if marks["FAILED"] else 0 if marks["ok"] else 3)


main.add_command(data_commands)


if __name__ == "__main__":
    main()
