"""Everything of a user goes, everybody else's stays, and what learned from it is named."""

import fcntl
import gzip
import json
import threading
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from rlhi_adapters import registry as adapters
from rlhi_plugin.errors import ConfigError, StoreError
from rlhi_plugin.logs import read_conversations, write_conversations
from rlhi_plugin.privacy.consent import ConsentCache
from rlhi_plugin.privacy.forgetting import Places, forget_user, is_known
from rlhi_plugin.privacy.journals import erase_lines
from rlhi_plugin.privacy.policy import ConsentPolicy
from rlhi_plugin.privacy.tombstones import read_tombstones
from rlhi_plugin.privacy.traces import count_lines, default_registry, find_adapters, find_runs
from rlhi_plugin.records import ConsentDecision, FeedbackEvent, FeedbackKind, Message, Persona, Purpose

ME, YOU = "u_" + "a" * 32, "u_" + "b" * 32
NOW = datetime(2026, 3, 1, tzinfo=UTC)


def fill(store):
    for user in (ME, YOU):
        store.append(f"t-{user}", user_id=user, messages=[Message(id="1", role="user", content=f"hi from {user}")])
        store.put_persona(Persona(user_id=user, statements=(), builder="b"))
        store.put_consent(ConsentDecision(user_id=user, purpose=Purpose.TRAIN, granted=True, decided_at=NOW))
        store.record_feedback(
            FeedbackEvent(
                event_id=user, conversation_id=f"t-{user}", user_id=user, kind=FeedbackKind.COPY, created_at=NOW
            )
        )
    store.append("nobody", user_id=None, messages=[Message(id="1", role="user", content="hi")])


def journal(folder, name="a.jsonl"):
    folder.mkdir(exist_ok=True, parents=True)
    rows = [{"user_id": user, "n": n, "deep": {"text": "x" * 50}} for n in range(3) for user in (ME, YOU, None)]
    body = "".join(json.dumps(row) + "\n" for row in rows).encode()
    (folder / name).write_bytes(gzip.compress(body) if name.endswith(".gz") else body)
    return folder / name


def run_directory(root, name, users):
    run = root / name
    (run / "dropped").mkdir(parents=True)
    (run / "manifest.json").write_text("{}")
    (run / "conversations.jsonl").write_text("".join(json.dumps({"user_id": user}) + "\n" for user in users))
    (run / "pairs.jsonl").write_text("".join(json.dumps({"user_id": user}) + "\n" for user in users[:1]))
    (run / "dropped" / "filter.jsonl").write_text("")
    return run


def test_all_of_it_goes_and_the_others_stay(store, tmp_path):
    fill(store)
    told = []
    file = journal(tmp_path / "journal" / "deep")
    archive = journal(tmp_path / "journal", "b.jsonl.gz")
    log = tmp_path / "logs.jsonl"
    write_conversations(log, list(store.conversations()))
    places = Places(
        journals=[tmp_path / "journal"], logs=[log], caches=[told.append], registry=tmp_path / "no registry"
    )
    result = forget_user(store, ME, places)
    files = {"journal lines": 6, "lines of exported logs": 1}
    assert dict(result.deleted) == {"conversations": 1, "personas": 1, "consents": 1, "feedback": 1, **files}
    assert told == [ME]
    assert not is_known(store, ME)
    assert is_known(store, YOU)
    assert [t.user_id for t in store.conversations()] == [YOU, None]
    for left in (file.read_bytes(), gzip.decompress(archive.read_bytes())):
        assert ME.encode() not in left
        assert left.count(YOU.encode()) == 3
        assert left.count(b"\n") == 6
    assert [c.user_id for c in read_conversations(log)] == [YOU, None]
    assert [stone.user_id for stone in read_tombstones(log)] == [ME]
    again = forget_user(store, ME, places)
    assert sum(again.deleted.values()) == 0
    assert (result.erased, result.runs, result.adapters) == (True, [], [])


def test_who_refused_and_is_forgotten_is_not_logged_when_they_come_back(store, tmp_path):
    fill(store)
    consent = ConsentCache(store, ConsentPolicy())
    consent.withdraw(ME, Purpose.LOG)
    consent.withdraw(ME, Purpose.PERSONALISE)
    consent.grant(ME, Purpose.PERSONALISE)
    for _ in range(2):
        result = forget_user(store, ME, Places(registry=tmp_path, caches=[consent.forget]))
        assert result.refused == [Purpose.LOG]
        assert not consent.allows(ME, Purpose.LOG)
        assert set(store.consents(ME)) == {Purpose.LOG}


def test_a_file_without_the_user_is_not_touched(tmp_path):
    file = journal(tmp_path)
    before = file.stat()
    assert erase_lines(file, "u_" + "c" * 32) == 0
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


