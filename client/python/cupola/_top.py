"""`cupola top`: what a server does, as a page for the terminal."""

from __future__ import annotations

import dataclasses
import time
from typing import Callable, List, Optional, Tuple

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ._html import seconds_text, size_text
from ._metrics import Page, quantile
from ._terminal import new_table

_QUANTILES = (0.5, 0.95, 0.99)
_STAGES = ("lookup", "queue", "compute", "serialize")
_MOST_ENTRIES = 20


@dataclasses.dataclass(frozen=True)
class Frame:
    """Counters between two pages; without the first, since the start."""

    now: Page
    before: Optional[Page]
    seconds: float

    @staticmethod
    def of(now: Page, before: Optional[Page], seconds: float) -> Frame:
        started = now.sum("cupola_start_time_seconds")
        if before is not None and before.sum(
            "cupola_start_time_seconds"
        ) != started:
            before = None  # another server, or the same one started again
        if before is None:
            seconds = max(time.time() - started, 1e-3)
        return Frame(now, before, max(seconds, 1e-3))

    def count(self, name: str, **labels: str) -> float:
        """By how much a counter has grown."""
        before = self.before.sum(name, **labels) if self.before else 0.0
        return self.now.sum(name, **labels) - before

    def rate(self, name: str, **labels: str) -> float:
        return self.count(name, **labels) / self.seconds

    def share(self, name: str, key: str, value: str) -> Optional[float]:
        """Of a counter, what has this label; None without a count."""
        total = self.count(name)
        return self.count(name, **{key: value}) / total if total > 0 else None

    def mean(self, histogram: str, **labels: str) -> Optional[float]:
        count = self.count(f"{histogram}_count", **labels)
        total = self.count(f"{histogram}_sum", **labels)
        return total / count if count > 0 else None

    def quantile(
        self, share: float, histogram: str, **labels: str
    ) -> Optional[float]:
        before = (
            self.before.buckets(histogram, **labels) if self.before else None
        )
        return quantile(share, self.now.buckets(histogram, **labels), before)


def render(frame: Frame, target: str) -> RenderableType:
    parts: List[RenderableType] = [_summary(frame, target), "", _methods(frame)]
    entries = _entries(frame)
    if entries is not None:
        parts += ["", entries]
    return Group(*parts)


def _summary(frame: Frame, target: str) -> RenderableType:
    now = frame.now
    build = now.samples.get("cupola_build_info", [({}, 1.0)])[0][0]
    up = max(time.time() - now.sum("cupola_start_time_seconds"), 0.0)
    span = "since the start" if frame.before is None else (
        f"over {frame.seconds:.1f} s"
    )
    title = Text(target, "bold")
    title.append(
        f"  version {build.get('version', '?')}, up {_duration(up)}; "
        f"rates {span}",
        "dim",
    )
    cells: List[str] = []
    table = Table(
        box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0)
    )
    for _ in range(3):  # fits a terminal of 80 columns
        table.add_column(style="dim", no_wrap=True)
        table.add_column(no_wrap=True)
    batch = frame.mean("cupola_batch_tokens")
    hits = frame.share("cupola_cache_lookups_total", "result", "hit")
    capacity = "cupola_cache_capacity_bytes"
    for row in (
        ("requests", f"{frame.rate('cupola_requests_total'):,.1f}/s"),
        ("in flight", f"{now.sum('cupola_requests_in_flight'):,.0f}"),
        ("errors", _percent(_errors(frame))),
        ("tokens", f"{frame.rate('cupola_prompt_tokens_total'):,.0f}/s"),
        ("queued", _queue(now)),
        ("batch", "-" if batch is None else f"{batch:,.1f} tokens"),
        ("busy", _percent(frame.rate("cupola_batch_seconds_sum"))),
        ("memory", _memory(now)),
        ("in use", _of(now, "cupola_inflight_bytes", "cupola_budget_bytes")),
        ("cache hits", _percent(hits)),
        ("on disk", _of(now, "cupola_cache_bytes", capacity, tier="disk")),
        ("hot", size_text(now.sum("cupola_cache_bytes", tier="memory"))),
    ):
        cells.extend(row)
    for first in range(0, len(cells), 6):
        table.add_row(*map(Text, cells[first : first + 6]))
    stages = Text()
    for stage in _STAGES:
        mean = _seconds(frame.mean(f"cupola_{stage}_seconds"))
        stages.append(f"{stage} ", "dim").append(f"{mean}  ")
    return Group(title, table, stages)


