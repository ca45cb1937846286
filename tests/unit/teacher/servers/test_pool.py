"""Sampling from several servers: what each gets, who is left out, and that the table is one."""

import json
import logging
import ssl
import threading
import time

import pytest
import trustme
from polars.testing import assert_frame_equal

from qcrd_core.config.endpoints import Endpoint, read_endpoints
from qcrd_core.errors import ConfigError, SamplingError
from qcrd_core.teacher.servers.pool import TeacherPool
from tests.support.sampling import Sampling, make_config, numbered_questions
from tests.support.stub_engine import stub_engine


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr("qcrd_core.teacher.servers.dispatch._FIRST_PAUSE_SECONDS", 0.02)
    monkeypatch.setattr("qcrd_core.teacher.servers.dispatch._LONGEST_PAUSE_SECONDS", 0.2)
    monkeypatch.setattr("qcrd_core.teacher.servers.dispatch._WATCH_SECONDS", 0.05)


def _dies_after(count):
    left = iter(range(count))
    return lambda *_: None if next(left, None) is not None else "drop"


def _table(folder, engines, num_questions, **teacher):
    sampling = Sampling(
        make_config(folder, [engine.url for engine in engines], **teacher),
        numbered_questions(num_questions),
    )
    return sampling.run().drop("created_at"), sampling


def test_table_is_equal_from_one_server_from_ten_and_after_half_of_them_died(tmp_path):
    with stub_engine() as engine:
        one, _ = _table(tmp_path / "one", [engine], 40, num_samples=3)
    made = [stub_engine(delay_seconds=0.002) for _ in range(10)]
    engines = [context.__enter__() for context in made]
    ten, _ = _table(tmp_path / "ten", engines, 40, num_samples=3)
    for engine in engines[:5]:
        engine.fault = _dies_after(3)
    half, sampling = _table(tmp_path / "half", engines, 40, num_samples=3)
    for context in made:
        context.__exit__(None, None, None)
    assert_frame_equal(one, ten)
    assert_frame_equal(one, half)
    assert sum(server.num_failures for server in sampling.servers) >= 5


def test_slow_server_gets_work_at_its_own_speed(tmp_path):
    with stub_engine(delay_seconds=0.01) as fast, stub_engine(delay_seconds=0.1) as slow:
        _table(tmp_path, [fast, slow], 100, questions_per_shard=100, concurrency=4)
    # By their delays 182 and 18; taken in turn it would be 100 and 100.
    assert 4 <= slow.num_asked <= 60


def test_endpoint_of_less_capacity_never_gets_more(tmp_path):
    with stub_engine(delay_seconds=0.01) as one, stub_engine(delay_seconds=0.01) as two:
        endpoints = [one.url, {"url": two.url, "max_concurrency": 2}]
        config = make_config(tmp_path, endpoints, questions_per_shard=50)
        Sampling(config, numbered_questions(50)).run()
    assert two.max_in_flight == 2
    assert one.max_in_flight > 2


def test_busy_server_gets_less_and_nothing_is_lost(tmp_path):
    with stub_engine(delay_seconds=0.02) as engine:
        engine.fault = lambda *_: 429 if engine.num_in_flight > 4 else None
        table, sampling = _table(tmp_path, [engine], 30, concurrency=32)
    assert table["status"].to_list() == ["ok"] * 60
    assert sampling.servers[0].concurrency < 32


