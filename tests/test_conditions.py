"""Models conditioned on a label or a number: gradients, invariances, samples, files, errors."""

import json
import math
import random
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import in_child

import textvae
from textvae.cli.main import main, parse
from textvae.config.experiment import Config
from textvae.config.inference import Inference
from textvae.errors import UserError
from textvae.evaluation.evaluate_run import evaluate_run
from textvae.evaluation.open_run import open_run
from textvae.evaluation.per_example import collect
from textvae.evaluation.scoring.score import score_file
from textvae.evaluation.search.optimize import optimize
from textvae.evaluation.shuffle import ring
from textvae.text.data.labels import number_of
from textvae.text.model import TextVAE
from textvae.text.tokenizers import BOS, EOS, PAD, WordTokenizer
from textvae.training.train import train
from textvae.vae.batch import Batch
from textvae.vae.conditioning import add_conditions, codes_of, fit_condition
from textvae.vae.conditions import Classes, Numbers
from textvae.vae.estimators import importance_bound
from textvae.vae.objectives import elbo
from textvae.vae.posteriors import ConstantEncoder, DiagGaussian

WORDS = {
    "food": ["bread", "soup", "rice"],
    "car": ["wheel", "road", "seat"],
    "sky": ["sun", "moon", "star"],
}
LABELS = Classes(("car", "food", "sky"), (2, 1, 1))
OPTIONS = [
    *("--data.tokenized", "true", "--data.batch_size", "32", "--train.threads", "1"),
    *("--train.precision", "fp32", "--train.samples", "2", "--model.dropout_in", "0"),
    *("--model.latent_dim", "4", "--model.embedding_dim", "16", "--model.encoder_hidden", "16"),
    *("--model.decoder_hidden", "16", "--model.dropout_out", "0"),
    *("--optim.name", "adam", "--optim.lr", "0.02", "--train.epochs", "6"),
]


def line(rng: random.Random, label: str) -> str:
    return f"{label}\tthe {rng.choice(WORDS[label])} and the {rng.choice(WORDS[label])}\n"


@pytest.fixture(scope="module")
def labeled(tmp_path_factory) -> Path:
    """A corpus whose label decides which words occur: log p(x|y) = -2 ln 3 for every text."""
    folder, rng = tmp_path_factory.mktemp("labeled"), random.Random(0)
    for split, count in (("train", 600), ("valid", 60), ("test", 60)):
        lines = [line(rng, rng.choice([*WORDS, "car"])) for _ in range(count)]
        (folder / f"{split}.txt").write_text("".join(lines), encoding="utf-8")
    return folder


@pytest.fixture(scope="module", params=["vae", "lm"])
def conditional(request, labeled, tmp_path_factory) -> Path:
    """A trained conditional VAE, and a class-conditional language model."""
    run = tmp_path_factory.mktemp("runs") / request.param
    options = ["--model.condition", "label", "--data.dir", str(labeled)]
    options += ["--model.latent_dim", "0"] if request.param == "lm" else []
    assert in_child(["train", "--out", str(run), *OPTIONS, *options]) == 0
    return run


def test_a_search_under_a_label_is_compared_with_texts_of_that_label(conditional):
    if conditional.name == "lm":
        pytest.skip("there is no z to search")
    label, words = next(iter(WORDS.items()))
    found = optimize(conditional, len, budget=8, method="evolution", condition=label)
    for call in found.calls["training"]:
        assert set(call.text.split()) <= {"the", "and", *words}


def test_a_label_that_the_model_reads_is_not_detected_without_a_word(conditional, labeled, caplog):
    words = ["score", str(conditional), str(labeled / "test.txt"), "--labels", "--positive"]
    words += [next(iter(WORDS)), "--samples", "2", "--regret-steps", "0"]
    assert main(words) == 0
    assert "the model is conditioned on the label that is to be detected" in caplog.text
    caplog.clear()
    assert main([*words, "--condition", next(iter(WORDS))]) == 0
    assert "that is to be detected" not in caplog.text


def build(condition="label", **options) -> TextVAE:
    torch.manual_seed(0)
    tokenizer = WordTokenizer([f"w{i}" for i in range(20)])
    sizes = {"embedding_dim": 8, "encoder_hidden": 8, "decoder_hidden": 8, "condition_dim": 5}
    options = {"latent_dim": 3, "dropout_in": 0.0, "dropout_out": 0.0, "init_scale": 0.5, **options}
    count = {"num_labels": 3} if condition == "label" else {}
    model = TextVAE(len(tokenizer), condition=condition, max_length=10, **sizes, **count, **options)
    model.tokenizer = tokenizer
    if condition == "label":
        model.condition = LABELS
    if condition == "number":
        model.condition = Numbers(5.0, 2.0, (1.0, 5.0, 9.0))
    return model


