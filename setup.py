"""Packaging. `hparams/` is installed inside the package as `easyedit_packe/_hparams`."""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent

setup(
    name="easyedit-packe",
    version="0.2.0",
    description="PaCKE, parameter-aware contrastive knowledge editing, as an editor of EasyEdit",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.11",
    packages=[*find_packages(include=["easyedit_packe", "easyedit_packe.*"]), "easyedit_packe._hparams"],
    package_dir={"easyedit_packe._hparams": "hparams"},
    package_data={
        "easyedit_packe._hparams": ["*/*.yaml"],
        "easyedit_packe": ["py.typed", "bench/conf/*.yaml", "bench/*.csv", "bench/*.txt"],
    },
    install_requires=[
        "torch>=2.4",
        "transformers>=5.5.4,<6",  # one range that runs both EasyEdits; README, "What is tested"
        "peft>=0.18",
        "hydra-core>=1.3",
        "omegaconf>=2.3",
        "pydantic>=2.10",
        "safetensors>=0.5",
        "tqdm>=4.66",
        "typer>=0.12",  # the `packe` command; brings rich, which prints the tables
        "gguf>=0.17",  # reads the default model's file
    ],
    extras_require={
        # What EasyEdit's text editors import. EasyEdit itself pins ancient versions: install it with --no-deps.
        "easyedit": [
            "datasets>=3",
            "einops>=0.7",  # KN
            "higher>=0.2.1",
            "matplotlib>=3.8",
            "nltk>=3.9",
            "scikit-learn>=1.4",
            "scipy>=1.11",
        ],
        "bench": ["pandas>=2.2", "tabulate>=0.9"],  # `packe report`
        "test": ["hypothesis>=6.100", "pytest>=8", "ruff>=0.12"],
    },
    entry_points={"console_scripts": ["packe=easyedit_packe.cli.app:app"]},
)
