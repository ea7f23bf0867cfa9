"""Texture banks: folders, drawing, packing."""

import io
import os

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save

from featherflow.data import TextureBank, textures
from featherflow.data.textures import PARTICLES, PHOTO, PROCEDURAL
from featherflow.errors import FeatherflowError, FileError, InputError, LimitError


@pytest.fixture
def photos(tmp_path):
    """Three photographs at two depths, a truncated one, one that is text, and a file of another kind."""
    random = np.random.default_rng(0)
    (tmp_path / "deep" / "er").mkdir(parents=True)
    for name, size in (("wide.jpg", (90, 60)), ("deep/tall.png", (50, 120)), ("deep/er/small.JPG", (20, 30))):
        Image.fromarray(random.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).save(tmp_path / name)
    (tmp_path / "broken.jpg").write_bytes((tmp_path / "wide.jpg").read_bytes()[:400])
    (tmp_path / "text.png").write_text("not an image")
    (tmp_path / "notes.txt").write_text("not even named like one")
    return tmp_path


def test_folder_is_read_at_any_depth_and_broken_files_are_counted(photos):
    bank = TextureBank.from_folder(photos, size=48)
    assert bank.images.shape == (3, 3, 48, 48) and bank.images.dtype == torch.uint8
    assert bank.skipped == 2
    assert (bank.kinds == PHOTO).all()


def test_limit_and_seed(photos):
    assert len(TextureBank.from_folder([photos], size=32, limit=2, seed=1)) == 2
    assert len(TextureBank.from_folder([photos / "deep", photos / "deep"], size=32)) == 4
    first, again = (TextureBank.from_folder(photos, size=32, seed=3).images for _ in range(2))
    assert torch.equal(first, again)


def test_a_folder_without_photographs_is_refused(tmp_path):
    with pytest.raises(FileError, match="no readable"):
        TextureBank.from_folder(tmp_path)
    with pytest.raises(FileError, match="no folder"):
        TextureBank.from_folder(tmp_path / "missing")


def test_square_cut_keeps_the_proportions(tmp_path):
    # A disc must stay a disc: catches squeezing instead of cutting.
    y, x = np.mgrid[:100, :200]
    disc = (((x - 100) ** 2 + (y - 50) ** 2) < 20**2).astype(np.uint8) * 255
    Image.fromarray(np.repeat(disc[..., None], 3, 2)).save(tmp_path / "disc.png")
    for seed in range(20):
        inside = TextureBank.from_folder(tmp_path, size=100, seed=seed).images[0, 0] > 127
        if inside.sum() > 0.99 * np.pi * 20**2:
            assert abs(int(inside.any(0).sum()) - int(inside.any(1).sum())) <= 1
            return
    pytest.fail("no cut held the whole disc")


def test_drawn_textures_repeat_by_seed_differ_and_are_textured():
    first, again = (TextureBank.procedural(5, 64, torch.Generator().manual_seed(2), particles=2) for _ in range(2))
    assert torch.equal(first.images, again.images)
    assert first.kinds.tolist() == [PROCEDURAL] * 5 + [PARTICLES] * 2
    assert len({texture.numpy().tobytes() for texture in first.images}) == 7
    assert (first.images.float().flatten(1).std(1) > 1).all()


def test_particles_are_small_bright_spots_on_a_dark_ground():
    bank = TextureBank.procedural(0, 128, particles=3)
    grey = bank.images[:, 0].float() / 255
    assert (bank.images[:, 0] == bank.images[:, 2]).all()
    assert grey.median() < 0.2 and grey.max() > 0.5
    peak = (grey == torch.nn.functional.max_pool2d(grey[:, None], 9, 1, 4)[:, 0]) & (grey > 0.5)
    peak[:, :4], peak[:, -4:], peak[:, :, :4], peak[:, :, -4:] = False, False, False, False
    image, row, column = peak.nonzero().unbind(1)
    # Diameter of 2 to 4 texels: 3 texels from its centre a spot has faded, unless a neighbour shines there.
    assert ((grey[image, row, column + 3] < 0.3 * grey[image, row, column]).float().mean()) > 0.7


def test_texel_words_hold_red_green_blue():
    images = torch.zeros((1, 3, 2, 2), dtype=torch.uint8)
    images[0, :, 0, 1] = torch.tensor([1, 2, 3], dtype=torch.uint8)
    word = int(TextureBank(images).texels()[1])
    assert (word & 255, word >> 8 & 255, word >> 16 & 255) == (1, 2, 3)


