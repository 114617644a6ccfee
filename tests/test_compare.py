"""Cards on disk, as text, and side by side in a table."""

import csv
import json
import math
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import textvae
from textvae.cli.main import main
from textvae.config.experiment import Config, DataConfig, ModelConfig, TrainConfig
from textvae.errors import UserError
from textvae.evaluation.comparison.compare import compare, gather
from textvae.evaluation.comparison.gains import add_gains, add_gains_over_language_model
from textvae.evaluation.comparison.rate_distortion import (
    draw_rate_distortion,
    point_of,
    rate_distortion,
)
from textvae.evaluation.comparison.scatter import draw_metrics, scatter
from textvae.evaluation.comparison.seeds import average_cards
from textvae.evaluation.metrics.bound_files import read_bounds, save_bounds
from textvae.evaluation.metrics.card import Card
from textvae.evaluation.metrics.card_files import find_card, load_card, load_cards, options_of
from textvae.evaluation.metrics.saving import save_card
from textvae.runs.files import as_json
from textvae.runs.markdown import markdown_table

VAE = {
    "model": "vae",
    "latent_dim": 32,
    "rec": -327.0,
    "kl": 5.5,
    "elbo": -332.5,
    "iw": -330.25,
    "ppl_elbo": 64.3,
    "ppl_iw": 62.5,
    "ppl_token_elbo": 64.3,
    "ppl_token_iw": 62.5,
    "mi": 4.98,
    "mi_se": 0.01,
    "mi_max": math.log(10000),
    "marginal_kl": 0.52,
    "au": 14,
    "au_02": 12,
    "au_threshold": 0.01,
    "shuffle_gap": 3.2,
    "count": 10000,
    "units": 798673,
    "tokens": 798673,
    "samples": 200,
    "collapse": None,
}
LM = {**VAE, "model": "lstm-lm", "latent_dim": 0, "kl": 0.0, "mi": 0.0, "au": 0, "samples": 1}
GRAMMAR = {"model": "true grammar", "iw": -12.0, "ppl_iw": 5.25, "mi": 1.5, "mi_max": 1.6}


def test_table_in_full():
    table = compare([LM, VAE, {**GRAMMAR, "elbo": None}]).splitlines()
    assert table[:5] == [
        "| model        |  z | PPL (ELBO) | PPL (IW) |     rec |    ELBO |      IW |   KL |   MI "
        "| AU | shuffle gap |",
        "|--------------|---:|-----------:|---------:|--------:|--------:|--------:|-----:|-----:"
        "|---:|------------:|",
        "| lstm-lm      |  – |      64.30 |    62.50 | -327.00 | -332.50 | -330.25 |    – |    – "
        "|  – |           – |",
        "| vae          | 32 |      64.30 |    62.50 | -327.00 | -332.50 | -330.25 | 5.50 | 4.98 "
        "| 14 |        3.20 |",
        "| true grammar |  – |          – |     5.25 |       – |       – |  -12.00 |    – | 1.50 "
        "|  – |           – |",
    ]
    assert "IW with K = 200." in table[6]


def test_optional_columns_appear_with_their_first_value():
    assert "BLEU" not in compare([VAE]).splitlines()[0]
    assert "BLEU" in compare([VAE, {**VAE, "bleu": 0.1}]).splitlines()[0]


def test_small_negative_numbers_are_plain_zeros():
    assert "-0.00" not in compare([{**VAE, "shuffle_gap": -0.001, "mi": -1e-9}])


def test_refined_cards_show_the_encoder_in_brackets():
    refined = {**VAE, "au": 32, "encoder_au": 11, "encoder_mi": 3.0, "encoder_kl": 0.0}
    table = compare([refined])
    assert "| 5.50 (0.00) | 4.98 (3.00) | 32 (11) |" in table
    assert "before refinement" in table
    (line,) = (line for line in str(Card(refined)).splitlines() if line.startswith("AU  "))
    assert line.split() == ["AU", "32", "11", "dimensions"]


def test_cards_for_different_texts_are_reported_as_not_comparable():
    assert "Not comparable" not in compare([VAE, GRAMMAR])
    assert "Not comparable" in compare([VAE, {**VAE, "units": 5}])


def test_a_bar_in_a_name_does_not_break_the_table():
    assert r"a\|b" in compare([{**VAE, "model": "a|b"}])


def test_nothing_to_compare():
    with pytest.raises(UserError, match="nothing to compare"):
        compare([])


def test_card_comes_back_from_a_run_folder(tmp_path):
    card = {key: value for key, value in VAE.items() if key != "model"}
    path = save_card(tmp_path / "skip", "test", {**card, "kl_per_dim": [0.5, math.nan]})
    assert path == tmp_path / "skip" / "metrics" / "test.json"
    assert [p.name for p in path.parent.iterdir()] == ["test.json"]
    found = find_card(tmp_path / "skip")
    assert found == {**card, "kl_per_dim": [0.5, None], "model": "skip"}
    assert ["KL", "5.50", "nats per example"] in json.loads(path.read_text())["summary"]
    assert compare([tmp_path / "skip"]) == compare([found])


