"""Training: what stops it, what resumes it bit for bit, and what it must not do."""

import itertools
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import in_child
from safetensors.torch import load_file

import textvae
from textvae.cli.main import main
from textvae.text.model import TextVAE
from textvae.training.update import Updater

CLOCKS = ("tokens_per_second", "seconds", "logged_at")  # differ between two runs
# Everything that has state: Adam, dropout everywhere, a cycle, accumulated batches, a plateau.
STATEFUL = [
    *("--optim.name", "adam", "--optim.lr", "0.01", "--train.accumulate", "2"),
    *("--objective.kl_schedule", "cyclical", "--objective.kl_epochs", "0.7"),
    *("--model.word_dropout", "0.3", "--optim.decay_from", "1", "--train.epochs", "4"),
    *("--train.log_every", "2", "--train.save_every", "2", "--train.evaluate_every", "1"),
]


def train(run: Path, options: list[str], **how) -> int:
    return in_child(["train", "--out", str(run), *options], **how)


def resume(run: Path, *options: str, **how) -> int:
    return in_child(["train", "--resume", str(run), *options], **how)


def lines(run: Path) -> list[dict]:
    """metrics.jsonl without anything that depends on the clock."""
    read = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in CLOCKS} for line in read]


def numbers(line: dict) -> dict[str, float]:
    return {k: v for k, v in line.items() if k != "group" and v is not None}


def state(run: Path) -> dict:
    return torch.load(run / "checkpoint" / "state.pt", weights_only=True)


def summary(run: Path) -> dict:
    return json.loads((run / "training.json").read_text())


def same(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a if k not in CLOCKS)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def assert_same_run(a: Path, b: Path) -> None:
    for key, value in state(a).items():
        assert key in CLOCKS or same(value, state(b)[key]), key
    assert lines(a) == lines(b)
    weights = [(run / "model.safetensors").read_bytes() for run in (a, b)]
    assert weights[0] == weights[1]
    assert not [path for run in (a, b) for path in run.rglob(".*.tmp")]


