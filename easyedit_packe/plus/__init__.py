"""PaCKE+, what goes beyond the paper.

`rectify` is the edit: what it asks of which texts is in `demands` (whose texts come from `contexts`), how it is solved
in `least_change`, what a change should not react to in `moments` and `background`. `state` is what it knows of the
edits that a model holds.
"""
