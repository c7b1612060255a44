"""Words written for this project: facts to edit, questions about their subjects, texts that no edit concerns.

`demo.json` holds the facts of `data=demo`. `benchmarks/demo_answers.py` writes into each, under "unedited", what the
default model says before any edit.
"""
