"""Calls are paid for once, counted, held to a budget, and replayed: with the real client and a real HTTP server."""

import json
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from chat_server import HI, PRICE, chat_server, error, model_of, role_models

from mlagent_jax.llm.backend import ModelError, TooLongError
from mlagent_jax.llm.call_store import CallStore, CallStoreError
from mlagent_jax.llm.chat_model import NotRecordedError
from mlagent_jax.llm.config import Prices
from mlagent_jax.llm.usage import BudgetSpentError, UsageLog, read_usage
from mlagent_jax.text.chat import Message

CALL = 10 * 2e-6 + 5 * 10e-6  # dollars of the stand-in's 10 + 5 tokens at PRICE


def numbered(server):
    """Every request gets another answer."""
    server.answers = [lambda _: f"answer {len(server.requests)}"]


def say(text):
    return [Message("user", text)]


def metrics(tmp_path):
    return [json.loads(line) for line in (tmp_path / "llm" / "metrics.jsonl").read_text().splitlines()]


def test_a_call_at_temperature_0_is_paid_once_by_all_runs(server, tmp_path):
    numbered(server)
    shared = str(tmp_path / "shared")
    first = role_models(server, tmp_path / "a", cache_dir=shared, price=PRICE, temperature=0.0)
    answer = first.of("expert").ask(HI, seed=1)
    assert (answer.text, answer.usage.dollars) == ("answer 1", pytest.approx(CALL))
    second = role_models(server, tmp_path / "b", cache_dir=shared, price=PRICE, temperature=0.0)
    again = second.of("expert").ask(HI, seed=2)
    assert again.text == "answer 1" and again.usage.dollars == 0 and again.usage.completion_tokens == 5
    assert len(server.requests) == 1 and "seed" not in server.requests[0]
    assert "$0" in second.spent() and read_usage(tmp_path / "b/llm/metrics.jsonl")["expert"].calls == 0


def test_what_determines_an_answer_tells_calls_apart(server, tmp_path):
    numbered(server)
    shared = {"cache_dir": str(tmp_path), "temperature": 0.5}
    model_of(server, **shared).ask(HI, seed=1)
    for changes in ({"model": "other"}, {"max_tokens": 9}, {"temperature": 0.6}):
        before = len(server.requests)
        model_of(server, **shared | changes).ask(HI, seed=1)
        assert len(server.requests) == before + 1, changes
    model = model_of(server, **shared)
    others = (
        lambda: model.ask(HI, seed=2),
        lambda: model.ask(say("ho"), seed=1),
        lambda: model.ask([Message("system", "hi")], seed=1),
        lambda: model.ask(HI, seed=1, schema={"type": "object"}),
    )
    for ask in others:
        before = len(server.requests)
        assert ask().text == ask().text
        assert len(server.requests) == before + 1
    with chat_server() as elsewhere:
        model_of(server, base_url=elsewhere.url, **shared).ask(HI, seed=1)
        assert len(elsewhere.requests) == 1
    sent = len(server.requests)
    model_of(server, **shared, parallel=1, retries=0, timeout_seconds=9.0, price=PRICE).ask(HI, seed=1)
    assert len(server.requests) == sent


def test_the_order_of_a_schemas_properties_tells_calls_apart(server):
    """A model writes them in that order."""
    numbered(server)
    model = model_of(server)
    schemas = ({"properties": {name: {"type": "string"} for name in names}} for names in ("ab", "ba"))
    assert [model.ask(HI, schema=schema).text for schema in schemas] == ["answer 1", "answer 2"]


def test_runs_that_ask_the_same_at_once_go_on_with_the_same_answer(server, tmp_path):
    """Each pays, and what was recorded first is what both have, so that both can be replayed."""
    both = threading.Barrier(2)
    server.answers = [lambda _: (both.wait(10) and "one") or "other"]
    models = [role_models(server, tmp_path / run, cache_dir=str(tmp_path), price=PRICE) for run in "ab"]
    with ThreadPoolExecutor(2) as pool:
        texts = list(pool.map(lambda each: each.of("coder").ask(HI).text, models))
    assert len(server.requests) == 2 and texts[0] == texts[1]
    assert [each.spent_by_role() for each in models] == ["coder $7e-05"] * 2


