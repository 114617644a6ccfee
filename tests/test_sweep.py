"""Sweeps: the grid and its names, jobs that fail, are killed, and go on, the table at the end."""

import json
import logging
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from conftest import in_child
from rich.console import Console

import textvae
from textvae.cli.arguments import parse
from textvae.cli.main import main
from textvae.cli.train import config_of
from textvae.config.recipes import method_files, recipes_folder
from textvae.errors import UserError
from textvae.evaluation.comparison.compare import compare
from textvae.runs.lock import locked
from textvae.training.sweeps import launchers, states
from textvae.training.sweeps.grid import make_grid
from textvae.training.sweeps.job import PARENT
from textvae.training.sweeps.launchers import LocalJob, find_launcher
from textvae.training.sweeps.manifest import new_manifest, read_manifest
from textvae.training.sweeps.states import States, last_line
from textvae.training.sweeps.sweep import _in_turn

ROOT = Path(__file__).parent.parent
TOY = ROOT / "recipes" / "toy" / "base.yaml"
QUICK = ["--samples", "2", "--generations", "0", "--no-report"]
GRID = ["--vary", "model.latent_dim=2,3", "--seeds", "2", "--jobs", "2", *QUICK]
NAMES = ["run-latent_dim-2", "run-latent_dim-2-seed-1", "run-latent_dim-3"]
NAMES += ["run-latent_dim-3-seed-1"]
SLOW = ["--train.log_every", "1", "--train.save_every", "2"]


class ForkedJob:
    """A job in a fork of this process, which has imported everything already."""

    def __init__(self, command: list[str], log: Path) -> None:
        parent = os.getpid()
        self.status, self.pid = None, os.fork()
        if self.pid == 0:
            os.setsid()
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.environ[PARENT] = str(parent)
            output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(output, 1)
            os.dup2(output, 2)
            logging.getLogger().handlers.clear()  # those of the sweep
            sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
            status = 99
            try:
                status = main(command[command.index("sweep") :])
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)

    def poll(self) -> int | None:
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.status = os.waitstatus_to_exitcode(status) if pid else None
        return self.status

    def stop(self) -> None:
        os.kill(self.pid, signal.SIGTERM)


def fork_jobs() -> None:
    # A test run in the background is started with Ctrl-C ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    launchers.LocalJob = ForkedJob


def run_sweep(out: Path, *options: str, **how) -> int:
    return in_child(["sweep", "--out", str(out), *options], before=fork_jobs, **how)


def rows(table: str) -> list[str]:
    return [line for line in table.splitlines() if line.startswith("|")]


def table_of(out: Path) -> list[str]:
    """The rows of the metrics in table.md, without the cost and the commands below them."""
    return rows((out / "table.md").read_text(encoding="utf-8").partition("```")[0])


def stats(out: Path) -> dict[str, int]:
    """When each file of the runs was written."""
    runs = [path.parent for path in out.glob("*/config.yaml")]
    files = [path for run in runs for path in run.rglob("*") if path.is_file()]
    return {str(path): path.stat().st_mtime_ns for path in files}


@pytest.fixture(scope="module")
def small(tiny) -> list[str]:
    """Options for a run of 12 steps, without the size of z."""
    at = tiny.index("--model.latent_dim")
    return [*tiny[:at], *tiny[at + 2 :]]


@pytest.fixture(scope="module")
def undisturbed(small, tmp_path_factory) -> Path:
    """A finished sweep over two latent sizes and two seeds; tests must not change it."""
    out = tmp_path_factory.mktemp("sweeps") / "undisturbed"
    assert run_sweep(out, *small, *GRID) == 0
    return out


# the grid


