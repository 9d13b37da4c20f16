"""The commands of `cupola import`."""

from __future__ import annotations

import contextlib
import inspect
import json
from pathlib import Path
from typing import Annotated, Callable, Iterator, Optional, get_type_hints

import typer

from ._cli_session import fail
from ._progress import counted

app = typer.Typer(
    help="Turns a model or a dictionary kept in another format into a folder "
    "that a server can load.",
    no_args_is_help=True,
)

Source = Annotated[Path, typer.Argument(help="The file or folder to read.")]
Destination = Annotated[Path, typer.Argument(help="Is made if missing.")]
Model = Annotated[
    Optional[str], typer.Option(help="The model's name, for the catalog.")
]
Hook = Annotated[
    Optional[str],
    typer.Option(help="The hook point it reads, if the source does not say."),
]
HookOut = Annotated[
    Optional[str],
    typer.Option(help="The hook point that a transcoder writes."),
]
Bos = Annotated[
    Optional[bool],
    typer.Option("--bos/--no-bos", help="Whether prompts begin with BOS."),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace what DESTINATION holds.")
]
Factor = Annotated[
    Optional[float],
    typer.Option(
        help="Of inputs, where expected_average_only_in is not folded in yet."
    ),
]


@app.command()
def gguf(
    gguf_file: Annotated[Path, typer.Argument(help="A Llama model.")],
    out_folder: Destination,
) -> None:
    """Write a GGUF file as a Hugging Face folder in float32."""
    from .importers.gguf import import_gguf

    with _progress("dequantizing") as advance:
        import_gguf(gguf_file, out_folder, advance)
    print(f"wrote {out_folder}")


def _command(format: str, help: str) -> None:
    def run(
        source: Source,
        destination: Destination,
        model: Model = None,
        hook: Hook = None,
        hook_out: HookOut = None,
        bos: Bos = None,
        norm_scaling_factor: Factor = None,
        overwrite: Overwrite = False,
    ) -> None:
        _import(
            *(format, source, destination, model, hook, hook_out, bos),
            *(overwrite, norm_scaling_factor),
        )

    if format != "saelens":  # the one whose folders may leave a factor open
        hints = get_type_hints(run, include_extras=True)
        signature = inspect.signature(run)
        run.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=[
                parameter.replace(annotation=hints[name])
                for name, parameter in signature.parameters.items()
                if name != "norm_scaling_factor"
            ]
        )
        del run.__annotations__["norm_scaling_factor"]
    app.command(format, help=help)(run)


for _format, _help in (
    ("saelens", "A SAELens folder of any version."),
    ("gemma-scope", "Gemma Scope's params.npz, or its folder."),
    ("gemma-scope-2", "A Gemma Scope 2 folder (params.safetensors)."),
    ("llama-scope", "A Llama Scope folder (hyperparams.json)."),
    ("dictionary-learning", "A folder with ae.pt and config.json."),
    ("sparsify", "A folder of EleutherAI's sparsify (layers.N)."),
    (
        "mwhanna",
        "A transcoder as circuit-tracer reads it (layer_N.safetensors).",
    ),
    ("dunefsky", "A transcoder of transcoder_circuits (.pt or .pkl.gz)."),
    ("heindrich", "An autoencoder NAME.pt with NAME.json."),
    ("jsae", "A Jacobian SAE pair's folder."),
):
    _command(_format, _help)


def _import(
    format: str,
    source: Path,
    destination: Path,
    model: Optional[str],
    hook: Optional[str],
    hook_out: Optional[str],
    bos: Optional[bool],
    overwrite: bool,
    factor: Optional[float],
) -> None:
    from .importers import import_dictionary

    with _progress("writing") as advance:
        imported = import_dictionary(
            format,
            source,
            destination,
            model=model,
            hook=hook,
            hook_out=hook_out,
            prepend_bos=bos,
            norm_scaling_factor=factor,
            overwrite=overwrite,
            progress=advance,
        )
    where = imported.hook
    if imported.hook_out:
        where += f" to {imported.hook_out}"
    print(f"wrote {destination}: {imported.architecture}, {where}")
    for note in imported.notes:
        print(f"note: {note}")
    # JSON's quoting is text format's, too.
    name, path = (
        json.dumps(text, ensure_ascii=False)
        for text in (imported.model or "MODEL", str(destination.resolve()))
    )
    print(f'catalog: dictionary {{ name: "NAME" model: {name} path: {path} }}')


@contextlib.contextmanager
def _progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar that appears with the first tensor; failures end the command."""
    from .importers import ImportFailed

    try:
        with counted(what) as advance:
            yield advance
    except (ImportFailed, OSError) as error:
        fail(str(error), 1)
