"""Settings: names of celery's, values of every type, and the place of each mistake."""

from __future__ import annotations

import string
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queue_core import ConfigError, Exchange, Queue, UsageError
from queue_core.worker import App, shared_task
from queue_core.worker.celery_settings import NEEDLESS, REFUSED, known_name, nearest_name
from queue_core.worker.configuration import (
    Configuration,
    Given,
    Level,
    find_file,
    from_environment,
    from_file,
    from_mapping,
    from_object,
    masked,
    shown,
)
from queue_core.worker.current import shared
from queue_core.worker.settings import DEFAULTS, FIELDS, STRUCTURED, Settings, read_setting

OLD = {
    "BROKER_URL": "broker_url",
    "BROKER_CONNECTION_TIMEOUT": "broker_connection_timeout",
    "CELERY_RESULT_BACKEND": "result_backend",
    "CELERY_TASK_RESULT_EXPIRES": "result_expires",
    "CELERY_ACCEPT_CONTENT": "accept_content",
    "CELERY_TIMEZONE": "timezone",
    "CELERY_IMPORTS": "imports",
    "CELERY_INCLUDE": "include",
    "CELERY_TASK_SERIALIZER": "task_serializer",
    "CELERY_MESSAGE_COMPRESSION": "task_compression",
    "CELERY_DEFAULT_QUEUE": "task_default_queue",
    "CELERY_DEFAULT_EXCHANGE": "task_default_exchange",
    "CELERY_DEFAULT_EXCHANGE_TYPE": "task_default_exchange_type",
    "CELERY_DEFAULT_ROUTING_KEY": "task_default_routing_key",
    "CELERY_DEFAULT_RATE_LIMIT": "task_default_rate_limit",
    "CELERY_DEFAULT_PRIORITY": "task_default_priority",
    "CELERY_QUEUES": "task_queues",
    "CELERY_QUEUE_MAX_PRIORITY": "task_queue_max_priority",
    "CELERY_CREATE_MISSING_QUEUES": "task_create_missing_queues",
    "CELERY_ROUTES": "task_routes",
    "CELERY_ANNOTATIONS": "task_annotations",
    "CELERYD_TASK_TIME_LIMIT": "task_time_limit",
    "CELERYD_TASK_SOFT_TIME_LIMIT": "task_soft_time_limit",
    "CELERY_ACKS_LATE": "task_acks_late",
    "CELERY_IGNORE_RESULT": "task_ignore_result",
    "CELERY_STORE_ERRORS_EVEN_IF_IGNORED": "task_store_errors_even_if_ignored",
    "CELERY_TRACK_STARTED": "task_track_started",
    "CELERY_TASK_PUBLISH_RETRY": "task_publish_retry",
    "CELERY_TASK_PUBLISH_RETRY_POLICY": "task_publish_retry_policy",
    "CELERY_ALWAYS_EAGER": "task_always_eager",
    "CELERY_EAGER_PROPAGATES_EXCEPTIONS": "task_eager_propagates",
    "CELERYD_CONCURRENCY": "worker_concurrency",
    "CELERYD_POOL": "worker_pool",
    "CELERYD_PREFETCH_MULTIPLIER": "worker_prefetch_multiplier",
    "CELERYD_MAX_TASKS_PER_CHILD": "worker_max_tasks_per_child",
    "CELERYD_MAX_MEMORY_PER_CHILD": "worker_max_memory_per_child",
    "CELERYD_STATE_DB": "worker_state_db",
    "CELERY_ENABLE_REMOTE_CONTROL": "worker_enable_remote_control",
    "CELERY_DISABLE_RATE_LIMITS": "worker_disable_rate_limits",
    "CELERY_SEND_EVENTS": "worker_send_task_events",
    "CELERY_SEND_TASK_SENT_EVENT": "task_send_sent_event",
    "CELERYBEAT_SCHEDULE": "beat_schedule",
    "CELERY_RESULT_DBURI": "database_url",
    "CELERY_REDIRECT_STDOUTS": "worker_redirect_stdouts",
    "CELERY_REDIS_HOST": "redis_host",
    "BROKER_POOL_LIMIT": "broker_pool_limit",
    "CELERY_WORKER_DIRECT": "worker_direct",
    "CELERY_MAX_CACHED_RESULTS": "result_cache_max",
}
"""How celery called them before its version 4."""


