"""Published figures beside measured ones, and recipes that check themselves."""

import json
import math
import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from conftest import TINY, in_child
from test_sweep import fork_jobs, stats

import textvae
from textvae.cli.main import main
from textvae.errors import UserError
from textvae.evaluation.comparison.lagging import lagging_information
from textvae.evaluation.comparison.published import judge, verdict_table
from textvae.evaluation.comparison.seeds import average_cards
from textvae.evaluation.metrics.card_files import load_cards
from textvae.evaluation.metrics.metric import decimals
from textvae.evaluation.open_run import open_run
from textvae.evaluation.per_example import posteriors

ROOT = Path(__file__).parent.parent
ROW = {"model": "VAE (Somebody 2019)", "stack": "vae", "source": "Somebody 2019", "latent_dim": 32}
ROW |= {"elbo": -100.0, "ppl_iw": 50.0, "kl": 2.0, "au": 10, "mi": 1.5}
ROW["tolerance"] = {"elbo": 1.0, "ppl_iw": 2.0, "kl": 0.5, "au": 0}
CARD = {"model": "vae", "latent_dim": 32, "elbo": -100.5, "ppl_iw": 51.0, "kl": 2.25, "au": 10}


def outcomes(row: dict, card: dict) -> dict[str, str]:
    return {verdict.metric.key: verdict.outcome for verdict in judge(row, card)}


def test_within_its_tolerance_a_figure_is_reproduced():
    found = outcomes(ROW, {**CARD, "mi": 1.5})
    assert found.pop("mi") == "not comparable"  # the row gives no tolerance
    assert set(found.values()) == {"reproduced"} and len(found) == 4
    on_the_edge = {**CARD, "elbo": -101.0, "ppl_iw": 48.0, "kl": 1.5}
    assert outcomes(ROW, on_the_edge)["elbo"] == "reproduced"
    assert outcomes(ROW, on_the_edge)["ppl_iw"] == "reproduced"


@pytest.mark.parametrize(
    ("key", "value", "outcome"),
    [
        ("elbo", -102.0, "worse"),
        ("elbo", -98.0, "better"),
        ("ppl_iw", 53.0, "worse"),
        ("ppl_iw", 47.0, "better"),
        ("au", 9, "worse"),
        ("au", 11, "better"),
        ("kl", 3.0, "different"),
        ("kl", 1.0, "different"),
    ],
)
def test_outside_of_it_the_direction_counts(key, value, outcome):
    assert outcomes(ROW, {**CARD, key: value})[key] == outcome


def test_what_cannot_be_compared_says_why():
    def reasons(row: dict, card: dict) -> dict[str, str]:
        found = judge(row, card)
        return {v.metric.key: v.why for v in found if v.outcome == "not comparable"}

    differs = {**ROW, "differs": {"elbo": "estimated in another way"}}
    assert reasons(differs, CARD)["elbo"] == "estimated in another way"
    assert reasons(ROW, CARD) == {"mi": "not measured here"}
    assert set(reasons(ROW, {}).values()) == {"there is no finished run"}
    assert set(reasons(ROW, {**CARD, "latent_dim": 16}).values()) == {"z: 32 there, 16 here"}
    rows = {**ROW, "count": 5}, {**CARD, "count": 6}
    assert set(reasons(*rows).values()) == {"examples: 5 there, 6 here"}
    words = {**ROW, "units": 5}, {**CARD, "units": 6}
    assert set(reasons(*words).values()) == {"words: 5 there, 6 here"}


def test_the_mean_over_seeds_is_judged():
    seeds = [{**CARD, "elbo": elbo} for elbo in (-98.5, -101.0)]  # one better, one within
    table = verdict_table(judge(ROW, average_cards(seeds)))
    (line,) = [line for line in table.splitlines() if "| ELBO " in line]
    cells = [cell.strip() for cell in line.split("|")[1:-1]]
    assert cells == [ROW["model"], "ELBO", "-100.00", "-99.75 ± 1.77", "1", "reproduced", ""]
    assert table.endswith("Published in Somebody 2019.\n4 reproduced, 1 not comparable.\n")