def test_a_grid_is_methods_times_values_times_seeds():
    cells = make_grid(
        [TOY],
        methods=["vae", "skip_vae-free_bits"],
        vary={"model.latent_dim": [2, 16], "optim.lr": [0.5]},
        seeds=2,
        options={"data": {"dir": "my corpus"}},
    )
    assert [cell.name for cell in cells[:4]] == [
        "vae-latent_dim-2-optim.lr-0.5",
        "vae-latent_dim-2-optim.lr-0.5-seed-1",
        "vae-optim.lr-0.5",  # 16 is what the base says
        "vae-optim.lr-0.5-seed-1",
    ]
    assert len(cells) == 8 and cells[4].name == "skip_vae-free_bits-latent_dim-2-optim.lr-0.5"
    last = cells[-1]
    assert (last.method, last.seed) == ("skip_vae-free_bits", 1)
    assert last.varied == {"model.latent_dim": 16, "optim.lr": 0.5}
    assert last.config.model.injection == "skip" and last.config.objective.free_bits == 20
    assert last.config.train.seed == 1 and last.config.data.dir == "my corpus"


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("model.latent_dim", [2, 16]),
        ("objective.beta", [0.25, 1.0, 1e-5]),
        ("model.bidirectional", [True, False]),
        ("train.early_stopping", [None, 3]),
        ("data.dir", ["a b", "it's", 'x"y', "c,d"]),
        ("optim.lr", [1]),
    ],
)
def test_the_command_of_a_cell_gives_its_config(option, values):
    options = {} if option == "data.dir" else {"data": {"dir": "my 'own' texts"}}
    for cell in make_grid([TOY], methods=["skip_vae"], vary={option: values}, options=options):
        words = shlex.split(shlex.join(cell.words))
        assert config_of(parse(["train", *words])[1]) == cell.config


def test_a_name_is_a_folder_name():
    paths = ["a/b", "c d", "../e", "ä"]
    names = [cell.name for cell in make_grid([TOY], vary={"data.dir": paths})]
    assert names == ["base-dir-a_b", "base-dir-c_d", "base-dir-.._e", "base-dir-_"]


def test_without_methods_the_last_file_gives_the_name():
    method = ROOT / "recipes" / "methods" / "skip_vae.yaml"
    assert [cell.name for cell in make_grid([TOY, method], seeds=2)] == [
        "skip_vae",
        "skip_vae-seed-1",
    ]
    assert [cell.name for cell in make_grid([])] == ["run"]
    seeded = make_grid([TOY], seeds=2, options={"train": {"seed": 5}})
    assert [(cell.name, cell.seed) for cell in seeded] == [("base", 5), ("base-seed-6", 6)]


def test_a_method_is_a_stack_of_files():
    files = method_files(TOY, "skip_vae-free_bits")
    assert [file.relative_to(ROOT / "recipes").as_posix() for file in files] == [
        *("methods/skip_vae.yaml", "methods/free_bits.yaml", "toy/free_bits.yaml")
    ]
    assert recipes_folder() == ROOT / "recipes"


def test_files_next_to_the_base_are_methods(tmp_path):
    for name in ("base", "wide"):
        (tmp_path / f"{name}.yaml").write_text("model: {latent_dim: 3}\n")
    assert method_files(tmp_path / "base.yaml", "wide") == [tmp_path / "wide.yaml"]
    found = method_files(tmp_path / "base.yaml", "wide-vae")
    assert found[1] == ROOT / "recipes" / "methods" / "vae.yaml"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"methods": "vae"}, "methods: 'vae' must be a list"),
        ({"vary": {"model.latent_dim": 2}}, "model.latent_dim: 2 must be a list"),
        ({"options": {"model": 3}}, "model=3: must be a mapping"),
    ],
)
def test_a_grid_of_wrong_types_is_one_line(given, message):
    with pytest.raises(UserError, match=message):
        make_grid([TOY], **given)


