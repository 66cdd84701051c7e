"""A Chromium that trusts one CA and verifies as it always does, driven by its own driver."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

TIMEOUT = 15.0
"""Seconds that a browser has for what must happen; only a fault comes near it."""

FLAGS = [
    "--headless=new",
    "--no-sandbox",  # root in a container has no sandbox; every page here is ours
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-search-engine-choice-screen",
    "--password-store=basic",
]
TOOLS = ("chromium", "chromedriver", "certutil")


def missing_tools() -> list[str]:
    return [tool for tool in TOOLS if shutil.which(tool) is None]


def trusting_home(directory: Path, ca_file: Path) -> Path:
    """A home directory whose certificate store has this CA, by the command that users are told."""
    store = directory / ".pki" / "nssdb"
    store.mkdir(parents=True)
    database = f"sql:{store}"
    for arguments in (
        ["-N", "--empty-password"],
        ["-A", "-t", "C,,", "-n", "securews-dev", "-i", str(ca_file)],
    ):
        subprocess.run(["certutil", "-d", database, *arguments], check=True, capture_output=True)
    return directory


class Browser:
    """One window with cookies of its own."""

    def __init__(self, home: Path, profile: Path, *, width: int, height: int, dark: bool) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium")
        for flag in [*FLAGS, f"--user-data-dir={profile}", f"--window-size={width},{height}"]:
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        service = Service(shutil.which("chromedriver"), env=os.environ | {"HOME": str(home)})
        self.driver = webdriver.Chrome(options=options, service=service)
        self._console: list[dict] = []
        self._urls: list[str] = []
        self._size = (width, height)
        self._features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self._emulate()

    def _emulate(self) -> None:
        width, height = self._size
        metrics = {"width": width, "height": height, "mobile": width < 600}
        metrics["deviceScaleFactor"] = 2 if width < 600 else 1
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": self._features})

    def new_tab(self) -> None:
        self.driver.switch_to.new_window("tab")
        self._emulate()

    def wait(self, condition, what):
        return WebDriverWait(self.driver, TIMEOUT, poll_frequency=0.05).until(
            lambda _: condition(), what
        )

    def get(self, url: str) -> None:
        self.driver.get(url)

    def find(self, css: str):
        return self.driver.find_element(By.CSS_SELECTOR, css)

    def script(self, code: str, *arguments):
        return self.driver.execute_script(code, *arguments)

    def texts(self, css: str) -> list[str]:
        """The visible texts of all matching elements, read in one step."""
        return self.script(
            "return [...document.querySelectorAll(arguments[0])].map(e => e.innerText)", css
        )

    def shows(self, css: str, text: str) -> None:
        self.wait(lambda: text in self.texts(css), f"{css} shows {text!r}: {self.texts(css)}")

    def is_at(self, path: str) -> None:
        def there():
            parts = urlsplit(self.driver.current_url)
            return path == parts.path + (f"?{parts.query}" if parts.query else "")

        self.wait(there, f"the page is {path}")

    def connection_is(self, state: str) -> None:
        self.wait(
            lambda: self.script("return document.body.dataset.connection") == state,
            f"the connection is {state}",
        )

    @property
    def sideways(self) -> int:
        """Pixels by which the page is wider than the window."""
        return self.script("return document.documentElement.scrollWidth - innerWidth")

    @property
    def console(self) -> list[str]:
        """All lines of the console since the start."""
        self._console += self.driver.get_log("browser")
        return [f"{entry['source']}: {entry['message']}" for entry in self._console]

    @property
    def urls(self) -> list[str]:
        """What the pages have asked for since the start."""
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                self._urls.append(message["params"]["request"]["url"])
            elif message["method"] == "Network.webSocketCreated":
                self._urls.append(message["params"]["url"])
        return self._urls
