"""The benchmark suite: the same questions to motoolsd and to its peers, in interleaved rounds.

Run it with `make bench` or `python -m bench`. Ratios within one run mean something; absolute figures are the machine's.
"""
