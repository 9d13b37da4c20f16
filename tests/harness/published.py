"""The published definitions of direction ablations' and sweeps' classes, written
anew in PyTorch, with how far each was from another class."""

import torch

# Of the published notebook.
ON_LINE, CLUSTER_JACOBIAN, CLUSTER_DROP = 0.1, 0.05, -0.5


def ablation_class(jacobian, delta, difference):
    """0: on the line, 1: in the cluster, 2: an outlier."""
    if abs(delta * jacobian + difference) < ON_LINE:
        return 0
    return 1 if jacobian < CLUSTER_JACOBIAN and difference < CLUSTER_DROP else 2


def ablation_margin(jacobian, delta, difference):
    """How near a comparison is to its other outcome."""
    error = abs(delta * jacobian + difference)
    margin = abs(error - ON_LINE)
    if error < ON_LINE:
        return margin
    return min(
        margin, abs(jacobian - CLUSTER_JACOBIAN), abs(difference - CLUSTER_DROP)
    )


def sweep_class(t, y, tolerance=1e-2, published=False):
    """(kind, slope, intercept, margin) of a curve. Kinds: 0 linear, 1 JumpReLU,
    2 other; `published` calls a line without a zero region a JumpReLU too. The
    zero region goes from the first zero to the last, whatever lies between."""
    t, y = torch.as_tensor(t).double(), torch.as_tensor(y).double()
    zeros = torch.nonzero(y == 0).flatten()
    outside = torch.ones(len(y), dtype=torch.bool)
    if len(zeros):
        outside[zeros[0] : zeros[-1] + 1] = False
    design = torch.stack([t[outside], torch.ones(int(outside.sum()))], 1).double()
    slope, intercept, residual = 0.0, 0.0, 0.0
    if len(design):
        # The one driver that takes designs of too few points.
        solved = torch.linalg.lstsq(design, y[outside, None], driver="gelsd").solution
        residual = float((design @ solved - y[outside, None]).abs().max())
        slope, intercept = solved.flatten().tolist()
    kind = 2 if residual >= tolerance else int(len(zeros) > 0 or published)
    return kind, slope, intercept, abs(residual - tolerance)
