"""Evaluation as a whole: would catch pairs mixed up between methods or groups, figures that depend on order, a page that loads."""

import csv
import json
import re
import subprocess
import sys

import layouts
import numpy as np
import pytest

from featherflow.cli import main
from featherflow.errors import FileError, InputError
from featherflow.evaluation import Dataset, evaluate, find_samples, report
from featherflow.flow import read_flow


def still(frame1, frame2):
    return np.zeros((*frame1.shape[:2], 2), np.float32)


def right(frame1, frame2):
    return still(frame1, frame2) + np.float32([1, 0])


@pytest.fixture(scope="module")
def datasets(tmp_path_factory, shared_data):
    root = tmp_path_factory.mktemp("benchmarks")
    return [
        Dataset("middlebury", layouts.middlebury(root / "m", shared_data)),
        Dataset("piv", layouts.piv(root / "p", shared_data)),
    ]


@pytest.fixture(scope="module")
def evaluation(datasets):
    return evaluate({"still": still, "right": right}, datasets)


def test_figures_are_those_of_the_pairs(evaluation, shared_data):
    errors = []
    for name in ("RubberWhale", "Venus"):
        flow = read_flow(shared_data / f"middlebury/{name}/flow10.flo").astype(np.float64)
        errors.append(np.hypot(flow[..., 0] - 1, flow[..., 1])[~np.isnan(flow[..., 0])])
    found = evaluation.result("right", "middlebury")
    assert found.figures["per_image"]["epe"] == pytest.approx(np.mean([e.mean() for e in errors]), rel=1e-12)
    pooled = np.concatenate(errors)
    assert found.figures["pooled"]["epe"] == pytest.approx(pooled.mean(), rel=1e-12)
    assert found.figures["pooled"]["r1"] == pytest.approx(100 * (pooled > 1).mean(), rel=1e-12)
    assert found.figures["pooled"]["a75"] == pytest.approx(np.percentile(pooled, 75, method="inverted_cdf"), rel=1e-12)
    assert found.pixels == len(pooled) and found.pairs == 2


def test_order_of_data_and_methods_changes_nothing(evaluation, datasets):
    again = evaluate({"right": right, "still": still}, datasets[::-1])
    for result in evaluation.results:
        other = again.result(result.model, result.group)
        assert (other.figures, other.each, other.pixels) == (result.figures, result.each, result.pixels)


def test_dictionary_without_cost_is_the_same_text_each_time(evaluation, datasets):
    def text(found):
        document = found.as_dict()
        assert document.pop("cost")["still"]["ms_per_pair"].keys() == {"middlebury", "piv"}
        return json.dumps(document)

    assert text(evaluate({"still": still, "right": right}, datasets)) == text(evaluation)


def test_worst_come_first_and_only_they_are_kept(datasets):
    for count, names in ((5, ["Venus", "RubberWhale"]), (1, ["Venus"])):
        worst = report.WorstPairs(count)
        evaluate({"still": still, "right": right}, datasets, watch=worst)
        assert [pictures.name for pictures in worst.of("middlebury")] == names
        assert all(len(pictures.upper) == len(pictures.lower) == 3 for pictures in worst.of("middlebury"))


def test_limit(datasets):
    assert [r.pairs for r in evaluate({"still": still}, datasets, limit=1).results] == [1, 1]
    with pytest.raises(InputError, match="at least 1"):
        evaluate({"still": still}, datasets, limit=0)


def test_table_and_csv_hold_the_figures(evaluation, tmp_path):
    text = report.markdown(evaluation)
    assert "| EPE [px], per_image | middlebury (2) | piv (1) |" in text
    assert f"| still | pooled | {evaluation.result('still', 'middlebury').figures['pooled']['epe']:.3f} |" in text
    report.write_csv(tmp_path / "table.csv", evaluation)
    rows = list(csv.DictReader((tmp_path / "table.csv").open()))
    value = next(
        r["value"]
        for r in rows
        if (r["model"], r["group"], r["figure"], r["aggregator"]) == ("right", "middlebury", "A95", "pooled")
    )
    assert float(value) == evaluation.result("right", "middlebury").figures["pooled"]["a95"]


