"""A judge behind a server on this machine: what it is asked, what its replies become, and what is asked again."""

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from easyedit_packe.bench.archive import pack
from easyedit_packe.bench.data import Record
from easyedit_packe.bench.editors import BenchError
from easyedit_packe.bench.metrics import judge
from easyedit_packe.bench.report import find_runs, main_table, markdown, tidy
from easyedit_packe.bench.runner import run
from easyedit_packe.bench.settings import Settings
from easyedit_packe.bench.store import StoreError
from easyedit_packe.model.generation import greedy_all

from ..conftest import make_model, make_tokenizer
from .folders import read_rows, write_rows, write_run
from .world import make_world, settings_of

NAME = "some/judge"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def go(world, tmp_path, monkeypatch):
    monkeypatch.setattr(judge, "RETRIES", 1)
    monkeypatch.delenv(judge.KEY, raising=False)
    monkeypatch.delenv(judge.URL, raising=False)

    def go(n=2, **changes):
        return run(Settings.from_dict(settings_of(world, "PaCKE", n=n, out=str(tmp_path / "runs"), **changes)))

    return go


class Server:
    """Speaks chat completions; `replies` are given in turn, a number is an HTTP status without a reply."""

    def __init__(self, replies):
        self.replies, self.asked, self.headers = list(replies), [], []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.asked.append((self.path, body))
                server.headers.append({k.lower(): v for k, v in self.headers.items()})
                reply = server.replies.pop(0)
                choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": reply}}
                whole = {"id": "1", "object": "chat.completion", "created": 0, "model": "x", "choices": [choice]}
                text = json.dumps(reply if isinstance(reply, dict) else whole).encode()
                self.send_response(reply if isinstance(reply, int) else 200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()


@pytest.fixture
def serve():
    servers = []

    def serve(*replies):
        servers.append(Server(replies))
        return servers[-1]

    yield serve
    for server in servers:
        server.http.shutdown()
        server.http.server_close()


def test_the_columns_by_hand(go, serve, tmp_path):
    """Two records of a prompt and a paraphrase each: the unedited model's four answers, then four after the edits."""
    server = serve("RIGHT", "wrong", "Wrong.", "WRONG", "RIGHT", " **Right**\n", "right", "It depends")
    folder = go(judge=NAME, judge_url=server.url)
    rows = read_rows(folder / "cases.jsonl")
    assert [row["judge"] for row in rows] == [NAME] * 2
    assert [[v["right"] for v in row["verdicts"]] for row in rows] == [[True, True], [True, None]]
    judged = [{m: v for m, v in row["free"].items() if m.endswith("_judged")} for row in rows]
    assert judged == [{"efficacy_judged": 1.0, "generality_judged": 1.0}, {"efficacy_judged": 1.0}]

    runs = find_runs([folder])
    frame = tidy(runs).set_index(["family", "editor", "metric"])
    assert set(frame["setting"]) == {"single, judged by some/judge"}
    figures = {
        key: (row["mean"], row["n"], round(row["se"], 6))
        for key, row in frame.loc["free"].iterrows()
        if key[1].endswith("_judged")
    }
    assert figures["Original model", "efficacy_judged"] == (0.5, 2, 0.5)
    assert figures["Original model", "generality_judged"] == (0.0, 2, 0.0)
    assert figures["PaCKE", "efficacy_judged"] == (1.0, 2, 0.0)
    assert figures["PaCKE", "generality_judged"][:2] == (1.0, 1)
    text = markdown(runs)
    line = next(x for x in text.split("Free generation")[1].splitlines() if x.startswith("| PaCKE"))
    assert [cell.strip() for cell in line.split("|")[-3:-1]] == ["**100.0 ± 0.0**", "100.0 (n = 1)"]
    assert "- PaCKE, zsre: no clear verdict on 1 of 4 answers" in text
    assert "records and replies: 1 ('It depends')." in text

    pack(tmp_path / "runs", tmp_path / "runs.jsonl.zst")
    assert markdown(find_runs([tmp_path / "runs.jsonl.zst"])) == text


def test_what_the_judge_sees(go, serve, monkeypatch):
    monkeypatch.setenv(judge.KEY, "a-word")
    server = serve(*["RIGHT"] * 4)
    folder = go(n=1, judge=NAME, judge_url=server.url)
    assert {path for path, _ in server.asked} == {"/v1/chat/completions"}
    for _, body in server.asked:
        assert (body["model"], body["temperature"]) == (NAME, 0)
        assert [m["role"] for m in body["messages"]] == ["system", "user"]
    assert {h["authorization"] for h in server.headers} == {"Bearer a-word"}
    (row,) = read_rows(folder / "cases.jsonl")
    questions = ["Who wrote Omar", "Omar is wrote"]
    before = [text.lstrip() for text in greedy_all(make_model("llama"), make_tokenizer(), questions, 50)]  # none stops
    after = [v["said"] for v in row["verdicts"]]
    expected = [
        f"Question or beginning: {q}\nExpected answer: the piano\nGiven answer: {said}"
        for q, said in zip(questions * 2, before + after, strict=True)
    ]
    assert [body["messages"][-1]["content"] for _, body in server.asked] == expected


@pytest.mark.parametrize(
    ("reply", "right"),
    [("RIGHT", True), ("wrong.", False), ("`Right`!\n", True), ("RIGHT or WRONG", None), ("A right", None), ("", None)],
)
def test_only_a_clear_verdict_is_one(serve, reply, right):
    found = judge.Judge(NAME, serve(reply).url).verdict("q", "a", "b")
    assert found == {"said": "b", "reply": reply, "right": right}


def test_figures_of_verdicts():
    def verdicts(*rights):
        return judge.family([{"right": r} for r in rights])

    assert verdicts(True, True, False, None) == {"efficacy_judged": 1.0, "generality_judged": 0.5}
    assert verdicts(None, None, False) == {"generality_judged": 0.0}
    assert verdicts(False) == {"efficacy_judged": 0.0}
    assert verdicts(None) == {}
    with pytest.raises(ValueError, match="shorter"):
        judge.verdicts(None, Record(1, "p", "p", "t", "", ("q",)), [])


def test_a_failed_request_is_made_again_and_a_lost_server_stops_the_run(go, serve):
    server = serve(*["RIGHT"] * 4, 503, *["WRONG"] * 2, "RIGHT", 500, 500)
    with pytest.raises(BenchError, match=r"judge some/judge at http://127.*failed: InternalServerError.*goes on"):
        go(judge=NAME, judge_url=server.url)
    another = serve(*["RIGHT"] * 2)
    folder = go(judge=NAME, judge_url=another.url)  # the second record's two answers, and nothing else
    assert len(another.asked) == 2
    rights = [[v["right"] for v in row["verdicts"]] for row in read_rows(folder / "cases.jsonl")]
    assert rights == [[False, False], [True, True]]
    assert len(server.asked) == 10


def test_a_record_that_has_a_row_is_not_judged_again(go, serve):
    """It is measured once more, as the batches must be the same ones; whoever judges is paid by the question."""
    folder = go(judge=NAME, judge_url=serve(*["RIGHT"] * 8).url)
    for file in (folder / "cases.jsonl", folder.parents[1] / "unedited" / "cases.jsonl"):
        write_rows(file, [row for row in read_rows(file) if row["case_id"] != 1])
    server = serve(*["WRONG"] * 4)
    go(judge=NAME, judge_url=server.url)
    assert len(server.asked) == 4
    assert [row["free"]["efficacy_judged"] for row in read_rows(folder / "cases.jsonl")] == [1.0, 0.0]


def test_a_server_that_is_none(go, serve):
    server = serve({"error": "no such path"})
    with pytest.raises(BenchError, match=r"its reply is no chat completion: .*no such path"):
        go(judge=NAME, judge_url=server.url)


def test_without_a_judge_there_is_no_column(go, serve, tmp_path):
    """And the unedited model's rows serve each kind of run: with a judge, with another, and without."""
    folder = go()
    rows = read_rows(folder / "cases.jsonl")
    assert all({"judge", "verdicts"}.isdisjoint(row) for row in rows)
    assert set(rows[0]["free"]) == {"efficacy", "generality", "efficacy_begins", "generality_begins"}
    identity = json.loads((folder / "run.json").read_text())["identity"]
    assert {"judge", "judge_url"}.isdisjoint(identity)
    plain = markdown(find_runs([tmp_path / "runs"]))
    assert "judged" not in plain

    unedited = folder.parents[1] / "unedited" / "cases.jsonl"
    before = unedited.read_bytes()
    with pytest.raises(StoreError, match=f"judge: None there, '{NAME}' now.*label=NAME"):
        go(judge=NAME, judge_url="http://127.0.0.1:9/v1")
    first = go(judge=NAME, judge_url=serve(*["RIGHT"] * 8).url, label="first")
    go(judge="other", judge_url=serve(*["WRONG"] * 8).url, label="second")
    assert unedited.read_bytes().startswith(before)
    assert [row.get("judge") for row in read_rows(unedited)] == [None, None, NAME, NAME, "other", "other"]
    for row, judged in zip(rows, read_rows(first / "cases.jsonl"), strict=True):
        figures = {m: v for m, v in judged["free"].items() if not m.endswith("_judged")}
        said = {metric: texts for metric, texts in row["said"].items() if metric != "free"}  # which verdicts hold whole
        new = {"judge": NAME, "verdicts": judged["verdicts"], "said": said}
        assert {**judged, "free": figures} == {**row, **new}

    after = unedited.read_bytes()
    go(label="again")
    assert unedited.read_bytes() == after
    one = {run.setting: run for run in find_runs([tmp_path / "runs"])}
    assert {s: {r.get("judge") for r in of.unedited.values()} for s, of in one.items()} == {
        "single": {None}, "single, judged by some/judge": {NAME}, "single, judged by other": {"other"},
    }  # fmt: skip
    assert markdown(find_runs([folder])) == plain


def test_seeds_with_and_without_a_verdict(tmp_path):
    for seed, figures in ((1, {"efficacy": 1.0}), (2, {"efficacy": 0.0, "efficacy_judged": 1.0})):
        folder = write_run(tmp_path, "PaCKE", [1.0], seed=seed, judge=NAME)
        rows = read_rows(folder / "cases.jsonl")
        write_rows(folder / "cases.jsonl", [{**rows[0], "free": figures}])
    table = main_table(tidy(find_runs([tmp_path])), "free")
    assert dict(table.iloc[-1]) == {
        "editor": "PaCKE", "zsre n": "1", "zsre efficacy": "**50.0**", "zsre efficacy_judged": "**100.0**",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"judge": NAME}, r"judge: expected a key in the variable OPENAI_API_KEY, or a server"),
        ({"judge": NAME, "judge_url": "http://x/v1", "generation": False}, "expected generation=true"),
        ({"judge_url": "http://x/v1"}, "judge_url: 'http://x/v1' is asked nothing without judge="),
    ],
)
def test_what_is_missing_is_said_before_anything_is_loaded(go, monkeypatch, changes, message):
    monkeypatch.setattr("easyedit_packe.bench.runner.register", lambda: pytest.fail("something is loaded"))
    with pytest.raises(BenchError, match=message):
        go(**changes)


def test_without_the_extra(go, monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(BenchError, match=r"judge: expected the package 'openai'.*easyedit-packe\[judge\].*leave"):
        go(judge=NAME, judge_url="http://x/v1")


def test_the_client_librarys_own_variable_names_a_server(serve, monkeypatch):
    server = serve("RIGHT")
    monkeypatch.delenv(judge.KEY, raising=False)
    monkeypatch.setenv(judge.URL, server.url)
    assert judge.Judge(NAME).verdict("q", "a", "a")["right"] is True
    assert server.headers[0]["authorization"] == "Bearer none"
