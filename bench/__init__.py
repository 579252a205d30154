"""The benchmark suite: the same questions to motoolsd and to its peers, in interleaved rounds.

Run it with `make bench` or `python -m bench`. Ratios within one run mean something; absolute figures are the machine's.

The modules, in the order in which one uses the other: `cells` (what a figure belongs to), `scale` (how much of it),
`keys`, `peers`, `workloads` (descriptions, no code), `processes` and `measure` (workers and their clocks), `proof`,
`scenarios` (what is no plain workload), `suite` (what a run consists of), `rounds`, `ratios`, `machine`, `report` and
`plots`.
"""
