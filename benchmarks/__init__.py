"""What queue_core, the bare drivers and other libraries make of the same work, in one run.

``python -m benchmarks --help``. The parts:

- `benchmarks.questions`: one module per question. Each has a side that runs in a contestant's
  process (``measure``) and one that runs in the runner (``ask``).
- `benchmarks.contestants`: one module per contestant, with a `benchmarks.adapter.Adapter` for each
  broker. They run in processes of their own (`benchmarks.contest`), so that a contestant may live
  in another environment, and the runner imports none of them.
- `benchmarks.runner`: interleaved rounds of questions and contestants.
- `benchmarks.results`, `benchmarks.goals`, `benchmarks.report`: medians, ratios, tables, the plot.

The rules: the same body for everybody; durable queues, persistent messages, at least once; a
server's settings are the same for all; every row says what it did.
"""
