"""What ``--train.precision auto`` means on a machine, and where it is recorded."""

import accelerate
import pytest
import torch
import yaml
from conftest import in_child

from textvae.config.experiment import Config, TrainConfig
from textvae.training import devices


@pytest.mark.parametrize("amx", [False, True])
@pytest.mark.parametrize("avx512", [False, True])
def test_auto_is_bf16_where_the_processor_multiplies_in_it(avx512, amx, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert devices._has_fast_bf16("cpu") == (avx512 or amx)


def test_auto_is_fp32_on_devices_without_bf16():
    assert not devices._has_fast_bf16("mps")


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_an_explicit_precision_is_kept(precision):
    config = Config(train=TrainConfig(precision=precision))
    assert devices.with_precision(config) == config


@pytest.mark.parametrize("fast", [False, True])
def test_a_run_records_what_auto_meant(fast, tiny, tmp_path):
    run, options = tmp_path / "run", ["--train.precision", "auto", "--train.max_steps", "1"]

    def before():
        devices._has_fast_bf16 = lambda _: fast

    assert in_child(["train", "--out", str(run), *tiny, *options], before) == 0
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["train"]["precision"] == ("bf16" if fast else "fp32")


def test_processes_wait_for_the_one_that_evaluates(monkeypatch):
    asked = []

    class State:
        device = torch.device("cpu")

        def __init__(self, **options):
            asked.append(options["timeout"])

    monkeypatch.setattr(accelerate, "PartialState", State)
    devices.with_precision(Config.load(train={"precision": "auto"}))
    assert asked == [devices.PATIENCE] and devices.PATIENCE.total_seconds() > 3600