def batch(lengths=(4, 6, 3), condition=(0, 1, 2), columns=None) -> Batch:
    generator = torch.Generator().manual_seed(1)
    x = torch.full((len(lengths), (columns or max(lengths)) + 1), PAD)
    for row, length in enumerate(lengths):
        x[row, 0], x[row, length] = BOS, EOS
        x[row, 1:length] = torch.randint(4, 24, (length - 1,), generator=generator)
    counts = torch.tensor(lengths)
    return Batch(x, counts, counts, counts, condition=torch.as_tensor(condition))


@pytest.mark.parametrize("injection", ["init", "input", "skip"])
@pytest.mark.parametrize("method", ["amortized", "semi_amortized"])
def test_the_gradient_reaches_the_vectors_of_the_labels_that_occur(injection, method):
    model = build(injection=injection, decoder_layers=2, bidirectional=True)
    inference = Inference(method, steps=2, lr=0.1)
    terms = model(batch(condition=(0, 2, 2)), inference=inference)
    elbo(terms, beta=1.0).backward()
    for part in (model.encoder, model.decoder):
        norms = part.condition.weight.grad.norm(dim=1)
        assert norms[0] > 0 and norms[2] > 0 and norms[1] == 0


def test_the_gradient_of_a_vector_equals_finite_differences():
    model, z = build().double(), torch.randn(2, 3, 3, dtype=torch.float64)
    weight, given = model.decoder.condition.weight, batch()
    (gradient,) = torch.autograd.grad(model.log_likelihood(given, z).sum(), weight)
    for place in ((0, 0), (1, 3), (2, 4)):
        values = []
        for step in (1e-5, -1e-5):
            with torch.no_grad():
                weight[place] += step
                values.append(float(model.log_likelihood(given, z).sum()))
                weight[place] -= step
        assert (values[0] - values[1]) / 2e-5 == pytest.approx(float(gradient[place]), rel=1e-5)


@pytest.mark.parametrize("condition", ["label", "number"])
def test_encoder_and_decoder_read_it_and_ignore_padding(condition):
    model, z = build(condition, bidirectional=True).eval(), torch.randn(1, 3, 3)
    given = batch()
    other = replace(given, condition=torch.tensor([1, 1, 2]))
    wide = replace(given, x=torch.nn.functional.pad(given.x, (0, 4)))
    for compute in (lambda b: model.log_likelihood(b, z)[0], lambda b: model.posterior(b).mean):
        own, changed = compute(given), compute(other)
        assert (own[0] - changed[0]).abs().max() > 1e-3
        torch.testing.assert_close(own[1:], changed[1:])
        torch.testing.assert_close(own, compute(wide), atol=1e-5, rtol=1e-5)


def test_the_decoder_stays_causal():
    model, given = build(decoder_layers=2).eval(), batch((6, 6, 6))
    z = model.decoder.with_condition(torch.randn(3, 3), given.condition)
    before = model.decoder.token_nll(given.x.t(), z)
    given.x[:, 4] = 9
    after = model.decoder.token_nll(given.x.t(), z)
    assert torch.equal(before[:3], after[:3])
    assert (before[3:] != after[3:]).all()


def test_word_by_word_decoding_gives_the_likelihood_of_training():
    model, given = build(decoder_layers=2).eval(), batch((6, 6, 6))
    z = torch.randn(3, 3)
    stepper = model.decoder.stepper(model.decoder.with_condition(z, given.condition))
    total = torch.zeros(3)
    for t in range(6):
        logits = stepper.step(given.x[:, t]).log_softmax(1)
        total += logits.gather(1, given.x[:, t + 1 : t + 2])[:, 0]
    torch.testing.assert_close(total, model.log_likelihood(given, z[None])[0])


def test_samples_follow_the_label(conditional):
    model = TextVAE.from_pretrained(conditional)
    for label, number in (("car", 0), ("food", 1), ("sky", 2)):
        texts = model.sample(100, condition=label, seed=1)
        assert texts == model.sample(100, condition=number, seed=1)
        assert texts == model.sample(100, condition=[label] * 100, seed=1, batch_size=7)
        words = " ".join(texts).split()
        own = sum(word in WORDS[label] for word in words)
        foreign = sum(word in WORDS[o] for o in WORDS if o != label for word in words)
        assert own > 150 and foreign <= own / 50
    drawn = model.sample(400, seed=2)
    shares = [sum(any(w in text for w in WORDS[label]) for text in drawn) / 400 for label in WORDS]
    assert shares == pytest.approx([0.25, 0.5, 0.25], abs=0.1)
    assert drawn[100:200] == model.sample(100, first_row=100, seed=2)


