"""GraphiQL's page, served by us alone: what graphiql/install.py put into server/static/graphiql/."""

from functools import cache
from pathlib import Path

from starlette.responses import HTMLResponse
from starlette.routing import BaseRoute, Mount
from starlette.staticfiles import StaticFiles

FILES = Path(__file__).parent / "static" / "graphiql"
STATIC_PATH = "/graphql/static"

NOT_INSTALLED = """<!doctype html>
<html lang="en">
  <meta charset="utf-8">
  <title>Crew · GraphiQL</title>
  <p>GraphiQL is not installed here. Run <code>make setup</code>, then start the server again.</p>
  <p>The API itself is up: send GraphQL by POST to this address.</p>
</html>
"""

# The hash is of the one style that GraphiQL puts into the page (its dialogs stop the page from scrolling); its style sheet
# carries its font and images.
HEADERS = {
    "content-security-policy": (
        "default-src 'self'; style-src 'self' 'sha256-nzTgYzXYDNe6BAHiiI7NNlfK8n/auuOAhh2t92YvuXo='; "
        "img-src 'self' data:; font-src 'self' data:; "
        "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "cache-control": "no-cache",
    "vary": "accept",
}


@cache
def page() -> str | None:
    """The page, or None where `make setup` has not installed it."""
    try:
        return (FILES / "index.html").read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


def response() -> HTMLResponse:
    """What a browser gets at GET /graphql."""
    return HTMLResponse(page() or NOT_INSTALLED, headers=HEADERS)


def routes() -> list[BaseRoute]:
    """The files that the page loads, under /graphql/static; none where they are not installed."""
    if not FILES.is_dir():
        return []
    return [Mount(STATIC_PATH, StaticFiles(directory=FILES), name="graphiql")]