def test_a_request_that_was_too_long_is_made_again(server, tmp_path):
    """It costs nothing to ask, and the server may have been started with a longer context since."""
    server.answers = [error(400, "maximum context length is 9", "context_length_exceeded"), "it fits"]
    model = role_models(server, tmp_path).of("coder")
    with pytest.raises(TooLongError):
        model.ask(HI)
    assert model.ask(HI).text == "it fits"
    replayed = role_models(server, tmp_path, replay=True).of("coder")
    assert replayed.ask(HI).text == "it fits" and len(server.requests) == 2


def test_identical_calls_that_arrive_together_are_one(server, tmp_path):
    server.answers = [lambda _: time.sleep(0.1) or "hello"]
    models = role_models(server, tmp_path, price=PRICE)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: models.of("coder").ask(HI), range(4)))
    assert [answer.text for answer in answers] == ["hello"] * 4 and len(server.requests) == 1
    assert sum(answer.usage.dollars for answer in answers) == pytest.approx(CALL)


def test_tokens_and_dollars_are_counted_by_role_and_over_starts(server, tmp_path):
    usage = {"prompt_tokens": 1000, "completion_tokens": 100, "prompt_tokens_details": {"cached_tokens": 600}}
    server.answers = [{"content": "hello", "usage": usage}]
    models = role_models(server, tmp_path, price=PRICE)
    assert models.spent() == "" == models.spent_by_role()
    models.of("expert").ask(HI, seed=1)
    dollars = (400 * 2.0 + 600 * 0.5 + 100 * 10.0) / 1e6
    assert models.of("coder").ask(HI).usage.dollars == pytest.approx(dollars)
    assert models.spent() == "$0.0042, 2,200 tokens"
    models.close()
    again = role_models(server, tmp_path, price=PRICE)
    again.of("coder").ask(say("more"))
    again.of("coder").ask(say("more"))
    assert again.spent_by_role() == "expert $0.0021, coder $0.0042"
    lines = metrics(tmp_path)
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert lines[2]["llm/coder/calls"] == 2 and lines[2]["llm/coder/cached_tokens"] == 1200
    assert lines[3]["llm/coder/recorded_calls"] == 1
    assert lines[3]["llm/dollars"] == pytest.approx(3 * dollars)


def test_without_a_price_for_cached_tokens_they_cost_what_others_do():
    assert Prices(input=3.0, output=15.0).dollars(1e6, 1e6, 1e6) == pytest.approx(18.0)
    assert Prices(input=3.0, cached_input=0.0).dollars(1e6, 0, 5e5) == pytest.approx(1.5)