@pytest.fixture(autouse=True)
def _nothing_around(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable and no file says anything."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("QUEUE_CORE_URL", raising=False)


def read(**values: object) -> Settings:
    configuration = Configuration()
    configuration.say(Level.OBJECT, from_mapping(values, "a test"))
    return configuration.settings()


# --- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("old", "new"), OLD.items())
def test_old_names_of_celery_are_understood(old: str, new: str) -> None:
    assert known_name(old) == new


@pytest.mark.parametrize("name", FIELDS)
def test_each_setting_has_three_spellings(name: str) -> None:
    assert {known_name(name), known_name(name.upper()), known_name(f"CELERY_{name.upper()}")} == {
        name
    }


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("task_route", "task_routes"),
        ("CELERY_ACK_LATE", "CELERY_TASK_ACKS_LATE"),
        ("CELERYD_CONCURENCY", "CELERY_WORKER_CONCURRENCY"),
        ("BROKER_ULR", "BROKER_URL"),
        ("result_backnd", "result_backend"),
    ],
)
def test_a_misspelt_name_is_an_error_with_the_nearest_one(wrong: str, right: str) -> None:
    with pytest.raises(ConfigError, match=rf"no setting {wrong} \(a test\); did you mean {right}"):
        read(**{wrong: "1"})


@given(st.text(string.ascii_letters + "_", max_size=30))
def test_any_name_is_known_or_not_and_never_breaks_anything(name: str) -> None:
    assert nearest_name(name) is None or known_name(nearest_name(name) or "") is not None


def test_no_setting_is_in_two_tables() -> None:
    assert not set(FIELDS) & set(NEEDLESS)
    assert not set(FIELDS) & set(REFUSED)
    assert not set(NEEDLESS) & set(REFUSED)


def test_two_spellings_of_one_setting_must_agree() -> None:
    assert not read(task_acks_late=False, CELERY_ACKS_LATE=False).task_acks_late
    with pytest.raises(ConfigError, match="CELERY_ACKS_LATE are the same setting"):
        read(task_acks_late=False, CELERY_ACKS_LATE=True)


def test_what_cannot_be_honoured_is_refused_unless_it_is_so_anyway() -> None:
    read(worker_send_task_events=False, beat_schedule={}, task_protocol=2, enable_utc=True)
    for values, words in (
        ({"CELERY_SEND_EVENTS": True}, "do not send events"),
        ({"beat_schedule": {"a": {}}}, "periodic tasks"),
        ({"task_protocol": 1}, "protocol 2 is written"),
        ({"broker_use_ssl": True}, "amqps://"),
        ({"redis_host": "here"}, "say it in result_backend"),
    ):
        with pytest.raises(ConfigError, match=words):
            read(**values)


def test_what_is_not_needed_is_accepted_and_remembered() -> None:
    configuration = Configuration()
    configuration.say(Level.OBJECT, from_mapping({"BROKER_POOL_LIMIT": 3}, "a test"))
    assert configuration.needless() == [Given("broker_pool_limit", 3, "a test")]
    assert configuration.settings() == DEFAULTS


# --- values --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("result_expires", 60, 60.0),
        ("result_expires", timedelta(hours=2), 7200.0),
        ("result_expires", "2h", 7200.0),
        ("result_expires", 0, None),
        ("result_expires", None, None),
        ("task_time_limit", "1500ms", 1.5),
        ("task_acks_late", "no", False),
        ("task_acks_late", 1, True),
        ("worker_concurrency", "4", 4),
        ("worker_max_memory_per_child", 12000, 12000),
        ("worker_max_memory_per_child", "500M", 512000),
        ("imports", "a.tasks, b.tasks", ("a.tasks", "b.tasks")),
        ("imports", ["a"], ("a",)),
        ("accept_content", {"json"}, ("json",)),
        ("task_default_rate_limit", "10/m", "10/m"),
        ("task_default_rate_limit", 3, 3.0),
        ("broker_url", "pyamqp://u@h//", "amqp://u@h//"),
        ("broker_url", ["amqp://a", "amqp://b"], "amqp://a;amqp://b"),
        ("broker_url", "sqla+postgresql://h/db", "postgresql://h/db"),
        ("result_backend", "rpc", "rpc://"),
        ("result_backend", "db+sqlite:///results.db", "sqlite:///results.db"),
        ("task_compression", "", None),
        ("task_publish_retry_policy", {"timeout": 3}, {"timeout": 3}),
    ],
)
def test_values_are_read_by_the_type_of_the_setting(
    name: str, value: object, expected: object
) -> None:
    assert read_setting(name, value) == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("result_expires", "soon"),
        ("result_expires", -1),
        ("result_expires", float("nan")),
        ("task_acks_late", "perhaps"),
        ("worker_concurrency", 0),
        ("worker_concurrency", True),
        ("worker_pool", "gevent"),
        ("task_default_priority", 10),
        ("task_default_rate_limit", "often"),
        ("imports", [1]),
        ("task_serializer", None),
        ("result_backend", "disabled"),
        ("task_queues", 3),
        ("task_queues", {"a": {"max_prio": 3}}),
        ("task_queues", [Queue()]),
        ("task_queues", [SimpleNamespace(name="of kombu")]),
        ("task_publish_retry_policy", "never"),
    ],
)
def test_a_wrong_value_is_an_error_with_its_place(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"{name} \(a test\): "):
        read(**{name: value})