@pytest.mark.parametrize("given", [[], ["--condition", "2"]])
def test_samples_as_json_have_their_label(conditional, given, tmp_path):
    out = tmp_path / "samples.jsonl"  # whose name says what it is to hold
    assert main(["sample", str(conditional), "-n", "30", "--out", str(out), *given]) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert {row["label"] for row in rows} == ({"sky"} if given else set(WORDS))
    matching = [any(w in row["text"] for w in WORDS[row["label"]]) for row in rows]
    assert sum(matching) > 25
    condition = "sky" if given else None
    plain = TextVAE.from_pretrained(conditional).sample(30, condition=condition)
    assert [row["text"] for row in rows] == plain


def test_a_path_has_one_condition():
    model = build()
    with pytest.raises(UserError, match="give one for the whole path"):
        model.interpolate("w1", "w2", 3, condition=["car", "sky"])


def test_numbers_that_are_drawn_and_given_are_the_same():
    numbers = Numbers.fit(np.arange(50), [str(0.1 * i) for i in range(50)])
    codes = numbers.draw(torch.rand(500, dtype=torch.float64))
    assert torch.equal(numbers.codes(numbers.values(codes.tolist())), codes)


def test_the_bounds_are_of_log_p_given_the_label(conditional):
    exact = -2 * math.log(3)
    card = evaluate_run(conditional, samples=20, generations=5)
    assert card["iw"] == pytest.approx(exact, abs=0.35)  # without y, it is ln 3 lower
    assert card["elbo"] <= card["iw"] + 1e-6
    assert card["condition"] == "label" and "conditioned on the label" in str(card)
    assert ("q(z|x, y)" in str(card)) == bool(card["latent_dim"])
    again = evaluate_run(conditional, samples=20, generations=5, batch_size=3)
    assert again["iw"] == pytest.approx(card["iw"], abs=1e-5)


def test_scores_need_the_label_and_depend_on_it(conditional, tmp_path):
    texts = tmp_path / "new.txt"
    texts.write_text("the sun and the moon\n", encoding="utf-8")
    with pytest.raises(UserError, match="have no labels, but the model is conditioned"):
        score_file(conditional, texts)
    (right,) = score_file(conditional, texts, samples=5, condition="sky")
    (wrong,) = score_file(conditional, texts, samples=5, condition="food")
    assert right["iw"] > wrong["iw"] + 3
    text, model = ["the sun and the moon"], textvae.load(conditional)
    found = textvae.score(model, text * 2, samples=5, condition=["sky", "food"])
    assert found["iw"][0] == pytest.approx(right["iw"], abs=1e-4)
    assert found["iw"][1] < right["iw"] - 3
    with pytest.raises(UserError, match="is conditioned on the label of an example"):
        textvae.score(model, text)
    with pytest.raises(UserError, match=r"a condition is given to texts; for batches, set Batch"):
        textvae.score(model, list(model.batches(text, 1)), condition="sky")
    texts.write_text("sky\tthe sun and the moon\n", encoding="utf-8")
    (read,) = score_file(conditional, texts, samples=5)
    assert read["iw"] == right["iw"]
    texts.write_text("sea\tthe sun and the moon\n", encoding="utf-8")
    with pytest.raises(
        UserError,
        match="new examples: no training example has the label 'sea': choose from car, fo",
    ):
        score_file(conditional, texts)


COMMANDS = [
    ["sample", "-n", "2"],
    ["reconstruct", "the sun and the moon"],
    ["interpolate", "the sun and the moon", "the star and the star", "--steps", "3"],
    ["traverse", "the sun and the moon", "--dim", "0", "--steps", "2"],
    ["arithmetic", "--from", "sky", "--to", "car", "the sun and the moon"],
    ["neighbors", "the sun and the moon", "-n", "2"],
]


@pytest.mark.parametrize("conditional", ["vae"], indirect=True)
@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: words[0])
def test_commands_take_a_condition(conditional, command, capsys):
    name, *rest = command
    assert main([name, str(conditional), *rest, "--condition", "sky"]) == 0
    shown = capsys.readouterr().out
    assert any(word in shown for word in WORDS["sky"]) and "bread" not in shown
    if name != "sample":
        assert main([name, str(conditional), *rest]) == 2
        said = "pass it with --condition, or in Python condition= (choose from car, food"
        said = "--decode-condition B; to move in z" if name == "arithmetic" else said
        assert said in capsys.readouterr().err


@pytest.mark.parametrize("conditional", ["vae"], indirect=True)
def test_a_label_that_is_given_by_number_is_named(conditional, caplog):
    caplog.set_level("INFO")
    assert main(["sample", str(conditional), "-n", "1", "--condition", "2"]) == 0
    assert "--condition 2: the label sky" in caplog.text
    caplog.clear()
    assert main(["sample", str(conditional), "-n", "1", "--condition", "sky"]) == 0
    assert "the label" not in caplog.text


@pytest.mark.parametrize("word", ["null", "none", "1e5", "true"])
def test_a_label_may_be_any_word(word):
    _, options = parse(["sample", "RUN", f"--condition={word}"])
    assert options.condition == word


