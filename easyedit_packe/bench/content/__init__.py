"""Words written for this project: facts to edit, questions about their subjects, texts that no edit concerns.

`demo.json` holds the facts of `data=demo`: an edit from "old" to "new" after "prompt"; other wordings of it, and
another name of the subject ("alias"); the same relation of other subjects and other relations of the same one, which
must stay; and what follows from the new fact ("one_hop"). A {} stands for the subject. `benchmarks/demo_answers.py`
writes into each, under "unedited", what the default model says before any edit.
"""
