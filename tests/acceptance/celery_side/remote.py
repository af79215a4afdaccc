"""Ask and tell one worker with celery's own client: ``python remote.py NODE TASK_ID QUEUE``.

Prints one JSON object: what each method of celery's ``inspect`` and ``control`` returned.
"""

import json
import sys

from program import app

node, task_id, queue = sys.argv[1:]
asked = app.control.inspect([node], timeout=10, limit=1)
told = {"destination": [node], "reply": True, "timeout": 10, "limit": 1}
control = app.control
said = {
    "ping": asked.ping(),
    "stats": asked.stats(),
    "active": asked.active(),
    "reserved": asked.reserved(),
    "scheduled": asked.scheduled(),
    "registered": asked.registered(),
    "active_queues": asked.active_queues(),
    "query_task": asked.query_task(task_id),
    "conf": asked.conf(),
    "report": asked.report(),
    "clock": asked.clock(),
    "memsample": asked.memsample(),
    "rate_limit": control.rate_limit("jobs.start", "10/m", **told),
    "time_limit": control.time_limit("jobs.add", soft=20, hard=30, **told),
    "pool_grow": control.pool_grow(1, **told),
    "pool_shrink": control.pool_shrink(1, **told),
    "pool_restart": control.pool_restart(**told),
    "add_consumer": control.add_consumer(f"{queue}-c", **told),
    "cancel_consumer": control.cancel_consumer(f"{queue}-c", **told),
    "revoke": control.revoke(task_id, **told),
    "revoked": asked.revoked(),
    "terminate": control.terminate(task_id, signal="SIGKILL", **told),
    "shutdown": control.shutdown(destination=[node]),
}
print(json.dumps(said))
