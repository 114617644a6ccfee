"""Metrics of molecules against values computed by hand, and against their definitions."""

import hashlib
import json
import math
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import linalg

from textvae.cli.main import main
from textvae.errors import UserError
from textvae.evaluation.molecules import chemnet, measures
from textvae.evaluation.molecules.measures import Moments, moments

ETHANOL, BENZENE, NAPHTHALENE = "CCO", "c1ccccc1", "c1ccc2ccccc2c1"
LINKED = "c1ccc(CCc2ccccc2)cc1"  # two rings and a link
MOLECULES = [ETHANOL, BENZENE, NAPHTHALENE, LINKED, "CC(=O)NC", "CCN(CC)CC", "Clc1ccccc1"]


@pytest.fixture
def rdkit():
    return pytest.importorskip("rdkit")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TEXTVAE_CACHE", str(tmp_path / "cache"))


def packed(*rows: str) -> np.ndarray:
    """Fingerprints of 8 bits, the lowest bit first."""
    return np.array([[int(row[::-1], 2)] for row in rows], np.uint8)


def written(path: Path, *lines: str) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def test_unique_and_novelty_by_hand():
    molecules = ["A", "B", "A", "C", "A"]
    assert measures.unique(molecules) == 3 / 5
    assert measures.unique(molecules, 2) == 1
    assert measures.unique(molecules, 3) == 2 / 3
    assert measures.novelty(molecules, {"B", "X"}) == 2 / 3
    assert measures.unique([]) is None
    assert measures.novelty([], {"B"}) is None


def test_similarities_by_hand():
    a = measures.bits(packed("11000000", "10100000"))
    b = measures.bits(packed("11110000", "00000011", "11000000"))
    assert a.tolist()[0] == [1, 1, 0, 0, 0, 0, 0, 0]
    # 11 and 1010 share one bit of three; the nearest of b is the same one, then 2 bits of 4.
    assert measures.nearest_similarity(a, b) == pytest.approx((1 + 1 / 2) / 2)
    assert measures.internal_diversity(a) == pytest.approx(1 - (1 + 1 / 3) / 2)
    root = math.sqrt((1 + 1 / 9) / 2)
    assert measures.internal_diversity(a, p=2) == pytest.approx(1 - root)


def test_molecules_without_any_bit_are_alike():
    nothing = measures.bits(packed("00000000"))
    assert measures.nearest_similarity(nothing, nothing) == 1
    assert measures.nearest_similarity(nothing, measures.bits(packed("10000000"))) == 0


def test_blocks_do_not_change_similarities(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randint(2, (n, 64), generator=generator, dtype=torch.uint8) for n in (50, 70))
    whole = measures.nearest_similarity(x, y), measures.internal_diversity(x, p=2)
    monkeypatch.setattr(measures, "BLOCK", 16)
    parts = measures.nearest_similarity(x, y), measures.internal_diversity(x, p=2)
    assert parts == pytest.approx(whole)


def test_cosine_by_hand():
    assert measures.cosine(Counter(a=3, b=4), Counter(a=3, b=4)) == pytest.approx(1)
    assert measures.cosine(Counter(a=3, b=4), Counter(a=1, c=1)) == pytest.approx(
        3 / (5 * math.sqrt(2))
    )
    assert measures.cosine(Counter(a=1), Counter(c=1)) == 0
    assert measures.cosine(Counter(), Counter(a=1)) is None


def test_frechet_of_one_dimension_by_hand():
    """(m - m')^2 + (s - s')^2 for standard deviations s and s'."""
    a = Moments(np.array([1.0]), np.array([[4.0]]))
    b = Moments(np.array([3.0]), np.array([[9.0]]))
    assert measures.frechet(a, b) == pytest.approx(4 + 1)


