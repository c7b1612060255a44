"""`packe reproduce`: tables 1 and 2 and figure 3 of the paper for one model, planned, priced, tried and run.

parts.py says what the paper measures, plan.py which runs of `packe bench` that is, costs.py and machine.py how long
they take, budget.py what fits into an allowance, needs.py what is not on this machine, dry_run.py and tiny.py try it
all on a small random model, launch.py runs it, and tables.py ends it.
"""
