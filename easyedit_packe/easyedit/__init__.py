"""EasyEdit itself: found, imported, and given what its editors need. Only this package and `baselines` import it."""

from .bridge import bridged
from .install import install
from .locate import Found, import_easyeditor, locate

__all__ = ["Found", "bridged", "import_easyeditor", "install", "locate"]
