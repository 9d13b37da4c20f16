"""Small random models of every family, with dictionaries that fit them."""

import sys

from harness.server import ROOT, catalog_text

sys.path += [str(ROOT / "tests" / "parity" / name) for name in ("model", "dictionary")]
import make_dictionaries  # noqa: E402  (found through the line above)
import make_models  # noqa: E402

# What the small dictionaries read, and what the transcoders among them write.
HOOK, HOOK_OUT = "blocks.1.hook_resid_pre", "blocks.1.hook_mlp_out"
D_MODEL = make_models.FAMILIES["llama"][2]["hidden_size"]


class Zoo:
    """Folders of models, and of dictionaries that fit them: made once."""

    def __init__(self, folder):
        self.folder = folder
        self.models = {}  # name: folder
        self.dictionaries = {}  # name: (model, folder)

    def add(self, family, architecture):
        """The dictionary FAMILY/ARCHITECTURE, and its model if it is new."""
        if family not in self.models:
            self.models[family] = make_models.make(family, self.folder / family)
        name = f"{family}/{architecture}"
        transcoder = make_dictionaries.is_transcoder(architecture)
        folder = make_dictionaries.make(
            architecture,
            self.folder / name,
            d_in=D_MODEL,
            hook_name=HOOK,
            hook_name_out=HOOK_OUT if transcoder else None,
            seed=len(self.dictionaries),
        )
        self.dictionaries[name] = (family, folder)

    def catalog(self):
        return catalog_text(self.models, self.dictionaries)


def combinations():
    """Every family with two architectures, every architecture with a few."""
    families = list(make_models.FAMILIES)
    architectures = make_dictionaries.ARCHITECTURES
    return [
        (family, architectures[(2 * index + offset) % len(architectures)])
        for index, family in enumerate(families)
        for offset in (0, 1)
    ]
