"""`make bench`: Lockstep beside what people use today, on real data, measured from outside.

    python -m bench [--rounds 5] [--scale 1.0] [--only storing,sizes,stopping] [--resume]

Three chapters: `storing` (capture, restore, bytes kept), `sizes` (what grows with the data) and
`stopping` (how long a service is away). Every measurement is appended to .bench/results.jsonl;
docs/benchmarks.md and docs/benchmarks.svg are made from that file alone.
"""