def test_frechet_against_the_matrix_square_root():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(200, 6)), rng.normal(size=(300, 6)) @ rng.normal(size=(6, 6)) + 1
    a, b = measures.moments(x), measures.moments(y)
    root = linalg.sqrtm(a.covariance @ b.covariance).real
    expected = ((a.mean - b.mean) ** 2).sum() + np.trace(a.covariance + b.covariance - 2 * root)
    assert measures.frechet(a, b) == pytest.approx(expected)
    assert 0 <= measures.frechet(a, a) < 1e-9
    assert measures.moments(x[:1]) is None


def test_a_rank_deficient_covariance_has_a_distance():
    few = measures.moments(np.random.default_rng(0).normal(size=(3, 20)))
    assert measures.frechet(few, few) == pytest.approx(0, abs=1e-5)


def test_the_symbols_of_chemnet():
    names = [chemnet.SYMBOLS[i] for i in chemnet.symbol_ids("Clc1c[nH]cc1Br")]
    assert names == ["Cl", "c", "1", "c", "[", "n", "H", "]", "c", "c", "1", "Br", "."]
    assert chemnet.symbol_ids("C@K") == [chemnet.SYMBOLS.index(s) for s in ("C", "@", "X", ".")]
    assert chemnet.symbol_ids("C.CC") == chemnet.symbol_ids("C")  # the first of several
    assert len(chemnet.symbol_ids("C" * 999)) == chemnet.LENGTH


@pytest.fixture
def network():
    """A ChemNet of the published shape with fewer channels, in the format of the file."""
    torch.manual_seed(0)

    def convolution(inputs, channels):
        arguments = {"in_channels": inputs, "out_channels": channels, "kernel_size": 4}
        arguments |= {"stride": 2, "padding": 0, "dilation": (1,), "bias": False}
        weights = torch.nn.Conv1d(**arguments).state_dict()
        return "Conv1d", (weights, arguments, {"activation": "selu", "padding": "same"})

    def recurrence(inputs, hidden):
        arguments = {"input_size": inputs, "hidden_size": hidden, "batch_first": True}
        return "LSTM", (torch.nn.LSTM(**arguments).state_dict(), arguments, {"reverse": True})

    return [convolution(35, 3), convolution(3, 4), recurrence(4, 5), recurrence(5, 6)]


def test_chemnet_step_by_step(network, tmp_path):
    torch.save(network, tmp_path / "weights.pt")
    found = chemnet.activations(
        chemnet.read_chemnet(tmp_path / "weights.pt"), ["CCO", "Clc1ccccc1", ""], batch_size=2
    )
    assert found.shape == (3, 6)
    x = torch.zeros(350, 35)
    for t, symbol in enumerate(("C", "C", "O", ".")):
        x[t, chemnet.SYMBOLS.index(symbol)] = 1 / 35
    for _, (weights, _, _) in network[:2]:
        weight, before = weights["weight"], 1  # one zero before; the rest behind
        steps = -(-len(x) // 2)
        padded = torch.cat([x.new_zeros(before, x.size(1)), x, x.new_zeros(4, x.size(1))])
        blocks = [padded[2 * t : 2 * t + 4] for t in range(steps)]
        x = torch.selu(torch.stack([torch.einsum("kc,ock->o", b, weight) for b in blocks]))
    for _, (weights, arguments, _) in network[2:]:
        layer = torch.nn.LSTM(**arguments)
        layer.load_state_dict(weights)
        x = layer(x.flip(0)[None])[0][0].detach()
    assert found[0] == pytest.approx(x[-1].numpy(), abs=1e-6)


def test_weights_are_never_unpickled(tmp_path):
    torch.save([("Conv1d", (print, {}, {}))], tmp_path / "weights.pt")
    with pytest.raises(UserError, match="not the weights of ChemNet"):
        chemnet.read_chemnet(tmp_path / "weights.pt")


def test_what_rdkit_says(rdkit):
    from textvae.evaluation.molecules.chemistry import BITS, describe

    assert describe("C1CC") is None
    assert describe("") is None
    assert describe("OCC").smiles == ETHANOL
    assert len(describe(ETHANOL).fingerprint) == BITS // 8
    assert describe(BENZENE).scaffold is None  # one ring
    assert describe("Cc1ccc2ccccc2c1").scaffold == NAPHTHALENE
    assert describe(f"C{LINKED}").scaffold == LINKED
    assert sorted(describe("CC(=O)NC").fragments) == sorted(["[1*]C(C)=O", "[5*]NC"])


def test_fingerprints_are_those_of_rdkit(rdkit):
    from rdkit import Chem, DataStructs
    from rdkit.Chem import rdFingerprintGenerator

    from textvae.evaluation.molecules.chemistry import describe

    generator = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=1024)
    expected = [generator.GetFingerprint(Chem.MolFromSmiles(smiles)) for smiles in MOLECULES]
    table = measures.bits(
        np.frombuffer(b"".join(describe(m).fingerprint for m in MOLECULES), np.uint8).reshape(7, -1)
    )
    assert table.sum(1).tolist() == [e.GetNumOnBits() for e in expected]
    similar = [DataStructs.BulkTanimotoSimilarity(e, expected) for e in expected]
    assert measures.internal_diversity(table) == pytest.approx(1 - np.mean(similar), abs=1e-6)