def test_infinite_numbers_become_null(tmp_path):
    path = save_card(tmp_path, "valid", {"ppl_elbo": math.inf, "elbo": -math.inf, "rec": -1.5})
    saved = json.loads(path.read_text())
    assert saved.pop("summary") == [["rec", "-1.50", "nats per example"]]
    assert saved == {"ppl_elbo": None, "elbo": None, "rec": -1.5}


def test_card_from_a_file(tmp_path):
    path = tmp_path / "grammar.json"
    path.write_text(json.dumps(GRAMMAR))
    assert find_card(path) == load_card(path) == GRAMMAR
    path.write_text(json.dumps({"iw": -1.0}))
    assert load_card(path)["model"] == "grammar"


def test_missing_cards_name_the_command_that_creates_them(tmp_path):
    with pytest.raises(UserError, match="no such run folder"):
        find_card(tmp_path / "nothing")
    with pytest.raises(UserError, match="is not a run folder"):
        find_card(tmp_path)
    (tmp_path / "config.yaml").touch()
    with pytest.raises(UserError, match=rf"textvae evaluate {tmp_path} --split valid"):
        find_card(tmp_path, "valid")
    with pytest.raises(UserError, match="there is no metrics card"):
        load_card(tmp_path / "nothing.json")


def test_another_file_is_no_card(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(UserError, match=r"not a run folder, a metrics card \(.json\), or a list"):
        compare([tmp_path / "notes.txt"])


def test_all_runs_without_a_card_are_named_at_once(tmp_path):
    runs = [tmp_path / name for name in "abc"]
    for run in runs:
        run.mkdir()
        (run / "config.yaml").touch()
    (runs[0] / "metrics").mkdir()
    (runs[0] / "metrics" / "test.json").write_text(json.dumps(VAE))
    with pytest.raises(UserError, match=r"2 of 3 runs have no metrics for 'test': \S*b, \S*c; cre"):
        compare(runs)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "JSON"),
        ("[1]", "a JSON object"),
        ('{"elbo": "-3"}', "elbo must be a finite number"),
        ('{"elbo": NaN}', "elbo must be a finite number"),
        ('{"au": true}', "au must be a finite number"),
    ],
)
def test_broken_cards_say_what_is_wrong_and_what_to_do(tmp_path, text, why):
    path = save_card(tmp_path, "test", {})
    path.write_text(text)
    with pytest.raises(UserError, match=why) as error:
        find_card(tmp_path)
    assert f"textvae evaluate {tmp_path} --split test" in str(error.value)
    assert str(path) in str(error.value)


ROWS = """
- {model: LM (a paper), latent_dim: 0, elbo: -101.0, ppl_iw: 100.5, source: a paper}
- {model: VAE (a paper), latent_dim: 32, elbo: -102.5, kl: 6.5, source: a paper}
"""


def test_published_rows_are_a_list_in_a_yaml_file(tmp_path):
    path = tmp_path / "published.yaml"
    path.write_text(ROWS)
    assert [card["model"] for card in load_cards(path)] == ["LM (a paper)", "VAE (a paper)"]
    lines = compare([path, VAE]).splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:5]] == [
        "LM (a paper)",
        "VAE (a paper)",
        "vae",
    ]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("model: {a: 1}", "is a list of metrics cards"),
        ("[]", "is a list of metrics cards"),
        ("- {elbo: 1", "cannot be read as YAML"),
        ("- {model: a, elbo: -1}\n- 3", "row 2 is not a mapping of metrics"),
        ("- {model: a, elbo: -1,095.5}", "95.5 is not the name of a metric"),
        ("- {model: a, elbo: -1, klx: 3}", "row 1 has an unknown metric 'klx'"),
        ("- {model: a, kl: 5, kl_spread: -2}", "row 1 has an unknown metric 'kl_spread'"),
        ("- {elbo: -1}", "row 1 has no model"),
        ("- {kl: 1}", "row 1 has no model"),
        ("- {model: a, elbo: x}", "row 1 is not a metrics card: elbo must be a finite number"),
    ],
)
def test_broken_published_rows_say_which(tmp_path, text, why):
    path = tmp_path / "published.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=why):
        compare([path])
    with pytest.raises(UserError, match="cannot be read"):
        compare([tmp_path / "nothing.yaml"])


def seeds(tmp_path, cards, **options):
    runs = []
    for seed, card in enumerate(cards):
        run = tmp_path / (f"vae-seed-{seed}" if seed else "vae")
        unnamed = Card.of(card)
        del unnamed["model"]
        save_card(run, "test", unnamed)
        Config(train=TrainConfig(seed=seed, **options)).save(run / "config.yaml")
        runs.append(run)
    return runs


def test_runs_that_differ_in_their_seed_are_averaged(tmp_path):
    runs = seeds(tmp_path, [VAE, {**VAE, "mi": 5.98, "bleu": 0.1}, {**VAE, "mi": 6.98, "au": 17}])
    table = compare([*runs, LM], average_seeds=True)
    row = [cell.strip() for cell in table.splitlines()[2].split("|")]
    header = [cell.strip() for cell in table.splitlines()[0].split("|")]
    shown = dict(zip(header, row, strict=True))
    assert shown["model"] == "vae (3 seeds)"
    assert shown["MI"] == "5.98 ± 1.00"
    assert shown["AU"] == "15.0 ± 1.7"
    assert shown["PPL (IW)"] == "62.50 ± 0.00"
    assert len(table.splitlines()[2:4]) == 2 and "lstm-lm" in table.splitlines()[3]
    assert "standard deviation over seeds" in table
    assert len(compare(runs).splitlines()) == 2 + compare([runs[0]]).count("\n")


