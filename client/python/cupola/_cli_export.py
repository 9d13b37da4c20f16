"""The command `cupola export`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, List, Optional

import typer

from ._cli_session import Shown, command, fail, numbers
from ._progress import counted
from .client import Client
from .coactivation import Coactivation
from .feature_statistics import FeatureStatistics

app = typer.Typer()


@command(app)
def export(
    client: Client,
    job: Annotated[str, typer.Argument(help="A feature_statistics job's id.")],
    folder: Annotated[Path, typer.Argument(help="Is made if missing.")],
    latents: Annotated[
        Optional[str],
        typer.Option(help="As in 3,17; default: all that are not dead."),
    ] = None,
    prompts: Annotated[
        Optional[Path],
        typer.Option(
            help="Of a job over prompts: a JSON list of their token ids."
        ),
    ] = None,
    skip_positions: Annotated[
        int, typer.Option(min=0, help="As the job's rows were selected.")
    ] = 0,
    coactivation: Annotated[
        Optional[str],
        typer.Option(help="A coactivation job's id: for correlated latents."),
    ] = None,
    name: Annotated[
        Optional[str], typer.Option(help="For the dictionary, in the files.")
    ] = None,
    model_id: Annotated[
        Optional[str], typer.Option(help="For the model, in the files.")
    ] = None,
    top: Annotated[int, typer.Option(min=0, help="Maximal examples.")] = 20,
    intervals: Annotated[
        int, typer.Option(min=1, help="From 0 to the maximum.")
    ] = 5,
    each: Annotated[
        int, typer.Option(min=0, help="Examples of each interval.")
    ] = 5,
    logits: Annotated[
        int, typer.Option(min=1, help="Tokens raised, and lowered.")
    ] = 10,
    vectors: Annotated[
        bool, typer.Option("--vectors", help="With the decoder's rows.")
    ] = False,
    latents_per_file: Annotated[
        int, typer.Option(min=1, help="In each batch-N.json.")
    ] = 128,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace what is there.")
    ] = False,
) -> Shown:
    """Write a job's feature statistics as SAEDashboard writes them, for
    Neuronpedia."""
    statistics = client.job(job).result()
    if not isinstance(statistics, FeatureStatistics):
        fail(f"{job} is no feature_statistics job", 2)
    together = client.job(coactivation).result() if coactivation else None
    if together is not None and not isinstance(together, Coactivation):
        fail(f"--coactivation {coactivation} is no coactivation job", 2)
    chosen = numbers(latents, "--latents")
    with counted("writing") as advance:
        written = statistics.export(
            folder,
            chosen,
            prompts=_token_ids(prompts),
            skip_positions=skip_positions,
            coactivation=together,
            name=name,
            model_id=model_id,
            top=top,
            intervals=intervals,
            each=each,
            logits=logits,
            vectors=vectors,
            latents_per_file=latents_per_file,
            overwrite=overwrite,
            progress=advance,
        )
    return Shown(
        lambda: print(
            f"wrote {written.latents} latents to {len(written.files)} files in "
            f"{written.folder}; {written.skipped} skipped"
        ),
        lambda: {
            "folder": str(written.folder),
            "files": [path.name for path in written.files],
            "latents": written.latents,
            "skipped": written.skipped,
        },
    )


def _token_ids(path: Optional[Path]) -> Optional[List[List[int]]]:
    if path is None:
        return None
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        return [[int(index) for index in row] for row in rows]
    except (OSError, ValueError, TypeError) as error:
        fail(f"--prompts {path}: {error}", 2)
