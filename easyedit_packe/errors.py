"""Errors. Each message says what was expected, what came, and what to do."""

import difflib
import importlib.util


class PaCKEError(Exception):
    """Base of every error this package raises on purpose; catch it to catch them all."""


class HyperParamsError(PaCKEError, ValueError):
    """A hyper-parameter has a wrong name, type, range or combination."""


class RequestError(PaCKEError, ValueError):
    """An edit request cannot be understood or tokenised."""


class ModelError(PaCKEError, ValueError):
    """The model cannot be edited: unknown architecture, offloaded, quantised or non-finite weights."""


class PatchError(PaCKEError, ValueError):
    """A weight patch does not fit the model or the file that holds it is damaged."""


class EasyEditError(PaCKEError, RuntimeError):
    """EasyEdit is missing, or the one that was found cannot do what was asked."""


class FetchError(PaCKEError, RuntimeError):
    """A file that has to be fetched or converted once could not be."""


class MissingPackageError(PaCKEError, ImportError):
    """A package that only some commands need is not installed."""


def said_of(e: Exception) -> str:
    """An error in a line of a report: this package's own say all that is needed, of others the kind is told as well; a
    path or disk that cannot be used is told with the remedy."""
    if isinstance(e, OSError) and e.strerror is not None:
        return e.strerror if e.filename is None else f"{e.filename}: {e.strerror}; give another path."
    return str(e) if isinstance(e, PaCKEError) else f"{type(e).__name__}: {e}"


def first_line(error: Exception) -> str:
    """What an error says, without the advice behind it."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def needs(package: str, extra: str) -> None:
    """Called before the import of a package that only one of this project's extras installs.

    Raises:
        MissingPackageError: it is not there; the message has the line that installs it.
    """
    try:
        found = importlib.util.find_spec(package)
    except ModuleNotFoundError:  # what it lies in is not there either
        found = None
    if found is None:
        raise MissingPackageError(
            f'expected the package {package!r}, which is not installed: pip install "easyedit-packe[{extra}]"'
        )


def one_of(value: object, known: list) -> str:
    """Text for an error message: the nearest known names first, then all of them."""
    lower = {str(k).lower(): str(k) for k in known}
    near = [lower[k] for k in difflib.get_close_matches(str(value).lower(), lower, n=2, cutoff=0.5)]
    hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
    return f"{hint}known: {', '.join(map(str, known))}"
