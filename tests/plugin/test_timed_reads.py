"""What is read of a user while they wait: the same by the short way, in this thread where that is safe, and no more."""

import threading
from datetime import UTC, datetime

import pytest

from rlhi_plugin.durability import TimedConsents, TimedPersonas
from rlhi_plugin.errors import StoreError, StoreTimeoutError
from rlhi_plugin.privacy.consent import ConsentCache
from rlhi_plugin.records import ConsentDecision, Evidence, Persona, PersonaStatement, Purpose
from rlhi_plugin.stores import SQLStore, open_store
from rlhi_plugin.stores.engine import open_engine
from rlhi_plugin.stores.late_store import LateStore
from rlhi_plugin.stores.shortcuts import shortcut

USER, OTHER = "u_1", "u_2"


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def url(request, tmp_path):
    return f"sqlite:///{tmp_path}/a.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")


def _decide(store, *, granted=False, user=USER, purpose=Purpose.LOG, minute=0):
    at = datetime(2026, 1, 1, 0, minute, tzinfo=UTC)
    store.put_consent(ConsentDecision(user_id=user, purpose=purpose, granted=granted, decided_at=at))


def _persona(text, user=USER):
    statement = PersonaStatement(text=text, evidence=(Evidence(conversation_id="t", message_id="m", quote="shorter"),))
    return Persona(user_id=user, statements=(statement,), builder="test")


def test_the_short_way_reads_what_the_protocol_reads(url):
    with open_store(url) as store:
        store.forget(USER)
        store.forget(OTHER)
        for granted, minute in ((True, 2), (False, 1), (True, 0)):
            _decide(store, granted=granted, minute=minute)
        _decide(store, purpose=Purpose.TRAIN)
        _decide(store, user=OTHER)
        for text in ("Likes it short.", "Likes it long."):
            store.put_persona(_persona(text))
        for user in (USER, OTHER, "u_3"):
            assert store.consents_within(user, 5.0) == store.consents(user)
            assert store.get_persona_within(user, 5.0) == store.get_persona(user)
            assert store.forgotten_at_within(user, 5.0) == store.forgotten_at(user)
        stones = {stone.user_id: stone.forgotten_at for stone in store.tombstones()}
        assert {user: store.forgotten_at(user) for user in (USER, OTHER, "u_3")} == {**stones, "u_3": None}
        assert store.consents(USER)[Purpose.LOG].granted


class Noting(SQLStore):
    """Notes the threads in which it is read."""

    def __init__(self, engine):
        super().__init__(engine)
        self.threads = set()

    def _note(self):
        self.threads.add(threading.current_thread().name)

    def consents(self, user_id):
        self._note()
        return super().consents(user_id)

    def consents_within(self, user_id, limit_s):
        self._note()
        return super().consents_within(user_id, limit_s)

    def get_persona(self, user_id):
        self._note()
        return super().get_persona(user_id)

    def get_persona_within(self, user_id, limit_s):
        self._note()
        return super().get_persona_within(user_id, limit_s)


@pytest.mark.parametrize(("may_hang", "where"), [(False, {"MainThread"}), (True, {"rlhi-consent", "rlhi-persona"})])
def test_a_file_is_read_in_the_callers_thread_unless_its_disk_may_hang(tmp_path, may_hang, where):
    with Noting(open_engine(f"sqlite:///{tmp_path}/a.db", create=True)) as store:
        _decide(store)
        consents = TimedConsents(store, timeout_s=2.0, may_hang=may_hang)
        assert not consents.consents(USER)[Purpose.LOG].granted
        assert consents.forgotten_at(USER) is None
        assert TimedPersonas(store, timeout_s=2.0, may_hang=may_hang).get_persona(USER) is None
        assert store.threads == where


