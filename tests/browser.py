"""A real browser for tests: Chromium, driven over the DevTools protocol through a pipe."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
"""The program; ``None`` where there is none."""

_KEYS = {"Tab": 9, "Enter": 13, "End": 35, "Home": 36, "ArrowLeft": 37, "ArrowRight": 39, " ": 32}


class Page:
    """One tab.

    Attributes:
        requests: addresses of everything that was asked for since the tab was opened.
    """

    def __init__(self, send: Any, receive: Any) -> None:
        self._send, self._receive = send, receive
        self._number = 0
        self._session: str | None = None
        self._events: list[dict[str, Any]] = []
        target = self("Target.createTarget", url="about:blank")["targetId"]
        attached = self("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self(f"{domain}.enable")

    def __call__(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command and wait for its answer."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        self._send.write(json.dumps(message).encode() + b"\0")
        self._send.flush()
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]
            self._events.append(answer)

    def _next(self) -> dict[str, Any]:
        read = bytearray()
        while (byte := self._receive.read(1)) != b"\0":
            if not byte:
                raise RuntimeError("the browser has gone")
            read += byte
        return json.loads(read)

    def open(self, file: Path, *, width: int, scripts: bool = True) -> None:
        """Show a file in a window of so many CSS pixels, and wait until it is loaded."""
        self.resize(width)
        self("Emulation.setScriptExecutionDisabled", value=not scripts)
        self._events.clear()
        self("Page.navigate", url=file.resolve().as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self._events):
            self._events.append(self._next())

    def resize(self, width: int) -> None:
        """Make the window so wide."""
        self(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=800,
            deviceScaleFactor=1,
            mobile=width < 600,
        )

    @property
    def requests(self) -> list[str]:
        asked = (
            e["params"] for e in self._events if e.get("method") == "Network.requestWillBeSent"
        )
        return [params["request"]["url"] for params in asked]

    @property
    def complaints(self) -> list[str]:
        """What the browser logged: errors of scripts, and what the page was not allowed."""
        return [
            json.dumps(event["params"])
            for event in self._events
            if event.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown")
        ]

    def run(self, expression: str) -> Any:
        """The value of some JavaScript."""
        answer = self("Runtime.evaluate", expression=expression, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"]["exception"]["description"])
        return answer["result"].get("value")

    def wait(self, expression: str) -> bool:
        """Whether some JavaScript becomes true; what a page does after an event comes later."""
        for _ in range(100):
            if self.run(expression):
                return True
            time.sleep(0.05)
        return False

    def press(self, key: str) -> None:
        """Press and release a key."""
        code = {"key": key, "code": key, "windowsVirtualKeyCode": _KEYS[key]}
        text = {"Enter": "\r", " ": " "}.get(key)
        self("Input.dispatchKeyEvent", type="keyDown", **code, **({"text": text} if text else {}))
        self("Input.dispatchKeyEvent", type="keyUp", **code)

    def picture(self, path: Path, *, whole: bool = False) -> None:
        """Save what is seen, or the whole page, as PNG."""
        size = self("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"clip": {**size, "scale": 1}} if whole else {}
        shot = self("Page.captureScreenshot", captureBeyondViewport=whole, **clip)
        path.write_bytes(base64.b64decode(shot["data"]))

    def pdf(self) -> bytes:
        """The page as it is printed on A4."""
        printed = self(
            "Page.printToPDF", paperWidth=8.27, paperHeight=11.69, preferCSSPageSize=True
        )
        return base64.b64decode(printed["data"])


@contextmanager
def browser(profile: Path) -> Iterator[Page]:
    """A browser without a window, with a tab open.

    Args:
        profile: an empty folder for what it keeps.
    """
    assert BROWSER is not None
    (their_in, our_out), (our_in, their_out) = os.pipe(), os.pipe()

    def take_pipes() -> None:
        # The browser reads from 3 and writes to 4; first out of the way of each other.
        low, high = os.dup2(their_in, 20), os.dup2(their_out, 21)
        os.dup2(low, 3)
        os.dup2(high, 4)

    process = subprocess.Popen(
        [
            *(BROWSER, "--headless=new", "--remote-debugging-pipe", "--disable-gpu"),
            *("--no-sandbox", "--disable-dev-shm-usage", "--no-first-run"),
            f"--user-data-dir={profile}",
        ],
        preexec_fn=take_pipes,
        close_fds=False,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(their_in)
    os.close(their_out)
    try:
        with os.fdopen(our_out, "wb") as send, os.fdopen(our_in, "rb") as receive:
            page = Page(send, receive)
            yield page
            page._session = None
            page("Browser.close")
    finally:
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
