"""`featherflow piv`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from .options import EstimationOptions

_SIGNED = Parameter(allow_leading_hyphen=True)


@dataclass(frozen=True, kw_only=True)
class ParticleOptions(EstimationOptions):
    __doc__ = EstimationOptions.__doc__

    refine: int | None = 2


_ESTIMATION = ParticleOptions()


def piv(
    *frames: str,
    output: Annotated[list[str] | None, Parameter(alias="-o", negative="")] = None,
    quiver: str | None = None,
    vorticity: str | None = None,
    pairing: str = "auto",
    dt: float | None = None,
    px_per_mm: float | None = None,
    origin: Annotated[str | None, _SIGNED] = None,
    y_down: Annotated[bool, Parameter(negative="")] = False,
    spacing: int = 4,
    mask: Path | None = None,
    outliers: Annotated[float, Parameter(negative="")] = 2.0,
    noise: float = 0.1,
    u_limits: Annotated[str | None, _SIGNED] = None,
    v_limits: Annotated[str | None, _SIGNED] = None,
    deviations: float | None = None,
    disagreement: float | None = None,
    replace: bool = True,
    range: Annotated[str | None, _SIGNED] = None,
    estimation: Annotated[ParticleOptions, Parameter(name="*")] = _ESTIMATION,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Measure the velocities of a fluid between particle images (PIV).

    Example: featherflow piv run_a.tif run_b.tif -o field.csv --quiver arrows.png --dt 0.002 --px-per-mm 21.3

    Example: featherflow piv recording.tif --pairing double -o all.nc --vorticity vorticity.png --mask wall.png --spacing 16

    Example: featherflow piv pairs.csv -o field.vti --origin 0,511 --u-limits -50,400

    Parameters
    ----------
    frames
        Two image files; or one folder, quoted glob, file of several pictures (TIFF of many pages), folder with the folders a and b
        in it, or list (.csv) of columns frame1, frame2 and, if wanted, mask and time in seconds, relative to the list.
    output
        Velocities, vorticity, divergence and shear as .csv, .vti (VTK) or .nc (NetCDF in the layout of pivpy); may be given several
        times. Of several pairs, .nc holds all, and the others are numbered: field_0000.csv, ...
    quiver
        Figure of arrows over the speed (.png, .svg or .pdf); of several pairs, numbered.
    vorticity
        Figure of the vorticity.
    pairing
        Of one source: ab (names ending in a and b, or img1 and img2), double (1-2, 3-4), series (1-2, 2-3) or auto: ab where all
        names come in such pairs, else series.
    dt
        Seconds between the two frames of a pair; without it, velocities are displacements.
    px_per_mm
        Pixels in a millimetre; without it, lengths are in pixels.
    origin
        Place of (0, 0) as X,Y in pixels, from the centre of the upper left pixel and down; by default the lower left pixel, and the
        upper left one with --y-down.
    y_down
        Let y point down, as in images; by default it points up, and counter-clockwise vorticity is positive.
    spacing
        Distance of the grid points in pixels; each is the mean of a square of that side. 1 keeps every pixel.
    mask
        Image that is black where nothing is to be measured.
    outliers
        Threshold of the normalised median test (universal outlier detection, Westerweel and Scarano 2005); 0 for no test.
    noise
        Usual noise of a displacement in that test, in pixels.
    u_limits
        LOW,HIGH: velocities along x that can be.
    v_limits
        LOW,HIGH: velocities along y that can be.
    deviations
        Most standard deviations of u, and of v, from their means.
    disagreement
        Most pixels that the way there and back may end from its start; takes the backward flow too.
    replace
        Put the smooth continuation of what is around in the place of what is rejected.
    range
        LOW,HIGH: the numbers that are black and white in pictures deeper than 8 bit.
    json
        Print what was done as JSON.
    """
    from ..transport.fluids import Calibration, Validation, measure_files
    from .output import parse_range, show_progress, show_results

    with show_progress("pairs", quiet=json) as progress:
        results = measure_files(
            frames,
            output or [],
            quiver=quiver,
            vorticity=vorticity,
            pairing=pairing,
            mask=mask,
            calibration=Calibration(dt=dt, px_per_mm=px_per_mm, origin=_numbers(origin, "origin"), y_up=not y_down),
            spacing=spacing,
            validation=Validation(
                outlier_threshold=outliers or None,
                noise=noise,
                u_limits=_numbers(u_limits, "u-limits"),
                v_limits=_numbers(v_limits, "v-limits"),
                max_deviations=deviations,
                max_disagreement=disagreement,
                replace=replace,
            ),
            value_range=parse_range(range),
            estimator=estimation.estimator(),
            progress=progress,
        )
    show_results(results, as_json=json)


def _numbers(text: str | None, name: str) -> tuple[float, float] | None:
    """Two numbers with a comma between them."""
    from ..errors import InputError

    if text is None:
        return None
    try:
        first, second = (float(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"--{name} takes two numbers with a comma between them, got '{text}'.") from None
    return first, second
