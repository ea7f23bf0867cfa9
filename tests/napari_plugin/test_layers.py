"""What the plugin computes: axes, units, scaling to 8 bit, and that nothing that was done is lost. None of it needs napari."""

import subprocess
import sys

import numpy as np
import pytest
from stacks import colour_stack, grey_stack, layer, outcome, outcome_of

from featherflow import flow_to_rgb
from featherflow.errors import FileError, InputError
from featherflow.flow import measured_scale
from featherflow.napari_plugin.layers import OUTPUTS, Collected, Outcome, Place, Wanted, pictures_of, tracks_of, vectors_of
from featherflow.transport.fluids import Calibration

pytest.importorskip("cv2", reason="the method dis, which is quick, needs the extra opencv")


def steps(found: Outcome) -> np.ndarray:
    """The median step of the vectors, in napari's axes."""
    (data, _, kind) = found.layers[-1]
    assert kind == "vectors"
    return np.median(data[:, 1], axis=0)


STACKS = {
    "grey": lambda grey, colour: (grey, False),
    "colour": lambda grey, colour: (colour, True),
    "colour and alpha": lambda grey, colour: (np.concatenate([colour, colour[..., :1]], axis=-1), True),
    "12 bit in 16": lambda grey, colour: (grey.astype(np.uint16) * 16, False),
    "the other byte order": lambda grey, colour: ((grey.astype(np.uint16) * 16).astype(">u2"), False),
    "int32": lambda grey, colour: (grey.astype(np.int32) * 1000, False),
    "float32": lambda grey, colour: (grey.astype(np.float32) / 255, False),
    "float64": lambda grey, colour: (grey / 255, False),
}


@pytest.mark.parametrize("make", STACKS.values(), ids=STACKS)
def test_a_shift_to_the_right_and_down_is_a_step_along_x_and_y_of_napari(make):
    data, rgb = make(grey_stack(), colour_stack())
    found = outcome_of(data, rgb=rgb)
    assert found.error is None and found.sentence() is None and (found.done, found.total) == (2, 2)
    assert np.allclose(steps(found), (0, 1, 3), atol=0.1)
    assert set(found.layers[0][0][:, 0, 0]) == {0, 1}  # from picture t to t + 1, at t


def test_two_layers_give_vectors_without_time():
    first, second = grey_stack(2)
    assert np.allclose(steps(outcome_of(first, second)), (1, 3), atol=0.1)
    colours = colour_stack(2)
    found = outcome_of(*colours, rgb=True, outputs=("vectors", "colour", "vorticity"))
    assert [data.shape for data, _, _ in found.layers] == [(64, 96, 3), (16, 24), (96, 2, 2)]


def test_the_default_model_does_it_too():
    found = outcome(pictures_of(layer(grey_stack(2))), Wanted(outputs=("vectors", "tracks")), model=None)
    data = found.layers[0][0]
    assert np.allclose(np.median(data[:, 1], axis=0), (0, 1, 3), atol=0.1)


def test_a_vector_is_the_mean_of_its_square_and_starts_at_its_centre():
    y, x = np.mgrid[:8, :12].astype(np.float32)
    flow = np.stack([x, 10 * y], axis=-1)
    flow[:4, :4] = np.nan
    vectors = vectors_of(flow, 4, time=7)
    assert vectors.shape == (5, 2, 3)  # the unknown one is left out
    assert vectors[0].tolist() == [[7, 1.5, 5.5], [0, 15, 5.5]]
    assert vectors_of(flow, 4)[0].tolist() == [[1.5, 5.5], [15, 5.5]]


def test_speeds_have_the_unit_of_the_calibration_and_steps_stay_in_pixels():
    found = outcome_of(grey_stack(), calibration=Calibration(dt=0.5, px_per_mm=10))
    data, keywords, _ = found.layers[0]
    ((name, speed),) = keywords["features"].items()
    assert name == "speed [mm/s]" == keywords["edge_color"]
    assert np.allclose(speed, np.hypot(data[:, 1, 1], data[:, 1, 2]) / 10 / 0.5)
    assert np.median(speed) == pytest.approx(10**0.5 / 5, rel=0.05)


@pytest.mark.parametrize(("motion", "times"), [(0.0, 32), (2.0, 8), (5.0, 3), (40.0, 1)])
def test_arrows_of_slow_motions_are_drawn_longer_and_their_data_stay(motion, times):
    collected = Collected("cells", Place(), True, Wanted())
    collected.add(np.full((64, 64, 2), (motion, 0), np.float32))
    ((data, keywords, _),) = collected.layers()
    assert keywords["length"] == times and (data[:, 1] == (0, 0, motion)).all()


