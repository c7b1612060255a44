"""KnowEdit through EasyEdit with any of its editors, PaCKE and PaCKE+ included.

    python examples/run_knowedit.py --data_dir test_cf.json --ds_size 20 --editing_method PaCKE+

The flags are those of EasyEdit's own example; portability and locality are those of the data set. With
`--sequential_edit` no edit is rolled back, and each is still measured right after it is made, as EasyEdit does.
"""

from easyedit_packe.bench.through_easyedit import main

if __name__ == "__main__":
    main("knowedit")
