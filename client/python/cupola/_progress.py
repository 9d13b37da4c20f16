"""Bars that show how something gets on."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Callable, Iterator, Optional

if TYPE_CHECKING:
    from .jobs import Job


@contextlib.contextmanager
def bar(job: Job, wanted: Optional[bool]) -> Iterator[Callable[[Any], None]]:
    """What to call with each JobInfo. `wanted` None: a bar on standard error
    where that is a terminal, or in a notebook."""
    from rich.console import Console

    console = Console(stderr=True)
    if wanted is None:
        wanted = console.is_terminal or console.is_jupyter
    if not wanted:
        yield lambda info: None
        return
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(job.info.title or job.id, rate="")

        def show(info: Any) -> None:
            rate = info.tokens_per_second
            progress.update(
                task,
                total=info.tokens or None,
                completed=info.tokens_done,
                description=f"{info.title or info.id} {info.state}",
                rate=f"{rate:,.0f} tokens/s" if rate else "",
            )

        show(job.info)
        yield show


@contextlib.contextmanager
def counted(what: str) -> Iterator[Callable[[int, int], None]]:
    """What to call with (done, all): a bar on standard error, from the first
    call on until the end."""
    from rich.console import Console
    from rich.progress import Progress

    progress = Progress(console=Console(stderr=True), transient=True)
    task = progress.add_task(what, total=None)

    def advance(done: int, total: int) -> None:
        progress.start()
        progress.update(task, completed=done, total=total)

    try:
        yield advance
    finally:
        if progress.live.is_started:
            progress.stop()