@given(st.sampled_from(sorted(FIELDS)), st.one_of(st.none(), st.text(), st.integers(), st.floats()))
def test_every_value_is_read_or_refused(name: str, value: object) -> None:
    try:
        found = read_setting(name, value)
    except ConfigError:
        return
    if FIELDS[name] not in STRUCTURED:
        assert read_setting(name, found) == found


def test_queues_may_be_said_in_celerys_words() -> None:
    found = read(
        CELERY_QUEUES={
            "mail": {"exchange": "post", "exchange_type": "topic", "binding_key": "mail.#"},
            "hot": {"queue_arguments": {"x-max-priority": 9, "x-message-ttl": 1500, "x-odd": 1}},
            "plain": None,
        }
    ).task_queues
    mail, hot, plain = found
    assert (mail.exchange, mail.routing_key) == (Exchange("post", "topic"), "mail.#")
    assert (hot.max_priority, hot.message_ttl, hot.arguments) == (9, 1.5, {"x-odd": 1})
    assert plain == Queue("plain", Exchange("plain"), "plain", queue_type="classic")
    assert read(task_queues=[{"name": "one"}, Queue("two"), "three"]).task_queues[1].name == "two"


# --- places --------------------------------------------------------------------------------------


def test_the_stronger_place_counts_and_is_remembered() -> None:
    configuration = Configuration()
    for level in reversed(Level):
        said = {"task_default_queue": level.name.lower()}
        configuration.say(level, from_mapping(said, f"from {level.name}"))
    configuration.say(Level.APP, from_mapping({"worker_concurrency": 3}, "App()"))
    settings, winners = configuration.settings(), configuration.winners()
    assert (settings.task_default_queue, settings.worker_concurrency) == ("flag", 3)
    told = {name: where for name, _, where in shown(settings, winners)}
    assert told["task_default_queue"] == "from FLAG"
    assert told["worker_concurrency"] == "App()"
    assert told["timezone"] == ""


def test_a_file_is_read_with_the_line_of_each_setting(tmp_path: Path) -> None:
    path = tmp_path / "queue-core.toml"
    path.write_text(
        '# settings\ntask_default_queue = "orders"\nresult_expires = "1h"\n\n'
        '[task_routes]\n"shop.*" = "shop"\n'
    )
    found = {one.name: one for one in from_file(path)}
    assert found["task_default_queue"] == ("task_default_queue", "orders", f"{path}:2")
    assert found["result_expires"].value == 3600.0
    assert found["task_routes"] == ("task_routes", {"shop.*": "shop"}, f"{path}:5")
    path.write_text('\ntask_default_que = "orders"\n')
    with pytest.raises(ConfigError, match=r"queue-core\.toml:2\); did you mean task_default_queue"):
        from_file(path)
    path.write_text("= broken")
    with pytest.raises(ConfigError, match=r"queue-core\.toml cannot be read"):
        from_file(path)


def test_the_file_is_named_or_in_the_folder_and_a_pyproject_only_with_our_table(
    tmp_path: Path,
) -> None:
    assert find_file({}, tmp_path) is None
    project = tmp_path / "pyproject.toml"
    project.write_text("[tool.other]\nbroken here")
    assert find_file({}, tmp_path) is None
    project.write_text("[tool.queue-core]\nworker_concurrency = 5\n")
    assert find_file({}, tmp_path) == project
    assert from_file(project) == [Given("worker_concurrency", 5, f"{project}:2")]
    own = tmp_path / "queue-core.toml"
    own.write_text("")
    assert find_file({}, tmp_path) == own
    assert find_file({"QUEUE_CORE_CONFIG": "/else.toml"}, tmp_path) == Path("/else.toml")


