"""The command `tuner`: options that all commands share, errors and exit codes."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

import click

from tuner import __version__
from tuner.cli import check, compare, comparison, dashboard, data, db, launch, schema, study, trial, worker
from tuner.cli.context import Context
from tuner.errors import TunerError

COMMANDS: dict[str, click.Command] = {  # in the order of the help
    "check": check.command,
    "launch": launch.command,
    "compare": compare.command,
    "dashboard": dashboard.command,
    "study": study.command,
    "trial": trial.command,
    "comparison": comparison.command,
    "worker": worker.command,
    "data": data.command,
    "db": db.command,
    "schema": schema.command,
}

ENVIRONMENT = {
    "TUNER_DATABASE_URL": "A PostgreSQL server to use instead of the embedded one.",
    "TUNER_HOME": "Folder of the embedded server, prepared data, checkpoints and logs.",
    "TUNER_LEASE_SECONDS": "A worker that was silent for so long loses its trials.  [default: 30]",
    "TUNER_HEARTBEAT_SECONDS": "Time between two signs of life of a worker.  [default: 5]",
    "TUNER_ARTIFACTS": "Folder of checkpoints and logs that all workers share, or a URL: s3://bucket/prefix.",
    "TUNER_DATA": "Folder of ready data sets, looked at before the network.",
    "TUNER_DATA_MEMORY_MB": "Larger parts of data sets are streamed from disk.  [default: half of the memory]",
    "PGPASSFILE, PGPASSWORD": "The server's password, as for every PostgreSQL client.",
}

INTERRUPTED = 130


class Tuner(click.Group):
    """Lists commands in their own order, and ends the help with exit codes and the environment."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Environment"):
            formatter.write_dl(list(ENVIRONMENT.items()))
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(code), meaning) for code, meaning in exit_codes()])


def exit_codes() -> Iterator[tuple[int, str]]:
    """Every exit code with its meaning, taken from the error classes that carry them."""
    yield 0, "Done."
    errors: list[type[TunerError]] = [TunerError, *TunerError.__subclasses__()]
    for error in errors:
        if "exit_code" in vars(error):  # of its own: others never leave the package that raises them
            yield error.exit_code, (error.__doc__ or error.__name__).partition("\n")[0]
    yield INTERRUPTED, "Interrupted (Ctrl-C)."


@click.command(cls=Tuner, name="tuner", commands=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-q", "--quiet", is_flag=True, help="Print results and errors only.")
@click.option("-v", "--verbose", is_flag=True, help="Let workers log every epoch as well.")
@click.option(
    "--database",
    metavar="URL",
    help="PostgreSQL to use, without a password in it. Default: $TUNER_DATABASE_URL, else an embedded server.",
)
@click.version_option(__version__, "--version", prog_name="tuner", message="%(prog)s %(version)s")
@click.pass_context
def tuner(ctx: click.Context, quiet: bool, verbose: bool, database: str | None) -> None:
    """Hyperparameter tuning for PyTorch: studies in PostgreSQL, workers anywhere, trials that survive.

    Begin with:  tuner launch search_spaces/digits_cnn.yaml
    """
    from tuner.settings import read_settings

    ctx.obj = Context(settings=read_settings(), quiet=quiet, verbose=verbose, database=database)


def run(arguments: Sequence[str]) -> int:
    """Runs one command line and returns its exit code; only bugs escape as exceptions."""
    try:
        code = tuner.main(args=list(arguments), prog_name="tuner", standalone_mode=False)
    except TunerError as error:
        for line in str(error).splitlines():
            click.echo(f"tuner: {line}", err=True)
        return error.exit_code
    except click.ClickException as error:  # a usage error: click prints it with the command's usage line
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    return code if isinstance(code, int) else 0


def main() -> None:
    """The console script."""
    sys.exit(run(sys.argv[1:]))