@pytest.mark.parametrize("conditional", ["vae"], indirect=True)
def test_texts_without_labels_are_evaluated_with_a_given_one(conditional, tmp_path, capsys):
    rng, texts = random.Random(1), tmp_path / "texts.txt"
    texts.write_text("".join(line(rng, "sky").partition("\t")[2] for _ in range(30)))
    right, wrong = (
        evaluate_run(conditional, data=texts, samples=2, generations=0, condition=label)["elbo"]
        for label in ("sky", "food")
    )
    assert right > wrong + 1
    saved = {path.name for path in (conditional / "metrics").glob("texts*")}
    assert saved >= {"texts.txt-given-sky.json", "texts.txt-given-food.json"}
    new = ["--data", str(texts)]
    for name, *rest in (["diagnose"], ["evaluate", "--samples", "1", "--generations", "6"]):
        argv = [name, str(conditional), *rest]
        assert main([*argv, *new, "--condition", "sky"]) == 0
        assert main([*argv, *new]) == 2
        assert capsys.readouterr().err.endswith("give --condition LABEL\n")
        assert main([*argv, *new, "--condition", "boat"]) == 2
        assert "the label 'boat'" in capsys.readouterr().err
        assert main([*argv, "--condition", "sky"]) == 2
        assert "is for a file of new examples" in capsys.readouterr().err


@pytest.mark.parametrize("conditional", ["vae"], indirect=True)
def test_a_given_label_replaces_those_of_a_file_in_what_is_generated(conditional, labeled):
    split = open_run(conditional, data=labeled / "test.txt", condition="sky").split("test")
    model = TextVAE.from_pretrained(conditional)
    assert model.conditions_in(split, range(3)) == {"condition": ["sky"] * 3}
    own = open_run(conditional).split("test")
    names = [own.label_names[label] for label in own.labels[:3]]
    assert model.conditions_in(own, range(3)) == {"condition": names}


def test_the_values_of_codes_are_what_was_coded():
    assert LABELS.values(LABELS.codes(["sky", "car"])) == ["sky", "car"]
    numbers = Numbers(5.0, 2.0, (1.0, 5.0, 9.0))
    assert numbers.values(numbers.codes(["7", 1.5])) == [7.0, 1.5]


def test_an_integer_is_a_name_first_and_then_a_place():
    assert LABELS.codes([2, "car"]).tolist() == [2, 0]
    stars = Classes(("1", "2", "3"), (1, 1, 1))
    assert stars.codes([1, "3", 0]).tolist() == [0, 2, 0]
    with pytest.raises(UserError, match="no training example has the label"):
        stars.codes([True])


@pytest.mark.parametrize("conditional", ["vae"], indirect=True)
@pytest.mark.parametrize("command", ["encode", "reconstruct"])
def test_a_blank_line_has_no_label(conditional, tmp_path, capfd, command):
    path, out = tmp_path / "texts.txt", ["--out", str(tmp_path / "out.npz")]
    path.write_text("car\tthe road\n\nsky\tthe sun\n")
    options = [str(path), *out] if command == "encode" else ["--file", str(path)]
    capfd.readouterr()
    assert main([command, str(conditional), *options]) == 2
    assert "example 2 has no label (it is blank)" in capfd.readouterr().err
    assert main([command, str(conditional), *options, "--condition", "car"]) == 0


@pytest.mark.parametrize("conditional", ["vae"], indirect=True)
def test_files_bring_their_labels(conditional, labeled, tmp_path, capsys, caplog):
    test, out = str(labeled / "test.txt"), tmp_path / "means.npz"
    assert main(["encode", str(conditional), test, "--out", str(out)]) == 0
    found = np.load(out)
    model = TextVAE.from_pretrained(conditional)
    rows = [row.split("\t") for row in (labeled / "test.txt").read_text().splitlines()]
    q = model.encode([text for _, text in rows], condition=[label for label, _ in rows])
    assert np.allclose(found["mean"], q.mean.numpy(), atol=1e-6)
    capsys.readouterr()
    assert main(["reconstruct", str(conditional), "--file", test]) == 0
    for (label, _), text in zip(rows, capsys.readouterr().out.splitlines(), strict=True):
        assert any(word in text for word in WORDS[label])
    for command in (["report", "--limit", "20"], ["probe"], ["diagnose", "--limit", "20"]):
        extra = ["--out", str(tmp_path / "r.html")] if command[0] == "report" else []
        assert main([command[0], str(conditional), *command[1:], *extra]) == 0
        warned = "the encoder reads the label that is predicted here" in caplog.text
        assert warned == (command[0] == "probe")
        caplog.clear()


