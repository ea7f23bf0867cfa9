"""The held-back set: would catch a rule that shifts, a photo on both sides, a set that differs each time or is left half done."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import run_command
from PIL import Image

from featherflow.data import TextureBank, check, find_pairs, heldback
from featherflow.data.heldback import PAIRS, SIZES, is_held_back, scene_of, write_held_back
from featherflow.data.streams import find_pools
from featherflow.data.textures import PHOTO
from featherflow.errors import FileError, InputError
from featherflow.evaluation import Dataset, evaluate

SMALL = {"pairs": {"layers": 2, "depth": 2, "particles": 1}, "sizes": ((64, 96), (48, 64))}

NAMES = [f"photo_{number}.png" for number in range(24)]
HELD = ["photo_8.png", "photo_12.png", "photo_13.png", "photo_14.png"]


@pytest.fixture
def photos(tmp_path) -> Path:
    """Red photos are held back, green ones are not; in two folders."""
    noise = np.random.default_rng(0).integers(0, 120, (40, 40), dtype=np.uint8)
    for number, name in enumerate(NAMES):
        folder = tmp_path / "photos" / f"part_{number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        image = np.zeros((40, 40, 3), np.uint8)
        image[..., 0 if is_held_back(name) else 1] = 100 + noise
        Image.fromarray(image).save(folder / name)
    return tmp_path / "photos"


def digest(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_the_rule_is_as_it_was():
    # Whoever packed textures with another rule would have trained on what is held back.
    assert [name for name in NAMES if is_held_back(name)] == HELD
    assert is_held_back(f"/any/folder/{HELD[0]}") and not is_held_back("photo_0.png")
    share = np.mean([is_held_back(f"{number}.jpg") for number in range(4000)])
    assert abs(share - 1 / 8) < 0.02


def test_the_set_is_what_it_says():
    assert sum(PAIRS.values()) == 128 and SIZES == ((436, 1024), (384, 512))
    assert all(count % 2 == 0 for count in PAIRS.values())  # as many of one size as of the other
    assert scene_of("depth", 64, 64).depth == 1 and scene_of("particles", 64, 64).particles == 1
    assert scene_of("layers", 64, 64).depth == scene_of("layers", 64, 64).particles == 0


def test_the_same_photos_give_the_same_set(photos, tmp_path):
    seen = []
    assert write_held_back(tmp_path / "one", photos, **SMALL, progress=lambda *step: seen.append(step)) == len(HELD)
    assert seen == [(done, 5) for done in range(6)]
    # Photos that are not held back do not matter, nor does it how the folders are given.
    for photo in photos.rglob("*.png"):
        if not is_held_back(photo):
            photo.unlink()
    write_held_back(tmp_path / "two", [photos / "part_1", photos / "part_0"], **SMALL)
    one, two = digest(tmp_path / "one"), digest(tmp_path / "two")
    assert one == two and len(one) == 5 * 4 + 1
    assert json.loads(one["heldback.json"])["photos"] == sorted(HELD)


def test_it_is_read_and_judged_as_any_benchmark(photos, tmp_path):
    root = tmp_path / "set"
    write_held_back(root, photos, **SMALL)
    report = check("heldback", root)
    assert report.pairs == {"heldback-depth": 2, "heldback-layers": 2, "heldback-particles": 1}
    assert report.published == {f"heldback-{kind}": count for kind, count in PAIRS.items()}
    for pair in find_pairs("heldback", root):
        example = pair.read()
        assert example.frame1.shape == (*((64, 96), (48, 64))[int(pair.name) % 2], 3)
        assert example.valid.all() and example.matched.any() and np.isfinite(example.flow).all()

    zero = evaluate({"zero": lambda a, b: np.zeros((*a.shape[:2], 2), np.float32)}, [Dataset.parse(f"heldback={root}")])
    for group in report.pairs:
        lengths = [np.linalg.norm(p.read().flow, axis=-1).mean() for p in find_pairs("heldback", root) if p.group == group]
        assert zero.result("zero", group).figures["per_image"]["epe"] == pytest.approx(np.mean(lengths), rel=1e-5)


def test_nobody_trains_on_it_by_name(photos, tmp_path):
    write_held_back(tmp_path / "set", photos, **SMALL)
    with pytest.raises(InputError, match="judging"):
        find_pools({"heldback": tmp_path / "set"})


def test_nothing_is_left_of_a_set_that_was_interrupted(photos, tmp_path):
    def stop(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    before = sorted(tmp_path.iterdir())
    with pytest.raises(KeyboardInterrupt):
        write_held_back(tmp_path / "set", photos, **SMALL, progress=stop)
    assert sorted(tmp_path.iterdir()) == before


def test_wrong_folders_are_refused(photos, tmp_path):
    (tmp_path / "there").mkdir()
    with pytest.raises(FileError, match="new folder"):
        write_held_back(tmp_path / "there", photos, **SMALL)
    for photo in photos.rglob("*.png"):
        if is_held_back(photo):
            photo.unlink()
    with pytest.raises(FileError, match="None of the photos"):
        write_held_back(tmp_path / "set", photos, **SMALL)
    with pytest.raises(FileError, match="no folder of photographs"):
        write_held_back(tmp_path / "set", tmp_path / "none", **SMALL)
    assert not (tmp_path / "set").exists()


def test_a_packed_bank_leaves_the_held_back_photos_out(photos, tmp_path, monkeypatch, capsys):
    def packed(*words: str) -> torch.Tensor:
        target = tmp_path / "bank.st"
        size = ("--drawn", 2, "--particles", 1, "--size", 48)
        assert run_command("data", "pack", photos, "-o", target, *size, *words) == 0
        bank = TextureBank.load(target)
        return bank.images[bank.kinds == PHOTO].float().mean((2, 3))

    everything, kept = packed(), packed("--hold-back")
    assert len(everything) == len(NAMES) and len(kept) == len(NAMES) - len(HELD)
    assert (kept[:, 1] > kept[:, 0]).all() and not (everything[:, 1] > everything[:, 0]).all()

    monkeypatch.setattr(heldback, "write_held_back", partial(write_held_back, **SMALL))
    assert run_command("data", "heldback", str(tmp_path / "set"), "--photos", str(photos)) == 0
    assert f"{len(HELD)} photos" in capsys.readouterr().out
    assert (tmp_path / "set/depth/001/flow.flo").exists()
