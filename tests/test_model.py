"""TextVAE: its methods on text, and the model folder."""

import json
import logging

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from textvae.config.inference import Inference
from textvae.errors import UserError
from textvae.runs import weights
from textvae.runs.weights import save_weights
from textvae.text.model import TextVAE
from textvae.text.tokenizers import CharTokenizer, WordTokenizer
from textvae.vae.batch import Batch
from textvae.vae.priors import StandardNormal

TEXTS = ["w1 w2 w3", "", "w5", "unheard of words", "w7 w6 w5 w4 w3", "w1 " * 40]
FILES = {"README.md", "config.json", "inference.json", "model.safetensors", "tokenizer.json"}
SIZES = {"embedding_dim": 12, "encoder_hidden": 10, "decoder_hidden": 12}


def build(latent_dim=4, **options):
    torch.manual_seed(0)
    tokenizer = WordTokenizer([f"w{i}" for i in range(30)])
    options = {"max_length": 10, "init_scale": 0.5, **SIZES, **options}
    model = TextVAE(len(tokenizer), latent_dim, **options)
    model.tokenizer = tokenizer
    return model


def test_encode_keeps_the_order_and_does_not_depend_on_the_batch():
    model = build()
    whole = model.encode(TEXTS)
    assert whole.mean.shape == whole.logvar.shape == (6, 4)
    for size in (1, 4):
        parts = model.encode(TEXTS, batch_size=size)
        assert torch.allclose(parts.mean, whole.mean, atol=1e-6)
        assert torch.allclose(parts.logvar, whole.logvar, atol=1e-6)
    assert torch.allclose(model.encode("w5").mean, whole.mean[2:3], atol=1e-6)
    assert model.encode([]).mean.shape == (0, 4)


def log_joint_gain(model, text, q):
    """The gain in log p(x, z) at the mean of q compared with the mean of the encoder."""
    ids = torch.tensor([[2, *model.tokenizer.encode(text), 3]])
    count = torch.tensor([ids.size(1) - 1])
    batch = Batch(ids, count, count, count, torch.tensor([0]))
    with torch.no_grad():
        log_p = [
            float(model.log_likelihood(batch, mean[None])[0] + StandardNormal(4).log_prob(mean))
            for mean in (q.mean, model.encode([text], refine_steps=0).mean)
        ]
    return log_p[0] - log_p[1]


def test_refinement_finds_a_better_z_for_every_batch_size():
    model = build().eval()
    model.inference = Inference("amortized", lr=0.2, loss_per="example", clip_per="example")
    plain, refined = (model.encode(TEXTS, refine_steps=k) for k in (0, 30))
    for size in (1, 4):
        parts = model.encode(TEXTS, refine_steps=30, batch_size=size)
        assert torch.allclose(parts.mean, refined.mean, atol=1e-4)
    assert (refined.mean - plain.mean).abs().max() > 0.1
    alone = model.encode(TEXTS[4:5], refine_steps=60)
    assert log_joint_gain(model, TEXTS[4], alone) > 0
    assert len(model.reconstruct(TEXTS, refine_steps=2)) == len(TEXTS)
    assert len(model.interpolate("w1", "w2", 3, refine_steps=2)) == 3


def test_a_model_remembers_how_its_posteriors_are_found(tmp_path):
    model = build()
    model.inference = Inference("semi_amortized", steps=3, lr=0.1, loss_per="example")
    model.save_pretrained(tmp_path)
    loaded = TextVAE.from_pretrained(tmp_path)
    assert loaded.inference == model.inference
    own = loaded.encode(TEXTS)
    assert torch.equal(own.mean, loaded.encode(TEXTS, refine_steps=3).mean)
    assert not torch.equal(own.mean, loaded.encode(TEXTS, refine_steps=0).mean)
    build().save_pretrained(tmp_path)  # another model, with its own inference options
    assert TextVAE.from_pretrained(tmp_path).inference == build().inference


def test_a_model_without_an_encoder_refines_or_says_so():
    model = build(encoder_layers=0).eval()
    model.inference = Inference("svi", steps=4, lr=0.2, loss_per="example")
    assert not model.has_encoder
    assert model.encode(TEXTS).mean.abs().max() > 0.01
    assert len(model.reconstruct(TEXTS)) == len(TEXTS)
    with pytest.raises(UserError, match="refine_steps=0: must be at least 1"):
        model.encode(TEXTS, refine_steps=0)


