"""A headless Chromium that is told what to do as its own tools tell it: keys are pressed, and pages complain."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp

CHROMIUM = next((found for name in ("chromium", "chromium-browser") if (found := shutil.which(name))), None)
_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--hide-scrollbars"),
    *("--remote-debugging-port=0", "--disable-extensions", "--mute-audio"),
)
_KEYS = {"Tab": (9, ""), "Enter": (13, "\r"), "Escape": (27, ""), " ": (32, " ")}


class Page:
    """One page in the browser. Its protocol is https://chromedevtools.github.io/devtools-protocol/."""

    def __init__(self, loop: asyncio.AbstractEventLoop, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._loop = loop
        self._socket = socket
        self._number = 0
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._loaded = asyncio.Event()
        self.complaints: list[str] = []
        """What the console said."""
        self.asked: list[str] = []
        """The addresses that were asked for."""

    async def listen(self) -> None:
        """Take in what the browser says."""
        async for message in self._socket:
            said = json.loads(message.data)
            if "id" in said:
                self._answers.pop(said["id"]).set_result(said)
                continue
            method, given = said["method"], said["params"]
            if method == "Page.loadEventFired":
                self._loaded.set()
            elif method == "Network.requestWillBeSent":
                self.asked.append(given["request"]["url"])
            elif method == "Log.entryAdded":
                self.complaints.append(given["entry"]["text"])
            elif method == "Runtime.consoleAPICalled":
                self.complaints.append(str(given["args"]))
            elif method == "Runtime.exceptionThrown":
                self.complaints.append(str(given["exceptionDetails"]))

    async def _tell(self, method: str, **given: Any) -> Any:
        self._number += 1
        answer = self._answers[self._number] = self._loop.create_future()
        await self._socket.send_json({"id": self._number, "method": method, "params": given})
        said = await asyncio.wait_for(answer, 30)
        assert "error" not in said, (method, said)
        return said["result"]

    def tell(self, method: str, **given: Any) -> Any:
        """Tell the browser something; returns its answer."""
        return asyncio.run_coroutine_threadsafe(self._tell(method, **given), self._loop).result(40)

    def _and_wait(self, method: str, **given: Any) -> None:
        async def told() -> None:
            self._loaded.clear()
            await self._tell(method, **given)
            await asyncio.wait_for(self._loaded.wait(), 30)

        asyncio.run_coroutine_threadsafe(told(), self._loop).result(60)

    def open(self, url: str) -> None:
        """Go to *url*, and wait for it."""
        self._and_wait("Page.navigate", url=url)

    def run(self, script: str) -> Any:
        """What *script* comes to, in the page."""
        answer = self.tell("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def press(self, key: str) -> None:
        """Press a key, as a person does."""
        code, text = _KEYS[key]
        given = {"key": key, "windowsVirtualKeyCode": code, **({"text": text} if text else {})}
        for kind in ("keyDown", "keyUp"):
            self.tell("Input.dispatchKeyEvent", type=kind, **given)

    def press_and_wait(self, key: str) -> None:
        """Press a key that leads to another page."""
        self._loaded.clear()
        self.press(key)
        asyncio.run_coroutine_threadsafe(asyncio.wait_for(self._loaded.wait(), 30), self._loop).result(40)

    def type(self, text: str) -> None:
        """Type a text."""
        self.tell("Input.insertText", text=text)

    def focused(self) -> str:
        """What has the focus: its words, or its name."""
        found = self.run(
            "(e => e === document.body ? '' : (e.innerText || e.name || e.getAttribute('aria-label')))"
            "(document.activeElement)"
        )
        return str(found).strip()

    def look(self, width: int, height: int, *, dark: bool = False) -> None:
        """Look at the page in a window of that size."""
        self.tell(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.tell("Emulation.setEmulatedMedia", features=[scheme])

    def picture(self, path: Path) -> None:
        """Write a picture of the whole page."""
        taken = self.tell("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(taken["data"]))


@contextmanager
def browsing() -> Iterator[Page]:
    """A page in a browser that is started for it."""
    assert CHROMIUM is not None, "NEEDS_CHROMIUM is set, and none is installed: apt-get install chromium"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [CHROMIUM, *_FLAGS, f"--user-data-dir={profile}", "about:blank"]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        assert process.stderr is not None
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, daemon=True)
        thread.start()
        try:
            for line in process.stderr:
                if "DevTools listening on" in line:
                    break
            else:
                raise AssertionError("the browser does not start")
            port = line.split("127.0.0.1:")[1].split("/")[0]
            threading.Thread(target=process.stderr.read, daemon=True).start()  # so that it is not held up

            async def connect() -> tuple[Page, aiohttp.ClientSession, asyncio.Task[None]]:
                session = aiohttp.ClientSession()
                async with session.get(f"http://127.0.0.1:{port}/json") as answer:
                    target = next(each for each in await answer.json() if each["type"] == "page")
                page = Page(loop, await session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0))
                listening = asyncio.ensure_future(page.listen())
                for domain in ("Page", "Runtime", "Network", "Log"):
                    await page._tell(f"{domain}.enable")
                return page, session, listening

            page, session, listening = asyncio.run_coroutine_threadsafe(connect(), loop).result(60)
            yield page

            async def leave() -> None:
                await session.close()
                await listening

            asyncio.run_coroutine_threadsafe(leave(), loop).result(20)
        finally:
            process.kill()
            process.wait()
            loop.call_soon_threadsafe(loop.stop)
            thread.join(20)
            loop.close()
            process.stderr.close()
