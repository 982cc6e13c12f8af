"""The program that is started: its signals, and how it ends."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from budget_guard.cli.run.descendants import kill_all

NOT_EXECUTABLE = 126
NOT_FOUND = 127

_HAS_SIGNALS = hasattr(signal, "pthread_sigmask")  # Windows has none of this
_ENDING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT") if hasattr(signal, name)]
_OTHERS = [getattr(signal, name) for name in ("SIGCHLD", "SIGTSTP", "SIGWINCH") if hasattr(signal, name)]


class CannotStart(Exception):
    """A command cannot be started."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def check_command(command: Sequence[str], environ: Mapping[str, str]) -> None:
    """Refuse a command that cannot be started, before anything else is.

    Raises:
        CannotStart: If it does not exist, or cannot be executed.
    """
    name = command[0]
    if shutil.which(name, path=environ.get("PATH")) is not None:
        return
    if os.path.exists(name) and os.path.dirname(name):
        words = "is a folder" if os.path.isdir(name) else "cannot be executed: make it so with chmod +x"
        raise CannotStart(f"{name} {words}", NOT_EXECUTABLE)
    raise CannotStart(f"{name}: there is no such command", NOT_FOUND)


class KeptSignals:
    """Signals that are kept for who asks for the next one, in this thread and in those that are started meanwhile.

    What is ignored, as ``nohup`` has it, stays so.
    """

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}
        self._came: list[int] = []

    def __enter__(self) -> KeptSignals:
        if _HAS_SIGNALS:
            ending = [each for each in _ENDING if signal.getsignal(each) is not signal.SIG_IGN]
            self._before = {each: signal.signal(each, self._again) for each in (*ending, *_OTHERS)}
            signal.pthread_sigmask(signal.SIG_BLOCK, self._before)
        return self

    def __exit__(self, *_: object) -> None:
        if not _HAS_SIGNALS:
            return
        while pending := signal.sigpending() & set(self._before):  # they were meant for the program
            signal.sigwait(pending)
        for each, handler in self._before.items():
            signal.signal(each, handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self._before)

    def check(self) -> None:
        """Let a signal that came before there is a program end this one.

        Raises:
            KeyboardInterrupt: If one came.
        """
        if _HAS_SIGNALS and {*signal.sigpending(), *self._came}.intersection(_ENDING):
            raise KeyboardInterrupt

    @contextmanager
    def let_through(self) -> Generator[None, None, None]:
        """Keep none in the ``with`` block, as a program that is started there inherits that."""
        if not _HAS_SIGNALS:
            yield
            return
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self._before)
        try:
            yield
        finally:
            self._keep()

    def stop_as_asked(self) -> None:
        """Stop, as the terminal has asked for, until it is told to go on."""
        with self.let_through():
            handler = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTSTP)
            signal.signal(signal.SIGTSTP, handler)

    def next(self) -> tuple[int, bool]:
        """The next one, and whether a key of the terminal has sent it, to all that runs in its foreground."""
        if sys.platform == "linux":
            found = signal.sigwaitinfo(self._before)
            return found.si_signo, found.si_code > 0  # by the kernel
        number = signal.sigwait(self._before)
        return number, number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP) and _is_in_foreground()

    def _again(self, number: int, frame: object) -> None:
        """Note a signal that came while none was kept."""
        self._came.append(number)

    def _keep(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, self._before)
        while self._came:  # to this thread: another one may not keep it
            signal.pthread_kill(threading.get_ident(), self._came.pop())


class Child:
    """A program that runs.

    It has the terminal, or whatever standard input and output are, to itself. What is sent to this process is passed
    on to it once; what a key of the terminal sends, it has got by itself. A second SIGINT kills it, with all that it
    has started.

    Args:
        command: What is started.
        environ: Its environment.
        signals: The signals that are passed on.

    Raises:
        CannotStart: If it cannot be.
    """

    def __init__(self, command: Sequence[str], environ: Mapping[str, str], signals: KeptSignals) -> None:
        try:
            with signals.let_through():
                self._process = subprocess.Popen(list(command), env=dict(environ))
        except FileNotFoundError as error:
            raise CannotStart(f"{command[0]}: {error.strerror}", NOT_FOUND) from None
        except OSError as error:
            why = f": {error.strerror}"
            if error.errno == errno.ENOEXEC:
                why = " cannot be executed: its first line does not say by what, such as #!/bin/sh"
            raise CannotStart(f"{command[0]}{why}", NOT_EXECUTABLE) from None
        self._signals = signals
        self._interrupts = 0

    def wait(self, redraw: Callable[[], object], clear: Callable[[], object]) -> int:
        """Wait until it ends; return its exit code, 128 and the number of a signal that ended it.

        Args:
            redraw: Called when the terminal has another size, or is ours again.
            clear: Called before it is somebody else's.
        """
        if not _HAS_SIGNALS:
            return self._wait_without_signals()
        while (code := self._process.poll()) is None:
            number, from_keyboard = self._signals.next()
            if number in _ENDING:
                self._end(number, from_keyboard)
            elif number == signal.SIGTSTP:
                self._pass_on(number, from_keyboard)
                clear()
                self._signals.stop_as_asked()
                redraw()
            elif number == signal.SIGWINCH:
                redraw()
        return code if code >= 0 else 128 - code

    def end(self) -> None:
        """Ask it to end. Another thread may do so."""
        with suppress(OSError):
            self._process.terminate()

    def _end(self, number: int, from_keyboard: bool) -> None:
        if number == signal.SIGINT:
            self._interrupts += 1
            if self._interrupts > 1:
                if self._process.poll() is None:  # else its number may be another one's by now
                    kill_all(self._process.pid)
                return
        self._pass_on(number, from_keyboard)

    def _pass_on(self, number: int, from_keyboard: bool) -> None:
        if not from_keyboard:
            with suppress(OSError):  # it has just ended
                self._process.send_signal(number)

    def _wait_without_signals(self) -> int:
        while True:
            try:
                return self._process.wait()
            except KeyboardInterrupt:  # the console has told the program too
                self._interrupts += 1
                if self._interrupts > 1:
                    self._process.kill()


def _is_in_foreground() -> bool:
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)
