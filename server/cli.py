"""The `crew` command."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import httpx
import typer

from server import keys
from server.settings import Settings
from server.terminal import lists, steer, watch, work

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_show_locals=False, help="Crew: a task server."
)

_START_SECONDS = 90.0


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on [CREW_HOST; 127.0.0.1].")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on [CREW_PORT; 8000]; 0 picks a free one.")] = None,
    workers: Annotated[int | None, typer.Option(help="Server processes on that port [CREW_WORKERS; 1].")] = None,
) -> None:
    """Run the server until SIGTERM. Without DATABASE_URL it runs its own PostgreSQL in CREW_DATA_DIR."""
    from server.logs import configure
    from server.serve import serve as run

    settings = _settings(host, port, workers)
    configure(settings)
    try:
        run(settings)
    except (OSError, RuntimeError) as error:
        _fail(str(error))


@app.command("serve-worker", hidden=True)
def serve_worker(descriptor: int, parent: int) -> None:
    """One of the processes of `serve --workers`."""
    from server.logs import configure
    from server.serve import serve_worker as run

    settings = _settings()
    configure(settings)
    run(settings, descriptor, parent)


@app.command()
def migrate() -> None:
    """Bring the database up to date, and say what was applied."""
    from db.migrate import migrate as run
    from server.serve import database

    try:
        settings = _settings()
        with database(settings) as (dsn, _):
            applied = asyncio.run(run(settings.database_direct_url or dsn))
    except (OSError, RuntimeError) as error:
        _fail(str(error))
    typer.echo("\n".join(f"applied {name}" for name in applied) or "nothing to apply")


@app.command()
def demo(
    plain: Annotated[bool, typer.Option("--plain", help="One line a change, for logs and CI.")] = False,
    seed: Annotated[int, typer.Option(help="Decides which calls of the ads API fail.")] = 7,
) -> None:
    """Two ad campaigns, end to end: a server and a database of their own, flaky ads API, workers, live picture."""
    from server.demo.run import run_demo

    with tempfile.TemporaryDirectory(prefix="crew-demo-") as home:
        os.chmod(home, 0o755)
        port = _free_port()
        url = f"http://127.0.0.1:{port}"
        environment = {k: v for k, v in os.environ.items() if k != "DATABASE_URL" and not k.startswith("CREW_")}
        environment["CREW_DATA_DIR"] = str(Path(home, "crew"))
        command = [sys.executable, "-m", "server.cli", "serve", "--port", str(port)]
        log = Path(home, "server.log")
        with log.open("wb") as out:
            server = subprocess.Popen(command, env=environment, stdout=out, stderr=out, start_new_session=True)
        try:
            _wait_until_up(url, server, log)
            asyncio.run(run_demo(url, plain=plain, seed=seed))
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
        finally:
            server.send_signal(signal.SIGTERM)
            try:
                server.wait(30)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


@app.command()
def schema(write: Annotated[bool, typer.Option("--write", help="Write schema/crew.graphql.")] = False) -> None:
    """Print the GraphQL schema."""
    from schema.root import sdl

    if write:
        Path(__file__).parent.parent.joinpath("schema", "crew.graphql").write_text(sdl())
    else:
        typer.echo(sdl(), nl=False)


app.add_typer(keys.app, name="keys")
for command in (lists.groups, lists.tasks, watch.watch, steer.suspend, steer.resume, steer.retry, steer.cancel):
    app.command(rich_help_panel="A running server")(command)
app.command(rich_help_panel="A running server", context_settings=work.CONTEXT)(work.work)


def _settings(host: str | None = None, port: int | None = None, workers: int | None = None) -> Settings:
    options = {"host": host, "port": port, "workers": workers}
    given = {name: value for name, value in options.items() if value is not None}
    try:
        return Settings(**given)  # type: ignore[arg-type]
    except ValueError as error:
        _fail(str(error))
        raise


def _wait_until_up(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    give_up = time.monotonic() + _START_SECONDS
    while time.monotonic() < give_up and server.poll() is None:
        try:
            if httpx.get(f"{url}/healthz", timeout=2).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.05)
    _fail(f"the server did not start:\n{log.read_text(errors='replace')[-3000:]}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _fail(message: str) -> None:
    typer.echo(f"crew: {message}", err=True)
    raise typer.Exit(1)


def main() -> None:
    app()


if __name__ == "__main__":
    main()
