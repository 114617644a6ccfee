"""Procedures and phases: aggressive training, autoencode first, weights to start from."""

import math
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_train import assert_same_run, kill_at_update, lines, resume, state, summary, train

import textvae
from textvae.config.experiment import (
    Config,
    DataConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimConfig,
    TrainConfig,
)
from textvae.evaluation.goal import Goal
from textvae.training.phases import Phases
from textvae.training.procedures import Aggressive
from textvae.vae.batch import Batch

AGGRESSIVE = [
    *("--train.procedure", "aggressive", "--optim.name", "adam", "--optim.lr", "0.01"),
    *("--train.save_every", "1", "--train.log_every", "2", "--train.max_steps", "6"),
    *("--train.aggressive_patience", "9", "--train.samples", "0"),
]
FIRST = [
    *("--optim.name", "adam", "--optim.lr", "0.01", "--objective.free_bits", "2"),
    *("--train.autoencode_epochs", "1.5", "--train.epochs", "2", "--train.samples", "0"),
    *("--train.save_every", "2", "--train.log_every", "1"),
]
# The first phase has an optimizer of its own.
OTHER_FIRST = [
    *("--optim.name", "sgd", "--optim.lr", "0.5", "--objective.free_bits", "2"),
    *("--optim.autoencode_name", "adam", "--optim.autoencode_lr", "0.01", *FIRST[6:]),
]
# Whole epochs, after which the evaluation saves a checkpoint exactly at the reset.
WHOLE = [*OTHER_FIRST, "--train.autoencode_epochs", "1", "--train.epochs", "1"]
ONE_STEP = ["--train.max_steps", "1"]


class FakeUpdater:
    """Notes what is updated and returns losses made by hand."""

    def __init__(self, losses: list[float]) -> None:
        self.losses, self.updates = iter(losses), []
        self.model = textvae.VAE(torch.nn.Linear(1, 1), torch.nn.Linear(1, 1), 2)
        self.accelerator = type("One", (), {"num_processes": 1})

    def update(self, batches, step, *, turn=0, only=None, skip=()):
        parts = {"encoder": self.model.encoder, "decoder": self.model.decoder}
        parts["prior"] = self.model.prior
        names = [n for n, part in parts.items() if part in (only or parts.values())]
        names = [n for n in names if parts[n] not in skip]
        self.updates.append((step, turn, names))
        return torch.tensor(next(self.losses))


def step_of(procedure: Aggressive, losses: list[float], tokens: int = 5) -> list:
    updater = FakeUpdater(losses)
    procedure.update(3, lambda: [Batch(torch.zeros(2, tokens))], updater)
    return updater.updates


def test_the_encoder_is_trained_until_a_block_is_worse_than_the_one_before():
    losses = [9.0, 1.0, 8.0, 1.0, 20.0, 1.0, 99.0]  # blocks of two: 5, 4.5, 10.5
    updates = step_of(Aggressive(block=2), losses)
    assert [(turn, names) for _, turn, names in updates[:-1]] == [
        (turn, ["encoder"]) for turn in range(1, 7)
    ]
    assert updates[-1] == (3, 0, ["decoder", "prior"])


def test_a_burst_has_an_end():
    assert len(step_of(Aggressive(), [1.0] * 101)) == 101  # an equal loss is not a worse one
    assert len(step_of(Aggressive(block=2, most=7), [1.0] * 8)) == 8


def test_blocks_are_compared_per_token():
    procedure, updater = Aggressive(block=1), FakeUpdater([10.0, 12.0, 7.0, 0.0])
    lengths = iter([5, 8, 4, 4])  # 2, 1.5, and 1.75 nats per token
    procedure.update(0, lambda: [Batch(torch.zeros(2, next(lengths)))], updater)
    assert [turn for _, turn, _ in updater.updates] == [1, 2, 3, 0]


