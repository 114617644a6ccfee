"""The run folder: complete files only, clear messages for broken ones, no unpickling."""

import errno
import fcntl
import json
import math
import os
import pickle
import platform
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import in_child
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from test_train import kill_at_update

from textvae import TextVAE
from textvae.config.combinations import changed_options, check_resumed
from textvae.config.experiment import Config, TrainConfig
from textvae.errors import UserError
from textvae.runs import files, origin, run_folder, run_start
from textvae.runs.files import (
    as_json,
    check_replaceable,
    expanded,
    json_line,
    quoted,
    read_record,
    remove_leftovers,
    replace_file,
    write_json,
)
from textvae.runs.lock import locked
from textvae.runs.weights import holds_weights
from textvae.training.checkpoint import OPTIONAL, TrainingState, check_state
from textvae.training.monitor import Monitor

CPU = torch.device("cpu")
LONGER = ["--train.epochs", "3"]
HOLD = """
import sys, time
from pathlib import Path
from textvae.runs.lock import locked
from textvae.runs.weights import holds_weights
with locked(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def run(trained, tmp_path) -> Path:
    """A copy of a finished run that tests may break."""
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"


def resume(run: Path, *options: str, **how) -> int:
    return in_child(["train", "--resume", str(run), *options], **how)


def one_line(capfd) -> str:
    """The message of a command that failed."""
    last = capfd.readouterr().err.splitlines()
    assert not any(line.startswith("Traceback") for line in last)
    assert last[-1].startswith("textvae: ")
    return last[-1]


def fingerprint(run: Path) -> dict[str, bytes]:
    return {str(p.relative_to(run)): p.read_bytes() for p in run.rglob("*") if p.is_file()}


def test_a_run_folder_holds_what_the_docstring_says(trained):
    files = {str(p.relative_to(trained)) for p in trained.rglob("*") if p.is_file()}
    named = {"config.yaml", "config.json", "model.safetensors", "tokenizer.json", "README.md"}
    named |= {"inference.json"}
    named |= {"checkpoint/state.pt", "metrics.jsonl", "versions.json"}
    named |= {"metrics/test.json", "metrics/test-iw.safetensors"}
    board = ("events.out.tfevents", "projector")
    assert named | {"training.json"} == {f for f in files if not f.startswith(board)}
    versions = json.loads((trained / "versions.json").read_text())
    assert [len(versions[key]) for key in ("corpus_hash", "valid_hash", "test_hash")] == [64] * 3
    assert versions["torch"] == torch.__version__.partition("+")[0] or versions["torch"]


def test_the_state_is_tensors_and_numbers_only(trained):
    state = run_folder.load_state(trained)  # weights_only
    assert state["step"] == 12
    assert state["loader"] == {"epoch": 2, "next_batch": 0}


def test_a_state_that_would_run_code_is_not_loaded(run):
    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (str(run / "exploded"),))

    with (run / "checkpoint" / "state.pt").open("wb") as file:
        pickle.dump(Bomb(), file)
    with pytest.raises(UserError, match="was not written by textvae"):
        run_folder.load_state(run)
    assert not (run / "exploded").exists()


@pytest.mark.parametrize("content", ["", "half", "{}", "foreign"])
def test_a_broken_state(content, run, capfd):
    path = run / "checkpoint" / "state.pt"
    if content == "half":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif content == "foreign":
        torch.save({"epoch": 3, "model": {}}, path)
    else:
        path.write_text(content)
    before = fingerprint(run)
    assert resume(run, *LONGER) == 2
    assert "state.pt is truncated or was not written by textvae, so the run" in one_line(capfd)
    assert fingerprint(run) == before


@pytest.mark.parametrize(
    ("name", "value"),
    [("model", 3), ("optimizer", []), ("tally", "x"), ("loader", 1), ("lr", None), ("step", "x")],
)
def test_a_state_with_wrong_values_under_the_right_names(name, value, run, capfd):
    path = run / "checkpoint" / "state.pt"
    torch.save({**torch.load(path, weights_only=True), name: value}, path)
    before = fingerprint(run)
    assert resume(run, *LONGER) == 2
    assert "does not fit the config" in one_line(capfd)
    assert fingerprint(run) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model.latent_dim", "5"], "--model.latent_dim 5: "),
        (["--model.condition", "label"], "began with none, and its weights belong to that"),
        (["--model.pooling", "mean"], "began with last, and its weights belong to that model"),
        (["--model.init_scale", "7"], "and it only takes effect when a run starts"),
        (["--train.init", "another"], "and it only takes effect when a run starts"),
        (
            ["--train.seed", "3"],
            "began with 0, and it drew its first weights and",
        ),
        (["--optim.name", "adam", "--data.batch_size", "9"], "steps per epoch and would now have"),
        (["--train.accumulate", "2"], "steps per epoch and would now have"),
        (["--model.dropout_in", "2"], "dropout_in"),
    ],
)
def test_a_run_that_cannot_be_resumed_with_these_options_is_unchanged(options, message, run, capfd):
    before = fingerprint(run)
    assert resume(run, *LONGER, *options) == 2
    assert message in one_line(capfd)
    assert fingerprint(run) == before


def test_a_different_corpus_is_refused_but_not_the_same_one_elsewhere(run, corpus, tmp_path, capfd):
    other, moved = tmp_path / "other", tmp_path / "moved"
    before = fingerprint(run)
    shutil.copytree(corpus, moved)
    for split in ("train", "valid"):
        shutil.copytree(corpus, other, dirs_exist_ok=True)
        with (other / f"{split}.txt").open("a") as file:
            file.write("1\tone more sentence\n")
        assert resume(run, *LONGER, "--data.dir", str(other)) == 2
        said = f"{other}: the {split} split is not the one that {run} was trained with"
        assert said in one_line(capfd)
        assert fingerprint(run) == before
    assert resume(run, *LONGER, "--data.dir", str(moved)) == 0


@pytest.mark.parametrize(
    "change",
    [["--data.max_length", "5"], ["--data.tokenized", "false"], ["--tokenizer.kind", "char"]],
)
def test_a_resumed_run_keeps_its_tokens_and_examples(run, change, capfd):
    before = fingerprint(run)
    assert resume(run, *LONGER, *change) == 2
    line = one_line(capfd)
    assert line.startswith(f"textvae: {change[0]} ") and f": {run} began with " in line
    assert fingerprint(run) == before


CHANGES = [
    *({"data": {name: "x"}} for name in ("dir", "train", "test", "text_column", "cache_dir")),
    *({"data": {"max_tokens": 500}}, {"data": {"batch_size": 7}}, {"data": {"equal_length": True}}),
    *({"model": {name: 0.3}} for name in ("dropout_in", "dropout_out", "word_dropout")),
    *({"model": {"encoder_noise": "mask"}}, {"model": {"encoder_noise_rate": 0.7}}),
    *({"train": {"epochs": 3}}, {"train": {"procedure": "aggressive"}}, {"optim": {"lr": 0.3}}),
    *({"objective": {"beta": 0.3}}, {"inference": {"steps": 3}}),
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_what_a_resumed_run_may_change(change, tmp_path):
    ((section, options),) = change.items()
    now = Config.load(**change)
    check_resumed(Config(), now, tmp_path)
    changed = [] if section == "data" else [f"--{section}.{name}" for name in options]
    assert changed_options(Config(), now) == changed


@pytest.mark.parametrize(
    ("name", "value"),
    [("init_embedding", 0.3), ("init_parts", "encoder"), ("init_embeddings", "x")],
)
def test_what_only_the_start_of_a_run_reads_is_not_changed(name, value, tmp_path):
    section = "model" if name == "init_embedding" else "train"
    with pytest.raises(UserError, match=f"{name} {value}: .* only takes effect when a run starts"):
        check_resumed(Config(), Config.load(**{section: {name: value}}), tmp_path)


def test_a_tokenizer_may_be_named_in_another_way(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run, started = tmp_path / "run", tmp_path / "started"
    for folder in (run, started):
        folder.mkdir()
    write_json(run / "versions.json", {"directory": str(started)})

    def check(path):
        before, now = (Config.load(tokenizer={"path": each}) for each in ("mine", path))
        check_resumed(before, now, run)

    check("started/mine")  # now the command runs in another folder
    check(str(started / "mine" / "tokenizer.json"))
    for other in ("started/other", None):
        with pytest.raises(UserError, match=r"--tokenizer\.path .* began with mine"):
            check(other)


@pytest.mark.parametrize(
    "option, restarts",
    [("--objective.beta 0.5", True), ("--objective.free_bits 2", True), ("--optim.lr 0.1", False)],
)
def test_elbos_of_another_objective_are_not_compared(option, restarts, run, capfd):
    assert resume(run, *LONGER, *option.split()) == 0
    assert ("model selection starts over" in capfd.readouterr().err) == restarts
    summary = json.loads((run / "training.json").read_text())
    assert (summary["best_valid_elbo"] is None) == restarts


@pytest.fixture
def progress(tmp_path):
    """A training after 12 of 12 steps, 4 of them of autoencoding."""
    found, lr = TrainingState(), SimpleNamespace(exhausted=lambda: None, stale=1)
    found.phases = SimpleNamespace(lr=lr, autoencode_steps=4)
    found.step = found.total_steps = 12
    found.epoch_steps, found.run = 5, tmp_path
    found.config = Config(train=TrainConfig(early_stopping=2))
    return found


def test_why_a_training_stops(progress):
    assert progress.why_done() == "all 12 steps done"
    progress.total_steps = 11
    assert progress.why_done() == "12 steps done, more than the 11 asked for"
    progress.total_steps = 13
    assert progress.why_done() is None and progress.epoch == 2.4
    progress.phases.lr.stale = 2
    assert progress.why_done() == "stopped early: no improvement in 2 evaluations"
    progress.phases.lr.exhausted = lambda: "too low"
    assert progress.why_done() == "stopped by the learning-rate rule: too low"


def test_the_first_decoder_is_kept_until_autoencoding_has_ended(progress):
    assert [progress._decoder_is_needed(step) for step in (0, 3, 4, 5)] == [True] * 3 + [False]
    progress.phases.autoencode_steps = 0
    assert not progress._decoder_is_needed(0)


def test_autoencoding_may_be_moved_until_it_ends(progress):
    for step, before in ((4, 4), (4, 9), (3, 3), (12, 4)):
        progress._check_steps({"epoch_steps": 5, "step": step, "autoencode_steps": before})
    for step, before in ((5, 9), (4, 3), (1, 0)):
        with pytest.raises(UserError, match="past the end of its autoencoding"):
            progress._check_steps({"epoch_steps": 5, "step": step, "autoencode_steps": before})


def test_numbers_that_older_checkpoints_lack_may_be_missing(trained):
    state = torch.load(trained / "checkpoint" / "state.pt", weights_only=True)
    check_state({name: value for name, value in state.items() if name not in OPTIONAL})
    assert state.keys() >= OPTIONAL
    for name in ("step", "epoch_steps", "seconds", "lr", "loader"):
        with pytest.raises(ValueError, match=name):
            check_state({key: value for key, value in state.items() if key != name})


def test_a_start_that_fails_on_a_foreign_record_leaves_no_run(tiny, tmp_path, capfd):
    out = tmp_path / "out"
    out.mkdir()
    (out / "versions.json").write_text("[1]")
    assert in_child(["train", *tiny, "--out", str(out)]) == 2
    assert str(out / "versions.json") in one_line(capfd)
    assert not (out / "config.yaml").exists()


def test_the_same_command_starts_and_resumes(tiny, run, tmp_path, capfd):
    out = tmp_path / "requeued"
    command = ["train", *tiny, "--out", str(out), "--resume-or-start"]
    assert in_child([*command, "--train.max_steps", "6"]) == 0
    assert json.loads((out / "training.json").read_text())["steps"] == 6
    assert in_child([*command, "--train.max_steps", "12"]) == 0
    weights = (out / "model.safetensors").read_bytes()
    assert weights == (run / "model.safetensors").read_bytes()  # 12 steps without interruption
    assert in_child(["train", *tiny, "--resume-or-start"]) == 2
    assert "--resume-or-start needs --out RUN" in one_line(capfd)


def test_two_trainings_cannot_share_a_folder(run, capfd):
    before = fingerprint(run)
    with locked(run):
        assert resume(run, *LONGER) == 2
        assert f"{run} is in use by another process ({os.getpid()} on " in one_line(capfd)
    assert not (run / ".lock").exists()
    assert fingerprint(run) == before
    assert resume(run, *LONGER) == 0
    assert not (run / ".lock").exists()


def test_the_lock_of_a_killed_training_is_free(run):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(run)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "locked\n"
    with pytest.raises(UserError, match="in use by another process"), locked(run):
        pass
    holder.kill()
    holder.wait()
    assert (run / ".lock").exists()
    with locked(run):
        pass
    assert not (run / ".lock").exists()


def test_a_full_disk_does_not_keep_a_folder_from_being_locked(run, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    with locked(run), pytest.raises(UserError, match="in use by another process"), locked(run):
        pass


def test_the_holder_of_a_lock_is_not_mixed_with_the_one_before(run):
    (run / ".lock").write_text("process (1 on a machine with a very long name, which died)")
    with locked(run):
        assert (run / ".lock").read_text() == f"process ({os.getpid()} on {platform.node()})"


def test_without_locks_training_goes_on(run, monkeypatch, caplog):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with locked(run):
        assert not (run / ".lock").exists()
    assert "cannot be locked (No locks available)" in caplog.text


WRONG_NUMBERS = {
    "step": [-1, 1.5, "3", None, True],
    "epoch_steps": [0],
    "seconds": [math.nan, math.inf, -1.0],
    "loader.next_batch": [-1, None],
    "lr.scale": [math.nan, "x"],
    "lr.best": [math.nan, math.inf],
    "lr.stale": [-1, 0.5],
    "lr": [None, 3, []],
}


@pytest.mark.parametrize(
    "path, value", [(path, value) for path, values in WRONG_NUMBERS.items() for value in values]
)
def test_wrong_numbers_in_a_checkpoint_are_one_line(run, path, value, capfd):
    state = torch.load(run / "checkpoint" / "state.pt", weights_only=True)
    check_state(state)
    *parts, last = path.split(".")
    inner = state[parts[0]] if parts else state
    inner[last] = value
    torch.save(state, run / "checkpoint" / "state.pt")
    assert resume(run, *LONGER) == 2
    assert f"the checkpoint in {run} does not fit the config" in one_line(capfd)


DAMAGED_LINES = [
    '{"step": 1, "epoch": 1e999, "group": "valid", "elbo": -3.0}',
    '{"step": 2, "epoch": 1.0, "group": "valid", "elbo": -Infinity, "kl": NaN, "mi": 1e999}',
    '{"step": 2, "epoch": 1.0, "group": "valid", "kl_per_dim": [1.0]}',
    '{"step": 2, "epoch": 1.0, "group": "valid", "kl_per_dim": [1.0, "x", null, 2.0]}',
    '{"step": 2, "epoch": 1.0, "group": "train", "beta": ' + "9" * 400 + "}",
]


def test_damaged_lines_of_a_log_are_left_out(run, capfd):
    whole = run_folder.read_log(run)
    with (run / "metrics.jsonl").open("a") as file:
        file.writelines(f"{line}\n" for line in DAMAGED_LINES)
    found = run_folder.read_log(run)
    assert found[: len(whole)] == whole and len(found) == len(whole) + 4
    assert not any(key in record for record in found[len(whole) :] for key in ("elbo", "beta"))
    assert in_child(["diagnose", str(run)]) == 0
    assert in_child(["report", str(run), "--out", str(run / "report.html"), "--limit", "5"]) == 0
    assert resume(run, *LONGER) == 0


def test_weights_that_are_too_large_or_not_numbers_are_refused(run, capfd):
    path = run / "model.safetensors"
    with safe_open(path, "pt") as file:
        about = file.metadata()
    weights = load_file(path)
    name = next(iter(weights))
    for wrong, message in (
        (torch.full_like(weights[name], 3e38), f"is damaged: {name} has values above 1e+09"),
        (torch.ones_like(weights[name]).long(), f"{name} is torch.int64 where torch.float32 is"),
    ):
        save_file(weights | {name: wrong}, path, about)
        assert in_child(["sample", str(run)]) == 2
        assert message in one_line(capfd)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "inference.json"])
def test_deep_nesting_is_one_line(run, name, capfd):
    (run / name).write_text("[" * 100_000)
    assert in_child(["sample", str(run)]) == 2
    assert f"{run / name}" in one_line(capfd)


def test_too_many_layers_are_one_line(run, capfd):
    config = json.loads((run / "config.json").read_text())
    write_json(run / "config.json", config | {"encoder_layers": 100_000})
    assert in_child(["sample", str(run)]) == 2
    assert "encoder_layers 100000: must be at least 0 and at most 1000" in one_line(capfd)


def test_weights_that_are_not_finite_are_refused(run, capfd):
    weights = load_file(run / "model.safetensors")
    next(iter(weights.values())).view(-1)[0] = math.nan
    with safe_open(run / "model.safetensors", "pt") as file:
        save_file(weights, run / "model.safetensors", file.metadata())
    assert in_child(["sample", str(run)]) == 2
    assert "is damaged: " in (line := one_line(capfd)) and "not finite" in line


def test_a_checkpoint_that_is_not_finite_is_refused(run, capfd):
    state = torch.load(run / "checkpoint" / "state.pt", weights_only=True)
    next(iter(state["model"].values())).view(-1)[0] = math.nan
    torch.save(state, run / "checkpoint" / "state.pt")
    assert resume(run, *LONGER) == 2
    line = one_line(capfd)
    assert "weights or sums that are not finite" in line and "continue with" not in line


@pytest.mark.parametrize(
    "name, shown",
    [("a b", "'a b'"), ("-x", "./-x"), ("$HOME", "'$HOME'"), ("runs/vae", "runs/vae")],
)
def test_paths_can_be_pasted_into_a_shell(name, shown):
    assert quoted(name) == shown


def test_the_commit_is_that_of_this_project_only(tmp_path, monkeypatch):
    here = origin.commit()
    monkeypatch.setenv("GIT_DIR", str(tmp_path))
    assert origin.commit() == here
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True, env={"PATH": os.defpath})
    (tmp_path / "origin.py").touch()  # not tracked, as in a project's .venv
    monkeypatch.setattr(origin, "__file__", str(tmp_path / "origin.py"))
    assert origin.commit() is None


@pytest.mark.parametrize("damage", [b"\xff\xfe\n", b"[]\n", b"3\n", b'{"step": "x"}\n'])
def test_a_damaged_log_does_not_stop_a_resumed_run(run, damage):
    log = run / "metrics.jsonl"
    log.write_bytes(damage + log.read_bytes())
    assert resume(run, *LONGER) == 0
    steps = [json.loads(line)["step"] for line in log.read_text().splitlines()]
    assert steps == sorted(steps)


def test_a_finished_run_is_unchanged_and_a_resumed_one_keeps_its_commands(run):
    before = fingerprint(run)
    assert resume(run) == 0
    assert fingerprint(run) == before
    assert resume(run, *LONGER) == 0
    first, _ = json.loads((run / "versions.json").read_text())["command"].split("\n")
    assert first == json.loads(before["versions.json"])["command"]


def test_stopped_before_the_first_checkpoint_it_starts_again(run, tmp_path):
    shutil.rmtree(run / "checkpoint")
    (run / "training.json").unlink()
    assert run_folder.load_state(run) is None
    assert resume(run) == 0
    assert run_folder.load_state(run)["step"] == 12


def test_a_run_that_was_killed_after_its_last_checkpoint_is_finished(run):
    path = run / "training.json"
    summary = json.loads(path.read_text())
    path.write_text(json.dumps(summary | {"finished": None, "steps": 6}))
    assert resume(run) == 0
    again = json.loads(path.read_text())
    assert (again["finished"], again["steps"]) == (summary["finished"], summary["steps"])


def test_no_run_folder(tmp_path):
    with pytest.raises(UserError, match="is not a run folder"):
        run_folder.load_state(tmp_path)


def test_a_run_or_a_model_is_never_overwritten(trained, tmp_path):
    with pytest.raises(UserError, match="already holds a run: continue it with --resume"):
        run_start.check_new(trained)
    shutil.copy(trained / "model.safetensors", tmp_path)
    with pytest.raises(UserError, match="already holds a model"):
        run_start.check_new(tmp_path)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "metrics.jsonl"])
def test_a_file_of_somebody_else_is_not_replaced(name, tiny, tmp_path, capfd):
    (tmp_path / name).write_text("mine")
    (tmp_path / "README.md").write_text("mine")
    command = ["train", "--out", str(tmp_path), *tiny, "--train.max_steps", "1"]
    assert in_child(command) == 2
    assert f"{name} exists, and training would replace it: choose another" in one_line(capfd)
    assert {path.name for path in tmp_path.iterdir()} == {name, "README.md"}
    (tmp_path / name).unlink()
    assert in_child([*command, "--train.init_embeddings", str(tmp_path / "nothing")]) == 2
    assert {path.name for path in tmp_path.iterdir()} == {"README.md"}
    assert in_child(command) == 0
    assert (tmp_path / "README.md").read_text() == "mine"


def test_a_killed_start_leaves_no_tokenizer_for_the_next(tiny, corpus, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    foreign = {"version": 1, "kind": "char", "tokens": ["<pad>"]}
    (run / "tokenizer.json").write_text(json.dumps(foreign))
    (run / ".lock").touch()
    assert in_child(["train", "--out", str(run), *tiny, "--train.max_steps", "1"]) == 0
    assert json.loads((run / "tokenizer.json").read_text())["kind"] == "word"


def fail_to_start(run: Path, *written: str) -> None:
    """Start a run that fails when these files are written."""
    with pytest.raises(ZeroDivisionError), run_start.started(run):
        for name in written:
            (run / name).touch()
        raise ZeroDivisionError


def test_a_failed_start_removes_what_it_has_created_and_nothing_else(tmp_path):
    run = tmp_path / "new" / "run"
    fail_to_start(run, "tokenizer.json", "tokenizer.model", "versions.json")
    assert not run.exists()  # a sweep that was stopped just then can go on
    fail_to_start(run, "tokenizer.json", "notes")
    assert os.listdir(run) == ["notes"]
    with locked(run):  # of another start, whose files stay
        (run / "tokenizer.json").touch()
        with pytest.raises(UserError, match="is in use by another"):
            fail_to_start(run)
        assert (run / "tokenizer.json").exists()
    shutil.rmtree(run)
    fail_to_start(run, "tokenizer.json", "config.yaml")  # it has begun, and can be resumed
    assert sorted(os.listdir(run)) == ["config.yaml", "tokenizer.json"]
    (tmp_path / "there").mkdir()
    fail_to_start(tmp_path / "there")
    assert (tmp_path / "there").exists()


def test_a_run_that_is_killed_again_and_again_before_its_first_checkpoint(tiny, tmp_path):
    run = tmp_path / "run"
    words = ["train", "--out", str(run), *tiny, "--train.max_steps", "6", "--resume-or-start"]
    for _ in range(3):
        assert in_child(words, before=kill_at_update(2)) == -signal.SIGKILL
        assert not (run / "training.json").exists()
    assert in_child(words) == 0


def test_a_killed_start_leaves_no_command_for_the_next(tiny, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / ".lock").touch()
    (run / "versions.json").write_text('{"command": "textvae train --train.epochs 7"}')
    assert in_child(["train", "--out", str(run), *tiny, "--train.max_steps", "1"]) == 0
    assert "epochs 7" not in read_record(run / "versions.json")["command"]


def test_a_sweep_is_not_the_folder_of_a_run(tiny, tmp_path, capfd):
    (tmp_path / "manifest.json").touch()
    assert in_child(["train", "--out", str(tmp_path), *tiny]) == 2
    assert "holds a sweep: choose another --out" in capfd.readouterr().err


def test_waiting_for_a_run_undoes_a_start_that_was_killed(tmp_path):
    run = tmp_path / "run"
    run_start.wait_for(run)
    assert not run.exists()
    run.mkdir()
    for name in (".lock", "tokenizer.json", "versions.json", "notes"):
        (run / name).touch()
    run_start.wait_for(run)  # as the job of a sweep does
    assert os.listdir(run) == ["notes"]
    run_start.check_new(run)
    (run / "tokenizer.json").touch()  # of somebody else: no start was killed
    run_start.wait_for(run)
    assert sorted(os.listdir(run)) == ["notes", "tokenizer.json"]
    for name in (".lock", "config.yaml"):
        (run / name).touch()
    run_start.wait_for(run)  # a run can be resumed
    assert sorted(os.listdir(run)) == ["config.yaml", "notes", "tokenizer.json"]


def test_a_finished_run_that_is_resumed_for_longer_is_not_finished(tiny, tmp_path):
    run = tmp_path / "run"
    assert in_child(["train", "--out", str(run), *tiny, "--train.max_steps", "2"]) == 0
    assert read_record(run / "training.json")["finished"] == "all 2 steps done"
    longer = ["train", "--resume", str(run), "--train.max_steps", "9"]
    assert in_child(longer, before=kill_at_update(1)) == -signal.SIGKILL
    record = read_record(run / "training.json")
    assert record["finished"] is None and record["steps"] == 2
    assert in_child(longer) == 0
    assert read_record(run / "training.json")["finished"] == "all 9 steps done"


def test_other_files_in_the_folder_of_a_new_run_are_mentioned(tiny, tmp_path, capfd):
    run = tmp_path / "run"
    run.mkdir()
    for name in ("data.csv", "b", "a", "c", ".hidden", "README.md"):
        (run / name).touch()
    assert in_child(["train", "--out", str(run), *tiny, "--train.max_steps", "1"]) == 0
    said = capfd.readouterr().err
    assert f"{run} is not empty: the run is saved next to a, b, c, ...\n" in said
    assert run_start.other_files(tmp_path / "none") == []


def test_data_that_has_moved_is_named_when_a_run_is_resumed(tiny, corpus, tmp_path, capfd):
    run, place = tmp_path / "run", shutil.copytree(corpus, tmp_path / "corpus")
    moved = ["--data.dir", str(place)]
    assert in_child(["train", "--out", str(run), *tiny, *moved, "--train.max_steps", "1"]) == 0
    place.rename(tmp_path / "elsewhere")
    resume = ["train", "--resume", str(run), "--train.max_steps", "2"]
    capfd.readouterr()
    assert in_child(resume) == 2
    assert "if the data has moved, pass --data.dir" in capfd.readouterr().err
    assert in_child([*resume, "--data.dir", str(tmp_path / "elsewhere")]) == 0


def test_a_folder_without_permission_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    with pytest.raises(UserError, match=f"cannot write to the folder {tmp_path}"):
        run_folder.make_folder(tmp_path)


def test_a_resumed_run_keeps_the_hashes_that_it_began_with(tmp_path):
    before = {"train": "a", "test": "b"}
    run_folder.describe(tmp_path, "fp32", CPU, before)
    run_folder.describe(tmp_path, "bf16", CPU, before | {"test": "c"})
    assert run_folder.split_hash(tmp_path, "test") == "c"  # there was no run yet
    (tmp_path / "config.yaml").touch()
    run_folder.describe(tmp_path, "fp32", CPU, {"train": "d", "test": "e", "valid": "f"})
    hashes = [run_folder.split_hash(tmp_path, split) for split in ("train", "test", "valid")]
    assert hashes == ["a", "c", "f"]
    record = read_record(tmp_path / "versions.json")
    assert record["precision"] == "fp32" and record["command"].count("\n") == 2


def full_disk_at(name: str):
    """Breaks the child: from the first evaluation on, the file ``name`` cannot be written."""

    def before() -> None:
        original = os.fsync if name != "metrics.jsonl" else None

        def fsync(descriptor: int) -> None:
            if name in os.readlink(f"/proc/self/fd/{descriptor}"):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            original(descriptor)

        def scalars(*_: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "metrics.jsonl")

        if original is not None:
            os.fsync = fsync
        else:
            from textvae.training.monitor import Monitor

            Monitor.scalars = scalars

    return before


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
@pytest.mark.parametrize("name", ["state.pt", "model.safetensors", "metrics.jsonl"])
def test_a_full_disk_leaves_the_old_files(name, run, capfd):
    state = run_folder.load_state(run)
    state["lr"]["best"] = -1e9  # so that the next evaluation is the best one
    run_folder.save_state(run, state)
    before = fingerprint(run)
    assert resume(run, *LONGER, before=full_disk_at(name)) == 2
    line = one_line(capfd)
    assert "No space left on device" in line and name in line
    for kept in ("checkpoint/state.pt", "model.safetensors"):
        if name == kept.rpartition("/")[2]:
            assert (run / kept).read_bytes() == before[kept]
            assert "intact" in line
    assert not list(run.rglob(".*.tmp"))
    assert resume(run, *LONGER) == 0


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("No space left on device"),
        SafetensorError('Error while serializing: I/O error: full (os error 28) at path "/x/.tmp"'),
    ],
)
def test_a_failed_write_leaves_only_the_old_file(error, tmp_path):
    path = tmp_path / "file.json"
    write_json(path, {"a": "ä"})

    def fail(temporary: Path) -> None:
        temporary.write_text("half")
        raise error

    with pytest.raises(
        UserError, match=r"cannot write .*file.json: No space left on device; .*intact"
    ):
        replace_file(path, fail)
    assert json.loads(path.read_text(encoding="utf-8")) == {"a": "ä"}
    assert os.listdir(tmp_path) == ["file.json"]


def test_why_torch_could_not_save_is_said_but_not_that_a_new_file_is_intact(tmp_path):
    def fail(temporary: Path) -> None:
        try:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            raise RuntimeError("unexpected pos 64 vs 0") from None

    with pytest.raises(UserError, match=r"state.pt: No space left on device$"):
        replace_file(tmp_path / "state.pt", fail)


def test_the_file_at_the_end_of_a_link_is_replaced(tmp_path):
    far, blobs = tmp_path / "far", tmp_path / "blobs"
    for folder in (far, blobs):
        folder.mkdir()
        (folder / "file").write_text("old")
    for name, end in (("a", far / "file"), ("b", blobs / "file"), ("c", far / "new")):
        (tmp_path / name).symlink_to(end)
        write_json(tmp_path / name, {"name": name})
        assert read_record(tmp_path / name) == {"name": name}
    assert [(tmp_path / name).is_symlink() for name in "abc"] == [True, False, True]
    assert [read_record(far / name) for name in ("file", "new")] == [{"name": "a"}, {"name": "c"}]
    assert sorted(os.listdir(far)) == ["file", "new"]
    assert (blobs / "file").read_text() == "old"  # others have links to it, too
    (tmp_path / "d").symlink_to(tmp_path / "unmounted" / "file")
    with pytest.raises(UserError, match=r"it is a link to .*, whose folder does not exist"):
        write_json(tmp_path / "d", {})
    assert not (tmp_path / "unmounted").exists()


def test_a_file_that_is_replaced_keeps_its_permissions(tmp_path):
    for mode in (0o600, 0o664, 0o444):
        (tmp_path / "file").touch()
        (tmp_path / "file").chmod(mode)
        write_json(tmp_path / "file", {})
        assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == mode


def test_a_temporary_file_that_another_writer_removed_is_created_again(tmp_path, monkeypatch):
    lock, removed = files._lock, []

    def late(file):
        if not removed:  # between its creation and its lock
            (taken,) = tmp_path.iterdir()
            taken.unlink()
            removed.append(taken)
        return lock(file)

    def write(temporary):
        assert removed and temporary.exists()
        temporary.write_text("{}")

    monkeypatch.setattr(files, "_lock", late)
    replace_file(tmp_path / "a.json", write)
    assert os.listdir(tmp_path) == ["a.json"]


def test_the_temporary_file_of_another_user_is_no_leftover(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError

    (tmp_path / ".a.json.12.ab.tmp").touch()
    monkeypatch.setattr(os, "kill", refuse)
    remove_leftovers(tmp_path)
    assert os.listdir(tmp_path) == [".a.json.12.ab.tmp"]


def test_numbers_that_json_lacks_are_null_and_letters_are_letters():
    content = {"é": (math.nan, [{"b": -math.inf}, 1.5])}
    assert json_line(content) == '{"é": [null, [{"b": null}, 1.5]]}'
    assert json.loads(as_json(content)) == {"é": [None, [{"b": None}, 1.5]]}
    assert as_json(content).startswith('{\n  "é": [\n')


def test_without_a_home_folder_a_path_stays_as_it_is(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", "")
    assert expanded("~/runs") == Path("~/runs")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert expanded("~/runs") == tmp_path / "runs"


def test_leftovers_of_a_start_that_was_killed_are_removed_by_the_next(tiny, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / ".tokenizer.json.12ab.tmp").touch()
    assert in_child(["train", "--out", str(run), *tiny, "--train.max_steps", "2"]) == 0
    assert not list(run.glob(".*.tmp"))


def test_leftovers_of_killed_writers_are_removed_and_nothing_else(tmp_path):
    for name in (".state.pt.12ab.tmp", "notes.tmp", ".hidden", "state.pt"):
        (tmp_path / name).touch()
    remove_leftovers(tmp_path, tmp_path / "not there")
    assert sorted(os.listdir(tmp_path)) == [".hidden", "notes.tmp", "state.pt"]


def test_devices_and_pipes_are_not_replaced(tmp_path):
    pipe, link, file = tmp_path / "pipe", tmp_path / "link", tmp_path / "file"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    for path in (pipe, link):
        with pytest.raises(UserError, match=f"cannot write {path}: it is not a regular file"):
            write_json(path, {})
    assert pipe.is_fifo() and link.is_symlink() and sorted(tmp_path.iterdir()) == [link, pipe]
    file.write_text("old")
    write_json(file, {})
    assert read_record(file) == {}
    # Only checked: as root, a mistake here would cost the machine its devices.
    for name in ("/dev/null", "/dev/full", "/dev/stdout", "/dev/../dev/new", "/proc/self/fd/1"):
        with pytest.raises(UserError, match="is not a regular file"):
            check_replaceable(Path(name))


def test_a_file_that_is_being_written_is_no_leftover(tmp_path):
    def write(temporary):
        remove_leftovers(tmp_path)
        temporary.write_text("{}")

    replace_file(tmp_path / "a.json", write)
    assert read_record(tmp_path / "a.json") == {}


def test_a_write_removes_the_leftover_of_a_killed_one_but_not_that_of_a_living_one(tmp_path):
    path = tmp_path / "a[1].json"
    child = os.fork()
    if child == 0:
        replace_file(path, lambda temporary: os.kill(os.getpid(), signal.SIGKILL))
    os.waitpid(child, 0)
    assert len(os.listdir(tmp_path)) == 1

    def write(temporary):
        temporary.unlink()  # as safetensors does
        temporary.touch()
        write_json(path, {"written": "first"})
        assert temporary.exists() and len(os.listdir(tmp_path)) == 2
        temporary.write_text("{}")

    replace_file(path, write)
    assert os.listdir(tmp_path) == ["a[1].json"] and read_record(path) == {}


def test_writers_of_one_file_do_not_remove_what_others_are_writing(tmp_path):
    children = []
    for number in range(4):
        if (child := os.fork()) == 0:
            status = 1
            try:
                for _ in range(100):
                    write_json(tmp_path / "a.json", {"number": number})
                status = 0
            finally:
                os._exit(status)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    assert os.listdir(tmp_path) == ["a.json"]


def test_versions_record_what_is_needed_to_reproduce_a_run():
    found = origin.versions("bf16", CPU)
    assert found["precision"] == "bf16"
    assert {"python", "torch", "numpy", "datasets", "command", "device", "commit"} <= found.keys()


def test_a_record_holds_file_names_that_are_not_utf_8(tmp_path):
    write_json(tmp_path / "a.json", {"command": "train \udc80 é"})
    assert read_record(tmp_path / "a.json") == {"command": "train \udc80 é"}


def test_a_run_without_its_checkpoint_is_not_started_again(run, capfd):
    (run / run_folder.STATE).unlink()
    before = fingerprint(run)
    assert resume(run, *LONGER) == 2
    assert "has been trained, but its checkpoint" in one_line(capfd)
    assert fingerprint(run) == before


def test_options_missing_in_the_config_of_a_run_are_not_their_defaults(run, capfd):
    config = run / "config.yaml"
    text = config.read_text()
    config.write_text(text[: text.index("optim:")])  # as if cut short
    assert resume(run, *LONGER) == 2
    assert "config.yaml is damaged: it had optim.name and" in one_line(capfd)


def test_a_lost_log_is_announced(run, caplog):
    (run / "metrics.jsonl").unlink()
    Monitor(run, 7).board.close()
    assert "metrics.jsonl is missing: the history up to step 7 is lost" in caplog.text


def test_a_finished_run_whose_model_is_gone(run, capfd):
    (run / "model.safetensors").unlink()
    assert resume(run) == 2
    assert "model.safetensors is missing, and the checkpoint has only" in one_line(capfd)


def test_a_model_loads_to_a_device_with_values(trained):
    for device in (None, "cpu", torch.device("cpu")):
        assert TextVAE.from_pretrained(trained, map_location=device).device.type == "cpu"
    with pytest.raises(UserError, match="device meta: it computes nothing; choose cpu or cuda"):
        TextVAE.from_pretrained(trained, map_location="meta")


def test_a_model_loaded_in_inference_mode_can_be_refined(trained):
    with torch.inference_mode():
        model = TextVAE.from_pretrained(trained)
    assert not any(p.is_inference() for p in model.parameters())


def test_a_model_without_its_inference_options_is_not_another_model(trained, tmp_path):
    folder = shutil.copytree(trained, tmp_path / "model")
    (folder / "inference.json").unlink()
    with pytest.raises(UserError, match=r"inference\.json is missing: it says how q"):
        TextVAE.from_pretrained(folder)


class TiedByHand(TextVAE):
    """A model of the user's own whose softmax layer shares the embeddings."""

    def make_decoder(self, config):
        decoder = super().make_decoder(config)
        decoder.output.weight = decoder.embedding.weight
        return decoder


