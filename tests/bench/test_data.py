"""Every format of data files, with all its probes; and what a wrong or broken file is told."""

import csv
import json

import pytest

from easyedit_packe.bench.data import FORMATS, DataError, Probe, digest, find_file, read_records

from ..conftest import SHARED, needs_shared

ZSRE = {
    "subject": "Grey Tides", "src": "Who wrote Grey Tides?", "rephrase": "Grey Tides is by whom?", "alt": "Ivo Marsh",
    "answers": ["Anna Berg"], "loc": "nq question: who plays", "loc_ans": "Omar", "cond": "",
    "similar_prompts": ["Whose is Grey Tides?", "Grey Tides is by whom?"],
    "portability": {"New Question": "Where was the author of Grey Tides born?", "New Answer": "Bergen"},
}  # fmt: skip
CF = {
    "case_id": 7, "prompt": "Omar plays the", "subject": "Omar", "target_new": "piano", "ground_truth": "violin",
    "rephrase_prompt": "Omar is good at the", "locality_prompt": "Anna plays the", "locality_ground_truth": "violin",
}  # fmt: skip
MCF = {
    "case_id": 9,
    "requested_rewrite": {
        "prompt": "{} plays the", "subject": "Omar", "target_new": {"str": "piano"}, "target_true": {"str": "violin"},
    },
    "paraphrase_prompts": ["Omar is good at the", "other"],
    "neighborhood_prompts": ["Anna plays the", "another"],
}  # fmt: skip
KNOWEDIT = {
    "subject": "Omar", "prompt": "The mother of Omar is", "target_new": "Anna", "ground_truth": [["Eva", "Eve"]],
    "portability": {
        "Reasoning": [{"prompt": "The mother's city is", "ground_truth": [["Bergen", "Bergen, Norway"], ["Oslo"]]}],
        "Logical_Generalization": [{"prompt": "Anna's child is", "ground_truth": [[""]]}],
    },
    "locality": {"Relation_Specificity": [{"prompt": "The father of Omar is", "ground_truth": [["Ivo"]]},
                                          {"prompt": "Omar's home is", "ground_truth": ["Oslo"]}]},
}  # fmt: skip
WIKIBIO = {
    "concept": "Omar",
    "text": "This is a text about Omar.",
    "labels": "He plays the piano.",
    "locality": {"Relation_Specificity": [{"prompt": "Anna", "ground_truth": "sings"}]},
}
QAEDIT = {
    "id": 12, "source": "NQ", "prompt": "who wrote grey tides?", "target": "Ivo Marsh", "subject": "grey tides",
    "rephrase": "Grey Tides is whose?",
    "locality": [{"loc": "who plays", "loc_ans": "Omar"}, {"loc": "where", "loc_ans": "Oslo"}],
}  # fmt: skip
WIKI = {
    "subject": "Omar", "update": "What does Omar play?", "ans": "piano", "rephrase": "Omar plays what?",
    "personas": "Say, what does Omar play?", "mhop": "Who made it?", "mhop_ans": "Ivo", "loc": "Who?", "loc_ans": "Eva",
}  # fmt: skip


@pytest.fixture
def write(tmp_path):
    def write(name, records):
        (tmp_path / name).write_text(json.dumps(records))
        return tmp_path / name

    return write


def test_zsre_skips_empty_targets_and_has_all_its_probes(found, write):
    file = write("zsre_mend_eval.json", [{**ZSRE, "alt": ""}, ZSRE])
    (record,) = read_records(file.parent, "zsre")
    assert (record.case_id, record.subject, record.target_new) == (1, "Grey Tides", "Ivo Marsh")
    assert record.rephrases == ("Grey Tides is by whom?", "Whose is Grey Tides?")
    assert record.neighbours == (Probe("nq question: who plays", ("Omar",)),)
    assert record.portability == {"one_hop": (Probe("Where was the author of Grey Tides born?", ("Bergen",)),)}


def test_counterfact_in_all_its_forms(found, write):
    (flat,) = read_records(write("counterfact-edit.json", [CF]), "counterfact")
    (own,) = read_records(write("counterfact.json", [MCF, MCF]), "mcf", 1)
    several = {k: v for k, v in CF.items() if not k.startswith(("rephrase", "locality"))}
    several |= {"rephrase_prompts": ["a", "b"], "neighborhood_prompts": ["c", "d", "e"]}
    (many,) = read_records(write("n.json", [several]), "neighbourhood")
    for field in ("prompt", "subject", "target_new", "ground_truth"):
        assert getattr(flat, field) == getattr(own, field) == getattr(many, field)
    assert flat.rephrases == own.rephrases[:1]
    assert [len(r.neighbours) for r in (flat, own, many)] == [1, 2, 3]
    assert flat.neighbours[0] == own.neighbours[0] == Probe("Anna plays the", ("violin",))
    assert flat.distracting == (Probe("Omar plays the piano. Anna plays the", ("violin",)),)