def test_a_broken_inference_file_is_one_line(tmp_path):
    build().save_pretrained(tmp_path)
    for content in (
        "{",
        "[3]",
        "3",
        '{"stops": 4}',
        '{"method": 3}',
        '{"steps": "x"}',
        '{"lr": NaN}',
    ):
        (tmp_path / "inference.json").write_text(content)
        with pytest.raises(UserError, match=r"inference\.json"):
            TextVAE.from_pretrained(tmp_path)


def test_long_texts_are_cut_and_reported(caplog):
    model = build()
    with caplog.at_level(logging.WARNING):
        cut = model.encode(["w1 " * 40]).mean
    assert torch.allclose(cut, model.encode(["w1 " * 10]).mean, atol=1e-6)
    assert "1 of 1 texts cut to 10 tokens" in caplog.text


def test_every_method_gives_as_many_sentences_as_asked():
    model = build()
    assert len(model.sample(5)) == 5 and model.sample(0) == []
    assert len(model.sample(z=torch.zeros(3, 4))) == 3
    assert len(model.sample(2, num_beams=3)) == 2
    assert len(model.reconstruct(TEXTS)) == len(model.reconstruct(TEXTS, use="sample")) == 6
    assert (
        len(model.interpolate("w1", "", steps=5, kind="spherical", do_sample=True, top_p=0.5)) == 5
    )
    for text in model.sample(20) + model.reconstruct(TEXTS):
        assert isinstance(text, str) and len(text.split()) <= 11 and "<" not in text


def test_samples_do_not_depend_on_how_many_or_on_the_batch_size():
    model = build()
    texts = model.sample(20, top_p=0.9)
    assert model.sample(20, top_p=0.9, batch_size=3) == texts
    assert model.sample(7, top_p=0.9) == texts[:7]
    assert model.sample(20, top_p=0.9, seed=1) != texts
    assert texts == model.decode(noise(20), do_sample=True, top_p=0.9)


def noise(count):
    from textvae.vae.noise import Purpose, RowNoise

    return RowNoise(0, Purpose.LATENT, range(count)).normal(1, 4)[0]


def test_reconstruct_decodes_the_posterior():
    model = build()
    q = model.encode(TEXTS)
    assert model.reconstruct(TEXTS) == model.decode(q.mean)
    drawn = model.decode(q.mean + torch.exp(0.5 * q.logvar) * noise(6))
    assert model.reconstruct(TEXTS, use="sample") == drawn
    ends = model.interpolate(TEXTS[0], TEXTS[4], steps=3)
    assert [ends[0], ends[-1]] == model.decode(q.mean[[0, 4]])


def test_encoding_works_when_gradients_are_enabled():
    model = build()
    model.encode(TEXTS).mean.requires_grad_().sum().backward()  # not an inference tensor
    assert all(parameter.grad is None for parameter in model.parameters())


def test_language_model_samples_and_says_why_it_cannot_encode():
    model = build(latent_dim=0)
    assert len(model.sample(3)) == 3
    for call in (
        lambda: model.encode(["w1"]),
        lambda: model.reconstruct(["w1"]),
        lambda: model.interpolate("w1", "w2"),
    ):
        with pytest.raises(UserError, match="no latent variable"):
            call()


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda model: model.decode(torch.zeros(2, 3)), r"z must be \(N, 4\)"),
        (lambda model: model.decode(torch.zeros(4)), r"z must be \(N, 4\)"),
        (lambda model: model.sample(-1), "n=-1"),
        (lambda model: model.sample(2, batch_size=0), "batch_size"),
        (lambda model: model.encode(["w1"], batch_size=0), "batch_size"),
        (lambda model: model.reconstruct(["w1"], use="mode"), "mean or sample"),
        (lambda model: model.interpolate("a", "b", steps=1), "steps"),
        (lambda model: model.interpolate("a", "b", kind="cubic"), "linear or spherical"),
        (lambda model: TextVAE(20, **SIZES).sample(1), "z must be|no tokenizer"),
    ],
)
def test_errors_are_explained(call, message):
    with pytest.raises(UserError, match=message):
        call(build())


