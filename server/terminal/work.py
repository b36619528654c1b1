"""`crew work`: the command of the Python SDK, which is a distribution of its own."""

from __future__ import annotations

import typer

CONTEXT = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


def work(context: typer.Context) -> None:
    """Run the worker of a Python module: `crew work module:crew`; see `crew work --help`."""
    try:
        from crew_worker.command import main
    except ImportError:
        typer.echo("crew: `crew work` needs the package crew-worker: pip install sdk/python", err=True)
        raise typer.Exit(1) from None
    main(context.args)