def test_a_language_model_is_trained_once_for_all_options_of_a_latent_variable():
    vary = {"model.injection": ["input", "skip"], "model.latent_dim": [2, 3], "optim.lr": [1, 2]}
    names = [cell.name for cell in make_grid([TOY], methods=["lm", "vae"], vary=vary)]
    assert [name for name in names if name.startswith("lm")] == ["lm-optim.lr-1", "lm-optim.lr-2"]
    assert len(names) == 2 + 8
    vary = {"model.latent_dim": [0, 2], "objective.beta": [0.5, 1.0]}
    cells = make_grid([TOY], vary=vary)
    found = [(c.config.model.latent_dim, c.config.objective.beta) for c in cells]
    assert found == [(0, 1.0), (2, 0.5), (2, 1.0)]


WRONG = [
    (
        {"methods": ["lm"], "vary": {"model.latent_dim": [2, 3]}},
        "model.latent_dim is varied, but it applies only to models with a latent variable",
    ),
    ({"vary": {"model.latent": [2]}}, "no option model.latent; did you mean model.latent_dim?"),
    ({"vary": {"model.latent_dim": [2.5]}}, "model.latent_dim 2.5: must be an integer"),
    ({"vary": {"model.latent_dim": []}}, "model.latent_dim: give at least one value"),
    ({"vary": {"model.latent_dim": [2, 2]}}, "model.latent_dim: 2 is given twice"),
    ({"vary": {"train.seed": [1, 2]}, "seeds": 2}, "several seeds or values of train.seed"),
    ({"vary": {"data.dir": ["a/b", "a b"]}}, "two runs of the sweep would be named base-dir-a_b"),
    ({"methods": ["vae", "vae"]}, "methods: vae is given twice"),
    ({"methods": ["skip_va"]}, "no skip_va.yaml in .*; did you mean skip_vae?"),
    ({"seeds": 0}, "seeds=0: must be at least 1"),
    (
        {"vary": {"model.latent_dim": [2]}, "options": {"model": {"latent_dim": 3}}},
        "model.latent_dim is varied with --vary: do not set it as well",
    ),
    (
        {"methods": ["vae", "lm"], "options": {"model": {"latent_dim": 3}}},
        "lm is a language model, and model.latent_dim would make it a VAE",
    ),
    (  # each value is in range, but not together with the base
        {"methods": ["sa_vae"], "vary": {"model.latent_dim": [4, 0]}},
        "sa_vae-latent_dim-0: --inference.method semi_amortized needs a latent variable",
    ),
]


@pytest.mark.parametrize(("given", "message"), WRONG, ids=[m for _, m in WRONG])
def test_a_wrong_grid_is_one_line(given, message):
    with pytest.raises(UserError, match=message) as error:
        make_grid([TOY], **given)
    assert "\n" not in str(error.value)


MISTAKES = [
    (["--vary", "model.latent_dim=2,x"], "--model.latent_dim x: must be an integer"),
    (["--vary", "model.latnt_dim=2"], "did you mean --model.latent_dim?"),
    (["--vary", "model.latent_dim"], "--vary model.latent_dim: give an option and its values"),
    (["--vary", "config=a.yaml"], "to compare methods, use --methods"),
    (["--vary", "model.latent_dim=2", "--vary", "model.latent_dim=3"], "is given twice"),
    (["--vary", "objective.beta=-1"], "--objective.beta -1: must be at least 0"),
    (["--train.epochs", "no"], "--train.epochs no: must be an integer"),
    (["--trian.epochs", "3"], "did you mean --train.epochs?"),
    (["--config", "none.yaml"], "none.yaml: cannot be read"),
    (["--methods", "vae"], "methods are stacked on a file: give one with --config"),
    (["--sedes", "2"], "did you mean --seeds?"),
    (["--seeds", "0"], "--seeds 0: must be above 0"),
    (["--jobs", "0"], "--jobs 0: must be above 0"),
    (["--launcher-options", "x=1"], "x applies only to the launcher submitit"),
    (["--launcher-options", "x"], "--launcher-options x: must be NAME=VALUE"),
    (["--launcher-options", "x=["], "--launcher-options x=[: not a value in YAML"),
    (["--vary", "model.latent_dim=2,3"], "x: no such file or folder"),
    (["--run", "x"], "--run takes its options from the manifest: give only --out and"),
]


