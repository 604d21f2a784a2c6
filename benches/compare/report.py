"""The report: a Markdown table per job, and everything as JSON."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence

from jobs import Job
from measure import IdleSample, Row, Sample

YARDSTICK = "nginx"
LOAD_COLUMNS = "peer|CPU us/req (min-max)|x nginx|user/sys us|rps|p50 ms|p99 ms|PSS MB|HWM MB|non-2xx|errors".split("|")
IDLE_COLUMNS = "peer|KB per connection (min-max)|x nginx|base PSS MB|PSS MB|HWM MB|dropped".split("|")


def facts(pairs: Mapping[str, str]) -> str:
    """The machine, the versions and the settings, as a list."""
    return "\n".join(f"- {name}: {value}" for name, value in pairs.items())


def table(job: Job, rows: Sequence[Row], aligned: bool) -> str:
    """One job as a heading and a Markdown table."""
    columns, cells = (IDLE_COLUMNS, _idle_cells(rows)) if job.driver == "idle" else (LOAD_COLUMNS, _load_cells(rows, job))
    if job.twin:
        columns = [column.replace(YARDSTICK, "the first") for column in columns]
    lines = [columns, *cells]
    widths = [0] * len(columns)
    if aligned:
        # A row without numbers has only a note (skipped, failed), which may be long.
        full = [line for line in lines if len(line) == len(columns)]
        widths = [max(map(len, column)) for column in zip(*full)]
    body = [_line(line, widths) for line in lines]
    body.insert(1, _line(["-" * max(width, 3) for width in widths], widths))
    return "\n".join([f"### {job.name}: {job.title}", "", *body])


def as_json(pairs: Mapping[str, str], results: Mapping[str, Sequence[Row]]) -> dict[str, object]:
    """Every sample of the run."""
    jobs = {name: [dataclasses.asdict(row) for row in rows] for name, rows in results.items()}
    return {"run": dict(pairs), "jobs": jobs}


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = list(cells) + [""] * (len(widths) - len(cells))
    return "| " + " | ".join(cell.ljust(width) for cell, width in zip(padded, widths)) + " |"


def _load_cells(rows: Sequence[Row], job: Job) -> list[list[str]]:
    yardstick = _yardstick(rows, lambda row: [sample.cpu for sample in row.samples], rows[0].peer if job.twin else YARDSTICK)
    return [_load_row(row, yardstick) if row.samples else [row.peer, row.note] for row in rows]


def _load_row(row: Row, yardstick: float | None) -> list[str]:
    def middle(value: Callable[[Sample], float]) -> float:
        return statistics.median(map(value, row.samples))

    cpu = [sample.cpu for sample in row.samples]
    return [
        _name(row),
        _spread(cpu),
        _ratio(statistics.median(cpu), yardstick),
        f"{middle(lambda sample: sample.user):.1f}/{middle(lambda sample: sample.system):.1f}",
        f"{middle(lambda sample: sample.rps):.0f}",
        f"{middle(lambda sample: sample.p50):.2f}",
        f"{middle(lambda sample: sample.p99):.2f}",
        f"{max(sample.pss for sample in row.samples):.0f}",
        f"{max(sample.peak for sample in row.samples):.0f}",
        _share(sum(sample.non_2xx for sample in row.samples), sum(sample.requests for sample in row.samples)),
        str(sum(sample.socket_errors for sample in row.samples)),
    ]


def _idle_cells(rows: Sequence[Row]) -> list[list[str]]:
    yardstick = _yardstick(rows, lambda row: [sample.kb for sample in row.idle])
    return [_idle_row(row, yardstick) if row.idle else [row.peer, row.note] for row in rows]


def _idle_row(row: Row, yardstick: float | None) -> list[str]:
    def middle(value: Callable[[IdleSample], float]) -> float:
        return statistics.median(map(value, row.idle))

    per_connection = [sample.kb for sample in row.idle]
    return [
        _name(row),
        _spread(per_connection),
        _ratio(statistics.median(per_connection), yardstick),
        f"{middle(lambda sample: sample.base):.1f}",
        f"{middle(lambda sample: sample.pss):.1f}",
        f"{max(sample.peak for sample in row.idle):.0f}",
        str(max(sample.dropped for sample in row.idle)),
    ]


def _name(row: Row) -> str:
    """The peer, and what went wrong after its first samples."""
    return f"{row.peer} ({row.note})" if row.note else row.peer


def _yardstick(rows: Iterable[Row], values: Callable[[Row], list[float]], name: str = YARDSTICK) -> float | None:
    """The median of this peer in this job, whichever job it ran in its place."""
    for row in rows:
        if name in (row.peer, row.peer.split(" ")[0]) and values(row):
            return statistics.median(values(row))
    return None


def _ratio(value: float, yardstick: float | None) -> str:
    return f"{value / yardstick:.2f}" if yardstick else "-"


def _spread(values: Sequence[float]) -> str:
    """Median, least and greatest; two decimals where one would hide the number."""
    digits = 1 if statistics.median(values) >= 10 else 2
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def _share(part: int, whole: int) -> str:
    return f"{part} ({100 * part / whole:.2f} %)" if part else "0"