def test_it_stops_for_good_once_the_mutual_information_stops_rising():
    procedure = Aggressive(patience=1)
    for mi in (0.5, 0.9):
        procedure.observe({"mi": mi})
        assert procedure.active
    procedure.observe({"mi": 0.8})
    procedure.observe({"mi": 2.0})
    assert not procedure.active
    assert step_of(procedure, [1.0]) == [(3, 0, ["encoder", "decoder", "prior"])]
    patient = Aggressive(patience=2)
    for mi, active in ((0.5, True), (0.4, True), (0.6, True), (0.6, True), (0.5, False)):
        patient.observe({"mi": mi})
        assert patient.active == active
    restored = Aggressive(patience=2)
    restored.load_state_dict(patient.state_dict())
    assert vars(restored) == vars(patient)


@pytest.fixture(scope="module")
def aggressive(tiny, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("aggressive") / "run"
    assert train(run, [*tiny, *AGGRESSIVE]) == 0
    return run


def test_aggressive_training_resumes_bit_for_bit_in_mid_burst(aggressive, tiny, tmp_path):
    run = tmp_path / "run"
    # A step makes 21 to 101 updates: update 102 is in the second step or a later one of the six.
    assert train(run, [*tiny, *AGGRESSIVE], before=kill_at_update(102)) == -signal.SIGKILL
    assert 0 < state(run)["step"] < 6
    assert resume(run, before=kill_at_update(7)) == -signal.SIGKILL
    assert resume(run) == 0
    assert_same_run(run, aggressive)


def test_the_end_of_aggressive_training_survives_a_resume(tiny, tmp_path):
    # A model that does not learn has the same mutual information at every evaluation.
    options = [*tiny, *AGGRESSIVE, "--train.max_steps", "5", "--train.evaluate_every", "0.34"]
    options += ["--optim.lr", "1e-30", "--train.aggressive_patience", "1"]
    assert train(tmp_path / "whole", options) == 0
    assert train(tmp_path / "rest", [*options, "--train.max_steps", "4"]) == 0
    assert state(tmp_path / "rest")["procedure"]["active"] is False
    assert resume(tmp_path / "rest", "--train.max_steps", "5") == 0
    assert state(tmp_path / "whole")["loader"] == state(tmp_path / "rest")["loader"]
    for name, weight in state(tmp_path / "whole")["model"].items():
        assert torch.equal(weight, state(tmp_path / "rest")["model"][name]), name


@pytest.mark.parametrize(
    "more",
    [
        [*("--inference.method", "semi_amortized", "--inference.steps", "1"), *ONE_STEP],
        ["--train.autoencode_epochs", "0.34"],
        ["--train.autoencode_epochs", "0.34", "--model.prior", "vamp"],
        ["--model.injection", "init"],
    ],
    ids=["semi_amortized", "autoencode", "vamp", "init"],
)
def test_aggressive_training_combines(more, tiny, tmp_path):
    assert train(tmp_path / "run", [*tiny, *AGGRESSIVE, "--train.max_steps", "3", *more]) == 0
    moments = state(tmp_path / "run")["optimizer"]["state"]
    assert len(moments) == len(list(textvae.load(str(tmp_path / "run")).parameters()))


def config_for(corpus: Path, **train_options) -> Config:
    options = {"epochs": 2, "precision": "fp32", "samples": 0, "threads": 1} | train_options
    return Config(
        data=DataConfig(dir=str(corpus), tokenized=True, batch_size=16),
        model=ModelConfig(latent_dim=4, embedding_dim=8, encoder_hidden=12, decoder_hidden=12),
        objective=ObjectiveConfig(kl_schedule="linear", kl_start=0.0, kl_epochs=2.0),
        optim=OptimConfig(lr=0.5, schedule="cosine"),
        train=TrainConfig(**options),
    )


def test_only_the_parts_asked_for_change(corpus, tmp_path):
    seen = []

    class Spy(Aggressive):
        def update(self, step, next_batches, updater):
            before = {k: v.clone() for k, v in updater.model.state_dict().items()}
            updater.update(next_batches(), step, turn=1, only=[updater.model.encoder])
            seen.append(changed(before, updater.model.state_dict()))
            before = {k: v.clone() for k, v in updater.model.state_dict().items()}
            updater.update(next_batches(), step, skip=[updater.model.encoder])
            seen.append(changed(before, updater.model.state_dict()))

    def changed(before, after):
        return {name.partition(".")[0] for name in before if not before[name].equal(after[name])}

    config = config_for(corpus, max_steps=2)
    textvae.train(config, tmp_path / "plain", procedure=Spy())
    refined = replace(config.inference, method="semi_amortized", steps=2, decoder_terms="all")
    textvae.train(replace(config, inference=refined), tmp_path / "refined", procedure=Spy())
    assert seen == [{"encoder"}, {"decoder"}] * 4


def test_the_schedules_start_when_autoencoding_ends():
    config = config_for(Path("corpus"), autoencode_epochs=1.5, epochs=4)
    phases = Phases(config, epoch_steps=10)
    assert phases.autoencode_steps == 15 and phases.total_steps == 55
    assert [phases.beta(step) for step in (0, 14, 15, 25, 35, 54)] == [0, 0, 0, 0.5, 1, 1]
    rates = [phases.learning_rate(step) for step in (0, 14, 15, 35, 55)]
    assert rates == pytest.approx([0.5, 0.5, 0.5, 0.25, 0])
    plain = Phases(replace(config, train=replace(config.train, autoencode_epochs=0.0)), 10)
    for step in range(40):
        assert phases.beta(15 + step) == plain.beta(step)
        assert phases.learning_rate(15 + step) == plain.learning_rate(step)
        assert phases.optimizer(step) == (phases.lr.config if step >= 15 else phases.optimizer(0))


def test_the_optimizer_of_autoencoding_is_another_one():
    config = config_for(Path("corpus"), autoencode_epochs=1.5, epochs=4)
    optim = OptimConfig(
        lr=0.5, encoder_name="adamw", autoencode_name="adam", autoencode_lr=0.02, schedule="cosine"
    )
    phases = Phases(replace(config, optim=optim), epoch_steps=10)
    first, second = phases.optimizer(14), phases.optimizer(15)
    assert (first.name, first.encoder_name) == ("adam", None) and second == optim
    assert [phases.learning_rate(step) for step in (0, 14, 15)] == [0.02, 0.02, 0.5]


@pytest.fixture(scope="module")
def autoencoded(tiny, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("autoencoded") / "run"
    assert train(run, [*tiny, *FIRST]) == 0
    return run


@pytest.mark.parametrize("number", [5, 8, 9, 10])
def test_autoencoding_resumes_bit_for_bit_across_the_reset(number, autoencoded, tiny, tmp_path):
    run = tmp_path / "run"
    assert train(run, [*tiny, *FIRST], before=kill_at_update(number)) == -signal.SIGKILL
    assert resume(run) == 0
    assert_same_run(run, autoencoded)


@pytest.mark.parametrize("start", [[], ["--train.init", "{trained}"]], ids=["new", "init"])
def test_a_run_resumes_bit_for_bit_from_the_reset(start, trained, tiny, tmp_path):
    options = [*tiny, *WHOLE, *[word.format(trained=trained) for word in start]]
    options += ["--train.save_every", "100"]
    undisturbed, run = tmp_path / "undisturbed", tmp_path / "run"
    assert train(undisturbed, options) == 0
    assert train(run, options, before=kill_at_update(6)) == -signal.SIGKILL
    assert state(run)["step"] == state(run)["autoencode_steps"] == 6
    assert resume(run) == 0
    assert_same_run(run, undisturbed)


@pytest.fixture(scope="module")
def with_two_optimizers(tiny, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("two_optimizers") / "run"
    assert train(run, [*tiny, *OTHER_FIRST]) == 0
    return run


@pytest.mark.parametrize("number", [5, 9, 10])
def test_two_optimizers_resume_bit_for_bit(number, with_two_optimizers, tiny, tmp_path):
    run = tmp_path / "run"
    assert train(run, [*tiny, *OTHER_FIRST], before=kill_at_update(number)) == -signal.SIGKILL
    assert resume(run) == 0
    assert_same_run(run, with_two_optimizers)


def test_the_first_of_two_optimizers_does_what_it_does_alone(tiny, tmp_path):
    found = []
    for name, options in (("one", FIRST), ("two", OTHER_FIRST)):
        run = tmp_path / name
        assert train(run, [*tiny, *options, "--train.max_steps", "8"]) == 0
        found.append(state(run)["model"])
    for name, weight in found[0].items():
        assert torch.equal(weight, found[1][name]), name


def test_an_optimizer_of_autoencoding_without_autoencoding_is_refused(tiny, tmp_path, capfd):
    assert train(tmp_path / "run", [*tiny, "--optim.autoencode_name", "adam"]) == 2
    assert "no effect without --train.autoencode_epochs" in capfd.readouterr().err


def test_the_best_model_is_one_trained_with_the_kl(autoencoded):
    assert state(autoencoded)["autoencode_steps"] == 9 and summary(autoencoded)["steps"] == 21
    logged = lines(autoencoded)
    betas = [line["beta"] for line in logged if line["group"] == "train"]
    assert betas[:9] == [0.0] * 9 and min(betas[9:]) > 0
    goal = Goal.of(Config.load(autoencoded / "config.yaml"))
    cards = [line for line in logged if line["group"] == "valid" and line["step"] > 9]
    later = [goal.reached(card["rec"], card["elbo"]) for card in cards]
    assert state(autoencoded)["lr"]["best"] == max(later)
    assert state(autoencoded)["lr"]["stale"] == len(later) - 1 - later.index(max(later))


def kept_and_fresh(corpus: Path, out: Path, decoder: str) -> tuple[dict, dict, dict]:
    """The weights before the first phase, after it, and at the start of the second."""
    seen: list[dict] = []

    class Look(Aggressive):
        def update(self, step, next_batches, updater):
            if not seen:
                assert updater.optimizer.state == {}
                seen.append({k: v.clone() for k, v in updater.model.state_dict().items()})
            updater.update(next_batches(), step)

        def observe(self, card):
            pass

    config = config_for(corpus, autoencode_epochs=1.0, autoencode_decoder=decoder, epochs=1)
    config = replace(config, optim=OptimConfig(name="adam", lr=0.01))
    first = replace(config, train=replace(config.train, max_steps=6))
    textvae.train(first, out / "first")
    before = textvae.train(
        replace(
            config,
            train=TrainConfig(max_steps=1, precision="fp32", samples=0, evaluate_every=0.01),
            optim=OptimConfig(lr=1e-30),
        ),
        out / "untrained",
    ).state_dict()
    textvae.train(config, out / "run", procedure=Look())
    return before, dict(state(out / "first")["model"]), seen[0]


@pytest.mark.parametrize("decoder", ["reset", "keep"])
def test_the_encoder_is_kept_and_the_decoder_is_reset(decoder, corpus, tmp_path):
    before, after, start = kept_and_fresh(corpus, tmp_path, decoder)
    for name, weight in start.items():
        source = before if decoder == "reset" and name.startswith("decoder") else after
        assert torch.equal(weight, source[name]), name
        if not name.startswith("prior"):
            assert not torch.equal(before[name], after[name]), name


def test_autoencoding_cannot_be_moved_once_it_is_over(autoencoded, capfd):
    assert resume(autoencoded, "--train.autoencode_epochs", "2") == 2
    assert "past the end of its autoencoding" in capfd.readouterr().err.splitlines()[-1]


def test_a_run_that_ends_while_autoencoding_has_a_model(tiny, tmp_path, capfd):
    assert train(tmp_path / "run", [*tiny, *FIRST, "--train.max_steps", "2"]) == 0
    assert "elbo -inf" not in capfd.readouterr().err
    assert summary(tmp_path / "run")["best_valid_elbo"] is None
    assert textvae.load(str(tmp_path / "run")).sample(1)


@pytest.mark.parametrize("option", ["procedure aggressive", "autoencode_epochs 1"])
@pytest.mark.parametrize("model", ["--model.latent_dim 0", "--model.encoder_layers 0"])
def test_without_an_encoder_there_is_nothing_to_train(option, model, tiny, tmp_path, capfd):
    options = [*tiny, *f"--train.{option} {model}".split()]
    if "layers" in model:
        options += ["--inference.method", "svi"]
    assert train(tmp_path / "run", options) == 2
    last = capfd.readouterr().err.splitlines()[-1]
    assert last.startswith(f"textvae: --train.{option.partition(' 1')[0]} trains an encoder")


# Starting from a trained model.


def weights_at_start(out: Path, options: list[str]) -> dict:
    """The weights that a run starts with: those after a step too small to change them."""
    still = ["--optim.lr", "1e-30", "--train.max_steps", "1", "--optim.warmup_steps", "0"]
    assert train(out, [*options, *still]) == 0
    return load_file(out / "model.safetensors")


@pytest.mark.parametrize("parts", ["encoder", "decoder", "all"])
def test_a_run_starts_from_the_weights_of_another(parts, trained, tiny, tmp_path):
    theirs, fresh = load_file(trained / "model.safetensors"), weights_at_start(tmp_path / "a", tiny)
    options = [*tiny, "--train.init", str(trained), "--train.init_parts", parts]
    for name, weight in weights_at_start(tmp_path / "b", options).items():
        taken = parts == "all" or name.startswith(parts)
        assert torch.equal(weight, (theirs if taken else fresh)[name]), name


def test_tied_weights_are_read_as_well(tiny, tmp_path):
    tied = [*tiny, "--model.tie_embeddings", "true", "--model.embedding_dim", "12"]
    theirs = weights_at_start(tmp_path / "a", [*tied, "--train.seed", "5"])
    ours = weights_at_start(tmp_path / "b", [*tied, "--train.init", str(tmp_path / "a")])
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(weight, theirs[name]) for name, weight in ours.items())


@pytest.mark.parametrize("named", [True, False])
def test_a_run_on_other_texts_takes_over_the_tokenizer(named, trained, tiny, tmp_path, capfd):
    others, run = tmp_path / "others", tmp_path / "run"
    others.mkdir()
    for split in ("train", "valid", "test"):
        (others / f"{split}.txt").write_text("the zebra sees a cat\n" * 20)
    options = [*tiny, "--data.dir", str(others), "--train.init", str(trained)]
    if named:
        options += ["--tokenizer.path", str(trained / "tokenizer.json")]
    options += ["--train.max_steps", "2"]
    assert train(run, options) == 0
    assert "20.0% of the tokens of the training split are <unk>" in capfd.readouterr().err
    ours, theirs = textvae.load(str(run)).tokenizer, textvae.load(str(trained)).tokenizer
    assert ours.fingerprint() == theirs.fingerprint()
    assert ours.tokens(ours.encode("the zebra sees"))[1] == "<unk>"
    respelled = str(trained / ".." / trained.name / "tokenizer.json")  # the same file
    path = ["--tokenizer.path", respelled] if named else []
    assert resume(run, "--train.max_steps", "4", *path) == 0
    assert resume(run, "--tokenizer.path", str(others)) == 2


def test_a_resumed_run_does_not_need_the_model_it_started_from(trained, tiny, tmp_path):
    run, other = tmp_path / "run", tmp_path / "other"
    textvae.load(str(trained)).save_pretrained(other)
    options = [*tiny, "--train.init", str(other), "--train.max_steps", "2"]
    assert train(run, options) == 0
    (other / "model.safetensors").unlink()
    assert resume(run, "--train.max_steps", "4") == 0


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["--model.latent_dim", "5"], "is (8, 12) where (10, 12) is expected"),
        (["--model.encoder_layers", "2"], ".1.weight_ih is missing"),
        (["--tokenizer.path", "{other}"], "its tokenizer is not the one of --tokenizer.path"),
        (["--train.init", "nonesuch"], "'nonesuch' is not a folder"),
        (["--tokenizer.path", "nonesuch"], "'nonesuch' is not a folder"),
        (["--tokenizer.path", "/"], "no tokenizer.json in /"),
        (
            ["--tokenizer.path", __file__],
            "is a file, not a model folder",
        ),
        (["--tokenizer.path", "{trained}", "--tokenizer.kind", "bpe"], "its kind is word, not bpe"),
        (
            ["--tokenizer.path", "{trained}", "--data.tokenized", "false"],
            "it was made for --data.tokenized true",
        ),
    ],
    ids=[
        *("size", "layers", "tokenizer", "folder"),
        *("no-tokenizer", "empty", "file", "kind", "tokenized"),
    ],
)
def test_weights_that_do_not_fit_are_one_line(options, error, trained, tiny, tmp_path, capfd):
    run, other = tmp_path / "run", tmp_path / "other"
    textvae.WordTokenizer.train(["a cat"]).save(other)
    options = [option.format(trained=trained, other=other) for option in options]
    assert train(run, [*tiny, "--train.init", str(trained), *options]) == 2
    printed = capfd.readouterr().err
    assert "Traceback" not in printed
    assert error in printed.splitlines()[-1]
    assert not (run / "config.yaml").exists()


