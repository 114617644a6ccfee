"""Tokenizers: hand-made vocabularies, exact round trips on any Unicode, damaged files refused."""

import json
import logging

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from textvae.errors import UserError
from textvae.text.data.tokenizer import taken_tokenizer
from textvae.text.tokenizers import (
    BOS,
    EOS,
    PAD,
    UNK,
    CharTokenizer,
    SentencePieceTokenizer,
    SmilesTokenizer,
    WordTokenizer,
    load_tokenizer,
    train_tokenizer,
)
from textvae.text.tokenizers.smiles import split_smiles
from textvae.text.tokenizers.vocabulary import fingerprint_of
from textvae.text.tokenizers.words import count_words, split_words

SENTENCES = ["the cat sat on the mat", "the dog  sat\nby the door", "naïve café, tab\there"] * 5
EXOTIC = st.text(st.characters(exclude_categories=["Cs"])) | st.text(
    st.sampled_from(" \t\n\r\0\x1b\u2581\u2585\u0301\u200d\ufeff\u2028\u2047aé<>s/"), max_size=12
)


@pytest.fixture(scope="module", params=["unigram", "bpe"])
def subwords(request):
    return SentencePieceTokenizer.train(SENTENCES, vocab_size=290, model_type=request.param)


@pytest.fixture(scope="module")
def every_kind():
    return [
        WordTokenizer.train(SENTENCES),
        SentencePieceTokenizer.train(SENTENCES, vocab_size=290),
        CharTokenizer.train(SENTENCES),
        CharTokenizer.train(SENTENCES, byte_fallback=False),
        SmilesTokenizer.train(SENTENCES),
    ]


def test_words_by_frequency_then_spelling_with_the_specials_first():
    tokenizer = WordTokenizer.train(["b a c a", "c b a d"], max_size=7)
    assert tokenizer.tokens(range(7)) == ["<pad>", "<unk>", "<s>", "</s>", "a", "b", "c"]
    assert len(tokenizer) == 7
    assert tokenizer.encode("a  d c") == [4, UNK, 6]
    assert tokenizer.decode([BOS, 4, UNK, 6, EOS, PAD, PAD]) == "a <unk> c"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("the dog's café isn't open, naïve", "the| dog|'s| café| isn|'t| open|,| naïve"),
        ("it\u2019s 'quoted' 3,5", "it|\u2019s| 'quoted|'| 3|,|5"),
        ("e\u0301tat \u0905\u0939\u093f", "e\u0301tat| \u0905\u0939\u093f"),
        ("日本 한국어 \u0e44\u0e17\u0e22", "日|本| 한국어| \u0e44|\u0e17|\u0e22"),
        (" two  spaces\n\ttab ", " two| | spaces|\n|\t|tab| "),
        ("\U0001f600\U0001f600 a", "\U0001f600|\U0001f600| a"),
    ],
)
def test_the_words_that_characters_spell(text, words):
    for known in (text, "x"):  # characters, and bytes
        tokenizer = CharTokenizer.train([known])
        ids = tokenizer.encode(text)
        found = tokenizer.words([BOS, *ids, EOS])
        assert [word for word, _ in found] == ["<s>", *words.split("|"), " </s>"]
        counts = [count for _, count in found[1:-1]]
        starts = [sum(counts[:i]) for i in range(len(counts) + 1)]
        for start, end, (word, _) in zip(starts, starts[1:], found[1:-1], strict=False):
            assert tokenizer.decode(ids[start:end]) == word
    assert CharTokenizer.train(["a"], byte_fallback=False).words([4, UNK, 4]) == [
        ("a", 1),
        (" <unk>", 1),
        ("a", 1),
    ]
    assert CharTokenizer.train(["a"]).words([4 + 0xE2, 4 + 0x82]) == [("\ufffd", 2)]


def test_words_of_closed_vocabularies_are_their_tokens(every_kind):
    assert WordTokenizer.train(["a b"]).words([4, UNK, 5, EOS]) == [
        ("a", 1),
        (" <unk>", 1),
        (" b", 1),
        (" </s>", 1),
    ]
    assert SmilesTokenizer.train(["CBr"]).words([5, 4]) == [("C", 1), ("Br", 1)]
    for tokenizer in every_kind:
        assert tokenizer.words([]) == []


@settings(deadline=None)
@given(EXOTIC)
def test_words_in_a_row_are_the_text(subwords, text):
    for tokenizer in (subwords, CharTokenizer.train(["abc <s>"])):
        ids = tokenizer.encode(text)
        found = tokenizer.words(ids)
        assert "".join(word for word, _ in found) == text
        assert sum(count for _, count in found) == len(ids)


