"""Engines that are built while the service answers by PyTorch (`--prepare`)."""

import dataclasses

import numpy as np
import pytest
from helpers import frame

from featherflow.errors import InputError

pytest.importorskip("fastapi")

from featherflow.app import Settings, create_app
from featherflow.app.queues import Options

FIRST, SECOND = frame(seed=1), frame(seed=2)


def test_an_engine_is_built_beside_the_service(monkeypatch):
    pytest.importorskip("openvino")
    from featherflow.app import worker
    from featherflow.inference.runners import background

    monkeypatch.setattr(background, "PAIRS", 1)
    settings = Settings(device="cpu", prepare=True)
    content = dataclasses.asdict(Options("liteflownetx")) | settings.estimation
    _, (first,) = worker.flow(content, [FIRST[None], SECOND[None]], lambda _: None)
    builder = worker._estimator(content, iterations=None, refine=None, enlarge=None)._builder
    assert builder._process is not None
    builder.wait()
    assert builder._process.returncode == 0
    _, (then,) = worker.flow(content, [FIRST[None], SECOND[None]], lambda _: None)
    # By whichever was faster: of some px, in bfloat16, where the CPU has it, another engine changes a few hundredths.
    assert builder._process is None and np.abs(first - then).mean() < 0.03 * np.abs(first).mean()
    # A classical method has nothing to prepare.
    content = dataclasses.asdict(Options("farneback")) | settings.estimation
    assert worker.flow(content, [FIRST[None], SECOND[None]], lambda _: None)[1][0].shape == (1, *FIRST.shape[:2], 2)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"models": ("farneback",)}, "no network is on offer"),
        ({"models": ("farneback", "liteflownetx"), "device": "meta"}, "'meta'"),
    ],
)
def test_what_cannot_be_prepared_is_said_at_the_start(settings, said):
    engine = create_app(Settings(prepare=True, **settings)).state.engine
    try:
        with pytest.raises(InputError, match=said):
            engine.start()
    finally:
        engine.close()
