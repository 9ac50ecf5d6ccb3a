"""A real browser for tests: Debian's chromium without a window, driven through its DevTools protocol over a pipe.

It knows no network: every name and address but the page's own file leads nowhere.
"""

import base64
import itertools
import json
import os
import select
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PATIENCE_S = 60.0  # for one word of the browser
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--proxy-server=127.0.0.1:9",
    "--remote-debugging-pipe",
)


class Page:
    """One tab. Commands are those of the protocol; what the page says meanwhile is kept."""

    def __init__(self, reading: int, writing: int) -> None:
        self._reading, self._writing = reading, writing
        self._numbers = itertools.count(1)
        self._received = b""
        self._session: str | None = None
        self.troubles: list[str] = []
        """Errors and warnings of the console, exceptions, violations of the page's policy."""
        self.requests: list[str] = []
        """URLs that the page asked for, its own first."""
        self._loaded = 0
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command and its result."""
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._writing, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == number:
                assert "error" not in answer, answer["error"]
                result: dict[str, Any] = answer["result"]
                return result

    def open(self, path: Path, *, width: int = 1400, dark: bool = False, media: str = "screen") -> None:
        """Loads a file and waits until its charts are drawn, where it has any."""
        self.troubles, self.requests, self._loaded = [], [], 0
        self.look(width=width, dark=dark, media=media)
        self.call("Page.navigate", url=path.as_uri())
        while not self._loaded:
            self._receive()
        self.evaluate(
            """new Promise((done) => {
                 const look = () => !document.getElementById("figures") || document.documentElement.dataset.drawn
                   ? done() : requestAnimationFrame(look);
                 look();
               })"""
        )

    def look(self, *, width: int = 1400, dark: bool = False, media: str = "screen") -> None:
        """How the reader looks at it."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media=media, features=[scheme])

    def evaluate(self, script: str) -> Any:
        """The value of a script in the page, awaited."""
        got = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in got, got["exceptionDetails"]
        return got["result"].get("value")

    def screenshot(self, path: Path) -> None:
        """The whole page as a picture."""
        got = self.call("Page.captureScreenshot", captureBeyondViewport=True, format="png")
        path.write_bytes(base64.b64decode(got["data"]))

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._received:
            assert select.select([self._reading], [], [], PATIENCE_S)[0], (
                "the browser, or what was waited for in it, hangs"
            )
            data = os.read(self._reading, 1 << 20)
            assert data, "the browser is gone"
            self._received += data
        line, _, self._received = self._received.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        told = message.get("params", {})
        match message.get("method"):
            case "Page.loadEventFired":
                self._loaded += 1
            case "Network.requestWillBeSent":
                self.requests.append(told["request"]["url"])
            case "Runtime.exceptionThrown":
                self.troubles.append(str(told["exceptionDetails"]))
            case "Log.entryAdded" if told["entry"]["level"] in ("error", "warning"):
                self.troubles.append(told["entry"]["text"])
            case "Runtime.consoleAPICalled" if told["type"] in ("error", "warning", "assert"):
                self.troubles.append(str(told["args"]))
            case "Page.javascriptDialogOpening":
                self.troubles.append(f"dialog: {told['message']}")
        return message


@contextmanager
def open_browser(profile: Path) -> Iterator[Page]:
    """A browser with an empty profile, ended at the end."""
    to_browser, from_browser = os.pipe(), os.pipe()
    command = ["chromium", *FLAGS, f"--user-data-dir={profile}"]
    process = subprocess.Popen(
        # The protocol's pipe is descriptors 3 and 4.
        ["bash", "-c", f'exec "$@" 3<&{to_browser[0]} 4>&{from_browser[1]}', "-", *command],
        pass_fds=(to_browser[0], from_browser[1]),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(to_browser[0])
    os.close(from_browser[1])
    try:
        yield Page(from_browser[0], to_browser[1])
    finally:
        process.kill()
        process.wait()
        os.close(from_browser[0])
        os.close(to_browser[1])