def test_a_journal_in_use_is_waited_for(tmp_path):
    file = journal(tmp_path)
    with file.open("ab") as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)
        erasing = threading.Thread(target=erase_lines, args=(file, ME))
        erasing.start()
        erasing.join(0.2)
        assert erasing.is_alive()
        writer.write(json.dumps({"user_id": YOU, "late": True}).encode() + b"\n")
        writer.flush()
        fcntl.flock(writer, fcntl.LOCK_UN)
    erasing.join(5)
    assert b"late" in file.read_bytes()
    assert ME.encode() not in file.read_bytes()


def test_mistakes_are_named(store, tmp_path):
    with pytest.raises(ConfigError, match="no folder"):
        forget_user(store, ME, Places(journals=[tmp_path / "absent"], registry=tmp_path))
    (tmp_path / "broken.jsonl.gz").write_bytes(b"\x1f\x8b" + b"x" * 30)
    with pytest.raises(StoreError, match="cannot erase"):
        erase_lines(tmp_path / "broken.jsonl.gz", ME)


def test_runs_that_hold_the_user_are_found(tmp_path):
    mine = run_directory(tmp_path, "1", [ME, ME, YOU])
    run_directory(tmp_path, "2", [YOU])
    deep = run_directory(tmp_path / "older", "3", [YOU, ME])
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "x.jsonl").write_text(json.dumps({"user_id": ME}))
    found = find_runs([tmp_path, tmp_path / "absent"], ME)
    assert [(run.path, dict(run.lines)) for run in found] == [
        (mine, {"conversations.jsonl": 2, "pairs.jsonl": 1}),
        (deep, {"conversations.jsonl": 1}),
    ]
    assert [run.path for run in find_runs([mine], ME)] == [mine]


def test_lines_are_counted_not_mentions(tmp_path):
    file = tmp_path / "x.jsonl"
    file.write_text(f'{{"a":"{ME}","b":"{ME}"}}\n{{"c":"{ME}x"}}\n{{"d":"{ME}"}}')
    assert count_lines(file, ME) == 2
    file.write_text("")
    assert count_lines(file, ME) == 0


def adapter(folder, name, **fields):
    record = {"adapter_id": name, "path": f"/a/{name}", "user_ids": [], "run_manifest": "/r/manifest.json", **fields}
    (folder / f"{name}.json").write_text(json.dumps(record))


def test_adapters_that_learned_from_the_user_and_their_heirs(tmp_path):
    run = run_directory(tmp_path / "runs", "1", [ME])
    registry = tmp_path / "registry"
    registry.mkdir()
    adapter(registry, "direct", user_ids=[YOU, ME], stage="promoted")
    adapter(registry, "by-run", run_manifest=str(run / "manifest.json"))
    adapter(registry, "heir", parent="direct", stage="retired")
    adapter(registry, "heir-of-heir", parent="heir")
    adapter(registry, "other", user_ids=[YOU], parent=None)
    (registry / "broken.json").write_text("{")
    found = find_adapters(registry, ME, find_runs([tmp_path / "runs"], ME))
    assert {a.adapter_id: (a.stage, a.why.split(" ")[0]) for a in found} == {
        "broken": ("unreadable", "its"),
        "by-run": ("candidate", "made"),
        "direct": ("promoted", "trained"),
        "heir": ("retired", "continues"),
        "heir-of-heir": ("candidate", "continues"),
    }
    assert find_adapters(tmp_path / "absent", ME) == []


def test_the_registry_is_where_the_adapters_package_has_it_and_looks_like_this(tmp_path, monkeypatch):
    assert default_registry() == adapters.default_registry()
    monkeypatch.setenv("RLHI_REGISTRY", str(tmp_path))
    assert default_registry() == adapters.default_registry() == tmp_path
    record = adapters.AdapterRecord(
        adapter_id="a1", path="/a", weights_digest="0" * 64, config_digest="0" * 64, base_model="m",
        base_digest="0" * 64, persona_prompt_digest="0" * 64, run_manifest="/r/manifest.json", user_ids=(ME,),
        created_at=NOW,
    )  # fmt: skip
    (Path(tmp_path) / "a1.json").write_text(record.to_json())
    found = find_adapters(default_registry(), ME)
    assert [(a.adapter_id, a.stage, a.path) for a in found] == [("a1", "candidate", "/a")]


def test_a_store_that_could_not_rewrite_its_files_is_believed(store, tmp_path):
    fill(store)
    whole = store.forget
    store.forget = lambda user_id: replace(whole(user_id), erased=False)
    assert not forget_user(store, ME, Places(registry=tmp_path)).erased
