"""Edit CounterFact records with any editor of EasyEdit.

python examples/run_counterfact.py --data_dir counterfact-edit.json --ds_size 20 --metrics_save_dir output
"""

from easyedit_packe.bench.through_easyedit import main

if __name__ == "__main__":
    main("CF")
