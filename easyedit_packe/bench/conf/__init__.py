"""Hydra configuration of `packe bench`; a package, so that Hydra finds it in an installed copy too."""
