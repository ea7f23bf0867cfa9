"""Velocity fields as files, and the command from particle images to them."""

import csv
import json
import re
import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from helpers import run_command
from particle_images import SIZE, particles, write_recordings
from PIL import Image

import featherflow
from featherflow.errors import InputError, MissingExtraError
from featherflow.transport import fluids
from featherflow.transport.fluids import Calibration, Kind, Validation, from_flow, measure, measure_files
from featherflow.transport.fluids.pictures import draw_quiver, draw_vorticity
from featherflow.transport.fluids.writing import to_dataset, write_field, write_netcdf

CALIBRATION = Calibration(dt=0.01, px_per_mm=10)


def field(seed=0):
    flow = np.random.default_rng(seed).normal(0, 2, (*SIZE, 2))
    mask = np.zeros(SIZE, bool)
    mask[:16, :16] = True
    return from_flow(flow, calibration=CALIBRATION, spacing=8, mask=mask, validation=Validation(outlier_threshold=3))


def test_a_table(tmp_path):
    here = field()
    write_field(tmp_path / "field.csv", here)
    with open(tmp_path / "field.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        *("x [mm]", "y [mm]", "u [mm/s]", "v [mm/s]", "vorticity [1/s]", "divergence [1/s]", "shear [1/s]", "kind"),
    ]
    assert len(rows) == here.u.size and {row["kind"] for row in rows} >= {"measured", "masked"}
    for name, values in (("u [mm/s]", here.u), ("vorticity [1/s]", here.vorticity)):
        read = np.array([float(row[name] or "nan") for row in rows]).reshape(here.u.shape)
        np.testing.assert_allclose(read, values, rtol=1e-6)
    assert float(rows[1]["x [mm]"]) == pytest.approx(here.x[1]) and float(rows[-1]["y [mm]"]) == pytest.approx(here.y[-1])


def test_netcdf_as_pivpy_reads_it(tmp_path):
    xarray = pytest.importorskip("xarray")
    pytest.importorskip("h5netcdf")
    fields = [field(0), field(1)]
    write_netcdf(tmp_path / "all.nc", fields, times=[0.0, 0.5], files=["a.tif b.tif", "c.tif d.tif"])
    with xarray.open_dataset(tmp_path / "all.nc", engine="h5netcdf") as read:
        for name in ("u", "v", "chc"):
            assert read[name].dims == ("y", "x", "t")
        for index, here in enumerate(fields):
            frame = read.isel(t=index)
            np.testing.assert_array_equal(frame["u"], here.u)
            np.testing.assert_array_equal(frame["chc"], here.kind == Kind.MEASURED)
            np.testing.assert_allclose(frame["vorticity"], here.vorticity)
        assert read["t"].values.tolist() == [0.0, 0.5] and read.attrs["delta_t"] == 0.01
        assert (read["u"].attrs["units"], read["x"].attrs["units"], read["vorticity"].attrs["units"]) == ("mm/s", "mm", "1/s")
        # Derivatives by xarray, from coordinates as stored: where no gap is near, they are ours.
        theirs = read["v"].differentiate("x") - read["u"].differentiate("y")
        inner = (slice(4, -2), slice(4, -2), slice(None))
        np.testing.assert_allclose(theirs.values[inner], read["vorticity"].values[inner], rtol=1e-9, atol=1e-9)


def test_netcdf_takes_no_room_elsewhere(tmp_path, monkeypatch):
    """HDF5 ends the whole process where the disk is full that it writes to, so it writes to none."""
    xarray = pytest.importorskip("xarray")
    pytest.importorskip("h5netcdf")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "no such folder"))
    write_netcdf(tmp_path / "all.nc", [field()])
    with xarray.open_dataset(tmp_path / "all.nc", engine="h5netcdf") as read:
        assert read.load().equals(to_dataset([field()])) and read["u"].attrs["units"] == "mm/s"
    assert [path.name for path in tmp_path.iterdir()] == ["all.nc"]


def test_fields_on_several_grids_are_refused():
    pytest.importorskip("xarray")
    with pytest.raises(InputError, match="one grid"):
        to_dataset([field(), from_flow(np.zeros((40, 40, 2)))])


