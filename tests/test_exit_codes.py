"""The surroundings of a command: closed streams, full disks, odd names, signals."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress

import pytest
import torch

from textvae.cli.exit_codes import exit_status
from textvae.training import interrupt
from textvae.training.interrupt import interrupted_by_signals, stop_signals

COMMAND = [sys.executable, "-m", "textvae"]


def command(*arguments, closed=(), **how):
    """Run a command as a shell does, with some of its streams closed."""
    redirections = "".join(f" {number}>&-" for number in closed)
    line = f'exec "$@"{redirections}'
    return subprocess.run(
        ["bash", "-c", line, "-", *COMMAND, *map(str, arguments)],
        capture_output=True,
        text=True,
        errors="replace",
        **how,
    )


def test_a_closed_standard_output_is_one_line(trained):
    done = command("sample", trained, "-n", "1", closed=[1])
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("textvae: ")
    assert "Bad file descriptor" in done.stderr and "Traceback" not in done.stderr


def test_a_closed_standard_error_changes_nothing(trained):
    expected = command("sample", trained, "-n", "2")
    assert expected.returncode == 0 and len(expected.stdout.splitlines()) == 2
    done = command("sample", trained, "-n", "2", closed=[2])
    assert (done.returncode, done.stdout) == (0, expected.stdout)


def test_a_closed_standard_input_is_empty(trained):
    done = command("reconstruct", trained, closed=[0])
    assert done.returncode == 2
    assert "standard input has no sentences" in done.stderr


@pytest.mark.parametrize(
    "error, message",
    [
        (OSError(36, "File name too long", "x" * 300), f"{'x' * 200}...: File name too long"),
        (OSError(37, "No locks available"), "cannot write: No locks available"),
        (OSError(27, "File too large", "a.npz"), "a.npz: File too large"),
        (OSError("3 requested and 0 written"), "3 requested and 0 written"),
        (FileNotFoundError(2, "No such file", "\udc80"), "\\udc80: No such file"),
    ],
)
def test_errors_of_the_operating_system_are_one_line(error, message, capsys):
    def fail():
        raise error

    assert exit_status("textvae", fail) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("textvae: ") and message in line


@pytest.mark.parametrize("name", ["~nosuchuser/run", "x" * 300, b"\x80", ""])
def test_odd_names_of_runs_are_one_line(name):
    done = subprocess.run([*COMMAND, "sample", name], capture_output=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith(b"textvae: ") and done.stderr.count(b"\n") == 1


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1, signal.SIGTERM])
def test_a_training_saves_when_a_cluster_or_a_terminal_ends_it(tiny, tmp_path, number):
    run = tmp_path / "run"
    arguments = [*COMMAND, "train", *tiny, "--train.epochs", "500", "--out", str(run)]
    training = subprocess.Popen(
        arguments,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # the tests may run under nohup
    )
    while not (run / "metrics.jsonl").exists():
        assert training.poll() is None
        time.sleep(0.05)
    training.send_signal(number)
    said = training.communicate(timeout=60)[1]
    assert training.returncode == 130
    assert f"continue with --resume {run}" in said.splitlines()[-1]
    assert (run / "checkpoint" / "state.pt").exists()


def test_a_signal_that_is_ignored_stays_so(tiny, tmp_path):
    arguments = [*COMMAND, "train", *tiny, "--train.epochs", "60", "--out", str(tmp_path / "run")]
    training = subprocess.Popen(
        arguments,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )
    while not (tmp_path / "run" / "metrics.jsonl").exists():
        time.sleep(0.05)
    training.send_signal(signal.SIGHUP)
    assert training.wait(timeout=60) == 0


def test_ctrl_c_while_python_imports_is_one_line(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'textvae.cli':\n"
        "            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupt())\n"
    )
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = command("--help", env={**os.environ, "PYTHONPATH": path})
    assert (done.returncode, done.stderr) == (130, "textvae: interrupted\n")


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1"])
@pytest.mark.parametrize("module", ["jsonargparse", "torch", "textvae.text.model"])
def test_a_signal_during_an_import_is_one_line(trained, tmp_path, name, module):
    number = getattr(signal, name)
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\n"
        "class Signal:\n"
        "    def find_spec(self, name, *_):\n"
        f"        if name == {module!r}:\n"
        f"            os.kill(os.getpid(), {int(number)})\n"
        "sys.meta_path.insert(0, Signal())\n"
    )
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    usual = signal.default_int_handler if name == "SIGINT" else signal.SIG_DFL
    done = subprocess.run(
        [*COMMAND, "sample", str(trained)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        preexec_fn=lambda: signal.signal(number, usual),  # the tests may run under nohup
    )
    said = "interrupted" if name == "SIGINT" else "terminated"
    assert (done.returncode, done.stderr, done.stdout) == (130, f"textvae: {said}\n", "")


def test_no_name_for_a_run_is_an_error(tiny, tmp_path):
    done = command("train", *tiny, "--out", "", cwd=tmp_path)
    assert done.returncode == 2 and "name of the run folder is empty" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_too_little_memory_is_one_line(capfd):
    assert exit_status("sample", lambda: torch.empty(10**14) and None) == 2
    assert "not enough memory: use smaller batches" in capfd.readouterr().err


def test_what_is_piped_leaves_nothing_when_the_command_is_terminated(trained, tmp_path):
    (tmp_path / "a.txt").write_text("the cat sees the tree\n" * 20_000)
    with open(tmp_path / "a.txt", "rb") as text:
        scoring = subprocess.Popen(
            [*COMMAND, "score", str(trained), "-", "--samples", "400"],
            stdin=text,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "TMPDIR": str(tmp_path)},
        )
        while not list(tmp_path.glob("textvae-*/encoded/*")):
            assert scoring.poll() is None
            time.sleep(0.05)
        scoring.terminate()
        assert scoring.communicate(timeout=60)[1].splitlines()[-1] == "textvae: terminated"
    assert scoring.returncode == 130
    assert not list(tmp_path.glob("textvae-*"))


SENT = ["SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1"]


def send(name: str) -> None:
    os.kill(os.getpid(), getattr(signal, name))


@pytest.fixture
def handlers():
    """The usual handlers of all signals, which are put back at the end."""
    before = {name: signal.getsignal(getattr(signal, name)) for name in (*SENT, "SIGALRM")}
    usual = dict.fromkeys(SENT, signal.SIG_DFL) | {"SIGINT": signal.default_int_handler}
    for name, handler in usual.items():
        signal.signal(getattr(signal, name), handler)
    yield usual
    signal.setitimer(signal.ITIMER_REAL, 0)
    for name, handler in before.items():
        signal.signal(getattr(signal, name), handler)


def assert_handlers(expected):
    assert {name: signal.getsignal(getattr(signal, name)) for name in SENT} == expected


@pytest.mark.parametrize("name", SENT)
def test_a_request_to_stop_says_how_to_stop_immediately(name, handlers, capfd):
    with stop_signals("soon; press Ctrl-C again") as stop:
        assert not stop.requested
        send(name)
        assert stop.requested
    again = "press Ctrl-C again" if name == "SIGINT" else "send the signal again"
    assert capfd.readouterr().err == f"soon; {again}\n"
    assert_handlers(handlers)


def test_a_signal_that_a_launcher_forwards_is_not_a_second_one(handlers, capfd):
    with stop_signals("") as stop:
        try:
            send("SIGINT")
            send("SIGINT")
        except KeyboardInterrupt:
            pytest.fail("interrupted")
        stop.when -= 1.0
        with pytest.raises(KeyboardInterrupt, match="stopped immediately"):
            send("SIGINT")
    assert capfd.readouterr().err == ""


def test_a_request_to_stop_needs_no_terminal(handlers, monkeypatch):
    def closed(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "write", closed)
    with stop_signals() as stop:
        send("SIGHUP")
    assert stop.requested


@pytest.mark.parametrize("heeding", [stop_signals, interrupted_by_signals])
def test_outside_of_the_main_thread_there_are_no_signals(heeding):
    done = []

    def work():
        with heeding():
            done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done


def test_handlers_that_others_have_set_stay(handlers):
    def own(*_):
        pass

    signal.signal(signal.SIGUSR1, own)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with interrupted_by_signals():
        assert signal.getsignal(signal.SIGUSR1) is own
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGTERM) not in handlers.values()
    assert_handlers(handlers | {"SIGUSR1": own, "SIGHUP": signal.SIG_IGN})


def test_whatever_becomes_of_the_exception_the_command_is_interrupted(handlers):
    with pytest.raises(KeyboardInterrupt, match="terminated"), interrupted_by_signals():
        try:
            send("SIGTERM")
        except KeyboardInterrupt:
            raise SystemError("of a compiled module") from None
    with pytest.raises(KeyboardInterrupt), interrupted_by_signals(), suppress(KeyboardInterrupt):
        send("SIGINT")
    with pytest.raises(SystemError), interrupted_by_signals():
        raise SystemError("without a signal")
    assert_handlers(handlers)


def test_a_second_signal_interrupts_an_import(handlers, monkeypatch):
    monkeypatch.setattr(interrupt, "_is_importing", lambda frame: True)
    monkeypatch.setattr(interrupt, "WHILE_IMPORTING", 60.0)
    interrupted = []
    with pytest.raises(KeyboardInterrupt), interrupted_by_signals():
        send("SIGTERM")
        send("SIGTERM")  # of a launcher
        monkeypatch.setattr(interrupt, "SAME_SIGNAL", -1.0)
        try:
            send("SIGTERM")
        except KeyboardInterrupt:
            interrupted.append(True)
    assert interrupted
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL
