"""States of shards as files.

    "CUPSHARD"   8 bytes
    u32          length of the header, little-endian
    header       a serialized cupola.v1.ShardHeader
    state        the rest: a state file of the server's, with its own checksum
"""

from __future__ import annotations

import datetime
import pathlib
import struct
from typing import TYPE_CHECKING, Any, Iterator, List, Optional

from . import _protos
from ._submit_options import options_message
from .errors import DataLoss, InvalidArgument

if TYPE_CHECKING:
    from .client import Client
    from .jobs import Job

_J = _protos.jobs
_MAGIC = b"CUPSHARD"
_PIECE = 1 << 20


def save(job: Job, path: pathlib.Path) -> None:
    """See Job.save_shard. The file has its name only when it is whole."""
    connection = job._client._connection
    part = path.with_name(path.name + ".part")
    left = None
    with open(part, "wb") as file:
        for message in connection.messages(
            connection.jobs.ExportShard, _J.JobId(id=job.id)
        ):
            if left is None:
                header = message.header.SerializeToString()
                file.write(_MAGIC + struct.pack("<I", len(header)) + header)
                left = message.header.state_bytes
            file.write(message.chunk)
            left -= len(message.chunk)
    if left != 0:
        part.unlink()
        raise DataLoss(f"the state of {job.id} did not come whole")
    part.replace(path)


def merge(
    client: Client,
    paths: List[pathlib.Path],
    name: Optional[str],
    keep: Optional[datetime.timedelta],
) -> Job:
    """See Client.merge_shards."""
    from .job_info import JobInfo
    from .jobs import Job

    connection = client._connection
    message = connection.upload(
        connection.jobs.MergeShards,
        _messages(paths, options_message(name, None, keep)),
    )
    return Job(client, JobInfo.from_message(message))


def _messages(paths: List[pathlib.Path], options: Any) -> Iterator[Any]:
    yield _J.MergeShardsRequest(options=options)
    for path in paths:
        with open(path, "rb") as file:
            start = file.read(len(_MAGIC) + 4)
            if len(start) < len(_MAGIC) + 4 or not start.startswith(_MAGIC):
                raise InvalidArgument(f"{path}: this is no shard")
            (length,) = struct.unpack("<I", start[len(_MAGIC) :])
            header = _J.ShardHeader()
            try:
                header.ParseFromString(file.read(length))
            except Exception:  # protobuf's own, which has no public base
                raise InvalidArgument(f"{path}: its header is damaged") from None
            yield _J.MergeShardsRequest(header=header)
            while piece := file.read(_PIECE):
                yield _J.MergeShardsRequest(chunk=piece)