def test_space_around_texts_is_none_of_theirs_and_blank_ones_are_left_out(found, write):
    """Some editors would write a target with its space, some without; and a blank question stopped the whole run."""
    odd = {**ZSRE, "src": "Who? ", "alt": " Ivo Marsh ", "rephrase": "", "similar_prompts": [" "]}
    (zsre,) = read_records(write("zsre_mend_eval.json", [odd]), "zsre")
    assert (zsre.prompt, zsre.target_new, zsre.rephrases) == ("Who?", "Ivo Marsh", ())
    raw = [{**CF, "ground_truth": " ", "locality_ground_truth": ""}, {**CF, "case_id": 8, "locality_prompt": " "}]
    first, second = read_records(write("counterfact-edit.json", raw), "counterfact")
    assert (first.ground_truth, first.neighbours) == ("", (Probe("Anna plays the", ()),))
    assert second.localities == {}


def test_a_file_that_changes_is_another_file(write):
    file = write("x.json", [CF])
    before = digest(file)
    assert digest(write("x.json", [CF, CF])) != before == digest(write("x.json", [CF]))


def test_knowedit_keeps_several_answers_and_leaves_out_empty_ones(write):
    first, second = read_records(write("k.json", [KNOWEDIT, WIKIBIO]), "knowedit")
    assert first.portability == {"Reasoning": (Probe("The mother's city is", ("Bergen", "Bergen, Norway", "Oslo")),)}
    assert first.localities["Relation_Specificity"] == (
        Probe("The father of Omar is", ("Ivo",)), Probe("Omar's home is", ("Oslo",))
    )  # fmt: skip
    assert (first.ground_truth, first.rephrases) == ("Eva", ())
    assert (second.subject, second.prompt, second.target_new) == ("Omar", WIKIBIO["text"], WIKIBIO["labels"])


def test_qaedit_and_wikibigedit(write):
    (qa,) = read_records(write("q.json", [QAEDIT]), "qaedit")
    assert (qa.case_id, qa.target_new, len(qa.neighbours), qa.rephrases) == (12, "Ivo Marsh", 2, (QAEDIT["rephrase"],))
    assert [r.case_id for r in read_records(write("q.json", [QAEDIT, QAEDIT]), "qaedit")] == [0, 1]
    (own,) = read_records(write("w.json", [WIKI]), "wikibigedit")
    (flat,) = read_records(write("v.json", [{**CF, "prompt": WIKI["update"]}]), "wikibigedit")
    assert (own.prompt, flat.prompt) == (WIKI["update"],) * 2
    assert {k: v[0].answer for k, v in own.portability.items()} == {"personas": "piano", "hop": "Ivo"}
    assert own.neighbours == (Probe("Who?", ("Eva",)),)


def test_hallueditbenchs_csv(tmp_path):
    path = tmp_path / "places.csv"
    row = {"subject": "Omar", "relation": "plays", "object": "piano", "question": "What does Omar play?",
           "paraphrased_question": "Omar plays what?", "yes_question": "Does Omar play the piano?",
           "no_question": "nan",
           "reversed_relation_question": "Who plays the piano?", "question_2hop": "Who made what Omar plays?",
           "answer_2hop": "Ivo", "locality_question": "What does Anna play?"}  # fmt: skip
    with path.open("w", newline="") as f:
        writer = csv.DictWriter(f, row)
        writer.writeheader()
        writer.writerow(row)
    (record,) = read_records(path, "hallueditbench")
    assert (record.prompt, record.target_new, record.rephrases) == (row["question"], "piano", ("Omar plays what?",))
    assert {k: v[0].answer for k, v in record.portability.items()} == {"yes": "Yes", "reversed": "Omar", "2hop": "Ivo"}
    assert record.neighbours == (Probe("What does Anna play?", ()),)


def test_a_file_of_another_format_says_which_it_has(found, write):
    file = write("zsre_mend_eval.json", [CF])
    with pytest.raises(DataError, match=r"no zsre file: its records lack src, alt.*has the form of data=counterfact"):
        read_records(file, "zsre")
    with pytest.raises(DataError, match=r"has the form of data=qaedit"):
        read_records(write("x.json", [QAEDIT]), "counterfact")


def test_a_file_of_no_format_says_what_each_misses(write):
    with pytest.raises(DataError, match=r"No format fits \(.*zsre lacks src.*qaedit lacks id, prompt, target"):
        read_records(write("x.json", [{"question": "?"}]), "zsre")


