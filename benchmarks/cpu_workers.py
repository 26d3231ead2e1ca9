"""Processes in which contenders are made and timed: two pools of threads in one would get in each other's way."""

import gc
import multiprocessing
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, Self

from gpuadam.samples import sampler

LIMIT = 300.0  # seconds that an answer may take: a compiler runs in some of them


@dataclass(frozen=True)
class Step:
    """Something to be sampled that is not a contender, and that changes nothing which must be put back."""

    step: Callable[[], Any]

    def refresh(self) -> None: ...


class ContenderError(Exception):
    """A contender could not do what it was asked for; the message is one line."""


class Worker:
    """A process, and what it has made, by name."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, other = context.Pipe()
        self._process = context.Process(target=serve, args=(other,), daemon=True)
        self._process.start()
        other.close()

    def send(self, what: str, *arguments: Any) -> None:
        """Ask for something; `receive` takes the answer."""
        try:
            self._connection.send((what, *arguments))
        except OSError:
            raise ContenderError("its process has ended") from None

    def receive(self, limit: float = LIMIT) -> Any:
        """The answer.

        Raises:
            ContenderError: There is none, or an error.
        """
        if not self._connection.poll(limit):
            self.stop()
            raise ContenderError(f"it took longer than {limit:.0f} s")
        try:
            error, answer = self._connection.recv()
        except (EOFError, OSError):
            self._process.join()
            raise ContenderError(f"its process ended with {self._process.exitcode}") from None
        if error:
            raise ContenderError(error)
        return answer

    def ask(self, what: str, *arguments: Any) -> Any:
        self.send(what, *arguments)
        return self.receive()

    def is_alive(self) -> bool:
        return self._process.is_alive()

    def stop(self) -> None:
        self._process.terminate()
        self._process.join()


class Workers:
    """A process for each name, started when it is first needed, and again if it has ended.

    Names that begin with the same word share one.
    """

    def __init__(self) -> None:
        self._workers: dict[str, Worker] = {}

    def __getitem__(self, name: str) -> Worker:
        process = name.split()[0]
        if process not in self._workers or not self._workers[process].is_alive():
            self._workers[process] = Worker()
        return self._workers[process]

    def make(self, makers: Mapping[str, Callable[[], Any]]) -> dict[str, str]:
        """Make things, each in the process of its name, all at the same time; what went wrong, by name."""
        failures = {}
        for name, maker in makers.items():
            self[name].send("make", name, maker)
        for name in makers:
            try:
                self[name].receive()
            except ContenderError as error:
                failures[name] = str(error)
        return failures

    def sampler(self, name: str) -> Callable[[], float]:
        """A function that takes one sample."""
        return partial(self[name].ask, "sample", name)

    def drop(self, name: str) -> None:
        """Give back the memory of what was made."""
        self[name].ask("drop", name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers.values():
            worker.stop()


class Bench:
    """What a process does when it is asked."""

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}
        self._samplers: dict[str, Callable[[], float]] = {}

    def make(self, name: str, maker: Callable[[], Any]) -> None:
        self._made[name] = maker()

    def sample(self, name: str) -> float:
        """Seconds of a step. How many make a sample is found when the first is taken, with nobody else at work."""
        made = self._made[name]
        made.refresh()
        if name not in self._samplers:
            self._samplers[name] = sampler(made.step)
        return self._samplers[name]()

    def drop(self, name: str) -> None:
        self._made.pop(name, None)
        self._samplers.pop(name, None)
        gc.collect()

    def call(self, function: Callable[[], Any]) -> Any:
        """Anything that must not be done in the process of who asks."""
        return function()


def serve(connection: Connection) -> None:
    """Answer until the other end is closed."""
    bench = Bench()
    while True:
        try:
            what, *arguments = connection.recv()
        except EOFError:
            return
        try:
            connection.send(("", getattr(bench, what)(*arguments)))
        except Exception as error:
            connection.send((traceback.format_exception_only(error)[-1].strip(), None))


def in_new_process(function: Callable[[], Any]) -> Any:
    """What a function returns in a process that has done nothing before.

    Raises:
        ContenderError: It raised an error.
    """
    worker = Worker()
    try:
        return worker.ask("call", function)
    finally:
        worker.stop()