def test_the_first_ids_stand_for_the_beginning_of_a_text(every_kind):
    text = "the \u00e9lan of the [nH] dog"
    for tokenizer in every_kind:
        ids = tokenizer.encode(text)
        parts = [tokenizer.prefix(text, count) for count in range(len(ids) + 1)]
        assert (parts[0], parts[-1]) == ("", text)
        # A character cut within its bytes is the only part that is not spelled as the text is.
        assert all(text.startswith(part.rstrip("\ufffd")) for part in parts)
        assert [len(part) for part in parts] == sorted(len(part) for part in parts)


@pytest.mark.parametrize(("kind", "other"), [("unigram", "bpe"), ("bpe", "unigram")])
def test_subwords_taken_over_are_of_the_kind_asked_for(kind, other, tmp_path):
    found = SentencePieceTokenizer.train(SENTENCES, vocab_size=290, model_type=kind)
    found.save(tmp_path)
    options = {"path": str(tmp_path), "tokenized": False}
    taken = taken_tokenizer(kind=kind, **options)
    assert taken.fingerprint() == found.fingerprint()
    with pytest.raises(UserError, match=f"its kind is {kind}, not {other}"):
        taken_tokenizer(kind=other, **options)


def test_min_count_drops_rare_words():
    assert len(WordTokenizer.train(["a a b"], min_count=2)) == 5


def test_the_order_of_the_corpus_does_not_decide_the_vocabulary():
    one, other = (WordTokenizer.train(texts) for texts in (["x y z"], ["z x", "y"]))
    assert one.fingerprint() == other.fingerprint()


def test_every_spelling_of_unknown_and_every_special_is_id_1():
    tokenizer = WordTokenizer.train(["a <unk> _UNK <s> </s> <pad>"])
    assert len(tokenizer) == 5
    assert tokenizer.encode("<unk> _UNK </s> <s> <pad> a") == [UNK] * 5 + [4]


def test_raw_text_is_split_and_joined_by_treebank_rules():
    text = 'Mr. Smith isn\'t here. "Why?" he said, in the U.S. army.'
    tokenizer = WordTokenizer.train([text], tokenized=False)
    words = tokenizer.tokens(tokenizer.encode(text))
    assert words[:6] == ["Mr.", "Smith", "is", "n't", "here", "."]
    assert "U.S." in words
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.encode("Smith <unk> here") == [
        *tokenizer.encode("Smith"),
        UNK,
        *tokenizer.encode("here"),
    ]


def test_periods_inside_a_document_are_words():
    assert split_words("It works. Fine etc. or so... ok.", tokenized=False) == (
        ["It", "works", ".", "Fine", "etc.", "or", "so", "...", "ok", "."]
    )
    assert count_words("one two. three", tokenized=True) == 3
    assert count_words("one two. three", tokenized=False) == 4


def test_words_converted_from_torchtext_keep_their_order():
    class Vocab:
        def get_itos(self):
            return ["<oov>", "<pad>", "the", "cat", "<unk>"]

        def get_default_index(self):
            return 0

    tokenizer = WordTokenizer.from_torchtext(Vocab())
    assert tokenizer.encode("the cat <oov> dog") == [4, 5, UNK, UNK]
    assert len(tokenizer) == 6


@given(EXOTIC)
@example("  two  spaces ")
@example("\u2581\u2581 a\u2581")
@example("<s></s><unk><0x41>\u0301")
@settings(deadline=None)
def test_subwords_round_trip_exactly(subwords, text):
    ids = subwords.encode(text)
    assert subwords.decode([BOS, *ids, EOS, PAD]) == text
    assert UNK not in ids
    assert all(EOS < i < len(subwords) for i in ids)


@given(EXOTIC)
@settings(deadline=None)
def test_characters_round_trip_exactly(text):
    tokenizer = CharTokenizer.train(SENTENCES)
    ids = tokenizer.encode(text)
    assert tokenizer.decode([BOS, *ids, EOS, PAD]) == text
    assert all(EOS < i < len(tokenizer) for i in ids)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs", "Z", "Cc"]), min_size=1)))
def test_known_words_round_trip(words):
    text = " ".join(words).split()
    text = " ".join(w for w in text if w not in ("<s>", "</s>", "<pad>", "_UNK", "[UNK]"))
    tokenizer = WordTokenizer.train([text, "filler"])
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_characters_by_frequency_unseen_ones_by_bytes():
    tokenizer = CharTokenizer.train(["abba", "b"])
    assert tokenizer.encode("ab") == [4 + 256 + 1, 4 + 256]
    assert tokenizer.encode("é") == [4 + 0xC3, 4 + 0xA9]
    assert tokenizer.tokens([BOS, 4 + 0x0A, 260]) == ["<s>", "<0x0A>", "b"]
    assert len(CharTokenizer.train(["abc"], max_size=262)) == 262