def test_a_resumed_run_is_bit_for_bit_the_same(labeled, tmp_path):
    options = ["train", *OPTIONS, "--data.dir", str(labeled), "--model.condition", "label"]
    options += ["--train.epochs", "2"]
    assert in_child([*options, "--out", str(tmp_path / "whole")]) == 0
    cut = ["--out", str(tmp_path / "cut"), "--train.max_steps", "7"]
    assert in_child([*options, *cut]) == 0
    shutil.copy(tmp_path / "whole" / "config.yaml", tmp_path / "cut" / "config.yaml")
    assert in_child(["train", "--resume", str(tmp_path / "cut")]) == 0
    for name in ("model.safetensors", "condition.json"):
        whole, resumed = (tmp_path / run / name for run in ("whole", "cut"))
        assert whole.read_bytes() == resumed.read_bytes()


@pytest.mark.parametrize("condition", ["label", "number"])
def test_a_saved_model_is_the_same_model(condition, tmp_path):
    model = build(condition)
    model.save_pretrained(tmp_path)
    loaded = TextVAE.from_pretrained(tmp_path)
    assert loaded.condition == model.condition
    given = {"condition": [1, 2]}
    before = model.eval().encode(["w1 w2", "w3"], **given).mean
    assert torch.equal(loaded.encode(["w1 w2", "w3"], **given).mean, before)
    assert loaded.sample(5, seed=3) == model.sample(5, seed=3)
    for content in ("{", "[]", "{}", '{"names": [1], "counts": [1]}', '{"mean": "x"}'):
        (tmp_path / "condition.json").write_text(content)
        with pytest.raises(UserError, match=r"condition\.json"):
            TextVAE.from_pretrained(tmp_path)
    (tmp_path / "condition.json").unlink()
    with pytest.raises(UserError, match=r"condition\.json"):
        TextVAE.from_pretrained(tmp_path)


def test_a_model_from_before_there_were_conditions_loads(tmp_path):
    model = build("none")
    model.save_pretrained(tmp_path)
    assert not (tmp_path / "condition.json").exists()
    config = json.loads((tmp_path / "config.json").read_text())
    for name in ("condition", "condition_dim", "num_labels"):
        del config[name]
    (tmp_path / "config.json").write_text(json.dumps(config))
    loaded = TextVAE.from_pretrained(tmp_path)
    assert loaded.sample(3, seed=1) == model.eval().sample(3, seed=1)
    with pytest.raises(UserError, match="not conditioned on labels"):
        loaded.sample(3, condition="car")


def test_conditions_are_drawn_as_often_as_in_training():
    uniforms = (torch.arange(400) + 0.5) / 400
    assert LABELS.draw(uniforms.double()).bincount().tolist() == [200, 100, 100]
    numbers = Numbers(5.0, 2.0, (1.0, 5.0, 9.0)).draw(torch.tensor([0.0, 0.25, 0.5, 0.999999]))
    assert numbers.tolist() == pytest.approx([-2.0, -1.0, 0.0, 2.0], abs=1e-4)


@pytest.mark.parametrize(("number", "warned"), [(-1.9, 0), (4, 0), (-2.1, 1), (4.1, 1)])
def test_a_number_far_from_those_in_training_has_a_warning(number, warned, caplog):
    codes_of(Numbers(1.0, 1.0, (0.0, 1.0, 2.0)), number, 3)
    assert (
        caplog.text.count("far from the numbers in training, which lie between 0 and 2") == warned
    )


def test_what_is_given_must_fit():
    for given, message in (
        (None, "pass it with --condition"),
        (["car"], "1 condition for 2 examples"),
        ("boat", "no training example has the label 'boat'"),
        (["car", None], "an example has no label"),
        (3, "no training example has the label '3'"),
    ):
        with pytest.raises(UserError, match=message):
            codes_of(LABELS, given, 2)
    with pytest.raises(UserError, match=r"1e\+300 is too far .* between 0 and 2"):
        codes_of(Numbers(1.0, 1.0, (0.0, 2.0)), 1e300, 1)
    with pytest.raises(UserError, match="'x' is not a number"):
        codes_of(Numbers(0.0, 1.0, (0.0,)), "x", 1)
    with pytest.raises(UserError, match=r"set Batch\.condition"):
        build()(replace(batch(), condition=None))


class Examples:
    """A split, as far as its conditions are concerned."""

    conditions = None

    def __init__(self, labels=None, names=None):
        self.labels, self.label_names = None if labels is None else np.array(labels), names

    def __len__(self):
        return 3 if self.labels is None else len(self.labels)


def test_a_given_condition_replaces_labels_and_says_so(caplog):
    caplog.set_level("INFO")
    plain, own = Examples(), Examples([1, 0], ["sky", "car"])
    add_conditions({"new": plain}, LABELS, "car")
    assert plain.conditions.tolist() == LABELS.codes(["car"] * 3).tolist() and not caplog.text
    add_conditions({"new": own}, LABELS, ["sky", "car"])
    assert own.conditions.tolist() == LABELS.codes(["sky", "car"]).tolist()
    assert "the labels of the new examples are replaced by ['sky', 'car']" in caplog.text
    for wrong in (["car"], ["car"] * 3):
        with pytest.raises(UserError, match=r"conditions? for 2 examples"):
            add_conditions({"new": own}, LABELS, wrong)
    with pytest.raises(UserError, match="not conditioned on labels"):
        add_conditions({"new": own}, None, "car")


