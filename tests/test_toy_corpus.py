"""data/toy: the corpus is what its card says, and its log-probabilities are exact."""

import hashlib
import importlib.util
import json
import math
import random
import statistics
import subprocess
import sys
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
from nltk.tokenize import NLTKWordTokenizer
from nltk.tokenize.treebank import TreebankWordDetokenizer

TOY = Path(__file__).parent.parent / "data" / "toy"
sys.path.insert(0, str(TOY))

import grammar as toy  # noqa: E402
import scenes  # noqa: E402
from expressions import Choice, Literal, NotationError, Sequence, entropy_of, parse  # noqa: E402


@pytest.fixture(scope="module")
def grammar():
    return toy.Grammar.load()


@pytest.fixture(scope="module")
def prepare(grammar):
    spec = importlib.util.spec_from_file_location("prepare_toy", TOY / "prepare.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    load = toy.Grammar.load
    module.Grammar = SimpleNamespace(  # the default grammar is built once for all tests
        load=lambda subjects: grammar if subjects == toy.SUBJECTS else load(subjects=subjects)
    )
    return module


@pytest.fixture(scope="module")
def train(grammar):
    """(text, factors, log-probability of the derivation) as in a train split."""
    rng = random.Random("0 train")
    return [grammar.sample(rng) for _ in range(6000)]


def enumerated(expression):
    """Every derivation written out as (words, probability): the definition of an expression."""
    match expression:
        case Literal(words):
            yield words, 1.0
        case Choice(options, weights):
            for weight, option in zip(weights, options, strict=True):
                for words, p in enumerated(option):
                    yield words, weight * p
        case Sequence(parts):
            found = [((), 1.0)]
            for part in parts:
                tails = list(enumerated(part))
                found = [(a + b, p * q) for a, p in found for b, q in tails]
            yield from found


def spelling(parts, words):
    """One probability for each derivation of `parts` in a row that spells exactly `words`."""
    if not parts:
        if not words:
            yield 1.0
        return
    first, *rest = parts
    match first:
        case Literal(literal):
            if words[: len(literal)] == literal:
                yield from spelling(rest, words[len(literal) :])
        case Sequence(inner):
            yield from spelling([*inner, *rest], words)
        case Choice(options, weights):
            for weight, option in zip(weights, options, strict=True):
                for p in spelling([option, *rest], words):
                    yield weight * p


def tiny_grammar():
    """One topic and few enough documents to enumerate; tones and scenes share some of them."""
    lexicon = """
also it rains
[bread]
how bake > knead it / wait
why it {sinks|falls} > too cold / too hot > wait / wait
pick a flour > rye / spelt > it works
pair toast > rye / spelt > it works > it works / it smells
what proofing > the {last|final} rest > it works
view baking > it smells > it takes time
[soup]
how stir > wait / wait {longer|}
why it falls > too hot > wait
pick a pot > iron > it works
pair lunch > iron / clay > it works > it works
what a roux > a {thick|} paste > it works
view baking > it works > it smells
"""
    heads = {intent: head for intent, head, _ in scenes.SCENES.values()}
    heads["comparison"] = "a"
    answers = {
        "how-to": ["tip", "steps"],
        "why": ["cause", "fix"],
        "recommendation": ["option", "reason"],
        "comparison": ["win", "why"],
        "definition": ["meaning", "fact"],
        "opinion": ["pro", "con"],
    }
    frames = {("joiner",): ["then"], ("document",): ["<ask> <answer> <end>", "<also> <ask> <end>"]}
    for tone in toy.TONES:
        frames.update({(name, tone): ["so"] for name in ("open", "close", "reply")})
        frames["end", tone] = ["{|bye@2}"] if tone != "polite" else ["bye", "thanks"]
    for intent, head in heads.items():
        frames["ask", intent] = [f"<{head}> ?"]
        frames["answer", intent] = [f"<{name}> ." for name in answers[intent]]
        for tone in toy.TONES:
            frames["ask", intent, tone] = [f"{'please ' if tone == 'polite' else ''}<{head}> ?"]
            frames["answer", intent, tone] = [f"<{answers[intent][0]}> !"]
    cooking = scenes.read_topic("cooking", lexicon)
    return toy.Grammar(frames, [cooking])


# --- exactness ------------------------------------------------------------------------------------


def test_log_prob_is_the_sum_over_all_derivations_by_full_enumeration():
    grammar = tiny_grammar()
    joint = defaultdict(float)
    derivations = 0
    for cell in grammar.cells:
        for words, p in enumerated(cell.document):
            joint[" ".join(words), cell.factors] += cell.prob * p
            derivations += 1
    texts = defaultdict(float)
    for (text, _), p in joint.items():
        texts[text] += p
    assert math.fsum(texts.values()) == pytest.approx(1.0, abs=1e-12)
    assert len(texts) < len(joint) < derivations
    for text, p in texts.items():
        assert grammar.score(text).log_prob == pytest.approx(math.log(p), abs=1e-12)
    for (text, factors), p in joint.items():
        assert grammar.score(text).posterior[factors] == pytest.approx(p / texts[text], abs=1e-12)


def test_samples_agree_with_entropy_and_mutual_information_by_full_enumeration():
    grammar = tiny_grammar()
    texts, joint, pieces = defaultdict(float), defaultdict(float), []
    for cell in grammar.cells:
        for words, p in enumerated(cell.document):
            texts[words] += cell.prob * p
            joint[words, cell.factors] += cell.prob * p
            pieces.append(cell.prob * p)
    assert grammar.root.entropy == pytest.approx(entropy_of(pieces))
    information = entropy_of(texts.values()) + grammar.factor_entropy - entropy_of(joint.values())

    rng = random.Random(5)
    scored = [grammar.score(grammar.sample(rng)[0]) for _ in range(3000)]
    assert_mean([-s.log_prob for s in scored], entropy_of(texts.values()))
    equivocation = [entropy_of(s.posterior.values()) for s in scored]
    assert_mean(equivocation, grammar.factor_entropy - information)


def test_log_prob_of_the_corpus_is_the_sum_over_all_its_derivations(grammar, train):
    for text, factors, log_prob in train[:6]:
        joint = Counter()
        for cell in grammar.cells:  # every cell: not only those the vocabulary lets through
            joint[cell.factors] += cell.prob * sum(
                spelling([cell.document], tuple(text.split())), 0.0
            )
        total = math.fsum(joint.values())
        scored = grammar.score(text)
        assert scored.log_prob == pytest.approx(math.log(total), abs=1e-9)
        assert scored.log_prob >= log_prob - 1e-9
        assert scored.posterior[factors] == pytest.approx(joint[factors] / total, abs=1e-9)


def test_the_entropy_of_derivations_is_the_mean_of_their_surprise(grammar, train):
    assert_mean([-log_prob for _, _, log_prob in train], grammar.root.entropy)
    assert_mean([len(text.split()) for text, _, _ in train], grammar.root.mean_words)


def test_factor_entropy_is_that_of_their_joint_distribution(grammar):
    prior = Counter()
    for cell in grammar.cells:
        prior[cell.factors] += cell.prob
    assert math.fsum(prior.values()) == pytest.approx(1.0)
    assert len(prior) == 10 * 5 * 6 * 5
    assert grammar.factor_entropy == pytest.approx(entropy_of(prior.values()))
    assert grammar.factor_entropy == pytest.approx(7.0934233, abs=1e-6)


def test_texts_outside_the_grammar_have_probability_zero(grammar):
    assert grammar.score("how do i fly ?") == (-math.inf, {})
    assert grammar.score("") == (-math.inf, {})
    text, _, _ = grammar.sample(random.Random(1))
    assert grammar.score(text + " .").log_prob == -math.inf
    assert grammar.score(text.rpartition(" ")[0]).log_prob == -math.inf


def assert_mean(values, expected):
    """The mean of a sample lies within four standard errors of the exact value."""
    error = statistics.stdev(values) / math.sqrt(len(values))
    assert abs(statistics.fmean(values) - expected) < 4 * error


# --- the text -------------------------------------------------------------------------------------


def test_size_length_and_vocabulary(train):
    lengths = [len(text.split()) for text, _, _ in train]
    assert min(lengths) >= 10 and max(lengths) <= 60
    assert sum(length <= 40 for length in lengths) > 0.85 * len(lengths)
    assert len({word for text, _, _ in train for word in text.split()}) > 3000
    assert len({text for text, _, _ in train}) > 0.99 * len(train)


def test_every_topic_has_its_own_words(train):
    words = defaultdict(set)
    for text, factors, _ in train:
        words[factors.topic].update(text.split())
    assert set(words) == set(toy.TOPICS)
    for topic, own in words.items():
        others = set().union(*(words[other] for other in words if other != topic))
        assert len(own - others) > 120


def test_treebank_tokens_are_a_fixed_point(train):
    split, join = NLTKWordTokenizer().tokenize, TreebankWordDetokenizer().detokenize
    for text, _, _ in train[:1500]:
        assert text == text.lower() == " ".join(text.split())
        sentence = []
        for word in text.split():
            sentence.append(word)
            if word in {".", "!", "?"}:
                assert split(join(sentence)) == sentence
                sentence = []
        assert not sentence, f"no end of sentence: {text}"


def test_articles_agree_and_no_word_is_doubled(train):
    vowel_letter_only = {"used", "unit", "university"}
    silent_h = {"hour", "heirloom", "honest"}
    for text, _, _ in train:
        words = text.split()
        for article, word in pairwise(words):
            assert article != word, text
            vowel = word in silent_h or (word[0] in "aeiou" and word not in vowel_letter_only)
            assert article != "a" or not vowel, text
            assert article != "an" or vowel, text


# --- the script -----------------------------------------------------------------------------------

SMALL = ["--train", "60", "--valid", "20", "--test", "40"]


def test_the_same_seed_gives_the_same_bytes(prepare, tmp_path):
    assert prepare.main(["--out", str(tmp_path / "a"), *SMALL]) == 0
    data = (tmp_path / "a" / "test.jsonl").read_bytes()
    # If the grammar was changed on purpose, this digest changes with it.
    assert hashlib.sha256(data).hexdigest()[:16] == "f1d41bf9e2310438"
    assert prepare.main(["--out", str(tmp_path / "b"), *SMALL, "--train", "5"]) == 0
    assert (tmp_path / "b" / "test.jsonl").read_bytes() == data
    assert prepare.main(["--out", str(tmp_path / "c"), *SMALL, "--seed", "1"]) == 0
    assert (tmp_path / "c" / "test.jsonl").read_bytes() != data


def test_fewer_subjects_are_a_grammar_of_their_own(prepare, grammar, tmp_path):
    small = toy.Grammar.load(subjects=2)
    first = {topic: list(subjects)[:2] for topic, subjects in grammar.p_subject.items()}
    assert {topic: list(subjects) for topic, subjects in small.p_subject.items()} == first
    assert math.fsum(cell.prob for cell in small.cells) == pytest.approx(1)
    assert small.factor_entropy < grammar.factor_entropy and small.version != grammar.version
    sizes = {"train": 20, "valid": 2, "test": 20}
    for subjects in (2, 1):  # the second run does not keep the corpus of the first
        prepare.prepare(tmp_path, sizes, 0, subjects)
        rows = [json.loads(line) for line in (tmp_path / "test.jsonl").read_text().splitlines()]
        assert all(row["subject"] in first[row["label"]][:subjects] for row in rows)
        assert json.loads((tmp_path / "grammar.json").read_text())["subjects"] == subjects
    scored = toy.Grammar.load(subjects=1).score(rows[0]["text"])
    assert rows[0]["log_prob"] == pytest.approx(scored.log_prob, abs=1e-6)


def test_the_card_is_that_of_the_test_split(prepare, grammar, tmp_path):
    assert prepare.main(["--out", str(tmp_path), *SMALL]) == 0
    card = json.loads((tmp_path / "grammar.json").read_text())
    rows = [json.loads(line) for line in (tmp_path / "test.jsonl").read_text().splitlines()]
    assert card["documents"] == {"train": 60, "valid": 20, "test": 40} and len(rows) == 40
    log_prob = sum(row["log_prob"] for row in rows)
    assert card["iw"] == pytest.approx(log_prob / 40, abs=1e-5)
    units = sum(len(row["text"].split()) + 1 for row in rows)
    assert card["ppl_iw"] == pytest.approx(math.exp(-log_prob / units), abs=1e-5)
    assert card["mi_max"] == pytest.approx(sum(card["entropy"].values()), abs=1e-5)
    assert card["mi_max"] - 0.5 < card["mi"] <= card["mi_max"]
    assert card["model"] == "grammar (exact)" and card["split"] == "test"
    for key in ("rec", "kl", "elbo", "ppl_elbo", "au", "latent_dim"):
        assert card[key] is None
    for row in rows[:10]:
        factors = toy.Factors(row["label"], row["subject"], row["intent"], row["tone"])
        scored = grammar.score(row["text"])
        assert row["log_prob"] == pytest.approx(scored.log_prob, abs=1e-6)
        assert row["log_posterior"] == pytest.approx(math.log(scored.posterior[factors]), abs=1e-6)


def test_a_second_run_leaves_the_corpus_and_repairs_a_damaged_one(prepare, tmp_path, capsys):
    arguments = ["--out", str(tmp_path), *SMALL]
    assert prepare.main(arguments) == 0
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert set(before) == {"train.jsonl", "valid.jsonl", "test.jsonl", "grammar.json"}
    capsys.readouterr()
    assert prepare.main(arguments) == 0
    said = capsys.readouterr().out
    assert "already there" in said and said.count("\n") == 1
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before
    whole = (tmp_path / "valid.jsonl").read_bytes()
    (tmp_path / "valid.jsonl").write_bytes(whole[:100])
    assert prepare.main(arguments) == 0
    assert (tmp_path / "valid.jsonl").read_bytes() == whole


@pytest.mark.parametrize(
    "arguments", [["--train", "0"], ["--test", "many"], ["--sizes", "3"], ["--seed", "x"]]
)
def test_bad_arguments_give_one_line_and_status_2(arguments, tmp_path):
    done = run_script("--out", str(tmp_path), *arguments)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and arguments[0] in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_gives_one_line_and_status_2(tmp_path):
    (tmp_path / "file").write_text("in the way")
    done = run_script("--out", str(tmp_path / "file"), *SMALL)
    assert done.returncode == 2 and done.stderr.count("\n") == 1


def run_script(*arguments):
    command = [sys.executable, str(TOY / "prepare.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("notation", ["{a|b", "a}", "a|b", "<a b", "a @2 b"])
def test_malformed_notation_is_refused(notation):
    with pytest.raises(NotationError):
        parse(notation)


def test_a_lexicon_with_a_hole_is_refused():
    with pytest.raises(NotationError, match="soup has no scene"):
        scenes.read_topic("cooking", "[soup]\nhow stir > wait")
    with pytest.raises(NotationError, match="why needs 2 groups"):
        scenes.read_topic("cooking", "[soup]\nwhy it falls > too hot")