def test_drained_server_comes_back(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    with stub_engine(delay_seconds=0.01) as good, stub_engine(delay_seconds=0.01) as ill:
        ill.fault = lambda *_: 500 if ill.num_asked <= 8 else None
        table, sampling = _table(tmp_path, [good, ill], 300, questions_per_shard=150, concurrency=4)
    assert table["status"].to_list() == ["ok"] * 600
    server = sampling.servers[1]
    assert server.num_drains >= 1
    assert server.num_samples > 5
    assert f"{ill.url} gets no requests for now: HTTP 500" in caplog.text
    assert f"{ill.url} now gets requests" in caplog.text


def test_server_that_lets_everything_wait_is_drained(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("qcrd_core.teacher.servers.dispatch._STALL_SECONDS", 0.2)
    with stub_engine() as good, stub_engine(delay_seconds=50.0) as stuck:
        start = time.monotonic()
        table, _ = _table(tmp_path, [good, stuck], 20)
        assert time.monotonic() - start < 40
    assert table["status"].to_list() == ["ok"] * 40
    assert f"{stuck.url} gets no requests for now: it takes far longer" in caplog.text


def test_absent_server_is_left_out_as_long_as_another_answers(tmp_path, caplog):
    with stub_engine() as engine:
        config = make_config(tmp_path, ["http://127.0.0.1:9/v1", engine.url])
        assert Sampling(config, numbered_questions(3)).run().height == 6
    assert "127.0.0.1:9/v1/models must answer" in caplog.text
    assert "It gets no requests until it answers" in caplog.text


def test_server_of_another_model_in_a_pool_is_refused_before_sampling(tmp_path):
    with stub_engine() as right, stub_engine(model="other") as wrong:
        config = make_config(tmp_path, [right.url, wrong.url])
        with pytest.raises(SamplingError, match=r"must serve 'stub'; got \['other'\]"):
            Sampling(config, numbered_questions(3)).run()
    assert right.num_asked == 0


def test_server_that_changes_its_model_meanwhile_is_left_out(tmp_path, caplog):
    with stub_engine(delay_seconds=0.01) as right, stub_engine(delay_seconds=0.01) as changes:

        def fault(*_):
            # As vLLM answers for a model that it does not serve.
            if changes.num_asked > 5:
                changes.model = "other"
                return 404
            return None

        changes.fault = fault
        table, _ = _table(tmp_path, [right, changes], 100, questions_per_shard=100)
    assert table["status"].to_list() == ["ok"] * 200
    assert f"{changes.url}/chat/completions rejected the request with HTTP 404" in caplog.text


def test_servers_that_all_stay_away_end_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr("qcrd_core.teacher.servers.pool._REMOTE_WAIT_SECONDS", 0.3)
    with stub_engine() as one, stub_engine() as two:
        sampling = Sampling(make_config(tmp_path, [one.url, two.url]), numbered_questions(9))

        def ends(*_):
            for engine in (one, two):
                engine.socket.close()
            return "drop"

        one.fault = two.fault = ends
        monkeypatch.setattr(TeacherPool, "bring_back", lambda *_: None)
        with pytest.raises(SamplingError, match=r"No server of teacher.endpoints answered for 0 s"):
            sampling.run()


def test_discovery_file_brings_servers_and_takes_them(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    file = tmp_path / "pool.json"
    with stub_engine(delay_seconds=0.02) as first, stub_engine(delay_seconds=0.02) as second:
        file.write_text(json.dumps([first.url]))

        def change():
            while first.num_asked < 10:
                time.sleep(0.01)
            file.write_text(json.dumps([{"url": second.url, "max_concurrency": 3}]))

        thread = threading.Thread(target=change)
        thread.start()
        config = make_config(tmp_path, str(file), concurrency=2, questions_per_shard=200)
        table = Sampling(config, numbered_questions(150)).run()
        thread.join()
    assert table["status"].to_list() == ["ok"] * 300
    assert first.num_asked + second.num_asked == 300
    assert second.num_asked > 0
    assert f"{first.url} was removed from teacher.endpoints" in caplog.text


def test_discovery_file_that_becomes_unreadable_changes_nothing(tmp_path, caplog):
    file = tmp_path / "pool.yaml"
    with stub_engine() as engine:
        file.write_text(f"[{engine.url}]")
        pool = TeacherPool("stub")
        pool.use(file)
        file.write_text("[")
        assert not pool.reread()
        assert pool.urls == (engine.url,)
    assert "must be a YAML or JSON list of servers" in caplog.text
    assert "The list of servers is unchanged" in caplog.text


def test_server_that_comes_later_with_a_shorter_context_is_refused():
    with stub_engine() as first, stub_engine(max_model_len=64) as later:
        pool = TeacherPool("stub")
        pool.use((Endpoint(url=first.url),))
        with pytest.raises(SamplingError, match="context of at least 2048 tokens"):
            pool.bring_back(Endpoint(url=later.url))


def test_each_server_gets_its_own_key(tmp_path, monkeypatch):
    monkeypatch.setenv("QCRD_API_KEY", "common")
    monkeypatch.setenv("OTHER_KEY", "special")
    with stub_engine() as one, stub_engine() as two:
        endpoints = [one.url, {"url": two.url, "api_key_env": "OTHER_KEY"}]
        Sampling(make_config(tmp_path, endpoints), numbered_questions(4)).run()
    assert one.headers_sent["Authorization"] == "Bearer common"
    assert two.headers_sent["Authorization"] == "Bearer special"


def test_server_that_refuses_its_key_is_named_before_sampling(tmp_path, monkeypatch):
    monkeypatch.setenv("QCRD_API_KEY", "common")
    monkeypatch.setenv("OTHER_KEY", "mistyped")
    with stub_engine(api_key="common") as one, stub_engine(api_key="special") as two:
        endpoints = [one.url, {"url": two.url, "api_key_env": "OTHER_KEY"}]
        with pytest.raises(
            SamplingError, match=rf"{two.url} must accept .* in OTHER_KEY; got HTTP 401"
        ):
            Sampling(make_config(tmp_path, endpoints), numbered_questions(4)).run()
    assert (one.num_asked, two.num_asked) == (0, 0)


def test_named_key_that_is_not_set_is_refused(tmp_path, monkeypatch):
    monkeypatch.delenv("OTHER_KEY", raising=False)
    endpoints = [{"url": "http://127.0.0.1:9/v1", "api_key_env": "OTHER_KEY"}]
    with pytest.raises(ConfigError, match=r"OTHER_KEY must be set to the API key of .*127.0.0.1"):
        Sampling(make_config(tmp_path, endpoints), numbered_questions(1)).run()


def test_https_servers_of_a_private_authority_are_trusted_by_ssl_cert_file(tmp_path, monkeypatch):
    with stub_engine() as engine:
        plain, _ = _table(tmp_path / "plain", [engine], 10)
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    tls = _certified(authority, "127.0.0.1")
    with stub_engine(tls=tls) as one, stub_engine(tls=tls) as two:
        table, _ = _table(tmp_path / "tls", [one, two], 10)
    assert_frame_equal(table, plain)
    assert one.num_asked + two.num_asked == 20


@pytest.mark.parametrize(
    ("is_known", "name", "reason"),
    [(False, "127.0.0.1", "unable to get local issuer"), (True, "a.example", "mismatch")],
    ids=["authority", "host"],
)
def test_https_server_with_a_wrong_certificate_is_refused(
    tmp_path, monkeypatch, is_known, name, reason
):
    authority = trustme.CA()
    if is_known:
        authority.cert_pem.write_to_path(tmp_path / "authority.pem")
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    # The other server would do; a wrong certificate is a mistake all the same.
    with (
        stub_engine() as well,
        stub_engine(tls=_certified(authority, name)) as engine,
        pytest.raises(SamplingError, match=rf"present a certificate .*{reason}.*SSL_CERT_FILE"),
    ):
        _table(tmp_path, [well, engine], 2)
    assert (well.num_asked, engine.num_asked) == (0, 0)


def _certified(authority, name):
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(tls)
    return tls


@pytest.mark.parametrize(
    ("endpoints", "match"),
    [
        ([], "at least one server"),
        (["http://a/v1", "http://a/v1/"], "each once; got http://a/v1 twice"),
        (["gpu1:8000"], "must hold URLs such as"),
        (["http://user:secret@a/v1"], "without user, password or query"),
        ([{"url": "http://a/v1", "key": "secret"}], "teacher.endpoints.key is not a setting"),
    ],
)
def test_wrong_endpoints_are_refused(tmp_path, endpoints, match):
    with pytest.raises(ConfigError, match=match) as caught:
        make_config(tmp_path, endpoints)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("text", ["a: b", "[", "[ftp://a]", "[]"])
def test_discovery_file_of_another_form_is_refused(tmp_path, text):
    file = tmp_path / "pool.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"pool.yaml must be a YAML or JSON list of servers"):
        read_endpoints(file)


def test_endpoints_are_not_part_of_the_runs_name(tmp_path):
    one = make_config(tmp_path, ["http://a/v1"])
    other = make_config(tmp_path, [{"url": "https://b/v1", "max_concurrency": 9}])
    assert one.run_id("x") == other.run_id("x")


def test_slow_server_gets_nothing_at_the_end_that_the_fast_one_does_sooner(tmp_path):
    with stub_engine(delay_seconds=0.05) as fast, stub_engine(delay_seconds=1.5) as slow:
        _table(tmp_path, [fast, slow], 150, questions_per_shard=150, concurrency=8)
    # When the slow one has done its first 8, the fast one needs less than as long for the rest.
    assert slow.num_asked == 8