BROKEN = [
    ({"tolerance": 1.0}, "has a tolerance that is not a mapping"),
    ({"tolerance": {"elbo": -1}}, "has a negative tolerance for 'elbo'"),
    ({"tolerance": {"elbo": "small"}}, "has a tolerance for 'elbo' that is not a number"),
    ({"tolerance": {"iw": 1.0}}, "has a tolerance for 'iw', which is not one of its metrics"),
    ({"differs": {"mi": 3}}, "must say as text how 'mi' differs"),
    ({"differs": ["mi"]}, "has a differs that is not a mapping"),
    ({"tolerence": {}}, "has an unknown metric 'tolerence'; did you mean tolerance?"),
]


@pytest.mark.parametrize(("change", "message"), BROKEN, ids=[m for _, m in BROKEN])
def test_a_wrong_row_is_one_line(change, message, tmp_path):
    path = tmp_path / "published.yaml"
    path.write_text(yaml.safe_dump([{**ROW, **change}]), encoding="utf-8")
    with pytest.raises(UserError, match=f"row 1 {message}"):
        load_cards(path)


@pytest.mark.parametrize("name", ["toy", "ptb"])
def test_the_rows_of_the_recipes(name):
    rows = load_cards(ROOT / "recipes" / name / "published.yaml")
    for row in rows:
        perfect = judge(row, row)
        assert perfect and row["source"]
        for verdict in perfect:
            noted = verdict.metric.key in row.get("differs", {})
            assert verdict.outcome == ("not comparable" if noted else "reproduced")


# the command


@pytest.fixture
def recipes(corpus, tmp_path) -> Path:
    """A folder of recipes with a tiny one, which uses the real scripts."""
    folder = tmp_path / "my recipes"
    (folder / "tiny").mkdir(parents=True)
    shutil.copytree(ROOT / "recipes" / "methods", folder / "methods")
    for script in ("environment.sh", "stages.sh"):
        shutil.copy(ROOT / "recipes" / script, folder)
    words = iter(TINY)
    sections: dict[str, dict] = {}
    for option, value in zip(words, words, strict=True):
        section, _, key = option[2:].partition(".")
        sections.setdefault(section, {})[key] = yaml.safe_load(value)
    (folder / "tiny" / "base.yaml").write_text(yaml.safe_dump(sections), encoding="utf-8")
    prepare = f'name=tiny\nmodels=vae\nprepare() {{ cp -r "{corpus}/." "$prepared"; }}\n'
    script = f'{prepare}. "$(dirname "$0")/../stages.sh"\nmain "$@"\n'
    (folder / "tiny" / "run.sh").write_text(script, encoding="utf-8")
    publish(folder, {"elbo": -1.0, "kl": 0.0, "tolerance": {"elbo": 0.5}})
    return folder


def publish(recipes: Path, *rows: dict) -> None:
    about = {"model": "VAE", "stack": "vae", "source": "nowhere", "samples": 3}
    path = recipes / "tiny" / "published.yaml"
    path.write_text(yaml.safe_dump([{**about, **row} for row in rows]), encoding="utf-8")


def run_reproduce(recipes: Path, out: Path, *options: str) -> int:
    argv = ["reproduce", "tiny", "--recipes", str(recipes), "--out", str(out), *options]
    return in_child(argv, before=fork_jobs)


def test_a_reproduction_checks_itself_and_trains_only_once(recipes, tmp_path, capfd):
    out = tmp_path / "my runs"
    assert run_reproduce(recipes, out) == 1
    said = capfd.readouterr()
    assert "| worse " in said.out and "1 worse, 1 not comparable." in said.out
    assert "stage 1: prepare the corpus" in said.err and "stage 1" not in said.out
    before = stats(out)
    card = json.loads((out / "vae" / "metrics" / "test.json").read_text())
    assert card["samples"] == 3  # as many as published
    figures = {key: card[key] for key in ("elbo", "iw", "kl", "mi", "au")}
    publish(recipes, {**figures, "tolerance": dict.fromkeys(figures, 0.0)})
    assert run_reproduce(recipes, out, "--lagging-compat") == 0
    said = capfd.readouterr()
    assert "5 reproduced." in said.out and "stage 1" not in said.err
    both = f"{decimals(card['mi'])} ± {decimals(card['mi_se'])}"
    estimate = decimals(lagging_information(out / "vae"))
    assert f"| vae | {both} | {estimate} |" in re.sub(" +", " ", said.out)
    assert stats(out) == before and any(name.endswith("state.pt") for name in before)


def test_a_corpus_that_was_left_half_prepared_is_prepared_again(recipes, corpus, tmp_path):
    out = tmp_path / "out"
    (out / "corpus").mkdir(parents=True)
    (out / "corpus" / "train.txt").write_text("0\tonly the beginning\n", encoding="utf-8")
    assert run_reproduce(recipes, out) == 1
    for file in corpus.iterdir():
        assert (out / "corpus" / file.name).read_bytes() == file.read_bytes()


