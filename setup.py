"""Packaging. `hparams/` is installed inside the package as `easyedit_packe/_hparams`."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
(VERSION,) = re.findall(r'^__version__ = "(.+)"$', (HERE / "easyedit_packe/__init__.py").read_text("utf-8"), re.M)

setup(
    name="easyedit-packe",
    version=VERSION,
    description="PaCKE, parameter-aware contrastive knowledge editing, as an editor of EasyEdit",
    long_description=(HERE / "README.md").read_text("utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    keywords=["knowledge editing", "model editing", "EasyEdit", "language models"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    python_requires=">=3.11",
    packages=[*find_packages(include=["easyedit_packe", "easyedit_packe.*"]), "easyedit_packe._hparams"],
    package_dir={"easyedit_packe._hparams": "hparams"},
    package_data={
        "easyedit_packe._hparams": ["*/*.yaml"],
        "easyedit_packe": [
            "py.typed",
            *(f"bench/**/*.{kind}" for kind in ("css", "csv", "html", "js", "json", "jsonl", "txt", "yaml")),
        ],
    },
    install_requires=[
        # Lower bounds are those of constraints/oldest.txt, which `make test-matrix` runs.
        "torch>=2.13",
        "transformers>=5.5.4,<6",  # one range that runs both EasyEdits
        "peft>=0.18",
        "numpy>=2.0",
        "omegaconf>=2.3",
        "pydantic>=2.10",
        "safetensors>=0.5",
        "tqdm>=4.66.3",
        "typer>=0.16",  # the `packe` command
        "rich>=13",  # its spinner and tables
    ],
    extras_require={
        # What EasyEdit's text editors import. EasyEdit itself pins ancient versions: install it with --no-deps.
        "easyedit": [
            "datasets>=3",
            "einops>=0.7",  # KN
            "higher>=0.2.1",
            "matplotlib>=3.9",
            "nltk>=3.9.1",  # 3.9 is broken without WordNet
            "scikit-learn>=1.5",
            "scipy>=1.13",
        ],
        "models": ["gguf>=0.18"],  # `packe model fetch` reads the default model's file, `packe export gguf` writes one
        # And `packe report`.
        "bench": ["hydra-core>=1.3", "jinja2>=3.1.2", "pandas>=2.2.2", "tabulate>=0.9", "zstandard>=0.23"],
        "demo": ["gradio>=6.31", "matplotlib>=3.9"],  # `packe demo`
        "figures": ["matplotlib>=3.9", "zstandard>=0.23"],  # `packe figures`, `packe trace --png`
        "judge": ["openai>=2"],  # `packe bench judge=`: any server that speaks its chat completions
        # `packe reproduce --launcher`, `packe bench -m hydra/launcher=`: several runs at a time, and clusters.
        "launchers": ["hydra-joblib-launcher>=1.2", "hydra-submitit-launcher>=1.2"],
        "quantised": ["bitsandbytes>=0.50.2"],  # models in 4 and 8 bits, for `compute_adapter`
        "matrix": ["nox>=2024.10"],  # `make test-matrix`
        "test": [
            "hydra-joblib-launcher>=1.2",  # a sweep of processes
            "hydra-submitit-launcher>=1.2",  # the same as jobs
            "hypothesis>=6.100",
            "ipykernel>=6.29",  # runs the notebook
            "mypy>=1.14",
            "nbclient>=0.10",
            "nbformat>=5.10",
            "playwright>=1.49",  # drives a Chromium, where there is one, through the page of a report
            "pytest>=8",
            "pytest-xdist>=3.6",  # `make test` runs two at a time
            "ruff>=0.12",
            "setuptools>=77",  # builds the wheel that a test installs
        ],
    },
    entry_points={"console_scripts": ["packe=easyedit_packe.cli.app:app"]},
)
