"""Chromium without a window, driven by tests; small waits that look again and again until something is so."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from harness.wait import wait_for

PATIENCE = 20.0


class Browser:
    """A browser of its own, with an empty profile below ``work``."""

    def __init__(self, work: Path) -> None:
        options = Options()
        options.binary_location = "/usr/bin/chromium"
        for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--lang=en-US",
                         "--window-size=1280,800", "--hide-scrollbars", f"--user-data-dir={work}"):  # fmt: skip
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
        self.driver.set_page_load_timeout(60)

    def close(self) -> None:
        """End it."""
        self.driver.quit()

    def open(self, url: str) -> None:
        """Load a page; one that differs in its fragment only is not loaded again."""
        self.driver.get(url)

    def until(self, condition: Callable[[], Any], what: str) -> Any:
        """Wait until something is so; a page that is being drawn anew just then is looked at again."""
        return wait_for(condition, PATIENCE, what, interval=0.05, ignore=(WebDriverException, AssertionError))

    def all(self, css: str, text: str | None = None) -> list[WebElement]:
        """Return the visible elements of a selector, with a text if one is given."""
        found = self.driver.find_elements(By.CSS_SELECTOR, css)
        return [item for item in found if item.is_displayed() and (text is None or text == item.text.strip())]

    def one(self, css: str, text: str | None = None) -> WebElement:
        """Wait for a visible element and return the first."""
        found: WebElement = self.until(lambda: self.all(css, text)[0:1], f"{css} {text or ''} is shown")[0]
        return found

    def click(self, css: str, text: str | None = None) -> None:
        """Click an element once it is there."""

        def clicked() -> bool:
            self.all(css, text)[0].click()
            return True

        wait_for(clicked, PATIENCE, f"{css} {text or ''} can be clicked", interval=0.05,
                 ignore=(WebDriverException, IndexError))  # fmt: skip

    def type(self, css: str, text: str) -> None:
        """Write into a field, in place of what it holds."""
        field = self.one(css)
        field.clear()
        field.send_keys(text)

    def says(self, text: str, css: str = "main") -> None:
        """Wait until a part of the page shows a text."""
        self.until(lambda: text in self.driver.find_element(By.CSS_SELECTOR, css).text, f"{css} says {text!r}")

    def row(self, name: str) -> WebElement:
        """Wait for the row of a table whose head cell shows a name."""

        def found() -> WebElement | None:
            for row in self.driver.find_elements(By.CSS_SELECTOR, "main tbody tr"):
                heads = row.find_elements(By.CSS_SELECTOR, "th")
                if heads and heads[0].text.replace("▸", "").replace("▾", "").strip() == name:
                    return row
            return None

        result: WebElement = self.until(found, f"a row of {name}")
        return result

    def press(self, name: str, button: str) -> None:
        """Press a button in the row of a name."""

        def pressed() -> bool:
            for item in self.row(name).find_elements(By.CSS_SELECTOR, "button"):
                if item.text.strip() == button or item.get_attribute("aria-label") == button:
                    item.click()
                    return True
            return False

        self.until(pressed, f"{button} of {name}")

    def shot(self, path: Path, dark: bool = False) -> None:
        """Take a picture of the window, light or dark."""
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
        self.driver.execute_script("document.getElementById('notices')?.replaceChildren()")
        self.driver.save_screenshot(str(path))

    def overflows(self) -> bool:
        """Tell whether the page is wider than the window."""
        return bool(self.driver.execute_script("return document.documentElement.scrollWidth > innerWidth"))

    def complaints(self) -> list[str]:
        """Return what the console said of scripts that failed or were blocked, and forget it."""
        said = [str(entry["message"]) for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]
        # A request that is answered with an error is told there, too; that is shown on the page. What the dashboard's
        # own pages complain of is theirs.
        foreign = re.compile(r"https?://[^/ ]+/(?!vdisk)\S*\s|.*Failed to load resource")
        return [text for text in said if not foreign.match(text)]