def test_seeds_are_averaged_and_methods_chosen(recipes, tmp_path, capfd):
    lm = {"stack": "lm", "elbo": -1.0, "tolerance": {"elbo": 100.0}}
    publish(recipes, {"elbo": -1.0, "tolerance": {"elbo": 0.5}}, lm)
    methods = ["--methods", "lm", "skip_vae", "--seeds", "2", "--jobs", "2"]
    assert run_reproduce(recipes, tmp_path / "out", *methods) == 0
    said = capfd.readouterr().out
    assert "1 reproduced." in said and " ± " in said
    assert "Without published results: skip_vae." in said


def test_nothing_comparable_is_not_a_success(recipes, tmp_path, capfd):
    publish(recipes, {"elbo": -1.0, "count": 3761, "tolerance": {"elbo": 100.0}})
    assert run_reproduce(recipes, tmp_path / "out") == 1
    said = capfd.readouterr().out
    assert "examples: 3761 there, 20 here" in said and "1 not comparable." in said


MISTAKES = [
    (["nowhere"], "nowhere: no recipe; choose one of tiny"),
    (["tinny"], "did you mean tiny?"),
    (["methods"], "methods has no published.yaml; choose one of tiny"),
    (["tiny", "--methods", "vea"], "there is no vea.yaml in"),
    (["tiny", "--methods", "lm"], "published.yaml has no row for lm"),
    (["tiny", "--seeds", "0"], "--seeds 0: must be above 0"),
]


@pytest.mark.parametrize(("argv", "message"), MISTAKES, ids=[" ".join(a) for a, _ in MISTAKES])
def test_a_mistake_is_one_line(argv, message, recipes, tmp_path, capfd):
    options = ["--recipes", str(recipes), "--out", str(tmp_path / "out")]
    assert main(["reproduce", *argv, *options]) == 2
    said = capfd.readouterr()
    assert message in said.err and len(said.err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_rows_that_are_only_to_compare_with(capfd):
    rows = load_cards(ROOT / "recipes" / "mnist" / "published.yaml")
    assert all(row["source"] and row["iw"] < 0 for row in rows)
    assert main(["reproduce", "mnist", "--data", "nowhere"]) == 2
    assert "its rows are only to compare with" in capfd.readouterr().err


def test_no_recipes_says_where_they_are(tmp_path, capfd):
    assert main(["reproduce", "toy", "--recipes", str(tmp_path)]) == 2
    assert "clone the repository" in capfd.readouterr().err


def test_a_corpus_that_cannot_be_prepared_is_one_line(recipes, tmp_path):
    (recipes / "tiny" / "run.sh").write_text("exit 3\n")
    with pytest.raises(UserError, match="could not prepare the corpus"):
        textvae.reproduce("tiny", recipes=recipes, out=tmp_path / "out")


def test_the_estimate_of_vae_lagging_encoder_is_within_batches_of_one_length(trained):
    opened = open_run(trained)
    split = opened.split("test")
    q = posteriors(opened.model, split)
    z = q.rsample(1, textvae.RowNoise(0, textvae.Purpose.MIXTURE, range(len(split))))[0].double()
    mean, sd = q.mean.double(), q.logvar.double().mul(0.5).exp()
    density = torch.distributions.Normal(mean, sd).log_prob(z[:, None]).sum(-1)  # (N, N)
    total = 0.0
    lengths = torch.as_tensor(split.lengths.copy())
    for length in lengths.unique():
        rows = (lengths == length).nonzero()[:, 0]  # fewer than 32 of each
        block = density[rows][:, rows]
        total += float((block.diagonal() - block.logsumexp(1) + math.log(len(rows))).sum())
    assert lagging_information(trained) == pytest.approx(total / len(split), abs=1e-6)


def test_a_corpus_is_given_where_it_is_needed(tmp_path, capfd):
    for name, options, message in (
        ("toy", ["--data", "nowhere"], "toy makes its own corpus: leave it out"),
        ("ptb", [], "ptb: pass the source of its corpus with --data"),
    ):
        assert main(["reproduce", name, *options, "--out", str(tmp_path / name)]) == 2
        (line,) = capfd.readouterr().err.splitlines()
        assert message in line and not (tmp_path / name).exists()
