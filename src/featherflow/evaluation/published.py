"""The figures that Hui and Loy print in "A Lightweight Optical Flow CNN" (arXiv 1903.07414, version 1), tables 3 to 7, as data.

AEE is the mean end-point error [px] over all pixels of a set, Fl-all and Out-Noc are percentages; the paper does not say how
it averages over the images of KITTI. A figure in parentheses was taken on data that the weights had been trained on. Rows are
methods here, also where the paper prints them as columns. The "train" columns are computable from public data; "test" columns
are the benchmark servers' answers.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Column:
    """`group` and `figure` (with the aggregator we compare under) say where a figure of ours comes from; None: from no data."""

    label: str
    unit: str
    group: str | None = None
    figure: str | None = None
    aggregator: str = "per_image"
    #: Pairs of the full set.
    pairs: int | None = None
    #: A property of the network itself: "layers", "parameters", "runtime" or "rate".
    measured: str | None = None


@dataclass(frozen=True)
class Published:
    """One figure, and `text` as it is printed; `seen`: in parentheses. `note`: what else our sources say of it, "later" being
    the paper's later version."""

    value: float
    text: str
    seen: bool = False
    note: str = ""


@dataclass(frozen=True)
class Table:
    """A printed table: row name to one figure, or None for "not given", per column."""

    number: int
    title: str
    columns: tuple[Column, ...]
    rows: dict[str, tuple[Published | None, ...]]


_CHAIRS = Column("Chairs test AEE", "px", "flyingchairs", "epe", pairs=640)
_CLEAN = Column("Sintel clean train AEE", "px", "sintel-clean", "epe", pairs=1041)
_FINAL = Column("Sintel final train AEE", "px", "sintel-final", "epe", pairs=1041)
_K12 = Column("KITTI 2012 train AEE", "px", "kitti2012", "epe", pairs=194)
_K15 = Column("KITTI 2015 train AEE", "px", "kitti2015", "epe", pairs=200)
_K15_FL = Column("KITTI 2015 train Fl-all", "%", "kitti2015", "fl_all", "pooled", pairs=200)


def _rows(text: str) -> dict[str, tuple[Published | None, ...]]:
    """Rows `name | figure | figure ...`: `-` for none, parentheses for training data, `figure [note]`."""
    rows = {}
    for line in text.strip().splitlines():
        name, *cells = (part.strip() for part in line.split("|"))
        rows[name] = tuple(_figure(cell) for cell in cells)
    return rows


def _figure(cell: str) -> Published | None:
    text, _, note = cell.partition("[")
    text = text.strip()
    if text == "-":
        return None
    return Published(float(text.strip("()")), text, text.startswith("("), note.rstrip("]"))


TABLE_3 = Table(
    3,
    "FlyingChairs testing set",
    (_CHAIRS,),
    _rows("""
FlowNetS | 2.71
FlowNetC | 2.19
SPyNet | 2.63
LiteFlowNetX-pre | 2.25
LiteFlowNet-pre | 1.57
"""),
)

TABLE_4 = Table(
    4,
    "Sintel and KITTI",
    (
        _CLEAN,
        Column("Sintel clean test AEE", "px"),
        _FINAL,
        Column("Sintel final test AEE", "px"),
        _K12,
        Column("KITTI 2012 test AEE", "px"),
        Column("KITTI 2012 test Out-Noc", "%"),
        _K15,
        _K15_FL,
        Column("KITTI 2015 test Fl-all", "%"),
    ),
    _rows("""
LiteFlowNetX-pre | 3.70 | - | 4.82 | - | 6.81 | - | - | 16.64 | 36.64 | -
LiteFlowNetX | 3.58 | - | 4.79 | - | 6.38 | - | - | 15.81 | 34.90 | -
LiteFlowNet-pre | 2.78 | - | 4.17 | - | 4.56 | - | - | 11.58 | 32.59 | -
LiteFlowNet | 2.48 | - | 4.04 | - | 4.00 | - | - | 10.39 | 28.50 | -
LiteFlowNet-ft | (1.35) | 4.54 | (1.78) | 5.38 | (1.05) | 1.6 | 3.27 | (1.62) | (5.58) | 9.38
LiteFlowNet2 | 2.24 | - | 3.78 | - | 3.42 | - | - | 8.97 | 25.88 | -
LiteFlowNet2-ft | (1.30) | 3.45 [later: 3.48] | (1.62) | 4.90 [later: 4.69] | (1.00) | 1.4 | \
2.72 [later: 2.63] | (1.47) | (4.80) | 7.74 [later: 7.62]
FlowNetS | 4.50 | 7.42 | 5.45 | 8.43 | 8.26 | - | - | - | - | -
FlowNetS-ft | (3.66) | 6.96 | (4.44) | 7.76 | 7.52 | 9.1 | - | - | - | -
FlowNetC | 4.31 | 7.28 | 5.87 | 8.81 | 9.35 | - | - | - | - | -
FlowNetC-ft | (3.78) | 6.85 | (5.28) | 8.51 | 8.79 | - | - | - | - | -
FlowNet2-S | 3.79 | - | 4.99 | - | 7.26 | - | - | 14.28 | 51.06 | -
FlowNet2-C | 3.04 | - | 4.60 | - | 5.79 | - | - | 11.49 | 44.09 | -
FlowNet2 | 2.02 | 3.96 | 3.54 | 6.02 | 4.01 | - | - | 10.08 | 29.99 | -
FlowNet2-ft-sintel | (1.45) | 4.16 | (2.19) | 5.74 | 3.54 | - | - | 9.94 | 28.02 | -
FlowNet2-ft-kitti | 3.43 | - | 4.83 | - | (1.43) | 1.8 | 4.82 | (2.36) | (8.88) | 11.48 [README: 10.41]
SPyNet | 4.12 | 6.69 | 5.57 | 8.43 | 9.12 | - | - | - | - | -
SPyNet-ft | (3.17) | 6.64 | (4.32) | 8.36 | 3.36 [trained on Driving and Monkaa] | 4.1 | 12.31 | - | - | 35.07
PWC-Net | 2.55 | - | 3.93 | - | 4.14 | - | - | 10.35 | 33.67 | -
PWC-Net-ft | (2.02) | 4.39 | (2.08) | 5.04 | (1.45) | 1.7 | 4.22 | (2.16) | (9.80) | 9.60
PWC-Net_ROB | (1.81) | 3.90 | (2.29) | 4.90 | - | - | - | - | - | 11.63
PWC-Net-ft+ | (1.71) | 3.45 | (2.34) | 4.60 | (0.99) | 1.4 | 3.36 | (1.47) | (7.59) | 7.72
"""),
)