def test_a_kill_between_the_count_and_the_store_hides_no_money(server, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    def killed(*_):
        raise Killed

    server.answers = ["hello"]
    models = role_models(server, tmp_path, price=PRICE)
    monkeypatch.setattr(CallStore, "put", killed)
    with pytest.raises(Killed):
        models.of("coder").ask(HI)
    monkeypatch.undo()
    assert read_usage(tmp_path / "llm/metrics.jsonl")["coder"].dollars == pytest.approx(CALL)
    assert role_models(server, tmp_path, price=PRICE).of("coder").ask(HI).text == "hello"
    assert read_usage(tmp_path / "llm/metrics.jsonl")["coder"].dollars == pytest.approx(2 * CALL)


def test_a_budget_stops_before_it_is_exceeded_and_a_higher_one_resumes(server, tmp_path):
    limits = {"price": PRICE, "max_tokens": 5}  # so a call costs at most a little more than CALL
    models = role_models(server, tmp_path, budget=2.5 * CALL, **limits)
    models.of("expert").ask(HI, seed=1)
    models.of("coder").ask(HI)
    with pytest.raises(BudgetSpentError) as caught:
        models.of("coder").ask(say("ho"))
    said = str(caught.value)
    assert "config.models.budget is $0.000175" in said and "the next call of config.models.coder" in said
    assert "(expert $7e-05, coder $7e-05)" in said and "resumes" in said
    assert len(server.requests) == 2
    assert models.of("coder").ask(HI).text == "hello", "what is recorded costs nothing"
    models.close()
    with pytest.raises(BudgetSpentError):
        role_models(server, tmp_path, budget=2.5 * CALL, **limits).of("coder").ask(say("ho"))
    resumed = role_models(server, tmp_path, budget=3.5 * CALL, **limits)
    for text in ("hi", "ho"):
        resumed.of("coder").ask(say(text))
    assert len(server.requests) == 3 and resumed.spent_by_role() == "expert $7e-05, coder $0.00014"


def test_a_budget_holds_for_calls_at_once_too(server, tmp_path):
    """Calls in progress might use up the rest: others wait for them, and go on if they cost less."""
    server.answers = [lambda _: time.sleep(0.02) or {"content": "hello", "usage": {"completion_tokens": 1}}]
    price = Prices(output=1e6)  # a dollar a token
    models = role_models(server, tmp_path, budget=7.0, price=price, max_tokens=5)
    outcomes = []

    def ask(number):
        try:
            outcomes.append(models.of("coder").ask(say(str(number))).text)
        except BudgetSpentError:
            outcomes.append("stopped")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(8)))
    # After three calls $4 are left, which is less than the $5 that a fourth one may cost.
    assert sorted(outcomes) == ["hello"] * 3 + ["stopped"] * 5 and len(server.requests) == 3


def test_what_nobody_counts_costs_the_most_that_it_can(server, tmp_path):
    price = Prices(output=1e6)  # a dollar a token
    limits = {"price": price, "max_tokens": 5}
    server.answers = [{"content": "hello", "usage": None}]
    assert role_models(server, tmp_path / "uncounted", **limits).of("coder").ask(HI).usage.dollars == 5.0
    server.answers = [(200, {}, '{"choices": []}')]
    models = role_models(server, tmp_path / "abandoned", budget=11.0, **limits)
    sent = len(server.requests)
    with pytest.raises(BudgetSpentError, match=r"budget is \$11, .* \$10 are spent"):
        models.of("coder").ask(HI)
    assert len(server.requests) == sent + 2, "of three attempts"
    last = metrics(tmp_path / "abandoned")[-1]
    assert (last["llm/coder/abandoned_requests"], last["llm/dollars"]) == (2, 10.0)


def test_a_call_that_fails_keeps_nothing_of_the_budget(server, tmp_path):
    server.answers = [error(401, "no key"), "hello"]
    model = role_models(server, tmp_path, budget=1.5 * CALL, price=PRICE, max_tokens=5).of("coder")
    with pytest.raises(ModelError, match="no key"):
        model.ask(HI)
    assert model.ask(HI).text == "hello"


def test_a_run_is_replayed_without_its_models(server, tmp_path):
    server.answers = [
        {"content": "one", "reasoning_content": "hm"},
        "two",
        error(400, "maximum context length is 9", "context_length_exceeded"),
        {"content": "cut", "finish_reason": "length"},
    ]
    models = role_models(server, tmp_path / "run", price=PRICE, temperature=0.5)

    def calls(models):
        expert = models.of("expert")
        with pytest.raises(TooLongError, match="is 9"):
            yield expert.ask(HI, seed=1)
            yield expert.ask(HI, seed=2)
            expert.ask(say("long" * 99))
        yield models.of("coder").ask(HI)

    first = [(answer.text, answer.reasoning, answer.problem) for answer in calls(models)]
    assert [text for text, *_ in first] == ["one", "two", "cut"]
    sent = len(server.requests)
    recorded = str(tmp_path / "run" / "llm")
    replayed = role_models(
        server, tmp_path / "again", replay=True, cache_dir=recorded, temperature=0.5, api_key_variable="NONE"
    )
    replayed.check(("expert", "coder"))
    assert [(answer.text, answer.reasoning, answer.problem) for answer in calls(replayed)] == first
    with pytest.raises(
        NotRecordedError, match=r"this call of config.models.agent is not recorded in .*calls.sqlite"
    ):
        replayed.of("agent").ask(say("something new"))
    assert len(server.requests) == sent
    with pytest.raises(ModelError, match=r"replay is True, but there are no recorded calls in .*nowhere"):
        role_models(server, tmp_path, replay=True, cache_dir=str(tmp_path / "nowhere")).check(("coder",))
    role_models(server, tmp_path, (), replay=True, cache_dir=str(tmp_path / "nowhere")).check(("coder",))


