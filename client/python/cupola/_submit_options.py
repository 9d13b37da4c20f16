"""How a job is submitted, whatever it computes."""

from __future__ import annotations

import datetime
import uuid
from typing import Any, Optional, Tuple

from . import _protos
from .errors import InvalidArgument


def options_message(
    name: Optional[str] = None,
    shard: Optional[Tuple[int, int]] = None,
    keep: Optional[datetime.timedelta] = None,
) -> Any:
    options = _protos.jobs.JobOptions(
        name=name or "",
        request_id=uuid.uuid4().hex,
        keep_seconds=int(keep.total_seconds()) if keep else 0,
    )
    if shard is not None:
        try:
            index, count = shard
            options.shard.index, options.shard.count = index, count
        except (TypeError, ValueError):
            raise InvalidArgument(
                f"shard: expected (index, count), got {shard!r}"
            ) from None
    return options
