"""Who works on the shards: this process, the workers of a deployment, a Dask cluster."""
