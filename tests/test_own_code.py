"""Parts of the user's own on the command line: only what is named there is executed."""

import json
import shutil
import sys
from pathlib import Path

import pytest
from test_sweep import TOY, run_sweep

import textvae
from textvae.builders.own_code import load_named
from textvae.cli.main import main
from textvae.errors import UserError
from textvae.runs.files import read_record
from textvae.runs.run_folder import SUMMARY
from textvae.training.sweeps.grid import make_grid

PARTS = '''
from functools import partial

import textvae
from helper_of_parts import SHIFT


class Narrow(textvae.TextVAE):
    """A decoder with fewer units."""

    def make_decoder(self, config):
        return super().make_decoder(config | {"decoder_hidden": 6})


class Powered(textvae.TextVAE):
    """A model with an argument of its own."""

    def __init__(self, power=2.0, **arguments):
        super().__init__(**arguments)
        self.power = power


def scaled(terms, beta, scale):
    return textvae.elbo(terms, beta * scale + SHIFT)


def triangle(step, steps, height=1.0):
    return height * (1 - abs(2 * step / steps - 1))


def negative(step, steps):
    return -1.0


def text(step, steps):
    return "0.5"


def huge(step, steps):
    return 10**400


def late(step, steps):
    return {}[step] if (step, steps) == (1, 2) else 1.0


class Wide(textvae.TextVAE):
    """Another class."""


Narrower = partial(Narrow)
MorePowered = partial(Powered, power=3.0)
number = 3
half = partial(scaled, scale=0.5)
double = partial(scaled, scale=2.0)
count = [0]
count[0] += 1
'''


@pytest.fixture
def parts(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "helper_of_parts.py").write_text("SHIFT = 0.0\n")
    (tmp_path / "parts_of_mine.py").write_text(PARTS)
    return tmp_path / "parts_of_mine.py"


@pytest.fixture
def run(parts, tiny, tmp_path, capfd, caplog) -> Path:
    """A run with a class and an objective of its own, trained and resumed by commands."""
    run = tmp_path / "run"
    own = ["--own-model", f"{parts}:Narrow", "--own-objective", f"{parts}:half"]
    assert main(["train", "--out", str(run), *tiny, *own, "--train.max_steps", "2"]) == 0
    longer = ["train", "--resume", str(run), "--train.max_steps", "3"]
    assert main(longer) == 2
    assert "--own-model FILE.py:Narrow" in capfd.readouterr().err
    assert main([*longer, *own[:3], f"{parts}:double"]) == 2
    assert "--own-objective FILE.py:NAME" in capfd.readouterr().err
    caplog.set_level("INFO")
    assert main([*longer, *own]) == 0
    assert f"next: textvae evaluate {run} --own-model {parts}:Narrow" in caplog.text
    return run


def test_commands_with_a_class_of_ones_own(run, parts, language_model, tmp_path, capfd):
    own = ["--own-model", f"{parts}:Narrow"]
    recorded = read_record(run / "training.json")["own_parts"]
    assert recorded["model"] == "parts_of_mine.Narrow"
    assert recorded["objective"] == "parts_of_mine.scaled(scale=0.5)"
    assert main(["sample", str(run)]) == 2
    assert "give --own-model FILE.py:Narrow" in capfd.readouterr().err
    texts = tmp_path / "texts.txt"
    texts.write_text("the cat sees\nthe dog\n")
    few = ["--samples", "2", "--generations", "2"]
    for command in (
        ["evaluate", str(run), *few],
        ["diagnose", str(run), "--limit", "20"],
        ["sample", str(run), "-n", "1"],
        ["reconstruct", str(run), "the cat sees"],
        ["encode", str(run), str(texts), "--out", str(tmp_path / "z.npz")],
        ["map", str(run), "--out", str(tmp_path / "map.png")],
        [
            "report",
            str(run),
            str(language_model),
            "--out",
            str(tmp_path / "page.html"),
            "--limit",
            "9",
        ],
    ):
        assert main([*command, *own]) == 0, command
    page = (tmp_path / "page.html").read_text()
    assert "parts_of_mine.scaled(scale=0.5)" in page and "Own objective" in page
    assert json.loads((run / "metrics/test.json").read_text())["elbo"] < 0
    named_by_a_partial = ["--own-model", f"{parts}:Narrower"]  # its arguments are in the folder
    assert main(["sample", str(run), "-n", "1", *named_by_a_partial]) == 0
    assert main(["sample", str(language_model), *own]) == 2
    assert "is a TextVAE, not a Narrow: leave out the class" in capfd.readouterr().err
    module = sys.modules["parts_of_mine"]
    assert module.count == [1]  # executed once, whatever was named in it, and however often


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("parts_of_mine.py:Narow", "has no 'Narow'; did you mean Narrow?"),
        ("parts_of_mine.py", "give file.py:name or module:name"),
        ("nothing.py:Narrow", "no such file"),
        ("parts_of_mine.py:scaled", "pass a subclass of one of textvae's models"),
        ("broken.py:Narrow", "broken.py: NameError: name 'oops' is not defined"),
        ("no_such_module:Narrow", "ModuleNotFoundError"),
    ],
)
def test_what_cannot_be_loaded_is_one_line(name, message, parts, trained, monkeypatch, capsys):
    monkeypatch.chdir(parts.parent)
    (parts.parent / "broken.py").write_text("oops\n")
    assert main(["sample", str(trained), "--own-model", name]) == 2
    said = capsys.readouterr().err
    assert message in said and "Traceback" not in said and said.startswith("textvae: --own-model")
    assert "broken" not in sys.modules