@pytest.mark.parametrize(
    "wrong",
    [
        {"latent_dim": -1},
        {"decoder_layers": 0},
        {"dropout_in": 1.0},
        {"injection": "sideways"},
        {"init_scale": 0.0},
        {"bidirectional": 1},
        {"embedding_dim": 2.5},
        {"tie_embeddings": True, "embedding_dim": 8},
    ],
)
def test_arguments_are_checked(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        TextVAE(20, **{**SIZES, **wrong})


def test_initial_weights():
    model = build(init_scale=0.1, init_embedding=0.01, bidirectional=True)
    for name, parameter in model.named_parameters():
        bound = 0.01 if "embedding" in name else 0.1
        assert bound / 2 < parameter.abs().max() <= bound, name
    torch.manual_seed(0)
    own = TextVAE(30, 4, init_scale=None, **SIZES)
    assert own.decoder.embedding.weight.std() > 0.9  # torch's own: N(0, 1)


@pytest.mark.parametrize(
    "options",
    [{}, {"tie_embeddings": True}, {"latent_dim": 0}, {"injection": "init", "bidirectional": True}],
    ids=str,
)
def test_a_saved_model_comes_back(tmp_path, options):
    model = build(**options)
    model.save_pretrained(tmp_path)
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    loaded = TextVAE.from_pretrained(tmp_path)
    assert torch.equal(before, torch.random.get_rng_state())
    assert loaded.config == model.config and not loaded.training
    assert len(list(loaded.parameters())) == len(list(model.parameters()))  # ties stay ties
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    assert loaded.sample(4) == model.sample(4)
    assert json.loads((tmp_path / "config.json").read_text()) == model.config


def test_tied_embeddings_are_stored_once(tmp_path):
    build(tie_embeddings=True).save_pretrained(tmp_path)
    with safe_open(str(tmp_path / "model.safetensors"), "pt") as file:
        stored = set(file.keys())
    assert len({"decoder.embedding.weight", "decoder.output.weight"} & stored) == 1


def test_save_only_the_weights(tmp_path):
    model = build()
    model.save_pretrained(tmp_path)
    with torch.no_grad():
        model.decoder.output.bias.add_(1.0)
    save_weights(model, tmp_path / "model.safetensors")
    loaded = TextVAE.from_pretrained(tmp_path)
    assert torch.equal(loaded.decoder.output.bias, model.decoder.output.bias)


def test_inference_needs_only_the_folder(tmp_path):
    build().save_pretrained(tmp_path / "a")
    (tmp_path / "a").rename(tmp_path / "b")
    names = {path.name for path in (tmp_path / "b").iterdir()}
    assert names == FILES
    assert TextVAE.from_pretrained(str(tmp_path / "b")).reconstruct(["w1 w2"])


def test_model_card(tmp_path):
    model = build()
    (tmp_path / "metrics").mkdir()
    scores = {"elbo": -12.345, "summary": [["ELBO", "-12.35", "nats"], ["AU", "3", "dimensions"]]}
    (tmp_path / "metrics" / "test.json").write_text(json.dumps(scores))
    model.save_pretrained(tmp_path)
    text = (tmp_path / "README.md").read_text()
    assert text.startswith("---\n") and "library_name: textvae" in text and "license" not in text
    assert "| ELBO   | -12.35 | nats       |" in text and "from_pretrained" in text
    TextVAE.from_pretrained(tmp_path).save_pretrained(tmp_path / "copy")
    assert "| AU     | 3      | dimensions |" in (tmp_path / "copy" / "README.md").read_text()
    (tmp_path / "README.md").write_text("mine")
    model.save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"


def truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


def edit(path, change):
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))


def edit_weights(path, change):
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