@pytest.fixture
def patterns(tmp_path):
    folder = tmp_path / "patterns"
    folder.mkdir()
    written(folder / "mcf.csv", "names,smarts", "MCF1,[#7]=[#8]")
    written(folder / "wehi_pains.csv", '"c:1:c:c:c:c:c:1-[#17]","<regId=x(1)>"')
    return folder


@pytest.mark.parametrize(
    ("smiles", "passes"),
    [
        ("CCO", True),
        ("c1ccccc1", True),
        ("CN=O", False),  # MCF
        ("Clc1ccccc1", False),  # PAINS
        ("C[N+](C)(C)C", False),  # a charge
        ("CI", False),  # iodine
        ("C1CCCCCC1", True),
        ("C1CCCCCCC1", False),  # a ring of eight
        ("C1CC", False),
    ],
)
def test_filters_by_hand(smiles, passes, patterns, rdkit):
    from textvae.evaluation.molecules.chemistry import passes_filters

    assert passes_filters(smiles, patterns) == passes


def test_a_damaged_filter_names_its_line(patterns, rdkit):
    from textvae.evaluation.molecules.chemistry import unwanted

    written(patterns / "mcf.csv", "names,smarts", "MCF1,[#7")
    with pytest.raises(UserError, match=r"mcf.csv, line 2: not a name and a SMARTS pattern"):
        unwanted(patterns)


