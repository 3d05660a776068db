"""The stages: plain functions over one shard, resumable by their completion records.

Each stage has a job (what to do, JSON-able, the same for all shards) and a function that does it
for one shard. Tasks and flows only call these.
"""
