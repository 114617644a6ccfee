"""Search in the latent space: known optima, budgets, objectives, and the command."""

import json
import math
import sys
from collections import Counter
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet
import pytest
import torch

import textvae
from textvae.cli.main import main
from textvae.errors import UserError
from textvae.evaluation.search import search as search_module
from textvae.evaluation.search.curve import draw_search
from textvae.evaluation.search.kept_values import keeping
from textvae.evaluation.search.optimize import Optimization, optimize
from textvae.evaluation.search.search import (
    Call,
    Memory,
    _child,
    _evaluated,
    _ranked,
    _winner,
    best_so_far,
    search,
    try_texts,
)
from textvae.evaluation.search.surrogates import GaussianProcess, _informative
from textvae.runs.model_folder import weights_hash

OPTIMUM = np.array([1.5, -1.0, 0.5, 0.0, 2.0])
NEEDS_BOTORCH = pytest.mark.skipif(not find_spec("botorch"), reason="needs botorch")
BOTORCH = pytest.param("botorch", 80, 0.1, marks=NEEDS_BOTORCH)
METHODS = ("evolution", "bayes", pytest.param("botorch", marks=NEEDS_BOTORCH))


def decode(points: np.ndarray) -> list[str]:
    """A decoder whose texts are z itself, rounded."""
    return [" ".join(f"{number:.2f}" for number in point) for point in points]


def near(text: str) -> float:
    """The objective: minus the squared distance from the optimum."""
    return -float(np.square(np.array(text.split(), float) - OPTIMUM).sum())


def start(count: int = 200, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, len(OPTIMUM)))


def values(calls: list[Call]) -> list[float]:
    return [call.value for call in calls if call.value is not None]


@pytest.mark.parametrize(
    ("method", "budget", "close"), [("evolution", 300, 0.3), ("bayes", 80, 0.1), BOTORCH]
)
def test_a_search_finds_the_optimum_and_random_points_do_not(method, budget, close):
    for seed in range(1 if method == "botorch" else 3):  # it takes seconds
        calls = search(decode, near, start(), budget=budget, method=method, seed=seed)
        assert len(calls) == budget == len({call.text for call in calls})
        random = try_texts(iter(decode(start(budget, seed + 10))), near, budget, budget)
        assert max(values(calls)) > -close > max(values(random))


@pytest.mark.parametrize("method", METHODS)
def test_a_seed_gives_the_same_search(method):
    runs = [search(decode, near, start(), budget=40, method=method, seed=s) for s in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]


def test_bayes_needs_fewer_evaluations_of_a_smooth_objective():
    best = {
        m: [
            max(values(search(decode, near, start(), budget=70, method=m, seed=s)))
            for s in range(4)
        ]
        for m in ("evolution", "bayes")
    }
    assert np.mean(best["bayes"]) > np.mean(best["evolution"])