def test_tied_weights_are_one_parameter_after_loading(tmp_path):
    sizes = {"embedding_dim": 4, "encoder_hidden": 4, "decoder_hidden": 4, "latent_dim": 2}
    for kind, options in ((TiedByHand, {}), (TextVAE, {"tie_embeddings": True})):
        model = kind(vocab_size=9, **sizes, **options)
        model.encoder.embedding.weight.requires_grad_(False)
        model.save_pretrained(tmp_path)
        loaded = kind.from_pretrained(tmp_path)
        assert loaded.decoder.output.weight is loaded.decoder.embedding.weight
        assert isinstance(loaded.decoder.output.weight, torch.nn.Parameter)
        assert len(list(loaded.parameters())) == len(list(model.parameters()))
        assert holds_weights(loaded, tmp_path)
        for name, tensor in model.state_dict().items():
            assert torch.equal(loaded.state_dict()[name], tensor)


def test_weights_that_are_not_tied_do_not_fit_a_model_that_ties_them(tmp_path):
    sizes = {"latent_dim": 2, "embedding_dim": 4, "encoder_hidden": 4, "decoder_hidden": 4}
    model = TextVAE(9, **sizes)
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "tie_embeddings": True}))
    with pytest.raises(UserError, match="are not tied there"):
        TextVAE.from_pretrained(tmp_path)
