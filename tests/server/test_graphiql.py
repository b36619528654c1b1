"""GraphiQL's page and its files, as a browser gets them."""

import json
import re
from collections.abc import AsyncIterator, Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from graphql import GraphQLSchema, build_schema, parse, validate
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from server import graphiql

ROOT = Path(__file__).parents[2]
SDL = ROOT / "schema" / "crew.graphql"
installed = pytest.mark.skipif(not graphiql.FILES.is_dir(), reason="GraphiQL is not installed: make setup")


class Page(HTMLParser):
    """What the page loads, and its examples as (document, variables)."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.inline = 0
        self.examples: list[tuple[str, dict[str, object]]] = []
        self._variables: dict[str, object] | None = None
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.loads += [url for name in ("src", "href") if (url := given.get(name)) and not url.startswith("data:")]
        if given.get("type") == "application/graphql":
            self._variables = json.loads(given.get("data-variables") or "{}")
        elif (tag == "script" and "src" not in given) or tag == "style":
            self.inline += 1

    def handle_data(self, data: str) -> None:
        if self._variables is not None:
            self.examples.append((data, self._variables))
            self._variables = None


async def answer(request: Request) -> Response:
    return graphiql.response()


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    app = Starlette(routes=[Route("/graphql", answer), *graphiql.routes()])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://crew.test") as client:
        yield client


@pytest.fixture
def source() -> Page:
    return Page((ROOT / "graphiql" / "index.html").read_text(encoding="utf-8"))


@pytest.fixture
def nothing_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(graphiql, "FILES", tmp_path / "missing")
    graphiql.page.cache_clear()
    yield
    graphiql.page.cache_clear()


@installed
async def test_a_browser_gets_the_page(client: httpx.AsyncClient) -> None:
    response = await client.get("/graphql")
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert "<title>Crew · GraphiQL</title>" in response.text
    assert response.text == graphiql.page()


@installed
async def test_every_file_the_page_loads_is_served(client: httpx.AsyncClient) -> None:
    page = Page((await client.get("/graphql")).text)
    assert [Path(url).name for url in page.loads] == [
        "graphiql.css", "page.css", "react.js", "react-dom.js", "graphql-ws.js", "graphiql.js", "page.js",
    ]  # fmt: skip
    for url in page.loads:
        response = await client.get(url)
        assert (url, response.status_code) == (url, 200)
        kind = "css" if url.endswith(".css") else "javascript"
        assert response.headers["content-type"] == f"text/{kind}; charset=utf-8"


@installed
async def test_the_style_sheet_loads_nothing_from_elsewhere(client: httpx.AsyncClient) -> None:
    css = (await client.get("/graphql/static/graphiql.css")).text
    assert "@import" not in css
    assert [url for url in re.findall(r"url\(\s*[\"']?([^\"')]*)", css) if not url.startswith("data:")] == []


def test_the_page_refers_to_no_other_host(source: Page) -> None:
    assert source.loads
    for url in source.loads:
        parts = urlsplit(url)
        assert (parts.scheme, parts.netloc) == ("", "")
        assert parts.path.startswith(graphiql.STATIC_PATH + "/")


def test_the_page_has_no_inline_script_and_may_run_none(source: Page) -> None:
    assert source.inline == 0
    policy = graphiql.HEADERS["content-security-policy"]
    assert "default-src 'self';" in policy
    for word in ("script-src", "connect-src", "unsafe", "*", "//"):
        assert word not in policy


async def test_without_its_files_the_page_names_the_command_that_installs_them(nothing_installed: None) -> None:
    assert graphiql.page() is None
    assert graphiql.routes() == []
    response = graphiql.response()
    assert response.status_code == 200
    assert b"make setup" in response.body


def test_the_examples_are_named_operations(source: Page) -> None:
    names = [parse(document).definitions[0].name.value for document, _ in source.examples]  # type: ignore[attr-defined]
    assert names == ["CreateCampaign", "ClaimTasks", "CompleteTasks", "WatchTasks", "Progress"]


def test_the_examples_are_valid_against_the_schema(source: Page) -> None:
    if not SDL.is_file():
        pytest.skip(f"{SDL.relative_to(ROOT)} is not there yet")
    schema: GraphQLSchema = build_schema(SDL.read_text(encoding="utf-8"))
    for document, variables in source.examples:
        parsed = parse(document)
        assert validate(schema, parsed) == []
        operation = parsed.definitions[0]
        assert {v.variable.name.value for v in operation.variable_definitions or ()} == set(variables)  # type: ignore[attr-defined]


@pytest.mark.parametrize("folder", ["graphiql", "tests/audits", "tests/clients"])
def test_a_package_lock_names_versions_and_hashes_but_no_address(folder: str) -> None:
    text = (ROOT / folder / "package-lock.json").read_text(encoding="utf-8")
    assert "://" not in text
    packages = json.loads(text)["packages"]
    assert all("integrity" in package and "resolved" not in package for name, package in packages.items() if name)
