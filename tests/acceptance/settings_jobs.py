"""Tasks whose settings are a module's with celery's old names."""

import os
import time

from queue_core.worker import App

app = App("settings_jobs")
app.config_from_object("settings_of_old")


@app.task
def divide(a, b):
    return a / b


@app.task
def error_handler(task_id):
    result = app.AsyncResult(task_id)
    print("handled", result.state, result.args, flush=True)


@app.task(name="settings_jobs.now")
def now():
    return time.time()


@app.task
def sleep(seconds):
    time.sleep(seconds)


@app.task
def pid():
    return os.getpid()


@app.task
def some_settings():
    return [app.settings.worker_concurrency, now.rate_limit]
