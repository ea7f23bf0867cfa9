"""What a person sees in napari: pictures, model and outputs are chosen, and a thread gives the layers."""

from __future__ import annotations

import contextlib
import threading
from typing import Any

from magicgui.widgets import CheckBox, ComboBox, Container, LineEdit, PushButton, SpinBox, create_widget  # pyright: ignore[reportMissingImports]
from napari.layers import Image, Layer  # pyright: ignore[reportMissingImports]
from napari.qt.threading import create_worker  # pyright: ignore[reportMissingImports]
from napari.utils.notifications import notification_manager, show_error, show_info  # pyright: ignore[reportMissingImports]

from ..classical import METHODS
from ..errors import FeatherflowError, InputError
from ..flow.fields import positive
from ..transport.fluids import Calibration
from ..weights import available, default_model
from .layers import OUTPUTS, Outcome, Wanted, estimated, pictures_of


class FlowWidget(Container):
    """Estimates the flow of image layers and adds what is asked for as layers.

    Args:
        napari_viewer: the viewer that the layers are added to.
    """

    def __init__(self, napari_viewer) -> None:
        self._viewer = napari_viewer
        self._stop = threading.Event()
        models = [default_model(), *(info.name for info in available()), *METHODS]
        self._first: Any = create_widget(
            annotation=Image, name="pictures", options={"tooltip": "A stack (T, Y, X), or one picture."}
        )
        self._second: Any = create_widget(
            annotation=Image | None, name="second", options={"tooltip": "The picture after it, where that is a layer of its own."}
        )
        self._contrast = CheckBox(
            text="scale by contrast limits", tooltip="Of pictures deeper than 8 bit, take the layer's limits as black and white."
        )
        self._model = ComboBox(name="model", choices=models)
        self._dt = LineEdit(name="dt", label="dt [s]", tooltip="Time between two pictures, for speeds and rates; may stay empty.")
        self._scale = LineEdit(name="px_per_mm", label="px per mm", tooltip="For speeds in mm/s; may stay empty.")
        self._outputs = {name: CheckBox(text=name, value=name == "vectors") for name in OUTPUTS}
        usual = Wanted()
        self._spacing = SpinBox(name="spacing", label="vectors, tracks every [px]", value=usual.spacing, min=1, max=10_000)
        self._map_spacing = SpinBox(name="map_spacing", label="maps every [px]", value=usual.map_spacing, min=1, max=10_000)
        self._run = PushButton(text="Estimate flow")
        self._halt = PushButton(text="Stop", enabled=False, tooltip="Keeps the pairs that are done.")
        self._run.changed.connect(self.start)
        self._halt.changed.connect(self._stop.set)
        super().__init__(
            widgets=[
                self._first,
                self._second,
                self._contrast,
                self._model,
                self._dt,
                self._scale,
                *self._outputs.values(),
                self._spacing,
                self._map_spacing,
                self._run,
                self._halt,
            ]
        )

    def start(self) -> None:
        """Estimate in a thread; what cannot be used is told in a sentence."""
        try:
            if self._first.value is None:
                raise InputError("There is no image layer yet; open a stack of pictures first.")
            pictures = pictures_of(self._first.value, self._second.value, self._contrast.value)
            dt, px_per_mm = (positive(text, name) if text.strip() else None for name, text in self._numbers())
            wanted = Wanted(
                outputs=[name for name, box in self._outputs.items() if box.value],
                spacing=self._spacing.value,
                map_spacing=self._map_spacing.value,
                calibration=Calibration(dt=dt, px_per_mm=px_per_mm),
            )
        except FeatherflowError as error:
            show_error(str(error))
            return
        self._stop.clear()
        self._busy(True)
        create_worker(
            estimated,
            pictures,
            wanted,
            self._model.value,
            self._stop.is_set,
            _progress={"total": pictures.count - 1, "desc": f"flow of {pictures.name}"},
            _connect={"returned": self._show, "finished": lambda: self._busy(False)},
        )

    def _numbers(self) -> list[tuple[str, str]]:
        return [("dt", self._dt.value), ("px per mm", self._scale.value)]

    def _show(self, outcome: Outcome) -> None:
        for data, keywords, kind in outcome.layers:
            self._viewer.add_layer(Layer.create(data, keywords, kind))
        error, sentence = outcome.error, outcome.sentence()
        if error is not None and outcome.is_unexpected:
            notification_manager.receive_error(type(error), error, error.__traceback__)
        elif sentence is not None:
            (show_info if error is None else show_error)(sentence)

    def _busy(self, busy: bool) -> None:
        with contextlib.suppress(RuntimeError):  # closed meanwhile, so that the buttons are no more
            self._run.enabled, self._halt.enabled = not busy, busy
