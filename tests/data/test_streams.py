"""Streams give every pair once an epoch, the same ones for the same numbers, and do not pile up in memory."""

import shutil

import layouts
import numpy as np
import pytest
import torch

from featherflow.data import PaperAugmentation, SceneConfig, TextureBank, find_pairs
from featherflow.data.streams import AHEAD, ReadPairs, RenderedPairs, find_pools
from featherflow.errors import FileError, InputError
from featherflow.flow import write_flow
from featherflow.images import write_image

SIZE = (32, 64)


@pytest.fixture(scope="module")
def numbered(tmp_path_factory):
    """Ten pairs of frames and flow of one's own, of two sizes; pair k has flow (k, 0) everywhere."""
    root = tmp_path_factory.mktemp("numbered")
    for k in range(10):
        (root / f"frames/{k}").mkdir(parents=True)
        (root / f"flow/{k}").mkdir(parents=True)
        size = (40, 72) if k % 2 else (50, 80)
        for number in (1, 2):
            write_image(root / f"frames/{k}/{number}.png", np.full((*size, 3), 20 * k, np.uint8))
        write_flow(root / f"flow/{k}/1.flo", np.dstack([np.full(size, float(k)), np.zeros(size)]).astype(np.float32))
    return root


def stream(root, **options):
    return ReadPairs([list(find_pairs("folder", root))], SIZE, **options)


def names(batch):
    return batch.flow[:, 0].amax(dim=(1, 2)).int().tolist()


def test_every_pair_once_an_epoch_in_a_new_order(numbered):
    pairs = stream(numbered, seed=3)
    seen = [name for step in range(15) for index in (0, 1) for name in names(pairs.part(step, index, 2, 2, 0))]
    epochs = [seen[:10], seen[10:20], seen[20:]]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2] and epochs[0] != list(range(10))
    other = stream(numbered, seed=4)
    assert [name for step in range(5) for name in names(other.part(step, 0, 1, 2, 0))] != seen[:10]


def test_a_part_depends_on_its_numbers_alone(numbered):
    augment = PaperAugmentation(translation=0.02, rotation=0.05, zoom=(0.1, 0.05))
    through, jumped = (stream(numbered, seed=1, augmentation=augment, threads=threads) for threads in (1, 4))
    for step in range(4):
        expected = through.part(step, 0, 2, 4, 100), through.part(step, 1, 2, 4, 100)
    found = jumped.part(3, 1, 2, 4, 100)
    assert torch.equal(found.frame1, expected[1].frame1) and torch.equal(found.flow, expected[1].flow)
    assert not torch.equal(found.flow, expected[0].flow)


def test_only_the_next_steps_are_in_memory(numbered):
    pairs = stream(numbered)
    for step in range(20):
        pairs.part(step, 0, 1, 2, 0)
        assert len(pairs.waiting) <= 2 * AHEAD


def test_sets_share_every_batch(shared_data, tmp_path):
    roots = {kind: layouts.ALL[kind](tmp_path / kind, shared_data) for kind in ("sintel", "kitti2012", "kitti2015")}
    pools = find_pools(roots, (("sintel",), ("kitti2012", "kitti2015")))
    groups = [sorted({pair.group for pair in pool}) for pool in pools]
    assert groups == [["sintel-clean", "sintel-final"], ["kitti2012", "kitti2015"]]
    pairs = ReadPairs(pools, SIZE)
    for step in range(3):
        groups = [pairs.pair(number).group[:5] for number in range(4 * step, 4 * step + 4)]
        assert sorted(groups) == ["kitti", "kitti", "sinte", "sinte"]
    batch = pairs.part(0, 0, 1, 4, 0)  # frames of two sizes, dense and sparse labels
    assert batch.frame1.shape == (4, 3, *SIZE) and batch.flow.isfinite().all()
    known = batch.valid.float().mean(dim=(1, 2, 3))
    assert known[[0, 2]].min() == 1 and known[[1, 3]].max() < 0.9


def test_each_set_alone_and_splits(shared_data, tmp_path):
    for kind in ("flyingchairs", "piv", "hd1k", "middlebury"):
        layouts.ALL[kind](tmp_path / kind, shared_data)
    data = {kind: tmp_path / kind for kind in ("flyingchairs", "piv", "hd1k", "middlebury")}
    assert [len(pool) for pool in find_pools(data)] == [2, 1, 1, 2]  # of the three chairs two are for training
    assert [len(pool) for pool in find_pools({"flyingchairs:all": data["flyingchairs"]})] == [3]
    with pytest.raises(InputError, match="no benchmark named 'chairs'"):
        find_pools({"chairs": tmp_path})
    with pytest.raises(InputError, match="no split 'x'"):
        find_pools({"piv:x": tmp_path})


def test_a_broken_file_is_named(numbered, tmp_path):
    root = tmp_path / "copy"
    shutil.copytree(numbered, root)
    (root / "frames/3/2.png").write_bytes(b"no picture")
    pairs = stream(root)
    with pytest.raises(FileError, match=r"frames/3/2\.png"):
        for step in range(10):
            pairs.part(step, 0, 1, 1, 0)


def test_rendered_pairs_depend_on_their_numbers_alone():
    bank = TextureBank.procedural(6, 64, torch.Generator().manual_seed(0))
    pairs = RenderedPairs(SceneConfig(height=32, width=64), bank, seed=2)
    a, b, c = pairs.part(5, 1, 2, 4, 0), pairs.part(5, 1, 2, 4, 9), pairs.part(6, 1, 2, 4, 0)
    assert len(a.flow) == 2 and torch.equal(a.frame1, b.frame1) and not torch.equal(a.frame1, c.frame1)