def test_who_says_otherwise_what_is_read_is_asked(tmp_path):
    class Denying(SQLStore):
        def consents(self, user_id):
            denied = ConsentDecision(user_id=user_id, purpose=Purpose.LOG, granted=False, decided_at=datetime.now(UTC))
            return {Purpose.LOG: denied}

        def tombstones(self):
            raise AssertionError("nobody was forgotten")

        def forgotten_at(self, user_id):
            return datetime(2026, 1, 1, tzinfo=UTC) if user_id == OTHER else None

    with Denying(open_engine(f"sqlite:///{tmp_path}/a.db", create=True)) as store:
        assert shortcut(store, "consents", "consents_within") is None
        consents = TimedConsents(store, timeout_s=2.0)
        assert not consents.consents(USER)[Purpose.LOG].granted
        assert consents.forgotten_at(OTHER) is not None
        assert consents.forgotten_at(USER) is None
        store.get_persona = lambda user_id: _persona("From the object.", user_id)
        found = TimedPersonas(store, timeout_s=2.0).get_persona(USER)
        assert found.statements[0].text == "From the object."


def test_a_store_that_can_only_list_the_forgotten_is_asked_for_the_list(tmp_path):
    class Listing(SQLStore):
        def tombstones(self):
            return super().tombstones()

    with Listing(open_engine(f"sqlite:///{tmp_path}/a.db", create=True)) as store:
        store.forget(OTHER)
        cache = ConsentCache(TimedConsents(store, timeout_s=2.0), quiet=True)
        assert cache.may_hold_refused(OTHER)
        assert not cache.may_hold_refused(USER)


def test_the_tombstones_of_others_are_not_read(tmp_path):
    with open_store(f"sqlite:///{tmp_path}/a.db") as store:
        store.forget(OTHER)
        cache = ConsentCache(TimedConsents(store, timeout_s=2.0), quiet=True)
        store.tombstones = None
        assert cache.may_hold_refused(OTHER)
        assert not cache.may_hold_refused(USER)


def test_a_reader_that_others_hold_up_gives_up_in_time(tmp_path):
    with open_store(f"sqlite:///{tmp_path}/a.db") as store:
        personas = TimedPersonas(store, timeout_s=0.1)
        assert personas.get_persona(USER) is None
        with store._reads._lock, pytest.raises(StoreTimeoutError):
            personas.get_persona(USER)
        with pytest.raises(StoreTimeoutError, match="hung within"):
            personas.get_persona(USER)


def test_a_damaged_persona_is_named_by_either_way(tmp_path):
    with open_store(f"sqlite:///{tmp_path}/a.db") as store:
        store.put_persona(_persona("Likes it short."))
        with store._writer.begin() as connection:
            connection.exec_driver_sql("UPDATE rlhi_personas SET body = '{'")
        for read in (lambda: store.get_persona(USER), lambda: store.get_persona_within(USER, 1.0)):
            with pytest.raises(StoreError, match="damaged"):
                read()


def test_a_store_that_is_not_open_yet_is_opened_in_a_thread(tmp_path):
    store = LateStore(f"sqlite:///{tmp_path}/a.db")
    consents = TimedConsents(store, timeout_s=2.0)
    assert not store.reads_in_time
    assert consents.consents(USER) == {}
    assert store.reads_in_time
    assert consents.consents(USER) == {}
    store.close()


def test_users_who_come_together_each_get_their_own(tmp_path):
    users = [f"u_{number}" for number in range(32)]
    with open_store(f"sqlite:///{tmp_path}/a.db") as store:
        for number, user in enumerate(users):
            _decide(store, user=user, granted=number % 2 == 0)
            store.put_persona(_persona(f"Likes {number}.", user))
        together, wrong = threading.Barrier(len(users)), []

        def ask(number, user):
            together.wait()
            for _ in range(20):
                granted = store.consents_within(user, 10.0)[Purpose.LOG].granted
                said = store.get_persona_within(user, 10.0).statements[0].text
                if (granted, said) != (number % 2 == 0, f"Likes {number}."):
                    wrong.append((user, granted, said))

        threads = [threading.Thread(target=ask, args=one) for one in enumerate(users)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong


def test_one_read_that_fails_is_nobody_elses(tmp_path):
    with open_store(f"sqlite:///{tmp_path}/a.db") as store:
        store.put_persona(_persona("Likes it short."))
        with store._writer.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE rlhi_consent RENAME TO gone")
        with pytest.raises(StoreError, match="consent"):
            store.consents_within(USER, 1.0)
        assert store.get_persona_within(USER, 1.0).statements[0].text == "Likes it short."
