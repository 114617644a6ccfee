"""Installs textvae. The exact tested versions are in constraints.txt, lower bounds are here."""

from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
PRETRAINED = ["tokenizers>=0.20", "transformers>=4.48"]

setup(
    name="textvae",
    version="0.2.0",
    description="Text variational autoencoders whose latent variable is really used",
    long_description=(here / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.10",
    packages=[*find_packages(include=["textvae", "textvae.*"]), "textvae.methods"],
    package_dir={"textvae.methods": "recipes/methods"},
    package_data={
        "textvae.methods": ["*.yaml"],
        "textvae": ["py.typed"],
        "textvae.evaluation.report": ["templates/*"],
        "textvae.text.nn": ["kernels.c"],
    },
    install_requires=[
        "torch>=2.6",
        "numpy>=1.26",
        "accelerate>=1.0",
        "datasets>=4.0",
        "huggingface_hub>=0.26",
        "filelock>=3.12",
        "jinja2>=3.1",
        "jsonargparse[signatures]>=4.49",
        "matplotlib>=3.8",
        "nltk>=3.9",
        "pillow>=10",
        "PyYAML>=6.0",
        "pyarrow>=15",
        "rich>=13",
        "safetensors>=0.4",
        "scikit-learn>=1.4",
        "scipy>=1.11",
        "sentencepiece>=0.2",
        "tensorboard>=2.15",
    ],
    extras_require={
        "cluster": ["submitit>=1.5"],
        "docs": [
            "latex2mathml>=3.77",
            "mkdocs>=1.6",
            "mkdocs-material>=9.5",
            "mkdocstrings[python]>=1.0",
        ],
        # fcd-torch brings the weights of ChemNet; its code is not used.
        "molecules": ["rdkit>=2024.3", "fcd-torch>=1.0.7"],
        "pretrained": PRETRAINED,
        "search": ["botorch>=0.12"],
        "test": [
            *("hypothesis>=6.100", "mypy>=1.10", "pytest>=8", "pytest-xdist>=3.5", "ruff>=0.6"),
            *PRETRAINED,
        ],
    },
    entry_points={"console_scripts": ["textvae = textvae.__main__:run"]},
)
