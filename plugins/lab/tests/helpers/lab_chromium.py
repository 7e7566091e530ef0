"""A headless Chromium, spoken to over its DevTools pipe: no driver, no port, no library.

Messages are JSON ended by a zero byte, from us on its file descriptor 3 and to us on 4
(``--remote-debugging-pipe``).
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

from patience import PATIENCE_S

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find() -> str | None:
    """The program; None where there is none."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class Chromium:
    """One browser with one page in it.

    Attributes:
        events: everything the page has said since it was opened, as (method, parameters).
    """

    def __init__(self, program: str, home: Path) -> None:
        theirs, self._write = os.pipe()
        self._read, ours = os.pipe()
        flags = [
            "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
            "--hide-scrollbars", "--no-first-run", "--disable-extensions",
            "--disable-background-networking", "--remote-debugging-pipe",
            f"--user-data-dir={home}", "about:blank",
        ]  # fmt: skip
        # The shell puts the pipes where Chromium looks for them.
        line = f'exec "$@" 3<&{theirs} 4>&{ours}'
        self._process = subprocess.Popen(
            ["bash", "-c", line, "bash", program, *flags],
            pass_fds=(theirs, ours),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs)
        os.close(ours)
        self._buffer = b""
        self._last = 0
        self._session: str | None = None
        self.events: list[tuple[str, dict[str, Any]]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def open(
        self, page: Path, *, width: int, height: int = 900, dark: bool = False, touch: bool = False
    ) -> None:
        """Load a file and wait until it has been drawn."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=touch,
        )  # fmt: skip
        self.colours(dark=dark)
        self.events.clear()
        self.call("Page.navigate", url=page.resolve().as_uri())
        self.wait_for("Page.loadEventFired")
        self.settle()

    def colours(self, *, dark: bool) -> None:
        """Let the page think that its reader prefers these."""
        value = "dark" if dark else "light"
        features = [{"name": "prefers-color-scheme", "value": value}]
        self.call("Emulation.setEmulatedMedia", features=features)

    def settle(self) -> None:
        """Let two frames be painted."""
        frames = "new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)))"
        self.evaluate(f"{frames}.then(() => true)")

    def evaluate(self, expression: str) -> Any:
        """What a JavaScript expression, or its promise, comes to."""
        said = self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in said:
            raise AssertionError(json.dumps(said["exceptionDetails"]))
        return said["result"].get("value")

    def screenshot(self, path: Path) -> None:
        """The whole page, beyond the window too."""
        said = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(said["data"]))

    def pdf(self, path: Path) -> None:
        """The page as it is printed."""
        said = self.call("Page.printToPDF", preferCSSPageSize=False, paperWidth=8.27,
                         paperHeight=11.69)  # fmt: skip
        path.write_bytes(base64.b64decode(said["data"]))

    def wait_for(self, method: str) -> None:
        """Read until an event of this name has come."""
        while not any(name == method for name, _ in self.events):
            self._next()

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send one command and wait for its answer."""
        self._last += 1
        message: dict[str, Any] = {"id": self._last, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._last:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return dict(answer["result"])

    def close(self) -> None:
        """End the browser."""
        os.close(self._write)
        try:
            self._process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._read)

    def _next(self) -> dict[str, Any]:
        """The next message; events are noted."""
        until = time.monotonic() + PATIENCE_S
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], max(until - time.monotonic(), 0))
            assert ready, f"Chromium has said nothing for {PATIENCE_S:g} s"
            chunk = os.read(self._read, 1 << 20)
            assert chunk, "Chromium has died"
            self._buffer += chunk
        head, self._buffer = self._buffer.split(b"\0", 1)
        message: dict[str, Any] = json.loads(head)
        if "method" in message:
            self.events.append((message["method"], message.get("params", {})))
        return message