def test_the_command_by_hand(tmp_path, patterns, capsys, caplog, rdkit):
    """Five strings, four valid, of which two are equal and one is in the training set."""
    generated = written(tmp_path / "new.txt", "OCC", "CCO", "CN=O", NAPHTHALENE, "C1C")
    test = written(patterns / "test.txt", NAPHTHALENE, ETHANOL)
    train = written(tmp_path / "train.txt", "OCC", BENZENE)
    words = ["molecules", "metrics", str(generated), "--train", str(train), "--test", str(test)]
    assert main([*words, "--no-fcd", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (
        "unique@1000 and unique@10000: there are only 4 valid molecules; computed over all of them"
        in caplog.text
    )
    assert found["count"] == 5
    assert found["valid"] == 4 / 5
    assert found["IntDiv2"] < found["IntDiv"]
    assert found["unique@1000"] == found["unique@10000"] == 3 / 4
    assert found["Novelty"] == 2 / 3
    assert found["Filters"] == 3 / 4
    assert found["Scaf/Test"] == pytest.approx(1)  # naphthalene; the others have none
    assert found["Frag/Test"] == pytest.approx((2 + 1) / math.sqrt((4 + 1 + 1) * 2))
    assert 0.75 < found["SNN/Test"] < 1
    assert "FCD/Test" not in found


def test_a_set_compared_with_itself(tmp_path, network, monkeypatch, rdkit):
    from textvae.evaluation.molecules import metrics

    monkeypatch.setattr(metrics, "load_chemnet", lambda: chemnet.ChemNet(network))
    file = written(tmp_path / "all.txt", *MOLECULES)
    first, again = (
        metrics.molecule_metrics(file, train=file, test=file, test_scaffolds=file)
        for _ in range(2)  # the second one reads the cache
    )
    assert first == again
    assert first["FCD/Test"] == pytest.approx(0, abs=1e-6)
    for name in ("valid", "SNN/Test", "Frag/TestSF", "Scaf/Test"):
        assert first[name] == pytest.approx(1)
    assert first["Novelty"] == 0
    assert "Filters" not in first


def test_published_statistics_next_to_a_file_are_used(tmp_path, network, caplog, rdkit):
    from textvae.evaluation.molecules.reference import read_reference

    file = written(tmp_path / "test.txt", *MOLECULES)
    content = np.array(hashlib.sha256(file.read_bytes()).hexdigest())
    counts = np.frombuffer(b'{"CC": 3}', np.uint8)
    arrays = {"fingerprints": np.zeros((1, 128), np.uint8), "fragments": counts}
    arrays |= {"scaffolds": counts, "mean": np.ones(6), "covariance": np.eye(6)}
    np.savez(tmp_path / "test.stats.npz", content=content, **arrays)
    assert read_reference(file, None, 1).summary.fragments == {"CC": 3}
    assert read_reference(file, chemnet.ChemNet(network), 1).moments.mean.tolist() == [1] * 6
    written(file, *MOLECULES, ETHANOL)  # other molecules
    assert read_reference(file, chemnet.ChemNet(network), 1).moments.mean.tolist() != [1] * 6
    assert "describes other molecules" in caplog.text
    (tmp_path / "test.stats.npz").write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"test.stats.npz: damaged; restore it or remove it"):
        read_reference(file, chemnet.ChemNet(network), 1)


def test_processes_do_not_change_the_result(rdkit):
    from textvae.evaluation.molecules.chemistry import canonical, each

    texts = [*MOLECULES, "C1C"] * 100
    assert each(canonical, texts, jobs=2) == each(canonical, texts)


def test_nothing_valid(tmp_path, rdkit):
    from textvae.evaluation.molecules.metrics import molecule_metrics

    test = written(tmp_path / "test.txt", ETHANOL)
    found = molecule_metrics(written(tmp_path / "new.txt", "C1C"), test=test, fcd=False)
    assert found["valid"] == 0
    assert all(found[name] is None for name in ("unique@1000", "SNN/Test", "IntDiv", "Scaf/Test"))
    assert "–" in str(found)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["metrics", "nowhere.txt"], "nowhere.txt: no such file"),
        (["metrics", "{empty}"], "no molecules"),
        (["metrics", "{file}", "--test", "{wrong}"], "molecule 2, 'C1C', is not valid"),
        (["metrics", "{file}", "--filters", "{folder}"], "mcf.csv: cannot be read"),
        (["metrics", "{file}", "--lines", "3"], "--lines applies only to textvae molecules latent"),
        (["latent", "{file}", "--jobs", "3"], "--jobs applies only to textvae molecules metrics"),
        (["latent", "{file}"], "needs a model: add --run RUN"),
        (["latent", "{file}", "--run", "x", "--draw", "x.png"], "must end in .svg"),
    ],
)
def test_a_mistake_is_one_line(words, said, tmp_path, capsys, rdkit):
    places = {
        "empty": written(tmp_path / "empty.txt"),
        "file": written(tmp_path / "file.txt", ETHANOL),
        "wrong": written(tmp_path / "wrong.txt", ETHANOL, "C1C"),
        "folder": tmp_path,
    }
    assert main(["molecules", *(word.format(**places) for word in words)]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_without_rdkit_it_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "rdkit", None)
    file = written(tmp_path / "file.txt", ETHANOL)
    assert main(["molecules", "metrics", str(file)]) == 2
    assert "pip install rdkit" in capsys.readouterr().err