def test_vtk_image_data(tmp_path):
    pytest.importorskip("pyevtk")
    here = field()
    write_field(tmp_path / "field.vti", here)
    data = (tmp_path / "field.vti").read_bytes()
    head, _, raw = data.partition(b'<AppendedData encoding="raw">')
    raw = raw[raw.index(b"_") + 1 :]
    image = ET.fromstring(head + b"</VTKFile>").find("ImageData")
    origin, spacing = (np.array(image.get(name).split(), float) for name in ("Origin", "Spacing"))
    assert origin[:2] == pytest.approx((here.x.min(), here.y.min())) and spacing[:2] == pytest.approx((0.8, 0.8))
    ny, nx = here.u.shape
    assert image.get("WholeExtent").split() == ["0", str(nx - 1), "0", str(ny - 1), "0", "0"]
    arrays = {element.get("Name"): element for element in image.iter("DataArray")}
    offset = int(arrays["velocity"].get("offset"))
    length = int(np.frombuffer(raw[offset : offset + 8], "<u8")[0])
    vectors = np.frombuffer(raw[offset + 8 : offset + 8 + length], "<f8").reshape(ny, nx, 3)
    # VTK's rows ascend with y, which points up: the last row of the image comes first.
    np.testing.assert_array_equal(vectors[::-1, :, 0], here.u)
    np.testing.assert_array_equal(vectors[::-1, :, 1], here.v)
    assert set(arrays) == {"velocity", "vorticity", "divergence", "shear", "kind"}


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_figures(tmp_path, suffix):
    pytest.importorskip("matplotlib")
    here = field()
    draw_quiver(tmp_path / f"q{suffix}", here)
    draw_vorticity(tmp_path / f"w{suffix}", here)
    starts = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}
    for name in ("q", "w"):
        assert (tmp_path / f"{name}{suffix}").read_bytes().startswith(starts[suffix])


def test_figures_say_axes_and_units(tmp_path):
    pytest.importorskip("matplotlib")
    import matplotlib

    with matplotlib.rc_context({"svg.fonttype": "none"}):
        draw_quiver(tmp_path / "q.svg", field())
        draw_vorticity(tmp_path / "w.svg", from_flow(np.full((40, 40, 2), np.nan)))  # nothing known
    text = (tmp_path / "q.svg").read_text()
    assert "x [mm]" in text and "y [mm]" in text and "speed [mm/s]" in text
    assert "x [px]" in (tmp_path / "w.svg").read_text()