@pytest.mark.parametrize(
    ("part", "name", "message"),
    [
        ("objective", "number", "an objective is a function, not int"),
        ("objective", "Narrow", "pass an object"),
        ("procedure", "half", "the procedure has no update, no state_dict"),
        ("kl-schedule", "number", "a KL schedule is a function, not int"),
        ("kl-schedule", "Narrow", "a KL schedule is not a class: pass an object, Narrow(...)"),
        ("model", "half", "pass a subclass"),
    ],
)
def test_a_part_of_the_wrong_kind_is_one_line(part, name, message, parts, tiny, tmp_path, capsys):
    words = ["train", "--out", str(tmp_path / "run"), *tiny, f"--own-{part}", f"{parts}:{name}"]
    assert main(words) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(f"textvae: --own-{part} {parts}:{name}: ") and message in said
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_a_sweep_trains_evaluates_and_reports_own_parts(parts, tiny, tmp_path, capfd):
    """The jobs are processes, which get the names of the parts; the manifest names no file."""
    out = tmp_path / "sweep"
    narrow = ["--own-model", f"{parts}:Narrow"]
    vary = ["--vary", "train.max_steps=2,3", "--samples", "2"]
    assert run_sweep(out, *tiny, *vary, *narrow, "--own-objective", f"{parts}:half") == 0
    found = read_record(out / "manifest.json")
    named = {"model": "parts_of_mine.Narrow", "objective": "parts_of_mine.scaled(scale=0.5)"}
    runs = list(found["runs"].values())
    assert len(runs) == 2
    for each in runs:
        assert each["own_parts"] == named and f"--own-model {parts}:Narrow" in each["command"]
    for name in found["runs"]:
        assert read_record(out / name / SUMMARY)["own_parts"] == named
        assert json.loads((out / name / "metrics/test.json").read_text())["elbo"] < 0
    assert "parts_of_mine.scaled(scale=0.5)" in (out / "report.html").read_text()
    capfd.readouterr()
    other = [*narrow, "--own-objective", f"{parts}:double"]
    assert run_sweep(out, *tiny, *vary, *other) == 2  # although there is nothing left to train
    assert "was trained with parts_of_mine.scaled(scale=0.5)" in capfd.readouterr().err
    assert run_sweep(out, *tiny, *vary, *narrow) == 2
    assert "--own-objective FILE.py:NAME" in capfd.readouterr().err
    one = ["--run", next(iter(found["runs"]))]
    assert run_sweep(out, *one) == 2  # a manifest executes nothing
    assert "--own-model FILE.py:NAME" in capfd.readouterr().err
    assert run_sweep(out, *one, *narrow, "--own-objective", f"{parts}:half") == 0


def test_a_schedule_of_ones_own_is_a_share_of_beta(parts, tiny, tmp_path, capfd, caplog):
    """It is followed step by step, across a resume, and needed for it."""
    run, own = tmp_path / "run", ["--own-kl-schedule", f"{parts}:triangle"]
    words = ["--train.max_steps", "4", "--train.log_every", "1", "--objective.beta", "0.5"]
    words += ["--objective.kl_epochs", "2"]
    assert main(["train", "--out", str(run), *tiny, *words, "--train.max_steps", "3", *own]) == 0
    assert "--objective.kl_epochs: no effect on the KL weight" in caplog.text
    assert main(["train", "--resume", str(run), "--train.max_steps", "4"]) == 2
    assert "the same kl_schedule (--own-kl-schedule FILE.py:NAME" in capfd.readouterr().err
    assert main(["train", "--resume", str(run), "--train.max_steps", "4", *own]) == 0
    log = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    betas = [each["beta"] for each in log if "loss" in each]
    assert betas == pytest.approx([0.0, 0.5 * 2 / 3, 0.5 * 2 / 3, 0.5 * 0.5])
    assert read_record(run / "training.json")["own_parts"] == {
        "kl_schedule": "parts_of_mine.triangle"
    }


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("half", "at step 0: AttributeError: "),
        ("negative", "returned -1.0 at step 0: it must be 0 or more"),
        ("text", "returned a str at step 0, not a number"),
        ("huge", "returned inf at step 0"),
        ("late", "at step 1: KeyError: 1 (parts_of_mine.py, line"),
    ],
)
def test_a_schedule_is_tried_at_every_step_before_training(
    name, message, parts, tiny, tmp_path, capfd
):
    words = [*tiny, "--train.max_steps", "2", "--own-kl-schedule", f"{parts}:{name}"]
    assert main(["train", "--out", str(tmp_path / "run"), *words]) == 2
    said = capfd.readouterr().err.splitlines()[-1]
    assert said.startswith("textvae: the KL schedule") and message in said
    assert not (tmp_path / "run").exists()


