"""Particles that one frame alone shows."""

import pytest
import torch

from featherflow.data import SceneConfig, TextureBank, render_pairs
from featherflow.errors import InputError

SIZE = {"height": 64, "width": 96, "effects": None}


@pytest.fixture(scope="module")
def textures():
    return TextureBank.procedural(4, 128, torch.Generator().manual_seed(0), particles=5)


def rendered(textures, **scene):
    return render_pairs(4, SceneConfig(**SIZE, **scene), textures, torch.Generator().manual_seed(2))


def test_each_frame_gets_others_and_the_flow_stays(textures):
    plain, some = rendered(textures, particles=1.0), rendered(textures, particles=1.0, unpaired=0.8)
    assert torch.equal(plain.flow, some.flow) and torch.equal(plain.occluded, some.occluded)
    added = [after - before for after, before in ((some.frame1, plain.frame1), (some.frame2, plain.frame2))]
    for change in added:
        assert change.min() >= -1e-6 and (change.flatten(1).amax(1) > 0.01).any()
    assert max(frame.max() for frame in (some.frame1, some.frame2)) <= 1 + 1e-6
    brightest = [change.flatten(1).amax(1) for change in added]
    shares = [torch.corrcoef(torch.stack([change[pair].flatten() for change in added]))[0, 1] for pair in range(4)]
    assert max(share for share, bright in zip(shares, brightest[0], strict=True) if bright > 0.01) < 0.3  # not the same ones


def test_other_scenes_and_a_share_of_zero_stay_as_they_are(textures):
    assert torch.equal(rendered(textures, particles=0.0, unpaired=0.8).frame1, rendered(textures, particles=0.0).frame1)
    again = rendered(textures, particles=1.0, unpaired=0.8)
    assert torch.equal(again.frame2, rendered(textures, particles=1.0, unpaired=0.8).frame2)
    mixed, plain = rendered(textures, particles=0.5, unpaired=0.8), rendered(textures, particles=0.5)
    changed = (mixed.frame1 != plain.frame1).flatten(1).any(1)
    assert 0 < int(changed.sum()) < 4


def test_a_share_of_more_than_all_is_refused():
    with pytest.raises(InputError, match=r"unpaired is a share of brightness, within 0..1, got 1.5"):
        SceneConfig(unpaired=1.5)
