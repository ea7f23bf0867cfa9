"""Velocity fields as files: tables, NetCDF in the layout of pivpy, and VTK."""

from __future__ import annotations

import csv
import io
import os
import tempfile
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from ...errors import InputError, MissingExtraError
from ...files import atomic_write
from .field import Kind, VelocityField

if TYPE_CHECKING:
    import xarray

#: Files of one pair each, and those that hold all pairs.
SUFFIXES_OF_ONE, SUFFIXES_OF_ALL = (".csv", ".vti"), (".nc",)

_NEEDED = {".nc": ("xarray", "h5netcdf"), ".vti": ("pyevtk.hl",)}


def check_suffix(path: str | os.PathLike[str]) -> str:
    """The suffix of a file that can be written.

    Raises:
        InputError: for another; MissingExtraError: where what writes it is not installed.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in (*SUFFIXES_OF_ONE, *SUFFIXES_OF_ALL):
        known = ", ".join((*SUFFIXES_OF_ONE, *SUFFIXES_OF_ALL))
        raise InputError(f"'{path}' is no file of velocities that can be written; its name must end in one of {known}.")
    _parts(suffix)
    return suffix


def write_field(path: str | os.PathLike[str], field: VelocityField) -> None:
    """Write one field as a table (`.csv`) or VTK image data (`.vti`), whole or not at all.

    Raises:
        FileError: if it cannot be written; MissingExtraError: for `.vti` without the extra `piv`.
    """
    content = _csv(field) if check_suffix(path) == ".csv" else _vti(field)
    with atomic_write(path) as file:
        file.write(content)


def write_netcdf(
    path: str | os.PathLike[str], fields: Sequence[VelocityField], times: Sequence[float] | None = None, files: Sequence[str] = ()
) -> None:
    """Write fields of one grid as NetCDF, see `to_dataset`, whole or not at all.

    Raises:
        FileError: if it cannot be written; MissingExtraError: without the extra `piv`; InputError: as `to_dataset`.
    """
    xarray, h5netcdf = _parts(".nc")
    dataset = to_dataset(fields, times, files)
    # In memory, as HDF5 ends the whole process where a disk is full, and `to_netcdf` does so in new releases of xarray only.
    content = io.BytesIO()
    with h5netcdf.File(content, "w") as file:
        dataset.dump_to_store(xarray.backends.H5NetCDFStore(file))
    with atomic_write(path) as file:
        file.write(content.getbuffer())


def to_dataset(fields: Sequence[VelocityField], times: Sequence[float] | None = None, files: Sequence[str] = ()) -> xarray.Dataset:
    """Fields of one grid as an `xarray.Dataset` in the layout of pivpy.

    Dimensions y, x, t; variables u, v and chc (1 where measured, else 0), and vorticity, divergence, shear and kind (0 measured,
    1 replaced, 2 rejected, 3 masked); units on each.

    Args:
        times: of the fields [s]; by default they are counted.
        files: names of the frames, kept as an attribute.

    Raises:
        InputError: for fields on different grids; MissingExtraError: without the extra `piv`.
    """
    (xarray,) = _parts(".nc")[:1]
    first = fields[0]
    for field in fields[1:]:
        if field.u.shape != first.u.shape or not (np.array_equal(field.x, first.x) and np.array_equal(field.y, first.y)):
            raise InputError("Fields of one NetCDF file must stand on one grid; these pairs are of several sizes.")
    units = first.calibration

    def stacked(name: str, unit: str, **attributes: str):
        values = np.stack([np.asarray(getattr(field, name), np.float64) for field in fields], axis=-1)
        return ("y", "x", "t"), values, {"units": unit, **attributes}

    valid = np.stack([field.kind == Kind.MEASURED for field in fields], axis=-1).astype(np.float64)
    kinds = ", ".join(f"{kind.value} {kind.name.lower()}" for kind in Kind)
    kind = np.stack([field.kind for field in fields], axis=-1)
    return xarray.Dataset(
        {
            "u": stacked("u", units.velocity_unit, standard_name="u_velocity"),
            "v": stacked("v", units.velocity_unit, standard_name="v_velocity"),
            "chc": (("y", "x", "t"), valid, {"standard_name": "validity_flag"}),
            "vorticity": stacked("vorticity", units.rate_unit),
            "divergence": stacked("divergence", units.rate_unit),
            "shear": stacked("shear", units.rate_unit),
            "kind": (("y", "x", "t"), kind, {"meaning": kinds}),
        },
        coords={
            "x": ("x", first.x, {"units": units.length_unit}),
            "y": ("y", first.y, {"units": units.length_unit, "positive": "up" if units.y_up else "down"}),
            "t": (
                ("t", np.arange(len(fields), dtype=np.float64), {"units": "frame"})
                if times is None
                else ("t", np.asarray(times, np.float64), {"units": "s"})
            ),
        },
        attrs={"delta_t": units.dt or 0.0, "files": list(files) or ["array"], "pivpy_schema_version": "1"},
    )


def _csv(field: VelocityField) -> bytes:
    length, velocity, rate = field.calibration.length_unit, field.calibration.velocity_unit, field.calibration.rate_unit
    header = [f"x [{length}]", f"y [{length}]", f"u [{velocity}]", f"v [{velocity}]"]
    header += [f"{name} [{rate}]" for name in ("vorticity", "divergence", "shear")] + ["kind"]
    x, y = np.meshgrid(field.x, field.y)
    columns = [x, y, field.u, field.v, field.vorticity, field.divergence, field.shear]
    names = [Kind(value).name.lower() for value in field.kind.ravel()]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    for numbers, name in zip(np.stack([column.ravel() for column in columns], axis=1), names, strict=True):
        writer.writerow([*("" if np.isnan(number) else f"{number:.7g}" for number in numbers), name])
    return text.getvalue().encode()


def _vti(field: VelocityField) -> bytes:
    (hl,) = _parts(".vti")
    # VTK's grids ascend along every axis, and its arrays have x first.
    down, left = (-1 if len(axis) > 1 and axis[1] < axis[0] else 1 for axis in (field.y, field.x))

    def ordered(values: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(values[::down, ::left].T[..., None])

    # Python's own numbers: pyevtk prints them as they are.
    steps = [float(abs(axis[1] - axis[0])) if len(axis) > 1 else 1.0 for axis in (field.x, field.y)]
    corner = (float(field.x.min()), float(field.y.min()), 0.0)
    u, v = ordered(field.u), ordered(field.v)
    data = {"velocity": (u, v, np.where(np.isnan(u), np.nan, 0.0))}
    data |= {name: ordered(getattr(field, name)) for name in ("vorticity", "divergence", "shear")}
    data["kind"] = ordered(field.kind)
    with tempfile.TemporaryDirectory() as folder:
        name = hl.imageToVTK(str(Path(folder) / "field"), origin=corner, spacing=(*steps, 1.0), pointData=data)
        return Path(name).read_bytes()


def _parts(suffix: str) -> list[ModuleType]:
    """The modules that files of a suffix need.

    Raises:
        MissingExtraError: where one is not installed.
    """
    try:
        return [import_module(name) for name in _NEEDED.get(suffix, ())]
    except ImportError as error:
        raise MissingExtraError(f"{suffix} files need {error.name}; install it with: pip install 'featherflow[piv]'") from error