def test_variables_are_settings_in_upper_case() -> None:
    environ = {
        "QUEUE_CORE_URL": "memory://a",
        "QUEUE_CORE_TASK_ACKS_LATE": "false",
        "QUEUE_CORE_IMPORTS": "a,b",
        "QUEUE_CORE_TASK_ROUTES": "ignored: no text can say it",
        "QUEUE_CORE_UNRELATED": "1",
    }
    assert from_environment(environ) == [
        ("broker_url", "memory://a", "$QUEUE_CORE_URL"),
        ("imports", ("a", "b"), "$QUEUE_CORE_IMPORTS"),
        ("task_acks_late", False, "$QUEUE_CORE_TASK_ACKS_LATE"),
    ]
    with pytest.raises(ConfigError, match=r"\$QUEUE_CORE_TASK_ACKS_LATE\): true or false"):
        from_environment({"QUEUE_CORE_TASK_ACKS_LATE": "2"})


def test_variables_that_cannot_be_used_are_told_together() -> None:
    wrong = {"QUEUE_CORE_TASK_ACKS_LATE": "2", "QUEUE_CORE_WORKER_CONCURRENCY": "many"}
    with pytest.raises(ConfigError) as told:
        from_environment({**wrong, "QUEUE_CORE_TIMEZONE": "UTC"})
    lines = str(told.value).splitlines()
    assert len(lines) == 2
    assert {line.partition("$")[2].partition(")")[0] for line in lines} == set(wrong)


def test_other_names_of_a_module_are_left_alone_unless_they_look_like_settings() -> None:
    source = SimpleNamespace(
        BROKER_URL="memory://a",
        CELERY_ACKS_LATE=False,
        CELERY_ROUTES=len,
        DEBUG=True,
        Task=dict,
        helper=3,
        include=len,
        os=string,
        timezone=string,
    )
    expected = {"broker_url", "task_acks_late", "task_routes"}
    assert {one.name for one in from_object(source)} == expected
    for wrong in ("CELERY_ACK_LATE", "task_serialiser", "celeryd_x"):
        with pytest.raises(ConfigError, match=f"there is no setting {wrong}"):
            from_object(SimpleNamespace(**{wrong: 1}))


def test_with_a_namespace_nothing_else_is_a_setting_and_all_of_it_is() -> None:
    source = SimpleNamespace(CELERY_BROKER_URL="memory://a", BROKER_URL="other", task_serializer=1)
    assert [one[:2] for one in from_object(source, namespace="CELERY")] == [
        ("broker_url", "memory://a")
    ]
    with pytest.raises(ConfigError, match="there is no setting CELERY_NONSENSE"):
        from_object(SimpleNamespace(CELERY_NONSENSE=1), namespace="CELERY")


def test_passwords_are_masked() -> None:
    for url in (
        "amqp://u:secret@h//",
        "amqp://u:se@cret@h//;amqp://v:secret@i//",
        "redis://:secret@h/0",
        "sqlite:///a.db?password=secret&b=1",
    ):
        assert "cret" not in masked(url)
        assert "cret" not in masked({"url": url})
    assert masked(3) == "3"


# --- the app -------------------------------------------------------------------------------------


def test_an_app_is_configured_by_a_module_with_old_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "old_settings_a.py").write_text(
        "import os\nBROKER_URL = 'memory://old'\nCELERY_DEFAULT_QUEUE = 'orders'\n"
        "CELERY_ANNOTATIONS = {'*': {'max_retries': 9}}\nCELERY_ACCEPT_CONTENT = ['json']\n"
    )
    app = App("shop")

    @app.task
    def work() -> None: ...

    assert app.config_from_object("old_settings_a")
    assert (app.broker, app.queue().name) == ("memory://old", "orders")
    assert app.conf.accept_content == ("json",)
    assert work.max_retries == 9
    assert app.settled.origins["task_default_queue"].where.endswith("old_settings_a.py:3")