def test_a_language_model_has_no_kl_schedule(parts, tiny, tmp_path, caplog):
    words = [*tiny, "--train.max_steps", "2", "--own-kl-schedule", f"{parts}:late"]
    words += ["--model.latent_dim", "0", "--model.injection", "none"]
    assert main(["train", "--out", str(tmp_path / "lm"), *words]) == 0
    assert "a language model has no KL: the KL schedule has no effect" in caplog.text
    assert read_record(tmp_path / "lm" / "training.json")["own_parts"] == {}


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_a_finished_run_of_other_code_is_not_taken_for_one_of_this_code(
    parts, tiny, tmp_path, capfd
):
    vary = ["--vary", f"own-objective=none,{parts}:half", "--train-only", "--train.max_steps", "2"]
    assert run_sweep(tmp_path / "sweep", *tiny, *vary) == 0
    assert run_sweep(tmp_path / "sweep", *tiny, *vary) == 0
    parts.write_text(PARTS.replace("beta * scale + SHIFT", "beta * scale - SHIFT"))
    capfd.readouterr()
    assert run_sweep(tmp_path / "sweep", *tiny, *vary) == 2
    assert "was trained with other code of the objective" in capfd.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_a_sweep_compares_own_parts_with_those_of_the_config(parts, tiny, tmp_path, capfd):
    out = tmp_path / "sweep"
    vary = ["--vary", f"own-model=none,{parts}:Narrow,{parts}:Wide"]
    vary += ["--vary", f"own-objective=none,{parts}:half", "--samples", "2"]
    assert run_sweep(out, *tiny, *vary, "--train.max_steps", "2") == 0
    runs = read_record(out / "manifest.json")["runs"]
    names = ["run", "run-half", "run-Narrow", "run-Narrow-half", "run-Wide", "run-Wide-half"]
    assert list(runs) == names
    assert runs["run"]["own_parts"] == {}
    assert runs["run-Wide-half"]["own_parts"] == {
        "model": "parts_of_mine.Wide",
        "objective": "parts_of_mine.scaled(scale=0.5)",
    }
    for name in runs:
        assert read_record(out / name / SUMMARY)["own_parts"] == runs[name]["own_parts"]
        assert name in (out / "table.md").read_text()
    assert "parts_of_mine.Wide" in (out / "report.html").read_text()
    capfd.readouterr()
    page = ["report", str(out), "--out", str(tmp_path / "page.html"), "--limit", "9"]
    assert main([*page, "--own-model", f"{parts}:Narrow"]) == 2
    assert "--own-model FILE.py:Wide" in capfd.readouterr().err
    assert main([*page, "--own-model", f"{parts}:Narrow", f"{parts}:Wide"]) == 0
    assert main([*page, "--own-model", f"{parts}:Powered"]) == 2
    assert "none of the runs is of this class" in capfd.readouterr().err


def test_a_language_model_is_trained_once_whatever_the_objective_is(parts):
    cells = make_grid([TOY], methods=["lm", "vae"], vary={"own-objective": [None, f"{parts}:half"]})
    assert [cell.name for cell in cells] == ["lm", "vae", "vae-half"]
    assert cells[0].own_parts == {} and cells[2].own_parts == {"objective": f"{parts}:half"}
    assert cells[2].words[-2:] == ["--own-objective", f"{parts}:half"]


def test_an_own_part_is_varied_or_given(parts, tmp_path):
    named = f"{parts}:half"
    with pytest.raises(UserError, match="own-objective is varied with --vary: do not give"):
        textvae.sweep(
            TOY,
            out=tmp_path / "x",
            vary={"own-objective": [None, named]},
            own_parts={"objective": named},
        )
    assert main(["sweep", "--out", str(tmp_path / "y"), "--vary", "own-objectiv=none,a.py:b"]) == 2
    with pytest.raises(UserError, match="give parts by name"):
        textvae.sweep(TOY, out=tmp_path / "x", vary={"own-objective": [textvae.elbo]})


