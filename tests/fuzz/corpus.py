"""Small sound files of every kind that featherflow reads, and the reader of each: what the fuzzing starts from."""

from __future__ import annotations

import asyncio
import functools
import gzip
import io
import json
import lzma
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save


@dataclass(frozen=True)
class Reader:
    """One reader: given the bytes of a file and a folder to work in, it returns or raises an error of ours."""

    read: Callable[[bytes, Path], object]
    seeds: tuple[bytes, ...]


def _flow() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(6, 5, 2)).astype(np.float32)


def _picture(kind: str, **options) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).save(out, kind, **options)
    return out.getvalue()


def _flow_reader(suffix: str) -> Reader:
    from featherflow.flow import decode_flow, encode_flow

    valid = np.arange(30).reshape(6, 5) % 3 > 0
    seeds = (encode_flow(f"a{suffix}", _flow()), encode_flow(f"a{suffix}", _flow(), valid))
    return Reader(lambda data, _: decode_flow(f"a{suffix}", data), seeds)


def _image(data: bytes, _: Path) -> object:
    from featherflow.images import decode_image

    return decode_image(data, "a", max_pixels=1 << 22)


def _weights(data: bytes, folder: Path) -> object:
    from featherflow.weights.store import read_weights

    (folder / "a.safetensors").write_bytes(data)
    return read_weights(folder / "a.safetensors")


def _weights_seed(folder: Path) -> bytes:
    """A whole file of ours, of a network as small as its options can make it."""
    from featherflow.networks import untrained
    from featherflow.weights.store import WeightsInfo, save_weights

    options = {"features": ((1,),) * 6, "matching": (), "subpixel": (1,), "regularization": (), "expanded_features": 1}
    network = untrained("liteflownetx", **options)
    save_weights(folder / "seed", network.state_dict(), WeightsInfo("liteflownetx", "a", options=options))
    return (folder / "seed").read_bytes()


def _import(name: str, architecture: str) -> Callable[[bytes, Path], object]:
    def read(data: bytes, _: Path) -> object:
        from featherflow.weights.containers import unwrap
        from featherflow.weights.importer import import_weights

        return import_weights(unwrap(data, name), architecture)

    return read


def _named_state() -> dict[str, torch.Tensor]:
    """Tensors with the names of SPyNet's and some of their shapes, so that the search for what fits goes to its end."""
    from featherflow.weights.lineage import shapes

    some = list(shapes("spynet").items())[:12]
    return {name: torch.zeros(shape if len(shape) == 1 else (1,) * len(shape)) for name, shape in some}


def _saved(value: object, **options) -> bytes:
    out = io.BytesIO()
    torch.save(value, out, **options)
    return out.getvalue()


def _small_state() -> dict[str, torch.Tensor]:
    return {
        "a.weight": torch.zeros(2, 3),
        "half": torch.zeros(4, dtype=torch.float16),
        "count": torch.tensor(3),
        "odd": torch.eye(3).to_sparse(),
        "complex": torch.zeros(2, dtype=torch.complex64),
    }


def _entries(data: bytes, _: Path) -> object:
    from featherflow.weights.checkpoints import torch_entries

    return torch_entries(data, "a.pth")


def _unwrapped(data: bytes, _: Path) -> object:
    from featherflow.weights.containers import unwrap

    return unwrap(data, "a.tar.gz")


def _tar() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in ("é" * 60 + ".txt", "a.caffemodel"):
            info = tarfile.TarInfo(name)
            info.size = 40
            archive.addfile(info, io.BytesIO(bytes(range(40))))
    return out.getvalue()


def _torch7(data: bytes, _: Path) -> object:
    from featherflow.weights.torch7 import convolutions, read_torch7

    return convolutions(read_torch7(data, "a.t7"), "a.t7")


def _torch7_seed() -> bytes:
    from weights.torch7_writer import Object, tensor, torch7

    weight, bias = (tensor(np.ones(shape, np.float32)) for shape in ((2, 3, 3, 3), (2,)))
    layer = Object("nn.SpatialConvolution", {"weight": weight, "bias": bias, "train": True})
    return torch7(Object("nn.Sequential", {"modules": {1: layer, 2: Object("nn.ReLU", {})}}))


def _caffe(data: bytes, _: Path) -> object:
    from featherflow.weights.caffe import read_caffemodel

    return read_caffemodel(data, "a.caffemodel")


def _caffe_seed() -> bytes:
    from weights import caffe_writer

    blobs = [np.ones((2, 3, 3, 3), np.float32), np.ones(2, np.float32)]
    return caffe_writer.caffemodel([("conv1", "Convolution", blobs), ("conv2", "Convolution", blobs)])


def _textures(data: bytes, folder: Path) -> object:
    from featherflow.data import TextureBank

    (folder / "bank").write_bytes(data)
    return TextureBank.load(folder / "bank")


