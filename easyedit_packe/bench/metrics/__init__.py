"""What is measured of a model after an edit, in families that are never mixed.

`scoring` runs the model; `easyedit`, `rome`, `subject` and `free` make each family's figures of it, `judge` some of the
last one's; `text` is what the model still can, `words` what a person reads of it all. To add a family, write a file
here and its line in `bench/measure.py` and `bench/report/means.py`.
"""
