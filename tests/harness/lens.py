"""TransformerLens models of the zoo's families, made once."""

import functools

import harness.zoo  # noqa: F401  (puts tests/parity/model on the path)
import make_models
import tl_oracle
import torch

torch.set_grad_enabled(False)

# Families that TransformerLens converts whole.
FAMILIES = [f for f in make_models.FAMILIES if f not in tl_oracle.UNSUPPORTED]
PROCESSINGS = ("raw", "folded")


@functools.lru_cache(maxsize=None)
def hooked(family, processing):
    return tl_oracle.hooked(
        family, make_models.build(family), processing == "folded"
    )


def prompts_for(family, lengths=(9, 1, 14)):
    generator = torch.Generator().manual_seed(len(family))
    return [
        torch.randint(
            0, make_models.VOCABULARY, (n,), generator=generator
        ).tolist()
        for n in lengths
    ]
