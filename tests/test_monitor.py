"""Training logs: TensorBoard, metrics.jsonl, and the warning about posterior collapse."""

import errno
import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import in_child
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from textvae.config.experiment import Config, TrainConfig
from textvae.config.inference import Inference
from textvae.evaluation.diagnosis.kl_history import kl_heat_map
from textvae.evaluation.metrics.metric import clock
from textvae.training import validation
from textvae.training.loop import Trainer
from textvae.training.metric_sums import MetricSums
from textvae.training.monitor import Monitor
from textvae.training.progress import Progress, decimals
from textvae.vae.contracts import Terms

TRAIN = {"loss", "rec", "kl", "grad_norm", "beta", "lr", "tokens_per_second"}
VALID = {"rec", "kl", "elbo", "ppl_elbo", "mi", "au"}


def board(run: Path) -> EventAccumulator:
    events = EventAccumulator(str(run), size_guidance={"tensors": 0, "scalars": 0})
    return events.Reload()


def read(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_tensorboard_has_every_tag(trained):
    tags = board(trained).Tags()
    assert {f"train/{name}" for name in TRAIN} <= set(tags["scalars"])
    assert {f"valid/{name}" for name in VALID} <= set(tags["scalars"])
    assert {"valid_details/ppl_token_elbo", "valid_details/marginal_kl"} <= set(tags["scalars"])
    assert "valid/kl_per_dim" in tags["histograms"]
    assert {"samples/text_summary", "reconstructions/text_summary"} <= set(tags["tensors"])


def test_the_text_and_projector_plugins_have_all_their_tags(trained):
    plugins = {e.plugin_data.plugin_name for e in board(trained).summary_metadata.values()}
    assert {"text", "hparams"} <= plugins


def test_scalars_are_those_of_metrics_jsonl(trained):
    events = board(trained)
    for group in ("train", "valid"):
        for name in TRAIN if group == "train" else VALID:
            shown = [(e.step, e.value) for e in events.Scalars(f"{group}/{name}")]
            logged = [(e["step"], e[name]) for e in read(trained) if e["group"] == group]
            assert [step for step, _ in shown] == [step for step, _ in logged]
            assert [v for _, v in shown] == pytest.approx([v for _, v in logged], rel=1e-5)


def test_constants_are_logged_but_not_plotted(trained):
    logged = [entry for entry in read(trained) if entry["group"] == "valid"]
    names = {tag.rpartition("/")[2] for tag in board(trained).Tags()["scalars"]}
    for name in ("count", "units", "latent_dim", "au_threshold", "seconds"):
        assert all(name in entry for entry in logged) and name not in names


def test_the_projector_has_means_labels_and_texts(trained):
    folder = trained / "projector" / "posterior"
    assert "posterior" in (trained / "projector_config.pbtxt").read_text()
    means = (folder / "tensors.tsv").read_text().splitlines()
    rows = [row.split("\t") for row in (folder / "metadata.tsv").read_text().splitlines()]
    assert len(means) == 20 and len(means[0].split("\t")) == 4
    assert rows[0] == ["label", "text"]
    assert [label for label, _ in rows[1:]] == [str(i % 3) for i in range(20)]


def test_the_hyperparameters_that_were_set_are_logged(trained):
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    def content(name):
        data = events.summary_metadata[f"_hparams_/{name}"].plugin_data.content
        return HParamsPluginData.FromString(data)

    events = board(trained)
    shown = content("session_start_info").session_start_info.hparams
    assert shown["model.latent_dim"].number_value == 4
    assert "optim.name" not in shown  # sgd, the default
    metrics = {info.name.tag for info in content("experiment").experiment.metric_infos}
    assert {"valid/elbo", "valid/mi", "valid/au"} <= metrics <= set(events.Tags()["scalars"])


def test_the_charts_show_curves_that_exist(trained):
    from tensorboard.plugins.custom_scalar.layout_pb2 import Layout

    (layout,) = board(trained).Tensors("custom_scalars__config__")
    (category,) = Layout.FromString(layout.tensor_proto.string_val[0]).category
    tags = [tag for chart in category.chart for tag in chart.multiline.tag]
    assert len(category.chart) == 6
    assert {tag.removesuffix("$") for tag in tags} <= set(board(trained).Tags()["scalars"])


def test_the_heat_map_has_a_column_for_every_evaluation(trained, tmp_path):
    logged = [entry for entry in read(trained) if entry["group"] == "valid"]
    assert all(sum(e["kl_per_dim"]) == pytest.approx(e["kl"], rel=1e-5) for e in logged)
    images = board(trained).Images("valid/kl_by_dimension")
    assert [image.step for image in images] == [entry["step"] for entry in logged]
    figure = kl_heat_map([e["epoch"] for e in logged], [e["kl_per_dim"] for e in logged])
    assert figure.axes[0].collections[0].get_array().shape == (4, len(logged))
    shutil.copy(trained / "metrics.jsonl", tmp_path)
    monitor = Monitor(tmp_path, step=6)
    monitor.board.close()
    assert len(monitor._kl_history) == 1  # what a resumed run goes on from


def test_a_run_of_the_first_release_keeps_its_folder(tmp_path):
    (tmp_path / "tensorboard").mkdir()
    Monitor(tmp_path).board.close()
    assert list(tmp_path.glob("events*")) == []
    assert len(list((tmp_path / "tensorboard").glob("events*"))) == 1


def test_one_event_file_and_no_stray_folders(trained):
    names = {str(path.relative_to(trained)) for path in trained.rglob("*")}
    assert sum("tfevents" in name for name in names) == 1
    assert {name for name in names if name.startswith("projector")} == {
        *("projector_config.pbtxt", "projector", "projector/posterior"),
        *("projector/posterior/tensors.tsv", "projector/posterior/metadata.tsv"),
    }


def test_a_resumed_run_shows_no_step_twice(tiny, tmp_path):
    import os
    import signal

    run = tmp_path / "run"

    def die_at_the_second_evaluation() -> None:
        from textvae.runs import run_folder

        original, calls = run_folder.save_state, iter(range(99))

        def save_state(*args):
            if next(calls) == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            original(*args)

        run_folder.save_state = save_state

    arguments = ["train", "--out", str(run), *tiny]
    assert in_child(arguments, before=die_at_the_second_evaluation) == -signal.SIGKILL
    assert [e["step"] for e in read(run)] == [3, 6, 6, 9, 12, 12]
    assert in_child(["train", "--resume", str(run)]) == 0
    assert [e["step"] for e in read(run)] == [3, 6, 6, 9, 12, 12]
    events = board(run)
    assert [e.step for e in events.Scalars("train/loss")] == [3, 6, 9, 12]
    assert [e.step for e in events.Scalars("valid/elbo")] == [6, 12]


def test_an_incomplete_line_is_dropped(trained, tmp_path):
    shutil.copy(trained / "metrics.jsonl", tmp_path)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 13, "epo')
    Monitor(tmp_path, step=6).board.close()
    assert [e["step"] for e in read(tmp_path)] == [3, 6, 6]


def test_what_is_not_finite_is_null_in_json(tmp_path):
    monitor = Monitor(tmp_path)
    monitor.scalars("valid", 1, 0.5, {"ppl_elbo": float("inf"), "mi": float("nan"), "au": 3})
    monitor.board.close()
    assert read(tmp_path) == [
        {"step": 1, "epoch": 0.5, "group": "valid", "ppl_elbo": None, "mi": None, "au": 3}
    ]


def test_a_sentence_cannot_break_out_of_its_table(tmp_path):
    monitor = Monitor(tmp_path)
    monitor.show(1, "samples", [{"sample": "<unk> & <script>"}, {"sample": "two | \nlines\t"}])
    monitor.board.close()
    text = board(tmp_path).Tensors("samples/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "<" not in text
    lines = text.splitlines()
    assert len(lines) == 4 and lines[0] == "| sample |"
    assert all(line.count("|") == 2 for line in lines)


def test_a_full_disk_ends_the_logs_of_tensorboard_but_not_the_training(tiny, tmp_path, capfd):
    def fill_the_disk() -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        original, calls = RecordWriter.write, iter(range(99))

        def write(*args):
            if next(calls) >= 5:
                raise OSError(errno.ENOSPC, "No space left on device")
            original(*args)

        RecordWriter.write = write

    run = tmp_path / "run"
    assert in_child(["train", "--out", str(run), *tiny], before=fill_the_disk) == 0
    said = capfd.readouterr().err
    assert said.count("TensorBoard logging stopped: No space left on device") == 1
    assert "Traceback" not in said
    assert read(run)[-1]["step"] == 12


def test_the_warning_waits_until_the_kl_weight_has_risen(tiny, tmp_path, capfd):
    run = tmp_path / "run"
    options = ["--objective.kl_epochs", "1.5", "--optim.lr", "1e-9", "--train.epochs", "2"]
    assert in_child(["train", "--out", str(run), *tiny, *options]) == 0
    said = capfd.readouterr().err.splitlines()
    warned = [i for i, line in enumerate(said) if line.startswith("posterior collapse")]
    evaluated = [i for i, line in enumerate(said) if " valid: " in line]
    assert len(evaluated) == 2
    assert warned == [evaluated[1] + 1]
    assert "injection" not in said[warned[0]]  # it is skip already
    logged = [line.get("collapse") for line in read(run) if line["group"] == "valid"]
    assert logged == [None, said[warned[0]]]


def test_a_collapse_is_reported_once_and_again_when_it_returns(monkeypatch, caplog):
    collapses = ["early", "first", "still", None, "back"]
    card = {"au": 0, "latent_dim": 4} | dict.fromkeys(("elbo", "rec", "kl", "ppl_elbo"), -1.0)
    cards = iter([{**card, "mi": -0.001, "collapse": verdict} for verdict in collapses])
    monkeypatch.setattr(validation, "build_buckets", lambda *_: SimpleNamespace(sequential=list))
    seeds = []
    monkeypatch.setattr(
        validation, "evaluate_quick", lambda *_, seed, **__: seeds.append(seed) or next(cards)
    )
    monitor, model = SimpleNamespace(validation=lambda *_: None), SimpleNamespace(inference=None)
    options, before = replace(Config(), train=TrainConfig(samples=0, seed=7)), None
    with caplog.at_level(logging.WARNING):
        for epoch, beta in ((1, 0.5), (2, 0.5), (3, 1.0), (4, 1.0), (5, 1.0)):
            before = validation.validate(model, None, options, monitor, epoch, epoch, beta, before)
    assert [record.message for record in caplog.records] == ["first", "back"]
    assert seeds == [7] * 5


def test_refinement_that_overshoots_is_reported(monkeypatch, caplog):
    card = dict.fromkeys(("elbo", "rec", "kl", "mi", "encoder_elbo", "encoder_kl"), -1.0)
    card |= {"encoder_mi": 0.1, "au": 1, "encoder_au": 1, "latent_dim": 4, "ppl_elbo": None}
    monkeypatch.setattr(validation, "build_buckets", lambda *_: SimpleNamespace(sequential=list))
    monitor, model = SimpleNamespace(validation=lambda *_: None), SimpleNamespace(inference=None)
    options = replace(
        Config(), train=TrainConfig(samples=0), inference=Inference("semi_amortized", lr=0.3)
    )
    for gap in (0.4, -0.004, -2.7):
        seen = {**card, "gap": gap, "collapse": None}
        monkeypatch.setattr(validation, "evaluate_quick", lambda *_, seen=seen, **__: seen)
        validation.validate(model, None, options, monitor, 1, 2.0, 1.0)
    (said,) = (record.message for record in caplog.records if record.levelno == logging.WARNING)
    assert said == (
        "refinement lowers the ELBO by 2.70 nats: its steps are too long; try --inference.lr 0.1"
    )


def test_decimals_never_show_a_negative_zero():
    assert [decimals(x) for x in (-0.001, -0.0, -0.006, 2.345)] == ["0.00", "0.00", "-0.01", "2.35"]
    assert decimals(float("inf")) == "inf"
    assert decimals(1.25e15) == "1.2e+15" and decimals(123_456_789.5) == "123456789.50"


def test_metric_sums_give_means_over_examples_and_updates():
    sums, ones = MetricSums(torch.device("cpu")), torch.ones
    accelerator = type("Alone", (), {"num_processes": 1})

    def terms(rec, kl, path=None):
        return Terms(None, None, rec[None], None, None, kl, path=path)

    path = torch.tensor([[-7.0 - 2, -7.0 - 4], [0.0, 0.0]])  # 2 and 4 below the result
    refined = terms(-ones(2), 3 * ones(2, 2), path)
    sums.add_batch(torch.tensor(4.0), refined, torch.tensor([5, 6]))
    plain = terms(-4 * ones(1), 0 * ones(1, 2))
    sums.add_batch(torch.tensor(1.0), plain, torch.tensor([7]))
    sums.add_update(torch.tensor(2.0))
    assert sums.means(accelerator) == {
        "loss": pytest.approx(3.0),
        "rec": pytest.approx(-2.0),
        "kl": pytest.approx(4.0),
        "gap": pytest.approx(2.0),
        "grad_norm": 2.0,
        "tokens": 18.0,
    }
    assert sums.is_finite()
    sums.add_update(torch.tensor(float("inf")))
    assert not sums.is_finite() and sums.not_finite() == "a gradient"
    nan = torch.full((1, 2), float("nan"))
    sums.add_batch(nan.sum(), terms(nan[0, :1], nan), torch.tensor([7]))
    assert sums.not_finite() == "the KL"  # before log p(x|z) and the loss, which follow from it


def test_a_log_line_is_about_the_updates_since_the_last_one():
    trainer, seen = Trainer.__new__(Trainer), []
    trainer.config, trainer.accelerator = Config(), SimpleNamespace(num_processes=1)
    trainer.step, trainer.epoch_steps, trainer._clock = 5, 10, 0.0
    trainer.seconds = trainer.logged_at = 0.0
    trainer.phases = SimpleNamespace(beta=lambda step: step / 10, learning_rate=lambda step: step)
    sums = MetricSums(torch.device("cpu"))
    trainer.updater = SimpleNamespace(sums=sums, is_finite=lambda: True, objective=None)
    trainer.monitor = SimpleNamespace(scalars=lambda *values: seen.append(values))
    for size in (2, 0):
        trainer.model = SimpleNamespace(latent_dim=size)
        trainer.updater.sums.add_update(torch.tensor(3.0))
        trainer.log(SimpleNamespace(show=lambda *_: None))
        assert not trainer.updater.sums.values.any()
    assert [line[:3] for line in seen] == [("train", 5, 0.5)] * 2
    assert seen[0][3].keys() - seen[1][3].keys() == {"kl", "beta"}  # of a language model
    assert (seen[0][3]["beta"], seen[0][3]["lr"]) == (0.4, 4)  # of the last update


def test_progress_without_a_terminal_is_plain_lines(caplog):
    values = {"loss": 1.5, "kl": 0.25, "beta": 0.5, "tokens_per_second": 1234.0}
    with caplog.at_level(logging.INFO), Progress(10, 0) as progress:
        progress.show(5, 0.5, values)
    assert "step 5/10 epoch 0.50 loss 1.50 kl 0.25 beta 0.50 1,234 tok/s" in caplog.text


def test_clock():
    assert [clock(s) for s in (0, 59.6, 3600, 360_061)] == [
        "0:00:00",
        "0:01:00",
        "1:00:00",
        "100:01:01",
    ]


def test_the_speed_counts_the_time_before_an_evaluation(tiny, tmp_path):
    """With a clock on which only updates take time: one second each."""
    run = tmp_path / "run"

    def one_second_each():
        from textvae.training import loop, update

        now = [0.0]
        monkey = update.Updater.update

        def slow(self, *args, **options):
            now[0] += 1.0
            return monkey(self, *args, **options)

        update.Updater.update = slow
        loop.time = SimpleNamespace(perf_counter=lambda: now[0])

    options = ["--train.log_every", "4", "--train.evaluate_every", "1", "--data.batch_size", "16"]
    argv = ["train", "--out", str(run), *tiny, *options, "--train.epochs", "4"]
    assert in_child([*argv, "--train.max_steps", "14"], before=one_second_each) == 0
    resumed = ["train", "--resume", str(run), "--train.max_steps", "24"]
    assert in_child(resumed, before=one_second_each) == 0
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    speeds = [row["tokens_per_second"] for row in rows if row["group"] == "train"]
    assert len(speeds) == 6 and max(speeds) < 2 * min(speeds)
