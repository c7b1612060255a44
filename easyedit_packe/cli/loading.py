"""Models for the commands: loaded by name, changed by a patch, and written again."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer

from ..errors import FetchError, PaCKEError, PatchError, first_line, needs, one_of
from ..model.fetch import SOURCES
from .places import may_write_model

if TYPE_CHECKING:
    from ..patch import WeightPatch


def loaded(name: str, dtype: str = "auto", load_in: str | None = None) -> tuple[Any, Any]:
    """(model, tokeniser), on the GPU where there is one.

    Args:
        name: of a fetched model, a folder, or owner/name on the hub.
        dtype: float32, bfloat16, float16; "auto" takes what the checkpoint is stored in.
        load_in: "8bit" or "4bit" quantises the weights; None leaves them as they are stored.

    Raises:
        FetchError: there is no such model, or it cannot be read. MissingPackageError: bitsandbytes is not installed.
    """
    require(name)
    import torch
    from transformers.utils import logging as transformers_logging

    from ..model.load import load

    options: dict[str, Any] = {"dtype": dtype}
    if load_in is not None:
        needs("bitsandbytes", "quantised")
        from transformers import BitsAndBytesConfig

        options["quantization_config"] = BitsAndBytesConfig(**{f"load_in_{load_in}": True})
    transformers_logging.disable_progress_bar()
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # else a line for every matrix product
    with _in_one_line(FetchError, f"model {name!r} cannot be loaded"), spinner(f"loading {name}"):
        model, tok = load(name, **options)
    if not is_quantised(model):  # such a one lies where it was quantised
        model = model.to("cuda" if torch.cuda.is_available() else "cpu")
    return model.eval(), tok


@contextmanager
def _in_one_line(error: type[PaCKEError], what: str) -> Iterator[None]:
    """What transformers and PEFT raise for files that they cannot read, with a paragraph of advice, as `error`."""
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError

    try:
        yield
    except PaCKEError:
        raise
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError, StrictDataclassError) as e:
        raise error(f"{what}: {first_line(e)}") from e


def require(name: str) -> None:
    """Raises `FetchError` where a model's name is no fetched one's, no folder and none of the hub."""
    if name not in SOURCES and not Path(name).exists() and name.count("/") != 1:
        raise FetchError(
            f"no model {name!r}: not a folder, not a hub name (owner/model); {one_of(name, sorted(SOURCES))}."
        )


def is_quantised(model: Any) -> bool:
    """Whether transformers loaded it with quantised weights."""
    return getattr(model, "hf_quantizer", None) is not None


def attach(model: Any, folder: Path) -> None:
    """From now on the model computes with this PEFT adapter.

    Raises:
        PatchError: the folder holds none, or one that does not fit.
    """
    from peft import PeftModel

    if not (folder / "adapter_config.json").is_file():
        raise PatchError(f"{folder}: expected the folder of a PEFT adapter, with its adapter_config.json.")
    with _in_one_line(PatchError, f"{folder}: the adapter is damaged, or does not fit the model"):
        PeftModel.from_pretrained(model, str(folder)).eval()


def dtype_of(patch: WeightPatch) -> str:
    """The precision of the model that a patch was made on, and outside of which it fits no model."""
    for s in patch.slices.values():
        return str(s.new.dtype).removeprefix("torch.")
    return "auto"


def rounded(patch: WeightPatch) -> Iterator[str]:
    """What the model's precision took of the edit, in words; nothing where it took nothing."""
    lost = patch.info.get("rounding")
    if not lost:
        return
    kept = f" and {lost['kept']:.0%} of it is kept" if "kept" in lost else ""  # an older patch does not say
    yield (
        f"rounded to {dtype_of(patch)}: {lost['unmoved']:.0%} of the weights that the edit was to move stay as they "
        f"were, its change is off by {lost['error']:.0%}{kept}; `packe edit --dtype float32` keeps it whole"
    )
    for asked, now in zip(
        patch.info.get("requests", []), patch.info.get("rounded", {}).get("requests", []), strict=False
    ):
        if now["said"] != now["trained"]["said"]:
            yield f"  {asked['prompt']}: the target is {_said(now)}, and was {_said(now['trained'])} before rounding"


