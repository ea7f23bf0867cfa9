"""Every network answers as it did when it last passed its release's cases. Needs no file from elsewhere, so it always runs."""

import numpy as np
import pytest
from regression import own_cases as cases

from featherflow import networks

#: Largest difference, as a share of the mean length of the tensor: sums are added in another order on other machines.
TOLERANCE = 1e-3
#: Of those that weigh places by a softmax twice, which makes more of it: 0.0024 on a CPU without AVX-512.
TOLERANCES = {"gmflow-refine": 5e-3}


@pytest.mark.parametrize("name", networks.names())
def test_answers_as_it_did(name):
    file = cases.FOLDER / f"{name}.npz"
    assert file.is_file(), f"{file} is missing: the cases are part of the repository"
    with np.load(file) as kept:
        expected = dict(kept)
    found = cases.answers(name)
    assert set(found) == set(expected) and len(expected) >= 2
    share = TOLERANCES.get(name, TOLERANCE)
    for key, values in expected.items():
        size = float(np.abs(values).mean())
        assert size > 1e-4, f"{name} {key}: there is nothing to compare"
        assert np.abs(found[key] - values).max() <= share * max(size, float(np.abs(values).max()) / 10), (
            name,
            key,
        )


def test_no_case_is_left_over():
    kept = {file.stem for file in cases.FOLDER.glob("*.npz")}
    assert kept == set(networks.names())
    assert sum(file.stat().st_size for file in cases.FOLDER.iterdir()) < 1_500_000
