"""Tokenizers of pretrained models: byte-level BPE (GPT-2), WordPiece (BERT), and unigram (T5)."""

import json
import pickle
import re
import sys
from dataclasses import replace

import huggingface_hub
import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

import textvae
import textvae.builders.data as build
from textvae.errors import UserError
from textvae.text.data.tokenizer import taken_tokenizer, warn_of_spelling
from textvae.text.tokenizers import BOS, EOS, UNK, HuggingFaceTokenizer, load_tokenizer
from textvae.text.tokenizers.hugging_face import FIRST

tokenizers = pytest.importorskip("tokenizers")

TEXTS = ["the dog's caf\u00e9 isn't open, na\u00efve ok", "a cat sees the tree walking jumping"] * 5


def learned(kind):
    made = tokenizers.Tokenizer
    shared = {"show_progress": False}
    if kind == "bpe":
        found = made(tokenizers.models.BPE())
        found.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
        found.decoder = tokenizers.decoders.ByteLevel()
        bytes_ = tokenizers.pre_tokenizers.ByteLevel.alphabet()
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=300, special_tokens=["<|end|>"], initial_alphabet=bytes_, **shared
        )
    elif kind == "wordpiece":
        found = made(tokenizers.models.WordPiece(unk_token="[UNK]"))
        found.normalizer = tokenizers.normalizers.BertNormalizer()
        found.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
        found.decoder = tokenizers.decoders.WordPiece()
        trainer = tokenizers.trainers.WordPieceTrainer(
            vocab_size=60, special_tokens=["[UNK]", "[CLS]"], **shared
        )
    else:
        found = made(tokenizers.models.Unigram())
        found.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
        found.decoder = tokenizers.decoders.Metaspace()
        trainer = tokenizers.trainers.UnigramTrainer(
            vocab_size=80, special_tokens=["<unk>"], unk_token="<unk>", **shared
        )
    found.train_from_iterator(TEXTS, trainer)
    return found


@pytest.fixture(scope="module")
def theirs():
    return {kind: learned(kind) for kind in ("bpe", "wordpiece", "unigram")}


@pytest.fixture(scope="module")
def ours(theirs):
    return {kind: HuggingFaceTokenizer(each.to_str()) for kind, each in theirs.items()}


@pytest.mark.parametrize("kind", ["bpe", "wordpiece", "unigram"])
def test_ids_are_those_of_the_pretrained_model_after_ours(kind, theirs, ours):
    expected = theirs[kind].encode(TEXTS[1], add_special_tokens=False).ids
    assert ours[kind].encode(TEXTS[1]) == [i + FIRST for i in expected]
    assert len(ours[kind]) == theirs[kind].get_vocab_size() + FIRST
    assert ours[kind].decode([BOS, *ours[kind].encode(TEXTS[1]), EOS]) == TEXTS[1]
    assert ours[kind].tokens([BOS, EOS, expected[0] + FIRST])[:2] == ["<s>", "</s>"]


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_bytes_spell_every_text(ours, text):
    ids = ours["bpe"].encode(text)
    assert ours["bpe"].decode(ids) == text and UNK not in ids
    words = ours["bpe"].words(ids)
    assert sum(count for _, count in words) == len(ids)
    if not text.endswith("\ufffd"):
        assert "".join(word for word, _ in words) == text


def test_what_looks_like_a_special_token_is_text(theirs, ours):
    assert len(theirs["bpe"].encode("<|end|>").ids) == 1
    ids = ours["bpe"].encode("<|end|>")
    assert len(ids) > 1 and ours["bpe"].decode(ids) == "<|end|>"


def test_the_words_that_tokens_spell(ours):
    shown = {kind: [w for w, _ in t.words([*t.encode(TEXTS[0]), EOS])] for kind, t in ours.items()}
    words = ["the", " dog", "'s", " caf\u00e9", " isn", "'t", " open", ",", " na\u00efve", " ok"]
    assert shown["bpe"] == shown["unigram"] == [*words, " </s>"]
    assert shown["wordpiece"][:5] == ["the", " dog", " '", " s", " cafe"]
    for tokenizer in ours.values():
        ids = tokenizer.encode(TEXTS[0])
        assert sum(count for _, count in tokenizer.words(ids)) == len(ids)
    incomplete = ours["bpe"].encode("\u00e9")[:1]
    assert ours["bpe"].words([*incomplete, EOS]) == [("\ufffd", 1), (" </s>", 1)]


def test_unknown_tokens_are_ours(ours):
    for kind, spelled in (("wordpiece", "[UNK]"), ("unigram", "<unk>")):
        assert UNK in ours[kind].encode("\u2603")
        assert spelled in ours[kind].decode([UNK])
    incomplete = json.loads(learned("unigram").to_str())
    incomplete["model"]["unk_id"] = None
    with pytest.raises(UserError, match="cannot read '\u2603': Encountered an unknown token"):
        HuggingFaceTokenizer(json.dumps(incomplete)).encode("\u2603")
    assert ours["bpe"].decode([UNK, *ours["bpe"].encode("a")]) == "<unk>a"