def test_missing_parts_are_named(tmp_path, monkeypatch):
    import sys

    for name in ("xarray", "pyevtk", "pyevtk.hl", "matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, name, None)
    for call in (
        lambda: write_netcdf(tmp_path / "x.nc", [field()]),
        lambda: write_field(tmp_path / "x.vti", field()),
        lambda: draw_quiver(tmp_path / "x.png", field()),
    ):
        with pytest.raises(MissingExtraError, match=re.escape("pip install 'featherflow[piv]'")):
            call()
    assert not list(tmp_path.iterdir())
    write_recordings(tmp_path)
    for options in ({"outputs": [tmp_path / "x.nc"]}, {"vorticity": tmp_path / "x.png"}):
        with pytest.raises(MissingExtraError):  # before anything is computed
            measure_files([tmp_path / "run"], **options, estimator=lambda *_: pytest.fail("computed"))


def test_the_rotation_of_particles_is_measured():
    pytest.importorskip("cv2")
    import featherflow

    here = measure(*particles(), calibration=Calibration(dt=0.01), estimator=featherflow.Estimator("deepflow", refine=3))
    # Clockwise on the screen, by 3 rad/s.
    inner = (slice(2, -2), slice(2, -2))
    assert np.median(here.vorticity[inner]) == pytest.approx(-6, rel=0.05)
    assert abs(np.median(here.divergence[inner])) < 0.3


def test_the_command_writes_everything_at_once(tmp_path, capsys):
    for part in ("cv2", "xarray", "h5netcdf", "pyevtk", "matplotlib"):
        pytest.importorskip(part)
    write_recordings(tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    outputs = [part for name in ("f.csv", "f.nc", "f.vti") for part in ("-o", out / name)]
    code = run_command(
        *(
            "piv",
            tmp_path / "recording.tif",
            "--pairing",
            "double",
            *outputs,
            "--quiver",
            out / "q.png",
            "--vorticity",
            out / "w.svg",
        ),
        *("--dt", 0.01, "--px-per-mm", 10, "--mask", tmp_path / "wall.png", "--spacing", 8, "--origin", "64,48"),
        *("--u-limits", "-500,500", "--model", "dis", "--json"),
    )
    assert code == 0
    results = json.loads(capsys.readouterr().out)
    assert [(result["frame1"][-9:], result["masked"], result["nx"], result["ny"]) for result in results] == [
        ("picture 0", 4, 16, 12),
        ("picture 2", 4, 16, 12),
    ]
    assert results[0]["velocity_unit"] == "mm/s" and results[0]["mean_speed"] == results[1]["mean_speed"] > 0
    names = {"f.nc", *(f"{stem}_{number:04d}{suffix}" for number in (0, 1) for stem, suffix in STEMS)}
    assert {path.name for path in out.iterdir()} == names == {name.rsplit("/", 1)[-1] for r in results for name in r["files"]}


STEMS = (("f", ".csv"), ("f", ".vti"), ("q", ".png"), ("w", ".svg"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "Nothing would be written"),
        (["-o", "x.txt"], "must end in one of .csv, .vti, .nc"),
        (["-o", "x.csv", "--quiver", "x.tif"], "no figure"),
        (["-o", "x.csv", "--origin", "3"], "--origin takes two numbers"),
        (["-o", "x.csv", "--u-limits", "3,1"], "u_limits"),
        (["-o", "x.csv", "--dt", "0"], "dt must be a positive number"),
        (["-o", "x.csv", "--spacing", "0"], "The spacing"),
        (["-o", "x.csv", "--mask", "missing.png"], "no image file 'missing.png'"),
        (["-o", "x.csv", "--mask", "ones.png"], "leaves nothing to be measured: all of it is darker than half of 255"),
        (["-o", "x.nc", "-o", "./x.nc"], "twice"),
        (["-o", "nowhere/x.nc"], "its folder does not exist"),
    ],
)
def test_what_cannot_be_done_is_said_and_nothing_is_written(tmp_path, monkeypatch, capsys, arguments, words):
    pytest.importorskip("cv2")
    monkeypatch.chdir(tmp_path)
    images = dict(zip(("a.png", "b.png", "ones.png"), (*particles(), np.ones(SIZE, np.uint8)), strict=True))
    for name, image in images.items():
        Image.fromarray(image).save(name)
    assert run_command("piv", "a.png", "b.png", "--model", "dis", *arguments) != 0
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1 and {path.name for path in tmp_path.iterdir()} == set(images)


def test_a_list_with_a_file_that_is_missing_is_told_before_anything_is_measured(tmp_path, monkeypatch, capsys):
    pytest.importorskip("cv2")
    monkeypatch.chdir(tmp_path)
    for image, name in zip(particles(), ("a.png", "b.png"), strict=True):
        Image.fromarray(image).save(name)
    Path("list.csv").write_text("frame1,frame2\na.png,b.png\na.png,c.png\n")
    assert run_command("piv", "list.csv", "--model", "dis", "-o", "x.csv") != 0
    assert "no image file 'c.png'" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", "b.png", "list.csv"}


def test_a_list_is_never_written_over(tmp_path):
    (tmp_path / "list.csv").write_text("a.png,b.png\n")
    with pytest.raises(InputError, match="would take the place"):
        measure_files([tmp_path / "list.csv"], [tmp_path / "list.csv"], estimator=lambda a, b: a)
    assert (tmp_path / "list.csv").read_text() == "a.png,b.png\n"


def test_deep_frames_are_scaled_together(tmp_path):
    """12 bits in 16, of which the second frame is darker: both by the range of the brighter."""
    first, second = particles()
    Image.fromarray(first.astype(np.uint16) * 16).save(tmp_path / "x_a.tif")
    Image.fromarray(second.astype(np.uint16) * 8).save(tmp_path / "x_b.tif")
    seen = []

    class Seeing(featherflow.Estimator):
        def __call__(self, one, other):
            seen.append((float(np.max(one)), float(np.max(other))))
            return np.zeros((*one.shape[:2], 2), np.float32)

    (result,) = measure_files([tmp_path], [tmp_path / "x.csv"], estimator=Seeing("horn-schunck"))
    assert seen[0][0] == pytest.approx(255 * 16 / 4095, abs=1e-3) and seen[0][1] == pytest.approx(255 * 8 / 4095, abs=1e-3)
    assert result.sentence().startswith("x_a.tif -> x_b.tif") and fluids.Kind(0).name == "MEASURED"


@pytest.mark.parametrize(("options", "steps"), [([], 2), (["--model", "dis"], 2), (["--model", "dis", "--refine", "0"], 0)])
def test_particles_are_refined_whatever_else_is_asked_for(options, steps, monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(fluids, "measure_files", lambda *_, estimator, **__: seen.append(estimator.settings.refine) or [])
    assert run_command("piv", "a.png", "b.png", "-o", tmp_path / "x.csv", *options) == 0
    assert seen == [steps]


def test_there_and_back_by_the_command(tmp_path, capsys):
    pytest.importorskip("cv2")
    write_recordings(tmp_path)
    code = run_command(
        "piv", tmp_path / "run", "-o", tmp_path / "x.csv", "--disagreement", 0.05, "--no-replace", "--model", "dis", "--json"
    )
    result = json.loads(capsys.readouterr().out)
    assert code == 0 and result["rejected"] > 0 and result["replaced"] == 0 and result["measured"] > result["rejected"]
