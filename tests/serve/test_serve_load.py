"""Many clients at once: every upload is answered and done once, or refused with 429."""

from __future__ import annotations

import http.client
import threading
import time
from collections import Counter

CLIENTS = 12
SECONDS = 1.5


def test_many_clients_at_once(run_server, variant):
    server = run_server("--queue", "4", "--workers", "2").wait_ready()
    answers, ids, errors = Counter(), [], []
    end = time.monotonic() + SECONDS
    numbers = iter(range(10**6))

    def upload():
        while time.monotonic() < end:
            try:
                answer = server.post(variant(1000 + next(numbers)))
            except (OSError, http.client.HTTPException) as error:
                errors.append(error)
                return
            answers[answer.status] += 1
            if answer.status == 202:
                ids.append(answer.json["id"])
            else:
                time.sleep(0.1)

    clients = [threading.Thread(target=upload) for _ in range(CLIENTS)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    assert not errors
    assert answers.keys() <= {202, 429}
    assert len(set(ids)) == len(ids) == answers[202] > 0
    listed = [job["id"] for job in server.get("/v1/jobs?limit=1000").json["jobs"]]
    assert sorted(listed) == sorted(ids)
    for job_id in ids:
        assert server.wait(job_id)["state"] == "done"
    text = server.get("/metrics").body.decode()
    assert f'tellframe_jobs_ended_total{{outcome="done"}} {len(ids)}\n' in text
    assert server.uploads() == []
    server.end()