@pytest.mark.parametrize("kept", ["decoder", "embeddings"])
def test_the_decoder_is_reset_to_what_the_run_began_with(kept, trained, tiny, tmp_path):
    theirs, run = load_file(trained / "model.safetensors"), tmp_path / "run"
    (tmp_path / "cat.txt").write_text("cat" + 8 * " 0.5" + "\n")
    start = {
        "decoder": ["--train.init", str(trained), "--train.init_parts", "decoder"],
        "embeddings": ["--train.init_embeddings", str(tmp_path / "cat.txt")],
    }[kept]
    options = [*tiny, *FIRST, *start, "--train.save_every", "2", "--optim.autoencode_name", "sgd"]
    options += ["--optim.autoencode_lr", "0.5", "--optim.name", "sgd", "--optim.lr", "1e-30"]
    assert train(run, [*options, "--train.max_steps", "6"]) == 0  # of 9 that autoencode
    assert "first_decoder" in state(run)
    assert resume(run, "--train.max_steps", "10") == 0  # one step that changes nothing
    assert "first_decoder" not in state(run)
    model = textvae.load(str(run))
    weights = state(run)["model"]
    if kept == "decoder":
        for name, weight in weights.items():
            if name.startswith("decoder"):
                assert torch.equal(weight, theirs[name]), name
    else:
        cat = model.tokenizer.encode("cat")[0]
        row = next(w for n, w in weights.items() if n.startswith("decoder.emb"))[cat]
        assert torch.equal(row, torch.full((8,), 0.5))