DAMAGES = {
    "config gone": (lambda f: (f / "config.json").unlink(), "no config.json"),
    "config cut": (lambda f: truncate(f / "config.json"), "not JSON"),
    "config a list": (lambda f: (f / "config.json").write_text("[]"), "not a JSON object"),
    "unknown argument": (
        lambda f: edit(f / "config.json", lambda c: c.update(heads=8)),
        "has no option 'heads'",
    ),
    "bad argument": (
        lambda f: edit(f / "config.json", lambda c: c.update(decoder_hidden="big")),
        "decoder_hidden big",
    ),
    "other size": (
        lambda f: edit(f / "config.json", lambda c: c.update(encoder_hidden=11)),
        "does not fit",
    ),
    "weights gone": (lambda f: (f / "model.safetensors").unlink(), "no model.safetensors"),
    "weights cut": (lambda f: truncate(f / "model.safetensors"), "truncated"),
    "weights no safetensors": (
        lambda f: (f / "model.safetensors").write_bytes(b"\x80\x04 a pickle"),
        "not a safetensors file",
    ),
    "weight missing": (
        lambda f: edit_weights(f / "model.safetensors", lambda t: t.pop("decoder.output.bias")),
        "decoder.output.bias is missing",
    ),
    "foreign weight": (
        lambda f: edit_weights(f / "model.safetensors", lambda t: t.update(x=torch.ones(1))),
        "x is not part",
    ),
    "tokenizer gone": (lambda f: (f / "tokenizer.json").unlink(), "no tokenizer.json"),
    "tokenizer of another model": (
        lambda f: CharTokenizer.train(["abc"]).save(f),
        "do not belong together",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_broken_folder_is_explained_in_one_line(tmp_path, damage):
    build().save_pretrained(tmp_path)
    harm, message = DAMAGES[damage]
    harm(tmp_path)
    with pytest.raises(UserError, match=message) as error:
        TextVAE.from_pretrained(tmp_path)
    assert "\n" not in str(error.value)


def test_neither_folder_nor_hub(tmp_path, monkeypatch):
    import huggingface_hub

    with pytest.raises(UserError, match="there is no such folder") as error:
        TextVAE.from_pretrained(tmp_path / "nowhere")
    assert "\n" not in str(error.value)

    def offline(*args, **kwargs):
        raise ConnectionError("no route to\nthe hub, at length")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(UserError, match=r"no route to\. Offline\?"):
        TextVAE.from_pretrained("someone/model")


def test_from_the_hub_only_the_models_files_are_taken(tmp_path, monkeypatch):
    import huggingface_hub

    build().save_pretrained(tmp_path)
    asked = {}

    def download(name, **options):
        asked.update(options, name=name)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    TextVAE.from_pretrained("someone/model", revision="v1")
    assert asked["name"] == "someone/model" and asked["revision"] == "v1"
    assert "model.safetensors" in asked["allow_patterns"]


@pytest.mark.parametrize("texts", [[None], [["how", "so"]], [b"how"], {"a": 1}.items()])
def test_texts_that_are_none_are_named(texts):
    with pytest.raises(TypeError, match="texts must be strings, not "):
        build().encode(texts)


def test_push_sends_the_whole_folder(monkeypatch):
    from huggingface_hub import HfApi

    sent = set()

    def upload(self, *, folder_path, **options):
        sent.update(path.name for path in folder_path.iterdir())
        return "url"

    monkeypatch.setattr(HfApi, "create_repo", lambda self, **o: type("R", (), o))
    monkeypatch.setattr(HfApi, "upload_folder", upload)
    assert build().push_to_hub("someone/model") == "url"
    assert sent == FILES


def test_a_full_disk_leaves_the_old_files(tmp_path, monkeypatch):
    model = build()
    model.save_pretrained(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with torch.no_grad():
        model.decoder.output.bias.add_(1.0)

    def full(_, path, __):
        with open(path, "wb") as file:
            file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(weights, "save_file", full)
    with pytest.raises(UserError, match="No space left on device"):
        model.save_pretrained(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_loaded_model_does_not_depend_on_its_file(tmp_path):
    model = build()
    model.save_pretrained(tmp_path)
    loaded = TextVAE.from_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    with path.open("rb+") as file:  # in place, as when a file is copied over it
        file.write(b"\0" * path.stat().st_size)
    assert loaded.sample(3) == model.sample(3)


def test_a_model_can_be_copied():
    from copy import deepcopy

    model = build()
    twin = deepcopy(model)
    assert twin.sample(2) == model.sample(2)


def test_equal_models_are_equal_files(tmp_path):
    for name in ("a", "b", "c", "d"):  # the order of several entries would be random
        build(tie_embeddings=True).save_pretrained(tmp_path / name)
    files = {(tmp_path / name / "model.safetensors").read_bytes() for name in "abcd"}
    assert len(files) == 1


def test_a_push_that_fails_says_so_in_one_line(monkeypatch):
    from huggingface_hub import HfApi

    def offline(self, **options):
        raise ConnectionError("no route to\nthe hub, at length")

    monkeypatch.setattr(HfApi, "create_repo", offline)
    with pytest.raises(UserError, match=r"'someone/model' could not be pushed .*: no route to$"):
        build().push_to_hub("someone/model")
    with pytest.raises(TypeError, match="no_such_option"):
        build().push_to_hub("someone/model", no_such_option=1)


def test_a_tokenizer_of_another_size_is_not_saved(tmp_path):
    model = build()
    model.save_pretrained(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    model.tokenizer = CharTokenizer.train(["abc"])
    with pytest.raises(UserError, match=r"the tokenizer has \d+ tokens, but the model has"):
        model.save_pretrained(tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