def test_only_the_labels_that_occur_have_to_be_known():
    names = list(LABELS.names)
    split = Examples([2, 0, 2, 0], [names[1], "never", names[0]])
    add_conditions({"test": split}, LABELS)
    assert split.conditions.tolist() == [0, 1, 0, 1] and split.conditions.dtype == np.int64
    numbers = Examples([1, 0, 1], ["1.5", "-2"])
    add_conditions({"test": numbers}, Numbers(0.0, 2.0, (0.0,)))
    assert numbers.conditions.tolist() == [-1.0, 0.75, -1.0]
    assert numbers.conditions.dtype == np.float32


@pytest.mark.parametrize("kind, advice", [("label", True), ("number", False)])
def test_an_example_without_a_condition_is_refused_with_a_way_out(kind, advice):
    with pytest.raises(UserError, match=f"1 of 3 train examples have no {kind}") as refused:
        fit_condition(kind, Examples([0, -1, 0], ["1", "2"]))
    assert ("give them a label of their own" in str(refused.value)) == advice
    for name, said in (("new", True), ("valid", False)):
        with pytest.raises(UserError, match=f"the {name} examples have no labels") as refused:
            add_conditions({name: Examples()}, LABELS)
        assert ("give --condition LABEL" in str(refused.value)) == said


def test_the_importance_bound_of_a_language_model_is_its_likelihood_given_the_label():
    model = build(latent_dim=0).eval()
    given = batch()
    with torch.no_grad():
        exact = model.log_likelihood(given, torch.zeros(1, 3, 0))[0]
        torch.testing.assert_close(importance_bound(model, given, 10), exact)
        other = importance_bound(model, replace(given, condition=torch.tensor([1, 2, 0])))
    assert (exact - other).abs().min() > 1e-3


@pytest.mark.parametrize(
    ("options", "lines", "message"),
    [
        ([], "a b\nc d\n" * 40, "the train examples have no labels"),
        ([], "1\ta b\n\tc d\n" * 40, r"of \d+ train examples have no label \(-1, null, or empty\)"),
        (["--data.labels", "false"], "1\ta b\n2\tc d\n" * 40, "examples have no labels"),
        (
            ["--model.injection", "none"],
            "1\ta\n" * 40,
            "input or skip, not none",
        ),
        (["--model.prior", "vamp"], "1\ta\n" * 40, "choose standard or mixture"),
        (["--model.condition", "number"], "1\ta b\nx\tc d\n" * 40, "line 2: 'x' is not a number"),
        (["--model.condition", "number"], "1\ta b\n" * 40, "have the same number"),
        ([], "1\ta b\n" * 40, "all training examples have the same label"),
        (["--model.condition", "number"], "1\ta b\n1e300\tc\n" * 40, r"1e\+300 in .* is too large"),
        (["--model.condition", "lable"], "1\ta b\n" * 40, "did you mean label"),
    ],
)
def test_training_says_what_is_missing(options, lines, message, tmp_path, capsys):
    (tmp_path / "train.txt").write_text(lines, encoding="utf-8")
    words = ["train", "--out", str(tmp_path / "run"), "--data.dir", str(tmp_path), *OPTIONS]
    assert main([*words, "--model.condition", "label", *options]) == 2
    (said,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("textvae:")]
    assert re.search(message, said), said
    assert not (tmp_path / "run").exists()


def test_a_label_that_only_other_splits_have_is_named(tmp_path, capsys):
    for split, lines in (("train", "1\ta b\n2\tc\n" * 20), ("test", "1\ta\nz\tb\n")):
        (tmp_path / f"{split}.txt").write_text(lines, encoding="utf-8")
    words = ["train", "--out", str(tmp_path / "run"), "--data.dir", str(tmp_path), *OPTIONS]
    assert main([*words, "--model.condition", "label"]) == 2
    said = capsys.readouterr().err
    assert "the test examples: no training example has the label 'z': choose from 1, 2" in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (-1, "-1"),
        ("-1", "-1"),
        ("1.50", "1.5"),
        (2.0, "2"),
        (1e-7, "1e-07"),
        (True, "1"),
        ("", None),
        (None, None),
        (float("nan"), None),
        ("NaN", None),
        ("null", None),
        (" 3 ", "3"),
        (" -1", "-1"),
        (np.float32(0.5), "0.5"),
    ],
)
def test_a_number_in_a_column_of_numbers(value, name):
    assert number_of(value) == name


@pytest.mark.parametrize("value", ["x", "NA", float("inf"), 10**400, [1], {"a": 1}, b"x"])
def test_what_is_not_a_number(value):
    with pytest.raises(ValueError, match=r"."):
        number_of(value)


