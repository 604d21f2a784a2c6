"""Child processes: pinned, watched while they start, always cleaned up; and what they cost."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

TICK_US = 1_000_000 / os.sysconf("SC_CLK_TCK")
START_SECONDS = 15
# Tollgate looks for two seconds whether nothing is under way; a program that is measured for a profile must end by itself.
STOP_SECONDS = 8
INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Failed(Exception):
    """A child did not do what it was started for; the message says why."""


@dataclass(frozen=True)
class Cpu:
    """CPU time in microseconds."""

    user: float
    system: float

    @property
    def total(self) -> float:
        """User and system together."""
        return self.user + self.system

    def __sub__(self, other: Cpu) -> Cpu:
        return Cpu(self.user - other.user, self.system - other.system)


@dataclass(frozen=True)
class Memory:
    """Memory in kilobytes: proportional share now, and the highest resident size so far."""

    pss: int
    peak: int


class Child:
    """One pinned process, the leader of its own group, with its output in a file."""

    def __init__(self, argv: list[str], cpus: str, log: Path) -> None:
        self.log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                ["taskset", "-c", cpus, *argv],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def check(self) -> None:
        """Fail when the process is gone."""
        if self.process.poll() is not None:
            raise Failed(f"exited with {self.process.returncode}: {self._last_words()}")

    def wait_for_port(self, port: int) -> None:
        """Return once the process accepts connections."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            self.check()
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return
            time.sleep(0.05)
        raise Failed(f"not listening after {START_SECONDS} s: {self._last_words()}")

    def cpu(self) -> Cpu:
        """CPU time of the process, its descendants and those of them that have ended."""
        ticks = [_cpu_ticks(pid) for pid in process_tree(self.process.pid)]
        return Cpu(sum(user for user, _ in ticks) * TICK_US, sum(system for _, system in ticks) * TICK_US)

    def memory(self) -> Memory:
        """Memory of the process and its descendants."""
        tree = process_tree(self.process.pid)
        pss = sum(_kilobytes(Path(f"/proc/{pid}/smaps_rollup"), "Pss:") for pid in tree)
        return Memory(pss, sum(_kilobytes(Path(f"/proc/{pid}/status"), "VmHWM:") for pid in tree))

    def stop(self) -> None:
        """End the whole process group, by force if it does not go."""
        self._signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            pass
        self._signal(signal.SIGKILL)
        self.process.wait()

    def _signal(self, number: signal.Signals) -> None:
        try:
            os.killpg(self.process.pid, number)
        except ProcessLookupError:
            pass

    def _last_words(self) -> str:
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return " / ".join(line[:300] for line in lines[-2:]) or "no output"


class Supervisor:
    """Owns every child; leaving its `with` block stops them all, whatever happened inside."""

    def __init__(self) -> None:
        self._children: list[Child] = []

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A second Ctrl-C must not leave half of them behind.
        for number in INTERRUPTS:
            signal.signal(number, signal.SIG_IGN)
        while self._children:
            self._children.pop().stop()

    def start(self, argv: list[str], cpus: str, log: Path) -> Child:
        """Start a child that this supervisor will stop."""
        child = Child(argv, cpus, log)
        self._children.append(child)
        return child

    def stop(self, child: Child) -> None:
        """Stop one child early."""
        child.stop()
        self._children.remove(child)


def process_tree(root: int) -> list[int]:
    """The process ids of `root` and all its living descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat_fields(int(entry.name))):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    tree = [root]
    for pid in tree:
        tree.extend(children.get(pid, []))
    return tree


def _stat_fields(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the command name: state, parent, ...; none if it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def _cpu_ticks(pid: int) -> tuple[int, int]:
    fields = _stat_fields(pid)
    if not fields:
        return 0, 0
    user, system, ended_user, ended_system = map(int, fields[11:15])
    return user + ended_user, system + ended_system


def _kilobytes(path: Path, field: str) -> int:
    try:
        lines = path.read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(field)), 0)