def test_a_closed_alphabet_has_no_bytes():
    tokenizer = CharTokenizer.train(["abba", "b"], byte_fallback=False)
    assert len(tokenizer) == 6
    assert tokenizer.encode("aé") == [5, UNK]
    assert tokenizer.decode([BOS, 5, 4, UNK, EOS]) == "ab<unk>"
    assert tokenizer.tokens([3, 4, 5]) == ["</s>", "b", "a"]
    assert tokenizer.fingerprint() != CharTokenizer.train(["abba", "b"]).fingerprint()
    assert len(CharTokenizer.train(["abc"], max_size=6, byte_fallback=False)) == 6
    with pytest.raises(UserError, match="max_size=4: must be above 4, the number of special"):
        CharTokenizer.train(["abc"], max_size=4, byte_fallback=False)


def test_the_fingerprint_of_characters_with_bytes_is_that_of_earlier_releases():
    expected = fingerprint_of("character", ["a", "b"])
    assert CharTokenizer(["a", "b"]).fingerprint() == expected


@pytest.mark.parametrize(
    ("smiles", "symbols"),
    [
        ("CC(=O)Cl", ["C", "C", "(", "=", "O", ")", "Cl"]),
        ("BrCBr", ["Br", "C", "Br"]),
        ("c1cc[nH]c1", ["c", "1", "c", "c", "[nH]", "c", "1"]),
        ("N[C@@H](C)[O-]", ["N", "[C@@H]", "(", "C", ")", "[O-]"]),
        ("C%12CC%12", ["C", "%12", "C", "C", "%12"]),
        ("C%(100)C%(100)", ["C", "%(100)", "C", "%(100)"]),
        ("[13CH4].[Na+]", ["[13CH4]", ".", "[Na+]"]),
        ("C[C", ["C", "[", "C"]),  # an atom without its end is spelled
        ("C%1", ["C", "%", "1"]),
        ("", []),
    ],
)
def test_the_symbols_of_smiles(smiles, symbols):
    assert split_smiles(smiles) == symbols


@given(st.text() | st.text(st.sampled_from("[]CBrl%12cn()=@\n")))
def test_smiles_round_trip_exactly(text):
    assert "".join(split_smiles(text)) == text
    if text:
        tokenizer = SmilesTokenizer.train([text])
        ids = tokenizer.encode(text)
        assert tokenizer.decode([BOS, *ids, EOS, PAD]) == text
        assert all(EOS < i < len(tokenizer) for i in ids)


def test_smiles_by_frequency_and_unseen_symbols():
    tokenizer = SmilesTokenizer.train(["CCBr", "C[nH]Br", "[nH]O"], max_size=7)
    assert tokenizer.tokens(range(4, 7)) == ["C", "Br", "[nH]"]
    assert tokenizer.encode("CO[nH]") == [4, UNK, 6]
    assert tokenizer.decode(tokenizer.encode("CO")) == "C<unk>"
    assert len(SmilesTokenizer.train(["CCO"], min_count=2)) == 5
    with pytest.raises(UserError, match="max_size=4: must be above 4"):
        SmilesTokenizer.train(["C"], max_size=4)
    with pytest.raises(UserError, match="the corpus is empty"):
        SmilesTokenizer.train([])


@pytest.mark.parametrize("symbols", [["CC"], ["C", "C"], [""]])
def test_no_tokens_of_smiles(symbols, tmp_path):
    with pytest.raises(ValueError, match=r"not a token|twice"):
        SmilesTokenizer(symbols)
    description = {"version": 1, "kind": "smiles", "symbols": symbols}
    (tmp_path / "tokenizer.json").write_text(json.dumps(description))
    with pytest.raises(UserError, match=r"not a token|twice"):
        SmilesTokenizer.load(tmp_path)


def test_a_vocabulary_that_the_corpus_cannot_fill_is_reduced_with_a_log_line(caplog):
    with caplog.at_level(logging.WARNING):
        tokenizer = SentencePieceTokenizer.train(SENTENCES, vocab_size=30_000)
    assert len(tokenizer) < 400
    assert "lowered from 30000" in caplog.text


def test_training_is_deterministic_and_survives_reserved_characters():
    texts = [*SENTENCES, "tab\tand \u2581 and \u2585 and \0", "long " * 20_000]
    one, other = (SentencePieceTokenizer.train(texts, vocab_size=290) for _ in range(2))
    assert one.fingerprint() == other.fingerprint()


