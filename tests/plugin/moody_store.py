"""A real SQLite store that fails or hangs where it is told to."""

import threading
import time

from rlhi_plugin.errors import StoreError
from rlhi_plugin.stores import open_store


class MoodyStore:
    """Passes everything on to an `SQLStore`, unless `error` is set (raised) or `hang` is (waited for)."""

    def __init__(self, url):
        self.inner = open_store(url)
        self.url = url
        self.error = None
        self.go_on = threading.Event()
        self.go_on.set()
        self.appends = 0

    def fail(self, error=None):
        self.error = error or StoreError("the store is down")

    def mend(self):
        self.error = None
        self.go_on.set()

    def hang(self):
        self.go_on.clear()

    def append(self, conversation_id, *, user_id, messages):
        self.appends += 1
        self.go_on.wait()
        if self.error:
            raise self.error
        return self.inner.append(conversation_id, user_id=user_id, messages=messages)

    def last_message_id(self, conversation_id):
        self.go_on.wait()
        return self.inner.last_message_id(conversation_id)

    def conversations(self, *, user_id=None):
        return self.inner.conversations(user_id=user_id)

    def get_persona(self, user_id):
        self.go_on.wait()
        return self.inner.get_persona(user_id)

    def put_persona(self, persona):
        self.inner.put_persona(persona)

    def close(self):
        self.go_on.set()
        self.inner.close()


def until(condition, seconds=10.0):
    """Wait for a condition; a test that waits in vain fails."""
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, "waited in vain"
        time.sleep(0.01)


def contents(store):
    """Contents by conversation."""
    return {c.conversation_id: [m.content for m in c.messages] for c in store.conversations()}
