"""Layers within napari, without a window; and the widget, where Qt is installed (featherflow brings none)."""

import os
import time
from types import SimpleNamespace

import numpy as np
import pytest
from stacks import colour_stack, grey_stack

from featherflow.napari_plugin.layers import OUTPUTS, Wanted, estimated, pictures_of

napari = pytest.importorskip("napari", reason="the extra napari is not installed")
pytest.importorskip("cv2", reason="the method dis, which is quick, needs the extra opencv")

from napari.components import ViewerModel  # noqa: E402
from napari.layers import Image, Layer  # noqa: E402
from napari.utils.notifications import notification_manager  # noqa: E402

PLACES = {
    "as it is": {},
    "scaled and moved": {"scale": (2, 0.5, 0.25), "translate": (1, 10, 20)},
    "rotated": {"scale": (1, 0.5, 0.25), "rotate": 30, "translate": (0, 3, 4)},
    "sheared": {"scale": (1, 0.5, 0.25), "shear": (0.1, 0.2, 0.3)},
    "by an affine transform": {
        "scale": (1, 2, 2),
        "affine": np.diag([1, 3, 0.5, 1]) + 0.1 * np.eye(4, k=1),
        "translate": (0, 5, 6),
    },
    "with units": {"units": ("s", "um", "um"), "axis_labels": ("t", "y", "x"), "scale": (0.1, 0.65, 0.65)},
}


def run(image: Image, second: Image | None = None, **wanted) -> dict[str, Layer]:
    """Layers by the output that they are, as a viewer takes them."""
    viewer = ViewerModel()
    viewer.add_layer(image)
    generator = estimated(pictures_of(image, second), Wanted(**{"outputs": OUTPUTS, "spacing": 8, **wanted}), "dis")
    while True:
        try:
            next(generator)
        except StopIteration as end:
            assert end.value.error is None
            return {
                next((name for name in OUTPUTS[2:] if f" {name}" in keywords["name"]), "colour" if kind == "image" else kind): (
                    viewer.add_layer(Layer.create(data, keywords, kind))
                )
                for data, keywords, kind in end.value.layers
            }


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_layers_lie_exactly_on_the_pictures(place):
    image = Image(grey_stack(), name="cells", **place)
    found = run(image)
    assert set(found) == set(OUTPUTS)
    point = (1, 20.0, 30.0)
    for name in ("vectors", "colour", "tracks"):
        assert np.allclose(found[name].data_to_world(point), image.data_to_world(point)), name
        assert np.allclose(found[name].scale, image.scale), name
    for name in ("vorticity", "divergence", "shear"):  # their pixels are the centres of squares of 4 px
        assert np.allclose(found[name].data_to_world((1, 2, 3)), image.data_to_world((1, 2 * 4 + 1.5, 3 * 4 + 1.5))), name
    if "units" in place:
        assert all(layer.units == image.units and layer.axis_labels == image.axis_labels for layer in found.values())


def test_vectors_are_as_long_as_the_motion_in_the_unit_of_the_layer():
    found = run(Image(grey_stack(), scale=(1, 0.5, 0.5)), outputs=("vectors",))["vectors"]
    start, step = np.median(found.data[:, 0], axis=0), np.median(found.data[:, 1], axis=0)
    world = np.array(found.data_to_world(start + step)) - found.data_to_world(start)
    assert np.allclose(world, (0, 0.5, 1.5), atol=0.05)


def test_two_colour_layers():
    first, second = (Image(picture, rgb=True, name=name) for picture, name in zip(colour_stack(2), "ab", strict=True))
    found = run(first, second, outputs=("vectors", "colour", "vorticity"))
    assert {name: layer.ndim for name, layer in found.items()} == {"vectors": 2, "colour": 2, "vorticity": 2}


def test_a_pyramid_is_taken_at_its_finest():
    stack = grey_stack()
    found = run(Image([stack, stack[:, ::2, ::2]], multiscale=True), outputs=("colour",))["colour"]
    assert found.data.shape == (2, 64, 96, 3)


