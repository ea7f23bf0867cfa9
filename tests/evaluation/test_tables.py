"""Paper tables: would catch a figure in the wrong row or column, a difference of the wrong sign, ours passed off without data."""

import json

import layouts
import pytest

from featherflow.cli import main
from featherflow.errors import InputError
from featherflow.evaluation import Dataset, evaluate, method_named
from featherflow.evaluation.figures import FIGURES, figure_keys
from featherflow.evaluation.published import TABLES, counterpart
from featherflow.evaluation.tables import default_models, fill
from featherflow.weights import available


def value(number, row, label):
    table = TABLES[number]
    return table.rows[row][next(i for i, column in enumerate(table.columns) if column.label == label)]


def test_every_row_is_as_wide_as_its_table():
    for table in TABLES.values():
        assert table.rows and all(len(cells) == len(table.columns) for cells in table.rows.values()), table.number
        for column in table.columns:
            assert column.figure is None or (column.figure in FIGURES and column.figure in figure_keys(column.group))


@pytest.mark.parametrize(
    "number, row, label, expected",
    [
        (3, "LiteFlowNetX-pre", "Chairs test AEE", 2.25),
        (4, "LiteFlowNet2", "Sintel clean train AEE", 2.24),
        (4, "LiteFlowNet2", "KITTI 2015 train Fl-all", 25.88),
        (4, "LiteFlowNet-ft", "KITTI 2012 test Out-Noc", 3.27),
        (4, "PWC-Net-ft+", "KITTI 2015 test Fl-all", 7.72),
        (4, "FlowNet2", "Sintel final test AEE", 6.02),
        (5, "LiteFlowNet2", "runtime", 39.69),
        (6, "WMS", "KITTI 2012 train AEE", 4.83),
        (7, "4 / 1 / 6-3", "KITTI 2015 train AEE", 11.12),
    ],
)
def test_printed_figures(number, row, label, expected):
    assert value(number, row, label).value == expected


def test_tables_agree_with_each_other():
    # LiteFlowNet-pre stands in tables 3, 4 and 6, and LiteFlowNet2's time in tables 5 and 7.
    assert value(6, "ALL", "Chairs test AEE").value == value(3, "LiteFlowNet-pre", "Chairs test AEE").value
    for label in ("Sintel clean train AEE", "Sintel final train AEE", "KITTI 2012 train AEE", "KITTI 2015 train AEE"):
        assert value(6, "ALL", label).value == value(4, "LiteFlowNet-pre", label).value
    assert value(7, "3 (6) / 1 (2) / 6-4 (3)", "runtime").value == value(5, "LiteFlowNet2", "runtime").value


def test_what_had_been_trained_on_is_marked():
    cell = value(4, "LiteFlowNet2-ft", "Sintel clean train AEE")
    assert cell.seen and cell.text == "(1.30)" and cell.value == 1.3
    cell = value(4, "LiteFlowNet2-ft", "Sintel clean test AEE")
    assert not cell.seen and cell.note == "later: 3.48"
    assert value(4, "LiteFlowNet2", "Sintel clean test AEE") is None


@pytest.mark.parametrize(
    "number, model, row",
    [
        (4, "liteflownet2:procedural", "LiteFlowNet2"),
        (4, "liteflownet", "LiteFlowNet"),
        (4, "liteflownet:chairs", "LiteFlowNet-pre"),
        (4, "liteflownet:official-ft-kitti", "LiteFlowNet-ft"),
        (4, "liteflownet2-kitti:official", "LiteFlowNet2-ft"),
        (4, "liteflownetx:ft", None),
        (4, "dis", None),
        (3, "liteflownet2:procedural", None),
        (5, "liteflownet:chairs", "LiteFlowNet"),
        (5, "liteflownet2-kitti", None),
        (6, "liteflownet:pre", "ALL"),
        (6, "liteflownet", None),
        (7, "liteflownet2:pre", "3 (6) / 1 (2) / 6-4 (3)"),
    ],
)
def test_rows_of_our_models(number, model, row):
    assert counterpart(number, model) == row


def test_ours_stand_beside_the_published(tmp_path, shared_data):
    pytest.importorskip("cv2")
    datasets = [
        Dataset("kitti2015", layouts.kitti2015(tmp_path / "k", shared_data)),
        Dataset("piv", layouts.piv(tmp_path / "p", shared_data)),
    ]
    table = fill(4, ["dis-ultrafast=LiteFlowNet2"], datasets)
    row, cells = table.ours["dis-ultrafast"]
    found = evaluate({"dis-ultrafast": method_named("dis-ultrafast")}, datasets[:1]).result("dis-ultrafast", "kitti2015").figures
    assert row == "LiteFlowNet2"
    assert cells[8].value == found["pooled"]["fl_all"] and cells[7].value == found["per_image"]["epe"]
    assert cells[8].difference == pytest.approx(found["pooled"]["fl_all"] - 25.88)
    assert [cell.state for cell in cells] == ["no data", "secret"] * 2 + ["no data", "secret", "secret", "", "", "secret"]
    text = table.markdown()
    assert "pooled, 1 of 200 pairs" in text and "No data was given for: kitti2012, sintel-clean, sintel-final." in text
    lines = text.splitlines()
    place = next(index for index, line in enumerate(lines) if line.startswith("| LiteFlowNet2 |"))
    assert lines[place + 1].startswith("| -> dis-ultrafast |")
    json.dumps(table.as_dict())


def test_size_and_speed():
    row, cells = fill(5, ["liteflownet2"], runs=0).ours["liteflownet2"]
    assert row == "LiteFlowNet2"
    assert cells[1].value == pytest.approx(6.42, abs=0.01) and abs(cells[0].difference) <= 1
    assert [cell.state for cell in cells[2:]] == ["not timed"] * 2
    assert [cell.state for cell in fill(5, ["dis"]).ours["dis"][1]] == ["no network"] * 4


def test_without_data_nothing_of_ours_is_claimed():
    table = fill(6, ["liteflownet:pre"])
    assert {cell.state for cell in table.ours["liteflownet:pre"][1]} == {"no data"}
    assert "| -> liteflownet:pre | no data |" in table.markdown()


def test_default_models():
    assert {"liteflownet2", "liteflownet2-slim", "pwcnet"} <= set(default_models(5))
    assert "raft" not in default_models(5)  # the paper does not time it
    assert default_models(4) == [info.name for info in available()]


def test_what_is_not_there():
    with pytest.raises(InputError, match="no table 8"):
        fill(8, [])
    with pytest.raises(InputError, match="Table 3 has no row 'RAFT'"):
        fill(3, ["dis=RAFT"])


def test_command_line(capsys):
    for number in TABLES:
        with pytest.raises(SystemExit) as left:
            main(["tables", str(number), "--model", "liteflownetx", "--runs", "0"])
        assert not left.value.code and f"Table {number}: " in capsys.readouterr().out
    with pytest.raises(SystemExit) as left:
        main(["tables", "7", "--json", "--model", "dis", "--runs", "0"])
    assert json.loads(capsys.readouterr().out)["published"]["4 / 1 / 6-3"][0]["value"] == 2.71


@pytest.mark.parametrize("model, layers", [("liteflownet", 94), ("liteflownet2", 91), ("liteflownetx", 69)])
def test_layers_are_counted_as_the_paper_counts_them(model, layers):
    from featherflow.evaluation.tables import _measured

    assert _measured("layers", model, 0, None) == (layers, "")