def test_an_outage_is_not_recorded(server, tmp_path):
    server.answers = [error(500, "broken")]
    model = role_models(server, tmp_path, retries=0).of("coder")
    with pytest.raises(ModelError):
        model.ask(HI)
    server.answers = ["hello"]
    assert model.ask(HI).text == "hello"
    assert [line["llm/coder/calls"] for line in metrics(tmp_path)] == [1]


# The store.

PIPES = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
WRITER = """
import sys
from pathlib import Path
from mlagent_jax.llm.call_store import CallStore
store = CallStore(Path(sys.argv[1]), 100.0)
for number in range(40):
    store.put(f"{sys.argv[2]}/{number}", {"text": sys.argv[2]})
    first = store.put("same", {"text": sys.argv[2]})
print(first["text"])
"""


def test_many_processes_share_a_store(tmp_path):
    path = tmp_path / "calls.sqlite"
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(path), name], text=True, **PIPES)
        for name in "abc"
    ]
    told = [writer.communicate() for writer in writers]
    assert [(writer.returncode, err) for writer, (_, err) in zip(writers, told, strict=True)] == [(0, "")] * 3
    store = CallStore(path, 100.0)
    assert all(store.get(f"{name}/{number}") == {"text": name} for name in "abc" for number in range(40))
    assert {out.strip() for out, _ in told} == {store.get("same")["text"]} and store.get("d/0") is None


def test_a_store_keeps_to_its_size_and_drops_what_is_used_least(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("mlagent_jax.llm.call_store.STORES_PER_EVICTION", 1)
    store = CallStore(tmp_path / "calls.sqlite", 0.01)
    for number in range(12):
        store.put(str(number), {"text": "x" * 1000})
        assert store.get("0"), "it is used all the time"
    kept = [number for number in range(12) if store.get(str(number))]
    assert kept[0] == 0 and kept[-1] == 11 and len(kept) <= 10 and 1 not in kept
    assert "can't be replayed" in caplog.text


def test_a_store_that_cannot_be_used_is_named(tmp_path):
    (tmp_path / "text.sqlite").write_text("no database " * 100)
    with pytest.raises(CallStoreError, match=r"text.sqlite cannot be used .*config.models.cache_dir"):
        CallStore(tmp_path / "text.sqlite", 1.0)
    with sqlite3.connect(tmp_path / "other.sqlite") as database:
        database.execute("CREATE TABLE calls (key TEXT)")
    with pytest.raises(CallStoreError, match=r"other.sqlite are of another version"):
        CallStore(tmp_path / "other.sqlite", 1.0)
    (tmp_path / "file").write_text("")
    with pytest.raises(CallStoreError, match="cannot be used"):
        CallStore(tmp_path / "file" / "calls.sqlite", 1.0)


def test_counts_of_many_threads_add_up_and_survive_a_torn_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log = UsageLog(path)
    threads = [
        threading.Thread(target=lambda role=role: [log.add_recorded(role) for _ in range(25)])
        for role in ("expert", "coder") * 2
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with path.open("a") as file:
        file.write('{"step": 101, "llm/expert/rec')
    again = UsageLog(path)
    assert {role: usage.recorded_calls for role, usage in again.roles.items()} == {"expert": 50, "coder": 50}
    again.add_recorded("expert")
    assert json.loads(path.read_text().splitlines()[-1])["step"] == 101
