"""What users write as interventions and targets, as messages."""

import cupola
import numpy as np
import pandas
import pytest
from cupola import ablation, interventions

HOOK = "blocks.0.hook_resid_pre"


def message(intervention):
    return interventions.message_of(intervention, "interventions[3]")


def test_a_name_goes_as_a_name_and_numbers_as_numbers():
    for make, field in [
        (cupola.Set, "set"),
        (cupola.Mean, "set"),
        (cupola.Add, "add"),
        (cupola.ProjectOut, "project_out"),
    ]:
        named = getattr(message(make(HOOK, "corpus")), field)
        assert named.mean == "corpus" and not named.HasField("value")
        given = getattr(message(make(HOOK, np.ones((2, 3)))), field)
        assert not given.mean and list(given.value.shape) == [2, 3]
    with pytest.raises(cupola.InvalidArgument, match=r"interventions\[3\].value: an empty"):
        message(cupola.Mean(HOOK, ""))
    with pytest.raises(cupola.InvalidArgument, match=r"interventions\[3\].value"):
        message(cupola.Add(HOOK, object()))


def test_a_mean_is_narrowed_as_others_are():
    mean = message(cupola.Mean(HOOK, "corpus", positions=[-1], heads=2, neurons=[0, 5]))
    assert list(mean.heads) == [2] and list(mean.neurons) == [0, 5]
    assert list(mean.positions.every_prompt.values) == [-1]


def test_targets_are_rows_or_a_table():
    rows = [[0, -2, 7], [1, 3, 2]]
    table = pandas.DataFrame(rows, columns=["prompt", "position", "latent"])
    table["token"] = "x"
    for targets in (rows, np.array(rows), table):
        found = ablation._targets(targets)
        assert [[t.prompt, t.position, t.latent] for t in found] == rows
    for bad in ([[0, 1]], [[0, 1, 2.5]], [], [[-1, 0, 0]], table[["prompt", "latent"]]):
        with pytest.raises(cupola.InvalidArgument, match="targets"):
            ablation._targets(bad)