def test_concat_keeps_order_and_kinds(photos):
    drawn, taken = TextureBank.procedural(2, 48, particles=1), TextureBank.from_folder(photos, size=48)
    both = TextureBank.concat([drawn, taken])
    assert both.kinds.tolist() == [PROCEDURAL, PROCEDURAL, PARTICLES, PHOTO, PHOTO, PHOTO]
    assert torch.equal(both.images[3:], taken.images) and both.skipped == 2
    with pytest.raises(InputError, match="one size"):
        TextureBank.concat([drawn, TextureBank.procedural(1, 32)])


def test_pack_and_load(tmp_path):
    bank = TextureBank.procedural(5, 64, particles=1)
    path = tmp_path / "bank.safetensors"
    assert bank.pack(path, quality=95) == 95
    read = TextureBank.load(path)
    assert torch.equal(read.kinds, bank.kinds)
    assert (read.images.float() - bank.images.float()).abs().mean() < 8
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_pack_lowers_the_quality_to_fit(tmp_path):
    bank = TextureBank.procedural(5, 64, particles=0)
    full = tmp_path / "full.safetensors"
    bank.pack(full, quality=85)
    limit = full.stat().st_size * 3 // 4 + 2048
    assert bank.pack(tmp_path / "less.safetensors", max_bytes=limit) < 85
    assert (tmp_path / "less.safetensors").stat().st_size <= limit
    with pytest.raises(InputError, match="do not fit"):
        bank.pack(tmp_path / "none.safetensors", max_bytes=5000)
    assert not (tmp_path / "none.safetensors").exists()


def test_wrong_images_are_refused():
    with pytest.raises(InputError, match="uint8"):
        TextureBank(torch.zeros(1, 3, 8, 8))
    with pytest.raises(InputError, match="square"):
        TextureBank(torch.zeros((1, 3, 8, 9), dtype=torch.uint8))


# Banks that are damaged or made to hurt -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    path = tmp_path_factory.mktemp("packed") / "bank.safetensors"
    TextureBank.procedural(3, 32, particles=1).pack(path)
    return path.read_bytes()


def pack_by_hand(path, jpegs, kinds=None):
    tensors = {
        "jpeg": torch.from_numpy(np.frombuffer(b"".join(jpegs), np.uint8).copy()),
        "lengths": torch.tensor([len(data) for data in jpegs], dtype=torch.int64),
        "kinds": torch.zeros(len(jpegs), dtype=torch.uint8) if kinds is None else kinds,
    }
    path.write_bytes(save(tensors))
    return path


def jpeg(width, height):
    out = io.BytesIO()
    Image.new("RGB", (width, height)).save(out, "JPEG")
    return out.getvalue()


def test_damage_anywhere_is_our_error_or_a_bank(packed, tmp_path):
    random, path = np.random.default_rng(0), tmp_path / "bank.safetensors"
    for _ in range(400):
        data = bytearray(packed[: random.integers(1, len(packed) + 1)] if random.random() < 0.3 else packed)
        for _ in range(random.integers(1, 4)):
            data[random.integers(len(data))] = random.integers(256)
        path.write_bytes(data)
        try:
            assert TextureBank.load(path).size == 32
        except FeatherflowError as error:
            assert str(error).isprintable()


def test_a_bank_that_claims_more_than_there_may_be(tmp_path, monkeypatch):
    monkeypatch.setattr(textures, "MOST_TEXELS", 4 * 64**2)
    assert len(TextureBank.load(pack_by_hand(tmp_path / "a", [jpeg(64, 64)] * 4))) == 4
    with pytest.raises(LimitError, match="64 texels"):
        TextureBank.load(pack_by_hand(tmp_path / "a", [jpeg(64, 64)] * 5))


def test_a_large_picture_among_small_ones_is_not_decoded(tmp_path, monkeypatch):
    path = pack_by_hand(tmp_path / "a", [jpeg(32, 32), jpeg(8000, 8000)])
    monkeypatch.setattr(textures, "_texture", lambda *_: pytest.fail("decoded"))
    with pytest.raises(FileError, match="one size"):
        TextureBank.load(path)


def test_formats_are_named(tmp_path):
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n%%EndComments\nshowpage\n"
    with pytest.raises(FileError, match="no JPEG"):
        TextureBank.load(pack_by_hand(tmp_path / "a", [postscript]))
    (tmp_path / "photo.jpg").write_bytes(postscript)
    Image.new("RGB", (64, 64)).save(tmp_path / "photo.png")
    assert TextureBank.from_folder(tmp_path, 32).skipped == 1


def test_a_bank_is_written_as_any_file_is(tmp_path, monkeypatch):
    umask = os.umask(0o022)
    try:
        TextureBank.procedural(2, 16, particles=0).pack(tmp_path / "a")
    finally:
        os.umask(umask)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o644
    with pytest.raises(FileError, match="folder does not exist"):
        TextureBank.procedural(2, 16, particles=0).pack(tmp_path / "none" / "a")
