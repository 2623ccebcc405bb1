"""Data sets: what there is (index, eda), and face clips cut out of it (build, shards, verify)."""
