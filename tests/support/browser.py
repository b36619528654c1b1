"""A headless Chromium that reaches this machine and nothing else."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Page, Playwright, async_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
NOWHERE = "127.0.0.1:9"
"""Nobody listens on the port of `discard`."""


def chromium(playwright: Playwright) -> str:
    """The browser's path. Skips the test where there is none."""
    for found in (*map(shutil.which, NAMES), playwright.chromium.executable_path):
        if found and Path(found).exists():
            return found
    pytest.skip("no Chromium: install the system's package `chromium`, or run `.venv/bin/playwright install chromium`")


@contextlib.asynccontextmanager
async def opened() -> AsyncIterator[tuple[Page, list[str], list[str]]]:
    """A page; the URLs it asks for, however that ends; and what goes wrong in it, as its console tells."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=chromium(playwright),
            # All but this machine's addresses go to a proxy that is not there; no name is looked up.
            args=[f"--proxy-server=http://{NOWHERE}", *(["--no-sandbox"] if os.geteuid() == 0 else [])],
        )
        try:
            page = await browser.new_page()
            page.set_default_timeout(15_000)
            asked: list[str] = []
            wrong: list[str] = []
            page.on("request", lambda request: asked.append(request.url))
            page.on("websocket", lambda socket: asked.append(socket.url))
            page.on("pageerror", lambda error: wrong.append(str(error)))
            page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
            yield page, asked, wrong
        finally:
            await browser.close()
