"""A real Chromium without a window."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from cli.report.material import Material
from cli.report.page import render
from setup.test_tools import AXE_SCRIPT

CHROMIUM = shutil.which("chromium")
PHONE = (390, 844)
DESK = (1200, 900)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("needs Debian's chromium: python3 -m setup.test_tools installs it as root")
    # Root may not have the sandbox; what is shown was made here.
    flags = ["--disable-gpu", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield found
        found.close()


class Shown:
    """Opens pages, and notes what they ask for and what they complain of."""

    def __init__(self, browser: Browser, folder: Path) -> None:
        self.browser = browser
        self.folder = folder
        self.asked: list[str] = []
        self.said: list[str] = []

    def open(
        self,
        what: Material | str,
        size: tuple[int, int] = DESK,
        scheme: Literal["light", "dark"] = "light",
        *,
        scripts: bool = True,
    ) -> Page:
        """A material's page from a file, or an address."""
        context = self.browser.new_context(
            viewport={"width": size[0], "height": size[1]},
            color_scheme=scheme,
            java_script_enabled=scripts,
        )
        page = context.new_page()
        page.on("request", lambda request: self.asked.append(request.url))
        page.on("console", lambda message: self.said.append(message.text))
        page.on("pageerror", lambda error: self.said.append(str(error)))
        if isinstance(what, Material):
            path = self.folder / "report.html"
            path.write_text(render(what))
            what = path.as_uri()
        page.goto(what)
        return page

    def complaints(self, page: Page) -> list[dict[str, Any]]:
        """What the checker of accessibility finds, each with the elements."""
        if not AXE_SCRIPT.exists():
            pytest.skip("needs axe: python3 -m setup.test_tools fetches it")
        page.evaluate(AXE_SCRIPT.read_text())
        found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        return [
            {"rule": v["id"], "where": [n["target"] for n in v["nodes"]][:4], "why": v["help"]}
            for v in found["violations"]
        ]


@pytest.fixture
def shown(browser: Browser, tmp_path: Path) -> Iterator[Shown]:
    found = Shown(browser, tmp_path)
    yield found
    for context in browser.contexts:
        context.close()