def test_arguments_of_an_app_go_before_its_module_and_variables_before_both(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app = App("shop", broker="memory://argument", default_queue="argument")
    app.config_from_object({"broker_url": "memory://object", "task_default_queue": "object"})
    monkeypatch.setenv("QUEUE_CORE_URL", "memory://variable")
    assert (app.broker, app.queue().name) == ("memory://variable", "argument")
    app.use(broker="memory://flag")
    assert app.broker == "memory://flag"


def test_a_module_that_is_not_there_is_an_error_or_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    app = App("shop")
    assert not app.config_from_object("no_such_settings", silent=True)
    with pytest.raises(ConfigError, match="there is no module 'no_such_settings'"):
        app.config_from_object("no_such_settings")
    with pytest.raises(ConfigError, match="SHOP_CONFIG names no module"):
        app.config_from_envvar("SHOP_CONFIG")
    assert not app.config_from_envvar("SHOP_CONFIG", silent=True)
    monkeypatch.setenv("SHOP_CONFIG", "no_such_settings")
    with pytest.raises(ConfigError, match="there is no module"):
        app.config_from_envvar("SHOP_CONFIG")


def test_a_connected_app_cannot_be_configured() -> None:
    with_connection = App("shop", broker="memory://connected-settings")
    with_connection.connection()
    with pytest.raises(UsageError, match="connected already"):
        with_connection.config_from_object({"task_default_queue": "late"})
    with_connection.close()


def test_a_task_says_more_than_a_setting_and_less_than_an_annotation() -> None:
    app = App("shop", broker="memory://options")

    class Base(App("x").task(lambda: None).__class__):  # type: ignore[misc]
        track_started = True

    @app.task(acks_late=True)
    def own() -> None: ...

    @app.task(base=Base)
    def of_base() -> None: ...

    app.config_from_object({"task_acks_late": False, "task_track_started": False})
    assert app.settings and own.acks_late and not of_base.acks_late and of_base.track_started
    app.config_from_object({"task_annotations": {"*": {"acks_late": False}}})
    assert app.settings and not own.acks_late
    app.config_from_object({"task_annotations": {}})
    assert app.settings and own.acks_late


def test_shared_tasks_are_configured_by_the_latest_app_before_or_after() -> None:
    before = shared_task(name="settings.shared.before")(lambda: None)
    try:
        app = App("shop", settings={"task_annotations": {"settings.*": {"max_retries": 8}}})
        assert app.settings and before.max_retries == 8
        after = shared_task(name="settings.shared.after")(lambda: None)
        assert after.max_retries == 8
    finally:
        for name in ("settings.shared.before", "settings.shared.after"):
            shared.pop(name, None)


def test_tasks_run_here_where_the_settings_say_so() -> None:
    app = App("shop", settings={"task_always_eager": True})

    @app.task
    def halve(number: int) -> float:
        return 1 / number

    assert halve.delay(2).get() == 0.5
    assert halve.delay(0).failed()
    assert [result.get() for result in halve.send_many([(1,), (2,)])] == [1.0, 0.5]
    app.config_from_object({"task_eager_propagates": True})
    with pytest.raises(Exception, match="division by zero"):
        halve.delay(0)


def test_modules_with_tasks_are_those_of_the_settings_and_those_that_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    for package, module in (("settings_pkg_a", "tasks"), ("settings_pkg_b", "other")):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").touch()
        (tmp_path / package / f"{module}.py").touch()
    app = App("shop", settings={"imports": "one", "include": ["two"]})
    app.autodiscover_tasks(lambda: ["settings_pkg_a", "settings_pkg_b"])
    assert list(app.task_modules()) == ["one", "two", "settings_pkg_a.tasks"]


def test_all_that_is_wrong_in_one_source_is_told_at_once() -> None:
    app = App("many")
    with pytest.raises(ConfigError) as caught:
        app.config_from_object(
            {
                "worker_concurrency": "three",
                "timezone": "UTC",
                "beat_schedule": {"a": 1},
                "tsk_queues": [],
                "task_default_queue": "a",
                "CELERY_DEFAULT_QUEUE": "b",
            }
        )
    told = str(caught.value).splitlines()
    assert [line.split()[0] for line in told[:2]] == ["worker_concurrency", "beat_schedule"]
    assert "did you mean task_queues" in told[2] and "same setting" in told[3] and len(told) == 4
    assert app.conf.timezone == "UTC" and app.conf.worker_concurrency is None


def test_who_changes_settings_in_place_is_told_how_to() -> None:
    app = App("conf", broker="memory://conf")
    with pytest.raises(ConfigError, match="config_from_object"):
        app.conf.update(timezone="Europe/Berlin")
    with pytest.raises(ConfigError, match="config_from_object"):
        app.conf["timezone"] = "Europe/Berlin"
    with pytest.raises(ConfigError, match="config_from_object"):
        app.conf.timezone = "Europe/Berlin"
    app.config_from_object({"timezone": "Europe/Berlin"})
    assert app.conf.timezone == "Europe/Berlin"


def test_settings_do_not_tell_passwords_and_none_is_what_is_usual() -> None:
    app = App("quiet", broker="amqp://user:secret@host//")
    app.config_from_object({"task_routes": None, "task_annotations": None, "task_queues": None})
    assert "secret" not in repr(app.conf) and "broker_url" in repr(app.conf)
    assert app.conf.task_queues == () and app.conf.task_routes is None