def noisy(count: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Points on a line, and values around a parabola."""
    points = np.linspace(-1, 1, count)[:, None]
    noise = np.random.default_rng(0).normal(size=count)
    return points, 0.2 * noise - points[:, 0] ** 2


def test_points_are_ordered_by_their_expected_improvement(monkeypatch):
    process, candidates = GaussianProcess(10), np.array([[0.0], [1.0], [2.0]])
    known = np.array([-1.0, -0.1, 0.05]), np.array([3.0, 0.01, 0.01])  # means and deviations
    fitted = SimpleNamespace(predict=lambda _, return_std: known)
    monkeypatch.setattr(process, "_process", lambda *_: fitted)
    # On the best value, 0: 0.76 of a point that may be anything, 0.00, and 0.05.
    ordered = process.choose(candidates, np.array([0.0, -10.0, -20.0]), candidates, 3)
    assert ordered.tolist() == [[0.0], [2.0], [1.0]]


def test_a_process_is_fitted_again_after_enough_new_texts():
    points, values = noisy()
    process, kernels = GaussianProcess(10), []
    for texts in (12, 21, 22):
        process.choose(points, values, points, texts)
        kernels.append(process.kernel)
    assert kernels[0] is kernels[1] is not kernels[2]


def test_a_process_sees_the_best_and_the_latest_points():
    assert _informative(-np.arange(1000.0)).tolist() == [*range(150), *range(850, 1000)]


@pytest.mark.parametrize("method", METHODS)
def test_every_text_is_evaluated_once_and_the_budget_is_kept(method):
    asked: list[str] = []

    def coarse(points):
        return [" ".join(str(round(number)) for number in point) for point in points]

    def count(text):
        asked.append(text)
        return near(text)

    calls = search(coarse, count, start(), budget=57, method=method)
    assert len(asked) == len(set(asked)) == len(calls) == 57
    assert [call.text for call in calls] == asked


@pytest.mark.parametrize("method", METHODS)
def test_texts_without_a_value_are_counted_but_never_best(method):
    def sometimes(text):
        first = float(text.split()[0])
        return None if first < 0 else math.nan if first < 0.2 else near(text)

    calls = search(decode, sometimes, start(), budget=80, method=method)
    assert len(calls) == 80 and None in [call.value for call in calls]
    assert all(math.isfinite(value) for value in values(calls))
    assert max(values(calls)) > -1
    assert best_so_far([Call("a", None), Call("b", 1.0), Call("c", None), Call("d", 0.5)]) == [
        None,
        1.0,
        1.0,
        1.0,
    ]
    nothing = search(decode, lambda text: None, start(), budget=30, method=method)
    assert len(nothing) == 30 and not values(nothing)


@pytest.mark.parametrize("method", METHODS)
def test_a_decoder_that_ignores_z_ends_the_search(method):
    calls = search(
        lambda points: ["the same"] * len(points), len, start(), budget=30, method=method
    )
    assert calls == [Call("the same", 8.0)]


def test_points_on_a_sphere_stay_there():
    def on_sphere(points):
        assert np.allclose(np.linalg.norm(points, axis=1), 1)
        return decode(points)

    points = start()
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    assert len(search(on_sphere, near, points, budget=40, on_sphere=True)) == 40


def test_the_curve_says_what_was_reached_after_so_many_evaluations():
    calls = [Call(str(i), float(i)) for i in range(12)]
    shown = Optimization({"search": calls, "samples": calls[:3], "training": calls[::-1]}, 1.0)
    assert str(shown).splitlines() == [
        "calls         search     samples    training",
        "1                  0           0          11",
        "2                  1           1          11",
        "5                  4           2          11",
        "10                 9           2          11",
        "12                11           2          11",
    ]
    assert [call.text for call in shown.best(2)] == ["11", "10"]
    zero = Optimization({"search": [Call("a", 0.0)]}, -1.0)
    assert str(zero).split()[-1] == "0"  # not -0
    assert math.copysign(1, zero.best()[0].value) == 1
    lower = Optimization({"search": [Call("a", -2.0), Call("b", None)]}, -1.0)
    assert lower.best() == [Call("a", 2.0)]
    assert [row["value"] for row in lower.rows()] == [2.0, None]


@pytest.fixture(scope="module")
def model(trained):
    """The trained model with other weights, with which texts and z depend on each other."""
    model = textvae.load(str(trained))
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in (*model.encoder.parameters(), *model.decoder.parameters()):
            parameter.uniform_(-1.0, 1.0)
    model.config["max_length"] = 8
    return model


def cats(text: str) -> int:
    return text.split().count("cat")


@pytest.mark.parametrize("method", METHODS)
def test_a_word_count_of_a_model(method, trained, model):
    found = optimize(trained, cats, budget=40, method=method, model=model)
    best = found.best(3)
    assert best[0].value == cats(best[0].text) >= best[1].value
    assert len(found.calls["search"]) <= 40 and len(found.calls["samples"]) == 40
    assert max(values(found.calls["training"])) == 2  # "the cat ... a cat"
    # Other batches round differently, which botorch amplifies as it moves points uphill.
    batches = {} if method == "botorch" else {"batch_size": 5}
    again = optimize(trained, cats, budget=40, method=method, model=model, **batches)
    assert again.best(3) == best
    fewest = optimize(trained, cats, budget=40, method=method, model=model, minimize=True)
    assert fewest.best(1)[0].value == 0.0


def test_the_command_writes_every_evaluation(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text("def length(text):\n    return len(text.split())\n")
    options = ["--budget", "12", "--out", "found.jsonl", "--top", "1", "--plot", "curve.svg"]
    assert main(["optimize", str(trained), "--objective", "mine.py:length", *options]) == 0
    shown = capsys.readouterr().out
    rows = [json.loads(line) for line in Path("found.jsonl").read_text().splitlines()]
    assert f"wrote {len(rows)} rows" in shown and "best texts of the search" in shown
    assert {row["from"] for row in rows} == {"search", "samples", "training"}
    for row in rows:
        assert row["value"] == len(row["text"].split()) <= row["best"]
    assert main(["optimize", str(trained), "--objective", "mine:length", *options]) == 0
    assert [json.loads(line) for line in Path("found.jsonl").read_text().splitlines()] == rows
    assert "wrote curve.svg" in shown and Path("curve.svg").read_text().startswith("<?xml")
    for line, name in zip(
        draw_search(rows).axes[0].lines, ("search", "samples", "training"), strict=True
    ):
        calls = [row["call"] for row in rows if row["from"] == name]
        assert line.get_xdata().tolist() == calls
        assert line.get_ydata()[-1] == max(row["value"] for row in rows if row["from"] == name)
    assert main(["optimize", str(trained), "--objective", "m:f", "--plot", "a.gif"]) == 2
    assert "plots are written as .svg, .png, .pdf" in capsys.readouterr().err


def test_a_probe_is_an_objective(trained, model, caplog):
    with pytest.raises(UserError, match="create it with textvae probe"):
        optimize(trained, "probe:size", budget=4)
    metrics = trained / "metrics"
    card = metrics / "test-probe-size.json"
    card.write_text(json.dumps({"coefficients": [1.0, 0.0, -2.0, 0.0], "intercept": 3.0}))
    try:
        found = optimize(trained, "probe:size", budget=10, model=model)
        text, value = found.best(1)[0]
        mean = model.encode([text]).mean[0]
        assert value == pytest.approx(float(mean[0] - 2 * mean[2] + 3), abs=1e-5)
        record = json.loads(card.read_text())
        assert "follows noise" not in caplog.text
        card.write_text(json.dumps(record | {"r2": -0.04, "weights": weights_hash(trained)}))
        optimize(trained, "probe:size", budget=4, model=model)
        assert "no better than its mean (R² -0.040)" in caplog.text
        card.write_text(json.dumps(record | {"weights": "of other weights"}))
        with pytest.raises(UserError, match="was computed from earlier weights: run textvae probe"):
            optimize(trained, "probe:size", budget=4, model=model)
    finally:
        card.unlink()


def test_a_method_that_is_not_installed_is_one_line(trained, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "botorch", None)
    words = ["optimize", str(trained), "--objective", "builtins:len", "--method", "botorch"]
    assert main(words) == 2
    assert "pip install botorch" in capsys.readouterr().err.splitlines()[-1]


def test_mistakes_are_one_line(trained, language_model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(
        "def fails(text):\n    raise ValueError('no')\n\ndef nothing(text):\n    return None\n"
    )
    Path("broken.py").write_text("import nonesuch_module\n")
    for run, objective, message in (
        (trained, "length", "give module:function"),
        (trained, "mine.py:size", "has no 'size'"),
        (trained, "mine.py:fails", "ValueError: no"),
        (trained, "mine.py:nothing", "not even a training text: check the objective"),
        (trained, "broken.py:f", "No module named 'nonesuch_module'"),
        (trained, "absent.py:f", "absent.py: no such file"),
        (trained, "nonesuch_module:f", "No module named 'nonesuch_module'"),
        (language_model, "mine.py:nothing", "a model of text with a latent variable"),
    ):
        assert main(["optimize", str(run), "--objective", objective, "--budget", "4"]) == 2
        lines = capsys.readouterr().err.splitlines()
        said = [line for line in lines if line.startswith("textvae:")]
        assert len(said) == 1 and message in said[0], (objective, said)
    with pytest.raises(UserError, match="at least 2"):
        optimize(trained, cats, budget=1)
    with pytest.raises(UserError, match=r"failed for .*: ZeroDivisionError: division by zero"):
        optimize(trained, lambda text: 1 / 0, budget=4)


@NEEDS_BOTORCH
def test_botorch_says_nothing_about_values_that_are_equal_or_huge(recwarn):
    def equal(text):
        return 1.0

    def huge(text):
        return 1e160 * near(text)

    for objective in (equal, huge):
        assert len(search(decode, objective, start(), budget=25, method="botorch")) == 25
    assert not [
        w for w in recwarn if "botorch" in str(w.category) or "input data" in str(w.message)
    ]


def test_an_unknown_method_is_refused():
    with pytest.raises(UserError, match="choose bayes, botorch, or evolution"):
        search(decode, near, start(), budget=25, method="random")


def test_the_first_texts_may_have_no_value(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(
        "seen = []\n\ndef late(text):\n    seen.append(text)\n"
        "    return None if len(seen) < 4 else len(seen) / 2\n"
    )
    words = ["optimize", str(trained), "--objective", "mine.py:late", "--budget", "8"]
    assert main([*words, "--out", "found.parquet"]) == 0
    found = pyarrow.parquet.read_table("found.parquet").to_pydict()
    assert found["value"][:5] == [None, None, None, 2.0, 2.5]


def test_an_interrupted_search_keeps_its_values(trained, tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.chdir(tmp_path)
    code = (
        "from pathlib import Path\n\ndef length(text):\n"
        "    log = Path('calls')\n    calls = log.read_text() if log.exists() else ''\n"
        "    if len(calls) == {limit}:\n        raise ValueError('stop')\n"
        "    log.write_text(calls + '.')\n    return len(text)\n"
    )
    words = ["optimize", str(trained), "--objective", "mine.py:length", "--budget", "8"]
    Path("mine.py").write_text(code.format(limit=9))
    assert main([*words, "--out", "a.jsonl"]) == 2
    assert Path("calls").read_text() == 9 * "."
    with Path("a.jsonl.values").open("a") as file:
        file.write('{"text": "cut o')  # killed while it was written
    Path("mine.py").write_text(code.format(limit=1000))
    assert main([*words, "--out", "a.jsonl"]) == 0
    assert "9 values of an earlier search from a.jsonl.values" in caplog.text
    assert not Path("a.jsonl.values").exists()
    asked = len(Path("calls").read_text())
    Path("calls").unlink()
    assert main([*words, "--out", "b.jsonl"]) == 0  # not interrupted
    assert asked == len(Path("calls").read_text())  # no text was evaluated twice
    assert Path("a.jsonl").read_text() == Path("b.jsonl").read_text()


@pytest.mark.parametrize("length", [0, 8, 21, 24, 30, 40])
def test_values_are_kept_wherever_the_file_was_cut(length, tmp_path):
    path = tmp_path / "values"
    lines = '{"objective": "len"}\n{"text": "a", "value": 9.0}\n'
    path.write_text(lines[:length])
    with keeping(path, len, "len") as evaluate:
        assert (evaluate("four"), evaluate("a")) == (4, 1)
    assert path.read_text() == lines[:21] + (
        '{"text": "four", "value": 4}\n{"text": "a", "value": 1}\n'
    )


def test_values_that_are_not_finite_are_not_kept(tmp_path):
    values = {"a": math.nan, "b": math.inf, "c": None, "d": 1.0}
    with keeping(tmp_path / "values", values.get, "mine") as evaluate:
        assert [str(evaluate(text)) for text in values] == ["nan", "inf", "None", "1.0"]
    assert (tmp_path / "values").read_text() == (
        '{"objective": "mine"}\n{"text": "d", "value": 1.0}\n'
    )


def test_values_of_another_objective_are_not_used(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["optimize", str(trained), "--objective", "builtins:len", "--out", "a.jsonl"]
    for content, message in (
        ('{"objective": "mine:other"}\n', "has the values of mine:other, not of builtins:len"),
        ("not a record\n", "cannot be read"),
        ('{"objective": "builtins:len"}\ndamaged\n{"text": "a", "value": 1}\n', "cannot be read"),
    ):
        Path("a.jsonl.values").write_text(content)
        assert main(words) == 2
        assert message in capsys.readouterr().err.splitlines()[-1]
        assert Path("a.jsonl.values").read_text() == content


def test_texts_without_a_value_are_not_kept(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["optimize", str(trained), "--objective", "mine.py:size", "--budget", "4"]
    Path("mine.py").write_text("def size(text):\n    return None\n")  # a mistake
    assert main([*words, "--out", "a.jsonl"]) == 2
    assert not list(tmp_path.glob("a.jsonl*"))
    Path("mine.py").write_text("def size(text):\n    return len(text)\n")
    assert main([*words, "--out", "a.jsonl"]) == 0


def test_values_are_not_kept_under_a_name_that_others_share(trained, model, tmp_path):
    for function in (lambda text: 1.0, partial(len), Counter("a").get):
        with pytest.raises(UserError, match="define it with def at the top of a module"):
            optimize(trained, function, budget=4, model=model, keep=tmp_path / "values")
    assert not list(tmp_path.iterdir())


def test_values_of_a_probe_are_not_kept(trained, model, tmp_path):
    card = trained / "metrics" / "test-probe-size.json"
    card.write_text(json.dumps({"coefficients": [1.0, 0.0, -2.0, 0.0], "intercept": 3.0}))
    try:
        optimize(trained, "probe:size", budget=4, model=model, keep=tmp_path / "values")
    finally:
        card.unlink()
    assert not list(tmp_path.iterdir())


def test_a_search_for_a_probe_leaves_the_values_of_another_search(trained, tmp_path, monkeypatch):
    out = tmp_path / "found.jsonl"
    kept = tmp_path / "found.jsonl.values"
    kept.write_text("values of a function")
    monkeypatch.setattr(
        "textvae.evaluation.search.optimize.load_objective",
        lambda *_: lambda text: float(len(text)),
    )
    argv = ["optimize", str(trained), "--objective", "probe:rating", "--budget", "12"]
    assert main([*argv, "--out", str(out)]) == 0
    assert kept.read_text() == "values of a function"


def test_a_round_ends_with_its_last_new_text():
    memory = Memory(len, budget=10)
    memory.value("a")
    points, found = _evaluated(memory, np.arange(5.0)[:, None], ["a", "bb", "a", "ccc", "dd"], 2)
    assert points[:, 0].tolist() == [1, 3, 0, 2] and found.tolist() == [2, 3, 1, 1]
    assert memory.left == 7


def test_a_search_starts_from_different_points_of_a_sorted_split():
    points, options = np.arange(200.0)[:, None], {"budget": 20, "method": "evolution"}
    first = [
        [float(call.text) for call in search(decode, float, points, **options, seed=seed)[:4]]
        for seed in (0, 1)
    ]
    for found in first:
        assert set(found) <= set(range(200)) and max(found) - min(found) > 20
    assert first[0] != first[1]


@pytest.mark.parametrize("method", ["evolution", "bayes"])
def test_the_spread_of_the_starting_points_is_the_scale_of_the_search(method):
    scale = 2.0 ** np.array([-9, 0, 9, 3, -3])
    found = [
        search(lambda z, by=by: decode(z / by), near, by * start(), budget=40, method=method)
        for by in (1.0, scale)
    ]
    assert found[0] == found[1]


def test_a_search_without_new_texts_looks_farther_away():
    def far(points):
        return ["far" if np.abs(point).max() > 12 else "near" for point in points]

    calls = search(far, len, start(), budget=30, method="evolution")
    assert [call.text for call in calls] == ["near", "far"]


def test_texts_without_a_value_are_ranked_below_all_others():
    assert _ranked(np.array([1.0, math.nan, 4.0])) == pytest.approx([1.0, -2.0, 4.0], abs=1e-5)
    assert _ranked(np.array([1.0, math.nan])).tolist()[1] < 1.0
    assert _ranked(np.array([math.nan, math.nan])).tolist() == [0.0, 0.0]


def test_parents_are_among_the_better_half_and_the_best_most_often():
    random, points = np.random.default_rng(0), np.arange(100.0)[:, None]
    for count, kept in ((100, 40), (60, 30), (3, 2)):
        won = [_winner(random, points[:count], points[:count, 0])[0] for _ in range(2000)]
        assert min(won) >= count - kept
        assert np.bincount(np.array(won, int)).argmax() == count - 1


def test_some_points_are_draws_around_the_starting_points(monkeypatch):
    random, far = np.random.default_rng(0), np.full((4, 2), 1e6)
    begin, scale = np.array([[-50.0, 0.0], [50.0, 0.0]]), np.array([1.0, 4.0])

    def children():
        return np.stack([_child(random, far, np.zeros(4), begin, scale) for _ in range(2000)])

    fresh = np.abs(children()).max(1) < 1e3
    assert fresh.mean() == pytest.approx(0.1, abs=0.03)
    monkeypatch.setattr(search_module, "FRESH", 1.0)
    made = children()
    assert (made[:, 0] > 0).mean() == pytest.approx(0.5, abs=0.05)
    made[:, 0] = np.abs(made[:, 0]) - 50
    assert made.std(0) == pytest.approx(scale / 2, rel=0.1)


def test_no_more_texts_are_drawn_than_the_budget_or_the_limit_allows():
    for budget, most, taken in ((2, 9, 3), (9, 4, 4)):
        texts = iter("aabcdefghij")
        calls = try_texts(texts, len, budget, most)
        assert [call.text for call in calls] == sorted(set("aabcdefghij"[:taken]))
        assert next(texts) == "aabcdefghij"[taken]


def test_a_small_budget_is_used():
    def rarely_new(points):
        return [str(round(5 * number)) for number in points[:, 0]]

    assert len(search(rarely_new, float, start(), budget=8, method="evolution")) == 8


def test_an_objective_that_exits_is_one_line(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("script.py").write_text("import sys\nsys.exit(0)\n")
    Path("inside.py").write_text("def f(text):\n    raise SystemExit(3)\n")
    for name, message in (("script.py:f", "SystemExit: 0"), ("inside.py:f", "SystemExit: 3")):
        assert main(["optimize", str(trained), "--objective", name, "--budget", "4"]) == 2
        assert message in capsys.readouterr().err.splitlines()[-1]


def test_values_of_a_function_of_the_same_name_are_not_used(trained, model, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("first", "second"):
        (tmp_path / f"{name}_of_two.py").write_text("def size(text):\n    return len(text)\n")
    values = tmp_path / "values"
    first, second = (import_module(f"{name}_of_two").size for name in ("first", "second"))
    optimize(trained, first, budget=4, model=model, keep=values)
    with pytest.raises(UserError, match="has the values of first_of_two:size, not of second_of_tw"):
        optimize(trained, second, budget=4, model=model, keep=values)


def test_two_searches_do_not_write_to_the_same_file(tmp_path):
    path = tmp_path / "values"
    with (
        keeping(path, len, "len"),
        pytest.raises(UserError, match=r"values is in use by another process .* another file"),
        keeping(path, len, "len"),
    ):
        pass
    assert not list(tmp_path.iterdir())


def test_values_that_could_not_be_kept_are_not_computed(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(UserError, match="file is a file, not a folder"),
        keeping(tmp_path / "file" / "values", len, "len"),
    ):
        pass


def test_units_and_origin_of_the_values_do_not_matter():
    points, values = noisy()
    candidates = np.linspace(-2, 2, 21)[:, None]
    first, second = (
        GaussianProcess(10).choose(points, found, candidates, 12)
        for found in (values, 50 * values + 100)
    )
    assert first.tolist() == second.tolist()


def test_the_logarithm_of_a_step_is_uniform(monkeypatch):
    monkeypatch.setattr(search_module, "FRESH", 0.0)
    random, points = np.random.default_rng(0), np.zeros((4, 400))
    made = [_child(random, points, np.zeros(4), points, np.ones(400)) for _ in range(2000)]
    quartiles = np.quantile(np.log(np.std(made, axis=1)), [0.25, 0.5, 0.75])
    assert quartiles == pytest.approx(np.log(0.03) * np.array([0.75, 0.5, 0.25]), abs=0.15)
