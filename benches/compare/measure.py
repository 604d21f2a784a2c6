"""The measurements: every peer in turn, round after round, so that noise hits all alike."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from jobs import JOBS, Job
from load import run_load
from peers import Peer
from process import Failed
from stage import Running, Stage

WARM_UP_SECONDS = 1
SETTLE_SECONDS = 1.5
IDLE_CLIENT = Path(__file__).resolve().parent / "idle.py"
IDLE_CLIENT_SECONDS = 60


@dataclass(frozen=True)
class Sample:
    """One measurement under load: CPU in us per request, memory in MB, latency in ms; `busy` is the share of a core."""

    cpu: float
    user: float
    system: float
    rps: float
    p50: float
    p99: float
    pss: float
    peak: float
    requests: int
    non_2xx: int
    socket_errors: int
    busy: float


@dataclass(frozen=True)
class IdleSample:
    """One measurement of one peer with idle connections. `dropped`: closed by the peer, or never answered."""

    kb: float
    base: float
    pss: float
    peak: float
    dropped: int


@dataclass
class Row:
    """What is known of one peer on one job: samples, or why there are none."""

    peer: str
    samples: list[Sample] = field(default_factory=list)
    idle: list[IdleSample] = field(default_factory=list)
    note: str = ""


@dataclass(frozen=True)
class Plan:
    """How long and how often to measure, and whom: peers with the path of their binary, or None."""

    peers: list[tuple[Peer, str | None]]
    seconds: int
    rounds: int
    connections: int
    idle_connections: int
    progress: Callable[[str], None]


def run_job(job: Job, plan: Plan, stage: Stage) -> list[Row]:
    """Measure every peer on one job."""
    missing = [tool for tool in job.tools if shutil.which(tool) is None]
    if missing:
        return [Row(peer.name, note=f"skipped: {' and '.join(missing)} not installed") for peer, _ in plan.peers]
    rows: list[Row] = []
    able: list[tuple[Row, Peer, str, Job]] = []
    for peer, binary in plan.peers:
        row = Row(peer.name)
        rows.append(row)
        if job.name in peer.lacks:
            row.note = f"skipped: {peer.lacks[job.name]}"
        elif binary is None:
            row.note = "skipped: not installed"
        else:
            own = JOBS[peer.instead.get(job.name, job.name)]
            if own is not job:
                row.peer = f"{peer.name} ({own.name})"
            able.append((row, peer, binary, own))
    if job.driver == "idle":
        _measure_idle(able, plan, stage)
    else:
        _measure_load(able, plan, stage)
    return rows


def run_growth(job: Job, plan: Plan, stage: Stage) -> list[Row]:
    """Measure one job beside its small twin, both on the first peer."""
    peer, binary = plan.peers[0]
    if binary is None:
        return [Row(peer.name, note="skipped: not installed")]
    small = JOBS[job.twin]
    able = [(Row(own.title), peer, binary, own) for own in (small, job)]
    _measure_load(able, plan, stage)
    return [row for row, *_ in able]


def _measure_load(able: list[tuple[Row, Peer, str, Job]], plan: Plan, stage: Stage) -> None:
    """Start and warm up all peers, then load one after the other, `rounds` times."""
    running: list[tuple[Row, Running]] = []
    for row, peer, binary, job in able:
        with _noted(row):
            running.append((row, stage.start(peer, binary, job, plan.connections)))
    for row, peer in running:
        with _noted(row):
            _load(peer, plan, stage, WARM_UP_SECONDS)
    for number in range(plan.rounds):
        for row, peer in running:
            if not row.note:
                plan.progress(f"{peer.job.name}: round {number + 1} of {plan.rounds}, {row.peer}")
                with _noted(row):
                    row.samples.append(_load(peer, plan, stage, plan.seconds))
    for _, peer in running:
        stage.stop(peer)


def _load(running: Running, plan: Plan, stage: Stage, seconds: int) -> Sample:
    """Load one running peer and take what it cost."""
    running.child.check()
    headers = running.job.headers(stage.credentials)
    before, started = running.child.cpu(), time.monotonic()
    load = run_load(running.job, running.port, headers, seconds, plan.connections, stage.cores, running.folder)
    cost, elapsed = running.child.cpu() - before, time.monotonic() - started
    running.child.check()
    if load.requests == 0:
        raise Failed("no request was answered")
    memory = running.child.memory()
    return Sample(
        cpu=cost.total / load.requests,
        user=cost.user / load.requests,
        system=cost.system / load.requests,
        rps=load.rps,
        p50=load.p50,
        p99=load.p99,
        pss=memory.pss / 1024,
        peak=memory.peak / 1024,
        requests=load.requests,
        non_2xx=load.non_2xx,
        socket_errors=load.socket_errors,
        busy=cost.total / 1_000_000 / elapsed,
    )


def _measure_idle(able: list[tuple[Row, Peer, str, Job]], plan: Plan, stage: Stage) -> None:
    """A fresh process for every measurement, as an allocator keeps what an earlier round freed."""
    for number in range(plan.rounds):
        for row, peer, binary, job in able:
            if not row.note:
                plan.progress(f"{job.name}: round {number + 1} of {plan.rounds}, {row.peer}")
                with _noted(row):
                    running = stage.start(peer, binary, job, plan.idle_connections)
                    try:
                        row.idle.append(_idle(running, plan.idle_connections, stage))
                    finally:
                        stage.stop(running)


def _idle(running: Running, count: int, stage: Stage) -> IdleSample:
    """Memory of one running peer before and while it holds `count` idle connections."""
    time.sleep(SETTLE_SECONDS)
    base = running.child.memory()
    argv = ["taskset", "-c", stage.cores.load, sys.executable, "-B", str(IDLE_CLIENT)]
    argv += [str(running.port), running.job.path, str(count)]
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as client:
        try:
            assert client.stdout is not None
            report = client.stdout.readline()
            if not report:
                raise Failed(f"idle client: {client.communicate(timeout=5)[1].strip().splitlines()[-1]}")
            time.sleep(SETTLE_SECONDS)
            memory = running.child.memory()
            left, _ = client.communicate("\n", timeout=IDLE_CLIENT_SECONDS)
        finally:
            client.kill()
    running.child.check()
    answered = _number(report, "answered")
    return IdleSample(
        kb=(memory.pss - base.pss) / max(answered, 1),
        base=base.pss / 1024,
        pss=memory.pss / 1024,
        peak=memory.peak / 1024,
        dropped=count - _number(left, "open"),
    )


def _number(line: str, name: str) -> int:
    report: Mapping[str, int] = json.loads(line)
    return report[name]


@contextmanager
def _noted(row: Row) -> Iterator[None]:
    """Write a peer's failure into its row, so that the others go on."""
    try:
        yield
    except Failed as failure:
        row.note = f"failed: {failure}"