def test_other_arguments_of_a_class_are_refused(parts, tiny, tmp_path, capfd):
    run = tmp_path / "run"
    words = ["train", "--out", str(run), *tiny, "--train.max_steps", "2"]
    assert main([*words, "--own-model", f"{parts}:Powered"]) == 0
    longer = ["train", "--resume", str(run), "--train.max_steps", "3"]
    assert main([*longer, "--own-model", f"{parts}:MorePowered"]) == 2
    said = capfd.readouterr().err
    assert "trained with parts_of_mine.Powered, and" not in said
    assert "trained with parts_of_mine.Powered(power=2.0), and" in said and "model_class=" in said
    assert main([*longer, "--own-model", f"{parts}:Powered"]) == 0


def test_only_these_parts_may_be_ones_own(tmp_path):
    with pytest.raises(UserError, match="did you mean objective"):
        textvae.sweep(TOY, out=tmp_path / "x", own_parts={"objectve": "parts.py:half"})
    assert not (tmp_path / "x").exists()


def test_a_module_in_the_working_folder(parts, monkeypatch):
    monkeypatch.chdir(parts.parent)
    assert load_named("parts_of_mine:half", "--own-objective").keywords == {"scale": 0.5}
    with pytest.raises(UserError, match="has no 'third'"):
        load_named("parts_of_mine:third", "--own-objective")


def test_a_saved_model_of_ones_own_class_is_examined_on_a_file(parts, run, tmp_path, capfd):
    module = load_named(f"{parts}:Narrow", "--own-model")
    module.from_pretrained(run).save_pretrained(tmp_path / "shared")
    (tmp_path / "new.txt").write_text("the cat likes the tree\nmy dog eats the fish\n")
    argv = ["evaluate", str(tmp_path / "shared"), "--data", str(tmp_path / "new.txt")]
    assert main([*argv, "--samples", "2", "--own-model", f"{parts}:Narrow"]) == 0
    assert main([*argv, "--samples", "2"]) == 2
    assert "--own-model FILE.py:Narrow" in capfd.readouterr().err


def test_own_parts_of_a_sweep_are_names(tmp_path):
    for wrong in ({"objective": len}, "parts.py:half"):
        with pytest.raises(TypeError, match="are given by name, such as"):
            textvae.sweep(TOY, out=tmp_path / "x", own_parts=wrong)


@pytest.mark.parametrize("is_package", [False, True])
def test_files_that_would_take_each_others_modules(is_package, tmp_path):
    shared = f"shared_{is_package}".lower()
    for folder in ("one", "two"):
        where = tmp_path / folder / (f"{shared}/__init__.py" if is_package else f"{shared}.py")
        where.parent.mkdir(parents=True)
        where.write_text(f"WHERE = {folder!r}\n")
        (tmp_path / folder / f"parts_{folder}.py").write_text(f"from {shared} import WHERE\n")
        (tmp_path / folder / f"alone_{folder}.py").write_text("WHERE = __name__\n")
    one, two = (f"{tmp_path}/{name}/parts_{name}.py:WHERE" for name in ("one", "two"))
    assert load_named(one, "--own-model") == "one"
    # What imports nothing may lie next to anything.
    assert load_named(f"{tmp_path}/two/alone_two.py:WHERE", "--own-objective") == "alone_two"
    with pytest.raises(
        UserError, match=rf"imports {shared}, and Python would take .*/one/.* and not"
    ):
        load_named(two, "--own-objective")
    (tmp_path / "two" / shared).with_suffix(".py").unlink(missing_ok=True)
    shutil.rmtree(tmp_path / "two" / shared, ignore_errors=True)
    assert load_named(two, "--own-objective") == "one"  # there is only one now


def test_a_module_that_is_not_imported_yet_counts(tmp_path):
    for folder in ("first", "second"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "later_module.py").write_text(f"WHERE = {folder!r}\n")
    (tmp_path / "first/own_first.py").write_text("WHERE = 1\n")
    (tmp_path / "second/own_second.py").write_text("import later_module\nWHERE = 2\n")
    load_named(f"{tmp_path}/first/own_first.py:WHERE", "--own-model")
    with pytest.raises(UserError, match="imports later_module, and Python would take"):
        load_named(f"{tmp_path}/second/own_second.py:WHERE", "--own-objective")


def test_a_file_that_hides_the_package(tmp_path):
    (tmp_path / "textvae.py").write_text("half = min\n")
    with pytest.raises(UserError, match="hides the package textvae"):
        load_named(f"{tmp_path}/textvae.py:half", "--own-objective")