def test_pictures_of_16_bit_are_scaled_alike_by_the_bits_that_all_need():
    stack = np.stack([np.full((20, 20), value, np.uint16) for value in (100, 1000, 4000)])
    frames = list(pictures_of(layer(stack)).frames())
    assert np.allclose([frame.max() for frame in frames], np.array((100, 1000, 4000)) / 4095)
    limited = list(pictures_of(layer(stack, contrast_limits=(100, 1100)), by_contrast=True).frames())
    assert np.allclose([frame.max() for frame in limited], (0, 0.9, 1))
    assert all(frame.dtype == np.uint8 for frame in pictures_of(layer(grey_stack()), by_contrast=True).frames())


def test_floating_point_beyond_0_to_1_is_taken_by_contrast_limits():
    stack = grey_stack().astype(np.float32) * 40 - 300
    refused = outcome_of(stack)
    assert isinstance(refused.error, InputError) and "contrast limits in napari" in refused.sentence()
    limits = float(stack.min()), float(stack.max())
    found = outcome(pictures_of(layer(stack, contrast_limits=limits), by_contrast=True))
    assert np.allclose(steps(found), (0, 1, 3), atol=0.1)


def nan_stack() -> np.ndarray:
    stack = grey_stack() / 255
    stack[1, 5, 5] = np.nan
    return stack


REFUSED = {
    "one picture": (lambda: outcome_of(grey_stack()[0]), "one picture"),
    "one colour picture": (lambda: outcome_of(colour_stack()[0], rgb=True), "one picture"),
    "a stack of one": (lambda: outcome_of(grey_stack(1)), "one picture"),
    "volumes": (lambda: outcome_of(np.zeros((3, 4, 32, 32), np.uint8)), "4 axes (3, 4, 32, 32)"),
    "two sizes": (lambda: outcome_of(grey_stack()[0], grey_stack()[0, 1:]), "96x64 and 'later' 96x63"),
    "a second beside a stack": (lambda: outcome_of(grey_stack(), grey_stack()[0]), "'cells' is no single picture"),
    "a stack as second": (lambda: outcome_of(grey_stack()[0], grey_stack()), "'later' is no single picture"),
    "NaN": (lambda: outcome_of(nan_stack()), "NaN"),
    "booleans": (lambda: outcome_of(grey_stack() > 99), "got bool"),
    "complex numbers": (lambda: outcome_of(grey_stack().astype(complex)), "got complex128"),
    "tiny pictures": (lambda: outcome_of(grey_stack()[:, :9], outputs=("colour",), spacing=1), "smallest"),
    "a spacing beyond the pictures": (lambda: outcome_of(grey_stack(), spacing=65), "from 1 to 64"),
    "no output": (lambda: outcome_of(grey_stack(), outputs=()), "at least one output"),
    "tracks of two layers": (lambda: outcome_of(*grey_stack(2), outputs=("tracks",)), "Tracks go through a stack"),
    "a missing model": (lambda: outcome(pictures_of(layer(grey_stack())), model="liteflownet9"), "no network named 'liteflownet9'"),
    "missing weights": (lambda: outcome(pictures_of(layer(grey_stack())), model="liteflownet2:nowhere"), "nowhere"),
}