def test_a_decoder_of_another_model_in_a_checkpoint_is_refused(tiny, tmp_path, capfd):
    run = tmp_path / "run"
    assert train(run, [*tiny, *FIRST, "--train.max_steps", "2"]) == 0
    broken = torch.load(run / "checkpoint" / "state.pt", weights_only=True)
    broken["first_decoder"].popitem()
    torch.save(broken, run / "checkpoint" / "state.pt")
    assert resume(run, "--train.max_steps", "4") == 2
    assert "first_decoder is not the decoder of this model" in capfd.readouterr().err


def test_embeddings_of_an_untied_model_do_not_fit_a_tied_one(tiny, tmp_path, capfd):
    square = [*tiny, "--model.embedding_dim", "12"]
    assert train(tmp_path / "a", [*square, "--train.max_steps", "1"]) == 0
    tied = [*square, "--model.tie_embeddings", "true", "--train.init", str(tmp_path / "a")]
    assert train(tmp_path / "b", tied) == 2
    assert "are not tied there" in capfd.readouterr().err.splitlines()[-1]


def test_an_optimizer_for_an_encoder_that_is_not_there_is_refused(tiny, tmp_path, capfd):
    options = [*tiny, "--optim.encoder_name", "adam", "--model.latent_dim", "0"]
    assert train(tmp_path / "run", options) == 2
    last = capfd.readouterr().err.splitlines()[-1]
    assert last.startswith("textvae: --optim.encoder_name trains an encoder, but this model has")


