"""The run folder: complete files only, clear messages for broken ones, no unpickling."""

import errno
import json
import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from conftest import in_child

from textvae.errors import UserError
from textvae.runs import run_folder
from textvae.runs.files import remove_leftovers, replace_file, write_json

LONGER = ["--train.epochs", "3"]


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
    named |= {"checkpoint/state.pt", "metrics.jsonl", "metrics/test.json", "versions.json", ".lock"}
    board = ("events.out.tfevents", "projector")
    assert named | {"training.json"} == {f for f in files if not f.startswith(board)}
    versions = json.loads((trained / "versions.json").read_text())
    assert len(versions["corpus_hash"]) == 64
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
    assert "state.pt is truncated or was not written by textvae: delete it" in one_line(capfd)
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
        (["--model.latent_dim", "5"], "does not fit the config"),
        (["--model.decoder_hidden", "13"], "does not fit the config"),
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
    for place in (other, moved):
        shutil.copytree(corpus, place)
    with (other / "train.txt").open("a") as file:
        file.write("1\tone more sentence\n")
    before = fingerprint(run)
    assert resume(run, *LONGER, "--data.dir", str(other)) == 2
    assert f"{other} is not the corpus that {run} was trained on" in one_line(capfd)
    assert fingerprint(run) == before
    assert resume(run, *LONGER, "--data.dir", str(moved)) == 0


def test_a_finished_run_is_unchanged_and_a_resumed_one_keeps_its_commands(run):
    before = fingerprint(run)
    assert resume(run) == 0
    assert fingerprint(run) == before
    assert resume(run, *LONGER) == 0
    first, _ = json.loads((run / "versions.json").read_text())["command"].split("\n")
    assert first == json.loads(before["versions.json"])["command"]


def test_stopped_before_the_first_checkpoint_it_starts_again(run, tmp_path):
    shutil.rmtree(run / "checkpoint")
    assert run_folder.load_state(run) is None
    assert resume(run) == 0
    assert run_folder.load_state(run)["step"] == 12


def test_no_run_folder(tmp_path):
    with pytest.raises(UserError, match="is not a run folder"):
        run_folder.load_state(tmp_path)


def test_a_run_or_a_model_is_never_overwritten(trained, tmp_path):
    with pytest.raises(UserError, match="already holds a run: continue it with --resume"):
        run_folder.create(trained)
    shutil.copy(trained / "model.safetensors", tmp_path)
    with pytest.raises(UserError, match="already holds a model"):
        run_folder.create(tmp_path)


def test_a_failed_start_leaves_no_tokenizer_for_the_next(tiny, corpus, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    foreign = {"version": 1, "kind": "char", "tokens": ["<pad>"]}
    (run / "tokenizer.json").write_text(json.dumps(foreign))
    assert in_child(["train", "--out", str(run), *tiny, "--train.max_steps", "1"]) == 0
    assert json.loads((run / "tokenizer.json").read_text())["kind"] == "word"


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


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left"), RuntimeError("disk")])
def test_a_failed_write_leaves_only_the_old_file(error, tmp_path):
    path = tmp_path / "file.json"
    write_json(path, {"a": "ä"})

    def fail(temporary: Path) -> None:
        temporary.write_text("half")
        raise error

    with pytest.raises(UserError, match=r"cannot write .*file.json: .*intact"):
        replace_file(path, fail)
    assert json.loads(path.read_text(encoding="utf-8")) == {"a": "ä"}
    assert os.listdir(tmp_path) == ["file.json"]


def test_leftovers_of_killed_writers_are_removed_and_nothing_else(tmp_path):
    for name in (".state.pt.12ab.tmp", "notes.tmp", ".hidden", "state.pt"):
        (tmp_path / name).touch()
    remove_leftovers(tmp_path, tmp_path / "not there")
    assert sorted(os.listdir(tmp_path)) == [".hidden", "notes.tmp", "state.pt"]


def test_versions_record_what_is_needed_to_reproduce_a_run():
    found = run_folder.versions("bf16", "abc")
    assert found["corpus_hash"] == "abc" and found["precision"] == "bf16"
    assert {"python", "torch", "numpy", "datasets", "command", "device", "commit"} <= found.keys()