def _methods(frame: Frame) -> RenderableType:
    table = new_table(
        "method", "#requests/s", "#errors", "#p50", "#p95", "#p99"
    )
    rows: List[Tuple[float, str]] = []
    for method in frame.now.values("cupola_requests_total", "method"):
        rate = frame.rate("cupola_requests_total", method=method)
        if rate > 0:
            rows.append((rate, method))
    for rate, method in sorted(rows, key=lambda row: (-row[0], row[1])):
        table.add_row(
            method,
            f"{rate:,.1f}",
            _percent(_errors(frame, method=method)),
            *(
                _seconds(
                    frame.quantile(q, "cupola_request_seconds", method=method)
                )
                for q in _QUANTILES
            ),
        )
    if not rows:
        table.add_row(Text("no requests", "dim"))
    return table


def _entries(frame: Frame) -> Optional[RenderableType]:
    """Models and dictionaries that are resident, the largest first."""
    found = [
        (value, labels.get("name", ""), labels.get("kind", ""))
        for labels, value in frame.now.samples.get("cupola_resident_bytes", ())
        if value > 0
    ]
    if not found:
        return None
    found.sort(key=lambda entry: (-entry[0], entry[1]))
    table = new_table("resident", "kind", "#bytes")
    for value, name, kind in found[:_MOST_ENTRIES]:
        table.add_row(Text(name), kind, size_text(value))
    if len(found) > _MOST_ENTRIES:
        rest = sum(entry[0] for entry in found[_MOST_ENTRIES:])
        table.add_row(
            Text(f"and {len(found) - _MOST_ENTRIES} more", "dim"),
            "",
            size_text(rest),
        )
    return table


def _errors(frame: Frame, **labels: str) -> Optional[float]:
    total = frame.count("cupola_requests_total", **labels)
    good = frame.count("cupola_requests_total", code="OK", **labels)
    return (total - good) / total if total > 0 else None


def _queue(now: Page) -> str:
    bulk = now.sum("cupola_queue_depth", priority="bulk")
    waiting = now.sum("cupola_queue_depth") - bulk
    return f"{waiting:,.0f}" + (f" and {bulk:,.0f} bulk" if bulk else "")


def _memory(now: Page) -> str:
    parts = []
    for device in now.values("cupola_device_memory_bytes", "device"):
        used = now.sum("cupola_device_memory_bytes", device=device)
        parts.append(f"{device} {size_text(used)}")
    return ", ".join(parts) or "-"


def _of(now: Page, used: str, most: str, **labels: str) -> str:
    if used not in now.samples:
        return "-"
    text = size_text(now.sum(used, **labels))
    whole = now.sum(most)
    return f"{text} / {size_text(whole)}" if whole > 0 else text


def _percent(share: Optional[float]) -> str:
    return "-" if share is None else f"{share:.1%}"


def _seconds(value: Optional[float]) -> str:
    return "-" if value is None else seconds_text(value)


def _duration(seconds: float) -> str:
    days, rest = divmod(int(seconds), 86400)
    hours, rest = divmod(rest, 3600)
    minutes, rest = divmod(rest, 60)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def watch(
    fetch: Callable[[], Page],
    show: Callable[[Frame], None],
    interval: float,
) -> None:
    """Shows a frame every `interval` seconds, until interrupted."""
    before: Optional[Page] = None
    last = time.monotonic()
    while True:
        now = fetch()
        moment = time.monotonic()
        show(Frame.of(now, before, moment - last))
        before, last = now, moment
        time.sleep(interval)