def test_a_resumed_run_may_become_aggressive(tiny, tmp_path):
    run = tmp_path / "run"
    assert train(run, [*tiny, "--train.max_steps", "2"]) == 0
    assert resume(run, "--train.procedure", "aggressive", "--train.max_steps", "3") == 0
    assert state(run)["procedure"]["active"]


def test_the_state_of_another_optimizer_is_one_line(tiny, tmp_path, capfd):
    run = tmp_path / "run"
    options = ["--optim.name", "sgd", "--optim.momentum", "0.9", "--train.max_steps", "2"]
    assert train(run, [*tiny, *options]) == 0
    assert resume(run, "--optim.name", "adam", "--train.max_steps", "3") == 2
    last = capfd.readouterr().err.splitlines()[-1]
    assert "the state of another optimizer" in last and "--optim.name" in last


def test_the_kl_weight_never_falls_in_warm_up():
    config = Config(objective=ObjectiveConfig(beta=0.0, kl_schedule="linear", kl_start=0.1))
    assert {Phases(config, 10).beta(step) for step in range(0, 200, 5)} == {0.0}


def test_blocks_are_compared_by_all_examples_and_all_tokens():
    procedure, updater = Aggressive(block=2), FakeUpdater([30.0, 200.0, 40.0, 80.0, 0.0])
    # 32 x 30 + 1 x 200 nats of 32 x 10 + 1 x 40 tokens: 3.2 per token; then 3.3, which is worse.
    sizes = iter([(32, 10), (1, 40), (32, 12), (1, 12), (1, 1)])
    procedure.update(0, lambda: [Batch(torch.zeros(next(sizes)))], updater)
    assert [turn for _, turn, _ in updater.updates] == [1, 2, 3, 4, 0]


