"""`featherflow evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from .options import COMPUTATION, Computation


def evaluate(
    samples: Path | None = None,
    *,
    data: list[str] | None = None,
    model: list[str] | None = None,
    limit: int | None = None,
    csv: str | None = None,
    html: str | None = None,
    worst: int = 2,
    submit: Path | None = None,
    computation: Computation = COMPUTATION,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Compare methods on benchmarks with ground truth: every figure as per_image and pooled, time and memory.

    Example: featherflow evaluate --model liteflownet2 --model dis --data sintel=MPI-Sintel --data kitti2015=KITTI --html out.html

    Example: featherflow evaluate real-pairs/ --model farneback --json

    Parameters
    ----------
    samples
        Folder of a few pairs of several benchmarks: middlebury, sintel, kitti2012, kitti2015, flyingchairs, piv.
    data
        Benchmark in its own layout, as NAME=ROOT or NAME:SPLIT=ROOT: sintel, kitti2012, kitti2015, middlebury, flyingchairs,
        flyingthings3d, hd1k, spring, piv, folder (your own), samples. May be given several times.
    model
        Network, weight file (runs/mine/weights.safetensors) or classical method, NAME+N with N steps of variational refinement
        (dis+3); may be given several times.
        Default: the default network.
    limit
        Take only the first so many pairs of each benchmark.
    csv
        Write the figures to this file, one per line.
    html
        Write one self-contained page with the tables and the worst pairs in pictures.
    worst
        Pairs of each benchmark that the page shows: those on which the first model errs most.
    submit
        Estimate the test pairs instead, and write them here as the benchmark's server takes them: a .zip for kitti2012 and
        kitti2015, a new folder for sintel and spring. Takes one --model and one --data.
    json
        Print the figures as JSON.
    """
    import shlex
    from dataclasses import asdict

    from ..evaluation import Dataset, method_named, report
    from ..evaluation import evaluate as run
    from ..evaluation.submissions import submit_one
    from ..outputs import check_outputs
    from ..weights import default_model
    from .output import print_json, say, show_progress

    methods = {name: method_named(name, computation.device, computation.dtype) for name in model or [default_model()]}
    datasets = [Dataset.parse(text) for text in data or []] + ([Dataset("samples", samples)] if samples else [])
    named = [("the table", csv), ("the page", html)]
    check_outputs(named)
    if submit is None and (csv or html):
        check_outputs(named, [path for dataset in datasets for pair in dataset.pairs() for path in pair.files()], overwrite=None)
    if submit is not None:
        with show_progress("pairs", quiet=json) as progress:
            submission = submit_one(methods, datasets, submit, progress)
        if json:
            print_json(asdict(submission))
        else:
            say(submission.sentence())
        return
    pictures = report.WorstPairs(worst) if html is not None else None
    with show_progress("pairs", quiet=json) as progress:
        evaluation = run(methods, datasets, limit, progress, watch=pictures)
    if csv is not None:
        report.write_csv(csv, evaluation)
    if json:
        print_json(evaluation.as_dict())
    else:
        print(report.markdown(evaluation), flush=True)
    if html is not None:
        command = ["featherflow", "evaluate", *([str(samples)] if samples else [])]
        command += [word for name in methods for word in ("--model", name)]
        command += [word for text in data or [] for word in ("--data", text)]
        options = {
            "--limit": limit,
            "--device": computation.device,
            "--dtype": computation.dtype,
            "--worst": worst,
            "--csv": csv,
            "--html": html,
        }
        command += [str(word) for pair in options.items() if pair[1] is not None for word in pair]
        report.write_html(html, evaluation, pictures, note=shlex.join(command))