def test_a_number_decides_how_long_texts_are(tmp_path):
    """The number of words is two more than the number, which can be -1."""
    rng = random.Random(0)
    counts = [rng.randint(-1, 8) for _ in range(600)]
    rows = [{"text": " ".join(["na"] * (count + 2)), "size": count} for count in counts]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "train.jsonl").write_text(text, encoding="utf-8")
    config = Config.load(
        data={"dir": str(tmp_path), "label_column": "size", "tokenized": True, "batch_size": 32},
        model={
            "latent_dim": 0,
            "condition": "number",
            "injection": "input",
            "embedding_dim": 16,
            "decoder_hidden": 24,
            "dropout_in": 0.0,
            "dropout_out": 0.0,
        },
        optim={"name": "adam", "lr": 0.02},
        train={"epochs": 12, "threads": 1, "precision": "fp32", "samples": 0},
    )
    model = train(config, tmp_path / "run")
    assert isinstance(model.condition, Numbers)
    for number in (-1, 2, 5.5):
        lengths = [len(text.split()) for text in model.sample(50, condition=number, seed=1)]
        assert np.mean(lengths) == pytest.approx(number + 2, abs=1.0)
    assert model.sample(5, condition="2", seed=1) == model.sample(5, condition=2.0, seed=1)
    drawn = [len(text.split()) for text in model.sample(300, seed=3)]
    assert np.mean(drawn) == pytest.approx(np.mean(counts) + 2, abs=0.8)


@pytest.mark.parametrize("conditional", ["vae"], indirect=True)
def test_no_texts_need_no_condition(conditional):
    model = TextVAE.from_pretrained(conditional)
    for condition in (model.condition.names[0], []):
        assert model.encode([], condition=condition).center().shape == (0, model.latent_dim)


def test_a_probe_of_what_the_encoder_reads_says_so(tmp_path, capfd, caplog):
    rng, data, run = random.Random(0), tmp_path / "data.csv", tmp_path / "run"
    rows = [(number, rng.randrange(5)) for number in range(9) for _ in range(20)]
    lines = [f"{'a ' * (number + 1)},{number},{other},{number}" for number, other in rows]
    data.write_text("\n".join(["text,label,other,again", *lines]) + "\n", encoding="utf-8")
    words = ["--data.dir", str(data), *OPTIONS, "--model.condition", "number"]
    assert main(["train", "--out", str(run), *words, "--train.max_steps", "2"]) == 0
    for target, warned in (("label", True), ("again", True), ("other", False)):
        caplog.clear()
        assert main(["probe", str(run), "--target", target]) == 0
        assert ("the encoder reads the number" in caplog.text) == warned, target
    capfd.readouterr()
    assert main(["probe", str(run)]) == 2
    assert "are numbers: name their column with --target" in capfd.readouterr().err


class Square(torch.nn.Module):
    """log p(x|z,y) = -strength (x - y)^2, up to a constant: x is predicted by y alone."""

    def __init__(self, strength):
        super().__init__()
        self.strength = torch.nn.Parameter(torch.tensor(strength))

    def log_prob(self, batch, z):
        error = (batch.x[:, 0] - batch.condition).square()
        return (-self.strength * error).expand(len(z), -1)


@pytest.mark.parametrize("latent_dim", [0, 2])
@pytest.mark.parametrize("strength", [0.0, 3.0])
def test_the_condition_gap_is_what_the_label_of_another_example_costs(latent_dim, strength):
    labels = torch.arange(90) % 3

    def part(first, last):
        rows = torch.arange(first, last)
        return Batch(labels[rows, None].float(), index=rows, condition=labels[rows])

    encoder = ConstantEncoder(latent_dim) if latent_dim else None
    model = textvae.VAE(encoder, Square(strength), latent_dim)
    card = textvae.evaluate(model, [part(50, 90), part(0, 50)], samples=2)
    stats = collect(model.eval(), [part(0, 90)], 1, seed=0)
    donors = ring(len(stats.index), seed=0)
    expected = strength * (labels - labels[donors]).square().double().mean()
    assert card["condition_gap"] == pytest.approx(float(expected), abs=1e-6)
    assert (donors != torch.arange(90)).all() and (expected > 0) == (strength > 0)


@pytest.mark.parametrize("conditional", ["vae"], indirect=True)
def test_an_equal_label_costs_nothing(conditional):
    model = TextVAE.from_pretrained(conditional)
    batches = list(model.conditioned(model.counted_batches(["the sun", "a road"], 2), "car", 2))
    assert textvae.evaluate(model, batches, samples=2)["condition_gap"] == 0


@pytest.mark.parametrize("conditional", ["vae"], indirect=True)
def test_the_card_of_a_conditional_model_says_that_the_label_is_read(conditional):
    card = evaluate_run(conditional, samples=2, generations=0)
    assert card["condition_gap"] > 1 and "condition gap" in str(card)


