"""The process between agent and trainer: it has imported torch and forks trainers on request, nothing else.

The agent has threads when a trainer must be started again, and a process with threads cannot be forked safely; a
process started anew would pay the imports (6 s) again. The spawner has no threads of its own and forks in
milliseconds. Agent gone: the kernel kills the spawner, and with it the trainer (PR_SET_PDEATHSIG).
"""

import contextlib
import ctypes
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, Protocol

from job.agent.loop import Loop
from job.arena import Channel, ChannelClosed, Slot
from job.errors import BatonError, NeedsPerson, Transient
from job.preemption import SIGNALS, Notice

PR_SET_PDEATHSIG = 1  # linux/prctl.h


class HearsOfItself(Protocol):
    """A trainer's object, told by the spawner what only a parent knows."""

    def forked(self, pid: int) -> None:
        """It runs."""

    def has_ended(self, exit_code: int) -> None:
        """It is gone; -N for signal N."""


class Spawner:
    """The agent's end: asks for trainers, hears how they end."""

    def __init__(self, pid: int | None, channel: Channel, output: int) -> None:
        self.failure: BatonError | None = None
        """Why there will be no trainer."""
        self.pid, self._channel, self._output = pid, channel, output
        self._trainer: HearsOfItself | None = None
        self._line = b""
        self._on_line: Callable[[str], None] = lambda line: None

    @classmethod
    def start(cls, notice: Notice, slots: list[Slot], scratch: Path) -> "Spawner":
        """Forks the spawner, which begins to import at once. Call before any thread exists."""
        ours, theirs = Channel.pair()
        output_reader, output_writer = os.pipe()
        agent_pid = os.getpid()
        # A signal between fork and leave_to_parent would reach the agent's socket twice, as if it had been sent twice.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        pid = os.fork()
        if pid == 0:
            _die_with(agent_pid)
            notice.leave_to_parent()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            ours.close()
            os.close(output_reader)
            os.dup2(output_writer, 1)
            os.dup2(output_writer, 2)
            _serve(theirs, slots, scratch)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        theirs.close()
        os.close(output_writer)
        os.set_blocking(output_reader, False)
        return cls(pid, ours, output_reader)

    def listen(self, loop: Loop, on_line: Callable[[str], None]) -> None:
        """Serves it from now on. `on_line` gets what spawner and trainers print, both streams, line by line."""
        self._on_line = on_line
        loop.listen(self._channel.fileno(), lambda: self._hear(loop))
        loop.listen(self._output, lambda: self._read_output(loop))

    def request_trainer(self, trainer: HearsOfItself) -> Channel:
        """Asks for a trainer and returns the channel to it. One at a time: the one before has ended."""
        ours, theirs = Channel.pair()
        self._trainer = trainer
        with contextlib.suppress(BrokenPipeError):  # its end is heard of by the loop
            socket.send_fds(self._channel.sock, [b"F"], [theirs.fileno()])
        theirs.close()
        return ours

    def kill(self) -> None:
        """Kills spawner and trainer and waits for the spawner. The slots stay."""
        if self.pid is not None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.pid = None

    def _hear(self, loop: Loop) -> None:
        try:
            for message in self._channel.receive_ready():
                if message.op == "forked" and self._trainer is not None:
                    self._trainer.forked(message.fields["pid"])
                elif message.op == "ended" and self._trainer is not None:
                    self._read_output(loop)
                    self._flush_line()
                    self._trainer.has_ended(message.fields["exit_code"])
                elif message.op == "failed":
                    self.failure = import_failure(message.fields["missing"], message.fields["what"])
        except ChannelClosed:
            loop.forget(self._channel.fileno())
            self.failure = self.failure or Transient(
                "the trainer's parent process was killed.", fix="Out of memory? `dmesg` tells. Try again."
            )
            if self._trainer is not None:
                self._trainer.has_ended(-signal.SIGKILL)

    def _read_output(self, loop: Loop) -> None:
        try:
            data = os.read(self._output, 1 << 16)
        except BlockingIOError:
            return
        if not data:
            loop.forget(self._output)
            return
        *lines, self._line = (self._line + data).split(b"\n")
        for line in lines:
            self._on_line(line.decode(errors="replace"))

    def _flush_line(self) -> None:
        """The last words of a process that died in the middle of a line."""
        if self._line:
            self._on_line(self._line.decode(errors="replace"))
            self._line = b""


def import_failure(missing: bool, what: str) -> BatonError:
    """Why the trainer's libraries cannot be imported."""
    if missing:
        return NeedsPerson(
            f"training needs more than is installed here: {what}.",
            fix="pip install 'baton[train]', or `make setup` in a clone.",
        )
    return BatonError(f"the trainer's libraries cannot be imported:\n{what}")


def _serve(channel: Channel, slots: list[Slot], scratch: Path) -> NoReturn:
    """The life of the spawner. Never returns."""
    try:
        from job.training.process import run_trainer
    except BaseException as error:
        missing = isinstance(error, ModuleNotFoundError)
        what = str(error) if missing else traceback.format_exc()
        with contextlib.suppress(ChannelClosed):
            channel.send("failed", missing=missing, what=what)
        os._exit(1)
    try:
        while True:
            data, fds, _, _ = socket.recv_fds(channel.sock, 1, 1)
            if not data:
                os._exit(0)
            os.set_inheritable(fds[0], False)  # as Python does by itself for all but received descriptors
            pid = _fork_trainer(channel, fds[0], lambda trainer: run_trainer(trainer, slots, scratch))
            channel.send("forked", pid=pid)
            _, status = os.waitpid(pid, 0)
            channel.send("ended", exit_code=os.waitstatus_to_exitcode(status))
    except ChannelClosed:
        os._exit(0)


def _fork_trainer(spawner_channel: Channel, fd: int, run: Callable[[Channel], None]) -> int:
    spawner_pid = os.getpid()
    pid = os.fork()
    if pid != 0:
        os.close(fd)
        return pid
    code = 1
    try:
        _die_with(spawner_pid)
        spawner_channel.close()
        run(Channel(socket.socket(fileno=fd)))
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _die_with(parent_pid: int) -> None:
    """From now on the kernel kills this process when its parent ends, however it ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:  # it ended before the line above
        os._exit(1)


def describe_exit(exit_code: int) -> str:
    """A trainer's end in words: "signal SIGSEGV", "exit code 1"."""
    return f"signal {signal_name(-exit_code)}" if exit_code < 0 else f"exit code {exit_code}"


def signal_name(number: int) -> str:
    """SIGSEGV and the like; the number of a real-time signal, which has no name."""
    return signal.Signals(number).name if number in set(signal.Signals) else str(number)