@pytest.mark.parametrize(("run", "words"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_used_is_told_in_one_sentence(run, words):
    try:
        found = run()
        assert found.layers == [] and found.done == 0 and not found.is_unexpected
        sentence = found.sentence()
    except InputError as error:
        sentence = str(error)
    assert words in sentence and "\n" not in sentence and sentence.endswith((".", "?"))


class Lazy:
    """A stack that is read picture by picture, like those of dask and zarr, of which one cannot be."""

    def __init__(self, stack: np.ndarray, broken: int | None = None):
        self.stack, self.broken, self.read = stack, broken, []
        self.shape, self.dtype, self.ndim = stack.shape, stack.dtype, stack.ndim

    def __getitem__(self, index):
        self.read.append(index)
        if index == self.broken:
            raise OSError("page is truncated\nat byte 7")
        return self.stack[index]


def test_a_lazy_stack_is_read_as_it_is_needed():
    stack = Lazy(grey_stack(4))
    assert outcome(pictures_of(layer(stack)), stop_after=1).done == 1
    assert stack.read == [0, 1]


def test_what_was_done_before_a_damaged_picture_is_kept():
    found = outcome(pictures_of(layer(Lazy(grey_stack(5), broken=3))), Wanted(outputs=OUTPUTS, spacing=8))
    assert isinstance(found.error, FileError) and (found.done, found.total) == (2, 4)
    assert found.sentence() == "Picture 3 of 'cells' cannot be read: page is truncated. The layers hold 2 of 4 pairs."
    assert len(found.layers) == len(OUTPUTS) and len(found.layers[0][0]) == 2
    assert set(found.layers[-1][0][:, 1]) == {0, 1, 2}  # tracks


def test_what_was_done_before_it_was_stopped_is_kept():
    found = outcome(pictures_of(layer(grey_stack(5))), Wanted(outputs=("colour", "vectors")), stop_after=2)
    assert found.sentence() == "The estimation was stopped. The layers hold 2 of 4 pairs."
    assert found.layers[0][0].shape == (2, 64, 96, 3)


def test_a_fault_of_the_program_is_no_sentence(monkeypatch):
    monkeypatch.setattr("featherflow.napari_plugin.layers.vectors_of", lambda *_: 1 / 0)
    found = outcome_of(grey_stack())
    assert found.is_unexpected and isinstance(found.error, ZeroDivisionError)
    assert Outcome([], 0, 2, MemoryError()).sentence() == "There is not enough memory for pictures of this size; try smaller ones."


def test_maps_are_those_of_the_laboratory():
    """A turn against the clock, as a person sees it, is positive; rates are per second."""
    y, x = np.mgrid[:40, :48] - np.array([19.5, 23.5])[:, None, None]
    turn = np.stack([0.1 * y, -0.1 * x], axis=-1)  # y down: at the right of the centre it goes up
    grow = np.stack([0.2 * x, 0.2 * y], axis=-1)
    place = Place({"scale": np.array([1, 0.5, 0.25]), "translate": np.array([0, 10, 20])}, np.diag([1, 0.5, 0.25]))
    wanted = Wanted(outputs=("vorticity", "divergence"), calibration=Calibration(dt=0.5, px_per_mm=3))
    collected = Collected("tank", place, True, wanted)
    collected.add(turn)
    collected.add(grow)
    vorticity, divergence = collected.layers()
    assert vorticity[1]["name"] == "tank vorticity [1/s]" and vorticity[2] == "image"
    assert vorticity[0].shape == (2, 10, 12)
    assert np.allclose(vorticity[0][0], 0.4, atol=1e-5) and np.allclose(vorticity[0][1], 0, atol=1e-5)
    assert np.allclose(divergence[0][1], 0.8, atol=1e-5)
    low, high = vorticity[1]["contrast_limits"]
    assert low == -high and high == pytest.approx(0.4)
    assert vorticity[1]["scale"].tolist() == [1, 2, 1] and vorticity[1]["translate"].tolist() == [0, 10.75, 20.375]


def test_a_stack_at_rest_has_limits_all_the_same():
    collected = Collected("still", Place(), True, Wanted(outputs=OUTPUTS, spacing=8))
    collected.add(np.zeros((32, 32, 2), np.float32))
    limits = [keywords["contrast_limits"] for _, keywords, _ in collected.layers() if "contrast_limits" in keywords]
    assert limits == [(-1.0, 1.0)] * 3


def test_colours_of_a_stack_have_one_scale():
    slow, fast = (np.full((32, 32, 2), (length, 0), np.float32) for length in (1, 4))
    collected = Collected("cells", Place(), True, Wanted(outputs=("colour",)))
    collected.add(slow)
    collected.add(fast)
    ((data, keywords, kind),) = collected.layers()
    assert kind == "image" and keywords["rgb"] and keywords["name"] == "cells flow, full colour at 4 px"
    assert measured_scale(fast) == 4 and (data == np.stack([flow_to_rgb(slow, 4), flow_to_rgb(fast, 4)])).all()


def test_tracks_are_numbered_rows_until_a_point_is_lost():
    positions = np.array([[[5.0, 7], [1, 2]], [[8, 8], [np.nan, np.nan]], [[11, 9], [np.nan, np.nan]]])
    confidence = np.array([[1.0, 1], [0.9, 0], [0.8, 0]])
    data, trusted = tracks_of(list(zip(positions, confidence, strict=True)))
    assert data.tolist() == [[0, 0, 7, 5], [0, 1, 8, 8], [0, 2, 9, 11], [1, 0, 2, 1]]
    assert trusted.tolist() == [1, 0.9, 0.8, 1]


def test_tracks_follow_the_motion():
    found = outcome_of(grey_stack(4), outputs=("tracks",))
    data = found.layers[0][0]
    long = [data[data[:, 0] == point] for point in np.unique(data[:, 0])]
    moves = np.array([track[-1, 1:] - track[0, 1:] for track in long if len(track) == 4])
    assert len(moves) > 20 and np.allclose(np.median(moves, axis=0), (3, 3, 9), atol=0.2)


def test_computing_needs_no_napari():
    code = (
        "import sys; sys.modules.update(napari=None, magicgui=None); import featherflow.napari_plugin.layers as l; print(l.OUTPUTS)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "vorticity" in done.stdout
