"""Textures for the procedural generator: square colour images, from photographs or from formulas.

A `TextureBank` is one block of memory that the renderer reads with a single gather per corner: every texel is four
bytes (R, G, B, unused), so that one 32-bit word carries a whole colour. Photographs come from any folder; with none,
`TextureBank.procedural` draws dead leaves (occluding shapes with power-law sizes: Lee, Mumford & Huang, 2001),
fractal noise with a 1/f^a spectrum, stripes, checks, gratings and smooth gradients, and the particle images of
particle image velocimetry (PIV), which are a kind of their own.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from ..errors import FileError, InputError, LimitError
from ..files import atomic_write
from ..headers import check_scans

PHOTO, PROCEDURAL, PARTICLES = 0, 1, 2
"""Kinds of texture: a photograph, a drawn surface, an image of tracer particles."""

_PHOTO_SUFFIXES = {".jpg", ".jpeg", ".png"}
_PHOTO_FORMATS = ("JPEG", "PNG")  # whatever the suffix says: Pillow would start another program for some formats
_PACK_FORMAT = "featherflow-textures-1"
#: Most texels of a packed bank; each takes four bytes in memory.
MOST_TEXELS = 1 << 29


class TextureBank:
    """Square RGB textures of one size, each marked with its kind.

    Args:
        images: `(N, 3, S, S)` uint8 RGB, S >= 2.
        kinds: `(N,)` integers out of `PHOTO`, `PROCEDURAL`, `PARTICLES`; all `PHOTO` when left out.
        skipped: how many files could not be read while the bank was made.
    """

    def __init__(self, images: Tensor, kinds: Tensor | None = None, skipped: int = 0):
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
            raise InputError(f"textures must be (N, 3, S, S) uint8, got {tuple(images.shape)} {images.dtype}")
        count, _, height, width = images.shape
        if height != width or height < 2 or count < 1:
            raise InputError(f"textures must be square, at least 2x2 and at least one, got {tuple(images.shape)}")
        storage = torch.empty((count, height, width, 4), dtype=torch.uint8, device=images.device)
        storage[..., :3] = images.permute(0, 2, 3, 1)
        storage[..., 3] = 255
        self._set(storage, torch.zeros(count, dtype=torch.uint8) if kinds is None else kinds, skipped)

    def _set(self, storage: Tensor, kinds: Tensor, skipped: int) -> None:
        if kinds.shape != storage.shape[:1]:
            raise InputError(f"{storage.shape[0]} textures need {storage.shape[0]} kinds, got {tuple(kinds.shape)}")
        self._storage = storage
        self.kinds = kinds.to(torch.uint8).cpu()
        self.skipped = skipped
        self._on: dict[str, tuple[Tensor, dict[int, Tensor]]] = {}

    @classmethod
    def _of_storage(cls, storage: Tensor, kinds: Tensor, skipped: int = 0) -> TextureBank:
        bank = cls.__new__(cls)
        bank._set(storage, kinds, skipped)
        return bank

    def __len__(self) -> int:
        return self._storage.shape[0]

    def __repr__(self) -> str:
        counts = ", ".join(
            f"{name} {int((self.kinds == kind).sum())}"
            for kind, name in ((PHOTO, "photos"), (PROCEDURAL, "procedural"), (PARTICLES, "particles"))
        )
        return f"TextureBank({counts}; size {self.size})"

    @property
    def size(self) -> int:
        """Side of every texture [texels]."""
        return self._storage.shape[1]

    @property
    def images(self) -> Tensor:
        """`(N, 3, S, S)` uint8 RGB: a view, not a copy."""
        return self._storage[..., :3].permute(0, 3, 1, 2)

    def texels(self, device: torch.device | str = "cpu") -> Tensor:
        """`(N * S * S,)` int32 on `device`: the bytes of a word are R, G, B, 255, from the lowest. Kept for reuse."""
        return self._resident(device)[0]

    def indices(self, kind: int, device: torch.device | str = "cpu") -> Tensor:
        """`(n,)` int64 on `device`: which textures are of `kind`. Kept for reuse."""
        return self._resident(device)[1][kind]

    def _resident(self, device: torch.device | str) -> tuple[Tensor, dict[int, Tensor]]:
        key = str(torch.device(device))
        if key not in self._on:
            words = self._storage.to(device).view(torch.int32).reshape(-1)
            of_kind = {kind: (self.kinds == kind).nonzero().flatten().to(device) for kind in (PHOTO, PROCEDURAL, PARTICLES)}
            self._on[key] = (words, of_kind)
        return self._on[key]

    @classmethod
    def concat(cls, banks: Sequence[TextureBank]) -> TextureBank:
        """One bank of all the textures of `banks`, which must be of one size."""
        if len({bank.size for bank in banks}) != 1:
            raise InputError(f"banks to join must share one size, got {sorted({bank.size for bank in banks})}")
        return cls._of_storage(
            torch.cat([bank._storage.cpu() for bank in banks]),
            torch.cat([bank.kinds for bank in banks]),
            sum(bank.skipped for bank in banks),
        )

    @classmethod
    def from_folder(
        cls,
        folders: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
        size: int = 448,
        limit: int | None = None,
        seed: int = 0,
        keep: Callable[[Path], bool] | None = None,
    ) -> TextureBank:
        """Photographs (JPEG, PNG) found under one or more folders, at any depth.

        A photograph is scaled so that its short side is `size`, then a square is cut at a random place along its long
        side. Files that cannot be read as an image are left out and counted in `skipped`.

        Args:
            folders: a folder or several.
            size: side of the textures [texels].
            limit: take at most this many photographs, drawn at random.
            seed: of the choice and of the cuts.
            keep: which files to take; all when left out.

        Raises:
            FileNotFoundError: where a folder does not exist, or no photograph could be read.
        """
        folders = [folders] if isinstance(folders, (str, os.PathLike)) else list(folders)
        paths = [path for path in find_photos(folders) if keep is None or keep(path)]
        random = np.random.default_rng(seed)
        if limit is not None and len(paths) > limit:
            # Shuffled, not cut: broken files are replaced by further ones until the limit is reached.
            paths = [paths[index] for index in random.permutation(len(paths))]
        images, skipped = [], 0
        for path in paths:
            if limit is not None and len(images) == limit:
                break
            try:
                with open(path, "rb") as file:
                    check_scans(file, str(path))
                    with Image.open(file, formats=_PHOTO_FORMATS) as photo:
                        # For a JPEG, `draft` decodes straight to a half or a quarter of the size where that is enough.
                        photo.draft("RGB", (size, size))
                        images.append(_square(photo.convert("RGB"), size, random))
            except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
                skipped += 1
        if not images:
            those = "photograph that is to be taken" if keep else "photograph"
            raise FileError(f"no readable JPEG or PNG {those} under {', '.join(map(str, folders))}")
        storage = np.full((len(images), size, size, 4), 255, np.uint8)
        for index, image in enumerate(images):
            storage[index, ..., :3] = image
        return cls._of_storage(torch.from_numpy(storage), torch.full((len(images),), PHOTO, dtype=torch.uint8), skipped)

    @classmethod
    def procedural(
        cls, count: int = 96, size: int = 256, generator: torch.Generator | None = None, particles: int | None = None
    ) -> TextureBank:
        """Textures drawn from formulas: a bank that needs no photograph.

        Args:
            count: how many surfaces: in turn dead leaves, fractal noise, dead leaves, stripes and checks, and smooth
                gradients.
            size: side of the textures [texels].
            generator: a CPU generator; seeded with 0 when left out.
            particles: how many particle images to add; a sixth of `count`, at least 2, when left out.
        """
        generator = generator if generator is not None else torch.Generator().manual_seed(0)
        particles = max(2, count // 6) if particles is None else particles
        makers = (_dead_leaves, _fractal, _dead_leaves, _stripes, _gradient)
        images = [makers[index % len(makers)](size, generator) for index in range(count)]
        images += [_particles(size, generator) for _ in range(particles)]
        kinds = torch.tensor([PROCEDURAL] * count + [PARTICLES] * particles, dtype=torch.uint8)
        return cls(torch.stack([(image * 255).round().clamp(0, 255).to(torch.uint8) for image in images]), kinds)

    def pack(self, path: str | os.PathLike[str], quality: int = 85, max_bytes: int = 30_000_000) -> int:
        """Write the bank as JPEG bytes in one safetensors file, lowering the quality until it fits in `max_bytes`.

        Returns:
            The JPEG quality used.

        Raises:
            ValueError: where not even a quality of about 30 fits.
        """
        from safetensors.torch import save

        for quality_used in range(quality, 29, -5):
            encoded = []
            for texture in self._storage.cpu().numpy():
                buffer = io.BytesIO()
                Image.fromarray(np.ascontiguousarray(texture[..., :3])).save(buffer, "JPEG", quality=quality_used)
                encoded.append(buffer.getvalue())
            if sum(map(len, encoded)) + 16 * len(encoded) + 4096 <= max_bytes:
                break
        else:
            raise InputError(f"{len(self)} textures of size {self.size} do not fit in {max_bytes} bytes; take fewer")
        tensors = {
            "jpeg": torch.from_numpy(np.frombuffer(b"".join(encoded), np.uint8).copy()),
            "lengths": torch.tensor([len(data) for data in encoded], dtype=torch.int64),
            "kinds": self.kinds,
        }
        content = save(tensors, metadata={"format": _PACK_FORMAT, "size": str(self.size)})
        with atomic_write(path, durable=True) as file:
            file.write(content)
        return quality_used

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> TextureBank:
        """Read a bank that `pack` wrote.

        Raises:
            FileError: for a file that is missing, damaged, or no such bank.
            LimitError: for more than `MOST_TEXELS`, told before a texture is decoded.
        """
        jpegs, kinds = _unpacked(path)
        size = _header(jpegs[0], path)[0]
        if len(jpegs) * size**2 > MOST_TEXELS:
            raise LimitError(f"{path} holds {len(jpegs)} textures of {size} texels; at most {MOST_TEXELS} texels in all are taken.")
        for data in jpegs:
            if _header(data, path) != (size, size):
                raise FileError(f"{path} is damaged: its textures are not squares of one size.")
        storage = np.full((len(jpegs), size, size, 4), 255, np.uint8)
        for index, data in enumerate(jpegs):
            storage[index, ..., :3] = _texture(data, path)
        return cls._of_storage(torch.from_numpy(storage), kinds)


def _unpacked(path: str | os.PathLike[str]) -> tuple[list[bytes], Tensor]:
    """The JPEG files of a packed bank, and the kinds of their textures."""
    from safetensors.torch import load

    try:
        with open(path, "rb") as file:
            tensors = load(file.read())
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror or error}.") from error
    except Exception as error:  # beside its own errors safetensors lets through what damage makes of types and shapes
        raise FileError(f"{path} is no texture bank, or is damaged ({error}).") from error
    if not {"jpeg", "lengths", "kinds"} <= tensors.keys():
        raise FileError(f"{path} is not a texture bank written by TextureBank.pack.")
    data, lengths, kinds = (tensors[name] for name in ("jpeg", "lengths", "kinds"))
    whole = (data.dtype, lengths.dtype, kinds.dtype) == (torch.uint8, torch.int64, torch.uint8)
    if not whole or (data.ndim, lengths.ndim, kinds.ndim) != (1, 1, 1) or len(kinds) != len(lengths) or len(kinds) == 0:
        raise FileError(f"{path} is damaged: its parts are not those of a texture bank.")
    counts = lengths.tolist()
    if min(counts) < 1 or sum(counts) != len(data) or int(kinds.max()) > PARTICLES:
        raise FileError(f"{path} is damaged: its textures do not have the lengths or kinds that it says.")
    content, ends = data.numpy().tobytes(), np.cumsum(lengths.numpy())
    return [content[end - count : end] for count, end in zip(counts, ends.tolist(), strict=True)], kinds


def _header(data: bytes, path: str | os.PathLike[str]) -> tuple[int, int]:
    """Width and height of a packed JPEG, from its header."""
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
            return image.size
    except Exception as error:  # decoders raise almost anything on damaged files
        raise FileError(f"{path} is damaged: a texture is no JPEG.") from error


def _texture(data: bytes, path: str | os.PathLike[str]) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
            return np.asarray(image.convert("RGB"))
    except Exception as error:
        raise FileError(f"{path} is damaged: a texture cannot be decoded ({error}).") from error


def find_photos(folders: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """Photographs (JPEG, PNG) by name under each of the folders, at any depth.

    Raises:
        FileError: where a folder does not exist.
    """
    found: list[Path] = []
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise FileError(f"no folder of photographs at {folder}")
        found += sorted(path for path in folder.rglob("*") if path.suffix.lower() in _PHOTO_SUFFIXES)
    return found


def _square(photo: Image.Image, size: int, random: np.random.Generator) -> np.ndarray:
    """Scale the short side to `size` [px] and cut a square at a random place."""
    scale = size / min(photo.size)
    width, height = (max(size, round(side * scale)) for side in photo.size)
    photo = photo.resize((width, height), Image.Resampling.BICUBIC if scale > 1 else Image.Resampling.LANCZOS)
    left, top = int(random.integers(width - size + 1)), int(random.integers(height - size + 1))
    return np.asarray(photo.crop((left, top, left + size, top + size)))


# --- Drawn surfaces. Each maker returns (3, S, S) float, about [0, 1]. ---


def _uniform(generator: torch.Generator, low: float, high: float) -> float:
    return low + (high - low) * torch.rand((), generator=generator).item()


def _noise(size: int, slope: float, generator: torch.Generator, count: int = 1) -> Tensor:
    """`(count, S, S)` noise of zero mean and unit deviation whose amplitude spectrum falls as 1/f^slope."""
    rows, columns = torch.fft.fftfreq(size)[:, None], torch.fft.rfftfreq(size)[None]
    frequency = (rows.square() + columns.square()).sqrt().clamp_min(1 / size)
    spectrum = torch.fft.rfft2(torch.randn((count, size, size), generator=generator)) / frequency**slope
    spectrum[:, 0, 0] = 0
    field = torch.fft.irfft2(spectrum, s=(size, size))
    return field / field.std(dim=(1, 2), keepdim=True)


def _palette(count: int, generator: torch.Generator) -> Tensor:
    """`(count, 3)` colours of mixed saturation around a shared tint."""
    tint, spread = torch.rand((1, 3), generator=generator), _uniform(generator, 0.15, 0.6)
    grey = torch.rand((count, 1), generator=generator)
    return (0.35 * tint + 0.65 * grey + spread * (torch.rand((count, 3), generator=generator) - 0.5)).clamp(0, 1)


def _grain(image: Tensor, generator: torch.Generator, strength: float) -> Tensor:
    """Fine surface detail, so that no area is without texture."""
    detail = _noise(image.shape[-1], _uniform(generator, 0.6, 1.1), generator)
    return image + strength * detail


def _dead_leaves(size: int, generator: torch.Generator) -> Tensor:
    """Occluding discs and polygons whose radii follow a power law of exponent -3, up to size / 5 texels."""
    double = 2 * size
    ground = (_palette(1, generator)[0] * 255).int().tolist()
    image = Image.new("RGB", (double, double), tuple(ground))
    draw = ImageDraw.Draw(image)
    smallest, largest = 2 * _uniform(generator, 2, 5), double / 5
    largest = max(largest, 1.1 * smallest)  # of the smallest textures
    # So many that their areas add up to 2.5 times the image (mean radius^2 = 2 a^2 ln(b / a)): little ground is left.
    count = int(2.5 * double**2 / (2 * math.pi * smallest**2 * math.log(largest / smallest)))
    u = torch.rand(count, generator=generator)
    radii = ((1 - u) * smallest**-2 + u * largest**-2).rsqrt().tolist()
    centres = (torch.rand((count, 2), generator=generator) * double).tolist()
    colours = (_palette(count, generator) * 255).int().tolist()
    turns = torch.rand(count, generator=generator).tolist()
    sides = int(_uniform(generator, 0, 6))
    for radius, (x, y), colour, turn in zip(radii, centres, colours, turns, strict=True):
        if sides < 3:
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=tuple(colour))
        else:
            draw.regular_polygon((x, y, radius), sides, 360 * turn, fill=tuple(colour))
    pixels = torch.from_numpy(np.asarray(image.reduce(2)).copy()).permute(2, 0, 1) / 255
    return _grain(pixels, generator, _uniform(generator, 0.01, 0.07))


def _fractal(size: int, generator: torch.Generator) -> Tensor:
    """Two fields of 1/f^a noise, blended between three colours."""
    fields = _noise(size, _uniform(generator, 0.7, 1.6), generator, 2)
    first, second, third = _palette(3, generator)[..., None, None]
    a, b = torch.sigmoid(_uniform(generator, 1, 4) * fields)
    return _grain(first + a * (second - first) + 0.7 * b * (third - first), generator, 0.02)


def _stripes(size: int, generator: torch.Generator) -> Tensor:
    """Stripes, checks or a sine grating of 4 to 40 texels period, slightly wavy, over soft shading."""
    angle, period = _uniform(generator, 0, math.pi), 4 * 10 ** _uniform(generator, 0, 1)
    y, x = torch.meshgrid(torch.arange(size) * 1.0, torch.arange(size) * 1.0, indexing="ij")
    wave = _noise(size, 2.2, generator) * _uniform(generator, 0, 0.5) * period
    along = (x * math.cos(angle) + y * math.sin(angle) + wave) * (2 * math.pi / period)
    across = (y * math.cos(angle) - x * math.sin(angle) + wave) * (2 * math.pi / period * _uniform(generator, 0.3, 1))
    sharpness = period / 3 if _uniform(generator, 0, 1) < 0.6 else 1.0
    pattern = torch.tanh(sharpness * along.sin())
    if _uniform(generator, 0, 1) < 0.4:
        pattern = pattern * torch.tanh(sharpness * across.sin())
    first, second = _palette(2, generator)[..., None, None]
    image = first + (0.5 + 0.5 * pattern) * (second - first)
    return _grain(image + 0.08 * _noise(size, 1.8, generator), generator, _uniform(generator, 0.01, 0.06))


def _gradient(size: int, generator: torch.Generator) -> Tensor:
    """Smooth colours with faint grain: sky, skin, painted walls."""
    colour = _palette(1, generator)[0][:, None, None]
    smooth = 0.5 * (colour + 0.5) + 0.1 * _noise(size, 2.4, generator, 3)
    return _grain(smooth, generator, _uniform(generator, 0.005, 0.03))


def _particles(size: int, generator: torch.Generator) -> Tensor:
    """Grey Gaussian spots of 1.6 to 4 texels diameter (4 deviations) of varied brightness on a dark ground."""
    density = 10 ** _uniform(generator, -1.9, -0.8)
    rows, columns = torch.fft.fftfreq(size)[:, None], torch.fft.rfftfreq(size)[None]
    squared = rows.square() + columns.square()
    image = torch.zeros(size, size)
    for sigma in (_uniform(generator, 0.4, 0.7), _uniform(generator, 0.5, 1.0)):
        hits = torch.rand((size, size), generator=generator) < density / 2
        brightness = 0.3 + 0.7 * torch.rand((size, size), generator=generator)
        spots = torch.fft.rfft2(hits * brightness * (2 * math.pi * sigma**2))
        image += torch.fft.irfft2(spots * torch.exp(-2 * (math.pi * sigma) ** 2 * squared), s=(size, size))
    ground = _uniform(generator, 0.0, 0.12)
    return (ground + (1 - ground) * image.clamp(0, 1)).expand(3, size, size)
