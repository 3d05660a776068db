"""What is written: files in one step, shards, artifacts, completion records, and whose they are."""