@pytest.mark.parametrize("conditional", ["vae"], indirect=True)
def test_a_text_can_be_decoded_under_another_label(conditional, capsys):
    model, text = TextVAE.from_pretrained(conditional), "the road and the wheel"
    expected = model.decode(model.encode([text], condition="car").center(), condition="sky")
    options = {"condition": "car", "decode_condition": "sky"}
    assert model.reconstruct([text], **options) == expected
    assert model.reconstruct([text], condition="car") != expected
    command = ["reconstruct", str(conditional), text, "--condition", "car"]
    assert main([*command, "--decode-condition", "sky"]) == 0
    assert capsys.readouterr().out.splitlines() == expected
    assert main([*command, "--decode-condition", "sea"]) == 2
    assert "--decode-condition sea: no training example has the label" in capsys.readouterr().err


class Codes(torch.nn.Module):
    """Row i is at i, almost without noise."""

    def forward(self, batch):
        mean = batch.index[:, None].float()
        return DiagGaussian(mean, torch.full_like(mean, -30.0))


class Product(torch.nn.Module):
    """log p(x|z,y) = -z y, up to a constant."""

    def log_prob(self, batch, z):
        return -z[..., 0] * batch.condition


def test_the_condition_gap_keeps_the_z_of_the_example():
    rows, labels = torch.arange(20), torch.arange(20) % 3
    model = textvae.VAE(Codes(), Product(), 1).eval()
    batch = Batch(labels[:, None].float(), index=rows, condition=labels)
    card = textvae.evaluate(model, [batch], samples=2)
    donors = ring(len(batch.index), seed=0)
    expected = (rows * (labels[donors] - labels)).double().mean()
    assert card["condition_gap"] == pytest.approx(float(expected), abs=1e-3)


def test_numbers_that_rounding_makes_equal_are_called_close():
    with pytest.raises(UserError, match=r"too close to 1.15292e\+18 to tell them apart"):
        Numbers.fit(np.array([0, 1]), [str(2**60), str(2**60 + 1)])


def test_a_label_may_be_written_as_spreadsheets_write_integers():
    known = Classes(("2", "7", "1.5"), (1, 1, 1))
    assert known.codes(["7.0", 2.0, "1.5", 1.5]).tolist() == [1, 0, 2, 2]
    assert Classes(("2", "2.0"), (1, 1)).codes(["2.0", "2.00"]).tolist() == [1, 0]


@pytest.mark.parametrize("number", ["0.1", "0.7", "3.3", "1e9", "0"])
def test_equal_numbers_are_no_condition_whatever_their_rounding(number):
    with pytest.raises(UserError, match="have the same number"):
        Numbers.fit(np.zeros(1000, dtype=np.int64), [number])


def test_numbers_have_the_moments_of_the_examples():
    found = Numbers.fit(np.array([0, 0, 0, 1]), ["1", "5"])
    assert (found.mean, found.deviation) == (2.0, pytest.approx(math.sqrt(3)))
    assert (found.quantiles[0], found.quantiles[500], found.quantiles[-1]) == (1.0, 1.0, 5.0)


def test_words_are_explained_under_their_labels(conditional):
    if conditional.name == "lm":
        pytest.skip("there is no z to explain")
    found = textvae.explain_run(conditional, limit=20, draws=2)
    assert len(found.texts) == 20
    label, words = next(iter(WORDS.items()))
    text = " ".join(words[:1] * 2)
    given = textvae.explain_run(conditional, [text], condition=label, limit=20)
    (cheap,) = given.texts
    model = textvae.load(str(conditional))
    scored = textvae.score(model, [text], condition=label, samples=200)["elbo"][0]
    assert cheap.log_px.sum() > scored - 1  # under the label that has these words


def test_a_baseline_reads_the_same_labels_or_none():
    model, texts = build(), ["w1 w2 w3", "w4"]
    lm = build(latent_dim=0)
    found = textvae.explain(model, texts, baseline=lm, condition=["food", "sky"])
    exact = textvae.score(lm, texts, condition=["food", "sky"], samples=1)["elbo"]
    assert [-text.cost.sum() for text in found.texts] == pytest.approx(exact, abs=1e-3)
    plain = build("none", latent_dim=0, injection="none")
    found = textvae.explain(model, texts, baseline=plain, condition="car")
    exact = textvae.score(plain, texts, samples=1)["elbo"]
    assert [-text.cost.sum() for text in found.texts] == pytest.approx(exact, abs=1e-3)
    other = build("number", latent_dim=0)
    for baseline, explained, given in ((other, model, "car"), (lm, build("none"), None)):
        with pytest.raises(UserError, match="the baseline was trained with other labels"):
            textvae.explain(explained, texts, baseline=baseline, condition=given)