@pytest.mark.parametrize("wrong", [{"stale": True}, {"active": 1}, {"best": math.nan}])
def test_a_damaged_state_of_aggressive_training_is_refused(wrong):
    with pytest.raises(ValueError, match="not a state of aggressive training"):
        Aggressive().load_state_dict(Aggressive().state_dict() | wrong)


def test_a_minimum_kl_cannot_be_added_to_a_run(tiny, tmp_path, capfd):
    run = tmp_path / "run"
    assert train(run, [*tiny, "--train.max_steps", "2"]) == 0
    more = ["--train.max_steps", "4", "--objective.min_kl", "1"]
    assert resume(run, *more) == 2
    assert "an objective that has no state" in capfd.readouterr().err


@pytest.mark.parametrize("end", ["slow.", "slow?", "slow, then"])
def test_raw_text_is_not_split_at_spaces_without_a_warning(tiny, tmp_path, capfd, end):
    texts = tmp_path / "texts.txt"
    texts.write_text(f"my wifi is {end}\n" * 60)
    at = tiny.index("--data.dir")
    options = [*tiny[:at], *tiny[at + 2 :], "--data.dir", str(texts), "--train.max_steps", "1"]
    assert train(tmp_path / "run", [*options, "--data.tokenized", "true"]) == 0
    assert "the texts look raw: 'slow" in capfd.readouterr().err
    assert train(tmp_path / "raw", [*options, "--data.tokenized", "false"]) == 0
    assert "look raw" not in capfd.readouterr().err


def test_a_plateau_counts_its_epochs_from_the_end_of_autoencoding():
    config = config_for(Path("corpus"), autoencode_epochs=2.0, epochs=4)
    optim = OptimConfig(lr=0.5, schedule="plateau", decay_from=2, patience=1)
    phases = Phases(replace(config, optim=optim), epoch_steps=10)
    assert not phases.observe(-1.0, 30)
    assert not phases.observe(-2.0, 39)  # worse, but before the second epoch with the KL
    assert phases.observe(-2.0, 40)


def test_the_cycles_of_the_kl_weight_are_those_asked_for():
    config = config_for(Path("corpus"), epochs=4)
    objective = replace(config.objective, kl_schedule="cyclical", kl_epochs=1.5, kl_ramp=0.2)
    phases = Phases(replace(config, objective=objective), epoch_steps=10)
    found = [phases.beta(step) for step in (0, 3, 14, 15)]  # cycles of 15 steps, of which 3 rise
    assert found == pytest.approx([0, 1, 1, 0])
