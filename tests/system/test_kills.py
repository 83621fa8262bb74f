"""Any single process may be killed while documents come in: every one that was accepted is searchable in the end."""

import os
import signal
import threading
import time
import uuid
from typing import Any

import httpx
import pytest

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

DOCUMENTS = 30
READY_SECONDS = 120
VICTIMS = ("ingestion", "embedding", "retrieval", "agent", "crew", "edge", "gateway", "postgres", "nats", "seaweedfs")


class Uploader(threading.Thread):
    """Uploads documents one after the other and keeps the ids it was given an OK for; tries again when refused."""

    def __init__(self, url: str, store: str) -> None:
        super().__init__()
        self.accepted: list[str] = []
        self.some = threading.Event()
        self._url = url
        self._store = store

    def run(self) -> None:
        for number in range(DOCUMENTS):
            self.accepted.append(self._upload(f"Chapter {number}. " + f"Sentence {number} of the log book. " * 40))
            if len(self.accepted) == DOCUMENTS // 3:
                self.some.set()

    def _upload(self, content: str) -> str:
        end = time.monotonic() + READY_SECONDS
        while time.monotonic() < end:
            try:
                body = {"content": content, "vector_store_id": self._store}
                response = httpx.post(f"{self._url}/api/v1/documents", json=body, timeout=30)
            except httpx.TransportError:
                time.sleep(0.2)
                continue
            if response.status_code == 200:
                return str(response.json()["id"])
            assert response.status_code >= 500 or response.status_code == 429, response.text
            time.sleep(0.2)
        raise AssertionError("no upload was accepted for two minutes")


@pytest.mark.parametrize("victim", VICTIMS)
def test_killing_a_process_loses_no_document(mesh: Any, victim: str) -> None:
    store = f"kill-{victim}-{uuid.uuid4().hex[:8]}"
    httpx.post(f"{mesh.url}/api/v1/vector_stores", json={"id": store}, timeout=30).raise_for_status()
    uploader = Uploader(mesh.url, store)
    uploader.start()
    assert uploader.some.wait(READY_SECONDS)
    before = mesh.state().parts[victim]
    os.kill(before.process.pid, signal.SIGKILL)
    uploader.join(READY_SECONDS)
    assert len(uploader.accepted) == DOCUMENTS
    states = settle(mesh.url, store)
    # An upload whose answer was cut off may have been accepted all the same: sent again, it is found to be there.
    assert set(uploader.accepted) == states.keys()
    assert set(states.values()) == {"DOCUMENT_STATE_READY"}
    after = mesh.state().parts[victim]
    assert after.process != before.process
    assert after.restarts == before.restarts + 1


def settle(url: str, store: str) -> dict[str, str]:
    """State by id of every document in the store, once none is on its way any more."""
    end = time.monotonic() + READY_SECONDS
    states: dict[str, str] = {}
    while time.monotonic() < end:
        time.sleep(0.5)
        try:
            response = httpx.get(
                f"{url}/api/v1/documents", params={"vector_store_id": store, "page_size": 1000}, timeout=10
            )
        except httpx.TransportError:
            continue
        if response.status_code == 200:
            states = {each["id"]: each["state"] for each in response.json()["documents"]}
            if not set(states.values()) - {"DOCUMENT_STATE_READY", "DOCUMENT_STATE_FAILED"}:
                break
    return states