def test_seeds_are_those_of_the_same_data_wherever_it_is(tmp_path):
    runs = seeds(tmp_path, [VAE, VAE, VAE])
    for seed, (run, place) in enumerate(zip(runs, ("data", "/data", "other"), strict=True)):
        data = DataConfig(dir=place, cache_dir=f"cache{seed}")
        Config(data=data, train=TrainConfig(seed=seed, threads=seed + 1)).save(run / "config.yaml")
    assert len(gather(runs, average_seeds=True)) == 3  # the data is not known to be the same
    for run, content in zip(runs, "aab", strict=True):
        (run / "versions.json").write_text(json.dumps({"corpus_hash": content}))
    averaged = gather(runs, average_seeds=True)
    assert [card["model"] for card in averaged] == ["vae (2 seeds)", "vae-seed-2"]


def test_a_card_is_of_earlier_weights_only_if_there_are_others(tmp_path, caplog):
    run = seeds(tmp_path, [{**VAE, "weights": "abc"}])[0]
    assert not find_card(run).get("stale")  # there are none
    (run / "model.safetensors").write_bytes(b"other")
    assert find_card(run)["stale"]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("test", ["--split", "test"]),
        ("valid-refine3", ["--split", "valid", "--refine-steps", "3"]),
        ("test-refine3-limit10", ["--split", "test", "--refine-steps", "3", "--limit", "10"]),
        ("test-limit5", ["--split", "test", "--limit", "5"]),
        ("more.txt", None),
    ],
)
def test_the_options_of_a_card_are_in_its_name(name, options):
    assert options_of(name) == options


def test_what_is_no_metric_is_not_that_of_the_first_seed():
    first = {**VAE, "r2": 0.3, "r2_interval": [0.2, 0.4], "kl_per_dim": [1.0, 0.0], "seed": 0}
    second = {**VAE, "r2": 0.9, "r2_interval": [0.8, 0.95], "kl_per_dim": [0.0, 3.0], "seed": 0}
    averaged = average_cards([first, {**second, "collapse": "posterior collapse"}])
    assert averaged["r2"] == pytest.approx(0.6) and averaged["seed"] == 0
    assert not {"r2_interval", "kl_per_dim", "collapse"} & averaged.keys()


def test_a_run_given_twice_is_not_two_seeds(tmp_path):
    run = seeds(tmp_path, [VAE])[0]
    with pytest.raises(UserError, match="the same experiment with the same seed 0"):
        compare([run, f"{run}/../vae"], average_seeds=True)
    with pytest.raises(UserError, match="the same experiment with the same seed 0"):
        compare([run, run], average_seeds=True)


def test_a_card_without_a_name_is_a_row():
    nameless = {key: value for key, value in VAE.items() if key != "model"}
    for average_seeds in (False, True):
        assert compare([nameless], average_seeds=average_seeds).splitlines()[2].startswith("| –")


def test_only_runs_of_one_experiment_are_averaged(tmp_path):
    runs = seeds(tmp_path / "a", [VAE]) + seeds(tmp_path / "b", [VAE], epochs=3)
    assert compare(runs, average_seeds=True) == compare(runs)
    runs = seeds(tmp_path / "c", [VAE, {**VAE, "samples": 500}])
    with pytest.raises(UserError, match="different values of K"):
        compare(runs, average_seeds=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"corpus_hash": "b"}, "different data"),
        ({"precision": "bf16"}, "different precisions"),
        ({"refine_steps": 5}, "different values of refinement steps"),
    ],
)
def test_seeds_that_were_evaluated_in_different_ways_are_not_averaged(change, message):
    card = {**VAE, "corpus_hash": "a", "precision": "fp32", "refine_steps": 4}
    assert average_cards([card, card])["model"] == "vae (2 seeds)"
    with pytest.raises(UserError, match=message):
        average_cards([card, {**card, **change}])


def test_a_mean_over_some_of_the_seeds_is_none():
    averaged = average_cards([{**VAE, "bleu": 0.1, "stale": False}, {**VAE, "stale": True}])
    assert averaged["bleu"] is None and "bleu_spread" not in averaged
    assert averaged["stale"] is True


def test_the_rate_distortion_plot_has_every_model_once(tmp_path):
    published = tmp_path / "published.yaml"
    published.write_text(ROWS)
    names = ["lstm-lm", "vae", "LM (a paper)", "VAE (a paper)"]
    axes = rate_distortion([LM, VAE, *load_cards(published)]).axes[0]
    texts = [text.get_text() for text in axes.get_legend().get_texts()]
    assert sorted(texts) == sorted(["lines of equal ELBO", *names])
    points = {
        container.get_label(): container.lines[0].get_xydata()[0].tolist()
        for container in axes.containers
    }
    assert points == {"vae": [5.5, 327.0], "VAE (a paper)": [6.5, 96.0]}
    for suffix in ("svg", "png", "pdf"):
        path = tmp_path / f"plot.{suffix}"
        draw_rate_distortion([LM, VAE, published], path)
        assert path.stat().st_size > 1000


