"""A short part of the campaigns, with fixed seeds."""

import random

import pytest

from tests.campaigns import fuzz
from tests.campaigns.commands import Outcome, import_everything
from tests.campaigns.kills import Training


@pytest.fixture(scope="module")
def fuzzer(tmp_path_factory):
    import_everything()
    return fuzz.Fuzzer(tmp_path_factory.mktemp("fuzz"), seed=1)


@pytest.mark.parametrize("number", range(10))
def test_generated_inputs_end_in_one_line(fuzzer, number):
    assert fuzzer.case(number) is None


@pytest.mark.parametrize(
    "outcome, why",
    [
        (Outcome(0, ""), None),
        (Outcome(2, "loaded\ntextvae: x: no such file\n"), None),
        (Outcome(2, ""), "no message"),
        (Outcome(1, "Traceback (most recent call last)\nKeyError: 'x'\n"), "KeyError"),
        (Outcome(-11, "loaded\n"), "status -11"),
    ],
)
def test_the_campaign_can_fail(outcome, why):
    found = fuzz.fault(outcome)
    assert found is None if why is None else why in found


@pytest.mark.slow
def test_a_killed_training_ends_like_an_undisturbed_one(tmp_path, monkeypatch):
    import_everything()
    monkeypatch.setenv("TEXTVAE_CACHE", str(tmp_path / "cache"))
    training = Training(tmp_path, "VAE")
    training.disturbed(random.Random(3), most=2)
    assert training.differences() == []
    log = tmp_path / "killed" / "metrics.jsonl"
    log.write_text(log.read_text().replace('"beta": ', '"beta": 1'))
    (tmp_path / "killed" / ".lock").touch()
    assert training.differences() == ["metrics.jsonl", "left over: .lock"]