def _said(answer: dict[str, Any]) -> str:
    loss = "not finite" if answer["loss"] is None else f"{answer['loss']:.3f}"
    return f"{'' if answer['said'] else 'not '}what the model says (loss {loss})"


def rewrite(file: Path, name: str, out: Path | None, verb: Literal["apply", "revert"]) -> None:
    """Load a model, put a patch in or take it out, and write the model to `out`, or else where it came from.

    Raises:
        PatchError: the patch does not fit, or the place is not the user's own to write to.
    """
    from safetensors import SafetensorError

    from ..model.load import tokeniser_of
    from ..patch import WeightPatch

    if out is None and name in SOURCES:
        raise PatchError(f"{name} is shared by everything on this machine; give a folder of your own with --out.")
    if out is None and not Path(name).is_dir():
        raise PatchError(f"{name} is not a folder that could be changed; give one with --out.")
    folder = out or Path(name)
    may_write_model(folder, Path(name))
    patch = WeightPatch.load(file)
    in_place = folder.resolve() == Path(name).resolve()
    stored, made = stored_in(name) if in_place else None, dtype_of(patch)
    if stored not in (None, made):
        raise PatchError(
            f"{name} holds weights in {stored}, and the edit was computed in {made}: they would be written over in "
            f"that format, for good. Write to another folder with --out, or edit with --dtype {stored}."
        )
    model, _ = loaded(name, made)
    getattr(patch, verb)(model)
    try:
        with spinner(f"writing {folder}"):
            if in_place:
                _write_over(model, folder)
            else:
                model.save_pretrained(folder)
                tokeniser_of(name).save_pretrained(folder)
    except SafetensorError as e:  # the disk is full
        raise PatchError(f"{folder} could not be written: {first_line(e)}") from e
    typer.echo(f"wrote {folder}")


def _write_over(model: Any, folder: Path) -> None:
    """Put a model into the folder that it came from, when all of it is written; the tokeniser there stays as it is.

    Raises:
        PatchError: the folder has tensors that the model's class does not load, and that would be gone.
    """
    with tempfile.TemporaryDirectory(dir=folder, prefix=".") as part:
        model.save_pretrained(part)
        written = {file.name: file for file in Path(part).iterdir()}
        known = _tensors(Path(part)) | set(model.state_dict())  # of tied ones only one is written
        lost = sorted(_tensors(folder) - known)
        if lost:
            raise PatchError(
                f"{folder} holds {len(lost)} tensors that the model's class does not load, as {lost[0]}; they would be "
                "gone. Write to another folder with --out."
            )
        before = [*folder.glob("model*.safetensors"), *folder.glob("model.safetensors.index.json")]
        for name, file in written.items():
            file.replace(folder / name)
        for file in before:
            if file.name not in written:  # as a model that was in several files, and is in one now
                file.unlink()


def _tensors(folder: Path) -> set[str]:
    """Names of all that is stored in a model's folder."""
    from safetensors import safe_open

    names: set[str] = set()
    for file in folder.glob("*.safetensors"):
        with safe_open(file, "pt") as f:
            names.update(f.keys())
    return names


def stored_in(folder: str) -> str | None:
    """The precision of the weights in a model's folder, where its configuration says so."""
    from transformers import AutoConfig

    with _in_one_line(FetchError, f"model {folder!r} cannot be loaded"):
        dtype = AutoConfig.from_pretrained(folder).dtype
    return None if dtype is None else str(dtype).removeprefix("torch.")


def spinner(what: str) -> Any:
    """Says on standard error what takes so long; shows nothing where that is no terminal."""
    from rich.console import Console
    from rich.text import Text

    return Console(stderr=True).status(Text(what))  # a path is no markup
