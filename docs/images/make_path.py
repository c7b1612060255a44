"""Draw docs/images/path.png: the critical transmission paths of one edit of the default model, as they are traced.

    python docs/images/make_path.py

Needs matplotlib, which brings Pillow, and the model that `packe model fetch` makes; takes some seconds on a CPU.
"""

from pathlib import Path

from easyedit_packe import PaCKEHyperParams, trace_requests
from easyedit_packe.model.load import load
from easyedit_packe.trace.picture import draw_path, save

MODEL = "smollm2-135m"
REQUEST = {"prompt": "The Eiffel Tower is located in the city of", "target_new": "Rome"}
PICTURE = Path(__file__).with_name("path.png")


def main() -> None:
    (trace,) = trace_requests(*load(MODEL), [REQUEST], PaCKEHyperParams.from_hparams(MODEL))
    save(draw_path(trace), PICTURE)


if __name__ == "__main__":
    main()
