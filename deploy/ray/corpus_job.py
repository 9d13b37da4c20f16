#!/usr/bin/env python3
"""One job over a corpus, its shards spread over several servers by Ray Data.

    python deploy/ray/corpus_job.py feature_statistics smollm2-135m/l12-resid \\
        --dataset corpus --servers gpu0:7070,gpu1:7070 --shards 16 --out shards

Before: `pip install 'ray[data]'` and the client on every machine of the Ray
cluster, and the dataset on every server (`cupola --server ... datasets upload`).

An actor for each server computes one shard after another; the states come back
through Ray and are kept as files in --out. When all are there, the first server
(or --merge-on) makes one job of them: the result of the job that one server
would have computed. Started again, it computes only the shards that are missing.
With Ray's own address in $RAY_ADDRESS it joins that cluster, else it starts one
on this machine. Actors take no CPU: the servers do the work.
"""

import argparse
import json
import pathlib
import sys
import tempfile

import cupola


class ShardWorker:
    """An actor of the pool: has one server, computes shards on it."""

    def __init__(self, addresses, token, job):
        import ray

        self.job = job
        # Of each actor another one; a restarted one goes on in turn.
        address = ray.get(addresses.take.remote())
        self.client = cupola.connect(address, token=token)

    def __call__(self, row):
        job, client = self.job, self.client
        model = client.describe(job["dictionary"].removesuffix(":in")).model
        rows = client.dataset(job["dataset"]).select(model, **job["rows"])
        shard = client.submit(
            job["kind"],
            job["dictionary"],
            rows,
            shard=(row["index"], job["shards"]),
            **job["options"],
        )
        shard.wait(progress=False)
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "state")
            shard.save_shard(path)
            shard.delete()
            return {"index": row["index"], "state": path.read_bytes()}


class Addresses:
    """Hands out the servers in turn."""

    def __init__(self, servers):
        self.servers, self.next = servers, 0

    def take(self):
        self.next += 1
        return self.servers[(self.next - 1) % len(self.servers)]


def compute(servers, token, job, missing, path_of):
    """Writes the missing shards' files, each as soon as it is there."""
    import ray
    import ray.data

    ray.init(ignore_reinit_error=True, logging_level="warning")
    # A line per shard says enough.
    ray.data.DataContext.get_current().enable_progress_bars = False
    addresses = ray.remote(num_cpus=0)(Addresses).remote(servers)
    shards = ray.data.from_items(
        [{"index": index} for index in missing], override_num_blocks=len(missing)
    )
    states = shards.map(
        ShardWorker,
        fn_constructor_args=(addresses, token, job),
        # One at a time each: no shard waits while a server is idle.
        compute=ray.data.ActorPoolStrategy(
            size=min(len(servers), len(missing)), max_tasks_in_flight_per_actor=1
        ),
        num_cpus=0,
    )
    for row in states.iter_rows():
        path = path_of(row["index"])
        part = path.with_name(path.name + ".part")
        part.write_bytes(row["state"])
        part.replace(path)
        print(f"shard {row['index']} of {job['shards']}: {path}", flush=True)
    ray.shutdown()


def option(text):
    name, _, value = text.partition("=")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        raise argparse.ArgumentTypeError(
            f"expected NAME=JSON, as in top_k=50, got {text!r}"
        ) from None


def arguments(argv):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", help="feature_statistics or accumulate_jacobian")
    parser.add_argument("dictionary", help="a dictionary, or a pair")
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--servers", required=True, type=lambda text: text.split(","))
    parser.add_argument("--shards", type=int, help="default: 4 for each server")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("shards"))
    parser.add_argument("--merge-on", help="default: the first server")
    parser.add_argument("--name", help="of the merged job")
    parser.add_argument("--token", help="presented to the servers")
    parser.add_argument(
        "--option", action="append", type=option, default=[], help="of the kind"
    )
    parser.add_argument(
        "--rows",
        action="append",
        type=option,
        default=[],
        help="of Dataset.select: packed=true, skip_positions=1, ...",
    )
    given = parser.parse_args(argv)
    given.shards = given.shards or 4 * len(given.servers)
    if given.shards < 1:
        parser.error(f"--shards {given.shards}: expected 1 or more")
    return given


def main(argv=None):
    given = arguments(argv)
    given.out.mkdir(parents=True, exist_ok=True)
    job = {
        "kind": given.kind,
        "dictionary": given.dictionary,
        "dataset": given.dataset,
        "shards": given.shards,
        "options": dict(given.option),
        "rows": dict(given.rows),
    }

    def path_of(index):
        return given.out / f"shard-{index}-of-{given.shards}"

    missing = [i for i in range(given.shards) if not path_of(i).exists()]
    if missing:
        compute(given.servers, given.token, job, missing, path_of)
    merge_on = given.merge_on or given.servers[0]
    with cupola.connect(merge_on, token=given.token) as client:
        paths = [path_of(i) for i in range(given.shards)]
        print(client.merge_shards(paths, name=given.name).info)
    return 0


if __name__ == "__main__":
    sys.exit(main())
