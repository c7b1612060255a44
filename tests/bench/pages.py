"""A study with everything that rows can hold, and its page taken apart."""

import json
import random
import re
from html.parser import HTMLParser

from easyedit_packe.bench.data import digest
from easyedit_packe.bench.metrics.words import asked
from easyedit_packe.bench.report import find_runs
from easyedit_packe.bench.report.page.texts import find_texts

from .folders import read_rows, write_rows, write_run

EVIL = "</script><img src=x onerror='window.evil = 1'> \u2028 <!-- &"
FILE = "zsre_mend_eval"


def make_study(folder, editors=("PaCKE", "ROME"), n=6, target=EVIL):
    """Runs with all that rows can hold, of a data file of n records, the first of which has a dangerous answer.

    Record i is about "Tower i"; each editor's efficacies are random, and what it says is right where they are 1.
    """
    records = [
        {
            "subject": f"Tower {i}", "src": f"Where is Tower {i}", "alt": target if i == 0 else f"City {i}",
            "rephrase": f"Tower {i} stands in", "answers": [f"Old {i}"], "loc": "nq question: Who plays",
            "loc_ans": "violin", "cond": "",
        }
        for i in range(n)
    ]  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{FILE}.json"
    file.write_text(json.dumps(records))
    chance = random.Random(0)
    for editor in editors:
        right = [chance.choice((0.0, 0.5, 1.0)) for _ in range(n)]
        run = write_run(folder / "runs", editor, right, file=FILE, data_sha256=digest(file), hparams={"lr": EVIL})
        rows = read_rows(run / "cases.jsonl")
        texts = find_texts(find_runs([run]), file)[digest(file)]
        for row in rows:
            i = row["case_id"]
            row["subject"] = {"kept": chance.randrange(9) / 8, "drawn": 0.0, "kl": chance.random()}
            row["said"] = {what: ["violin"] * len(pairs) for what, pairs in asked(texts[i]).items()}
            row["said"]["efficacy"] = row["said"]["free"][:1] = [records[i]["alt"] if right[i] == 1 else f"No {i}"]
        write_rows(run / "cases.jsonl", rows)
    unedited = folder / "runs" / "m" / FILE / "unedited" / "cases.jsonl"
    (first, *_) = read_rows(unedited)
    write_rows(
        unedited, [{**first, "case_id": i, "said": {**rows[i]["said"], "efficacy": [f"Old {i}"]}} for i in range(n)]
    )
    return folder


class Page(HTMLParser):
    """Attributes: elements: each with its attributes. tables: by title, rows of (text, value). groups: of the JSON."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.tables, self.within, self.rows = [], {}, [], []
        self.feed(text)
        self.close()
        assert self.within == []
        (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text)
        self.groups = json.loads(data)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.elements.append((tag, found))
        if "region" in found.get("role", ""):
            self.rows = self.tables.setdefault(found["aria-label"], [])
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append(["", found.get("data-value")])
        if tag not in ("meta", "link", "input", "img", "br"):
            self.within.append(tag)

    def handle_endtag(self, tag):
        assert self.within.pop() == tag  # well formed

    def handle_data(self, data):
        if {"td", "th"} & {*self.within}:
            self.rows[-1][-1][0] += data
