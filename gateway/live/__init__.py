"""What replicas share in Redis and may lose."""