@pytest.mark.parametrize(("options", "message"), MISTAKES, ids=[" ".join(o) for o, _ in MISTAKES])
def test_a_mistake_is_one_line_and_starts_nothing(options, message, tmp_path, capfd):
    assert main(["sweep", "--out", str(tmp_path / "out"), "--data.dir", "x", *options]) == 2
    said = capfd.readouterr()
    assert said.out == "" and len(said.err.splitlines()) == 1
    assert message in said.err
    assert not (tmp_path / "out").exists()


def test_with_several_jobs_the_longest_run_comes_first(tmp_path):
    methods = ["lm", "vae", "skip_vae-autoencode", "sa_vae", "skip_vae-iwae"]
    how = {"evaluate": False, "samples": 1, "generations": 0, "probe": False}
    manifest = new_manifest(tmp_path, make_grid((TOY,), methods=methods), **how)
    assert list(_in_turn(manifest, methods, jobs=1)) == methods
    assert list(_in_turn(manifest, methods, jobs=2)) == [
        "skip_vae-iwae",  # five samples
        "sa_vae",  # five steps
        "skip_vae-autoencode",  # two epochs more
        "vae",
        "lm",  # no encoder
    ]


def test_a_job_needs_a_manifest_with_its_name(undisturbed, tmp_path, capfd):
    for out, message in (
        (tmp_path, "holds no sweep: it has no manifest.json"),
        (undisturbed, "has no run x: choose one of run-latent_dim-2, run-latent_dim-2-seed-1"),
    ):
        assert main(["sweep", "--out", str(out), "--run", "x"]) == 2
        assert message in capfd.readouterr().err


def test_a_probe_without_labels_is_refused_before_any_training(small, tmp_path, capfd):
    unlabeled = tmp_path / "texts"
    unlabeled.mkdir()
    for split in ("train", "valid", "test"):
        (unlabeled / f"{split}.txt").write_text("a cat sat\na dog ran\n" * 20, encoding="utf-8")
    grid = ["--config", str(TOY), *small, "--data.dir", str(unlabeled), "--probe"]
    assert main(["sweep", "--out", str(tmp_path / "out"), *grid, *QUICK]) == 2
    said = capfd.readouterr().err.splitlines()[-1]
    assert f"--probe: {unlabeled} has no labels (test, train): add them" in said
    assert not (tmp_path / "out").exists()


def test_a_job_takes_no_other_options(undisturbed, capfd):
    assert main(["sweep", "--out", str(undisturbed), "--run", NAMES[0], "--samples", "77"]) == 2
    assert "--run takes its options from the manifest" in capfd.readouterr().err


@pytest.mark.parametrize("wrong", [{"config": {"model": {"newer": 1}}}, {}, 3])
def test_a_manifest_of_another_release_is_one_line(undisturbed, tmp_path, wrong):
    record = json.loads((undisturbed / "manifest.json").read_text())
    record["runs"][NAMES[0]] = wrong
    (tmp_path / "manifest.json").write_text(json.dumps(record))
    with pytest.raises(textvae.UserError, match=r"broken, or was written by another|newer"):
        read_manifest(tmp_path)


def test_no_out_is_one_line(capfd):
    assert main(["sweep", "--seeds", "2"]) == 2
    assert "required: --out" in capfd.readouterr().err


# what a sweep leaves


def test_a_sweep_with_a_language_model_shows_the_gain_over_it(small, tmp_path):
    out = tmp_path / "sweep"
    grid = ["--vary", "model.latent_dim=0,2", "--seeds", "2", "--jobs", "2", *QUICK]
    assert run_sweep(out, *small, *grid) == 0
    text = (out / "table.md").read_text()
    assert "IW gain: IW minus that of run-latent_dim-0 (2 seeds) on the same examples" in text
    assert text.count(" [") == 0  # an interval over examples says nothing about other seeds