@pytest.mark.parametrize(
    ("train", "message"),
    [
        (lambda: WordTokenizer.train([]), "no word"),
        (lambda: WordTokenizer.train(["a"], max_size=4), "max_size=4"),
        (lambda: WordTokenizer.train(["a"], min_count=0), "min_count=0"),
        (lambda: CharTokenizer.train([""]), "no character"),
        (lambda: CharTokenizer.train(["a"], max_size=260), "max_size=260"),
        (lambda: train_tokenizer(["a"], kind="bpe", vocab_size=300, min_count=2), "min_count=2"),
        (
            lambda: train_tokenizer(["a"], kind="word", vocab_size=300, byte_fallback=False),
            "byte_fallback=False: no effect on kind word",
        ),
        (lambda: SentencePieceTokenizer.train([], 300), "no text"),
        (lambda: SentencePieceTokenizer.train(["a b"], 200), "vocab_size=200: too small"),
        (lambda: SentencePieceTokenizer.train(["a b"], 300, "word"), "unigram or bpe"),
    ],
)
def test_bad_options_are_explained(train, message):
    with pytest.raises(UserError, match=message):
        train()


def test_save_and_load_keep_ids_and_fingerprint(every_kind, tmp_path):
    for tokenizer in every_kind:
        folder = tmp_path / tokenizer.kind
        tokenizer.save(folder)
        loaded = load_tokenizer(folder)
        assert type(loaded) is type(tokenizer)
        assert loaded.fingerprint() == tokenizer.fingerprint()
        assert len(loaded) == len(tokenizer)
        assert loaded.encode(SENTENCES[0]) == tokenizer.encode(SENTENCES[0])
        assert json.loads((folder / "tokenizer.json").read_text())["kind"] == tokenizer.kind
    assert len({tokenizer.fingerprint() for tokenizer in every_kind}) == 5


def test_options_that_change_ids_change_the_fingerprint():
    assert WordTokenizer(["a"]).fingerprint() != WordTokenizer(["b"]).fingerprint()
    assert WordTokenizer(["a"]).fingerprint() != WordTokenizer(["a"], tokenized=False).fingerprint()
    assert WordTokenizer(["a"]).fingerprint() != WordTokenizer(["a"], unk_aliases=[]).fingerprint()


WORDS = {"version": 1, "kind": "word", "tokenized": True, "unk_aliases": ["<unk>"]}
SPECIALS = ["<pad>", "<unk>", "<s>", "</s>"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not JSON"),
        ("[]", "JSON object"),
        ('{"version": 99}', "version 99"),
        ('{"version": 1, "kind": "os.system"}', "unknown kind 'os.system'"),
        (json.dumps(WORDS), "'tokens' must be a list"),
        (json.dumps(WORDS | {"tokens": ["a"]}), "must begin with"),
        (json.dumps(WORDS | {"tokens": [*SPECIALS, "a", "a"]}), "twice"),
        (json.dumps(WORDS | {"tokens": SPECIALS, "tokenized": 1}), "true or false"),
        (json.dumps(WORDS | {"tokens": [*SPECIALS, "_UNK"], "unk_aliases": ["_UNK"]}), "_UNK"),
        ('{"version": 1, "kind": "character", "characters": ["ab"]}', "not one character"),
        ('{"version": 1, "kind": "sentencepiece"}', "cannot be read"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path, content, message):
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(UserError, match=message):
        load_tokenizer(tmp_path)


def test_a_missing_or_exchanged_file_is_refused(tmp_path, subwords):
    with pytest.raises(UserError, match=r"no tokenizer\.json"):
        load_tokenizer(tmp_path)
    subwords.save(tmp_path)
    (tmp_path / "tokenizer.model").write_bytes(b"something else")
    with pytest.raises(UserError, match="sha256"):
        load_tokenizer(tmp_path)
    with pytest.raises(UserError, match="not a SentencePiece model"):
        SentencePieceTokenizer(b"something else")


def test_every_kind_is_taken_over_under_the_name_of_its_option(every_kind, tmp_path):
    options = ["word", "unigram", "char", "char", "smiles"]
    for tokenizer, kind in zip(every_kind, options, strict=True):
        tokenizer.save(tmp_path)
        found = taken_tokenizer(path=str(tmp_path), kind=kind, tokenized=True)
        assert found.option == tokenizer.option == kind
    with pytest.raises(UserError, match="its kind is smiles, not char"):
        taken_tokenizer(path=str(tmp_path), kind="char", tokenized=True)