@pytest.mark.parametrize("kind", ["bpe", "wordpiece", "unigram"])
def test_it_is_taken_from_the_folder_of_a_model_and_saved_with_ours(
    kind, theirs, ours, tmp_path, caplog
):
    caplog.set_level("INFO")
    theirs[kind].enable_truncation(2)  # as in the files of some models
    theirs[kind].save(str(tmp_path / "tokenizer.json"))
    options = {"path": str(tmp_path), "tokenized": False}
    taken = taken_tokenizer(kind="auto", **options)
    assert taken.encode(TEXTS[1]) == ours[kind].encode(TEXTS[1])
    assert f"the tokenizer of {tmp_path} is used, with {len(taken)} tokens" in caplog.text
    with pytest.raises(UserError, match="its kind is hugging_face, not bpe"):
        taken_tokenizer(kind="bpe", **options)
    folder = tmp_path / "run"
    folder.mkdir()
    taken.save(folder)
    for again in (load_tokenizer(folder), pickle.loads(pickle.dumps(taken))):
        assert again.fingerprint() == taken.fingerprint()
        assert again.encode(TEXTS[0]) == taken.encode(TEXTS[0])
    theirs[kind].no_truncation()


@pytest.mark.parametrize("kind", ["bpe", "wordpiece", "unigram"])
def test_a_tokenizer_without_its_decoder_is_warned_of(kind, theirs, ours, caplog):
    dataset = Dataset.from_dict({"text": TEXTS[1::2]})
    warn_of_spelling(ours[kind], dataset, "pretrained")
    assert not caplog.records
    bare = json.loads(theirs[kind].to_str()) | {"decoder": None}
    warn_of_spelling(HuggingFaceTokenizer(json.dumps(bare)), dataset, "pretrained")
    said = f"the tokenizer of pretrained changes 100% of the texts, such as {TEXTS[1]!r} to "
    assert said in caplog.text


def test_characters_that_a_tokenizer_drops_are_warned_of(caplog):
    bare = tokenizers.Tokenizer(tokenizers.models.BPE())  # no unknown token, and no bytes
    bare.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    bare.decoder = tokenizers.decoders.Metaspace()
    bare.train_from_iterator(TEXTS, tokenizers.trainers.BpeTrainer(show_progress=False))
    dataset = Dataset.from_dict({"text": [*TEXTS[1::2], "a cat\u3002"]})
    warn_of_spelling(HuggingFaceTokenizer(bare.to_str()), dataset, "pretrained")
    assert "changes 17% of the texts, such as 'a cat\u3002' to 'a cat'" in caplog.text


@pytest.mark.parametrize("kind", ["wordpiece", "unigram"])
def test_an_unknown_token_survives_decoding_and_encoding(kind, ours):
    ids = ours[kind].encode("a \u2603 cat")
    assert UNK in ids
    assert ours[kind].encode(ours[kind].decode(ids)) == ids


def test_words_around_an_unknown_token_keep_their_spaces(ours):
    for kind, ids in (
        (kind, ours[kind].encode("\u2603 a cat")) for kind in ("wordpiece", "unigram")
    ):
        words = ours[kind].words(ids)
        assert [word for word, _ in words] == ["<unk>", " a", " cat"], kind
        assert sum(count for _, count in words) == len(ids)


def test_of_a_model_on_the_hub_only_the_tokenizer_is_downloaded(theirs, tmp_path, monkeypatch):
    theirs["bpe"].save(str(tmp_path / "tokenizer.json"))
    asked = {}

    def download(name, **options):
        asked.update(options, name=name)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    found = taken_tokenizer(path="gpt2-of-somebody", kind="auto", tokenized=False)
    assert found.encode(TEXTS[0]) and asked["name"] == "gpt2-of-somebody"
    assert asked["allow_patterns"] == ["tokenizer.*"]


def test_a_damaged_file_or_a_missing_package_is_one_line(ours, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="not a tokenizer of Hugging Face"):
        HuggingFaceTokenizer("{}")
    ours["bpe"].save(tmp_path)
    (tmp_path / "tokenizer.hf.json").write_text("{}")
    with pytest.raises(UserError, match="its sha256 is not the one in"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.hf.json").unlink()
    with pytest.raises(UserError, match="cannot be read"):
        load_tokenizer(tmp_path)
    broken = {"model": {"type": "BPE"}, "added_tokens": []}
    (tmp_path / "tokenizer.json").write_text(json.dumps(broken))
    with pytest.raises(UserError, match="not a tokenizer of Hugging Face"):
        load_tokenizer(tmp_path)
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(UserError, match="pip install tokenizers"):
        load_tokenizer(tmp_path)


def test_a_tokenizer_that_cannot_be_used_is_found_before_the_corpus_is_read(tmp_path, monkeypatch):
    (tmp_path / "texts.txt").write_text("a b\n" * 9)
    (tmp_path / "tokenizer.json").write_text("{}")
    monkeypatch.setattr(build, "_read_corpus", lambda config: pytest.fail("was read"))
    config = textvae.Config()
    data = replace(config.data, dir=str(tmp_path / "texts.txt"))
    chosen = replace(config.tokenizer, path=str(tmp_path))
    with pytest.raises(UserError, match=re.escape(str(tmp_path))):
        build.build_data(replace(config, data=data, tokenizer=chosen), tmp_path, fresh=True)