class Copier:
    """A model whose latent vector is the number of a molecule, and 0.5 decodes to nonsense.

    With a beam, the fourth molecule comes back as well.
    """

    latent_dim = 1

    def encode(self, molecules, **_):
        class Posterior:
            def center(self):
                return torch.arange(float(len(molecules)))[:, None]

        return Posterior()

    def path(self, start, end, steps):
        return torch.lerp(start, end, torch.linspace(0, 1, steps)[:, None])

    def decode(self, z, num_beams=1, **_):
        if num_beams > 1 and z[:, 0].tolist() == [0, 1, 2, 3]:
            return [*MOLECULES[:3], ETHANOL]
        whole = [float(v).is_integer() for v in z[:, 0]]
        return [
            MOLECULES[int(v)] if w else "C1C" for v, w in zip(z[:, 0].tolist(), whole, strict=True)
        ]


def test_latent_metrics_by_hand(tmp_path, rdkit):
    from textvae.evaluation.molecules.latent import latent_metrics

    sources = ["OCC", BENZENE, NAPHTHALENE, ETHANOL]  # the first in another spelling
    found = latent_metrics(Copier(), sources, lines=2, steps=3, draw_to=tmp_path / "lines.svg")
    assert found["exact"] == 3 / 4  # the fourth is decoded to LINKED
    assert latent_metrics(Copier(), sources, lines=2, num_beams=5)["exact"] == 1
    assert found["valid_between"] == 0
    assert found["distinct"] == 2
    with pytest.raises(UserError, match="lines=0: must be at least 1"):
        latent_metrics(Copier(), sources, lines=0)
    assert "<svg" in (tmp_path / "lines.svg").read_text()
    with pytest.raises(UserError, match=r"lines\.svg is a file, not a folder"):  # before the work
        latent_metrics(None, sources, lines=2, draw_to=tmp_path / "lines.svg" / "a.svg")
    with pytest.raises(UserError, match="lines=3: needs 6 molecules, two for each line"):
        latent_metrics(Copier(), sources, lines=3)
    with pytest.raises(UserError, match="steps=2: must be at least 3"):
        latent_metrics(Copier(), sources, lines=2, steps=2)
    with pytest.raises(UserError, match="none of the first 100 lines is a valid molecule"):
        latent_metrics(Copier(), ["how are you"] * 4, lines=2)


def test_molecules_may_be_a_column_of_a_table(tmp_path):
    from textvae.evaluation.molecules.reference import read_molecules

    (tmp_path / "a.csv").write_text("id,SMILES\n1,CCO\n2,c1ccccc1\n")
    (tmp_path / "a.jsonl").write_text('{"smiles": "CCO"}\n{"smiles": ""}\n')
    (tmp_path / "a.smi").write_text("CCO\n\nCCN\n")
    assert read_molecules(tmp_path / "a.csv") == ["CCO", "c1ccccc1"]
    assert read_molecules(tmp_path / "a.jsonl") == ["CCO", ""]
    assert read_molecules(tmp_path / "a.smi") == ["CCO", "", "CCN"]
    (tmp_path / "b.csv").write_text("id,name\n1,CCO\n")
    with pytest.raises(UserError, match="no column 'SMILES': rename that of the molecules"):
        read_molecules(tmp_path / "b.csv")


def test_what_follows_a_space_is_no_name(rdkit):
    from textvae.evaluation.molecules.chemistry import canonical

    assert canonical("OCC") == canonical(" OCC ") == "CCO"
    assert canonical("CCO foo bar") is canonical("C C") is canonical(" ") is None


def test_moments_are_unbiased():
    found = moments(np.array([[0.0, 1.0], [2.0, 5.0]]))
    assert found.covariance.tolist() == [[2.0, 4.0], [4.0, 8.0]]


def test_lines_have_ends_of_their_own(rdkit):
    from textvae.evaluation.molecules.latent import latent_metrics

    ends = []

    class Spy(Copier):
        def path(self, start, end, steps):
            ends.append((float(start), float(end)))
            return super().path(start, end, steps)

    latent_metrics(Spy(), ["OCC", BENZENE, NAPHTHALENE, ETHANOL], lines=2, steps=3)
    assert ends == [(0, 1), (2, 3)]