def test_rate_and_distortion_follow_from_two_of_the_three():
    for card in ({"rec": -10, "kl": 2}, {"rec": -10, "elbo": -12}, {"kl": 2, "elbo": -12}):
        assert point_of(card) == (2, 10)
    assert point_of({"latent_dim": 0, "elbo": -12}) == (0, 12)
    assert point_of({"elbo": -12}) is point_of({"kl": 2}) is None


def test_the_plot_makes_room_for_every_point_and_shows_names_as_they_are(tmp_path, caplog):
    names = ["$\\foo$", "_hidden", "a\x1bb", "–"]
    kls = (-0.0003, -2.0, 5.0, 3.0)
    cards = [{**VAE, "model": n, "kl": k} for n, k in zip(names, kls, strict=True)]
    cards[2]["kl_spread"] = 4.0
    cards.append({"model": "no rec", "ppl_iw": 3.0})
    axes = rate_distortion(cards).axes[0]
    assert axes.get_xlim()[0] < -2 and axes.get_xlim()[1] > 9
    texts = [text.get_text() for text in axes.get_legend().get_texts()]
    assert texts[1:] == ["\\$\\foo\\$", " _hidden", "a?b", "–"]
    assert "not drawn, because rec or KL is missing: no rec" in caplog.text
    draw_rate_distortion(cards[:1], tmp_path / "one.svg")


def test_any_two_metrics_against_each_other(tmp_path, caplog):
    averaged = {**VAE, "model": "seeds", "mi": 2.0, "mi_spread": 0.5, "ppl_iw": 60.0}
    bare = {"model": "bare", "latent_dim": 2, "ppl_iw": 9.0}
    cards = [LM, {**VAE, "mi": 3.0, "ppl_iw": 50.0}, averaged, bare]
    axes = scatter(cards, "mi", "ppl_iw").axes[0]
    points = {
        container.get_label(): container.lines[0].get_xydata()[0].tolist()
        for container in axes.containers
    }
    assert points == {"vae": [3.0, 50.0], "seeds": [2.0, 60.0]}
    (bars,) = axes.containers[1].lines[2]
    assert np.allclose(bars.get_segments()[0], [[1.5, 60.0], [2.5, 60.0]])
    (line,) = [line for line in axes.lines if line.get_label() == "lstm-lm"]
    assert set(line.get_ydata()) == {LM["ppl_iw"]}  # all across: it has no mutual information
    assert "not drawn, because mi or ppl_iw is missing: bare" in caplog.text
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("MI, nats", "PPL (IW), per word")
    draw_metrics(cards, tmp_path / "plot.svg", "ppl_iw", "mi")
    assert (tmp_path / "plot.svg").stat().st_size > 1000
    with pytest.raises(UserError, match="there is no metric 'mutual'"):
        scatter(cards, "mutual", "kl")
    with pytest.raises(UserError, match="nothing to draw: no model has both mi and kl"):
        scatter([LM], "mi", "kl")
    with pytest.raises(UserError, match=r"both iw_gain and mi \(iw_gain needs --baseline RUN\)"):
        scatter([VAE], "iw_gain", "mi")


def test_notes_are_about_the_columns_that_are_shown():
    assert compare([VAE], columns=["kl"]).splitlines()[-1] == "KL: nats per example."
    table = compare([VAE], columns=["ppl_iw", "au"])
    assert "IW with K = " in table and "AU: " in table and "MI is at most" not in table


def test_models_that_a_table_shows_as_equal_look_equal():
    cards = [{**VAE, "mi": -0.0002}, {**VAE, "model": "other", "mi": -0.0001}]
    axes = scatter(cards, "mi", "ppl_iw").axes[0]
    low, high = axes.get_xlim()
    assert high - low == pytest.approx(0.1) and low < -0.04 and high > 0.04


def test_a_rate_distortion_plot_that_cannot_be_drawn_is_one_line(tmp_path):
    with pytest.raises(UserError, match="a model with a latent variable"):
        draw_rate_distortion([LM], tmp_path / "plot.svg")
    with pytest.raises(UserError, match="a model with a latent variable"):
        rate_distortion([GRAMMAR])
    with pytest.raises(UserError, match=r"plots are written as \.svg, \.png, \.pdf"):
        draw_rate_distortion([VAE], tmp_path / "plot.jpg")


def test_a_notebook_shows_a_card_as_print_does():
    shown: list[str] = []
    Card(VAE)._repr_pretty_(SimpleNamespace(text=shown.append), False)
    assert shown == [str(Card(VAE))]


def test_a_card_prints_its_figures_with_units_and_what_they_are_based_on():
    text = str(Card({**VAE, "collapse": "the decoder ignores z", "bleu": 0.25}))
    lines = [" ".join(line.split()) for line in text.splitlines()]
    for line in (
        "PPL (IW) 62.50 per word, counting the end of the sentence as a word",
        "rec -327.00 nats per example",
        "ELBO -332.50 nats per example",
        "IW -330.25 nats per example",
        "KL 5.50 nats per example",
        "MI 4.98 ± 0.01 nats",
        "BLEU 0.250 fraction",
        "10,000 examples, 798,673 words and ends of sentence, 798,673 predicted symbols",
        "rec - KL = ELBO <= IW (K = 200) <= log p(x)",
        "warning: the decoder ignores z",
    ):
        assert line in lines
    assert "14 of 32 dimensions active" in text
    assert "MI is at most 9.21" in text
    assert "estimated" not in text


