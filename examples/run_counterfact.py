"""Edit CounterFact records with any editor of EasyEdit.

python examples/run_counterfact.py --editing_method PaCKE --hparams_dir smollm2-135m --data_dir counterfact-edit.json --ds_size 20
"""

from easyedit_packe.evaluation.runs import main

if __name__ == "__main__":
    main("CF")