@pytest.fixture(scope="module")
def uninterrupted(tiny, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("uninterrupted") / "run"
    assert train(run, [*tiny, *STATEFUL]) == 0
    assert summary(run)["steps"] == 12
    return run


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def kill_at_update(number: int):
    """Breaks the child so that it dies inside its update ``number``."""

    def before() -> None:
        from textvae.training.phases import Phases

        original, calls = Phases.learning_rate, iter(range(10**6))

        def learning_rate(self, step):
            if sys._getframe(1).f_code.co_name == "update" and next(calls) == number:
                kill()
            return original(self, step)

        Phases.learning_rate = learning_rate

    return before


def kill_at_replace(number: int, name: str, after: bool):
    """Breaks the child so that it dies before or after it moves the file ``name`` into place."""

    def before() -> None:
        original, calls = os.replace, iter(range(10**6))

        def replace(source, target):
            hit = Path(target).name == name and next(calls) == number
            if hit and not after:
                kill()
            original(source, target)
            if hit:
                kill()

        os.replace = replace

    return before


def kill_in_half_a_write(number: int):
    """Breaks the child so that it dies when half of a checkpoint is written."""

    def before() -> None:
        original, calls = torch.save, iter(range(10**6))

        def save(state, file):
            original(state, file)
            if next(calls) == number:
                file.truncate(file.tell() // 2)
                kill()

        torch.save = save

    return before


@pytest.mark.parametrize(
    "broken",
    [
        kill_at_update(0),
        kill_at_update(5),
        kill_at_update(7),
        kill_in_half_a_write(0),
        kill_in_half_a_write(2),
        kill_at_replace(1, "state.pt", after=False),
        kill_at_replace(2, "state.pt", after=True),
        kill_at_replace(0, "model.safetensors", after=True),
        kill_at_replace(1, "metrics.jsonl", after=False),
    ],
    ids=[
        *("first-update", "between-saves", "after-an-epoch"),
        *(
            "half-first-state",
            "half-a-state",
            "before-state",
            "after-state",
            "after-best",
            "metrics",
        ),
    ],
)
def test_killed_and_resumed_is_bit_for_bit_uninterrupted(broken, uninterrupted, tiny, tmp_path):
    run = tmp_path / "run"
    status = train(run, [*tiny, *STATEFUL], before=broken)
    if status == 0:  # this kill needs a file that only a resumed run replaces
        shutil.rmtree(run)
        assert train(run, [*tiny, *STATEFUL], before=kill_at_update(5)) == -signal.SIGKILL
        status = resume(run, before=kill_at_replace(0, "metrics.jsonl", after=False))
    assert status == -signal.SIGKILL
    assert resume(run) == 0
    assert_same_run(run, uninterrupted)


def test_killed_twice_at_any_moment_by_the_clock(uninterrupted, tiny, tmp_path):
    run = tmp_path / "run"

    def kill_after_step(pid: int) -> None:
        while not (run / "metrics.jsonl").exists() or not (run / "metrics.jsonl").stat().st_size:
            time.sleep(0.001)
        os.kill(pid, signal.SIGKILL)

    assert train(run, [*tiny, *STATEFUL], meanwhile=kill_after_step) == -signal.SIGKILL
    assert resume(run, before=kill_at_update(3)) == -signal.SIGKILL
    assert resume(run) == 0
    assert_same_run(run, uninterrupted)


def signal_at_update(number: int, *signals: int):
    """Breaks the child so that signals reach it inside its update ``number``."""

    def before() -> None:
        import textvae.training.interrupt
        from textvae.training.update import Updater

        textvae.training.interrupt.SAME_SIGNAL = 0.0
        original, calls = Updater.update, iter(range(10**6))

        def update(*args):
            original(*args)
            if next(calls) == number:
                for one in signals:
                    os.kill(os.getpid(), one)
                    time.sleep(0.01)

        Updater.update = update

    return before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("step", [0, 4])
def test_asked_to_stop_it_saves_and_the_rest_is_as_if_uninterrupted(
    number, step, uninterrupted, tiny, tmp_path, capfd
):
    run = tmp_path / "run"
    assert train(run, [*tiny, *STATEFUL], before=signal_at_update(step, number)) == 130
    last = capfd.readouterr().err.splitlines()[-1]
    assert last == f"textvae: saved at step {step + 1}: continue with --resume {run}"
    assert state(run)["step"] == step + 1
    assert resume(run) == 0
    assert_same_run(run, uninterrupted)


def test_asked_twice_it_stops_immediately_and_keeps_what_was_saved(
    uninterrupted, tiny, tmp_path, capfd
):
    run = tmp_path / "run"
    stopping = signal_at_update(4, signal.SIGINT, signal.SIGINT)
    assert train(run, [*tiny, *STATEFUL], before=stopping) == 130
    error = capfd.readouterr().err
    assert "Traceback" not in error
    assert error.splitlines()[-1].startswith("textvae: stopped immediately")
    assert state(run)["step"] == 4
    assert resume(run) == 0
    assert_same_run(run, uninterrupted)


def test_the_same_in_a_separate_process(uninterrupted, tiny, tmp_path):
    run = tmp_path / "run"
    command = [sys.executable, "-m", "textvae", "train", "--out", str(run), *tiny, *STATEFUL]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            if line.startswith("step"):
                break
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert resume(run) == 0
    assert_same_run(run, uninterrupted)


def test_a_finished_run_is_unchanged_and_can_be_extended(uninterrupted, tmp_path, capfd):
    run = tmp_path / "run"
    shutil.copytree(uninterrupted, run)
    assert resume(run) == 0
    assert "is finished (all 12 steps done): nothing to do" in capfd.readouterr().err
    assert_same_run(run, uninterrupted)
    assert resume(run, "--optim.lr", "0.3") == 0
    assert "--optim.lr has no effect on a finished run" in capfd.readouterr().err
    assert_same_run(run, uninterrupted)
    assert len(list(run.glob("events*"))) == 1
    assert resume(run, "--train.epochs", "5") == 0
    assert summary(run)["steps"] == 15
    assert lines(run)[: len(lines(uninterrupted))] == lines(uninterrupted)


def test_optimizer_options_given_on_resume_take_effect(uninterrupted, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(uninterrupted, run)
    assert resume(run, "--train.epochs", "5", "--optim.weight_decay", "0.25") == 0
    assert state(run)["optimizer"]["param_groups"][0]["weight_decay"] == 0.25


def test_the_kl_weight_of_an_evaluation_is_that_of_the_updates_before_it(tiny, tmp_path):
    cycles = ["--objective.kl_schedule", "cyclical", "--objective.kl_epochs", "1"]
    assert train(tmp_path / "run", [*tiny, *cycles, "--train.epochs", "2"]) == 0
    weights = [line["beta"] for line in lines(tmp_path / "run") if line["group"] == "valid"]
    assert weights == [1.0, 1.0]  # not 0, where the next cycle starts


def test_accumulated_batches_are_one_larger_batch(tiny, tmp_path):
    still = ["--model.dropout_in", "0", "--model.dropout_out", "0", "--model.latent_dim", "0"]
    still += ["--train.epochs", "1", "--train.max_steps", "1", "--optim.clip", "0"]
    weights = []
    for name, size, count in (("large", 96, 1), ("small", 16, 6), ("uneven", 40, 3)):
        options = ["--data.batch_size", str(size), "--train.accumulate", str(count)]
        assert train(tmp_path / name, [*tiny, *still, *options]) == 0
        weights.append(state(tmp_path / name)["model"])
    for name, weight in weights[0].items():
        torch.testing.assert_close(weight, weights[1][name], msg=name)
        torch.testing.assert_close(weight, weights[2][name], msg=name)


@pytest.mark.parametrize(
    ("options", "steps", "evaluations"),
    [
        (["--train.epochs", "2"], 12, [6, 12]),
        (["--train.max_steps", "4"], 4, [4]),
        (["--train.evaluate_every", "0.5"], 12, [3, 6, 9, 12]),
        (["--train.evaluate_every", "0.01", "--train.max_steps", "3"], 3, [1, 2, 3]),
        (["--train.evaluate_every", "1.5"], 12, [9, 12]),
    ],
)
def test_number_of_steps_and_evaluations(options, steps, evaluations, tiny, tmp_path):
    assert train(tmp_path / "run", [*tiny, *options]) == 0
    assert summary(tmp_path / "run")["steps"] == steps
    assert [e["step"] for e in lines(tmp_path / "run") if e["group"] == "valid"] == evaluations


def test_the_last_line_suggests_a_split_that_there_is(tiny, corpus, tmp_path, capfd):
    folder = shutil.copytree(corpus, tmp_path / "two_splits")
    (folder / "test.txt").unlink()
    options = [*tiny, "--data.dir", str(folder), "--train.max_steps", "1"]
    assert train(tmp_path / "run", options) == 0
    suggested = f"textvae evaluate {tmp_path / 'run'} --split valid"
    assert f"next: {suggested}\n" in capfd.readouterr().err
    assert main([*suggested.split()[1:], "--samples", "1", "--generations", "0"]) == 0


def test_a_resumed_run_says_what_has_changed(tiny, tmp_path, capfd):
    run = tmp_path / "run"
    assert train(run, [*tiny, "--train.max_steps", "1"]) == 0
    capfd.readouterr()
    assert resume(run, "--train.max_steps", "2", "--optim.lr", "0.25") == 0
    said = capfd.readouterr().err
    assert "--optim.lr: 0.25, before 1" in said and "--train.max_steps: 2, before 1\n" in said


def test_early_stopping(tiny, tmp_path):
    options = ["--optim.lr", "1e-30", "--train.early_stopping", "2", "--train.epochs", "9"]
    assert train(tmp_path / "run", [*tiny, *options]) == 0
    assert summary(tmp_path / "run")["finished"] == "stopped early: no improvement in 2 evaluations"
    assert summary(tmp_path / "run")["steps"] == 18


REFINED = [
    *("--inference.steps", "2", "--model.dropout_in", "0.3", "--inference.token_share", "0.5"),
    *("--train.log_every", "2", "--train.save_every", "2", "--train.max_steps", "8"),
]


@pytest.mark.parametrize("method", ["semi_amortized", "svi"])
def test_refined_training_resumes_bit_for_bit_and_shows_its_gap(method, tiny, tmp_path):
    options = [*tiny, *REFINED, "--inference.method", method]
    options += ["--model.encoder_layers", "0" if method == "svi" else "1"]
    assert train(tmp_path / "whole", options) == 0
    assert train(tmp_path / "killed", options, before=kill_at_update(5)) == -signal.SIGKILL
    assert resume(tmp_path / "killed") == 0
    assert_same_run(tmp_path / "whole", tmp_path / "killed")
    logged = lines(tmp_path / "whole")
    assert any(line["gap"] != 0 for line in logged if line["group"] == "train")
    valid = [line for line in logged if line["group"] == "valid"]
    assert all(line["refine_steps"] == 2 for line in valid)
    assert all(("gap" in line) == (method != "svi") for line in valid)
    assert TextVAE.from_pretrained(tmp_path / "whole").inference.method == method


@pytest.mark.parametrize("encoder", ["unrolled", "elbo", "kl"])
def test_every_encoder_loss_trains_every_weight(encoder, tiny, tmp_path):
    options = [*tiny, *REFINED, "--inference.method", "semi_amortized"]
    assert train(tmp_path / "run", [*options, "--inference.encoder", encoder]) == 0
    before = train(tmp_path / "none", [*options, "--train.max_steps", "1", "--optim.lr", "1e-9"])
    assert before == 0
    start = state(tmp_path / "none")["model"]
    for name, weight in state(tmp_path / "run")["model"].items():
        assert (weight - start[name]).abs().max() > 1e-6, name


def own_objective(terms, beta):
    return beta * terms.kl.sum(-1).mean() - terms.rec.mean()


@pytest.mark.parametrize("encoder", ["unrolled", "elbo", "kl"])
def test_an_objective_of_ones_own_trains_the_encoder_as_elbo_does(encoder, tiny, tmp_path):
    options = [*tiny, *REFINED, "--inference.method", "semi_amortized"]
    assert train(tmp_path / "run", [*options, "--inference.encoder", encoder]) == 0
    config = textvae.Config.load(tmp_path / "run" / "config.yaml")
    textvae.train(config, tmp_path / "own", objective=own_objective)
    expected = state(tmp_path / "run")["model"]
    for name, weight in state(tmp_path / "own")["model"].items():
        assert torch.equal(weight, expected[name]), name


def test_lagging_encoder_goes_back_to_the_best_weights(tiny, tmp_path):
    options = ["--optim.lr", "100", "--optim.clip", "0", "--optim.decay_from", "1"]
    options += ["--optim.reload_best", "true", "--optim.max_decays", "1", "--train.epochs", "9"]
    options += ["--optim.decay_every", "false", "--optim.name", "adam", "--optim.lr", "5"]
    run = tmp_path / "run"
    assert train(run, [*tiny, *options]) == 0
    assert "reduced 1 times" in summary(run)["finished"]
    best = TextVAE.from_pretrained(run).state_dict()
    assert all(torch.equal(weight, best[name]) for name, weight in state(run)["model"].items())
    assert state(run)["optimizer"]["state"] == {}


def test_the_best_model_is_the_best_evaluation(uninterrupted):
    elbos = [e["elbo"] for e in lines(uninterrupted) if e["group"] == "valid"]
    assert summary(uninterrupted)["best_valid_elbo"] == max(elbos)


def test_with_another_kl_weight_the_best_model_is_the_best_in_what_is_trained(
    tiny, tmp_path, capfd
):
    options = ["--objective.beta", "0.05", "--objective.kl_schedule", "constant"]
    assert train(tmp_path / "run", [*tiny, *options, "--train.evaluate_every", "0.5"]) == 0
    cards = [e for e in lines(tmp_path / "run") if e["group"] == "valid"]
    best = max(card["rec"] - 0.05 * card["kl"] for card in cards)
    assert best != max(card["elbo"] for card in cards)
    assert f"best validation rec - 0.05 kl {best:.2f}" in capfd.readouterr().err
    assert summary(tmp_path / "run")["best_valid_elbo"] is None


def test_the_last_model_can_be_kept_instead_of_the_best(tiny, tmp_path, capfd):
    worse = ["--optim.lr", "3", "--train.evaluate_every", "0.5", "--train.epochs", "2"]
    for keep in ("best", "last"):
        assert train(tmp_path / keep, [*tiny, *worse, "--train.keep", keep]) == 0
    last = summary(tmp_path / "last")
    assert last["best_step"] == last["steps"] > summary(tmp_path / "best")["best_step"]
    said = capfd.readouterr().err
    assert f"at step {summary(tmp_path / 'best')['best_step']}, whose model is kept" in said
    assert said.count("whose model is kept") == 1
    weights = [load_file(tmp_path / keep / "model.safetensors") for keep in ("best", "last")]
    assert any(not torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    kept = state(tmp_path / "last")["model"]
    assert all(torch.equal(weight, weights[1][name]) for name, weight in kept.items())
    options = ["--train.keep", "last", "--optim.reload_best", "true"]
    assert train(tmp_path / "both", [*tiny, *options]) == 2
    assert "--optim.reload_best goes back to the best model" in capfd.readouterr().err


def test_resumed_with_another_kl_weight_the_search_for_the_best_model_starts_again(
    tiny, tmp_path, capfd
):
    run = tmp_path / "run"
    first = ["--objective.beta", "0", "--objective.kl_start", "0", "--train.max_steps", "6"]
    assert train(run, [*tiny, *first]) == 0
    assert resume(run, "--objective.beta", "1", "--train.max_steps", "12") == 0
    assert "the weight or the free nats of the KL changed" in capfd.readouterr().err
    later = [e["elbo"] for e in lines(run) if e["group"] == "valid" and e["step"] > 6]
    assert summary(run)["best_valid_elbo"] == max(later)
    steps = [e["step"] for e in lines(run) if e["group"] == "valid" and e["elbo"] == max(later)]
    assert summary(run)["best_step"] == steps[0]


def test_bf16_on_a_cpu_trains(tiny, tmp_path):
    assert train(tmp_path / "run", [*tiny, "--train.precision", "bf16"]) == 0
    assert all(math.isfinite(e["loss"]) for e in lines(tmp_path / "run") if e["group"] == "train")
    assert all(
        weight.dtype == torch.float32 for weight in state(tmp_path / "run")["model"].values()
    )


def test_fp16_on_a_cpu_is_refused(tiny, tmp_path, capfd):
    if torch.cuda.is_available():
        pytest.skip("a GPU can")
    assert train(tmp_path / "run", [*tiny, "--train.precision", "fp16"]) == 2
    error = capfd.readouterr().err
    assert error == (
        "textvae: --train.precision fp16 is not supported on this machine: use fp32 or bf16\n"
    )


def poison(number: int, weight: bool):
    """Breaks the child: a weight, or the loss, is NaN from update ``number`` on."""

    def before() -> None:
        from textvae.training.update import Updater

        original, calls = Updater.update, iter(range(10**6))

        def poisoned(self, *args):
            call, objective = next(calls), self.objective
            if not weight and call >= number:
                self.objective = lambda terms, beta: objective(terms, beta) * math.nan
            original(self, *args)
            self.objective = objective
            if weight and call == number:
                next(self.model.parameters()).data[0, 0] = math.inf

        Updater.update = poisoned

    return before


@pytest.mark.parametrize("weight", [False, True], ids=["loss", "weight"])
def test_nan_stops_with_one_line_and_leaves_the_last_good_checkpoint(weight, tiny, tmp_path, capfd):
    run = tmp_path / "run"
    assert train(run, [*tiny, "--train.save_every", "1"], before=poison(7, weight)) == 2
    error = capfd.readouterr().err
    assert "Traceback" not in error
    said = "textvae: the loss, its gradient, or a weight is not"
    assert error.splitlines()[-1].startswith(said)
    assert "--optim.lr" in error and "continue with --resume" in error
    assert state(run)["step"] == 7  # the next log line would be at 9
    assert all(bool(weight.isfinite().all()) for weight in state(run)["model"].values())
    assert all(bool(p.isfinite().all()) for p in TextVAE.from_pretrained(run).parameters())
    assert all(math.isfinite(e["loss"]) for e in lines(run) if e["group"] == "train")
    assert resume(run) == 0


def test_an_absurd_learning_rate_ends_in_one_line(tiny, tmp_path, capfd):
    run = tmp_path / "run"
    assert train(run, [*tiny, "--optim.lr", "1e30", "--optim.clip", "0"]) == 2
    error = capfd.readouterr().err
    assert "Traceback" not in error
    assert f"there is no checkpoint in {run} yet" in error
    assert not (run / "checkpoint").exists() and not (run / "model.safetensors").exists()


@pytest.mark.slow
def launch_two(*options: str) -> str:
    """Train in two processes; return what they logged."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    command += ["--standalone", "-m", "textvae", "train", *options]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_two_processes_are_one_process_on_the_joined_batch(tiny, tmp_path):
    still = ["--model.dropout_in", "0", "--model.dropout_out", "0", "--model.latent_dim", "0"]
    assert train(tmp_path / "one", [*tiny, *still, "--data.batch_size", "16"]) == 0

    options = [*tiny, *still, "--data.batch_size", "8"]
    said = launch_two("--out", str(tmp_path / "two"), *options, "--train.max_steps", "8")
    assert said.count("steps per epoch") == 1  # only one process logs
    launch_two("--resume", str(tmp_path / "two"), "--train.max_steps", "12")
    assert summary(tmp_path / "two")["processes"] == 2
    assert len(list((tmp_path / "two").glob("events*"))) == 2  # one for each launch
    one, two = lines(tmp_path / "one"), lines(tmp_path / "two")
    two = [e for e in two if e["group"] == "train" or e["step"] != 8]  # the end of the first part
    for ours, theirs in zip(one, two, strict=True):
        assert numbers(theirs) == pytest.approx(numbers(ours), rel=1e-4, abs=1e-6)
    for name, weight in state(tmp_path / "one")["model"].items():
        torch.testing.assert_close(weight, state(tmp_path / "two")["model"][name], msg=name)


def test_two_processes_cannot_train_in_one_folder(tiny, tmp_path):
    run = tmp_path / "run"

    def try_to_join() -> None:
        """In the first child, inside its first update: a second process resumes the same run."""
        from textvae.training.update import Updater

        original = Updater.update

        def update(*args):
            Updater.update = original
            command = [sys.executable, "-m", "textvae", "train", "--resume", str(run)]
            done = subprocess.run(command, capture_output=True, text=True)
            (tmp_path / "said").write_text(f"{done.returncode} {done.stderr}")
            return original(*args)

        Updater.update = update

    assert train(run, [*tiny, "--train.epochs", "1"], before=try_to_join) == 0
    said = (tmp_path / "said").read_text()
    assert said.startswith(f"2 textvae: {run} is in use by another process (")
    assert len(said.splitlines()) == 1
    assert resume(run, "--train.epochs", "2") == 0  # and the lock is free again


def test_a_corpus_whose_name_is_not_utf_8(tiny, corpus, tmp_path):
    shutil.copytree(corpus, tmp_path / "\udc80")  # the byte 0x80
    options = ["--train.epochs", "1", "--data.dir", str(tmp_path / "\udc80")]
    assert train(tmp_path / "run", [*tiny, *options]) == 0
    assert resume(tmp_path / "run", "--train.epochs", "2") == 0


def test_a_run_stopped_before_its_first_evaluation_is_not_finished(tiny, tmp_path, capfd):
    run = tmp_path / "run"
    options = ["--train.save_every", "2", "--train.evaluate_every", "2"]
    assert train(run, [*tiny, *options], before=kill_at_update(5)) != 0
    assert resume(run, "--train.max_steps", "3") == 2
    said = capfd.readouterr().err.splitlines()[-1]
    assert "was stopped at step 4, before its first evaluation, and has no model yet" in said
    assert "resume it for more than 3 steps" in said
    assert resume(run) == 0


def test_a_failed_start_leaves_no_folder_of_its_own(tiny, tmp_path):
    wrong = [*tiny, "--data.dir", str(tmp_path / "nowhere")]
    assert train(tmp_path / "run", wrong) == 2
    assert not (tmp_path / "run").exists()
    (tmp_path / "there").mkdir()
    assert train(tmp_path / "there", wrong) == 2
    assert list((tmp_path / "there").iterdir()) == []


def test_a_tilde_in_out_is_the_home_folder(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert train("~/mine", [*tiny, "--train.max_steps", "1"]) == 0
    assert (tmp_path / "mine" / "model.safetensors").is_file() and not (tmp_path / "~").exists()


def test_every_example_counts_the_same_whatever_the_process_of_its_batch():
    def updater(others: float) -> Updater:
        made = Updater.__new__(Updater)
        made.accelerator = SimpleNamespace(
            num_processes=2, device="cpu", reduce=lambda mine, _: (mine + others) / 2
        )
        return made

    shares = [updater(1.0)._share_of_examples(32), updater(32.0)._share_of_examples(1)]
    assert shares == pytest.approx([32 / 16.5, 1 / 16.5])  # of which the mean gradient is made


def test_every_update_of_every_process_has_noise_of_its_own():
    made, seen = Updater.__new__(Updater), set()
    for seed, rank in itertools.product(range(2), range(2)):
        made.config = SimpleNamespace(train=SimpleNamespace(seed=seed))
        made.accelerator = SimpleNamespace(num_processes=2, process_index=rank)
        seen |= {made._noise_seed(*at) for at in itertools.product(range(5), range(3))}
    assert len(seen) == 2 * 2 * 5 * 3 and all(0 <= number < 2**63 for number in seen)


def test_a_validation_split_that_equals_the_training_split_is_announced(
    tiny, corpus, tmp_path, capfd
):
    shutil.copytree(corpus, tmp_path / "corpus")
    shutil.copyfile(corpus / "train.txt", tmp_path / "corpus" / "valid.txt")
    options = [*tiny, "--data.dir", str(tmp_path / "corpus"), "--train.max_steps", "1"]
    assert train(tmp_path / "run", options) == 0
    said = capfd.readouterr().err
    assert "the valid split is the training split" in said and "the test split" not in said
    assert "valid: 100%" not in said  # once is enough


def test_two_processes_choose_their_precision_together(tiny, tmp_path):
    run = tmp_path / "run"
    launch_two("--out", str(run), *tiny, "--train.precision", "auto", "--train.max_steps", "2")
    assert summary(run)["processes"] == 2