def test_an_estimated_kl_is_labeled_as_estimated():
    card = {**VAE, "kl_estimated": True}
    assert "KL estimated from samples of z" in str(Card(card))
    assert "KL estimated from samples of z: vae." in compare([card, {**VAE, "model": "other"}])
    assert "estimated" not in compare([VAE])


def test_a_card_is_a_dictionary_that_json_writes():
    assert json.loads(json.dumps(Card(VAE))) == VAE == dict(Card(VAE))


def test_sparse_cards_can_be_shown():
    assert "5.25" in str(Card(GRAMMAR))
    assert "no latent" not in str(Card(GRAMMAR))
    assert "no latent" in str(Card(LM)) and "KL" not in str(Card(LM))
    assert str(Card())


def test_the_ceiling_of_the_mi_is_that_of_the_rows_that_have_one():
    published = {**VAE, "model": "published"}
    del published["mi_max"]
    assert "MI is at most 9.21." in compare([VAE, {**VAE, "model": "other"}])
    assert "MI of vae is at most 9.21." in compare([VAE, published])


def test_an_order_that_the_draws_do_not_keep_is_said_to_hold_on_average():
    assert "on average" not in str(Card(VAE))
    assert "log p(x), on average over all draws" in str(Card({**VAE, "iw": VAE["elbo"] - 0.1}))


def test_runs_may_come_from_a_generator(tmp_path):
    save_card(tmp_path / "vae", "test", Card(VAE))
    assert "| vae" in compare(tmp_path.glob("vae"))


def with_bounds(bounds, **figures) -> Card:
    card = Card({**VAE, "iw": float(torch.tensor(bounds).mean()), "corpus_hash": "c", **figures})
    card.iw_by_example = torch.tensor(bounds)
    return card


def gain_of(table: str, model: str) -> str:
    header, _, *rows = [
        [cell.strip() for cell in line.split("|")] for line in table.splitlines() if "|" in line
    ]
    (row,) = (row for row in rows if row[1] == model)
    return row[header.index("IW gain")]


def test_gain_over_a_baseline_is_that_of_single_examples():
    """Bounds that differ by 40 nats between examples, and by 0.5 to 1.5 between the models."""
    bounds = torch.linspace(-120, -80, 100)
    gains = torch.linspace(0.5, 1.5, 100)
    lm, vae = (
        with_bounds(each.tolist(), model=name)
        for name, each in (("lm", bounds), ("vae", bounds + gains))
    )
    table = compare([lm, vae], baseline=lm)
    half = 1.984 * float(gains.std()) / 10  # of the t interval of the mean of 100 differences
    value, low, high = (float(part.strip("[],")) for part in gain_of(table, "vae").split())
    assert value == 1.0 and low == pytest.approx(1 - half, abs=0.015)
    assert high == pytest.approx(1 + half, abs=0.015)
    assert gain_of(table, "lm") == "–"
    assert "IW gain: IW minus that of lm on the same examples" in table
    assert "IW gain" not in compare([lm, vae])
    header = compare([lm, vae], baseline=lm, columns=["ppl_iw"]).partition("\n")[0]
    assert [cell.strip() for cell in header.strip("|").split("|")][1:] == ["PPL (IW)", "IW gain"]
    assert gain_of(compare([lm, vae], baseline=vae), "lm").startswith("-1.00 [-1.0")


def test_gain_of_runs_comes_from_their_folders(tmp_path):
    bounds = {"lm": [-9.0, -5.0, -7.0], "vae": [-8.5, -4.0, -6.5]}
    for name, each in bounds.items():
        save_card(tmp_path / name, "test", with_bounds(each, model=name))
    runs = [tmp_path / name for name in bounds]
    assert gain_of(compare(runs, baseline=runs[0]), "vae").startswith("0.67 [")
    assert gain_of(compare(runs[1:], baseline=runs[0]), "vae").startswith("0.67 [")  # not a row
    # A card that was written without its bounds, such as on a full disk, has other bounds than
    # those that lie next to it.
    save_card(runs[1], "test", {**with_bounds([-8.0, -4.0, -6.5]), "model": "vae"})
    assert "IW gain" not in compare(runs, baseline=runs[0])


def test_gain_needs_the_bounds_of_the_same_examples(tmp_path, caplog):
    lm = with_bounds([-9.0, -5.0], model="lm", corpus_hash="a")
    other = with_bounds([-9.0, -5.0], model="vae", corpus_hash="b")
    assert "IW gain" not in compare([lm, other], baseline=lm)
    assert "no IW gain for vae: it was evaluated on other examples than lm" in caplog.text
    caplog.clear()
    compare([lm, {**other, "corpus_hash": "a"}, {**VAE, "source": "a paper"}], baseline=lm)
    assert caplog.messages == [
        "no IW gain for vae: it has no bounds of single examples; give its run folder, or evaluate "
        "it again with textvae evaluate"
    ]
    with pytest.raises(UserError, match="lm cannot be the baseline, because it has no bounds"):
        compare([lm], baseline=LM)
    save_card(tmp_path, "test", lm)
    (tmp_path / "metrics" / "test-iw.safetensors").write_bytes(b"cut off")
    with pytest.raises(UserError, match="cannot be the baseline"):
        compare([tmp_path], baseline=tmp_path)
    assert "test-iw.safetensors is damaged" in caplog.text