def test_page_needs_nothing_else(datasets, tmp_path):
    worst = report.WorstPairs(1)
    evaluation = evaluate({"still": still, "right": right}, datasets, watch=worst)
    report.write_html(tmp_path / "page.html", evaluation, worst, note="a <b> c")
    page = (tmp_path / "page.html").read_text()
    assert re.findall(r'(?:src|href)="(?!data:image/jpeg;base64,)', page) == [] and "url(" not in page and "<script" not in page
    # Two groups, one pair each: truth, frame and two pictures of each of two methods.
    assert page.count("<img ") == 2 * 6
    assert "a &lt;b&gt; c" in page and "<h4>Venus</h4>" in page


@pytest.mark.parametrize(
    "text, message",
    [
        ("sintel", "must be NAME=ROOT"),
        ("=x", "must be NAME=ROOT"),
        ("sintl=x", "no benchmark named 'sintl'"),
        ("sintel:val=x", "no split 'val'"),
        ("samples:a=x", "no split 'a'"),
    ],
)
def test_data_that_cannot_be(text, message):
    with pytest.raises(InputError, match=message):
        Dataset.parse(text)


def test_data_by_name(tmp_path, shared_data):
    assert Dataset.parse("flyingchairs:all=a=b") == Dataset("flyingchairs", type(tmp_path)("a=b"), "all")
    with pytest.raises(FileError, match="no folder"):
        evaluate({"still": still}, [Dataset("sintel", tmp_path / "x")])
    root = layouts.middlebury(tmp_path / "m", shared_data, ["Venus"])
    with pytest.raises(InputError, match="Two data sets hold pairs of middlebury"):
        evaluate({"still": still}, [Dataset("middlebury", root), Dataset("middlebury", root)])
    (root / "other-data").rename(root / "eval-data")
    with pytest.raises(InputError, match="ground truth of middlebury Venus is not public"):
        evaluate({"still": still}, [Dataset("middlebury", root, "test")])


def test_samples_keep_their_pairs(shared_data):
    pairs = list(Dataset("samples", shared_data).pairs())
    assert len(pairs) == len(find_samples(shared_data))
    kitti = next(pair for pair in pairs if pair.group == "kitti2012-noc")
    assert kitti.flow_noc is None  # no figure over all pixels can come of it
    sintel = next(pair for pair in pairs if pair.name == "market_5/frame_0002").read()
    assert 0.8 < sintel.matched.mean() < 0.9


def test_peak_memory_sees_what_is_held():
    """In a process of its own: in this one, much may be given back while 40 MiB are taken."""
    code = (
        "import numpy as np; from featherflow.evaluation.memory import PeakMemory; memory = PeakMemory(); memory.start()\n"
        "before = memory.mib(); held = np.ones(40 * 2**17); peak = memory.mib(); del held; memory.start()\n"
        "print(int(before is not None and memory.own), before, peak, memory.mib())"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    own, before, peak, after = (float(number) if number != "None" else None for number in said.split())
    if not own:
        pytest.skip("this system does not tell the peak of a part")
    assert 30 < peak - before < 80 and after < before + 30


def test_command_line(tmp_path, shared_data, capsys):
    root = layouts.piv(tmp_path / "p", shared_data)
    with pytest.raises(SystemExit) as left:
        main(
            [
                "evaluate",
                "--data",
                f"piv={root}",
                "--model",
                "farneback",
                "--model",
                "dis",
                "--json",
                "--csv",
                str(tmp_path / "t.csv"),
                "--html",
                str(tmp_path / "t.html"),
            ]
        )
    assert not left.value.code
    document = json.loads(capsys.readouterr().out)
    assert [(r["model"], r["group"]) for r in document["results"]] == [("farneback", "piv"), ("dis", "piv")]
    assert 0.05 < document["results"][0]["pooled"]["epe"] < 0.5
    assert (tmp_path / "t.csv").exists() and (tmp_path / "t.html").exists()
    with pytest.raises(SystemExit) as left:
        main(["evaluate", "--model", "dis"])
    assert left.value.code == 2


def test_methods_by_name(shared_data):
    from featherflow import estimate
    from featherflow.evaluation import method_named

    frames = [np.ascontiguousarray(f[:40, :50]) for f in next(Dataset("samples", shared_data).pairs()).read()[:2]]
    np.testing.assert_array_equal(method_named("tv-l1+2")(*frames), estimate(*frames, model="tv-l1", refine=2))
    np.testing.assert_array_equal(method_named("tv-l1")(*frames), estimate(*frames, model="tv-l1"))
    for text in ("dis+", "+3", "dis+0", "dis+x", "dis+-1"):
        with pytest.raises(InputError, match="NAME or NAME"):
            method_named(text)
