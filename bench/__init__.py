"""What a call costs: this gateway beside a bare proxy, other proxies, and no proxy at all, in one run."""