TABLE_5 = Table(
    5,
    "Size and speed at 1024x436 px; published times: GTX 1080, Caffe (SPyNet: Torch)",
    (
        Column("learnable layers", "", measured="layers"),
        Column("parameters", "M", measured="parameters"),
        Column("runtime", "ms", measured="runtime"),
        Column("frames/s", "", measured="rate"),
    ),
    _rows("""
FlowNetC | 26 | 39.16 | 31.51 | 31
SPyNet | 35 | 1.20 | (129.83) [by another framework] | (8)
FlowNet2 | 115 | 162.49 | 121.49 | 8
PWC-Net | 59 | 8.75 | 39.63 | 25
LiteFlowNetX | 69 | 0.90 | 35.10 | 28
LiteFlowNet | 94 | 5.37 | 88.53 | 12 [1000 / 88.53 is 11.3]
LiteFlowNet2 | 91 | 6.42 | 39.69 | 25
"""),
)

TABLE_6 = Table(
    6,
    "Parts of LiteFlowNet-pre: W = feature warping, M = matching, S = sub-pixel refinement, R = regularization",
    (_CHAIRS, _CLEAN, _FINAL, _K12, _K15),
    _rows("""
M | 3.75 | 4.70 | 5.69 | 9.22 | 18.24
MS | 2.70 | 4.17 | 5.30 | 8.01 | 16.19
WM | 2.98 | 3.54 | 4.81 | 6.17 | 14.52
WSR | 1.63 | 3.19 | 4.63 | 5.03 | 13.20
WMS | 1.82 | 2.90 | 4.45 | 4.83 | 12.32
ALL | 1.57 | 2.78 | 4.17 | 4.56 | 11.58
"""),
)

TABLE_7 = Table(
    7,
    "Cost volume of LiteFlowNet2-pre: search range [px] / stride / levels",
    (_CLEAN, _FINAL, _K12, _K15, Column("runtime", "ms", measured="runtime")),
    _rows("""
3 / 1 / 6-3 | 2.73 | 4.14 | 4.26 | 11.72 | 41.33
3 (6) / 1 (2) / 6-4 (3) | 2.78 | 4.14 | 4.11 | 11.31 | 39.69
4 / 1 / 6-3 | 2.71 | 4.14 | 4.20 | 11.12 | 44.33
"""),
)

TABLES: dict[int, Table] = {table.number: table for table in (TABLE_3, TABLE_4, TABLE_5, TABLE_6, TABLE_7)}

#: Architecture of ours to the name it is printed under.
PRINTED_NAMES = {
    "liteflownet": "LiteFlowNet",
    "liteflownet2": "LiteFlowNet2",
    "liteflownet2-kitti": "LiteFlowNet2",
    "liteflownetx": "LiteFlowNetX",
    "flownets": "FlowNetS",
    "flownetc": "FlowNetC",
    "flownet2": "FlowNet2",
    "flownet2-s": "FlowNet2-S",
    "flownet2-c": "FlowNet2-C",
    "spynet": "SPyNet",
    "pwcnet": "PWC-Net",
}


def counterpart(number: int, model: str) -> str | None:
    """The row of a table that stands for a model of ours, by its architecture and tag; None where none does.

    A tag with `pre` or `chairs` in it means the paper's "-pre" weights (FlyingChairs only), one with `ft`, `sintel` or
    `kitti` its "-ft" ones. In tables 6 and 7 the complete LiteFlowNet-pre and LiteFlowNet2-pre have a row.
    """
    architecture, _, tag = model.partition(":")
    name = PRINTED_NAMES.get(architecture)
    if name is None:
        return None
    suffix = ""
    if any(word in tag for word in ("pre", "chairs")):
        suffix = "-pre"
    elif any(word in tag for word in ("ft", "sintel", "kitti")) or architecture == "liteflownet2-kitti":
        suffix = "-ft"
    row = f"{name}{suffix}"
    if number == 5:
        row = name if architecture != "liteflownet2-kitti" else ""
    elif (number, row) == (6, "LiteFlowNet-pre"):
        row = "ALL"
    elif (number, row) == (7, "LiteFlowNet2-pre"):
        row = "3 (6) / 1 (2) / 6-4 (3)"
    return row if row in TABLES[number].rows else None