def _textures_seed(folder: Path) -> bytes:
    from featherflow.data import TextureBank

    TextureBank.procedural(2, 16, particles=1).pack(folder / "bank")
    return (folder / "bank").read_bytes()


def _build(data: bytes, folder: Path) -> object:
    """A record of a built engine: sound, or taken for not there."""
    from featherflow.inference.runners import builds

    (folder / "build.json").write_bytes(data)
    return builds._sound(folder)


def _build_seed() -> bytes:
    from featherflow.inference.runners import builds

    return builds._sealed({"engine": "openvino", "checks": {"float32, 2 threads": {"ms": 1.5, "torch_ms": 2.5}}}, {})


def _log(data: bytes, folder: Path) -> object:
    from types import SimpleNamespace

    from featherflow.training.loop import Trainer

    (folder / "log.jsonl").write_bytes(data)
    Trainer._forget_lines_after(SimpleNamespace(folder=folder), 20)
    return (folder / "log.jsonl").read_bytes()


@functools.cache
def _loop() -> asyncio.AbstractEventLoop:
    """One event loop for all inputs: to make one takes longer than to read a form."""
    return asyncio.new_event_loop()


def _form(data: bytes, _: Path) -> object:
    """The body of a request, as JSON and as a form."""
    from fastapi import HTTPException
    from starlette.datastructures import Headers

    from featherflow.app.uploads import _from_form, _from_json

    class Request:
        headers = Headers({"content-type": "multipart/form-data; boundary=b"})

    found = []
    form = _from_form(Request, bytearray(data), 1 << 20)
    for read in (lambda: _from_json(bytearray(data)), lambda: _loop().run_until_complete(form)):
        try:
            found.append(read())
        except HTTPException as error:
            assert 400 <= error.status_code < 500
    return found or None


def _video(data: bytes, folder: Path) -> object:
    from featherflow.video.reading import open_clip

    (folder / "clip").write_bytes(data)
    return sum(1 for _ in open_clip(folder / "clip"))


def _video_seed(folder: Path, kind: str, codec: str) -> bytes:
    import av

    with av.open(str(folder / "seed"), "w", format=kind) as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for seed in range(3):
            noise = np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(noise, format="rgb24")))
        container.mux(stream.encode(None))
    return (folder / "seed").read_bytes()


def readers(folder: Path) -> dict[str, Reader]:
    """All readers by name.

    Args:
        folder: where seeds may be written while they are made.
    """
    found = {f"flow {suffix}": _flow_reader(suffix) for suffix in (".flo", ".pfm", ".png", ".npz", ".npy")}
    found["images"] = Reader(
        _image,
        (*map(_picture, ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "PPM")), _picture("JPEG", progressive=True)),
    )
    found["weights"] = Reader(_weights, (_weights_seed(folder),))
    found["checkpoints"] = Reader(
        _entries,
        (
            _saved({"state_dict": {"a.weight": torch.zeros(2, 3)}, "epoch": 3}),
            _saved(_small_state()),
            _saved({"a.weight": torch.zeros(2, 3)}, _use_new_zipfile_serialization=False),
        ),
    )
    named = _named_state()
    found["import"] = Reader(
        _import("a.pth", "spynet"),
        (save({"a.weight": torch.zeros(2, 3)}), save(named), _saved({"model": {"a": torch.zeros(2)}}), _saved(named)),
    )
    found["archives"] = Reader(_unwrapped, (_tar(), gzip.compress(_tar()), lzma.compress(_tar())))
    found["torch7"] = Reader(_torch7, (_torch7_seed(),))
    found["caffemodel"] = Reader(_caffe, (_caffe_seed(),))
    found["texture packs"] = Reader(_textures, (_textures_seed(folder),))
    found["engine records"] = Reader(_build, (_build_seed(),))
    found["training logs"] = Reader(_log, ("".join(json.dumps({"step": step, "loss": 1.5}) + "\n" for step in range(40)).encode(),))
    _add_optional(found, folder)
    return found


def _add_optional(found: dict[str, Reader], folder: Path) -> None:
    """Readers of the extras that are installed."""
    from importlib.util import find_spec

    if find_spec("h5py"):
        found["flow .flo5"] = _flow_reader(".flo5")
    if find_spec("fastapi"):
        part = '--b\r\nContent-Disposition: form-data; name="{}"; filename="a"\r\nContent-Type: image/png\r\n\r\nabc\r\n'
        form = (part.format("frame1") + part.format("frame2") + "--b--\r\n").encode()
        found["requests"] = Reader(_form, (form, b'{"frame1": "AAAA", "frame2": "AAAA\\nAAAA"}'))
    if find_spec("av"):
        kinds = (("mp4", "mpeg4"), ("matroska", "mpeg4"), ("mpegts", "mpeg2video"), ("avi", "mpeg4"))
        found["videos"] = Reader(_video, tuple(_video_seed(folder, *kind) for kind in kinds))