def test_gains_over_other_baselines_are_named_or_left_out(tmp_path):
    lm, vae, skip = (
        with_bounds(bounds, model=name)
        for name, bounds in (("lm", [-9.0, -5.0]), ("vae", [-8.0, -4.0]), ("skip", [-7.0, -4.0]))
    )
    (over_lm,), (over_vae,) = (gather([skip], baseline=baseline) for baseline in (lm, vae))
    for name, card in (("a", over_lm), ("b", over_vae)):
        (tmp_path / f"{name}.json").write_text(as_json(card))
    paths = [tmp_path / "a.json", tmp_path / "b.json"]
    assert "IW gain: IW minus that of lm / vae" in compare(paths)
    table = compare([tmp_path / "b.json", vae], baseline=lm)
    assert gain_of(table, "skip") == "–" and "minus that of lm on" in table
    (tmp_path / "a.json").write_text('{"model": "x", "iw_gain": 1.0}')
    assert gain_of(compare(paths[:1]), "x") == "1.00"
    (tmp_path / "a.json").write_text('{"model": "x", "iw_gain": 1.0, "iw_gain_interval": "ab"}')
    with pytest.raises(UserError, match="iw_gain_interval must be two numbers"):
        compare(paths[:1])


def test_a_baseline_that_is_no_row(tmp_path):
    for parent in ("a", "b"):
        save_card(
            tmp_path / parent / "lm", "test", with_bounds([-9.0, -5.0], model="lm", weights="w")
        )
        (tmp_path / parent / "lm" / "model.safetensors").write_bytes(b"other weights")
    save_card(tmp_path / "vae", "test-refine3", with_bounds([-8.0, -4.0], model="vae, 3 steps"))
    table = compare([tmp_path / "a" / "lm"], baseline=tmp_path / "b" / "lm")
    assert f"minus that of {tmp_path}/b/lm (from earlier weights) on" in table
    refined = compare([tmp_path / "vae"], "test-refine3", baseline=tmp_path / "a" / "lm")
    assert gain_of(refined, "vae, 3 steps").startswith("1.00 [")
    for wrong in ("", tmp_path / "a" / "lm" / "metrics" / "test.json"):
        with pytest.raises(UserError, match="must be a run folder, which has the bounds"):
            compare([tmp_path / "vae"], "test-refine3", baseline=wrong)
    with pytest.raises(UserError, match="there is no such run folder"):
        compare([tmp_path / "vae"], "test-refine3", baseline=tmp_path / "nothing")


@pytest.mark.parametrize("bounds", [torch.zeros(2, 1), torch.tensor([1.0, math.nan])])
def test_bounds_that_are_no_list_of_numbers_are_damaged(tmp_path, caplog, bounds):
    card = with_bounds([-9.0, -5.0], model="lm")
    save_bounds(tmp_path, "test", card, bounds)
    assert read_bounds(tmp_path, "test", card) is None
    assert "test-iw.safetensors is damaged" in caplog.text


def test_gain_of_several_seeds_is_that_of_their_mean():
    first, second = with_bounds([-9.0, -5.0]), with_bounds([-8.0, -4.0])
    assert average_cards([first, second]).iw_by_example.tolist() == [-8.5, -4.5]
    assert average_cards([first, Card(VAE | {"corpus_hash": "c"})]).iw_by_example is None


def test_a_baseline_may_have_several_seeds(tmp_path):
    lms = seeds(tmp_path / "lm", [with_bounds([-9.0, -5.0]), with_bounds([-8.0, -4.0])])
    vaes = seeds(tmp_path / "vae", [with_bounds([-7.0, -4.0]), with_bounds([-6.0, -2.0])], epochs=3)
    options = {"average_seeds": True, "baseline": lms[1]}
    table = compare([*lms, *vaes], **options)
    names = [line.split("|")[1].strip() for line in table.splitlines()[2:4]]
    assert names == [f"{tmp_path}/{parent}/vae (2 seeds)" for parent in ("lm", "vae")]
    assert "1.75 ± 1.27 |" in table.splitlines()[3] and "1.75" not in table.splitlines()[2]
    assert "interval" not in table  # one over examples says nothing about other seeds


def test_evaluating_saves_the_bounds_of_the_examples(trained, language_model, tmp_path, capfd):
    runs = [str(shutil.copytree(run, tmp_path / run.name)) for run in (language_model, trained)]
    for run in runs:
        assert main(["evaluate", run, "--samples", "3", "--generations", "0"]) == 0
    capfd.readouterr()
    assert main(["compare", *runs, "--baseline", runs[0], "--json"]) == 0
    lm, vae = json.loads(capfd.readouterr().out)
    assert vae["iw_gain"] == pytest.approx(vae["iw"] - lm["iw"], abs=1e-4)
    low, high = vae["iw_gain_interval"]
    assert low < vae["iw_gain"] < high and "iw_gain" not in lm