@pytest.mark.parametrize("kind", ["dask.array", "zarr"])
def test_a_lazy_stack(kind):
    library = pytest.importorskip(kind, reason=f"{kind} is not installed")
    stack = grey_stack().astype(np.uint16) * 16
    lazy = library.from_array(stack, chunks=(1, 64, 96)) if kind == "dask.array" else library.array(stack, chunks=(1, 64, 96))
    found = run(Image(lazy, contrast_limits=(0, 4095)), outputs=("vectors",))["vectors"]
    assert np.allclose(np.median(found.data[:, 1], axis=0), (0, 1, 3), atol=0.1)


@pytest.fixture
def widget(monkeypatch):
    """The widget on a viewer without a window, its choices being what is in the viewer; and a function that waits for its end."""
    monkeypatch.setitem(os.environ, "QT_QPA_PLATFORM", "offscreen")
    qtpy = pytest.importorskip("qtpy", reason="the extra napari is not installed", exc_type=ImportError)
    try:
        from qtpy.QtWidgets import QApplication
    except qtpy.QtBindingsNotFoundError:
        pytest.skip("no Qt is installed, which featherflow leaves to the user")
    application = QApplication.instance() or QApplication([])
    from featherflow.napari_plugin.widget import FlowWidget

    viewer = ViewerModel()
    monkeypatch.setattr(notification_manager, "records", [])
    made = FlowWidget(viewer)

    def show(*images: Image) -> None:
        for image in images:
            viewer.add_layer(image)
        made.pictures.choices = made.second.choices = list(images)
        made.second.value = images[1] if len(images) > 1 else None
        made.model.value = "dis"
        made.spacing.value = 8

    def finish(until=lambda: made._run.enabled) -> None:
        limit = time.monotonic() + 60
        while not until() and time.monotonic() < limit:
            application.processEvents()
            time.sleep(0.01)
        assert until()

    yield SimpleNamespace(show=show, finish=finish, gui=made, viewer=viewer, told=lambda: notification_manager.records)
    made.close()


def test_the_widget_adds_what_is_asked_for(widget):
    widget.show(Image(grey_stack(), name="cells"))
    widget.gui._outputs["vorticity"].value = True
    widget.gui.dt.value = "0.5"
    widget.gui.start()
    assert not widget.gui._run.enabled and widget.gui._halt.enabled
    widget.finish()
    assert [layer.name for layer in widget.viewer.layers] == ["cells", "cells vorticity [1/s]", "cells flow"]
    assert widget.told() == [] and not widget.gui._halt.enabled


def test_stop_keeps_the_pairs_that_are_done(widget):
    widget.show(Image(grey_stack(40), name="cells"))
    widget.gui.start()
    widget.gui._halt.changed.emit(True)
    widget.finish()
    (note,) = widget.told()
    assert note.message.startswith("The estimation was stopped. The layers hold ") and note.severity.value == "info"
    assert 0 < len(np.unique(widget.viewer.layers[-1].data[:, 0, 0])) < 39


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        (lambda widget: widget.show(), "no image layer yet"),
        (lambda widget: widget.show(Image(grey_stack(1)[0])), "one picture"),
        (lambda widget: setattr(widget.gui.dt, "value", "0,5"), "dt must be a positive number"),
        (lambda widget: setattr(widget.gui._outputs["vectors"], "value", False), "at least one output"),
        (lambda widget: widget.show(Image(np.full((3, 32, 32), np.nan))), "NaN"),
    ],
)
def test_errors_are_one_notification_each(widget, prepare, words):
    widget.show(Image(grey_stack()))
    prepare(widget)
    before = list(widget.viewer.layers)
    widget.gui.start()
    widget.finish()
    (note,) = widget.told()
    assert words in note.message and "\n" not in note.message and note.severity.value == "error"
    assert list(widget.viewer.layers) == before
