"""Bars that show how something gets on."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any, Callable, Iterator, Optional

from . import _html

if TYPE_CHECKING:
    from rich.console import Console

    from .job_info import JobInfo
    from .jobs import Job

Show = Callable[["JobInfo"], None]
_TITLE = 32  # characters of a job's title beside its bar


@contextlib.contextmanager
def bar(
    job: Job, wanted: Optional[bool], console: Optional[Console] = None
) -> Iterator[Show]:
    """What to call with each JobInfo. `wanted` None: a bar on standard error
    where that is a terminal, or in a notebook. `console`: where to draw,
    instead."""
    from rich.console import Console

    console = console or Console(stderr=True)
    notebook = wanted is not False and _in_notebook()
    if wanted is None:
        wanted = console.is_terminal
    if notebook:
        yield _notebook_bar(job)
    elif wanted:
        with _terminal_bar(job, console) as show:
            yield show
    else:
        yield lambda info: None


@contextlib.contextmanager
def _terminal_bar(job: Job, console: Console) -> Iterator[Show]:
    from rich.progress import BarColumn, Progress, TextColumn
    from rich.table import Column

    whole = Column(no_wrap=True)
    columns = (
        TextColumn(
            "{task.description}",
            markup=False,
            table_column=Column(
                no_wrap=True, overflow="ellipsis", max_width=_TITLE
            ),
        ),
        TextColumn("{task.fields[state]}", table_column=whole),
        BarColumn(bar_width=16),
        TextColumn("{task.percentage:>3.0f}%", table_column=whole),
        TextColumn("{task.fields[pace]}", table_column=whole),
    )
    progress = Progress(
        *columns,
        console=console,
        # What is printed between two updates stands above the bar; where it
        # goes to a file it stays there.
        redirect_stdout=sys.stdout.isatty(),
    )

    def fields(info: JobInfo) -> Any:
        return {
            "total": info.tokens or None,
            "completed": info.tokens_done,
            "description": _name_of(info),
            "state": info.state,
            "pace": _pace(info),
        }

    # Before the bar is drawn for the first time.
    task = progress.add_task(**fields(job.info))
    with progress:
        yield lambda info: progress.update(task, **fields(info))


def _notebook_bar(job: Job) -> Show:
    """A bar of HTML, which needs no widgets."""
    # In a notebook it is there, and typed nowhere.
    from IPython.display import HTML, display  # type: ignore

    handle: Any = display(HTML(_page(job.info)), display_id=True)
    return lambda info: handle.update(HTML(_page(info)))


def _page(info: JobInfo) -> str:
    share = info.tokens_done / info.tokens if info.tokens else 0.0
    state = "bad" if info.state == "failed" else "badge"
    return (
        f'<div class="cupola"><style>{_html.STYLE}</style><div class="head">'
        f"<b>{_html.text(_name_of(info))}</b>"
        f'<span class="{state}">{_html.text(info.state)}</span>'
        f'<span class="dim">{_html.text(_pace(info))}</span></div>'
        '<div style="background:rgb(128 128 128/.18);border-radius:2px">'
        f'<span class="bar" style="width:{share:.1%}"></span></div>'
        f'<div class="foot dim">{share:.0%}, {info.tokens_done:,} of '
        f"{info.tokens:,} tokens</div></div>"
    )


def _name_of(info: JobInfo) -> str:
    return info.name or f"{info.kind} {info.title}".strip() or info.id


def _pace(info: JobInfo) -> str:
    if info.error:
        return info.error
    parts = []
    if info.tokens_per_second and not info.ended:
        parts.append(f"{info.tokens_per_second:,.0f} tokens/s")
    if info.seconds_left and not info.ended:
        parts.append(f"{_clock(info.seconds_left)} left")
    if info.ended and info.seconds:
        parts.append(f"{info.tokens_done:,} tokens in {_clock(info.seconds)}")
    return ", ".join(parts)


def _clock(seconds: float) -> str:
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return (
        f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
    )


def _in_notebook() -> bool:
    """A kernel, whose front end shows HTML; not IPython in a terminal."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None


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