def test_json_has_no_infinity():
    assert json.loads(as_json(Card({**VAE, "ppl_iw": math.inf})))["ppl_iw"] is None


def test_meaningless_figures_are_not_shown():
    images = {**VAE, "ppl_elbo": None, "ppl_iw": None, "units": 0, "bits_per_dim_iw": 0.1234}
    images |= {"ppl_token_elbo": None, "ppl_token_iw": None}
    for text in (str(Card(images)), compare([images])):
        assert "PPL" not in text and "sentence" not in text
        assert "0.1234" in text
    assert "bits/dim" not in str(Card(VAE)) + compare([VAE])


def test_the_accuracy_of_other_weights_is_left_out(tmp_path, caplog):
    save_card(tmp_path, "test", {**VAE, "weights": "now"})
    for weights, shown in (("now", True), (None, True), ("before", False)):
        save_card(tmp_path, "test-probe", {"model": "vae", "accuracy": 0.5, "weights": weights})
        caplog.clear()
        assert ("accuracy" in find_card(tmp_path)) == shown
        assert ("is that of other weights" in caplog.text) != shown


def test_runs_of_the_same_name_are_told_apart_by_their_path(tmp_path):
    for parent in ("a", "b"):
        (tmp_path / parent / "vae" / "metrics").mkdir(parents=True)
        save_card(tmp_path / parent / "vae", "test", Card(VAE))
    paths = [tmp_path / parent / "vae" for parent in ("a", "b")]
    table = compare([*paths, {**VAE, "model": "lm"}])
    assert all(f"| {path} " in table for path in paths) and "| lm " in table
    assert "| vae " in compare(paths[:1])
    moved = paths[1].rename(tmp_path / "b" / "va")
    assert f"| {moved} (vae) " in compare([paths[0], moved])


def test_folders_that_are_not_runs_are_left_out(trained, tmp_path, capfd, caplog):
    shutil.copytree(trained, tmp_path / "run")
    save_card(tmp_path / "run", "test", VAE)
    (tmp_path / "corpus").mkdir()
    folders = [str(tmp_path / name) for name in ("corpus", "run")]
    assert main(["compare", *folders]) == 0
    assert "| vae" in capfd.readouterr().out and f"not run folders: {folders[0]}" in caplog.text
    assert main(["compare", folders[1], "--json"]) == 0
    assert json.loads(capfd.readouterr().out)[0]["ppl_iw"] == VAE["ppl_iw"]
    assert main(["compare", folders[1], "--json", "--provenance"]) == 2
    assert main(["compare", str(tmp_path), "--columns", "ppl_iw"]) == 0  # a folder of runs
    assert "| vae" in capfd.readouterr().out
    assert main(["compare", str(tmp_path / "corpus")]) == 2
    assert main(["diagnose", str(tmp_path)]) == 2
    assert f"give a folder inside it, such as {folders[1]}" in capfd.readouterr().err
    (tmp_path / "run" / "config.yaml").unlink()
    assert main(["evaluate", folders[1]]) == 2
    assert (
        "only a saved model: evaluate, diagnose, bounds, explain, map, and neighbors can"
        in capfd.readouterr().err
    )


def test_a_table_is_aligned_and_its_bars_are_escaped():
    assert markdown_table([("name", "n"), ("a|b", "10"), ("c", "9")], right=[1]).splitlines() == [
        "| name |  n |",
        "|------|---:|",
        r"| a\|b | 10 |",
        "| c    |  9 |",
    ]


def test_a_mean_over_some_of_the_seeds_is_left_out():
    cards = [{**VAE, "bleu": 0.1}, {**VAE, "bleu": 0.3}, {**VAE, "bleu": None}]
    assert average_cards(cards)["bleu"] is None


def test_a_gain_between_bounds_of_other_samples_has_a_warning(caplog):
    cards = [
        with_bounds([-9.0, -5.0], model="a", latent_dim=2, samples=50),
        with_bounds([-8.0, -4.0], model="b", latent_dim=2, samples=200),
        with_bounds([-8.0, -4.0], model="lm", latent_dim=0, samples=1),
    ]
    add_gains(cards, cards[1])
    assert "IW gain of a over b: the bounds have K = 50 and K = 200" in caplog.text
    assert "lm over" not in caplog.text  # its bound is exact
    caplog.clear()
    add_gains(cards[:2], cards[2])
    assert not caplog.text


def test_with_two_language_models_there_is_no_gain():
    bounds = [-9.0, -5.0], [-8.0, -4.0], [-7.0, -4.0]
    cards = [
        with_bounds(values, **card) for values, card in zip(bounds, (LM, LM, VAE), strict=True)
    ]
    add_gains_over_language_model(cards)
    assert not any("iw_gain" in card for card in cards)
    add_gains_over_language_model(cards[1:])
    assert cards[2]["iw_gain"] == 0.5


def runs_of_a_sweep(tmp_path) -> list[Path]:
    """Two sizes with two seeds, and a language model."""
    runs = []
    for size in (8, 32):
        for seed in (0, 1):
            run = tmp_path / f"vae-{size}-{seed}"
            config = Config(model=ModelConfig(latent_dim=size), train=TrainConfig(seed=seed))
            save_card(
                run, "test", Card({**VAE, "model": None, "seed": 0, "kl": float(size + seed)})
            )
            config.save(run / "config.yaml")
            runs.append(run)
    save_card(tmp_path / "lm", "test", Card({**LM, "model": None}))
    Config(model=ModelConfig(latent_dim=0, injection="none")).save(tmp_path / "lm" / "config.yaml")
    return [*runs, tmp_path / "lm"]


