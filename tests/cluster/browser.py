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
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from harness.wait import wait_for

PATIENCE = 20.0

# Texts of what is lit too little (WCAG 2.2 AA: 4.5 to 1, large texts 3 to 1), each with its ratio.
_DIM = """
const numbers = (colour) => colour.match(/[0-9.]+/g).map(Number);
const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
  .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
  .reduce((sum, v, at) => sum + v * [0.2126, 0.7152, 0.0722][at], 0);
const ground = (element) => {
  for (let at = element; at; at = at.parentElement) {
    const colour = numbers(getComputedStyle(at).backgroundColor);
    if (colour.length < 4 || colour[3] > 0) return colour;
  }
  return [255, 255, 255];
};
const dim = [];
for (const element of document.body.querySelectorAll("*")) {
  const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
  if (!own || !element.checkVisibility() || element.closest(":disabled, option, .unseen")) continue;
  const style = getComputedStyle(element);
  const [one, other] = [light(numbers(style.color)), light(ground(element))].sort((a, b) => b - a);
  const ratio = (one + 0.05) / (other + 0.05);
  const large = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.66 && style.fontWeight >= 700);
  if (ratio < (large ? 3 : 4.5)) dim.push(`${ratio.toFixed(2)} ${element.tagName}.${element.className}: ${element.textContent.trim()}`);
}
return dim;
"""  # noqa: E501

# The element that has the focus: what it is, and whether one sees that it has it.
_FOCUSED = """
const element = document.activeElement;
const style = getComputedStyle(element);
const ringed = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2;
return [element === document.body ? null : element.outerHTML.slice(0, 120), ringed];
"""
_STOPS = """
const all = "a[href], button:not(:disabled), input, select, summary, [tabindex='0']";
return [...document.querySelectorAll(all)].filter((element) => element.checkVisibility()).map((element) => element.outerHTML.slice(0, 120));
"""  # noqa: E501


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

    def sign_in(self, user: str, password: str) -> None:
        """Sign in with the form of the dashboard, which is open."""
        self.type("input[name=username]", user)
        self.type("input[name=password]", password)
        self.click("input[type=submit], button[type=submit]")
        self.until(lambda: "#/login" not in self.driver.current_url, "the dashboard lets one in")

    def submit(self, button: str, **fields: str) -> None:
        """Fill in the form of the dialog and send it; returns when it is closed."""
        for name, value in fields.items():
            self.type(f"dialog [name={name}]", value)
        self.click("dialog button[type=submit]", button)
        self.until(lambda: not self.all("dialog"), f"the dialog closes after {button}")

    def key(self, key: str) -> None:
        """Press a key where the focus is."""
        self.driver.switch_to.active_element.send_keys(key)

    def walk(self) -> tuple[list[str], list[str], list[str]]:
        """Go through the page with the tabulator: what had the focus, what had it unseen, what should have had it."""
        wanted: list[str] = self.driver.execute_script(_STOPS)
        met, unseen = [], []
        for _ in wanted:
            self.key(Keys.TAB)
            element, ringed = self.driver.execute_script(_FOCUSED)
            met.append(element)
            if not ringed:
                unseen.append(element)
        return met, unseen, wanted

    def scheme(self, dark: bool) -> None:
        """Have the system ask for light or dark pages."""
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})

    def dim(self) -> list[str]:
        """Return the texts that one can hardly read, light or dark."""
        found = []
        for dark in (True, False):
            self.scheme(dark)
            found += [f"{'dark' if dark else 'light'}: {text}" for text in self.driver.execute_script(_DIM)]
        return found

    def shot(self, path: Path, dark: bool = False) -> None:
        """Take a picture of the window, light or dark."""
        self.scheme(dark)
        self.driver.execute_script("document.getElementById('notices')?.replaceChildren()")
        self.driver.save_screenshot(str(path))
        self.scheme(False)

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