def test_a_sweep_ends_with_its_table_and_picture(undisturbed, small, tmp_path, capfd):
    runs = [undisturbed / name for name in NAMES]
    expected = compare(runs, average_seeds=True)
    assert table_of(undisturbed) == rows(expected)
    assert len(rows(expected)) == 4 and "latent_dim-2 (2 seeds)" in expected and "±" in expected
    assert (undisturbed / "rate-distortion.svg").read_text().count("seeds)") >= 2
    text = (undisturbed / "table.md").read_text()
    for run in runs:
        assert f"--out {run}" in text and f"textvae evaluate {run}" in text


def test_the_manifest_says_what_each_run_is(undisturbed):
    manifest = json.loads((undisturbed / "manifest.json").read_text())
    assert manifest["grid"] == NAMES and list(manifest["runs"]) == NAMES
    assert (manifest["samples"], manifest["generations"], manifest["probe"]) == (2, 0, False)
    assert manifest["precision"] == "fp32"  # of the evaluation
    last = manifest["runs"][NAMES[-1]]
    assert (last["state"], last["seed"], last["method"]) == ("done", 1, "run")
    assert last["varied"] == {"model.latent_dim": 3}
    words = shlex.split(last["command"])
    assert words[:2] == ["textvae", "train"]
    config = config_of(parse(words[1:])[1])
    assert config == read_manifest(undisturbed).config(NAMES[-1])
    assert config == textvae.Config.load(undisturbed / NAMES[-1] / "config.yaml")