def test_results_are_flat_records_with_seeds_and_differing_options(tmp_path):
    runs = runs_of_a_sweep(tmp_path)
    (tmp_path / "corpus").mkdir()
    records = textvae.results(tmp_path)  # the folder of the runs, in the order of their names
    assert [Path(each["run"]).name for each in records] == sorted(run.name for run in runs)
    assert len({tuple(each) for each in records}) == 1
    lm, *vaes = records
    assert [(each["seed"], each["model.latent_dim"], each["kl"]) for each in vaes] == [
        *((0, 32, 32.0), (1, 32, 33.0), (0, 8, 8.0), (1, 8, 9.0))
    ]
    assert lm["model.injection"] == "none" and "model.embedding_dim" not in lm
    assert "train.seed" not in lm and not any(isinstance(v, dict | list) for v in lm.values())
    assert [each["kl"] for each in textvae.results(runs[:2])] == [8.0, 9.0]
    assert "model.latent_dim" not in textvae.results(runs[:2])[0]
    with pytest.raises(UserError, match="there are no runs"):
        textvae.results([])
    with pytest.raises(TypeError, match="a folder or a list of folders, not 3"):
        textvae.results(3)


def test_the_csv_of_a_comparison(tmp_path, capsys):
    runs = [str(run) for run in runs_of_a_sweep(tmp_path)]
    assert main(["compare", *runs, "--format", "csv", "--columns", "kl", "ppl_iw"]) == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [row["run"] for row in rows] == runs and {row["ppl_iw"] for row in rows} == {"62.5"}
    assert "mi" not in rows[0] and rows[2]["model.latent_dim"] == "32"
    for options, message in (
        (["--average-seeds"], "a row for every run"),
        (["--json"], "--json, --format csv: cannot be combined"),
        (["--format", "markdown", "--json", "--columns", "kl"], "--columns has no effect with"),
        (["--columns", "pl_iw"], "there is no metric 'pl_iw'; did you mean ppl_iw?"),
    ):
        assert main(["compare", *runs, "--format", "csv", *options]) == 2
        assert message in capsys.readouterr().err
    card = tmp_path / "card.json"
    card.write_text(json.dumps(VAE))
    assert main(["compare", *runs, str(card), "--format", "csv"]) == 2
    assert "not a run folder" in capsys.readouterr().err


def test_a_table_in_latex(tmp_path):
    cards = [{**VAE, "model": "skip_vae & 50%", "mi": 1.0}, {**VAE, "mi": 3.0, "rec": -0.5}, LM]
    table = compare(cards, columns=["rec", "mi", "accuracy"], latex=True)
    lines = [line for line in table.splitlines() if not line.startswith("%")]
    assert lines[:2] == [r"\begin{tabular}{lrrr}", r"\toprule"]
    assert lines[2] == r"model & rec & MI & accuracy \% \\"
    assert lines[4].startswith(r"skip\_vae \& 50\% & $-$")
    assert lines[5].endswith(r" & $-$0.50 & 3.00 & -- \\")
    assert lines[6].startswith("lstm-lm & $-$") and lines[6].endswith(r" & -- & -- \\")
    assert lines[-2:] == [r"\bottomrule", r"\end{tabular}"]
    odd = compare([{**VAE, "model": r"a^2{b}~\\c"}], columns=["mi"], latex=True)
    assert r"a\textasciicircum{}2\{b\}\textasciitilde{}\textbackslash{}\textbackslash{}c &" in odd
    runs = seeds(tmp_path, [VAE, {**VAE, "mi": 6.98}])
    assert r" $\pm$ " in compare(runs, columns=["mi"], average_seeds=True, latex=True)


def test_the_columns_of_a_table_are_those_asked_for():
    header = compare([VAE], columns=["mi", "seconds", "ppl_iw"]).splitlines()[0]
    assert [cell.strip() for cell in header.split("|")[1:-1]] == [
        "model",
        "MI",
        "seconds",
        "PPL (IW)",
    ]
    assert compare([VAE], columns="mi") == compare([VAE], columns=["mi"])
    with pytest.raises(UserError, match="did you mean"):
        compare([VAE], columns=["shufle_gap"])


def test_the_plane_has_a_rate_of_0_bars_of_the_spread_and_lines_of_equal_elbo():
    assert rate_distortion([VAE]).axes[0].get_xlim()[0] < 0
    axes = rate_distortion([LM, {**VAE, "kl_spread": 0.5, "rec_spread": 2.0}]).axes[0]
    across, up = (bar.get_segments()[0] for bar in axes.containers[0].lines[2])
    assert (np.ptp(across[:, 0]), np.ptp(up[:, 1])) == pytest.approx((1.0, 4.0))
    assert {line.get_slope() for line in axes.lines if hasattr(line, "get_slope")} == {-1}
    assert axes.texts
    for label in axes.texts:
        assert sum(label.xy) == pytest.approx(-float(label.get_text().replace("−", "-")))
