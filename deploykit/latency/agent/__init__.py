"""The measuring agent: what runs on the machine that is measured, this one or another.

It needs Python 3.9, numpy and the runtimes of the files, nothing of deploykit: ``deploykit.latency.worker`` packs this
folder into one file, ``agent.pyz``, which is copied to the machine and run as ``python agent.pyz [PLAN.json]``; without
an argument the plan comes on stdin. Every answer is one JSON object in a line on stdout, written at once, so that what
was measured survives the end of the agent. Exit code 0: all that was asked for was tried; 1: it ended early.

The agent itself only starts one process for each start-up and one for the steady state of all, one after the other.

Plan::

    {"agent": 1,
     "phases": ["startup", "steady", "profile"],         any of them
     "affinity": "auto" | [cores] | null,                 auto: idle cores, one a thread; null: not pinned
     "limits": {min_runs, min_seconds, max_seconds, precision_target (a share, or null), warmup_runs, warmup_seconds,
                max_warmup_seconds, warmup_change, block_seconds, startup_runs, startup_seconds, profile_runs, seed},
     "subjects": [{"name": ..., "path": FILE, "target": "onnx" | "tflite" | "coreml" | ..., "threads": 1,
                   "accelerator": "cpu",                  coreml also: all, cpu+gpu, cpu+neural-engine
                   "inputs": [{TENSOR: FILE.npy}, ...],   used in turn
                   "options": {...},                      onnx: entries of the session's configuration
                   "opener": null | "package.module:function",
                   "arguments": {...},                    for the opener alone
                   "profiled": {...}}]}                   what of these is another while it is profiled

An opener, for what is no file of a known target, is called with its subject and returns an object with ``runtime``
(text), ``run()``, ``close()``, and if it likes ``steps()``, mean seconds by step since it was last asked, and
``profile(runs)``, rows as in ``operations``. Importing its module counts as starting the process.

Events, each with ``"event"``; seconds are on one clock that starts with the agent:

- ``hello``: agent, python, machine (the fields of ``latency_records.Machine``), runtimes (name to version), affinity.
- ``conditions``: the fields of ``latency_records.Conditions``; at both ends and between blocks.
- ``opening``: phase, subject. What happens next happens to it.
A subject is started several times, each in a process of its own, and says the next four events each time:

- ``started``: subject, seconds from the start of the process until it can open a file.
- ``opened``: subject, seconds, cold (the first time in this process), cold_cache (the file was not in the page cache).
- ``first``: subject, seconds of the first inference.
- ``memory``: subject, peak_bytes of resident memory above that before the file was opened.
- ``warm``: subject, runtime, runs, seconds, stable (the running median was steady at the end).
- ``samples``: subject, session, block, starts_s, samples_s, steps. One block of consecutive runs. By run as well, or
  empty where the system does not say: away_s, in which another program had the core, minor_faults and major_faults.
- ``stopped``: subject, why (a ``latency_records.Stopped``), interval_s of the median.
- ``operations``: subject, rows of name, operation, seconds of one inference, values and reads (names of the
  tensors that it makes and takes), modules.
- ``problem``: subject (or null: the process of several), phase, message. The others go on.
- ``end``: complete, ended (why, where it is not).
"""

AGENT = 1