def test_the_command_of_a_run_gives_the_same_run(undisturbed, tmp_path):
    words = shlex.split(read_manifest(undisturbed).runs[NAMES[0]]["command"])
    words[words.index("--out") + 1] = str(tmp_path / "again")
    assert in_child(words[1:]) == 0
    weights = [run / "model.safetensors" for run in (undisturbed / NAMES[0], tmp_path / "again")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_what_is_done_is_not_done_again(undisturbed, small, tmp_path, capfd):
    out = tmp_path / "again"
    shutil.copytree(undisturbed, out)
    before = stats(out)
    assert run_sweep(out, *small, *GRID) == 0
    said = capfd.readouterr()
    assert f"4 runs in {out}: 4 done" in said.err and "running" not in said.err
    assert stats(out) == before
    assert rows(said.out) == table_of(out)
    weights = [path for path in before if path.endswith(("model.safetensors", "state.pt"))]
    other = ["--samples", "3", "--precision", "bf16"]
    assert run_sweep(out, *small, *GRID, *other) == 0  # evaluated again, not trained
    after = stats(out)
    assert all(after[path] == before[path] for path in weights)
    text = (out / "table.md").read_text()
    assert "IW with K = 3." in text and "--precision bf16" in text


def test_another_grid_adds_its_runs(undisturbed, small, tmp_path, capfd):
    out = tmp_path / "extended"
    shutil.copytree(undisturbed, out)
    before = stats(out)
    grid = ["--vary", "model.latent_dim=2,4", *QUICK]
    assert run_sweep(out, *small, *grid) == 0
    assert "2 runs in " in (said := capfd.readouterr().err) and ": 1 waiting, 1 done" in said
    after = stats(out)
    assert all(after[path] == before[path] for path in before)
    manifest = read_manifest(out)
    assert manifest.grid == ["run-latent_dim-2", "run-latent_dim-4"]
    assert set(manifest.runs) == {*NAMES, "run-latent_dim-4"}
    assert len(table_of(out)) == 4


def test_a_corpus_without_a_test_split_is_refused_before_training(corpus, small, tmp_path, capfd):
    texts, out = tmp_path / "texts", tmp_path / "out"
    texts.mkdir()
    for name in ("train.txt", "valid.txt"):
        shutil.copy(corpus / name, texts / name)
    at = small.index("--data.dir")
    options = [*small[:at], "--data.dir", str(texts), *small[at + 2 :]]
    assert run_sweep(out, *options, *GRID) == 2
    assert f"{texts} has no test split" in capfd.readouterr().err
    assert run_sweep(out, *small, "--data.dir", "-", *GRID) == 2
    assert "--data.dir -: every run reads the data" in capfd.readouterr().err
    assert not out.exists()


def test_an_error_stops_the_jobs_that_are_running(small, tmp_path, monkeypatch):
    started = []

    class Running:
        stopped = False

        def __init__(self, *_):
            if started:
                raise OSError("no more processes")
            started.append(self)

        def poll(self):
            return None

        def stop(self):
            self.stopped = True

    monkeypatch.setattr(launchers, "LocalJob", Running)
    (tmp_path / "base.yaml").write_text("train: {epochs: 1}\n")
    data = {"dir": small[small.index("--data.dir") + 1]}
    with pytest.raises(OSError, match="no more processes"):
        textvae.sweep(tmp_path / "base.yaml", out=tmp_path / "out", seeds=2, jobs=2, data=data)
    assert started[0].stopped
    states = [run["state"] for run in read_manifest(tmp_path / "out").runs.values()]
    assert sorted(states) == ["stopped", "waiting"]


def test_a_run_of_another_experiment_is_not_touched(undisturbed, small, tmp_path, capfd):
    out = tmp_path / "other"
    shutil.copytree(undisturbed, out)
    before = stats(out)
    assert run_sweep(out, *small, *GRID, "--train.epochs", "3") == 2
    said = capfd.readouterr().err.splitlines()
    assert said[-1:] == [
        f"textvae: {out}/{NAMES[0]} holds a run with train.epochs 2, not 3: choose "
        "another --out, or delete that run"
    ]
    assert stats(out) == before


def test_the_folder_of_a_run_is_not_one_for_a_sweep(undisturbed, small, capfd):
    assert run_sweep(undisturbed / NAMES[0], *small, *GRID) == 2
    assert "is the folder of a run: choose another --out" in capfd.readouterr().err
    assert not (undisturbed / NAMES[0] / "manifest.json").exists()


def test_two_sweeps_cannot_run_in_one_folder(small, tmp_path, capfd):
    with locked(tmp_path):
        assert run_sweep(tmp_path, *small, *GRID) == 2
    assert "is in use by another process" in capfd.readouterr().err
    assert not (tmp_path / "manifest.json").exists()


# failures and interruptions


def test_a_run_that_fails_is_one_line_and_not_the_end(small, tmp_path, capfd):
    grid = ["--vary", "optim.lr=1e30,0.5", "--optim.clip", "0", *QUICK]
    for _ in range(2):  # the second time, only the failed run is tried again
        assert run_sweep(tmp_path, *small, *grid) == 1
        said = capfd.readouterr()
        failed = [line for line in said.err.splitlines() if "run-optim.lr-1e+30: failed" in line]
        assert len(failed) == 1 and "is not finite" in failed[0] and "Traceback" not in said.err
        assert said.err.splitlines()[-1].startswith("1 of 2 runs failed: run-optim.lr-1e+30")
        assert len(rows(said.out)) == 3 and "run-optim.lr-0.5" in said.out
    assert "run-optim.lr-0.5: running" not in said.err
    record = read_manifest(tmp_path).runs["run-optim.lr-1e+30"]
    assert record["state"] == "failed" and "is not finite" in record["message"]


def test_all_runs_failing_is_status_1_without_a_table(small, tmp_path, capfd):
    options = ["--optim.lr", "1e30", "--optim.clip", "0", *QUICK]
    assert run_sweep(tmp_path / "out", *small, *options) == 1
    said = capfd.readouterr()
    assert said.out == "" and "is not finite" in said.err
    assert not (tmp_path / "out" / "table.md").exists()


def when_training(out: Path, act) -> object:
    """A function for ``meanwhile``: acts as soon as some run makes a step."""
    started = time.time_ns()

    def meanwhile(pid: int) -> None:
        ends = time.monotonic() + 60
        while not any(path.stat().st_mtime_ns > started for path in out.glob("run*/metrics.jsonl")):
            assert time.monotonic() < ends
            time.sleep(0.005)
        act(pid)

    return meanwhile


def until_saved(out: Path) -> None:
    """Wait for the jobs of a sweep that was killed."""
    for run in out.glob("run*"):
        with locked(run, wait=True):
            pass


def test_killed_and_interrupted_it_goes_on_to_the_same_table(undisturbed, small, tmp_path, capfd):
    out, options = tmp_path / "disturbed", [*small, *GRID, *SLOW, "--train.log_every", "3"]
    killed = when_training(out, lambda pid: os.kill(pid, signal.SIGKILL))
    assert run_sweep(out, *options, meanwhile=killed) == -signal.SIGKILL
    assert not all((out / name / "metrics" / "test.json").exists() for name in NAMES)
    until_saved(out)
    interrupted = when_training(out, lambda pid: os.kill(pid, signal.SIGINT))
    status = run_sweep(out, *options, meanwhile=interrupted)
    said = capfd.readouterr().err.splitlines()
    assert status == 130
    assert said[-1].startswith("textvae: stopped, ") and said[-1].endswith(
        "run the same command to continue"
    )
    states = {run["state"] for run in read_manifest(out).runs.values()}
    assert states & {"stopped", "waiting"}  # one that was about to end may be done
    assert run_sweep(out, *options) == 0
    assert table_of(out) == table_of(undisturbed)
    for name in NAMES:
        weights = [folder / name / "model.safetensors" for folder in (out, undisturbed)]
        assert weights[0].read_bytes() == weights[1].read_bytes()


def test_jobs_are_processes_with_one_thread_and_save_if_the_sweep_is_killed(small, tmp_path):
    """The real thing: a process, and a path with a space."""
    out = tmp_path / "a sweep"
    at = small.index("--train.threads")
    options = [*small[:at], *small[at + 2 :], *QUICK, *SLOW, "--train.epochs", "100000"]
    command = [sys.executable, "-m", "textvae", "sweep", "--out", str(out), *options]
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    with subprocess.Popen(command, env=environment, text=True) as process:
        when_training(out, lambda pid: process.kill())(process.pid)
    until_saved(out)
    ends = time.monotonic() + 20
    while "textvae: saved at step " not in last_line(out / "logs" / "run.log"):
        assert time.monotonic() < ends
        time.sleep(0.01)
    versions = json.loads((out / "run" / "versions.json").read_text())
    assert versions["threads"] == "1"
    assert shlex.split(versions["command"])[-1] == str(out / "run")
    assert json.loads((out / "run" / "training.json").read_text())["finished"] is None


# where the jobs run, and what is shown


def test_a_local_job_has_an_exit_status_and_a_log(tmp_path):
    job = LocalJob([sys.executable, "-c", "print('a'); exit(3)"], tmp_path / "log")
    while (status := job.poll()) is None:
        time.sleep(0.01)
    assert status == 3 and last_line(tmp_path / "log") == "a"
    sleeping = LocalJob([sys.executable, "-c", "import time; time.sleep(60)"], tmp_path / "log")
    sleeping.stop()
    assert sleeping.process.wait() == -signal.SIGTERM
    sleeping.stop()  # too late, which is no error


def test_submitit_is_an_extra(tmp_path):
    try:
        import submitit  # noqa: F401
    except ImportError:
        with pytest.raises(UserError, match=r"pip install submitit"):
            find_launcher("submitit", tmp_path, {})
    else:
        with pytest.raises(UserError, match="the options of the launcher"):
            find_launcher("submitit", tmp_path, {"cluster": "debug", "odd_thing": 1})


def test_a_sweep_with_submitit(small, tmp_path):
    pytest.importorskip("submitit")
    options = ["--launcher", "submitit", "--launcher-options", "cluster=local", "timeout_min=5"]
    assert in_child(["sweep", "--out", str(tmp_path / "out"), *small, *QUICK, *options]) == 0
    assert (tmp_path / "out" / "table.md").exists()


def test_the_live_table_shows_what_runs_first(undisturbed, tmp_path, monkeypatch):
    out = tmp_path / "live"
    shutil.copytree(undisturbed, out)
    console = Console(width=100, height=8, force_terminal=True, record=True, file=StringIO())
    monkeypatch.setattr(states, "console", lambda: console)
    (out / "logs" / f"{NAMES[2]}.log").write_text("step 3/12 epoch 0.5\n\n")
    with States(read_manifest(out), lambda name: out / "logs" / f"{name}.log") as shown:
        shown.set(NAMES[2], "running")
        shown.set(NAMES[3], "failed", "the loss is not finite")
        console.print(shown._table())
    text = console.export_text()
    assert "step 3/12 epoch 0.5" in text and "the loss is not finite" in text
    assert "1 running, 2 done, 1 failed" in text
    assert NAMES[0] not in text.splitlines()[-3]


def test_everything_can_be_done_in_python(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(launchers, "LocalJob", ForkedJob)
    (tmp_path / "base.yaml").write_text(
        "data: {tokenized: true, batch_size: 16}\n"
        "model: {embedding_dim: 8, encoder_hidden: 12, decoder_hidden: 12}\n"
        "train: {epochs: 1, samples: 2, precision: fp32, threads: 1}\n"
    )
    done = textvae.sweep(
        tmp_path / "base.yaml",
        out=tmp_path / "out",
        vary={"model.latent_dim": [0, 2]},
        samples=2,
        generations=0,
        precision="bf16",
        data={"dir": str(corpus)},
    )
    assert [run.name for run in done.runs] == ["base-latent_dim-0", "base-latent_dim-2"]
    assert not done.failed and len(rows(done.table)) == 4
    assert [
        json.loads((run / "metrics/test.json").read_text())["precision"] for run in done.runs
    ] == ["bf16"] * 2
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "base-latent_dim-0" in page and "base-latent_dim-2" in page


def test_runs_of_other_data_are_not_taken_for_those_of_a_sweep(corpus, small, tmp_path, capfd):
    texts, out = tmp_path / "texts", tmp_path / "out"
    shutil.copytree(corpus, texts)
    at = small.index("--data.dir")
    options = [*small[:at], "--data.dir", str(texts), *small[at + 2 :], "--no-report"]
    assert run_sweep(out, *options) == 0
    before = stats(out)
    for name in ("test", "train"):
        path = texts / f"{name}.txt"
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(lines[:-2]))
        assert run_sweep(out, *options) == 2
        assert f"was trained with another {name} split than the one in" in capfd.readouterr().err
        path.write_text("".join(lines))
    assert run_sweep(out, *options) == 0 and stats(out) == before


def test_the_values_of_a_grid_may_be_generated(tmp_path):
    (tmp_path / "base.yaml").write_text("train: {epochs: 1}\n")
    cells = make_grid(
        [TOY],
        methods=(name for name in ("vae", "skip_vae")),
        vary={"model.latent_dim": np.array([2, 3]), "optim.lr": (x for x in (0.5, 1.0))},
    )
    assert len(cells) == 8 and cells[0].varied == {"model.latent_dim": 2, "optim.lr": 0.5}
    for wrong in ("vae", 3):
        with pytest.raises(UserError, match="must be a list"):
            make_grid([TOY], methods=wrong)
