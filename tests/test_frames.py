"""Images from strangers: would catch a decoder that is let near them before the size is known."""

import io

import numpy as np
import pytest
import torch
from helpers import frame
from PIL import Image

from featherflow import frames
from featherflow.errors import FileError, InputError, LimitError
from featherflow.flow import decode_flow, encode_flow, read_flow, write_flow
from featherflow.frames import as_batch, as_batches
from featherflow.images import decode_image, read_image


def encoded(image: np.ndarray, format: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, format=format)
    return file.getvalue()


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "PPM"])
def test_bytes_give_what_the_file_gives(tmp_path, format):
    data = encoded(frame(), format)
    (tmp_path / "image").write_bytes(data)
    np.testing.assert_array_equal(decode_image(data), frame())
    np.testing.assert_array_equal(read_image(tmp_path / "image"), frame())


def test_the_limit_is_on_pixels():
    data = encoded(frame(64, 80), "PNG")
    assert decode_image(data, max_pixels=64 * 80).shape == (64, 80, 3)
    with pytest.raises(LimitError, match="frame1 has 80x64"):
        decode_image(data, "frame1", max_pixels=64 * 80 - 1)


@pytest.mark.parametrize("data, said", [(b"", "empty"), (b"text", "4 bytes"), (encoded(frame(), "GIF"), "no image format")])
def test_other_files_are_refused(data, said):
    with pytest.raises(FileError, match=f"frame2 cannot be read as an image: .*{said}"):
        decode_image(data, "frame2")


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow tells of damage that it can do without
@pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF", "WEBP", "BMP"])
def test_damage_is_a_file_error_or_an_image(format):
    data, random = encoded(frame(), format), np.random.default_rng(0)
    for _ in range(40):
        broken = bytearray(data[: random.integers(20, len(data))])
        for place in random.integers(0, len(broken), 8):
            broken[place] = random.integers(256)
        try:
            assert decode_image(bytes(broken), max_pixels=1 << 20).ndim == 3
        except (FileError, LimitError):
            pass


@pytest.mark.parametrize("suffix", [".flo", ".png", ".pfm", ".npz", ".npy"])
def test_flow_in_memory_is_the_file(tmp_path, suffix):
    flow = np.random.default_rng(1).normal(0, 5, (20, 30, 2)).astype(np.float32)
    flow[3, 4] = np.nan
    name = f"flow{suffix}"
    write_flow(tmp_path / name, flow)
    np.testing.assert_array_equal(decode_flow(name, encode_flow(name, flow)), read_flow(tmp_path / name))
    with pytest.raises(FileError, match="empty"):
        decode_flow(name, b"")


@pytest.mark.parametrize(
    "make", [lambda x: x, lambda x: x.astype(np.uint16) * 257, lambda x: x / 255.0, lambda x: (x / 255).astype("f4")]
)
def test_big_endian_numbers_are_taken(make):
    native = make(frame())
    swapped = native.astype(native.dtype.newbyteorder(">"))
    assert torch.equal(as_batch(swapped), as_batch(native))
    pairs = [as_batches((x, x[::-1]), ("one", "two")) for x in (swapped, native)]
    assert torch.equal(pairs[0][1], pairs[1][1])


@pytest.mark.parametrize(
    "make",
    [
        lambda x: x,
        lambda x: x.float() / 255,
        lambda x: x.to(torch.bfloat16) / 255,
        lambda x: x.double()[:, :1] / 255,
        lambda x: x[0],
        lambda x: [x[0], x[1]],
    ],
)
def test_tensors_on_a_gpu_stay_there(make, monkeypatch):
    """The CPU stands for one: what is made ready in place is what goes by NumPy elsewhere, and NumPy is not asked."""
    given = make(torch.from_numpy(np.stack([frame(seed=1), frame(seed=2)])).permute(0, 3, 1, 2))
    expected = as_batch(given)
    monkeypatch.setattr(frames, "_place", lambda frame: torch.device("cpu"))
    monkeypatch.setattr(torch.Tensor, "numpy", None)
    found = as_batch(given)
    assert found.shape == expected.shape and torch.allclose(found, expected, atol=1e-7) and found.dtype == torch.float32
    assert torch.equal(as_batches((given, given), ("one", "two"))[1], found)


@pytest.mark.parametrize("wrong, said", [(2.0, "must lie in"), (float("nan"), "NaN"), (float("inf"), "NaN or infinite")])
def test_tensors_on_a_gpu_are_checked(wrong, said, monkeypatch):
    monkeypatch.setattr(frames, "_place", lambda frame: torch.device("cpu"))
    good = torch.rand(3, 32, 32)
    good[1, 2, 3] = wrong
    with pytest.raises(InputError, match=said):
        as_batch(good)
    for shape in ((5, 32, 32), (3, 8, 32), (32, 32)):
        with pytest.raises(InputError):
            as_batch(torch.rand(shape))


def test_tensors_on_another_device_come_back_there():
    """Also those whose numbers decide their range, which the CPU looks at."""
    assert frames._place(torch.zeros(3, 32, 32, device="meta")).type == "meta" and frames._place(torch.zeros(3, 32, 32)) is None
    assert frames._place([torch.zeros(3, 32, 32, device="meta")]).type == "meta" and frames._place("a.png") is None