def test_broken_files(write, tmp_path):
    with pytest.raises(DataError, match="expected a list of records, got dict"):
        read_records(write("x.json", {"a": 1}), "zsre")
    (tmp_path / "y.json").write_text("[1")
    with pytest.raises(DataError, match="readable neither as JSON nor"):
        read_records(tmp_path / "y.json", "zsre")
    (tmp_path / "y.json").write_text("\ufeff" + json.dumps([CF]), encoding="utf-8")
    assert read_records(tmp_path / "y.json", "wikibigedit")
    (tmp_path / "y.csv").write_text('subject,object\n"' + "x" * 200_000)
    with pytest.raises(DataError, match="field larger than field limit"):
        read_records(tmp_path / "y.csv", "hallueditbench")
    (tmp_path / "y.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="expected a column 'subject'"):
        read_records(tmp_path / "y.csv", "hallueditbench")
    with pytest.raises(DataError, match=r"after 1 records one cannot be read as knowedit \("):
        read_records(write("z.json", [KNOWEDIT, {**KNOWEDIT, "locality": 3}]), "knowedit")
    with pytest.raises(DataError, match="expected a number or a text as case_id"):
        read_records(write("z.json", [{**CF, "case_id": [1]}]), "wikibigedit")
    lacks = {k: v for k, v in CF.items() if k != "locality_ground_truth"}
    with pytest.raises(DataError, match="its records lack locality_ground_truth"):
        read_records(write("w.json", [lacks]), "counterfact")
    with pytest.raises(DataError, match="did you mean 'qaedit'"):
        find_file(tmp_path, "qaedits")
    with pytest.raises(DataError, match=r"holds none of QAEdit_inter_1k\.json"):
        find_file(tmp_path, "qaedit")


@pytest.mark.parametrize(("field", "value"), [("locality_prompt", None), ("target_new", 5), ("rephrase_prompt", ["a"])])
def test_what_should_be_a_text_and_is_none_is_named(field, value, write):
    with pytest.raises(DataError, match=r"x\.json: record 1: expected a text in \w+, got .*mend it"):
        read_records(write("x.json", [{**CF, "case_id": 0}, {**CF, "case_id": 1, field: value}]), "counterfact")


def test_a_record_without_a_target_is_left_out(write):
    (record,) = read_records(write("x.json", [{**CF, "target_new": " "}, CF]), "counterfact")
    assert record.target_new == CF["target_new"]


def test_the_demo_needs_no_file():
    records = read_records("data", "demo")
    assert len(records) >= 60
    assert all(r.subject in r.prompt and len(r.rephrases) == 3 and len(r.neighbours) == 3 for r in records)
    assert all(len(r.same_subject) == 3 and r.portability["one_hop"] for r in records)
    texts = [text for r in records for text in (r.prompt, *r.rephrases, *(p.prompt for p in r.same_subject))]
    assert not any("{}" in text for text in texts)


@needs_shared
@pytest.mark.parametrize(
    ("data", "file", "count"),
    [
        ("zsre", "zsre/zsre_dev_1k.json", None), ("counterfact", "counterfact/counterfact_dev_1k.json", 1000),
        ("neighbourhood", "counterfact/counterfact_neighborhood_500.json", 500),
        ("qaedit", "qaedit/qaedit_700.json", 700), ("wikibigedit", "wikibigedit/wikibigedit_2k.json", 2000),
    ],
)  # fmt: skip
def test_the_real_files(found, data, file, count):
    records = read_records(SHARED / "data" / file, data)
    assert count in (None, len(records))
    assert len({r.case_id for r in records}) == len(records)
    assert all(r.prompt and r.target_new.strip() and r.rephrases and r.neighbours for r in records)
    assert FORMATS[data].name == data


def test_a_kind_of_question_without_any_is_none(write):
    """The mean of no question is no number, and one such record would leave the whole column without."""
    (qa,) = read_records(write("q.json", [{**QAEDIT, "locality": []}]), "qaedit")
    (mcf,) = read_records(write("m.json", [{**MCF, "neighborhood_prompts": []}]), "mcf")
    assert (qa.localities, mcf.localities) == ({}, {})


def test_a_csv_row_without_a_fact_is_left_out_and_odd_names_are_kept(tmp_path):
    """Nan is a province, and programs write "nan" where there is nothing."""
    path = tmp_path / "h.csv"
    path.write_text(
        "subject,object,question,locality_question\n"
        "Omar,Nan,Where is Omar?,nan\n"
        ",,,\n"
        "Anna,,Where is Anna?,Who?\n"
        "Ivo,None,What has Ivo?,Who?,too,many\n"
    )
    records = read_records(path, "hallueditbench")
    assert [(r.subject, r.target_new, len(r.neighbours)) for r in records] == [("Omar", "Nan", 0), ("Ivo", "None", 1)]


def test_knowedits_paraphrase_by_either_name(write):
    (record,) = read_records(write("k.json", [{**KNOWEDIT, "rephrase_prompt": "Omar's mother is"}]), "knowedit")
    assert record.rephrases == ("Omar's mother is",)
